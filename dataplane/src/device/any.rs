//! The device of a worker in service: a socket of an interface, or the way back to the kernel.
//!
//! A worker is generic over one type of device, so that the calls of its loop are inlined. Which
//! of the two it is costs a branch a burst that is always predicted.

use std::os::fd::BorrowedFd;

use super::af_xdp::AfXdp;
use super::tap::Tap;
use super::{Device, DeviceStatistics};
use crate::xsk::umem::{Frame, FramePool};

/// One of the devices that a running appliance has.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are sockets, a worker has a handful, and a box would cost the hot path a load"
)]
pub enum AnyDevice {
    AfXdp(AfXdp),
    Tap(Tap),
}

/// The same call on whichever device it is.
macro_rules! either {
    ($this:expr, $device:ident => $call:expr) => {
        match $this {
            AnyDevice::AfXdp($device) => $call,
            AnyDevice::Tap($device) => $call,
        }
    };
}

impl Device for AnyDevice {
    #[inline]
    fn receive(&mut self, burst: &mut Vec<Frame>) -> usize {
        either!(self, device => device.receive(burst))
    }

    #[inline]
    fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        either!(self, device => device.transmit(frame))
    }

    #[inline]
    fn transmit_burst(&mut self, frames: &mut Vec<Frame>) {
        either!(self, device => device.transmit_burst(frames));
    }

    #[inline]
    fn flush(&mut self, pool: &mut FramePool) {
        either!(self, device => device.flush(pool));
    }

    #[inline]
    fn has_outstanding(&self) -> bool {
        either!(self, device => device.has_outstanding())
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        either!(self, device => device.poll_fd())
    }

    fn fill_level(&mut self) -> Option<&mut u32> {
        either!(self, device => device.fill_level())
    }

    fn statistics(&self) -> DeviceStatistics {
        either!(self, device => device.statistics())
    }
}
