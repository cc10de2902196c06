//! The steps of a batched lookup that change nothing.

use super::reply::WideReply;
use super::{Candidate, Connection, REPLY};
use crate::conn::index::{Buckets, Place, Places};
use crate::flow::{FlowHasher, FlowKey, Hashes, eights, first_eights};
use crate::processor::prefetch;

/// What the steps look at; a loop has it in registers.
#[derive(Clone, Debug)]
pub struct Lookup<'a> {
    pub(super) buckets: Buckets<'a>,
    pub(super) entries: &'a [Connection],
    pub(super) wide_replies: &'a [WideReply],
    pub(super) hasher: &'a FlowHasher,
}

impl Lookup<'_> {
    /// First step: where a key belongs; the bucket is fetched.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, key: &FlowKey) -> Place {
        let place = self.buckets.place(self.hasher.hash(key));
        self.buckets.prefetch(place);
        place
    }

    /// The same for the first `count` of many hashes.
    #[inline(always)]
    pub(crate) fn places<const N: usize>(
        &self,
        hashes: &Hashes<N>,
        count: usize,
        places: &mut Places<N>,
    ) {
        self.buckets
            .places(hashes, first_eights::<N>(count), places);
        self.buckets.prefetch_all(places, count);
    }

    /// The same for the hashes in the eights of `wanted`, but that buckets are not fetched.
    #[inline(always)]
    pub(crate) fn places_of<const N: usize>(
        &self,
        hashes: &Hashes<N>,
        wanted: u64,
        places: &mut Places<N>,
    ) {
        self.buckets.places(hashes, eights::<N>(wanted), places);
    }

    /// Fetches a bucket.
    #[inline(always)]
    pub(crate) fn prefetch(&self, place: Place) {
        self.buckets.prefetch(place);
    }

    /// What hashes are made with.
    pub(crate) fn hasher(&self) -> &FlowHasher {
        self.hasher
    }

    /// Second step: the entry that the bucket points to, which nearly always is the one; it is fetched. Its key is to be
    /// compared. `REPLIES` if it may be that of a reply. `miss` is called if there is none.
    #[inline(always)]
    #[must_use]
    pub(crate) fn candidate<const REPLIES: bool>(
        &self,
        place: Place,
        miss: impl FnOnce(),
    ) -> Candidate {
        let fetch = |number: u32| {
            let number = match REPLIES {
                true => number & !REPLY,
                false => number,
            };
            prefetch(self.entries, number as usize);
        };
        Candidate(self.buckets.candidate(place, fetch, miss))
    }

    /// The same where connections may be wide.
    #[must_use]
    pub(crate) fn wide_candidate(&self, place: Place) -> Candidate {
        let candidate = self.candidate::<true>(place, || ());
        prefetch(self.wide_replies, (candidate.0 & !REPLY) as usize);
        candidate
    }
}
