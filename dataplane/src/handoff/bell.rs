//! How a worker is woken when others have something for it.
//!
//! Awake, it looks at its rings. Asleep in `poll`, it is woken by an eventfd, which others write to only
//! if it sleeps.
//!
//! Nobody is left asleep: the sleeper says that it will sleep and then looks at its rings; who rings has put
//! something there and then looks whether the other one sleeps. A fence on either side between the two makes
//! at least one of them see what the other did.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_utils::CachePadded;
use rustix::event::{EventfdFlags, eventfd};

/// One worker's bell, rung by the others.
#[derive(Debug)]
pub(super) struct Bell {
    sleeps: CachePadded<AtomicBool>,
    event: OwnedFd,
}

impl Bell {
    /// # Errors
    /// Too many open files.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            sleeps: CachePadded::new(AtomicBool::new(false)),
            event: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    /// There is something on a ring, published before.
    pub(super) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeps.load(Ordering::Relaxed) && self.sleeps.swap(false, Ordering::Relaxed) {
            // Fails only when the counter is at its end: then it is ready to be read.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Before a sleep, and before a last look at the rings; [`get_up`](Self::get_up) has to follow.
    pub(super) fn lie_down(&self) {
        self.sleeps.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// After a sleep, however it ended; `ready` is what `poll` said of [`poll_fd`](Self::poll_fd).
    pub(super) fn get_up(&self, ready: bool) {
        self.sleeps.store(false, Ordering::Relaxed);
        if ready {
            // Who took note of the sleep and has not written yet ends the next one early.
            let _ = rustix::io::read(&self.event, &mut [0; 8]);
        }
    }

    /// Ready when someone rings while the worker sleeps.
    pub(super) fn poll_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::spsc::{Receiver, Sender, ring};

    /// Sleeps; true if the bell ended it.
    fn sleep(bell: &Bell, most: Duration) -> bool {
        let timeout = Timespec::try_from(most).unwrap();
        let mut fds = [PollFd::from_borrowed_fd(bell.poll_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&timeout)).unwrap() > 0
    }

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let bell = Bell::new().unwrap();
        bell.ring();
        assert!(
            !sleep(&bell, Duration::ZERO),
            "no system call for one awake"
        );
        bell.lie_down();
        bell.ring();
        bell.ring();
        assert!(sleep(&bell, Duration::ZERO));
        bell.get_up(true);
        assert!(!sleep(&bell, Duration::ZERO), "heard");
    }

    /// Two throw a ball to each other, and sleep while they wait for it, for up to a minute: neither ever sleeps
    /// while it has come.
    #[test]
    fn nobody_is_left_asleep() {
        const THROWS: u32 = 20_000;
        let bells = [Bell::new().unwrap(), Bell::new().unwrap()];
        let play = |mine: &Bell, other: &Bell, mut to: Sender<()>, mut from: Receiver<()>| {
            let mut caught = Vec::new();
            for _ in 0..THROWS {
                to.push(()).unwrap();
                to.publish();
                other.ring();
                while from.pop(&mut caught, 1) == 0 {
                    mine.lie_down();
                    let came = !from.is_empty();
                    let most = if came { 0 } else { 60 };
                    let woken = sleep(mine, Duration::from_secs(most));
                    mine.get_up(woken);
                    assert!(came || woken, "slept while there was something");
                }
            }
        };
        let [one, other] = &bells;
        let (there, from_there) = ring(2);
        let (back, from_back) = ring(2);
        std::thread::scope(|scope| {
            scope.spawn(|| play(one, other, there, from_back));
            scope.spawn(|| play(other, one, back, from_there));
        });
    }
}
