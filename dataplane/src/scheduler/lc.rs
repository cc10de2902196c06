//! `lc`: the server with the least connections, whatever its weight
//! (`ip_vs_lc.c`).

use super::candidates::{Candidates, least, overhead};
use super::{Candidate, Servers};
use crate::service::ServerId;

#[derive(Clone, Debug)]
pub struct LeastConnection {
    candidates: Candidates,
}

impl LeastConnection {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        let alike = candidates.map(|candidate| Candidate {
            weight: 1,
            ..candidate
        });
        Self {
            candidates: Candidates::new(alike),
        }
    }

    pub(super) fn schedule(&self, servers: &impl Servers) -> Option<ServerId> {
        let cost = |candidate: Candidate| overhead(servers.load(candidate.server));
        least(self.candidates.open(servers), cost).map(|candidate| candidate.server)
    }
}
