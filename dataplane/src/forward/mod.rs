//! Rewriting a frame for its real server.

pub(crate) mod direct;
pub(crate) mod reset;
pub mod rewrite;
