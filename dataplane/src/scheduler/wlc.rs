//! `wlc`: the server with the least connections for its weight, an active one
//! counting as 256 inactive ones (`ip_vs_wlc.c`). IPVS's default.

use super::candidates::{Candidates, least, overhead};
use super::{Candidate, Servers};
use crate::service::ServerId;

#[derive(Clone, Debug)]
pub struct WeightedLeastConnection {
    candidates: Candidates,
}

impl WeightedLeastConnection {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        Self {
            candidates: Candidates::new(candidates),
        }
    }

    pub(super) fn schedule(&self, servers: &impl Servers) -> Option<ServerId> {
        let cost = |candidate: Candidate| overhead(servers.load(candidate.server));
        least(self.candidates.open(servers), cost).map(|candidate| candidate.server)
    }
}
