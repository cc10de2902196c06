//! Rewriting a frame for its real server.

pub(crate) mod direct;
pub mod fragment;
pub mod icmp;
mod insert;
pub mod nat64;
pub mod proxy;
pub(crate) mod reset;
pub mod rewrite;
pub mod toa;
pub mod tunnel;
