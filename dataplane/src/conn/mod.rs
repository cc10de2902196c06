//! Connections: the table, its index and timers, the states.
//!
//! ```text
//!  hash ──► index: buckets of 8 (tag, entry) ──► table: one 64-byte entry a connection
//!                                                  │ next, prev
//!                                                  ▼
//!            wheel: 1024 slots of 256 ms  +  half-open lists, oldest first
//! ```

mod handshake;
mod index;
mod sctp;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod timeouts;
mod wheel;

pub use handshake::{Answer, Handshake, SCALE};
pub use index::Place;
pub(crate) use index::Places;
pub use sctp::Association;
pub use state::{Seen, Signal, State};
pub use table::{
    Candidate, Connection, ConnectionTable, Direction, EntryIndex, Lookup, New, Reply, TableFull,
    Way,
};
pub(crate) use table::{
    EXPIRED_TOGETHER, NoVacancy, ONE_PACKET_TIMEOUT, ReplyHalf, StraightConnections, WayWord,
};
pub use timeouts::Timeouts;
