//! `nq`, never queue: an idle server if there is one, the first in the order
//! of configuration; otherwise as `sed` (`ip_vs_nq.c`).

use super::candidates::{Candidates, expected_delay, least};
use super::{Candidate, Servers};
use crate::service::ServerId;

#[derive(Clone, Debug)]
pub struct NeverQueue {
    candidates: Candidates,
}

impl NeverQueue {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        Self {
            candidates: Candidates::new(candidates),
        }
    }

    pub(super) fn schedule(&self, servers: &impl Servers) -> Option<ServerId> {
        let mut open = self.candidates.open(servers);
        let idle = open
            .clone()
            .find(|candidate| servers.load(candidate.server).active == 0);
        let cost = |candidate: Candidate| expected_delay(servers.load(candidate.server));
        idle.or_else(|| least(&mut open, cost))
            .map(|candidate| candidate.server)
    }
}
