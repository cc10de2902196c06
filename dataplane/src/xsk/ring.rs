//! Single-producer, single-consumer rings in memory shared with the kernel.
//!
//! ```text
//!             consumer            producer            one mapping, made by the kernel:
//!                │                   │                  u32 producer · u32 consumer · u32 flags
//!    ┌────┬────┬─▼──┬────┬────┬────┬─▼──┬────┐          T entries[size]
//!    │free│free│full│full│full│full│free│free│
//!    └────┴────┴────┴────┴────┴────┴────┴────┘        size is a power of two
//!
//!    fill, tx          we produce, the kernel consumes   → Producer
//!    rx, completion    the kernel produces, we consume   → Consumer
//! ```
//!
//! **Indices.** `producer` and `consumer` are free-running counters modulo
//! 2³²; each is written by one side only. Entry `i` is at `i mod size`. Always
//! `0 <= producer - consumer <= size` (wrapping): entries from `consumer` up to `producer` are the
//! consumer's to read, all others are the producer's to write.
//!
//! **Order.** The side that advances its index does so by a store-release after it
//! has written (read) the entries; the other side does a load-acquire of that index
//! before it reads (overwrites) them:
//!
//! ```text
//!    producer                               consumer
//!    acquire consumer ───── sees ◄───────── release consumer   entries are free again
//!    write entries                          read entries
//!    release producer ─────────► sees ───── acquire producer   entries are filled
//! ```
//!
//! The kernel does the same (`net/xdp/xsk_queue.h`). Each side keeps a copy of the other's index and
//! loads it anew only when the copy says full (empty), so that a burst
//! costs one shared cache line and not one for each entry.
//!
//! **What the kernel may do wrong.** Entries are found by masking, so no index, however wrong, leads
//! out of the mapping; `T` is valid for any bits. What the entries say is checked by the
//! [`Ledger`](super::umem::Ledger).

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm;
use rustix::net::xdp::{XdpDesc, XdpRingFlags, XdpRingOffset};

/// What a ring holds.
///
/// # Safety
/// Every bit pattern is a valid value: the kernel writes them.
pub(crate) unsafe trait Entry: Copy {}

// SAFETY: an integer.
unsafe impl Entry for u64 {}
// SAFETY: two integers and a `bitflags` type, which keeps unknown bits.
unsafe impl Entry for XdpDesc {}

/// A shared mapping, unmapped when the last ring in it goes.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: an address and a length, tied to no thread; what is in the mapping is
// reached through `Shared` only.
unsafe impl Send for Mapping {}
// SAFETY: as above: `&Mapping` gives access to no byte.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mapping; the rings that
        // point into it hold an `Arc` of it, so none is left.
        let unmapped = unsafe { mm::munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "munmap of a ring: {unmapped:?}");
    }
}

/// Where the parts of a ring are.
#[derive(Debug)]
struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    /// Absent before Linux 5.4.
    flags: Option<NonNull<AtomicU32>>,
    entries: NonNull<T>,
    size: u32,
    _mapping: Arc<Mapping>,
}

// SAFETY: the pointers lead into the mapping, which is held and is tied to no
// thread; the indices are atomic, and entries are reached through `&mut` of the
// one `Producer` or `Consumer` that owns this.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: Entry> Shared<T> {
    /// Maps the ring at page offset `page` of socket `fd`.
    fn map(fd: BorrowedFd<'_>, page: u64, at: &XdpRingOffset, size: u32) -> io::Result<Self> {
        debug_assert!(size.is_power_of_two());
        let fits = |offset: u64| usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidData);
        let length = fits(at.desc)? + size as usize * size_of::<T>();
        // SAFETY: a new mapping at an address of the kernel's choice aliases
        // nothing.
        let base = unsafe {
            mm::mmap(
                std::ptr::null_mut(),
                length,
                mm::ProtFlags::READ | mm::ProtFlags::WRITE,
                mm::MapFlags::SHARED | mm::MapFlags::POPULATE,
                fd,
                page,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Self::within(Arc::new(Mapping { base, length }), at, size)
    }

    /// The ring laid out in `mapping` as `at` says.
    ///
    /// # Errors
    /// `InvalidData` when a part would lie outside the mapping or unaligned.
    fn within(mapping: Arc<Mapping>, at: &XdpRingOffset, size: u32) -> io::Result<Self> {
        let place = |offset: u64, length: usize, align: usize| {
            let offset = usize::try_from(offset).ok()?;
            let inside = offset.checked_add(length)? <= mapping.length && offset % align == 0;
            // SAFETY: the offset is inside the mapping, as just checked.
            inside.then(|| unsafe { mapping.base.add(offset) })
        };
        let index = |offset| place(offset, 4, 4).ok_or(io::ErrorKind::InvalidData);
        let entries = place(at.desc, size as usize * size_of::<T>(), align_of::<T>())
            .ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            producer: index(at.producer)?.cast(),
            consumer: index(at.consumer)?.cast(),
            flags: at.flags.map(index).transpose()?.map(NonNull::cast),
            entries: entries.cast(),
            size,
            _mapping: mapping,
        })
    }

    #[inline(always)]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: inside the held mapping and aligned (`within`).
        unsafe { self.producer.as_ref() }
    }

    #[inline(always)]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: inside the held mapping and aligned (`within`).
        unsafe { self.consumer.as_ref() }
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: the masked index is below `size`, and all `size` entries lie
        // in the mapping (`within`).
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }

    /// True when the kernel asks for a system call to go on with this ring.
    #[inline(always)]
    fn needs_wakeup(&self) -> bool {
        match self.flags {
            Some(flags) => {
                // SAFETY: inside the held mapping and aligned (`within`).
                let flags = unsafe { flags.as_ref() }.load(Ordering::Relaxed);
                flags & XdpRingFlags::XDP_RING_NEED_WAKEUP.bits() != 0
            }
            // A kernel that cannot ask must always be called.
            None => true,
        }
    }
}

/// Our end of a fill or tx ring.
///
/// Pushed entries are ours until [`publish`](Self::publish); forgetting it
/// delays them, doing it twice does nothing.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    ring: Shared<T>,
    /// Where the next entry goes; ahead of the shared index by what is not published.
    next: u32,
    /// First index that must not be written: the consumer's, as last seen, plus `size`.
    limit: u32,
}

impl<T: Entry> Producer<T> {
    /// Maps the ring at `page` of the socket, with `size` entries, a power of two.
    pub(crate) fn map(
        fd: BorrowedFd<'_>,
        page: u64,
        at: &XdpRingOffset,
        size: u32,
    ) -> io::Result<Self> {
        Ok(Self::new(Shared::map(fd, page, at, size)?))
    }

    fn new(ring: Shared<T>) -> Self {
        let next = ring.producer().load(Ordering::Relaxed);
        let limit = ring
            .consumer()
            .load(Ordering::Acquire)
            .wrapping_add(ring.size);
        Self { ring, next, limit }
    }

    /// How many entries can be pushed, up to `wanted`.
    #[inline(always)]
    pub(crate) fn room(&mut self, wanted: u32) -> u32 {
        if self.limit.wrapping_sub(self.next) < wanted {
            let consumer = self.ring.consumer().load(Ordering::Acquire);
            self.limit = consumer.wrapping_add(self.ring.size);
        }
        self.limit.wrapping_sub(self.next).min(wanted)
    }

    /// Writes an entry, or returns false when the ring is full.
    #[inline(always)]
    #[must_use = "a full ring does not take the entry"]
    pub(crate) fn push(&mut self, entry: T) -> bool {
        if self.room(1) == 0 {
            return false;
        }
        // SAFETY: the pointer is to an entry of the ring; by the index
        // invariant it is the producer's to write, and `&mut self` is the only producer.
        unsafe { self.ring.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Hands all pushed entries to the consumer.
    #[inline(always)]
    pub(crate) fn publish(&mut self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// Entries that the consumer has not taken yet, published or not.
    #[inline(always)]
    pub(crate) fn pending(&self) -> u32 {
        let consumer = self.ring.consumer().load(Ordering::Acquire);
        self.next.wrapping_sub(consumer)
    }

    /// See [`Shared::needs_wakeup`].
    #[inline(always)]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// Our end of an rx or completion ring.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    ring: Shared<T>,
    /// The next entry to read.
    next: u32,
    /// First index that must not be read: the producer's, as last seen.
    limit: u32,
}

impl<T: Entry> Consumer<T> {
    /// Maps the ring at `page` of the socket, with `size` entries, a power of two.
    pub(crate) fn map(
        fd: BorrowedFd<'_>,
        page: u64,
        at: &XdpRingOffset,
        size: u32,
    ) -> io::Result<Self> {
        Ok(Self::new(Shared::map(fd, page, at, size)?))
    }

    fn new(ring: Shared<T>) -> Self {
        let next = ring.consumer().load(Ordering::Relaxed);
        let limit = ring.producer().load(Ordering::Acquire);
        Self { ring, next, limit }
    }

    /// Up to `most` entries, to be iterated over. Those that were taken go back
    /// to the producer when the burst is dropped, those that were not stay in
    /// the ring.
    #[inline(always)]
    pub(crate) fn burst(&mut self, most: usize) -> Taken<'_, T> {
        if self.limit == self.next {
            self.limit = self.ring.producer().load(Ordering::Acquire);
        }
        let left = (self.limit.wrapping_sub(self.next) as usize).min(most);
        Taken { ring: self, left }
    }
}

/// Entries of a ring being consumed; they are released when this is dropped.
#[derive(Debug)]
#[must_use = "a burst that is not iterated over consumes nothing"]
pub(crate) struct Taken<'a, T: Entry> {
    ring: &'a mut Consumer<T>,
    left: usize,
}

impl<T: Entry> Iterator for Taken<'_, T> {
    type Item = T;

    #[inline(always)]
    fn next(&mut self) -> Option<T> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        // SAFETY: the pointer is to an entry of the ring, and `left` entries
        // were filled by the producer before the index that was acquired; any bits are a
        // valid `T` (`Entry`), and `T` is copied out.
        let entry = unsafe { self.ring.ring.entry(self.ring.next).read() };
        self.ring.next = self.ring.next.wrapping_add(1);
        Some(entry)
    }

    #[inline(always)]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: Entry> ExactSizeIterator for Taken<'_, T> {}

impl<T: Entry> Drop for Taken<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        let next = self.ring.next;
        self.ring.ring.consumer().store(next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
