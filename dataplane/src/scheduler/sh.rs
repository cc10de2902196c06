//! `sh`: hash of the source address (`ip_vs_sh.c`), with IPVS's own hash
//! function and table, so that a director of an LVS pair sends a client where
//! its peer would.
//!
//! The table has 256 buckets, filled by going round the servers, newest
//! first as IPVS lists them, each taking as many buckets in a row as its weight. A server of
//! weight 0 keeps its one bucket a round, and its clients are refused while
//! the weight is 0: nobody else's server changes. With `sh-fallback` they go
//! to the server of another bucket instead, with `sh-port` the client's port is hashed, too.

use super::hash::{fold, hash_32};
use super::{Candidate, Request, Servers};
use crate::service::{HashFlags, ServerId};

/// `IP_VS_SH_TAB_BITS`.
const TABLE_BITS: u32 = 8;
const TABLE_SIZE: u32 = 1 << TABLE_BITS;

#[derive(Clone, Debug)]
pub struct SourceHash {
    /// Empty when there is no server.
    table: Vec<Candidate>,
    flags: HashFlags,
}

impl SourceHash {
    pub(super) fn new(
        flags: HashFlags,
        candidates: impl DoubleEndedIterator<Item = Candidate> + Clone,
    ) -> Self {
        let newest_first = candidates.rev();
        let in_a_row = newest_first
            .flat_map(|candidate| std::iter::repeat_n(candidate, candidate.weight.max(1) as usize));
        Self {
            table: in_a_row.cycle().take(TABLE_SIZE as usize).collect(),
            flags,
        }
    }

    pub(super) fn schedule(&self, request: &Request, servers: &impl Servers) -> Option<ServerId> {
        let port = if self.flags.port {
            request.client_port
        } else {
            0
        };
        let value = fold(request.client).wrapping_add(u32::from(port));
        let first = hash_32(value, TABLE_BITS);
        let server = |bucket: u32| {
            let candidate = self.table.get((bucket % TABLE_SIZE) as usize)?;
            let takes = candidate.weight > 0 && !servers.is_overloaded(candidate.server);
            takes.then_some(candidate.server)
        };
        let chosen = server(first);
        if chosen.is_some() || !self.flags.fallback {
            return chosen;
        }
        // IPVS begins as many buckets on as the number of the first one.
        (0..TABLE_SIZE).find_map(|offset| server(2 * first + offset))
    }
}
