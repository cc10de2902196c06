//! The prefetch helper: the only `unsafe` outside the device layer.

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
