//! Measurements of the appliance beside its limit. `bench/README.md` is the method.
//!
//! - [`topology`]: three namespaces and two veth pairs.
//! - [`process`]: programs in them, out of the way of other work.
//! - [`throughput`]: packets per second over veth, case by case.
//! - [`memory`]: the data plane alone, by `pktgen ring`.
//! - [`outage`]: what a client sees of a failover (`bench/failover`).
//! - [`report`]: the table and the dated file.

pub mod appliance;
pub mod memory;
pub mod outage;
pub mod peers;
pub mod process;
pub mod report;
pub mod tcp;
pub mod throughput;
pub mod topology;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde::{Deserialize, Serialize};

/// What a sink has counted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Reading {
    pub frames: u64,
    pub bytes: u64,
    /// Since the sink was attached.
    pub seconds: f64,
}

impl Reading {
    /// Million packets per second from `earlier` to this one.
    #[must_use]
    pub fn mpps_since(&self, earlier: &Self) -> f64 {
        let frames = self.frames.saturating_sub(earlier.frames);
        frames as f64 / (self.seconds - earlier.seconds) / 1e6
    }
}

/// Median and range of repeated measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub count: usize,
}

impl Spread {
    /// Of `values`; `None` without any.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len().is_multiple_of(2) {
            (sorted[middle - 1] + upper) / 2.0
        } else {
            upper
        };
        Some(Self {
            median,
            min: sorted[0],
            max: sorted[sorted.len() - 1],
            count: sorted.len(),
        })
    }
}

/// Sleeps, but not on after SIGINT or SIGTERM: what was made is to be removed then.
///
/// # Errors
/// A signal has arrived.
pub fn pause(duration: Duration) -> anyhow::Result<()> {
    static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    let stop = STOP.get_or_init(|| {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // Without a handler the signal ends the process, which leaves the namespaces behind.
            if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
                eprintln!("bench: cannot handle signal {signal}: {error}");
            }
        }
        stop
    });
    let deadline = Instant::now() + duration;
    loop {
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of(&[]), None);
        let spread = Spread::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(&[4.0, 1.0]).unwrap().median, 2.5);
    }
}
