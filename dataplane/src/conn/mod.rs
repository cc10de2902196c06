//! Connections: the table, the states and their timeouts.

mod timeouts;

pub use timeouts::Timeouts;
