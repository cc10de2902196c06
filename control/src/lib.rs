//! The control plane of the appliance.
pub mod config;
pub mod health;
pub mod netlink;
pub mod lab;
pub mod api;
pub mod cli;
