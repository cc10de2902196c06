//! `wlc`: the server with the least connections for its weight, an active one
//! counting as 256 inactive ones (`ip_vs_wlc.c`). IPVS's default.

use super::{Candidate, Load};
use crate::service::ServerId;

#[derive(Clone, Debug)]
pub struct WeightedLeastConnection {
    servers: Vec<Candidate>,
}

impl WeightedLeastConnection {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        Self {
            servers: candidates.collect(),
        }
    }

    pub(super) fn schedule(&self, load: impl Fn(ServerId) -> Load) -> Option<ServerId> {
        let mut best: Option<(Candidate, u64)> = None;
        for &candidate in &self.servers {
            let Load { active, inactive } = load(candidate.server);
            let overhead = (u64::from(active) << 8) + u64::from(inactive);
            // overhead / weight < best overhead / best weight, without dividing;
            // of equals the first stays.
            let better = best.is_none_or(|(least, least_overhead)| {
                overhead * u64::from(least.weight) < least_overhead * u64::from(candidate.weight)
            });
            if better {
                best = Some((candidate, overhead));
            }
        }
        best.map(|(candidate, _)| candidate.server)
    }
}
