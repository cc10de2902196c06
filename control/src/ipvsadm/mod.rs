//! ipvsadm(8) against the running appliance: its command line, its listings,
//! its errors.
//!
//! Scripts for LVS directors parse what ipvsadm prints and test how it ends,
//! so the layout, order, wording and exit statuses are those of ipvsadm 1.31
//! (`tests/ipvsadm/` has its outputs).
//!
//! ```text
//!   arguments ─ options ─ line ─ parse ─► Command ─► cli/ipvsadm.rs ─► control socket
//!   Table, connections ─ list, save, connections ─► text
//! ```
//!
//! Nothing here does I/O but [`names::System`]. What the appliance cannot do
//! is not decided here either: a valid command line may be refused by the
//! appliance.

pub(crate) mod command;
mod connections;
mod edits;
mod import;
mod line;
mod list;
pub(crate) mod names;
mod options;
mod parse;
mod save;
mod sort;
pub(crate) mod table;
pub(crate) mod usage;
mod validity;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use command::Command;
pub(crate) use connections::{connection_header, connection_row};
pub(crate) use edits::{EditFailure, edit};
pub(crate) use import::{import, is_saved};
pub(crate) use list::list;
pub(crate) use parse::{UsageError, parse, parse_line};
pub(crate) use save::save;
