//! Rewriting a frame for its real server.

pub(crate) mod direct;
pub mod fragment;
pub mod icmp;
pub(crate) mod reset;
pub mod rewrite;
pub mod tunnel;
