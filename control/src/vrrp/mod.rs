//! VRRP: which director has the addresses.
//!
//! `packet` reads and writes advertisements, `ah` what may authenticate them, `machine` is one virtual router,
//! sans-I/O; `router` holds the instances of a configuration, their sync
//! groups and what they track. The controller owns the router; sockets are
//! in `run`.

pub mod ah;
#[cfg(test)]
mod dissector;
pub mod machine;
pub mod packet;
pub mod router;
pub mod script;
