//! Sending frames that this process makes, by AF_XDP.
//!
//! Over veth a fraction of what [`live`](crate::live) sends, as the kernel copies each into a socket buffer.
//! But any receiver takes them, and they can be anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataplane::device::af_xdp::{AfXdp, BindMode, FRAMES_PER_QUEUE, QueueSpec, open_worker};
use dataplane::device::{BURST, Device as _};
use dataplane::xsk::socket::OpenError;
use dataplane::xsk::umem::{Frame, FramePool, FrameSize, FrameTooShort, Umem};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::interface::Interface;
use crate::live::Sent;
use crate::receive::now;
use crate::traffic::Traffic;
use crate::units::Rate;

/// Sending that falls behind catches up what it did not send in so long, no more.
const MOST_BEHIND: Duration = Duration::from_millis(200);

/// A socket that sends.
#[derive(Debug)]
pub struct Sender {
    umem: Arc<Umem>,
    pool: FramePool,
    device: AfXdp,
}

impl Sender {
    /// Opens a queue of `interface`, for frames up to `longest` bytes.
    ///
    /// # Errors
    /// The frames are too long, or the kernel refuses the socket.
    pub fn open(interface: &Interface, queue: u32, longest: usize) -> Result<Self, SendError> {
        let size = if longest > FrameSize::Bytes2048.max_packet() {
            FrameSize::Bytes4096
        } else {
            FrameSize::Bytes2048
        };
        let (umem, mut pool) = Umem::new(FRAMES_PER_QUEUE, size).map_err(SendError::Memory)?;
        let spec = QueueSpec {
            ifindex: interface.index,
            interface: interface.name.clone(),
            queue,
        };
        let mut devices = open_worker(&umem, &mut pool, &[spec], BindMode::Auto)?;
        let device = devices.pop().ok_or(SendError::NoSocket)?;
        Ok(Self { umem, pool, device })
    }

    /// Sends until `duration` has passed or SIGINT or SIGTERM arrives. Once a second `progress` is told what
    /// was sent so far.
    ///
    /// # Errors
    /// A frame is longer than was said.
    pub fn send(
        &mut self,
        traffic: &mut Traffic,
        rate: Rate,
        duration: Duration,
        mut progress: impl FnMut(Sent),
    ) -> Result<Sent, SendError> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(SendError::Signal)?;
        }
        let mut burst: Vec<Frame> = Vec::with_capacity(BURST);
        let mut pace = Pace::new(rate);
        let mut total = Sent::default();
        let start = Instant::now();
        let mut next = Duration::from_secs(1);
        while !stop.load(Ordering::Relaxed) {
            let elapsed = start.elapsed();
            if elapsed >= duration {
                break;
            }
            if elapsed >= next {
                next += Duration::from_secs(1);
                progress(Sent { elapsed, ..total });
            }
            let wanted = pace.due(elapsed).min(BURST - burst.len());
            let time = now();
            for _ in 0..wanted {
                let Some(mut frame) = self.pool.take() else {
                    break;
                };
                let packet = traffic.next(time);
                self.umem.fill(&mut frame, packet)?;
                total.frames += 1;
                total.bytes += packet.len() as u64;
                pace.sent += 1;
                burst.push(frame);
            }
            self.device.transmit_burst(&mut burst);
            self.device.flush(&mut self.pool);
            if wanted == 0 {
                pace.sleep(elapsed);
            }
        }
        total.elapsed = start.elapsed();
        self.drain(&mut burst);
        let statistics = self.device.statistics();
        let never_sent = burst.len() as u64;
        total.frames -= never_sent;
        total.dropped = statistics.tx_dropped + statistics.tx_invalid;
        burst.drain(..).for_each(|frame| self.pool.give(frame));
        Ok(total)
    }

    /// Gives the kernel a moment for what it still has to send.
    fn drain(&mut self, burst: &mut Vec<Frame>) {
        let deadline = Instant::now() + Duration::from_millis(200);
        while (self.device.lent() > 0 || !burst.is_empty()) && Instant::now() < deadline {
            self.device.transmit_burst(burst);
            self.device.flush(&mut self.pool);
            if burst.is_empty() && !self.device.has_outstanding() {
                break;
            }
        }
    }
}

/// When the next frames are due.
#[derive(Debug)]
pub struct Pace {
    /// Frames per second; `None`: as many as can be.
    rate: Option<f64>,
    /// Frames sent: the caller's to count.
    pub sent: u64,
}

impl Pace {
    /// Shorter sleeps take longer than they say.
    const SHORTEST_SLEEP: Duration = Duration::from_micros(100);

    /// Nothing sent yet.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let rate = match rate {
            Rate::Max => None,
            Rate::PerSecond(rate) => Some(rate),
        };
        Self { rate, sent: 0 }
    }

    /// Frames to send now, so long after the start.
    pub fn due(&mut self, elapsed: Duration) -> usize {
        let Some(rate) = self.rate else {
            return usize::MAX;
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a week at 100 million a second is 2^46"
        )]
        let scheduled = (elapsed.as_secs_f64() * rate) as u64 + 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "100 million a second, 200 ms"
        )]
        let most = (MOST_BEHIND.as_secs_f64() * rate) as u64 + 1;
        let behind = scheduled.saturating_sub(self.sent);
        self.sent += behind.saturating_sub(most);
        usize::try_from(behind.min(most)).unwrap_or(usize::MAX)
    }

    /// Waits if the next frame is a while off.
    fn sleep(&self, elapsed: Duration) {
        if let Some(rate) = self.rate {
            let at = Duration::from_secs_f64(self.sent as f64 / rate);
            let pause = at.saturating_sub(elapsed) / 2;
            if pause > Self::SHORTEST_SLEEP {
                std::thread::sleep(pause.min(Duration::from_millis(20)));
            }
        }
    }
}

/// Sending failed.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("no memory for frames")]
    Memory(#[source] std::io::Error),
    #[error("the kernel gave no socket")]
    NoSocket,
    #[error("a frame is too long to be sent by AF_XDP: give a smaller --size, or --fragment")]
    TooLong(#[from] FrameTooShort),
    #[error("cannot handle signals")]
    Signal(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_kept_and_what_was_missed_is_bounded() {
        let mut pace = Pace::new(Rate::PerSecond(1000.0));
        let mut sent = 0;
        for millisecond in 0..1000 {
            let due = pace.due(Duration::from_millis(millisecond));
            pace.sent += due as u64;
            sent += due;
        }
        assert_eq!(sent, 1000);
        // Ten seconds away: 200 ms are caught up.
        let due = pace.due(Duration::from_secs(11));
        assert_eq!(due, 201);
        pace.sent += due as u64;
        assert_eq!(pace.due(Duration::from_secs(11)), 0);
        assert_eq!(Pace::new(Rate::Max).due(Duration::ZERO), usize::MAX);
    }
}
