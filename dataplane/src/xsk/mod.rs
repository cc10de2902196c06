//! AF_XDP over `rustix` and `libc`: packet memory, rings, sockets, what the
//! driver says of an interface, and tap interfaces.
//!
//! ARCHITECTURE.md, decision 10, lists the places with `unsafe` code.

pub mod ethtool;
mod ring;
pub mod socket;
pub mod tun;
pub mod umem;
