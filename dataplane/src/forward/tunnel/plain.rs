//! The straight way of TUN: plain IPv4 packets inside IPv4. The same as [`Template::forward`], with all
//! offsets known and nothing asked that the configuration decides.
//!
//! Where nothing is between the headers it is two steps: what the outer headers of a burst take from the inner
//! ones is found for several at once ([`Outers`]); then each packet gets what is the same for all of its real
//! server, Ethernet header included ([`Front`]), and these words.

use std::array;

use super::{
    Inner, Outer, Shim, Template, Variation, checksum, fill_gue, protocol, write_outer_v4,
};
use crate::wire::ethernet::{self, Addresses, ethertype};
use crate::wire::ipv4::{self, Life};
use crate::wire::{self, Headers, gre};
use crate::xsk::umem::{Frame, Packets, Umem};

/// Where the outer IP header is.
const L3: usize = ethernet::HEADER_LEN;
/// Bytes from the frame's start to behind the inner header, without what is between the headers.
const PLAIN: usize = L3 + 2 * ipv4::HEADER_LEN;
/// Bytes of what may be there.
const GRE: usize = gre::HEADER_LEN;
const GUE: usize = super::GUE_LEN;

impl Template {
    /// [`forward`](Self::forward) for an untagged frame with an IPv4 header without options, by itself. False, and nothing changed, if the packet may not travel further, or not in one piece.
    #[inline(never)]
    #[must_use]
    pub(crate) fn forward_plain(
        &self,
        umem: &Umem,
        frame: &mut Frame,
        hop: &Addresses,
        variation: Variation,
    ) -> bool {
        let is_plain = self.inner_is_v4 && self.source_mask == 0 && !self.checksum;
        match (&self.shim, &self.outer) {
            (Shim::None, Outer::V4 { .. }) if is_plain => {
                self.wrap_plain::<0, PLAIN>(umem, frame, hop, variation, |_| [])
            }
            (Shim::Gre(header), Outer::V4 { .. }) if is_plain => {
                let shim = |_| *header;
                self.wrap_plain::<GRE, { PLAIN + GRE }>(umem, frame, hop, variation, shim)
            }
            (Shim::Gue(headers), Outer::V4 { .. }) if is_plain => {
                let shim = |inner_len| fill_gue(*headers, inner_len, variation);
                self.wrap_plain::<GUE, { PLAIN + GUE }>(umem, frame, hop, variation, shim)
            }
            _ => self.forward(umem, frame, L3, hop, variation).is_ok(),
        }
    }

    /// `shim` makes what is between the headers from the length of the packet; `N` bytes are looked at.
    #[inline(always)]
    fn wrap_plain<const SHIM: usize, const N: usize>(
        &self,
        umem: &Umem,
        frame: &mut Frame,
        hop: &Addresses,
        variation: Variation,
        shim: impl FnOnce(u16) -> [u8; SHIM],
    ) -> bool {
        const { assert!(N == PLAIN + SHIM) };
        let overhead = u16::try_from(ipv4::HEADER_LEN + SHIM).unwrap_or(0); // at most 32
        let is_short = frame.len() <= L3 + usize::from(self.inner_mtu);
        let Outer::V4 { header, sum } = &self.outer else {
            return false;
        };
        if !is_short || umem.prepend(frame, overhead).is_err() {
            return false;
        }
        if let Some(headers) = umem.bytes_mut(frame).first_chunk_mut::<N>()
            && let (room, packet) = headers.split_at_mut(N - ipv4::HEADER_LEN)
            && let Some(packet) = packet.first_chunk_mut()
            && let (link, room) = room.split_at_mut(L3)
            && let Some((outer, behind)) = room.split_first_chunk_mut()
            && let Some(link) = link.first_chunk_mut::<L3>()
            && let mut ip = ipv4::Packet::header_mut(packet)
            && ip.decrement_ttl()
        {
            let inner = Inner::v4(&ip);
            behind.copy_from_slice(&shim(inner.length));
            let (sum, identification) = (u32::from(*sum), variation.identification);
            write_outer_v4(outer, header, sum, overhead, &inner, identification);
            link[L3 - 2..].copy_from_slice(&ethertype::IPV4.to_be_bytes());
            hop.write(link);
            return true;
        }
        // It was lengthened by as much, and nothing was written.
        let _ = umem.cut_front(frame, overhead);
        false
    }
}

/// What the outer headers of plain packets take from the inner ones, by number: words as in
/// [`Headers`], which is to say that a word's first byte is the lowest.
#[derive(Debug)]
pub(crate) struct Outers<const N: usize> {
    /// Up to the total length.
    firsts: [u32; N],
    /// Identification and the don't-fragment flag.
    seconds: [u32; N],
    /// Time to live and protocol; the checksum is the upper half.
    thirds: [u32; N],
    /// The sums of all that is taken from the inner headers.
    sums: [u32; N],
    /// The identification in front of that of number 0.
    last: u16,
}

impl<const N: usize> Outers<N> {
    pub(crate) const EMPTY: Self = Self {
        firsts: [0; N],
        seconds: [0; N],
        thirds: [0; N],
        sums: [0; N],
        last: 0,
    };

    /// Finds those of the first `count` packets, and of a few more, which get the identifications that follow
    /// `last`.
    #[inline(always)]
    pub(crate) fn find(&mut self, headers: &Headers, count: usize, last: u16) {
        let inner = (headers.firsts.as_chunks::<8>().0.iter())
            .zip(headers.seconds.as_chunks::<8>().0)
            .zip(headers.lives.as_chunks::<8>().0);
        let outer = (self.firsts.as_chunks_mut::<8>().0.iter_mut())
            .zip(self.seconds.as_chunks_mut::<8>().0)
            .zip(self.thirds.as_chunks_mut::<8>().0)
            .zip(self.sums.as_chunks_mut::<8>().0);
        let (mut before, overhead) = (u32::from(last), u32::from(Front::OVERHEAD));
        self.last = last;
        // In eights, which are found at once.
        for (outer, inner) in outer.zip(inner).take(count.div_ceil(8)) {
            let (((firsts, seconds), thirds), sums) = outer;
            let ((&inner_firsts, &inner_seconds), lives) = inner;
            let lengths = inner_firsts.map(|first| swapped(swapped(first >> 16) + overhead));
            let flags = inner_seconds.map(|second| second & DONT_FRAGMENT);
            let identifications = [1, 2, 3, 4, 5, 6, 7, 8].map(|number| swapped(before + number));
            *firsts = array::from_fn(|lane| inner_firsts[lane] & 0xffff | lengths[lane] << 16);
            *seconds = array::from_fn(|lane| identifications[lane] | flags[lane]);
            let hops = lives.map(|life| u32::from(life.ttl()));
            *thirds = hops.map(|hops| hops | u32::from(protocol::IPV4) << 8);
            *sums = array::from_fn(|lane| {
                let class = inner_firsts[lane] & 0xff00;
                class + lengths[lane] + identifications[lane] + (flags[lane] >> 16) + hops[lane]
            });
            before += 8;
        }
    }

    /// The last identification of numbers below `end`, or `last` if that is later.
    pub(crate) fn last_below(&self, end: u16, last: u16) -> u16 {
        let (used, other) = (end, last.wrapping_sub(self.last));
        self.last.wrapping_add(used.max(other))
    }
}

/// The flag in the second word of a header.
const DONT_FRAGMENT: u32 = 0x0040_0000;

/// The lower half with its bytes in the other order, and nothing above.
#[inline(always)]
const fn swapped(half: u32) -> u32 {
    half >> 8 & 0xff | (half & 0xff) << 8
}

/// What all plain packets to one real server get in front, in IPv4 with nothing between: Ethernet and outer
/// header, with zero where the inner packet decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front {
    bytes: [u8; FRONT],
    /// Of the outer header, as [`Outers`] has it.
    sum: u32,
    /// Most bytes of a frame before.
    longest: u16,
}

const FRONT: usize = L3 + ipv4::HEADER_LEN;

impl Front {
    /// `None` if packets need more than that.
    pub(crate) fn new(template: &Template, hop: &Addresses) -> Option<Self> {
        let is_plain = template.inner_is_v4 && template.source_mask == 0;
        let (Shim::None, Outer::V4 { header, .. }, true) =
            (&template.shim, &template.outer, is_plain)
        else {
            return None;
        };
        let mut bytes = [0; FRONT];
        let (link, outer) = bytes.split_first_chunk_mut::<L3>()?;
        hop.write(link);
        link[L3 - 2..].copy_from_slice(&ethertype::IPV4.to_be_bytes());
        outer.copy_from_slice(header);
        let words = header.as_chunks().0.iter();
        Some(Self {
            bytes,
            sum: words.map(|word| u32::from(u16::from_le_bytes(*word))).sum(),
            longest: template.inner_mtu.saturating_add(wire::PLAIN_L3_OFFSET),
        })
    }

    /// Bytes that a packet grows by.
    pub(crate) const OVERHEAD: u16 = 20;

    /// Wraps a plain packet that leaves with this `life`. False, and nothing changed, if it may not travel in one
    /// piece.
    #[inline(always)]
    #[must_use]
    pub(crate) fn wrap<const N: usize>(
        &self,
        packets: &mut Packets<'_>,
        number: usize,
        life: Life,
        outers: &Outers<N>,
    ) -> bool {
        let is_short = packets.length(number) <= self.longest;
        if !is_short || !packets.prepend(number, Self::OVERHEAD) {
            return false;
        }
        let head = packets.head_mut(number);
        let checksum = u32::from(checksum(self.sum + outers.sums[number]));
        let third = outers.thirds[number] | checksum << 16;
        head[..FRONT].copy_from_slice(&self.bytes);
        head[L3..L3 + 4].copy_from_slice(&outers.firsts[number].to_le_bytes());
        head[L3 + 4..L3 + 8].copy_from_slice(&outers.seconds[number].to_le_bytes());
        head[L3 + 8..L3 + 12].copy_from_slice(&third.to_le_bytes());
        if let Some(inner) = head[FRONT..].first_chunk_mut() {
            ipv4::Packet::header_mut(inner).set_life(life);
        }
        true
    }
}
