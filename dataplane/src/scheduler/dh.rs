//! `dh`: hash of the destination address (`ip_vs_dh.c`), with IPVS's own hash
//! function and table. For caches behind a virtual server of many addresses
//! (`match`); with one address everything goes to one server.
//!
//! The table has 256 buckets that the servers take in turn, newest first as
//! IPVS lists them, whatever their weight. The destinations of a server of
//! weight 0 are refused: nobody else's server changes.

use super::hash::{fold, hash_32};
use super::{Candidate, Request, Servers};
use crate::service::ServerId;

/// `IP_VS_DH_TAB_BITS`.
const TABLE_BITS: u32 = 8;

#[derive(Clone, Debug)]
pub struct DestinationHash {
    newest_first: Vec<Candidate>,
}

impl DestinationHash {
    pub(super) fn new(candidates: impl DoubleEndedIterator<Item = Candidate>) -> Self {
        Self {
            newest_first: candidates.rev().collect(),
        }
    }

    pub(super) fn schedule(&self, request: &Request, servers: &impl Servers) -> Option<ServerId> {
        let bucket = hash_32(fold(request.destination), TABLE_BITS) as usize;
        let place = bucket.checked_rem(self.newest_first.len())?;
        let candidate = self.newest_first.get(place)?;
        let takes = candidate.weight > 0 && !servers.is_overloaded(candidate.server);
        takes.then_some(candidate.server)
    }
}
