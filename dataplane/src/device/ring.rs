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

use std::os::fd::BorrowedFd;

use super::{BURST, Device, DeviceStatistics};
use crate::spsc::{Receiver, Sender, ring};
use crate::xsk::umem::{Frame, FramePool};

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
