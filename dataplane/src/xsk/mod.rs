//! AF_XDP over plain `libc`: packet memory, rings, sockets.
//!
//! Together with `bpf.rs`, the ring device and the prefetch helper this is the only place with
//! `unsafe` code.

pub mod umem;
