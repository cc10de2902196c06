//! When a real server counts as up or down, and when to look at it next.
//!
//! A pure state machine: no I/O, no clock, no random numbers of its own. The
//! rules are keepalived's:
//!
//! ```text
//!            failure 1..=retry: try again after delay_before_retry
//!             ┌────┐
//!             ▼    │            failure retry + 1 in a row
//!   ┌────────────────────┐ ─────────────────────────────────► ┌────────┐
//!   │  up (or not alpha) │                                    │  down  │ ⟲ delay_loop
//!   └────────────────────┘ ◄───────────────────────────────── └────────┘
//!        ⟲ delay_loop             success rise in a row
//! ```
//!
//! A server that is down is looked at every `delay_loop`: retries only protect
//! a server that is up. `rise`, 1 in keepalived, is their counterpart: a
//! success that is not yet enough is followed by the next try after
//! `delay_before_retry`. A try that says nothing about the real server (the
//! director ran out of sockets) changes nothing and is repeated after `delay_loop`.
//!
//! Checks that a busy director begins late, and so all at once, are spread again with the next tries: what a try is late
//! by does not move those behind it.

use std::time::{Duration, Instant};

use crate::config::Check;

/// No configuration makes checks run in a tight loop.
const SHORTEST_DELAY: Duration = Duration::from_millis(10);

/// Where a delay ends that is too long for the clock: never, in practice.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A dampened change of health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Up,
    Down,
}

/// The health of one real server as one check sees it.
#[derive(Clone, Debug)]
pub struct Dampener {
    delay_loop: Duration,
    delay_before_retry: Duration,
    retry: u32,
    rise: u32,
    healthy: bool,
    failures: u32,
    /// Successes in a row while down.
    successes: u32,
    next: Instant,
    /// What the try under way, or the last one, began after it was due.
    late: Duration,
}

impl Dampener {
    /// A check that has not run yet. `random` is uniform over all of `u32` and
    /// chooses the part of `warmup` after which the first try is due, so that
    /// thousands of checks started together do not fire together.
    #[must_use]
    pub fn new(check: &Check, now: Instant, random: u32) -> Self {
        Self::resume(check, !check.alpha, now, random)
    }

    /// A check that takes over from one with other parameters: what was known
    /// about the real server stays true until a try says otherwise.
    #[must_use]
    pub fn resume(check: &Check, healthy: bool, now: Instant, random: u32) -> Self {
        let part = f64::from(random) / (f64::from(u32::MAX) + 1.0);
        let warmup = check.warmup.min(A_YEAR).mul_f64(part);
        Self {
            delay_loop: check.delay_loop,
            delay_before_retry: check.delay_before_retry,
            retry: check.retry,
            rise: check.rise,
            healthy,
            failures: 0,
            successes: 0,
            next: now + warmup,
            late: Duration::ZERO,
        }
    }

    /// When the next try is due.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Whether the real server is up.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.healthy
    }

    /// Failures in a row up to now.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A try begins at `now`.
    pub fn begin(&mut self, now: Instant) {
        self.late = now.saturating_duration_since(self.next);
    }

    /// A try that ended at `now` passed.
    pub fn passed(&mut self, now: Instant) -> Option<Change> {
        self.failures = 0;
        if self.healthy {
            self.wait_loop(now);
            return None;
        }
        self.successes += 1;
        if self.successes < self.rise {
            self.wait(now, self.delay_before_retry);
            return None;
        }
        self.wait_loop(now);
        self.successes = 0;
        self.healthy = true;
        Some(Change::Up)
    }

    /// A try that ended at `now` failed.
    pub fn failed(&mut self, now: Instant) -> Option<Change> {
        self.failures = self.failures.saturating_add(1);
        self.successes = 0;
        if !self.healthy {
            self.wait_loop(now);
            return None;
        }
        if self.failures <= self.retry {
            self.wait(now, self.delay_before_retry);
            return None;
        }
        self.wait_loop(now);
        self.healthy = false;
        Some(Change::Down)
    }

    /// A try that ended at `now` said nothing about the real server.
    pub fn inconclusive(&mut self, now: Instant) {
        self.wait_loop(now);
    }

    /// Waits for `delay_loop`, a try's lateness less; by a multiple of it more, if that is nearer.
    fn wait_loop(&mut self, now: Instant) {
        let delay = self.delay_loop.clamp(SHORTEST_DELAY, A_YEAR);
        let late = self.late.as_nanos() % delay.as_nanos();
        let late = Duration::from_nanos(u64::try_from(late).unwrap_or(0)); // less than a year
        let wait = match late > delay / 2 {
            false => delay - late,
            true => delay + (delay - late),
        };
        self.wait(now, wait);
    }

    fn wait(&mut self, now: Instant, delay: Duration) {
        self.next = now + delay.clamp(SHORTEST_DELAY, A_YEAR);
    }
}

#[cfg(test)]
mod tests;
