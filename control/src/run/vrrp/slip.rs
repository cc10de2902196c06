//! How much later than asked for the timers of VRRP ran.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::api::view::TimerSlip;

/// The longest that is told apart, in microseconds.
const LONGEST: u64 = 60_000_000;

/// A histogram in microseconds, to one per cent.
#[derive(Debug)]
pub(in super::super) struct Slip(Histogram<u64>);

impl Slip {
    pub(in super::super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 2);
        Self(histogram.expect("the bounds are constants that it accepts"))
    }

    pub(in super::super) fn record(&mut self, slip: Duration) {
        let micros = u64::try_from(slip.as_micros()).unwrap_or(LONGEST);
        self.0.saturating_record(micros);
    }

    pub(in super::super) fn summary(&self) -> TimerSlip {
        TimerSlip {
            timers_total: self.0.len(),
            p50_microseconds: self.0.value_at_quantile(0.5),
            p99_microseconds: self.0.value_at_quantile(0.99),
            max_microseconds: self.0.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut slip = Slip::new();
        assert_eq!(slip.summary(), TimerSlip::default());
        for micros in 1..=100 {
            slip.record(Duration::from_micros(micros));
        }
        slip.record(Duration::from_secs(3600));
        let summary = slip.summary();
        assert_eq!(summary.timers_total, 101);
        assert_eq!(summary.p50_microseconds, 51);
        assert!(summary.max_microseconds >= LONGEST);
    }
}
