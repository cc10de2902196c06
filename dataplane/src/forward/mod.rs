//! Rewriting a frame for its real server, and what comes back for its client.
//!
//! | Forwarding method | Modules |
//! |---|---|
//! | DR | `direct` |
//! | NAT | [`rewrite`] |
//! | TUN | [`tunnel`]; [`fragment`] for what is too long |
//! | FULLNAT | [`rewrite`]; [`toa`] or [`proxy`] for the client's address; [`nat64`] between IP versions |
//! | SYN proxy, PROXY protocol | [`sequence`] |
//! | all of them | [`icmp`] for errors, `reset` for TCP without a connection, from `segment` |
//!
//! Functions over packets, without state. What is the same for every packet of a connection is
//! computed once, into a small plain template: [`rewrite::Rewrite`], [`tunnel::Template`].

pub(crate) mod direct;
pub mod fragment;
pub mod icmp;
mod insert;
pub mod nat64;
pub mod proxy;
pub(crate) mod reset;
pub mod rewrite;
pub(crate) mod segment;
pub mod sequence;
pub mod toa;
pub mod tunnel;

pub(crate) use insert::packet_len;
