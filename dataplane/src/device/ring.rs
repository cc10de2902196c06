//! The device in memory: frames pass over rings between a worker and a peer in
//! the same process, without a system call.
//!
//! ```text
//!    RingPeer ──────── rx ───────► RingDevice      frames to be received
//!    RingPeer ◄─────── tx ──────── RingDevice      frames transmitted
//!    RingPeer ◄───── recycle ───── RingDevice      free frames, for those that were dropped
//! ```
//!
//! Invariant: no frame is lost. The device owes the peer a frame for each one it received and has not
//! transmitted, and pays from the worker's pool in
//! [`flush`](Device::flush), so that a peer gets back as many as it sent.
//!
//! Both ends may be in one thread or in two.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::{BURST, Device, DeviceStatistics};
use crate::xsk::umem::{Frame, FramePool};

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
struct Sender<T> {
    shared: Arc<Shared<T>>,
    /// Where the next item goes; ahead of the shared tail by what is not published.
    tail: usize,
    /// The receiver's head as last seen.
    head: usize,
}

/// The receiving end.
struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The sender's tail as last seen.
    tail: usize,
}

/// A ring of `capacity` slots, rounded up to a power of two.
fn ring<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
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
    fn room(&mut self, wanted: usize) -> usize {
        let size = self.shared.slots.len();
        if size - self.tail.wrapping_sub(self.head) < wanted {
            self.head = self.shared.head.load(Ordering::Acquire);
        }
        (size - self.tail.wrapping_sub(self.head)).min(wanted)
    }

    /// Queues an item, or gives it back when the ring is full.
    #[inline(always)]
    fn push(&mut self, item: T) -> Result<(), T> {
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
    fn push_all(&mut self, items: &mut Vec<T>) -> usize {
        let count = self.room(items.len());
        let (shared, tail) = (&*self.shared, self.tail);
        for (number, item) in items.drain(..count).enumerate() {
            // SAFETY: there is room for `count` items from the tail on, so these
            // slots are the sender's and empty, and `&mut self` is the only sender.
            unsafe { (*shared.slot(tail.wrapping_add(number))).write(item) };
        }
        self.tail = tail.wrapping_add(count);
        count
    }

    #[inline(always)]
    fn publish(&mut self) {
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
    /// Moves up to `most` items to the end of `items`; returns how many.
    #[inline(always)]
    fn pop(&mut self, items: &mut Vec<T>, most: usize) -> usize {
        if self.tail == self.head {
            self.tail = self.shared.tail.load(Ordering::Acquire);
        }
        let count = self.tail.wrapping_sub(self.head).min(most);
        let (shared, head) = (&*self.shared, self.head);
        items.extend((0..count).map(|number| {
            // SAFETY: the slot is below the sender's tail, so it holds an item;
            // it is taken once, as head moves past it, and the sender does not
            // touch it before the store below.
            unsafe { (*shared.slot(head.wrapping_add(number))).assume_init_read() }
        }));
        self.head = head.wrapping_add(count);
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

/// The worker's end.
#[derive(Debug)]
pub struct RingDevice {
    rx: Receiver<Frame>,
    tx: Sender<Frame>,
    recycle: Sender<Frame>,
    /// Frames received minus frames given back, transmitted or recycled. Less
    /// than zero when the worker sent frames of its own.
    owed: i64,
    /// The last flush found the recycle ring full.
    recycle_full: bool,
}

/// The other end: the network, played by a generator or a test.
#[derive(Debug)]
pub struct RingPeer {
    to_rx: Sender<Frame>,
    from_tx: Receiver<Frame>,
    from_recycle: Receiver<Frame>,
}

/// A device and its peer. Each ring holds `capacity` frames, rounded up to a
/// power of two. All frames must be of one umem.
#[must_use]
pub fn pair(capacity: usize) -> (RingDevice, RingPeer) {
    let (to_rx, rx) = ring(capacity);
    let (tx, from_tx) = ring(capacity);
    let (recycle, from_recycle) = ring(capacity);
    let device = RingDevice {
        rx,
        tx,
        recycle,
        owed: 0,
        recycle_full: false,
    };
    let peer = RingPeer {
        to_rx,
        from_tx,
        from_recycle,
    };
    (device, peer)
}

impl RingPeer {
    /// Sends frames to the device, from the front of `frames`, as many as there
    /// is room for; returns how many. The others stay in `frames`.
    #[inline]
    pub fn send(&mut self, frames: &mut Vec<Frame>) -> usize {
        let count = self.to_rx.push_all(frames);
        self.to_rx.publish();
        count
    }

    /// Appends up to [`BURST`] frames that the device transmitted; returns how
    /// many.
    #[inline]
    pub fn receive(&mut self, frames: &mut Vec<Frame>) -> usize {
        self.from_tx.pop(frames, BURST)
    }

    /// Appends up to [`BURST`] free frames, which the device gives back for those that
    /// it dropped; returns how many.
    #[inline]
    pub fn recycled(&mut self, frames: &mut Vec<Frame>) -> usize {
        self.from_recycle.pop(frames, BURST)
    }
}

impl Device for RingDevice {
    #[inline]
    fn receive(&mut self, burst: &mut Vec<Frame>) -> usize {
        let received = self.rx.pop(burst, BURST);
        self.owed += received as i64;
        received
    }

    #[inline]
    fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        self.tx.push(frame)?;
        self.owed -= 1;
        Ok(())
    }

    #[inline]
    fn transmit_burst(&mut self, frames: &mut Vec<Frame>) {
        let count = self.tx.push_all(frames);
        self.owed -= count as i64;
    }

    #[inline]
    fn flush(&mut self, pool: &mut FramePool) {
        self.tx.publish();
        self.recycle_full = false;
        while self.owed > 0 {
            if self.recycle.room(1) == 0 {
                self.recycle_full = true;
                break;
            }
            let Some(frame) = pool.take() else { break };
            let pushed = self.recycle.push(frame);
            debug_assert!(pushed.is_ok(), "the ring had room");
            self.owed -= 1;
        }
        self.recycle.publish();
    }

    fn has_outstanding(&self) -> bool {
        self.recycle_full
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn statistics(&self) -> DeviceStatistics {
        DeviceStatistics::default()
    }
}

#[cfg(test)]
mod tests;
