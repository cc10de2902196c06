//! A pinned thread's loop over the workers that it has, mostly one.
//!
//! A worker can be given to another thread while packets arrive: they wait in its receive rings until
//! its next turn, and its connections, timers and sockets know nothing of it.

use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::set_current_timer_slack;

use super::{BURST, Worker};
use crate::device::Device;

/// How long an adaptive worker spins after the last packet before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// Longest sleep: within it a new snapshot is adopted, a request answered
/// and a timer noticed.
const SLEEP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// A sleep while there is other work.
const NAP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};

/// How long a worker that is woken by packets leaves the next ones to gather, as a network card that
/// moderates its interrupts does: to be woken costs more than to forward.
const GATHER: Duration = Duration::from_micros(50);

/// What a worker does when no packet comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Spin for 50 µs after the last packet, then sleep until one arrives.
    Adaptive,
    /// Spin for ever.
    Busy,
    /// Sleep at once: until a packet arrives or, while packets come, for 50 µs.
    Interrupt,
}

/// Runs the workers that arrive, each with its number, until `stop` is set, and gives them back.
/// Waits for the first one; ends without any when nobody can send one any more.
pub fn run<D: Device>(
    arriving: &Receiver<(usize, Worker<D>)>,
    idle: Idle,
    stop: &AtomicBool,
) -> Vec<(usize, Worker<D>)> {
    let start = clock_start();
    // By default a sleep takes 50 µs more than asked for.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
    let mut workers: Vec<_> = arriving.recv().into_iter().collect();
    let mut last_packet = Instant::now();
    while !workers.is_empty() && !stop.load(Ordering::Relaxed) {
        workers.extend(arriving.try_iter());
        let time = Instant::now();
        let now = milliseconds(time - start);
        let mut received = 0;
        for (_, worker) in &mut workers {
            received += worker.turn(now);
        }
        if received > 0 {
            last_packet = time;
            if idle == Idle::Interrupt && received < BURST {
                std::thread::sleep(GATHER);
            }
        } else {
            match idle {
                Idle::Adaptive if time - last_packet >= SPIN => sleep(&workers),
                Idle::Interrupt => sleep(&workers),
                Idle::Adaptive | Idle::Busy => std::hint::spin_loop(),
            }
        }
    }
    workers.extend(arriving.try_iter());
    workers
}

/// Waits for a packet for any of them, at most [`SLEEP`]; shorter while there is other work.
fn sleep<D: Device>(workers: &[(usize, Worker<D>)]) {
    let workers = || workers.iter().map(|(_, worker)| worker);
    if workers().any(Worker::is_listing) {
        return; // a thousand naps for a million connections
    }
    let is_busy = workers().any(Worker::has_more_to_do);
    let timeout = if is_busy { NAP } else { SLEEP };
    let devices = workers().flat_map(|worker| &worker.ports);
    let mut fds: Vec<_> = devices
        .filter_map(|port| port.device.poll_fd())
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    if fds.is_empty() {
        return; // devices that are only polled
    }
    let bells = fds.len();
    let handoffs = || workers().filter_map(|worker| worker.handoff.as_ref());
    for (number, handoff) in handoffs().enumerate() {
        if !handoff.lie_down() {
            for earlier in handoffs().take(number) {
                earlier.get_up(false);
            }
            return;
        }
        fds.push(PollFd::from_borrowed_fd(handoff.poll_fd(), PollFlags::IN));
    }
    // An interface that is gone is ready for ever, with an error instead of
    // packets; other errors (a signal) only end the sleep early.
    let ready = poll(&mut fds, Some(&timeout)).unwrap_or(0);
    let has_come = |fd: &PollFd<'_>| fd.revents().contains(PollFlags::IN);
    for (handoff, bell) in handoffs().zip(&fds[bells..]) {
        handoff.get_up(has_come(bell));
    }
    if ready > 0 && !fds.iter().any(has_come) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The time of all workers of this process, in milliseconds.
#[must_use]
pub fn clock() -> u64 {
    milliseconds(clock_start().elapsed())
}

/// Where it begins: limits that workers share go by it.
fn clock_start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Whole milliseconds; saturates after half a billion years.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
