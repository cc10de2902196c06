//! Hashes of flow keys, one or several at once.

use super::{FlowKey, PlainKey, halves};

/// Hashes flow keys with a secret that is new at each start, so that an
/// attacker cannot aim at one bucket.
///
/// The four words of an IPv4 key go through NH, the universal hash of UMAC (RFC 4418 §5.2.2): of any two keys the
/// sums are alike for one secret in 2³² only. One more blinded multiplication, folded, spreads what is
/// alike in many sums, such as those of consecutive ports. All of it is in 32-bit words, of which vector
/// instructions multiply eight at once. The addresses of IPv6 are folded to 64 bits before. The bucket
/// chains of the table are bounded besides, so that a break of it costs speed, not service.
#[derive(Clone, Debug)]
pub struct FlowHasher([u64; 8]);

impl FlowHasher {
    /// With a random secret.
    #[must_use]
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        // The standard library's hasher is seeded by the operating system;
        // hashing a counter with it yields secret words.
        let source = RandomState::new();
        Self([0_u8, 1, 2, 3, 4, 5, 6, 7].map(|word| source.hash_one(word)))
    }

    /// With a known secret: the same order of events in every run, for
    /// replay, tests and instruction counts.
    #[must_use]
    pub fn fixed() -> Self {
        // The first hexadecimal digits of π after the point, as good as any.
        Self([
            0x243f_6a88_85a3_08d3,
            0x1319_8a2e_0370_7344,
            0xa409_3822_299f_31d0,
            0x082e_fa98_ec4e_6c89,
            0x4528_21e6_38d0_1377,
            0xbe54_66cf_34e9_0c6c,
            0xc0ac_29b7_c97c_50dd,
            0x3f84_d5b5_b547_0917,
        ])
    }

    /// A hasher for another purpose, of whose hashes none says anything of this one's.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Self {
        let mut words = [0; 8];
        for (number, word) in (0_u8..).zip(&mut words) {
            *word = self.hash_of(&(purpose, number));
        }
        Self(words)
    }

    /// The hash of anything else, by SipHash: for what happens once a connection at most.
    #[must_use]
    pub fn hash_of(&self, value: &impl std::hash::Hash) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        value.hash(&mut hasher);
        hasher.finish()
    }

    /// The hash of a key. Of IPv4 addresses only what varies is hashed.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        let [_, _, _, k3, k4, k5, k6, _] = self.0;
        let [s0, s1, d0, d1, rest] = key.0;
        if key.is_v4() {
            return self.hash_plain(&PlainKey([s0, s1]));
        }
        let addresses = fold(s0 ^ k3, s1 ^ k4) ^ fold(d0 ^ k5, d1 ^ k6);
        self.hash_plain(&PlainKey([addresses, rest]))
    }

    /// The same of a key with IPv4 addresses.
    #[inline(always)]
    #[must_use]
    pub(crate) fn hash_plain(&self, PlainKey(key): &PlainKey) -> u64 {
        let [upper, lower] = self.secret().hash(key.map(halves));
        u64::from(upper) << 32 | u64::from(lower)
    }

    /// What the hash of a key with IPv4 addresses is made with.
    #[inline(always)]
    pub(crate) fn secret(&self) -> Secret {
        let [k0, k1, k2, ..] = self.0.map(halves);
        Secret {
            nh: [k0[0], k0[1], k1[0], k1[1]],
            last: k2,
        }
    }
}

/// The secret words for keys with IPv4 addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secret {
    /// For each word of the key, in their order.
    pub(crate) nh: [u32; 4],
    /// For the lower and the upper half of the sum.
    pub(crate) last: [u32; 2],
}

impl Secret {
    /// Both halves of the hash of a key's words, the upper one first.
    #[inline(always)]
    pub(super) const fn hash(&self, [[a, b], [c, d]]: [[u32; 2]; 2]) -> [u32; 2] {
        let Self { nh, last } = self;
        let sum = product([b, c], [nh[1], nh[2]]).wrapping_add(product([d, a], [nh[3], nh[0]]));
        let [low, high] = halves(product(halves(sum), *last));
        // The lowest bits of a product are not spread evenly: both halves of the hash have the upper ones.
        [low ^ high, high]
    }
}

/// Hashes of several keys, by number: their halves are apart, so that several at once are written, and read.
#[derive(Debug)]
pub(crate) struct Hashes<const N: usize> {
    pub(crate) upper: [u32; N],
    pub(crate) lower: [u32; N],
}

impl<const N: usize> Hashes<N> {
    pub(crate) const EMPTY: Self = Self {
        upper: [0; N],
        lower: [0; N],
    };

    pub(crate) fn set(&mut self, number: usize, hash: u64) {
        [self.lower[number], self.upper[number]] = halves(hash);
    }

    #[inline(always)]
    pub(crate) fn get(&self, number: usize) -> u64 {
        u64::from(self.upper[number]) << 32 | u64::from(self.lower[number])
    }
}

/// The product of two words, each of which a secret one was added to.
#[inline(always)]
const fn product(words: [u32; 2], secret: [u32; 2]) -> u64 {
    words[0].wrapping_add(secret[0]) as u64 * words[1].wrapping_add(secret[1]) as u64
}

/// Both halves of the product, as one word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}
