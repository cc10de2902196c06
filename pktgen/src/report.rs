//! What the commands print with `--json`, which is also how `pktgen rfc2544` reads them.
//! Sizes and bytes are those of frames without the frame check sequence.

use serde::{Deserialize, Serialize};

use crate::handshake::Connections;
use crate::spread::Spread;

/// Of `pktgen tx`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    pub interface: String,
    /// Empty for a capture, as is the protocol.
    pub destination: String,
    pub protocol: String,
    /// 0 for a capture.
    pub flows: u32,
    pub size: String,
    /// Frames.
    pub sent: u64,
    /// Of these, the ones that the interface did not take.
    pub dropped: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub mpps: f64,
    pub gbit_per_second: f64,
    /// With `--handshakes`.
    pub connections: Option<Connections>,
}

/// Of `pktgen sink`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Received {
    pub interface: String,
    /// Frames of the generator that arrived.
    pub received: u64,
    pub bytes: u64,
    /// From the first frame looked at to the last; of a count, from the start to the end.
    pub seconds: f64,
    pub mpps: f64,
    pub gbit_per_second: f64,
    /// Frames that arrived but were not looked at, or with `--respond` not answered, because this process was too slow.
    pub missed: u64,
    /// Segments that were answered, with `--respond`.
    pub answered: Option<u64>,
    /// What was found in the frames; `None` when they were only counted.
    pub found: Option<Found>,
}

/// What frames said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Frames that were looked at.
    pub frames: u64,
    /// Frames that are no whole packets, by the headers.
    pub malformed: u64,
    pub bad_ip_checksums: u64,
    pub bad_l4_checksums: u64,
    /// Flows of which something arrived.
    pub flows: u64,
    /// Flows with a lower number than the highest, of which nothing arrived, though there was a whole round of all.
    pub silent_flows: u64,
    /// Flows that more than one server got.
    pub moved_flows: u64,
    /// Frames that another server got than the flow's first.
    pub moved_frames: u64,
    /// Frames missing before the last one of their flow.
    pub lost: u64,
    pub duplicates: u64,
    /// Frames behind a later one of their flow (RFC 4737 §3).
    pub reordered: u64,
    /// Frames of flows that are too many to follow.
    pub unfollowed: u64,
    pub servers: Vec<Server>,
    /// `None` with fewer than two servers.
    pub spread: Option<Spread>,
    /// `None` without a frame.
    pub latency: Option<Latency>,
}

/// A real server, as frames name it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub server: String,
    /// Flows whose first frame it got.
    pub flows: u64,
    /// Of all flows, 0 to 1.
    pub share: f64,
    /// By the weights.
    pub expected_share: f64,
    pub frames: u64,
}

/// One-way latency in microseconds, from the stamp to the arrival.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub frames: u64,
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// A rate for people: `0.853 Mpps`, `19.9 kpps`, `997 pps`.
#[must_use]
pub fn packets_per_second(mpps: f64) -> String {
    match mpps * 1e6 {
        rate if rate < 1e3 => format!("{rate:.0} pps"),
        rate if rate < 1e5 => format!("{:.1} kpps", rate / 1e3),
        _ => format!("{mpps:.3} Mpps"),
    }
}

/// Frames and bits per second, in millions and in 10^9.
#[must_use]
pub fn rates(frames: u64, bytes: u64, seconds: f64) -> (f64, f64) {
    if seconds > 0.0 {
        let bits = bytes as f64 * 8.0;
        (frames as f64 / seconds / 1e6, bits / seconds / 1e9)
    } else {
        (0.0, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short() {
        let texts = [0.000_997, 0.019_93, 0.8531, 5.2].map(packets_per_second);
        assert_eq!(texts, ["997 pps", "19.9 kpps", "0.853 Mpps", "5.200 Mpps"]);
        assert_eq!(rates(2_000_000, 250_000_000, 2.0), (1.0, 1.0));
        assert_eq!(rates(1, 60, 0.0), (0.0, 0.0));
    }
}
