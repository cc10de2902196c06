//! The packet generator that measures the appliance.
//!
//! - [`flows`]: which flows there are and what source each has.
//! - [`frame`]: the frame of a flow, as a template with the checksum sums of what does not vary.
//! - [`live`]: sends them from an interface, made in the kernel by `bpf/generate.bpf.c`.
//! - [`ring`]: measures the data plane alone, in this process, without interfaces.
//! - [`sink`]: the other end: counts and drops, in XDP.
//! - [`next_hop`], [`interface`]: what the kernel knows about the way there.
//! - [`cpu`]: binding to one.
//! - [`units`]: how rates, sizes and durations are written.
//!
//! Nothing here forwards, and nothing here parses what a peer sends.

pub mod cpu;
pub mod flows;
pub mod frame;
pub mod interface;
pub mod live;
pub mod next_hop;
pub mod ring;
pub mod sink;
pub mod units;
