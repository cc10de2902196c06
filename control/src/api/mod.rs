//! The control socket: HTTP over a Unix socket, so that `curl
//! --unix-socket /run/appliance.sock http://appliance/api/v1/services` works
//! as well as `appliance show`.
//!
//! ```text
//!   client ──HTTP──▶ server ──Query──▶ control loop
//!      ▲                │ ◀──oneshot──────┘
//!      └──────JSON──────┘
//! ```
//!
//! The control loop owns all state and answers a [`Query`] by handing over a
//! copy ([`view`]); it never waits for a client. Whatever clients do (stall,
//! send garbage, come by the thousand) is dealt with in [`server`].
//!
//! [`http`] serves the same over TCP, for reading, with a status page and metrics.

pub mod client;
pub mod edit;
mod exposition;
pub mod http;
pub mod ipvs;
mod listing;
mod metrics;
mod page;
pub mod query;
pub mod server;
pub mod socket;
pub mod view;

#[cfg(test)]
pub(crate) mod example;

pub use query::Query;
