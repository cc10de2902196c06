//! The internet checksum (RFC 1071).
//!
//! Sums are kept unfolded in a [`Sum`], so that a packet may be summed in parts (pseudo-header,
//! header, payload). All parts but the last must have an even length.

use super::read;
use crate::service::Address;

/// A one's-complement sum in the making.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds bytes, as 16-bit words in network byte order; an odd last byte is
    /// padded with a zero (RFC 1071 §4.1).
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self.0;
        // Words of 32 bits into 64: room for 2^32 of them before a carry is lost. RFC 1071 §2(B): the
        // sum may be taken in any word size and folded later.
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        Self(sum + u64::from(u32::from_be_bytes(last)))
    }

    /// Adds a 16-bit word in host byte order.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds the pseudo-header of RFC 9293 §3.1 (IPv4) or RFC 8200 §8.1 (IPv6), whichever the
    /// addresses call for; `length` is the transport's header and payload in bytes.
    #[inline]
    #[must_use]
    pub fn pseudo_header(
        self,
        source: Address,
        destination: Address,
        protocol: u8,
        length: u32,
    ) -> Self {
        // IPv6 pads the length and the protocol to 32 bits, which adds nothing.
        let sum = self
            .address(source)
            .address(destination)
            .word(u16::from(protocol));
        Self(sum.0 + u64::from(length))
    }

    /// Adds an address: 4 bytes of IPv4, 16 of IPv6.
    #[inline]
    #[must_use]
    pub fn address(self, address: Address) -> Self {
        // Of known lengths both, so that neither is a loop.
        match address.is_v4() {
            true => self.bytes(&address.last_octets()),
            false => self.bytes(&address.octets()),
        }
    }

    /// The sum folded to 16 bits; `0xffff` for bytes that carry their own correct checksum.
    #[inline(always)]
    #[must_use]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32); // 33 bits
        let sum = (sum & 0xffff) + (sum >> 16); // 18 bits
        let sum = (sum & 0xffff) + (sum >> 16); // 17 bits, and then no more than 0xffff + 1
        let sum = (sum & 0xffff) + (sum >> 16);
        #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits above")]
        let folded = sum as u16;
        folded
    }

    /// The checksum, as it goes into a header.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// What a change of words does to a checksum over them: `~m + m'` of RFC 1624, equation 3.
///
/// Computed once, when a connection is made, and applied to each of its packets. A checksum that was
/// wrong before stays wrong by as much, so that the receiver notices what the director did not look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Delta(
    /// In the order of the bytes in a header, not of a number: one's-complement sums do not mind.
    u16,
);

impl Delta {
    /// That of no change.
    pub const NONE: Self = Self(0);

    /// That of taking one from an IPv4 header's time to live, the upper byte of a word: its sum is
    /// less by 0x0100, which is the complement of that.
    pub const ONE_HOP: Self = Self(u16::from_ne_bytes([0xfe, 0xff]));

    /// As [`to_bytes`](Self::to_bytes) gave it.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn from_bytes(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// To be kept elsewhere.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn to_bytes(self) -> [u8; 2] {
        self.0.to_ne_bytes()
    }

    /// From the sums of the changed words before and after.
    #[inline]
    #[must_use]
    pub const fn between(before: Sum, after: Sum) -> Self {
        let sum = Sum(!before.fold() as u64 + after.fold() as u64);
        Self(u16::from_ne_bytes(sum.fold().to_be_bytes()))
    }

    /// The same from sums of 32-bit words as they are in memory, of no more than eight words each.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn of_words(before: u64, after: u64) -> Self {
        // A multiple of 0xffff, which is another zero, and is more than eight words.
        const ZERO: u64 = 8 * u32::MAX as u64;
        let sum = after + ZERO - before;
        // Both halves of a word added to it turned round: the upper one is their sum, and has the carry
        // of the lower one.
        let sum = sum.wrapping_add(sum.rotate_left(32)) >> 32;
        let sum = sum as u32;
        let sum = sum.wrapping_add(sum.rotate_left(16)) >> 16;
        let sum = sum as u16;
        Self(sum)
    }

    /// The way back.
    #[inline(always)]
    #[must_use]
    pub const fn inverse(self) -> Self {
        Self(!self.0)
    }

    /// Both changes.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The checksum of a header, as it is there, after the change.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        self.apply_word(u16::from_ne_bytes(checksum)).to_ne_bytes()
    }

    /// The same, of its bytes as a number in memory.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn apply_word(self, checksum: u16) -> u16 {
        !add(!checksum, self.0)
    }
}

/// One's-complement sum.
#[inline(always)]
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16 // at most 0xfffe after an overflow
}

/// True if the 20 bytes of an IPv4 header without options, whose checksum is among them, sum up
/// right. [`Sum`] would say the same; this is its hot form.
///
/// Words are as wide as the machine's and in its byte order: one's-complement sums do not mind
/// either, as long as carries come back in (RFC 1071 §2(B), (C)), and `0xffff` is its own swap.
#[inline(always)]
pub(super) fn verifies(header: &[u8; 20]) -> bool {
    let [a, b] = [read(header, 0..8), read(header, 8..16)].map(u64::from_ne_bytes);
    let c = u64::from(u32::from_ne_bytes(read(header, 16..20)));
    let (sum, carry) = a.overflowing_add(b);
    let (sum, carry) = sum.carrying_add(c, carry);
    // The third word is short, so that this last carry does not overflow again. A one's-complement
    // sum of words is what remains of it modulo 0xffff, and 0 only for a header of zeros, which has
    // no version. Divisibility is one multiplication, folding would be eight steps.
    (sum + u64::from(carry)).is_multiple_of(0xffff)
}
