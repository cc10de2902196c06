//! How often something is done that may be wanted many times in a row: workers get a new snapshot, the kernel
//! is asked for the ways to all real servers.
//!
//! A thousand next hops may be found one by one, a real server may flap, a routing daemon may change a thousand
//! routes: what is wanted within [`AT_LEAST`] is done once. The first of a series is done at once.

use std::time::{Duration, Instant};

/// Between two times, if nobody waits for it.
const AT_LEAST: Duration = Duration::from_millis(10);

/// Of the control thread's time, it takes one part in so many: a snapshot of ten thousand real
/// servers takes milliseconds, to ask for their routes half a second.
const SHARE: u32 = 5;

/// When it is due next.
#[derive(Debug)]
pub(super) struct Pace {
    is_wanted: bool,
    not_before: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            is_wanted: false,
            not_before: now,
        }
    }

    /// There is a reason to do it.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// When, if there is a reason. A client's command does not wait for that.
    pub(super) fn due(&self) -> Option<Instant> {
        self.is_wanted.then_some(self.not_before)
    }

    /// It was done between `begin` and `end`.
    pub(super) fn done(&mut self, begin: Instant, end: Instant) {
        self.is_wanted = false;
        let took = end.saturating_duration_since(begin);
        self.not_before = end + (took * (SHARE - 1)).max(AT_LEAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A real server that flaps every 100 µs for a second: when snapshots are published, if each
    /// takes `took`.
    fn flapping(took: Duration) -> Vec<Instant> {
        let begin = Instant::now();
        let mut now = begin;
        let mut pace = Pace::new(now);
        let mut published = Vec::new();
        while now < begin + Duration::from_secs(1) {
            pace.want();
            if pace.due().is_some_and(|due| due <= now) {
                published.push(now);
                let end = now + took;
                pace.done(now, end);
                now = end;
                assert_eq!(pace.due(), None, "nothing changed since");
            }
            now += Duration::from_micros(100);
        }
        assert_eq!(published.first(), Some(&begin), "the first is not held up");
        published
    }

    #[test]
    fn a_flapping_server_makes_one_snapshot_in_10_ms() {
        let published = flapping(Duration::from_micros(50));
        let gaps = published.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.min().unwrap() >= Duration::from_millis(10));
        assert!((95..=100).contains(&published.len()), "{}", published.len());
    }

    #[test]
    fn large_snapshots_take_a_fifth_of_the_time() {
        let published = flapping(Duration::from_millis(20));
        assert!((9..=11).contains(&published.len()), "{}", published.len());
    }
}
