//! How much later than asked for the timers of VRRP ran.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::api::view::{SlipBucket, TimerSlip};

/// The longest that is told apart, in microseconds.
const LONGEST: u64 = 60_000_000;
/// Upper bounds of what is shown, in microseconds: half an `advert_int` is among them for the usual
/// ones, 10 ms, 100 ms and 1 s.
const BUCKETS: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000,
];

/// A histogram in microseconds, to one per cent.
#[derive(Debug)]
pub(in super::super) struct Slip {
    histogram: Histogram<u64>,
    sum_microseconds: u64,
}

impl Slip {
    pub(in super::super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 2);
        Self {
            histogram: histogram.expect("the bounds are constants that it accepts"),
            sum_microseconds: 0,
        }
    }

    pub(in super::super) fn record(&mut self, slip: Duration) {
        let micros = u64::try_from(slip.as_micros()).unwrap_or(LONGEST);
        self.histogram.saturating_record(micros);
        self.sum_microseconds = self.sum_microseconds.saturating_add(micros);
    }

    pub(in super::super) fn summary(&self) -> TimerSlip {
        let histogram = &self.histogram;
        TimerSlip {
            timers_total: histogram.len(),
            sum_microseconds: self.sum_microseconds,
            buckets: BUCKETS.map(|bound| self.bucket(bound)).into(),
            p50_microseconds: histogram.value_at_quantile(0.5),
            p99_microseconds: histogram.value_at_quantile(0.99),
            max_microseconds: histogram.max(),
        }
    }

    fn bucket(&self, bound: u64) -> SlipBucket {
        SlipBucket {
            le_microseconds: bound,
            timers_total: self.histogram.count_between(0, bound),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut slip = Slip::new();
        assert_eq!(slip.summary().timers_total, 0);
        for micros in 1..=100 {
            slip.record(Duration::from_micros(micros));
        }
        slip.record(Duration::from_secs(3600));
        let summary = slip.summary();
        assert_eq!(summary.timers_total, 101);
        assert_eq!(summary.p50_microseconds, 51);
        assert!(summary.max_microseconds >= LONGEST);
        assert_eq!(summary.sum_microseconds, 5050 + 3_600_000_000);
        let counts = summary.buckets.iter().map(|bucket| bucket.timers_total);
        assert_eq!(counts.collect::<Vec<_>>(), [100; BUCKETS.len()]);
    }
}
