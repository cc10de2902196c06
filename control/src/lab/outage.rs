//! What clients notice of a real server's death and of its return. No I/O:
//! answers and the time are arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::client::{Answer, PATIENCE};

/// Requests succeed for so long after the last failed one: the dead server is
/// out. Long against the time between two requests that it would have got.
const QUIET: Duration = Duration::from_millis(1500);

/// How a change ended, or did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not known yet.
    Waiting,
    /// It took so long.
    Done(Duration),
    /// It should have been over by now.
    Overdue,
}

/// Counts from a real server's death on.
#[derive(Clone, Debug)]
pub struct Death {
    since: Instant,
    within: Duration,
    /// Virtual servers that the dead one belongs to, by number.
    affected: BTreeSet<usize>,
    pub requests: u32,
    /// By reason, of virtual servers that the dead one belongs to.
    pub failed: BTreeMap<String, u32>,
    /// Failures of other virtual servers, which have no reason to fail.
    pub failed_elsewhere: u32,
    last_failure: Option<Instant>,
}

impl Death {
    /// It died at `since`; its checks take `within` at most to notice.
    #[must_use]
    pub fn new(since: Instant, within: Duration, affected: BTreeSet<usize>) -> Self {
        Self {
            since,
            within,
            affected,
            requests: 0,
            failed: BTreeMap::new(),
            failed_elsewhere: 0,
            last_failure: None,
        }
    }

    /// Counts an answer of virtual server number `service`.
    pub fn record(&mut self, service: usize, answer: &Answer) {
        self.requests += 1;
        let Err(reason) = &answer.outcome else {
            return;
        };
        if !self.affected.contains(&service) {
            self.failed_elsewhere += 1;
            return;
        }
        *self.failed.entry(reason.clone()).or_default() += 1;
        self.last_failure = self.last_failure.max(Some(answer.started));
    }

    /// Whether requests have stopped failing. The time is that from the death
    /// to the beginning of the last request that failed.
    #[must_use]
    pub fn progress(&self, now: Instant) -> Progress {
        // A request that began longer ago has been answered or has failed.
        let known_until = now.checked_sub(PATIENCE).unwrap_or(self.since);
        let overdue = self.since + self.within;
        match self.last_failure {
            Some(last) if last > overdue => Progress::Overdue,
            Some(last) if known_until >= last + QUIET => {
                Progress::Done(last.saturating_duration_since(self.since))
            }
            None if known_until >= overdue => Progress::Done(Duration::ZERO),
            _ => Progress::Waiting,
        }
    }
}

/// Counts from a real server's return on.
#[derive(Clone, Debug)]
pub struct Return {
    since: Instant,
    within: Duration,
    server: IpAddr,
    /// Virtual servers that it has not answered for yet.
    missing: BTreeSet<usize>,
    /// The request that made `missing` empty.
    last_first: Option<Instant>,
    pub requests: u32,
    pub failed: BTreeMap<String, u32>,
}

impl Return {
    /// It came back at `since` and should serve each of `services` after
    /// `within` at most.
    #[must_use]
    pub fn new(
        since: Instant,
        within: Duration,
        server: IpAddr,
        services: BTreeSet<usize>,
    ) -> Self {
        Self {
            since,
            within,
            server,
            missing: services,
            last_first: None,
            requests: 0,
            failed: BTreeMap::new(),
        }
    }

    /// Counts an answer of virtual server number `service`.
    pub fn record(&mut self, service: usize, answer: &Answer) {
        self.requests += 1;
        match &answer.outcome {
            Ok(server) if *server == self.server => {
                if self.missing.remove(&service) {
                    self.last_first = self.last_first.max(Some(answer.started));
                }
            }
            Ok(_) => {}
            Err(reason) => *self.failed.entry(reason.clone()).or_default() += 1,
        }
    }

    /// Whether it serves all of its virtual servers again.
    #[must_use]
    pub fn progress(&self, now: Instant) -> Progress {
        match self.last_first {
            Some(last) if self.missing.is_empty() => {
                let took = last.saturating_duration_since(self.since);
                if took > self.within {
                    Progress::Overdue
                } else {
                    Progress::Done(took)
                }
            }
            _ if now > self.since + self.within + PATIENCE => Progress::Overdue,
            _ => Progress::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    fn server(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn failed(started: Instant) -> Answer {
        Answer {
            started,
            outcome: Err("refused".into()),
        }
    }

    fn served(started: Instant, by: u8) -> Answer {
        Answer {
            started,
            outcome: Ok(server(by)),
        }
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_death_ends_with_the_last_failed_request() {
        let start = Instant::now();
        let mut death = Death::new(start, WITHIN, [0].into());
        for at in (0..4000).step_by(100) {
            death.record(0, &failed(start + ms(at)));
            death.record(0, &served(start + ms(at + 50), 2));
        }
        assert_eq!(death.progress(start + ms(4000)), Progress::Waiting);
        let sure = start + ms(3900) + PATIENCE + QUIET;
        assert_eq!(death.progress(sure - ms(1)), Progress::Waiting);
        assert_eq!(death.progress(sure), Progress::Done(ms(3900)));
        assert_eq!(death.failed["refused"], 40);
    }

    #[test]
    fn a_death_that_goes_on_is_overdue() {
        let start = Instant::now();
        let mut death = Death::new(start, WITHIN, [0].into());
        death.record(0, &failed(start + WITHIN + ms(1)));
        assert_eq!(death.progress(start + WITHIN + ms(2)), Progress::Overdue);
    }

    #[test]
    fn a_death_that_nobody_notices_takes_no_time() {
        let start = Instant::now();
        let death = Death::new(start, WITHIN, [0].into());
        assert_eq!(death.progress(start + WITHIN), Progress::Waiting);
        assert_eq!(
            death.progress(start + WITHIN + PATIENCE),
            Progress::Done(Duration::ZERO)
        );
    }

    #[test]
    fn failures_elsewhere_are_told_apart() {
        let start = Instant::now();
        let mut death = Death::new(start, WITHIN, [0].into());
        death.record(1, &failed(start));
        assert_eq!(death.failed_elsewhere, 1);
        assert!(death.failed.is_empty());
    }

    #[test]
    fn a_return_is_over_when_every_service_has_it_back() {
        let start = Instant::now();
        let mut back = Return::new(start, WITHIN, server(1), [0, 1].into());
        back.record(0, &served(start + ms(100), 1));
        back.record(1, &served(start + ms(150), 2));
        assert_eq!(back.progress(start + ms(200)), Progress::Waiting);
        back.record(1, &served(start + ms(300), 1));
        assert_eq!(back.progress(start + ms(301)), Progress::Done(ms(300)));
    }

    #[test]
    fn a_return_may_not_take_for_ever() {
        let start = Instant::now();
        let mut back = Return::new(start, WITHIN, server(1), [0].into());
        let late = start + WITHIN + PATIENCE + ms(1);
        assert_eq!(back.progress(late), Progress::Overdue);
        back.record(0, &served(start + WITHIN + ms(1), 1));
        assert_eq!(back.progress(start + WITHIN + ms(2)), Progress::Overdue);
    }
}
