//! The steps of a batched lookup that change nothing.

use super::{Candidate, Connection, REPLY, Reply};
use crate::conn::index::{Buckets, Place};
use crate::flow::{FlowHasher, FlowKey};
use crate::processor::prefetch;

/// What the steps look at; a loop has it in registers.
#[derive(Clone, Debug)]
pub struct Lookup<'a> {
    pub(super) buckets: Buckets<'a>,
    pub(super) entries: &'a [Connection],
    pub(super) replies: &'a [Reply],
    pub(super) hasher: &'a FlowHasher,
}

impl Lookup<'_> {
    /// First step: where a key belongs; the bucket is fetched.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, key: &FlowKey) -> Place {
        let place = self.place_of(self.hasher.hash(key));
        self.prefetch(place);
        place
    }

    /// Where a key with this hash belongs; nothing is fetched.
    #[inline(always)]
    pub(crate) fn place_of(&self, hash: u64) -> Place {
        self.buckets.place(hash)
    }

    /// Fetches the bucket.
    #[inline(always)]
    pub(crate) fn prefetch(&self, place: Place) {
        self.buckets.prefetch(place);
    }

    /// What hashes are made with.
    pub(crate) fn hasher(&self) -> &FlowHasher {
        self.hasher
    }

    /// Second step: the entry that the bucket points to, which nearly always is the one; it is fetched, and
    /// its reply half if `REPLIES`. Its key is to be compared.
    #[inline(always)]
    #[must_use]
    pub fn candidate<const REPLIES: bool>(&self, place: Place) -> Candidate {
        let number = self.buckets.candidate(place);
        if REPLIES {
            prefetch(self.entries, (number & !REPLY) as usize);
            prefetch(self.replies, (number & !REPLY) as usize);
        } else {
            prefetch(self.entries, number as usize);
        }
        Candidate(number)
    }
}
