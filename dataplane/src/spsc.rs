//! A bounded ring between two threads, without locks and system calls: one sends, one receives.
//!
//! The ends count what they did by two indices and look at the other's only when their own copy of
//! it says that the ring is full or empty, so that in a busy ring a cache line moves once a burst.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// What both ends of a ring share.
///
/// `head` and `tail` are free-running counters, each written by one end:
/// `0 <= tail - head <= slots.len()` (wrapping), a power of two. The slots from `head` up
/// to `tail` hold items and belong to the receiver, the others to the sender. Each end advances
/// its index by a store-release after touching the slots, and the other does a
/// load-acquire of it before; see `xsk/ring.rs` for a drawing.
struct Shared<T> {
    /// Next slot to be taken; written by the receiver.
    head: CachePadded<AtomicUsize>,
    /// Next slot to be filled; written by the sender.
    tail: CachePadded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched by one end at a time, as the indices say; items
// move from one thread to another, for which `T: Send` is enough.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    #[inline(always)]
    fn slot(&self, index: usize) -> *mut MaybeUninit<T> {
        // SAFETY: the number of slots is a power of two and not 0, so that masking with one less
        // gives the number of a slot.
        unsafe { self.slots.get_unchecked(index & (self.slots.len() - 1)) }.get()
    }

    /// Where `count` slots from `index` on are, at most all of them, and how many are there: up to the
    /// last one, and the others from the first one on.
    #[inline(always)]
    fn runs(&self, index: usize, count: usize) -> [(*mut T, usize); 2] {
        let start = index & (self.slots.len() - 1);
        let length = count.min(self.slots.len() - start);
        let slots = UnsafeCell::raw_get(self.slots.as_ptr()).cast::<T>();
        [(slots.wrapping_add(start), length), (slots, count - length)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = *self.tail.get_mut();
        let mut head = *self.head.get_mut();
        while head != tail {
            // SAFETY: slots from head up to tail hold items, and both ends are
            // gone: nobody else takes them.
            unsafe { (*self.slot(head)).assume_init_drop() };
            head = head.wrapping_add(1);
        }
    }
}

/// The sending end. Pushed items are seen by the receiver after
/// [`publish`](Self::publish).
pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
    /// Where the next item goes; ahead of the shared tail by what is not published.
    tail: usize,
    /// The receiver's head as last seen.
    head: usize,
}

/// The receiving end.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The sender's tail as last seen.
    tail: usize,
}

/// A ring of `capacity` slots, rounded up to a power of two.
pub(crate) fn ring<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let slots = (0..capacity.next_power_of_two())
        .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
        .collect();
    let shared = Arc::new(Shared {
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        slots,
    });
    let sender = Sender {
        shared: Arc::clone(&shared),
        tail: 0,
        head: 0,
    };
    let receiver = Receiver {
        shared,
        head: 0,
        tail: 0,
    };
    (sender, receiver)
}

impl<T> Sender<T> {
    /// How many items can be pushed, up to `wanted`.
    #[inline(always)]
    pub(crate) fn room(&mut self, wanted: usize) -> usize {
        let size = self.shared.slots.len();
        if size - self.tail.wrapping_sub(self.head) < wanted {
            self.head = self.shared.head.load(Ordering::Acquire);
        }
        (size - self.tail.wrapping_sub(self.head)).min(wanted)
    }

    /// Queues an item, or gives it back when the ring is full.
    #[inline(always)]
    pub(crate) fn push(&mut self, item: T) -> Result<(), T> {
        if self.room(1) == 0 {
            return Err(item);
        }
        // SAFETY: there is room, so the slot is the sender's and empty, and
        // `&mut self` is the only sender.
        unsafe { (*self.shared.slot(self.tail)).write(item) };
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Queues items from the front, as many as there is room for; returns how many.
    #[inline(always)]
    pub(crate) fn push_all(&mut self, items: &mut Vec<T>) -> usize {
        let count = self.room(items.len());
        let left = items.len() - count;
        let [(first, length), (second, rest)] = self.shared.runs(self.tail, count);
        // SAFETY: there is room for `count` items from the tail on, so these slots are the sender's and
        // empty, and `&mut self` is the only sender. As many items are at the front of the vector. They move:
        // the others take their place, and its length becomes that of the others.
        unsafe {
            let items_start = items.as_mut_ptr();
            first.copy_from_nonoverlapping(items_start, length);
            if rest > 0 {
                second.copy_from_nonoverlapping(items_start.add(length), rest);
            }
            if left > 0 {
                items_start.copy_from(items_start.add(count), left);
            }
            items.set_len(left);
        }
        self.tail = self.tail.wrapping_add(count);
        count
    }

    /// Shows the receiver what was pushed.
    #[inline(always)]
    pub(crate) fn publish(&mut self) {
        self.shared.tail.store(self.tail, Ordering::Release);
    }
}

impl<T> Drop for Sender<T> {
    /// Publishes what was pushed, so that it is received or dropped.
    fn drop(&mut self) {
        self.publish();
    }
}

impl<T> Receiver<T> {
    /// True if there is nothing to be taken.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.shared.tail.load(Ordering::Acquire)
    }

    /// Moves up to `most` items to the end of `items`; returns how many.
    #[inline(always)]
    pub(crate) fn pop(&mut self, items: &mut Vec<T>, most: usize) -> usize {
        if self.tail == self.head {
            self.tail = self.shared.tail.load(Ordering::Acquire);
        }
        let count = self.tail.wrapping_sub(self.head).min(most);
        let [(first, length), (second, rest)] = self.shared.runs(self.head, count);
        items.reserve(count);
        // SAFETY: the slots from the head up to the sender's tail hold items. They move to the vector, which
        // has room for them, once: head goes past them, and the sender does not touch them before the
        // store below.
        unsafe {
            let end = items.as_mut_ptr().add(items.len());
            end.copy_from_nonoverlapping(first, length);
            if rest > 0 {
                end.add(length).copy_from_nonoverlapping(second, rest);
            }
            items.set_len(items.len() + count);
        }
        self.head = self.head.wrapping_add(count);
        self.shared.head.store(self.head, Ordering::Release);
        count
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
