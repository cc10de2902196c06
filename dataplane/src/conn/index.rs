//! The index of the connection table: from a hash to entries. A connection whose replies are
//! translated is in it twice, under the key of either direction.
//!
//! A bucket is one cache line: eight slots of a 16-bit tag and an entry
//! number. A lookup reads one line and compares all tags at once; an equal
//! tag is a candidate that the caller compares in full. Buckets that
//! overflow chain to spare ones, at most [`MAX_CHAIN`] long.
//!
//! Invariants: a tag of 0 marks a free slot; an overflow bucket is either in
//! exactly one chain or in the free list.

use std::hint::cold_path;

use crate::flow::{Hashes, LANES};
use crate::processor::{Words, prefetch};

/// Slots in a bucket.
const SLOTS: usize = SLOT_COUNT as usize;
const SLOT_COUNT: u32 = 8;
/// Buckets in a chain, the first one included. With a mean load of at most
/// six a chain of four is already one in 10^9.
const MAX_CHAIN: usize = 8;
/// No overflow bucket; no entry.
pub(super) const NONE: u32 = u32::MAX;

/// One cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Bucket {
    tags: Words,
    entries: [u32; SLOTS],
    overflow: u32,
}

const EMPTY: Bucket = Bucket {
    tags: Words([0; SLOTS]),
    entries: [0; SLOTS],
    overflow: NONE,
};

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    /// Bits 2·n and 2·n + 1 for slot n if its tag is `tag`: all eight compared at once.
    #[inline(always)]
    fn matches(&self, tag: u16) -> u32 {
        self.tags.equal_to(tag)
    }

    /// The slot with this tag and entry.
    #[inline(always)]
    fn slot_of(&self, tag: u16, entry: u32) -> Option<usize> {
        let mut matches = self.matches(tag);
        while matches != 0 {
            let slot = (matches.trailing_zeros() / 2) as usize % SLOTS;
            if self.entries[slot] == entry {
                return Some(slot);
            }
            matches &= !(0b11 << (2 * slot));
        }
        None
    }

    /// A free slot, if it is known that no entry with this tag is in the chain, which is this bucket alone.
    #[inline(always)]
    fn vacant(&self, tag: u16) -> Option<u32> {
        let found = self.tags.equal_to_either(tag, 0);
        // That of a slot with the tag comes to a large number, and so does none at all.
        let free = found.trailing_zeros().wrapping_sub(SLOT_COUNT);
        (free < SLOT_COUNT && self.overflow == NONE).then_some(free)
    }

    /// An entry and its tag.
    #[inline(always)]
    fn set(&mut self, slot: u32, tag: u16, entry: u32) {
        let slot = slot as usize % SLOTS;
        self.tags.0[slot] = tag;
        self.entries[slot] = entry;
    }

    /// The entry of the lowest bits in `matches`; any one if there are none.
    #[inline(always)]
    fn first(&self, matches: u32) -> u32 {
        self.entries[(matches.trailing_zeros() / 2) as usize % SLOTS]
    }
}

/// Where a key belongs: what its hash comes to. The number of the bucket is the lower half, the tag the
/// upper one: a word, so that it stays in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// A place like any other, for what has no key.
    pub const FIRST: Self = Self(1 << 32);

    #[inline(always)]
    fn new(bucket: u32, tag: u32) -> Self {
        Self(u64::from(bucket) | u64::from(tag) << 32)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
    const fn bucket(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a tag has 16 bits")]
    const fn tag(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// A number that is the same for all packets with one key, and spread evenly over its lower bits.
    #[inline(always)]
    #[must_use]
    pub const fn entropy(self) -> u32 {
        self.bucket().wrapping_mul(0x9e37_79b1)
    }
}

/// Places of several keys, by number: their parts are apart, so that several at once are found.
#[derive(Debug)]
pub(crate) struct Places<const N: usize> {
    buckets: [u32; N],
    tags: [u32; N],
}

impl<const N: usize> Places<N> {
    pub(crate) const EMPTY: Self = Self {
        buckets: [0; N],
        tags: [1; N],
    };

    #[inline(always)]
    pub(crate) fn get(&self, number: usize) -> Place {
        Place::new(self.buckets[number], self.tags[number])
    }
}

/// The buckets, for lookups: of a loop over them, all that is needed is in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buckets<'a> {
    /// As in [`Index`].
    all: &'a [Bucket],
    main: u32,
}

impl Buckets<'_> {
    /// The bucket comes from the upper half of the hash, the tag from the
    /// lower, so that they are independent.
    #[inline(always)]
    pub(super) fn place(self, hash: u64) -> Place {
        let bucket = ((hash >> 32) * u64::from(self.main)) >> 32;
        Place(bucket | (hash & 0xffff | 1) << 32)
    }

    /// The bucket for the upper half of a hash.
    #[inline(always)]
    fn bucket(self, upper: u32) -> u32 {
        ((u64::from(upper) * u64::from(self.main)) >> 32) as u32
    }

    /// The places of the hashes in these eights.
    #[inline(always)]
    pub(super) fn places<const N: usize>(
        self,
        hashes: &Hashes<N>,
        eights: impl Iterator<Item = usize>,
        places: &mut Places<N>,
    ) {
        for eight in eights {
            let of = |column: &[u32; N]| column.as_chunks::<LANES>().0[eight];
            let (upper, lower) = (of(&hashes.upper), of(&hashes.lower));
            places.buckets.as_chunks_mut().0[eight] = upper.map(|upper| self.bucket(upper));
            places.tags.as_chunks_mut().0[eight] = lower.map(|lower| lower & 0xffff | 1);
        }
    }

    /// Fetches the buckets of the first `count` places, and of a few more.
    #[inline(always)]
    pub(super) fn prefetch_all<const N: usize>(self, places: &Places<N>, count: usize) {
        // In fours, so that the loop has a quarter of the rounds: one to three more do no harm.
        let fours = count.div_ceil(4);
        for buckets in places.buckets.as_chunks::<4>().0.iter().take(fours) {
            for bucket in buckets {
                prefetch(self.all, *bucket as usize);
            }
        }
    }

    #[inline(always)]
    pub(super) fn prefetch(self, place: Place) {
        prefetch(self.all, place.bucket() as usize);
    }

    /// The first entry whose tag matches, for which `fetch` is called. [`NONE`] if there is none, and `miss` is called.
    #[inline(always)]
    pub(super) fn candidate(self, place: Place, fetch: impl Fn(u32), miss: impl FnOnce()) -> u32 {
        let bucket = &self.all[place.bucket() as usize];
        let matches = bucket.matches(place.tag());
        if matches == 0 {
            cold_path();
            let entry = Self::candidate_in_chain(self.all, bucket.overflow, place.tag());
            match entry {
                NONE => miss(),
                entry => fetch(entry),
            }
            return entry;
        }
        let entry = bucket.first(matches);
        fetch(entry);
        entry
    }

    /// The same from an overflow bucket on.
    #[cold]
    fn candidate_in_chain(all: &[Bucket], mut number: u32, tag: u16) -> u32 {
        while let Some(bucket) = all.get(number as usize) {
            let matches = bucket.matches(tag);
            if matches != 0 {
                return bucket.first(matches);
            }
            number = bucket.overflow;
        }
        NONE
    }
}

/// Buckets for a fixed number of entries.
#[derive(Debug)]
pub(super) struct Index {
    /// The `main` buckets that hashes choose from, then the overflow ones.
    buckets: Vec<Bucket>,
    main: u32,
    /// First free overflow bucket, chained by `overflow`.
    free: u32,
}

impl Index {
    /// For `connections` connections, each of them twice in the worst case: a mean of six in a bucket
    /// then, of which 15 % overflow when the table is full. There is an overflow bucket for every
    /// fifth, and a few more for small tables, where chance is coarser.
    pub(super) fn new(connections: u32) -> Self {
        let main = connections.div_ceil(3).max(1);
        let spare = main / 5 + 8;
        let mut buckets = vec![EMPTY; (main + spare) as usize];
        for number in main..main + spare {
            buckets[number as usize].overflow = if number + 1 < main + spare {
                number + 1
            } else {
                NONE
            };
        }
        Self {
            buckets,
            main,
            free: main,
        }
    }

    /// Bytes allocated.
    pub(super) fn memory(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// What lookups need of it.
    #[inline(always)]
    pub(super) fn buckets(&self) -> Buckets<'_> {
        Buckets {
            all: &self.buckets,
            main: self.main,
        }
    }

    /// The entry for which `is_it` holds, among those with the tag.
    #[inline]
    pub(super) fn find(&self, place: Place, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut number = place.bucket();
        while let Some(bucket) = self.buckets.get(number as usize) {
            let mut matches = bucket.matches(place.tag());
            while matches != 0 {
                let entry = bucket.first(matches);
                if is_it(entry) {
                    return Some(entry);
                }
                matches &= matches - 1;
                matches &= matches - 1;
            }
            number = bucket.overflow;
        }
        None
    }

    /// Adds an entry if it is known that none with the tag is there: what does not have to be compared. False, and nothing
    /// changed, if it is not, or if there is no room.
    #[inline(always)]
    #[must_use]
    pub(super) fn insert_new(&mut self, place: Place, entry: u32) -> bool {
        let Some(bucket) = self.buckets.get_mut(place.bucket() as usize) else {
            return false;
        };
        let Some(slot) = bucket.vacant(place.tag()) else {
            cold_path();
            return self.insert_new_in_chain(place.bucket(), place.tag(), entry);
        };
        bucket.set(slot, place.tag(), entry);
        true
    }

    /// The same, but for a chain that has or needs an overflow bucket. Takes what a loop has of the place, which then need
    /// not make a word of it for each.
    #[cold]
    #[inline(never)]
    fn insert_new_in_chain(&mut self, bucket: u32, tag: u16, entry: u32) -> bool {
        let place = Place::new(bucket, tag.into());
        !self.has_tag(place) && self.insert(place, entry)
    }

    /// True if [`insert_new`](Self::insert_new) would add an entry.
    #[cold]
    pub(super) fn has_room_for_new(&self, place: Place) -> bool {
        let (mut number, mut length) = (place.bucket(), 0);
        let mut has_room = false;
        while let Some(bucket) = self.buckets.get(number as usize) {
            has_room |= bucket.matches(0) != 0;
            number = bucket.overflow;
            length += 1;
        }
        has_room |= length < MAX_CHAIN && self.free != NONE;
        has_room && !self.has_tag(place)
    }

    /// True if an entry with the tag is in the chain.
    fn has_tag(&self, place: Place) -> bool {
        self.find(place, |_| true).is_some()
    }

    /// Adds an entry. False when the chain is at its limit or no overflow
    /// bucket is left; then nothing changed.
    #[must_use]
    pub(super) fn insert(&mut self, place: Place, entry: u32) -> bool {
        let mut number = place.bucket() as usize;
        for length in 1..=MAX_CHAIN {
            let bucket = &mut self.buckets[number];
            let free = bucket.matches(0);
            if free != 0 {
                bucket.set(free.trailing_zeros() / 2, place.tag(), entry);
                return true;
            }
            if length == MAX_CHAIN {
                return false;
            }
            if bucket.overflow == NONE {
                let fresh = self.free;
                if fresh == NONE {
                    return false;
                }
                bucket.overflow = fresh;
                self.free = std::mem::replace(&mut self.buckets[fresh as usize].overflow, NONE);
            }
            number = self.buckets[number].overflow as usize;
        }
        false // not reached: the last round returns
    }

    /// Removes an entry; does nothing if it is not there. An overflow bucket
    /// that becomes empty is freed.
    pub(super) fn remove(&mut self, place: Place, entry: u32) {
        let mut previous = None;
        let mut number = place.bucket() as usize;
        while let Some(bucket) = self.buckets.get_mut(number) {
            if let Some(slot) = bucket.slot_of(place.tag(), entry) {
                bucket.tags.0[slot] = 0;
                if let Some(previous) = previous
                    && bucket.tags.0 == [0; SLOTS]
                {
                    self.unlink(previous, number);
                }
                return;
            }
            previous = Some(number);
            number = bucket.overflow as usize;
        }
    }

    fn unlink(&mut self, previous: usize, number: usize) {
        self.buckets[previous].overflow =
            std::mem::replace(&mut self.buckets[number].overflow, self.free);
        // The index was read from an `overflow` field, which is a u32.
        self.free = u32::try_from(number).unwrap_or(NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(index: &Index, place: Place, entry: u32) -> bool {
        index.find(place, |candidate| candidate == entry).is_some()
    }

    #[test]
    fn a_full_bucket_overflows_and_shrinks_again() {
        let mut index = Index::new(256);
        let place = index.buckets().place(0);
        let free = index.free;
        for entry in 0..24 {
            assert!(index.insert(place, entry));
        }
        assert!((0..24).all(|entry| find(&index, place, entry)));
        assert_ne!(index.free, free);
        for entry in (0..24).rev() {
            index.remove(place, entry);
            assert!(!find(&index, place, entry));
        }
        assert_eq!(index.buckets[place.bucket() as usize].overflow, NONE);
        let mut spare = 0;
        let mut number = index.free;
        while number != NONE {
            spare += 1;
            number = index.buckets[number as usize].overflow;
        }
        assert_eq!(spare, 25, "every overflow bucket is free again");
    }

    #[test]
    fn a_chain_is_bounded() {
        let mut index = Index::new(100_000);
        let place = index.buckets().place(u64::MAX);
        let inserted = (0..1000)
            .take_while(|&entry| index.insert(place, entry))
            .count();
        assert_eq!(inserted, SLOTS * MAX_CHAIN);
        assert!(
            index.insert(index.buckets().place(0), 5),
            "other buckets are unharmed"
        );
    }

    #[test]
    fn without_overflow_buckets_an_insert_fails_cleanly() {
        let mut index = Index::new(8);
        let (first, second) = (index.buckets().place(0), index.buckets().place(u64::MAX));
        let fill = |index: &mut Index, place| {
            (0..100)
                .take_while(|&entry| index.insert(place, entry))
                .count()
        };
        assert_eq!(
            fill(&mut index, first),
            SLOTS * MAX_CHAIN,
            "takes seven of eight overflow buckets"
        );
        assert_eq!(fill(&mut index, second), SLOTS * 2, "takes the last one");
        index.remove(second, 3);
        assert!(index.insert(second, 99));
        assert!((0..8).all(|entry| find(&index, first, entry)));
    }

    #[test]
    fn new_entries_are_added_where_there_is_room() {
        let mut index = Index::new(256);
        // Of one bucket, with other tags.
        let place = |tag: u64| index.buckets().place(2 * tag);
        let places: Vec<Place> = (0..40).map(place).collect();
        assert!(places.iter().all(|place| place.bucket() == 0));
        // The bucket's last slot at 7, and then of buckets that there are none of yet.
        for (entry, &place) in (0..31).zip(&places) {
            assert!(index.has_room_for_new(place));
            assert!(index.insert_new(place, entry));
            assert!(!index.has_room_for_new(place), "the tag is there now");
            assert!(!index.insert_new(place, 99), "the tag is there now");
        }
        for (entry, &place) in (0..31).zip(&places) {
            assert!(find(&index, place, entry));
            assert!(!find(&index, place, 99));
        }
        index.remove(places[3], 3);
        assert!(index.insert_new(places[31], 31));
        assert_eq!(
            index.buckets[0].entries[3], 31,
            "what was removed leaves a gap"
        );
        for (entry, &place) in (32..34).zip(&places[32..]) {
            assert!(index.insert_new(place, entry));
        }
        assert!(find(&index, places[32], 32) && find(&index, places[33], 33));
    }

    #[test]
    fn a_chain_at_its_limit_has_no_room() {
        let mut index = Index::new(100_000);
        let place = |tag: u64| index.buckets().place(2 * tag);
        let places: Vec<Place> = (0..100).map(place).collect();
        let added = (0..100).zip(&places).take_while(|(entry, place)| {
            let has_room = index.has_room_for_new(**place);
            assert_eq!(index.insert_new(**place, *entry), has_room);
            has_room
        });
        assert_eq!(added.count(), SLOTS * MAX_CHAIN);
    }

    #[test]
    fn equal_entries_under_other_tags_are_told_apart() {
        let mut index = Index::new(4);
        assert!(index.insert(index.buckets().place(1), 1));
        assert!(!find(&index, index.buckets().place(2), 1));
        let buckets = index.buckets();
        let candidate = |hash| buckets.candidate(buckets.place(hash), |_| (), || ());
        assert_eq!(candidate(1), 1);
        assert_eq!(candidate(2), NONE);
    }
}
