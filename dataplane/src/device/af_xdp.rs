//! The device over an AF_XDP socket: one queue of one interface.
//!
//! ```text
//!            pool ──fill──► kernel ──rx──► receive ─► … ─► transmit ──tx──► kernel ──completion──► pool
//!                   └────── lent ──────┘                          └──────────── lent ───────────┘
//! ```
//!
//! Invariants:
//! - A frame is in the pool, in the worker's hands, or in the socket's ledger
//!   as lent. Frames the kernel has not sent yet stay lent and in the tx ring,
//!   whatever a kick returns: the next flush tries again.
//! - The fill ring is kept at its level as far as the pool reaches; the levels of
//!   a worker's devices add up to half of its frames at most.
//!
//! Not done here: what is dropped because the tx ring is full is the worker's
//! to count. Dropping a device forgets the lent frames; [`AfXdp::close`] returns them.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::xdp::{XdpDesc, XdpDescOptions};
use rustix::net::{RecvFlags, SendFlags};

use super::{BURST, Device, DeviceStatistics};
use crate::xsk::socket::{OpenError, RING_SIZE, Shared, Socket};
use crate::xsk::umem::{Frame, FramePool, Ledger, Umem};

pub use crate::xsk::socket::{BindMode, QueueSpec};

/// Frames that a worker's umem should have for each of its queues: a full
/// fill ring, and as many again on their way through the worker and the tx ring.
pub const FRAMES_PER_QUEUE: u32 = 2 * RING_SIZE;

/// How many of a worker's frames each of its queues has in the fill ring at most: half of all
/// together, as the others are on their way.
#[must_use]
pub fn fill_share(frames: u32, queues: usize) -> u32 {
    let queues = u32::try_from(queues).unwrap_or(u32::MAX);
    let share = (frames / 2).checked_div(queues).unwrap_or(0);
    share.min(RING_SIZE)
}

/// Most system calls of one flush: enough for a full tx ring at the 32 frames
/// that a kernel without `XDP_MAX_TX_SKB_BUDGET` sends in one.
const KICKS: u32 = RING_SIZE / 32;

/// Shortest frame that is given to the kernel, an Ethernet header. The kernel
/// skips an empty descriptor without completing it, and its frame would be lost.
const SHORTEST: usize = 14;

/// One queue of an interface, over an AF_XDP socket.
#[derive(Debug)]
pub struct AfXdp {
    socket: Socket,
    ledger: Ledger,
    /// How many frames to keep lent through the fill ring.
    fill_level: u32,
    /// Frames lent through the fill ring and not received yet.
    filled: u32,
    /// Frames lent through the tx ring and not completed yet.
    sending: u32,
    /// Frames too short to be sent, until the next flush.
    refused: Vec<Frame>,
    spec: QueueSpec,
    tx_refused: u64,
    tx_dropped: u64,
    kernel_invalid: u64,
}

/// Opens the sockets of one worker on one umem, and fills their fill rings from
/// `pool`: all of them with half of it at most, so it should have [`FRAMES_PER_QUEUE`] for each.
///
/// All sockets of a umem are either zero-copy or not. So in mode `Auto`, when one of
/// the interfaces cannot do zero-copy, all are opened in copy mode.
///
/// The XDP program should be attached first: some drivers set their queues up anew
/// for it.
///
/// # Errors
/// What failed, on which interface and queue, and what to do. A queue that stays busy is
/// reported after two seconds.
pub fn open_worker(
    umem: &Arc<Umem>,
    pool: &mut FramePool,
    queues: &[QueueSpec],
    mode: BindMode,
) -> Result<Vec<AfXdp>, OpenError> {
    let sockets = match open_sockets(umem, queues, mode) {
        Err(error) if mode == BindMode::Auto && error.is_unsupported() => {
            open_sockets(umem, queues, BindMode::Copy)?
        }
        sockets => sockets?,
    };
    let frames = u32::try_from(pool.len()).unwrap_or(u32::MAX);
    let share = fill_share(frames, queues.len());
    let mut devices = Vec::with_capacity(queues.len());
    for (socket, spec) in sockets.into_iter().zip(queues) {
        let mut device = AfXdp::new(socket, umem, spec);
        device.fill_level = share;
        device.refill(pool);
        devices.push(device);
    }
    Ok(devices)
}

/// Opens further sockets of a worker that runs, in the mode of those that it has; in `mode`, if the interface of
/// `sharing` is gone. Nothing is received before the worker has set their fill level and flushed them.
///
/// # Errors
/// As of [`open_worker`]; also where the worker's mode is not the interface's.
pub fn open_more(
    sharing: &Sharing,
    queues: &[QueueSpec],
    mode: BindMode,
) -> Result<Vec<AfXdp>, OpenError> {
    let umem = sharing.0.umem();
    let mut shared = sharing.0.clone();
    let mut devices = Vec::with_capacity(queues.len());
    for spec in queues {
        let socket = match Socket::share(&shared, spec, BindMode::Auto) {
            // The kernel may have the same memory twice.
            Err(error) if error.is_unbound() => Socket::open(umem, spec, mode)?,
            socket => socket?,
        };
        shared = socket.shared();
        devices.push(AfXdp::new(socket, umem, spec));
    }
    Ok(devices)
}

/// What further sockets need of one that a worker has, whose umem they share. Keeps that one's
/// queue taken, even when its device is dropped.
#[derive(Clone, Debug)]
pub struct Sharing(Shared);

fn open_sockets(
    umem: &Arc<Umem>,
    queues: &[QueueSpec],
    mode: BindMode,
) -> Result<Vec<Socket>, OpenError> {
    let mut sockets: Vec<Socket> = Vec::with_capacity(queues.len());
    for spec in queues {
        let socket = match sockets.first() {
            None => Socket::open(umem, spec, mode)?,
            Some(first) => Socket::share(&first.shared(), spec, mode)?,
        };
        sockets.push(socket);
    }
    Ok(sockets)
}

impl AfXdp {
    fn new(socket: Socket, umem: &Arc<Umem>, spec: &QueueSpec) -> Self {
        Self {
            socket,
            ledger: Ledger::new(umem),
            fill_level: 0,
            filled: 0,
            sending: 0,
            refused: Vec::with_capacity(BURST),
            spec: spec.clone(),
            tx_refused: 0,
            tx_dropped: 0,
            kernel_invalid: 0,
        }
    }

    /// By this, more sockets are opened on the same memory.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        Sharing(self.socket.shared())
    }

    /// Closes the socket, which takes some milliseconds, and returns the frames that were lent
    /// through it. None come back of a zero-copy socket, whose driver may write into them for
    /// a while, nor while a [`Sharing`] of it keeps the socket open.
    #[must_use]
    pub fn close(self) -> Vec<Frame> {
        let Self {
            socket,
            mut ledger,
            mut refused,
            ..
        } = self;
        if socket.close() {
            refused.extend(ledger.reclaim_all());
        }
        refused
    }

    /// The queue this device is bound to.
    #[must_use]
    pub fn spec(&self) -> &QueueSpec {
        &self.spec
    }

    /// True when the driver reads and writes our memory itself.
    #[must_use]
    pub fn is_zero_copy(&self) -> bool {
        self.socket.is_zero_copy()
    }

    /// Frames that are lent to the kernel now.
    #[must_use]
    pub fn lent(&self) -> u32 {
        self.filled + self.sending
    }

    /// Lends frames through the fill ring, up to its level.
    #[inline(always)]
    fn refill(&mut self, pool: &mut FramePool) {
        let wanted = self.fill_level.saturating_sub(self.filled);
        let room = self.socket.fill.room(wanted);
        let mut given = 0;
        while given < room {
            let Some(frame) = pool.take() else { break };
            let (address, _) = self.ledger.lend(frame);
            let pushed = self.socket.fill.push(address);
            debug_assert!(pushed, "the fill ring had room");
            given += 1;
        }
        if given > 0 {
            self.filled += given;
            self.socket.fill.publish();
        }
    }

    /// Makes the kernel send what is in the tx ring, until it is empty, the
    /// kernel makes no progress, or [`KICKS`] calls were made.
    fn kick(&mut self) {
        let mut pending = self.socket.tx.pending();
        for _ in 0..KICKS {
            if pending == 0 || !self.socket.tx.needs_wakeup() {
                return;
            }
            // AGAIN: the budget is used up, or the send buffer or the completion
            // ring is full. NOBUFS: no memory for a packet. NETDOWN: the
            // interface is down. Whether to go on shows in the progress; without
            // it the frames wait in the ring.
            let sent = rustix::net::send(&self.socket, &[], SendFlags::DONTWAIT);
            // BUSY: the driver dropped a packet, which is completed all the same.
            if sent == Err(Errno::BUSY) {
                self.tx_dropped += 1;
            }
            let left = self.socket.tx.pending();
            if left == pending {
                return;
            }
            pending = left;
        }
    }

    /// Lends a frame through the tx ring, which has room for it.
    #[inline(always)]
    fn queue(&mut self, frame: Frame) {
        if frame.len() < SHORTEST {
            self.tx_refused += 1;
            self.refused.push(frame);
            return;
        }
        let (addr, len) = self.ledger.lend(frame);
        let options = XdpDescOptions::empty();
        let pushed = self.socket.tx.push(XdpDesc { addr, len, options });
        debug_assert!(pushed, "the tx ring had room");
        self.sending += 1;
    }

    /// Returns sent frames to `pool`.
    fn reap(&mut self, pool: &mut FramePool) {
        for address in self.socket.completion.burst(RING_SIZE as usize) {
            match self.ledger.reclaim(address, 0) {
                Some(frame) => {
                    self.sending = self.sending.saturating_sub(1);
                    pool.give(frame);
                }
                None => self.kernel_invalid += 1,
            }
        }
    }
}

impl Device for AfXdp {
    #[inline]
    fn receive(&mut self, burst: &mut Vec<Frame>) -> usize {
        let before = burst.len();
        for descriptor in self.socket.rx.burst(BURST) {
            match self.ledger.reclaim(descriptor.addr, descriptor.len) {
                Some(frame) => {
                    self.filled = self.filled.saturating_sub(1);
                    burst.push(frame);
                }
                None => self.kernel_invalid += 1,
            }
        }
        let received = burst.len() - before;
        if received == 0 && self.filled > 0 && self.socket.fill.needs_wakeup() {
            // A driver that ran out of fill entries waits for this call before it
            // looks for more. Its result says nothing that the rx ring does not.
            let _ = rustix::net::recv(&self.socket, &mut [0u8; 0], RecvFlags::DONTWAIT);
        }
        received
    }

    #[inline]
    fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.socket.tx.room(1) == 0 {
            return Err(frame);
        }
        self.queue(frame);
        Ok(())
    }

    #[inline]
    fn transmit_burst(&mut self, frames: &mut Vec<Frame>) {
        let wanted = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        let room = self.socket.tx.room(wanted) as usize;
        for frame in frames.drain(..room) {
            self.queue(frame);
        }
    }

    #[inline]
    fn flush(&mut self, pool: &mut FramePool) {
        if self.sending > 0 {
            self.socket.tx.publish();
            self.kick();
            self.reap(pool);
        }
        for frame in self.refused.drain(..) {
            pool.give(frame);
        }
        self.refill(pool);
    }

    fn has_outstanding(&self) -> bool {
        self.sending > 0 || !self.refused.is_empty()
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn fill_level(&mut self) -> Option<&mut u32> {
        Some(&mut self.fill_level)
    }

    fn statistics(&self) -> DeviceStatistics {
        // Only a socket that is not ours could refuse this; counts of zero are
        // then as good as an error nobody can act on.
        let kernel = self.socket.statistics().ok();
        let kernel = |count: fn(&_) -> Option<u64>| kernel.as_ref().and_then(count).unwrap_or(0);
        let fill_ring_empty = kernel(|counts| counts.rx_fill_ring_empty_descs);
        let dropped = kernel(|counts| Some(counts.rx_dropped));
        DeviceStatistics {
            // In copy mode the kernel counts a packet for which the fill ring
            // had no frame twice (`__xsk_rcv` and `xp_alloc`). A zero-copy driver finds the
            // ring empty before there is a packet, and counts that alone.
            rx_dropped: match self.socket.is_zero_copy() {
                true => dropped,
                false => dropped.saturating_sub(fill_ring_empty),
            },
            rx_ring_full: kernel(|counts| counts.rx_ring_full),
            rx_fill_ring_empty: fill_ring_empty,
            tx_invalid: kernel(|counts| Some(counts.tx_invalid_descs)) + self.tx_refused,
            tx_dropped: self.tx_dropped,
            kernel_invalid: self.kernel_invalid,
        }
    }
}

impl AsFd for AfXdp {
    /// The socket, for the `XSKMAP` of the XDP program.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
