//! `ovf`, overflow: everything goes to the server of the highest weight until
//! it has more active connections than its weight says, then to the next
//! (`ip_vs_ovf.c`). When all have more, nobody takes the connection.
//!
//! Of no use for UDP, whose connections are never active.

use super::fo::heaviest_first;
use super::{Candidate, Servers};
use crate::service::ServerId;

#[derive(Clone, Debug)]
pub struct Overflow {
    by_weight: Vec<Candidate>,
}

impl Overflow {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        Self {
            by_weight: heaviest_first(candidates),
        }
    }

    pub(super) fn schedule(&self, servers: &impl Servers) -> Option<ServerId> {
        let has_room = |candidate: &&Candidate| {
            servers.load(candidate.server).active <= candidate.weight
                && !servers.is_overloaded(candidate.server)
        };
        let found = self.by_weight.iter().find(has_room);
        found.map(|candidate| candidate.server)
    }
}
