//! Instructions that have no safe name: the only `unsafe` of the data plane outside its device layer.

/// Bit 2·n for each of eight words that is equal to `wanted`.
#[inline(always)]
#[must_use]
pub(crate) fn equal_words(words: &[u16; 8], wanted: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE2. The load is of 16 bytes that the reference vouches
    // for, and needs no alignment; nothing else touches memory.
    let both_bytes = unsafe {
        use core::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi16,
        };
        let all = _mm_set1_epi16(wanted.cast_signed());
        let words = _mm_loadu_si128(words.as_ptr().cast());
        _mm_movemask_epi8(_mm_cmpeq_epi16(words, all)).cast_unsigned()
    };
    #[cfg(not(target_arch = "x86_64"))]
    let both_bytes = (0..8).fold(0, |found, n| {
        found | u32::from(words[n] == wanted) << (2 * n)
    });
    both_bytes & 0x5555
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
    fn equal_words_are_found_whole() {
        let words = [7, 0x0700, 0, 7, 0x0107, u16::MAX, 0xff00, 7];
        assert_eq!(equal_words(&words, 7), 1 | 1 << 6 | 1 << 14);
        assert_eq!(equal_words(&words, u16::MAX), 1 << 10);
        assert_eq!(equal_words(&words, 8), 0);
    }
}
