//! The packet generator that measures the appliance.
//!
//! - [`flows`]: which flows there are and what source each has.
//! - [`frame`]: the frame of a flow, as a template with the checksum sums of what does not vary.
//! - [`live`]: sends them from an interface, made in the kernel by `bpf/generate.bpf.c`.
//! - [`traffic`]: frames made here, [`user_space`]: sends them by AF_XDP.
//! - [`handshake`]: TCP connections without state, for connections per second.
//! - [`ring`]: measures the data plane alone, in this process, without interfaces.
//! - [`sink`]: the other end, counting and dropping all that arrives, in XDP.
//! - [`receive`]: the other end, taking the generator's frames alone, to count or to look at.
//! - [`verify`]: looks at them: checksums, servers, sequence, latency.
//! - [`spread`]: whether flows are spread over servers as the weights want it.
//! - [`report`]: the results, as the commands print them in JSON.
//! - [`rfc2544`]: measures a director with both ends.
//! - [`next_hop`], [`interface`]: what the kernel knows about the way there.
//! - [`cpu`]: binding to one.
//! - [`units`]: how rates, sizes and durations are written.
//!
//! Nothing here forwards.

pub mod cpu;
pub mod flows;
pub mod frame;
pub mod handshake;
pub mod interface;
pub mod live;
pub mod next_hop;
pub mod receive;
pub mod report;
pub mod rfc2544;
pub mod ring;
pub mod sink;
pub mod spread;
pub mod traffic;
pub mod units;
pub mod user_space;
pub mod verify;
