//! The packet path of the appliance.

pub mod conn;
pub mod counters;
pub mod device;
pub mod service;
pub mod wire;
#[allow(unsafe_code)]
pub mod xsk;
