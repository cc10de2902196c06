//! `sh`: hash of the source address (`ip_vs_sh.c`), with IPVS's own hash
//! function and table, so that a director of an LVS pair sends a client where
//! its peer would.
//!
//! The table has 256 buckets, filled by going round the servers, newest
//! first as IPVS lists them, each taking as many buckets in a row as its weight. A server of
//! weight 0 keeps its one bucket a round, and its clients are refused while
//! the weight is 0: nobody else's server changes.

use super::Candidate;
use crate::service::{Address, ServerId};

/// `IP_VS_SH_TAB_BITS`.
const TABLE_BITS: u32 = 8;
/// `GOLDEN_RATIO_32` of `include/linux/hash.h`.
const GOLDEN_RATIO_32: u32 = 0x61C8_8647;

#[derive(Clone, Debug)]
pub struct SourceHash {
    /// Empty when there is no server.
    table: Vec<Candidate>,
}

impl SourceHash {
    pub(super) fn new(candidates: impl DoubleEndedIterator<Item = Candidate> + Clone) -> Self {
        let newest_first = candidates.rev();
        let in_a_row = newest_first
            .flat_map(|candidate| std::iter::repeat_n(candidate, candidate.weight.max(1) as usize));
        Self {
            table: in_a_row.cycle().take(1 << TABLE_BITS).collect(),
        }
    }

    pub(super) fn schedule(&self, client: Address) -> Option<ServerId> {
        let candidate = self.table.get(bucket(client))?;
        (candidate.weight > 0).then_some(candidate.server)
    }
}

/// `ip_vs_sh_hashkey` with port and offset 0.
fn bucket(client: Address) -> usize {
    let fold = if client.is_v4() {
        u32::from_be_bytes(client.last_octets())
    } else {
        let words = client.octets();
        let words = words.as_chunks().0.iter().copied().map(u32::from_be_bytes);
        words.fold(0, |sum, word| sum ^ word)
    };
    (fold.wrapping_mul(GOLDEN_RATIO_32) >> (32 - TABLE_BITS)) as usize
}
