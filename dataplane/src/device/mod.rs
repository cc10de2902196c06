//! Where frames come from and go to.
//!
//! A [`Device`] is one receive and one transmit queue. Workers are generic
//! over it, so that the same loop runs on AF_XDP sockets, on in-memory rings
//! and on captures.

pub mod af_xdp;
pub mod any;
pub mod pcap;
pub mod ring;
pub mod tap;

use std::os::fd::BorrowedFd;

use crate::xsk::umem::{Frame, FramePool};

/// Most frames that one call of [`Device::receive`] returns.
pub const BURST: usize = 64;

/// One receive and one transmit queue of an interface.
///
/// All frames that pass through a device are of the umem it was made with.
pub trait Device {
    /// Appends up to [`BURST`] received frames to `burst` and returns how many.
    /// Never blocks.
    fn receive(&mut self, burst: &mut Vec<Frame>) -> usize;

    /// Queues a frame for sending. Nothing is sent before [`flush`](Self::flush).
    ///
    /// # Errors
    /// Gives the frame back when the transmit ring is full.
    fn transmit(&mut self, frame: Frame) -> Result<(), Frame>;

    /// Queues the frames that there is room for, from the front; the others stay in `frames`.
    fn transmit_burst(&mut self, frames: &mut Vec<Frame>);

    /// Once a burst: publishes the queued frames, kicks the kernel if it asks for it, returns the
    /// sent frames to `pool` and refills the receive queue from it.
    fn flush(&mut self, pool: &mut FramePool);

    /// True while sent frames have not come back yet, so that [`flush`](Self::flush) is worth
    /// calling although nothing was received.
    fn has_outstanding(&self) -> bool;

    /// What to wait on for received frames; `None` for a device that is only polled.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;

    /// How many frames the receive queue is kept filled with, for a device that takes them from the
    /// pool; the next [`flush`](Self::flush) goes by it.
    fn fill_level(&mut self) -> Option<&mut u32> {
        None
    }

    /// What the device itself counts.
    fn statistics(&self) -> DeviceStatistics;
}

macro_rules! device_statistics {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// What a device counts apart from the worker: frames that never reached it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct DeviceStatistics {
            $($(#[doc = $doc])+ pub $name: u64,)*
        }

        impl DeviceStatistics {
            /// The names used in output, metrics and documentation, in the order of the fields.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];

            pub(crate) const fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$name,)*]
            }

            pub(crate) const fn from_values([$($name,)*]: [u64; Self::NAMES.len()]) -> Self {
                Self { $($name,)* }
            }
        }
    };
}

device_statistics! {
    /// Received frames dropped by the kernel for other reasons than a full ring.
    rx_dropped,
    /// Received frames dropped because the receive ring was full.
    rx_ring_full,
    /// Received frames dropped because the fill ring was empty; of a zero-copy driver, how often it found
    /// the ring empty.
    rx_fill_ring_empty,
    /// Frames refused for sending: no Ethernet header, or a bad descriptor by
    /// the kernel's judgement.
    tx_invalid,
    /// Frames that the driver reported as dropped while sending.
    tx_dropped,
    /// Receive descriptors and completions that named no frame we had lent: a kernel bug.
    kernel_invalid,
}
