//! Who served what, and whether that is what was to be expected. No I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane::service::SchedulerKind;

use super::client::Answer;
use super::plan::Service;

/// Deviation from the expected count that passes, as a part of that count.
const TOLERANCE: f64 = 0.05;

/// … and in requests: each worker has its own round, which may begin and end
/// in the middle.
const TOLERANCE_REQUESTS: f64 = 2.0;

/// The answers of one virtual server.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub served: BTreeMap<IpAddr, u32>,
    /// By reason.
    pub failed: BTreeMap<String, u32>,
}

impl Tally {
    /// Counts one answer.
    pub fn record(&mut self, answer: &Answer) {
        *match &answer.outcome {
            Ok(server) => self.served.entry(*server).or_default(),
            Err(reason) => self.failed.entry(reason.clone()).or_default(),
        } += 1;
    }

    #[must_use]
    pub fn served_by(&self, server: IpAddr) -> u32 {
        self.served.get(&server).copied().unwrap_or(0)
    }

    #[must_use]
    pub fn answered(&self) -> u32 {
        self.served.values().sum()
    }

    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failed.values().sum()
    }

    /// True if nothing failed and everybody served what the scheduler promises, or one all that persistence does.
    #[must_use]
    pub fn is_as_expected(&self, service: &Service) -> bool {
        let known = |server: &IpAddr| service.servers.iter().any(|(ip, _)| ip == server);
        self.failures() == 0
            && self.answered() > 0
            && self.served.keys().all(known)
            && (!service.is_persistent || self.served.len() == 1)
            && service
                .servers
                .iter()
                .all(|(server, _)| self.is_fair(service, *server) != Some(false))
    }

    /// Whether a real server served its share; `None` where the scheduler
    /// promises no shares.
    #[must_use]
    pub fn is_fair(&self, service: &Service, server: IpAddr) -> Option<bool> {
        let expected = share(service, server)? * f64::from(self.answered());
        let tolerance = (expected * TOLERANCE).max(TOLERANCE_REQUESTS);
        let deviation = (f64::from(self.served_by(server)) - expected).abs();
        // Nothing at all may come to a server of weight 0.
        Some(deviation <= tolerance && (expected > 0.0 || deviation == 0.0))
    }

    /// `12 (11 no answer in 2 s, 1 refused)`, or `0`.
    #[must_use]
    pub fn failure_text(&self) -> String {
        failure_text(&self.failed)
    }
}

/// A count with its reasons.
#[must_use]
pub fn failure_text(failed: &BTreeMap<String, u32>) -> String {
    let total: u32 = failed.values().sum();
    let one = |(reason, count): (&String, &u32)| format!("{count} {reason}");
    let reasons: Vec<String> = failed.iter().map(one).collect();
    match reasons.len() {
        0 => total.to_string(),
        _ => format!("{total} ({})", reasons.join(", ")),
    }
}

/// The part of the connections, 0 to 1, that the scheduler promises a real
/// server in the long run; with persistence it promises a single client nothing.
#[must_use]
pub fn share(service: &Service, server: IpAddr) -> Option<f64> {
    if service.is_persistent {
        return None;
    }
    // Round robin knows no weights but 0, which takes no connections.
    let effective = |weight: u32| match service.scheduler {
        SchedulerKind::RoundRobin => Some(weight.min(1)),
        SchedulerKind::WeightedRoundRobin => Some(weight),
        SchedulerKind::LeastConnection
        | SchedulerKind::WeightedLeastConnection
        | SchedulerKind::Locality
        | SchedulerKind::ReplicatedLocality
        | SchedulerKind::DestinationHash
        | SchedulerKind::SourceHash(_)
        | SchedulerKind::ShortestExpectedDelay
        | SchedulerKind::NeverQueue
        | SchedulerKind::Failover
        | SchedulerKind::Overflow
        | SchedulerKind::MaglevHash(_)
        | SchedulerKind::TwoChoices => None,
    };
    let mut total = 0.0;
    let mut own = 0.0;
    for (ip, weight) in &service.servers {
        let weight = f64::from(effective(*weight)?);
        total += weight;
        if *ip == server {
            own += weight;
        }
    }
    (total > 0.0).then(|| own / total)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use dataplane::service::HashFlags;

    use crate::lab::plan::Protocol;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn service(scheduler: SchedulerKind, weights: &[u32]) -> Service {
        let servers = weights.iter().zip(1..);
        Service {
            protocol: Protocol::Tcp,
            address: "10.0.0.100:80".parse().unwrap(),
            scheduler,
            is_persistent: false,
            servers: servers.map(|(weight, last)| (ip(last), *weight)).collect(),
        }
    }

    fn tally(counts: &[u32]) -> Tally {
        let served = counts.iter().zip(1..);
        Tally {
            served: served.map(|(count, last)| (ip(last), *count)).collect(),
            ..Tally::default()
        }
    }

    #[test]
    fn five_percent_of_the_expected_count_pass() {
        let wrr = service(SchedulerKind::WeightedRoundRobin, &[1, 1, 2]);
        assert!(tally(&[100, 100, 200]).is_as_expected(&wrr));
        assert!(tally(&[105, 95, 200]).is_as_expected(&wrr));
        assert!(!tally(&[106, 94, 200]).is_as_expected(&wrr));
        assert_eq!(tally(&[106, 94, 200]).is_fair(&wrr, ip(3)), Some(true));
    }

    #[test]
    fn with_persistence_one_serves_all() {
        let persistent = Service {
            is_persistent: true,
            ..service(SchedulerKind::WeightedRoundRobin, &[1, 1])
        };
        assert!(tally(&[40]).is_as_expected(&persistent));
        assert!(!tally(&[20, 20]).is_as_expected(&persistent));
        assert_eq!(tally(&[40]).is_fair(&persistent, ip(1)), None);
    }

    #[test]
    fn a_few_requests_may_end_in_the_middle_of_a_round() {
        let wrr = service(SchedulerKind::WeightedRoundRobin, &[1, 1, 2]);
        assert!(tally(&[3, 2, 4]).is_as_expected(&wrr));
        assert!(!tally(&[0, 5, 7]).is_as_expected(&wrr));
    }

    #[test]
    fn round_robin_knows_no_weights_but_zero() {
        let rr = service(SchedulerKind::RoundRobin, &[1, 9, 0]);
        assert_eq!(share(&rr, ip(2)), Some(0.5));
        assert!(tally(&[200, 200, 0]).is_as_expected(&rr));
        assert!(!tally(&[200, 199, 1]).is_as_expected(&rr));
    }

    #[test]
    fn other_schedulers_promise_no_shares_but_answers() {
        let hash = service(SchedulerKind::SourceHash(HashFlags::NONE), &[1, 1]);
        assert_eq!(share(&hash, ip(1)), None);
        assert!(tally(&[0, 400]).is_as_expected(&hash));
        assert!(!tally(&[]).is_as_expected(&hash), "nobody answered");
    }

    #[test]
    fn strangers_and_failures_do_not_pass() {
        let rr = service(SchedulerKind::RoundRobin, &[1]);
        assert!(
            !tally(&[10, 1]).is_as_expected(&rr),
            "10.0.0.2 is no server of it"
        );
        let mut failing = tally(&[10]);
        failing.record(&Answer {
            started: Instant::now(),
            outcome: Err("refused".into()),
        });
        assert!(!failing.is_as_expected(&rr));
        assert_eq!(failing.failure_text(), "1 (1 refused)");
    }
}
