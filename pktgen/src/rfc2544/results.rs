//! What a run finds. Its JSON is what `--compare` and `--from` read.

use std::fs;

use serde::{Deserialize, Serialize};

use super::search::Trial;
use crate::report::Latency;

/// Bytes of the frame check sequence, which RFC 2544 counts and a capture does not show.
pub const FCS: usize = 4;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// `pktgen 0.1.0`
    pub program: String,
    /// When it began, as HTTP writes dates.
    pub date: String,
    pub machine: Machine,
    pub setup: Setup,
    /// In the order of measuring: by flows, then by frame length.
    pub measurements: Vec<Measurement>,
}

/// Where it was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cpus: usize,
    pub kernel: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let mut models = processors
            .lines()
            .filter_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        Self {
            processor: models.next().unwrap_or("unknown processor").to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, Into::into),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// What was measured, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// Address and port that packets were sent to.
    pub virtual_server: String,
    pub protocol: String,
    /// `DR`, `NAT`, `TUN` or `FULLNAT`.
    pub method: String,
    /// IPVS's name; `None` when only interfaces were given.
    pub scheduler: Option<String>,
    /// As many as were expected to get something.
    pub real_servers: usize,
    /// How tester and director are connected.
    pub network: String,
    /// Of one trial.
    pub seconds: f64,
    /// Loss that counts as none, 0 to 1.
    pub tolerance: f64,
    /// How exactly rates were searched for, 0 to 1.
    pub resolution: f64,
}

impl Setup {
    /// `DR with wrr, 3 real servers`, as far as it is known.
    #[must_use]
    pub fn director(&self) -> String {
        let mut text = self.method.clone();
        if let Some(scheduler) = &self.scheduler {
            text += &format!(" with {scheduler}");
        }
        match self.real_servers {
            0 => {}
            1 => text += ", 1 real server",
            more => text += &format!(", {more} real servers"),
        }
        text
    }
}

/// The result for one number of flows and one frame length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    pub flows: u32,
    /// Frame length in bytes with the frame check sequence.
    pub frame: usize,
    /// Highest rate without loss, in millions of packets per second.
    pub mpps: f64,
    /// The same in 10^9 bits per second of frames with their check sequence.
    pub gbit_per_second: f64,
    /// No loss at the highest rate that the tester sends.
    pub by_tester: bool,
    pub trials: Vec<Trial>,
    pub latency: Vec<AtLoad>,
}

impl Measurement {
    /// Of a rate in packets per second.
    #[must_use]
    pub fn new(flows: u32, frame: usize, rate: f64) -> Self {
        Self {
            flows,
            frame,
            mpps: rate / 1e6,
            gbit_per_second: rate * frame as f64 * 8.0 / 1e9,
            by_tester: false,
            trials: Vec::new(),
            latency: Vec::new(),
        }
    }
}

/// A trial at a share of the highest rate, every packet looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AtLoad {
    /// Percent of the highest rate.
    pub load: u32,
    pub sent: u64,
    /// Packets that did not come.
    pub lost: u64,
    /// Packets that came faster than the sink could look at them.
    pub missed: u64,
    /// Malformed, or with a wrong checksum.
    pub bad: u64,
    /// Flows that more than one real server got.
    pub moved_flows: u64,
    pub duplicates: u64,
    pub reordered: u64,
    pub latency: Option<Latency>,
}

impl AtLoad {
    /// Of the packets sent, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.lost as f64 / self.sent.max(1) as f64
    }
}

impl Results {
    /// The numbers of flows, in order.
    #[must_use]
    pub fn flows(&self) -> Vec<u32> {
        let mut flows: Vec<u32> = self.measurements.iter().map(|one| one.flows).collect();
        flows.sort_unstable();
        flows.dedup();
        flows
    }

    /// The frame lengths, in order.
    #[must_use]
    pub fn frames(&self) -> Vec<usize> {
        let mut frames: Vec<usize> = self.measurements.iter().map(|one| one.frame).collect();
        frames.sort_unstable();
        frames.dedup();
        frames
    }

    /// The loads at which latency was measured, in percent.
    #[must_use]
    pub fn loads(&self) -> Vec<u32> {
        let all = self.measurements.iter().flat_map(|one| &one.latency);
        let mut loads: Vec<u32> = all.map(|at| at.load).collect();
        loads.sort_unstable();
        loads.dedup();
        loads
    }

    /// The measurement of so many flows and bytes.
    #[must_use]
    pub fn find(&self, flows: u32, frame: usize) -> Option<&Measurement> {
        let mut all = self.measurements.iter();
        all.find(|one| one.flows == flows && one.frame == frame)
    }

    /// Everything that should not have happened, in sentences; empty when all was well.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let all = || self.measurements.iter().flat_map(|one| &one.latency);
        let sum = |count: fn(&AtLoad) -> u64| all().map(count).sum::<u64>();
        let counts = [
            (
                sum(|at| at.bad),
                "packets were malformed or had a wrong checksum",
            ),
            (
                sum(|at| at.moved_flows),
                "flows went to more than one real server",
            ),
            (sum(|at| at.duplicates), "packets came twice"),
            (sum(|at| at.reordered), "packets came out of order"),
            (
                sum(|at| at.missed),
                "packets came faster than they could be looked at, and are not judged",
            ),
        ];
        let some = counts.iter().filter(|(count, _)| *count > 0);
        let mut complaints: Vec<String> = some
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        complaints.extend(self.overload());
        let limited = self.measurements.iter().filter(|one| one.by_tester).count();
        if limited > 0 {
            complaints.push(format!(
                "{limited} rates are the tester's limit, not the director's: marked with ≥"
            ));
        }
        complaints
    }

    /// Loss in latency trials: there may be some at a rate that was found without.
    fn overload(&self) -> Option<String> {
        let tolerance = self.setup.tolerance;
        let all = self.measurements.iter().flat_map(|one| &one.latency);
        let losses: Vec<f64> = all
            .map(AtLoad::loss)
            .filter(|loss| *loss > tolerance)
            .collect();
        let most = losses.iter().copied().reduce(f64::max)?;
        Some(format!(
            "{} latency trials lost more than {} % of their packets, up to {} %: their latency is of an overload, \
             perhaps the tester's, which looks at every packet there and only counts in the search",
            losses.len(),
            percent(tolerance),
            percent(most)
        ))
    }
}

type Quantile = (&'static str, fn(&Latency) -> f64);
/// What of a latency is shown, in this order.
pub(super) const QUANTILES: [Quantile; 5] = [
    ("p50", |latency| latency.p50),
    ("p90", |latency| latency.p90),
    ("p99", |latency| latency.p99),
    ("p99.9", |latency| latency.p999),
    ("max", |latency| latency.max),
];

/// A part of one, in percent: `0.1`, `22.161`.
pub(super) fn percent(part: f64) -> String {
    let text = format!("{:.3}", part * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `10k`, `1M`: a number of flows, short where that is exact.
#[must_use]
pub fn short(number: u32) -> String {
    match number {
        0 => "0".to_owned(),
        _ if number.is_multiple_of(1_000_000) => format!("{}M", number / 1_000_000),
        _ if number.is_multiple_of(1_000) => format!("{}k", number / 1_000),
        _ => number.to_string(),
    }
}
