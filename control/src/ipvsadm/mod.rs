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

pub mod command;
mod connections;
mod edits;
mod import;
mod line;
mod list;
pub mod names;
mod options;
mod parse;
mod save;
mod sort;
pub mod table;
pub mod usage;
mod validity;
mod value;

#[cfg(test)]
mod tests;

pub use command::Command;
pub use connections::{connection_header, connection_row};
pub use edits::{EditFailure, edit, key};
pub use import::{import, is_saved};
pub use list::list;
pub use parse::{UsageError, parse, parse_line};
pub use save::save;
