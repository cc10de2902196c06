//! What is written in front of a packet, as far as both ways to do it have it in common.

use super::{GUE_LEN, Variation};
use crate::wire::ipv4;

/// Source ports of GUE are from here up: the dynamic ports of RFC 6335, so that no service's port
/// is mistaken.
const FIRST_SOURCE_PORT: u16 = 0xc000;

/// What the outer header takes from the inner.
pub(super) struct Inner {
    pub(super) class: u8,
    pub(super) hops: u8,
    pub(super) length: u16,
    /// The first byte of flags and fragment offset, with the don't-fragment flag or nothing.
    pub(super) flags: u8,
}

impl Inner {
    #[inline(always)]
    pub(super) fn v4(ip: &ipv4::Packet<&mut [u8; ipv4::HEADER_LEN]>) -> Self {
        Self {
            class: ip.type_of_service(),
            hops: ip.ttl(),
            length: ip.total_len_u16(),
            flags: if ip.dont_fragment() { DONT_FRAGMENT } else { 0 },
        }
    }
}

/// The don't-fragment flag.
const DONT_FRAGMENT: u8 = 0x40;

/// Writes an outer header whose fixed part, with the source address of the flow, has this `sum`.
#[inline(always)]
pub(super) fn write_outer_v4(
    room: &mut [u8; ipv4::HEADER_LEN],
    header: &[u8; ipv4::HEADER_LEN],
    sum: u32,
    overhead: u16,
    inner: &Inner,
    identification: u16,
) {
    let length = (inner.length + overhead).to_be_bytes();
    let identification = identification.to_be_bytes();
    let sum = sum
        + word([0, inner.class])
        + word(length)
        + word(identification)
        + word([inner.flags, 0])
        + word([inner.hops, 0]);
    let [c0, c1] = checksum(sum).to_ne_bytes();
    let [l0, l1] = length;
    let [i0, i1] = identification;
    *room = *header;
    let [_, class, b2, b3, b4, b5, flags, _, hops, _, b10, b11, ..] = room;
    [*class, *b2, *b3, *b4, *b5, *flags] = [inner.class, l0, l1, i0, i1, inner.flags];
    [*hops, *b10, *b11] = [inner.hops, c0, c1];
}

/// A word of a sum that is taken in the order of the bytes, as `Delta` is.
#[inline(always)]
pub(super) fn word(bytes: [u8; 2]) -> u32 {
    u32::from(u16::from_ne_bytes(bytes))
}

/// The headers of GUE for one packet.
#[inline(always)]
pub(super) fn fill_gue(
    mut headers: [u8; GUE_LEN],
    inner_len: u16,
    variation: Variation,
) -> [u8; GUE_LEN] {
    let length = inner_len + u16::try_from(GUE_LEN).unwrap_or(0); // 12
    let [.., high, low] = variation.entropy.to_be_bytes();
    let port = FIRST_SOURCE_PORT | u16::from_be_bytes([high, low]);
    headers[0..2].copy_from_slice(&port.to_be_bytes());
    headers[4..6].copy_from_slice(&length.to_be_bytes());
    headers
}

/// The checksum of up to 65,536 words with this sum, in the order of bytes that they were taken in.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
pub(super) const fn checksum(sum: u32) -> u16 {
    let (folded, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
    !(folded + carry as u16) // at most 0xfffe after an overflow
}
