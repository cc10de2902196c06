//! What the algorithms that compare servers have in common.

use super::{Candidate, Load, Servers};
use crate::service::ServerId;

/// The servers that take new connections, in the order of configuration;
/// every weight is at least 1.
#[derive(Clone, Debug)]
pub(super) struct Candidates(Vec<Candidate>);

impl Candidates {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        Self(candidates.collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Candidate> + Clone + '_ {
        self.0.iter().copied()
    }

    /// Those that are not overloaded.
    pub(super) fn open<'a>(
        &'a self,
        servers: &'a impl Servers,
    ) -> impl Iterator<Item = Candidate> + Clone + 'a {
        self.iter()
            .filter(|candidate| !servers.is_overloaded(candidate.server))
    }
}

/// The weight of `server` if it is among `candidates`.
pub(super) fn weight_of(
    mut candidates: impl Iterator<Item = Candidate>,
    server: ServerId,
) -> Option<u32> {
    candidates
        .find(|candidate| candidate.server == server)
        .map(|candidate| candidate.weight)
}

/// The candidate with the lowest cost for its weight; of equals the first.
pub(super) fn least(
    candidates: impl Iterator<Item = Candidate>,
    cost: impl Fn(Candidate) -> u64,
) -> Option<Candidate> {
    let mut best: Option<(Candidate, u64)> = None;
    for candidate in candidates {
        let cost = cost(candidate);
        if best.is_none_or(|(least, least_cost)| {
            is_less(cost, candidate.weight, least_cost, least.weight)
        }) {
            best = Some((candidate, cost));
        }
    }
    best.map(|(candidate, _)| candidate)
}

/// `cost / weight < other_cost / other_weight`, without dividing. Costs are
/// below 2^41 and weights below 2^16.
pub(super) fn is_less(cost: u64, weight: u32, other_cost: u64, other_weight: u32) -> bool {
    cost * u64::from(other_weight) < other_cost * u64::from(weight)
}

/// What a server's connections count for with `lc`, `wlc` and their kin: an
/// active one as much as 256 inactive ones (`ip_vs_dest_conn_overhead`).
pub(super) fn overhead(Load { active, inactive }: Load) -> u64 {
    (u64::from(active) << 8) + u64::from(inactive)
}

/// What a new connection to a server would wait for with `sed` and `nq`.
pub(super) fn expected_delay(load: Load) -> u64 {
    u64::from(load.active) + 1
}
