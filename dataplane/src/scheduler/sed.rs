//! `sed`: the server on which the new connection would wait least, by active
//! connections, itself included, for the weight (`ip_vs_sed.c`). Unlike with
//! `wlc`, a heavy server gets the first connections even when all are idle.

use super::candidates::{Candidates, expected_delay, least};
use super::{Candidate, Servers};
use crate::service::ServerId;

#[derive(Clone, Debug)]
pub struct ShortestExpectedDelay {
    candidates: Candidates,
}

impl ShortestExpectedDelay {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        Self {
            candidates: Candidates::new(candidates),
        }
    }

    pub(super) fn schedule(&self, servers: &impl Servers) -> Option<ServerId> {
        let cost = |candidate: Candidate| expected_delay(servers.load(candidate.server));
        least(self.candidates.open(servers), cost).map(|candidate| candidate.server)
    }
}
