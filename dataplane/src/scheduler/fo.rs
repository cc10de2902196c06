//! `fo`, weighted failover: everything goes to the server of the highest
//! weight, to the next when that one is gone (`ip_vs_fo.c`).

use super::{Candidate, Servers};
use crate::service::ServerId;

#[derive(Clone, Debug)]
pub struct Failover {
    /// Heaviest first; of equals the first in the order of configuration.
    by_weight: Vec<Candidate>,
}

impl Failover {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        Self {
            by_weight: heaviest_first(candidates),
        }
    }

    pub(super) fn schedule(&self, servers: &impl Servers) -> Option<ServerId> {
        let mut ids = self.by_weight.iter().map(|candidate| candidate.server);
        ids.find(|server| !servers.is_overloaded(*server))
    }
}

/// The candidates by falling weight, equals in the order that they had.
pub(super) fn heaviest_first(candidates: impl Iterator<Item = Candidate>) -> Vec<Candidate> {
    let mut sorted: Vec<_> = candidates.collect();
    sorted.sort_by_key(|candidate| std::cmp::Reverse(candidate.weight));
    sorted
}
