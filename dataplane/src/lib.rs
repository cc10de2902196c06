//! The packet path of the appliance: from a received frame to a transmitted
//! one.
//!
//! Read it in a packet's order: [`worker`] runs the pinned thread, over a
//! [`device`]; [`director`] takes a burst through parsing ([`wire`]), the
//! connection table ([`conn`]), the choice of a real server ([`scheduler`]) and
//! the rewriting ([`forward`]). What it knows of virtual and real servers
//! ([`service`]) comes in an immutable [`snapshot`]; what it counts is in
//! [`counters`]. Packets of another worker's connections change hands in [`handoff`]. [`bpf`] and [`xsk`] are the kernel's side.
//!
//! This crate knows nothing of tokio, configuration files, health checks or VRRP.

#[expect(unsafe_code, reason = "layouts shared with the program in the kernel")]
pub mod bpf;
pub mod conn;
pub mod counters;
pub mod device;
pub mod director;
pub mod flow;
pub mod forward;
mod fragments;
pub mod handoff;
pub mod limits;
pub mod matching;
pub mod persistence;
pub mod ports;
#[expect(
    unsafe_code,
    reason = "instructions of some processors; see the module"
)]
mod processor;
pub mod routes;
pub mod scheduler;
pub mod service;
pub mod snapshot;
#[expect(unsafe_code, reason = "memory shared between threads without a lock")]
mod spsc;
pub mod wire;
pub mod worker;
#[expect(unsafe_code, reason = "memory shared with the kernel; see the module")]
pub mod xsk;
