//! How a worker learns that others have something for it, asleep or not.
//!
//! Awake, it looks at one word (for up to 64 workers), in which every other worker has a bit. Asleep in
//! `poll`, it is woken by an eventfd.
//!
//! Nobody is left asleep: the sleeper says that it will sleep and then looks at the bits; who rings sets
//! its bit and then looks whether the other one sleeps. All four are sequentially consistent, so at
//! least one of them sees what the other did.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use rustix::event::{EventfdFlags, eventfd};

use super::WorkerIndex;

/// One worker's bell, rung by the others.
#[derive(Debug)]
pub(super) struct Bell {
    /// A bit for each worker that rang.
    rung: CachePadded<Box<[AtomicU64]>>,
    sleeps: CachePadded<AtomicBool>,
    event: OwnedFd,
}

impl Bell {
    /// One that so many workers can ring.
    ///
    /// # Errors
    /// Too many open files.
    pub(super) fn new(workers: u16) -> io::Result<Self> {
        Ok(Self {
            rung: CachePadded::new(words(workers).map(|_| AtomicU64::new(0)).collect()),
            sleeps: CachePadded::new(AtomicBool::new(false)),
            event: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    /// There is something from `worker`, published before.
    pub(super) fn ring(&self, worker: WorkerIndex) {
        let (word, bit) = place(worker);
        let Some(word) = self.rung.get(word) else {
            return;
        };
        word.fetch_or(bit, Ordering::SeqCst);
        if self.sleeps.load(Ordering::SeqCst) && self.sleeps.swap(false, Ordering::SeqCst) {
            // Fails only when the counter is at its end: then it is ready to be read.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Before a sleep. False if someone rang, so that there is nothing to wait for.
    pub(super) fn lie_down(&self) -> bool {
        self.sleeps.store(true, Ordering::SeqCst);
        let quiet = (self.rung.iter()).all(|word| word.load(Ordering::SeqCst) == 0);
        if !quiet {
            self.get_up(false);
        }
        quiet
    }

    /// After a sleep, however it ended; `ready` is what `poll` said of [`poll_fd`](Self::poll_fd).
    pub(super) fn get_up(&self, ready: bool) {
        self.sleeps.store(false, Ordering::SeqCst);
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

/// Who rang and has not been heard to the end.
#[derive(Debug)]
pub(super) struct Rung(Box<[u64]>);

impl Rung {
    pub(super) fn new(workers: u16) -> Self {
        Self(words(workers).map(|_| 0).collect())
    }

    /// Takes up who rang since. True if there is anyone.
    #[inline]
    pub(super) fn listen(&mut self, bell: &Bell) -> bool {
        let mut all = 0;
        for (known, new) in self.0.iter_mut().zip(bell.rung.iter()) {
            // A plain look first: the line stays shared while nobody rings.
            if new.load(Ordering::Relaxed) != 0 {
                *known |= new.swap(0, Ordering::Acquire);
            }
            all |= *known;
        }
        all != 0
    }

    /// True if there is anyone who was not heard to the end.
    pub(super) fn is_any(&self) -> bool {
        self.0.iter().any(|word| *word != 0)
    }

    pub(super) fn has(&self, worker: WorkerIndex) -> bool {
        let (word, bit) = place(worker);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// All of this worker's was taken.
    pub(super) fn clear(&mut self, worker: WorkerIndex) {
        let (word, bit) = place(worker);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }
}

fn words(workers: u16) -> std::ops::Range<u32> {
    0..u32::from(workers).div_ceil(u64::BITS)
}

fn place(worker: WorkerIndex) -> (usize, u64) {
    let number = u32::from(worker.0);
    ((number / u64::BITS) as usize, 1 << (number % u64::BITS))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// Sleeps; true if the bell ended it.
    fn sleep(bell: &Bell, most: Duration) -> bool {
        let timeout = Timespec::try_from(most).unwrap();
        let mut fds = [PollFd::from_borrowed_fd(bell.poll_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&timeout)).unwrap() > 0
    }

    #[test]
    fn who_rings_is_heard_until_all_was_taken() {
        let bell = Bell::new(70).unwrap();
        let mut rung = Rung::new(70);
        assert!(!rung.listen(&bell));
        for worker in [0, 63, 64, 69].map(WorkerIndex) {
            bell.ring(worker);
            bell.ring(worker);
            assert!(rung.listen(&bell) && rung.has(worker) && rung.is_any());
            assert!(rung.listen(&bell), "still");
            rung.clear(worker);
            assert!(!rung.listen(&bell) && !rung.is_any());
        }
    }

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let bell = Bell::new(2).unwrap();
        bell.ring(WorkerIndex(1));
        assert!(
            !sleep(&bell, Duration::ZERO),
            "no system call for one awake"
        );
        assert!(!bell.lie_down(), "there is something to do");
        assert!(Rung::new(2).listen(&bell));
        assert!(bell.lie_down());
        bell.ring(WorkerIndex(1));
        bell.ring(WorkerIndex(1));
        assert!(sleep(&bell, Duration::ZERO));
        bell.get_up(true);
        assert!(!sleep(&bell, Duration::ZERO), "heard");
    }

    /// One rings, the other sleeps as often as it can, for up to a minute: it never sleeps through a ring.
    #[test]
    fn nobody_is_left_asleep() {
        const ROUNDS: u32 = 20_000;
        let bells = Arc::new([Bell::new(2).unwrap(), Bell::new(2).unwrap()]);
        let start = Instant::now();
        let play = |me: usize, bells: Arc<[Bell; 2]>| {
            let [mine, other] = [&bells[me], &bells[1 - me]];
            let number = WorkerIndex(u16::try_from(me).unwrap());
            let (mut rung, mut heard) = (Rung::new(2), 0);
            if me == 0 {
                other.ring(number);
            }
            while heard < ROUNDS {
                if rung.listen(mine) {
                    rung.clear(WorkerIndex(1 - number.0));
                    heard += 1;
                    other.ring(number);
                } else if mine.lie_down() {
                    let woken = sleep(mine, Duration::from_secs(60));
                    mine.get_up(woken);
                    assert!(woken, "slept through a ring");
                }
            }
        };
        std::thread::scope(|scope| {
            for me in [0, 1] {
                let bells = Arc::clone(&bells);
                scope.spawn(move || play(me, bells));
            }
        });
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
