//! A burst's first stages: what is noted of its frames, and what of the connection table is fetched for them.
//!
//! Of a plain frame only that is noted which the straight way asks for; what else is known of it, as of all
//! plain frames, is added if it does not go that way.

use std::num::NonZeroU64;

use super::opening::Begun;
use super::{Slot, What};
use crate::conn::{Candidate, ConnectionTable, Lookup, Places};
use crate::device::BURST;
use crate::flow::{CommonBits, PlainKey};
use crate::forward::tunnel::Outers;
use crate::processor::Processor;
use crate::service::PortIndex;
use crate::wire::{self, Headers};
use crate::xsk::umem::Packets;

/// Some of the frames of a burst, a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameSet(u64);

const _: () = assert!(BURST <= u64::BITS as usize);

impl FrameSet {
    pub(super) const NONE: Self = Self(0);

    /// Of a burst of `count` frames all; there is at least one.
    #[inline(always)]
    pub(super) fn all(count: usize) -> Self {
        Self(u64::MAX >> (BURST - count))
    }

    #[inline(always)]
    pub(super) fn add(&mut self, number: usize) {
        self.0 |= 1 << number;
    }

    /// That one and no other.
    pub(super) fn only(number: usize) -> Self {
        Self(1 << number)
    }

    #[inline(always)]
    pub(super) fn has(self, number: usize) -> bool {
        self.0 & 1 << number != 0
    }

    #[inline(always)]
    pub(super) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    #[inline(always)]
    pub(super) fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    #[inline(always)]
    pub(super) fn among(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Those behind this one.
    #[inline(always)]
    pub(super) fn after(self, number: usize) -> Self {
        Self(self.0 & (u64::MAX << number << 1))
    }

    /// So many of the highest numbers.
    #[inline(always)]
    pub(super) fn last(self, count: usize) -> Self {
        if count == 0 {
            return Self::NONE;
        }
        let before = (self.len() as usize).saturating_sub(count);
        let before = self.numbers().take(before).last();
        before.map_or(self, |last| self.after(last))
    }

    #[inline(always)]
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// One more than the highest number of them; 0 if there are none.
    pub(super) fn end(self) -> u16 {
        let above = self.0.leading_zeros();
        u16::try_from(u64::BITS - above).unwrap_or(0) // at most 64
    }

    /// A bit for each.
    #[inline(always)]
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// Their numbers in the burst, ascending.
    #[inline(always)]
    pub(super) fn numbers(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let lowest = NonZeroU64::new(left)?.trailing_zeros();
            left &= left - 1;
            Some(lowest as usize)
        })
    }
}

/// What the stages note about a burst. Of a frame that is not plain, there is no candidate, and
/// `slots` has what there is to know.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) plain: PlainNotes,
    pub(super) slots: [Slot; BURST],
    pub(super) begun: Begun,
    pub(super) processor: Processor,
}

/// What is noted of plain frames.
#[derive(Debug)]
pub(super) struct PlainNotes {
    pub(super) headers: Headers,
    pub(super) places: Places<BURST>,
    pub(super) candidates: [Candidate; BURST],
    /// Of those that TUN takes on.
    pub(super) outers: Outers<BURST>,
    /// Where those leave that go straight on.
    pub(super) ports: [PortIndex; BURST],
    /// Those that have no candidate; of frames that are not plain it says nothing.
    pub(super) unknown: FrameSet,
}

/// What the first stage found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    /// Not plain.
    pub(super) unusual: FrameSet,
    /// Plain, but of TCP's segments that begin or end something.
    pub(super) changing: FrameSet,
    /// Of all these, those that may be the first of a connection.
    pub(super) requests: FrameSet,
    /// Of all frames.
    pub(super) bytes: u64,
}

impl Notes {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            plain: PlainNotes {
                headers: Headers::EMPTY,
                places: Places::EMPTY,
                candidates: [Candidate::NONE; BURST],
                outers: Outers::EMPTY,
                ports: [PortIndex(0); BURST],
                unknown: FrameSet::NONE,
            },
            slots: [Slot::EMPTY; BURST],
            begun: Begun::NONE,
            processor: Processor::detect(),
        })
    }

    /// First stage: headers to keys and places, whose buckets are fetched.
    #[inline(always)]
    pub(super) fn read(&mut self, packets: &Packets<'_>, table: &ConnectionTable) -> Read {
        let PlainNotes {
            headers, places, ..
        } = &mut self.plain;
        let (processor, lookup) = (self.processor, table.lookup());
        let found = wire::parse_burst(processor, packets, lookup.hasher(), headers);
        // Those of the others are harmless.
        lookup.places(&headers.hashes, packets.count(), places);
        let unusual =
            FrameSet::all(packets.count()).without(FrameSet(found.plain | found.changing));
        if !unusual.is_empty() {
            self.read_unusual(unusual, packets, table);
        }
        Read {
            unusual,
            changing: FrameSet(found.changing),
            requests: FrameSet(found.requests),
            bytes: found.bytes,
        }
    }

    #[inline(never)]
    fn read_unusual(&mut self, unusual: FrameSet, packets: &Packets<'_>, table: &ConnectionTable) {
        for number in unusual.numbers() {
            self.slots[number].read_unusual(packets.bytes(number), table);
        }
    }

    /// Second stage: the buckets to candidates, which are fetched.
    #[inline(always)]
    pub(super) fn find_candidates(&mut self, read: &Read, count: usize, table: &ConnectionTable) {
        match table.has_replies() {
            true => self.plain.find_candidates::<true>(count, &table.lookup()),
            false => self.plain.find_candidates::<false>(count, &table.lookup()),
        }
        if !read.unusual.is_empty() {
            self.find_unusual(read.unusual, table);
        }
        for number in read.changing.without(self.plain.unknown).numbers() {
            // It does not go straight on.
            let candidate = &mut self.plain.candidates[number];
            self.slots[number].candidate = std::mem::replace(candidate, Candidate::NONE);
        }
    }

    #[inline(never)]
    fn find_unusual(&mut self, unusual: FrameSet, table: &ConnectionTable) {
        for number in unusual.numbers() {
            self.plain.candidates[number] = Candidate::NONE;
            let slot = &mut self.slots[number];
            slot.candidate = table.lookup().wide_candidate(slot.place);
        }
    }

    /// Those whose virtual server's address is that of this plain frame's.
    #[inline(always)]
    pub(super) fn same_service(&self, number: usize) -> FrameSet {
        FrameSet(self.plain.headers.keys.same_service(number))
    }

    /// Those plain frames whose source has these bits.
    #[inline(always)]
    pub(super) fn sources_with(&self, bits: CommonBits) -> FrameSet {
        FrameSet(self.plain.headers.keys.sources_with(bits))
    }

    /// Adds what else is known of plain frames that did not go straight on.
    pub(super) fn complete_plain(&mut self, others: FrameSet, read: &Read, packets: &Packets<'_>) {
        for number in others.without(read.unusual).numbers() {
            let key = PlainKey::of(packets.head(number));
            let what = match read.changing.has(number) {
                true => What::Packet,
                false => What::Plain,
            };
            // As `find_candidates` left it.
            let candidate = match read.changing.without(self.plain.unknown).has(number) {
                true => self.slots[number].candidate,
                false => self.plain.candidates[number],
            };
            self.slots[number] = Slot {
                key: key.into(),
                place: self.plain.places.get(number),
                candidate,
                l3_offset: wire::PLAIN_L3_OFFSET,
                l4_offset: wire::PLAIN_L4_OFFSET,
                is_v4: true,
                tcp_flags: wire::plain_tcp_flags(packets.head(number), key.is_tcp()),
                what,
            };
        }
    }
}

impl PlainNotes {
    #[inline(always)]
    #[expect(
        clippy::needless_range_loop,
        reason = "with an iterator the loop counts twice"
    )]
    fn find_candidates<const REPLIES: bool>(&mut self, count: usize, lookup: &Lookup<'_>) {
        let candidates = &mut self.candidates[..count];
        let mut unknown = FrameSet::NONE;
        for number in 0..count {
            let miss = || unknown.add(number);
            candidates[number] = lookup.candidate::<REPLIES>(self.places.get(number), miss);
        }
        self.unknown = unknown;
    }
}
