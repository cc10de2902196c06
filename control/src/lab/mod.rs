//! `appliance lab`.
pub mod plan;
pub mod subnet;
