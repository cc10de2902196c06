//! The packet path of the appliance.

#[expect(
    unsafe_code,
    reason = "the layouts it shares with the program in the kernel"
)]
pub mod bpf;
pub mod conn;
pub mod counters;
pub mod device;
pub mod service;
pub mod wire;
#[expect(unsafe_code, reason = "memory shared with the kernel")]
pub mod xsk;
