//! Token buckets: so many new connections a second, and a burst.
//!
//! A bucket is one number, the time at which it is full again (the "theoretical arrival time" of
//! the generic cell rate algorithm, ITU-T I.371 §A.1): full is in the past, empty is the burst's
//! worth of time ahead. It fills by time going on, so no timer runs, and a rate may change under it.

use std::sync::atomic::{AtomicU64, Ordering};

const NANOSECONDS: u64 = 1_000_000_000;

/// A rate of new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1; above a billion it limits nothing.
    pub per_second: u32,
    /// So many at once after a silence; at least 1.
    pub burst: u32,
}

impl Rate {
    /// Takes a connection out of a bucket that is full at `full_at` (nanoseconds of the worker's
    /// time; 0 is a new one). Returns when it is full then; `None` if it is empty.
    ///
    /// `now` is in milliseconds.
    #[must_use]
    pub fn take(&self, full_at: u64, now: u64) -> Option<u64> {
        let now = nanoseconds(now);
        let each = NANOSECONDS / u64::from(self.per_second.max(1));
        let empty_at = now.saturating_add(each.saturating_mul(self.burst.max(1).into()));
        // Emptier than empty is what a lower rate or a greater burst left behind, which is nobody's
        // fault; another worker's clock may be some milliseconds ahead, though.
        let is_of_another_rate = full_at > empty_at.saturating_add(NANOSECONDS);
        let full_at = if is_of_another_rate { now } else { full_at };
        let after = full_at.max(now).saturating_add(each);
        (after <= empty_at).then_some(after)
    }
}

/// True if a bucket has nothing to remember.
pub(super) fn is_full(full_at: u64, now: u64) -> bool {
    full_at <= nanoseconds(now)
}

fn nanoseconds(milliseconds: u64) -> u64 {
    milliseconds.saturating_mul(1_000_000)
}

/// One bucket for all workers. A refusal only reads it, so that a flood is refused without
/// contention; it is written as often as connections are admitted.
#[derive(Debug, Default)]
pub struct SharedBucket(AtomicU64);

impl SharedBucket {
    /// Takes a connection; false if the rate allows none now. `now` is in milliseconds.
    #[must_use]
    pub fn take(&self, rate: &Rate, now: u64) -> bool {
        let took = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                rate.take(full_at, now)
            });
        took.is_ok()
    }

    /// True if the rate allows no connection now; none is taken. `now` is in milliseconds.
    #[must_use]
    pub fn is_empty(&self, rate: &Rate, now: u64) -> bool {
        rate.take(self.0.load(Ordering::Relaxed), now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate {
            per_second: 100,
            burst: 5,
        };
        let bucket = SharedBucket::default();
        let admitted = |now| (0..50).filter(|_| bucket.take(&rate, now)).count();
        assert_eq!(admitted(1000), 5);
        assert_eq!(admitted(1009), 0, "one each 10 ms");
        assert!(bucket.is_empty(&rate, 1009) && !bucket.is_empty(&rate, 1010));
        assert_eq!(admitted(1010), 1);
        assert_eq!(admitted(1030), 2);
        assert_eq!(admitted(9000), 5, "and never more than the burst");
    }

    #[test]
    fn a_lower_rate_does_not_punish_for_before() {
        let before = Rate {
            per_second: 1,
            burst: 1000,
        };
        let bucket = SharedBucket::default();
        assert_eq!((0..2000).filter(|_| bucket.take(&before, 0)).count(), 1000);
        // Full in 1000 s by the old rate, in 10 ms by the new one.
        let after = Rate {
            per_second: 100,
            burst: 1,
        };
        assert!(bucket.take(&after, 9));
        assert!(!bucket.take(&after, 10));
        assert!(bucket.take(&after, 19));
    }

    #[test]
    fn workers_share_a_rate() {
        let rate = Rate {
            per_second: 1000,
            burst: 10,
        };
        let bucket = SharedBucket::default();
        let admitted: usize = std::thread::scope(|scope| {
            let worker = || (0..1000).filter(|now| bucket.take(&rate, *now)).count();
            let workers = [(); 4].map(|()| scope.spawn(worker));
            workers.map(|worker| worker.join().unwrap()).iter().sum()
        });
        // A second, from 0 to 999 ms. Their clocks run apart here, as they do not in life, so that it
        // may be less.
        assert!((1..=1010).contains(&admitted), "{admitted}");
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(
            (per_second, burst) in (1_u32..2000, 1_u32..100),
            mut times in prop::collection::vec(0_u64..5000, 1..400),
        ) {
            times.sort_unstable();
            let rate = Rate { per_second, burst };
            let bucket = SharedBucket::default();
            let admitted: Vec<u64> =
                times.iter().copied().filter(|now| bucket.take(&rate, *now)).collect();
            for (first, start) in admitted.iter().enumerate() {
                for (last, end) in admitted.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (end - start) * u64::from(per_second) / 1000 + 1;
                    prop_assert!((last - first + 1) as u64 <= most);
                }
            }
        }
    }
}
