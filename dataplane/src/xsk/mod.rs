//! AF_XDP over `rustix` and `libc`: packet memory, rings, sockets, what the
//! driver says of an interface, and tap interfaces.
//!
//! Together with `bpf.rs`, `spsc.rs` and the prefetch helper this is the only place with
//! `unsafe` code.

pub mod ethtool;
mod ring;
pub mod socket;
pub mod tun;
pub mod umem;
