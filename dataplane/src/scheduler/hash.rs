//! The hash functions of IPVS's hashing schedulers, so that two directors,
//! one of them IPVS or not, choose alike. They have no secret: an attacker who picks source
//! addresses can aim at one real server, as with IPVS.

use crate::service::Address;

/// `GOLDEN_RATIO_32` of `include/linux/hash.h`.
const GOLDEN_RATIO_32: u32 = 0x61C8_8647;

/// An address as 32 bits: the four words of an IPv6 address are combined.
pub(super) fn fold(address: Address) -> u32 {
    if address.is_v4() {
        return u32::from_be_bytes(address.last_octets());
    }
    let octets = address.octets();
    let words = octets.as_chunks().0.iter().copied();
    words
        .map(u32::from_be_bytes)
        .fold(0, |sum, word| sum ^ word)
}

/// The kernel's `hash_32`: the upper `bits` of a multiplication.
pub(super) fn hash_32(value: u32, bits: u32) -> u32 {
    value.wrapping_mul(GOLDEN_RATIO_32) >> (32 - bits)
}

/// The lower half of SipHash-1-3 of four bytes, which is the kernel's `hsiphash` on 64-bit
/// machines, with both words of the key the same.
pub(super) fn siphash_1_3(value: u32, key: u64) -> u32 {
    let mut state = [
        key ^ 0x736f_6d65_7073_6575,
        key ^ 0x646f_7261_6e64_6f6d,
        key ^ 0x6c79_6765_6e65_7261,
        key ^ 0x7465_6462_7974_6573,
    ];
    // One last block: the length in the upper byte, the value below.
    let block = 4 << 56 | u64::from(value);
    state[3] ^= block;
    sip_round(&mut state);
    state[0] ^= block;
    state[2] ^= 0xff;
    for _ in 0..3 {
        sip_round(&mut state);
    }
    let [a, b, c, d] = state;
    let [low, _] = halves(a ^ b ^ c ^ d);
    low
}

fn sip_round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher};

    use super::*;

    /// The standard library's hasher is SipHash-1-3 with a key of zeroes.
    #[test]
    fn siphash_agrees_with_another_implementation() {
        for value in [0, 1, 0x0102_0304, u32::MAX] {
            let mut hasher = DefaultHasher::new();
            hasher.write(&value.to_le_bytes());
            assert_eq!(siphash_1_3(value, 0), halves(hasher.finish())[0]);
        }
    }
}
