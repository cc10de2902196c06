//! A host as one of a configuration's real servers: `appliance realserver`.
//!
//! Three steps, of which only the ends look at the system:
//!
//! - [`Needs::of`] finds what the file's virtual servers need on a host with
//!   certain addresses;
//! - [`Host::look`] reads what the host has: links, addresses, default routes,
//!   settings below `/proc/sys/net`;
//! - [`findings()`] compares the two. It does not matter who set the host up.
//!
//! [`up`] makes what is missing and writes each thing into a [`Record`] before
//! it does it; [`down`] takes back what the record has, and nothing else.
//! [`script()`] does the same as a program for hosts without this one.
//!
//! Not done here: default routes. NAT needs the one to the director, and a host
//! may well have a reason for another; it is only checked.

mod apply;
mod findings;
mod host;
mod needs;
mod record;
mod script;
#[cfg(test)]
mod tests;

pub(crate) use apply::{Places, down, up};
pub(crate) use findings::{Finding, findings};
pub(crate) use host::Host;
pub(crate) use needs::{Needs, Tunnelled};
pub(crate) use record::Record;
pub(crate) use script::script;
