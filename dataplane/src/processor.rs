//! What the compiler does not choose by itself: instructions that have no safe name, and loops compiled for newer processors besides,
//! chosen when the process starts.

/// What the processor can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processor {
    /// What x86-64-v3 has for loops over packets: AVX2, BMI1 and BMI2.
    is_v3: bool,
}

/// A loop that is worth compiling for newer processors besides.
pub(crate) trait Loop {
    type Result;

    /// The loop. To be `#[inline(always)]`: what is inlined is compiled with the instructions of the
    /// function around it.
    fn run(self) -> Self::Result;
}

impl Processor {
    /// Asks the processor.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        let is_v3 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        #[cfg(not(target_arch = "x86_64"))]
        let is_v3 = false;
        Self { is_v3 }
    }

    /// True if it has AVX2.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn has_avx2(self) -> bool {
        self.is_v3
    }

    /// Runs a loop, which is compiled twice: for any processor, and for newer ones.
    #[inline(always)]
    pub(crate) fn run<L: Loop>(self, work: L) -> L::Result {
        #[cfg(target_arch = "x86_64")]
        if self.is_v3 {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { run_v3(work) };
        }
        run_anywhere(work)
    }
}

#[inline(never)]
fn run_anywhere<L: Loop>(work: L) -> L::Result {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn run_v3<L: Loop>(work: L) -> L::Result {
    work.run()
}

/// Eight words, to be compared at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub(crate) struct Words(pub(crate) [u16; 8]);

impl Words {
    /// Bits 2·n and 2·n + 1 for each word that is equal to `wanted`.
    #[inline(always)]
    #[must_use]
    pub(crate) fn equal_to(&self, wanted: u16) -> u32 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 processor has SSE2. The load is of 16 bytes that the reference vouches
        // for, and aligned as the type is; nothing else touches memory.
        let both_bytes = unsafe {
            use core::arch::x86_64::{
                _mm_cmpeq_epi16, _mm_load_si128, _mm_movemask_epi8, _mm_set1_epi16,
            };
            let all = _mm_set1_epi16(wanted.cast_signed());
            let words = _mm_load_si128(self.0.as_ptr().cast());
            _mm_movemask_epi8(_mm_cmpeq_epi16(words, all)).cast_unsigned()
        };
        #[cfg(not(target_arch = "x86_64"))]
        let both_bytes = (0..8).fold(0, |found, n| {
            found | u32::from(self.0[n] == wanted) * 3 << (2 * n)
        });
        both_bytes
    }

    /// In the lowest eight bits one for each word that is `first`, in the next eight one for each that is `second`.
    #[inline(always)]
    #[must_use]
    pub(crate) fn equal_to_either(&self, first: u16, second: u16) -> u32 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `equal_to`.
        let found = unsafe {
            use core::arch::x86_64::{
                _mm_cmpeq_epi16, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
            };
            let words = _mm_load_si128(self.0.as_ptr().cast());
            let equal = |wanted: u16| _mm_cmpeq_epi16(words, _mm_set1_epi16(wanted.cast_signed()));
            _mm_movemask_epi8(_mm_packs_epi16(equal(first), equal(second))).cast_unsigned()
        };
        #[cfg(not(target_arch = "x86_64"))]
        let found = (0..8).fold(0, |found, n| {
            let equal = |wanted: u16| u32::from(self.0[n] == wanted);
            found | equal(first) << n | equal(second) << (8 + n)
        });
        found
    }
}

/// The words in pairs, the first one of each below the second. They are put together at once, and so they are stored.
#[inline(always)]
#[must_use]
pub(crate) fn double_words([a, b, c, d]: [u32; 4]) -> [u64; 2] {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE2.
    let words = unsafe {
        use core::arch::x86_64::{_mm_cvtsi128_si64, _mm_set_epi32, _mm_unpackhi_epi64};
        let [a, b, c, d] = [a, b, c, d].map(u32::cast_signed);
        let all = _mm_set_epi32(d, c, b, a);
        [
            _mm_cvtsi128_si64(all).cast_unsigned(),
            _mm_cvtsi128_si64(_mm_unpackhi_epi64(all, all)).cast_unsigned(),
        ]
    };
    #[cfg(not(target_arch = "x86_64"))]
    let words = [[a, b], [c, d]].map(|[low, high]| u64::from(low) | u64::from(high) << 32);
    words
}

/// Eight words of twice that length.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct Eight(pub(crate) [u32; 8]);

impl Eight {
    /// A bit for each word that is 0.
    #[inline(always)]
    #[must_use]
    pub(crate) fn zeros(&self) -> u8 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 processor has SSE2. The loads are of 16 bytes each, both halves of what the
        // reference vouches for, and aligned as the type is; nothing else touches memory.
        let [zeros, ..] = unsafe {
            use core::arch::x86_64::{
                _mm_cmpeq_epi32, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16,
                _mm_packs_epi32, _mm_setzero_si128,
            };
            let (low, high) = self.0.split_at(4);
            let zero = _mm_setzero_si128();
            let is_zero =
                |half: &[u32]| _mm_cmpeq_epi32(_mm_load_si128(half.as_ptr().cast()), zero);
            let words = _mm_packs_epi32(is_zero(low), is_zero(high));
            _mm_movemask_epi8(_mm_packs_epi16(words, zero)).to_le_bytes()
        };
        #[cfg(not(target_arch = "x86_64"))]
        let zeros = (0..8).fold(0, |zeros, n| zeros | u8::from(self.0[n] == 0) << n);
        zeros
    }
}

/// True if the bytes, with zero where bits of `mask` are not set, are the words as they stand in memory.
#[inline(always)]
#[must_use]
pub(crate) fn same_where(mask: [u64; 2], bytes: &[u8; 16], words: [u64; 2]) -> bool {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE2. The load is of 16 bytes that the reference vouches for;
    // nothing else touches memory.
    let is_same = unsafe {
        use core::arch::x86_64::{
            _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set_epi64x,
        };
        let both = |[low, high]: [u64; 2]| _mm_set_epi64x(high.cast_signed(), low.cast_signed());
        let bytes = _mm_and_si128(_mm_loadu_si128(bytes.as_ptr().cast()), both(mask));
        _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, both(words))) == 0xffff
    };
    #[cfg(not(target_arch = "x86_64"))]
    let is_same = {
        let halves = bytes.as_chunks().0.iter().zip(words).zip(mask);
        halves.fold(0, |different, ((half, word), mask)| {
            different | (u64::from_ne_bytes(*half) & mask) ^ word
        }) == 0
    };
    is_same
}

/// Asks the processor to load the cache line of `slice[index]`. A hint: it
/// has no effect besides time, and none at all when `index` is out of range.
#[inline(always)]
pub(crate) fn prefetch<T>(slice: &[T], index: usize) {
    prefetch_address(slice.as_ptr().wrapping_add(index));
}

/// Asks the processor to load the cache line at `address`, which need not be
/// valid.
#[inline(always)]
pub(crate) fn prefetch_address<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHT0 reads nothing architecturally and does not fault,
    // whatever the address (Intel SDM vol. 2, PREFETCHh).
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_found_wherever_they_are() {
        for bits in 0..=u8::MAX {
            let word = |lane: usize| match bits >> lane & 1 {
                0 => 1 << (4 * lane + 3),
                _ => 0,
            };
            assert_eq!(Eight(std::array::from_fn(word)).zeros(), bits);
        }
    }

    #[test]
    fn equal_words_are_found_whole() {
        let words = Words([7, 0x0700, 0, 7, 0x0107, u16::MAX, 0xff00, 7]);
        assert_eq!(words.equal_to(7), 3 | 3 << 6 | 3 << 14);
        assert_eq!(words.equal_to(u16::MAX), 3 << 10);
        assert_eq!(words.equal_to(8), 0);
        assert_eq!(words.equal_to_either(7, 0), 0b1000_1001 | 1 << 10);
        assert_eq!(words.equal_to_either(8, u16::MAX), 1 << 13);
        assert_eq!(words.equal_to_either(8, 9), 0);
    }
}
