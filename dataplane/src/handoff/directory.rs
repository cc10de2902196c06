//! Which worker has a connection: a table that all workers share without locks.
//!
//! A slot is one word: a worker and most bits of the hash of a reply's key. The owner writes it when the
//! connection is made and clears it when that ends; others only read. Everything it says is a hint, so
//! that nothing has to be exact:
//! - a wrong answer (a connection that ended this moment; two hashes alike, once in 10^13 questions)
//!   costs one way too many: the worker that is asked looks into its own table;
//! - no answer (a line was full) costs time: the workers are asked in turn.
//!
//! Sized for two slots a connection, in lines of eight: with all tables full, four are used on the
//! average, and 1 % of the connections find none; with half of that, one in 7000. Sixteen bytes a
//! connection, allocated when the first forwarding method is configured that translates replies.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::WorkerIndex;
use crate::processor::prefetch;

/// Slots in a cache line.
const SLOTS: u32 = 8;
/// Bits of a slot that name the worker, as its number plus 1; the others are of the hash.
const WORKER_BITS: u32 = 11;
const WORKER_MASK: u64 = (1 << WORKER_BITS) - 1;
const FREE: u64 = 0;

/// Most workers that can be told apart.
pub(super) const MOST_WORKERS: u16 = (1 << WORKER_BITS) - 2;

/// One cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Line([AtomicU64; SLOTS as usize]);

const _: () = assert!(size_of::<Line>() == 64);

/// Which worker has which connection.
#[derive(Debug)]
pub(super) struct Directory {
    lines: OnceLock<Box<[Line]>>,
    /// How many lines there are to be.
    size: u32,
}

impl Directory {
    /// For `connections`, over all workers. Takes no memory yet.
    pub(super) fn new(connections: u32) -> Self {
        Self {
            lines: OnceLock::new(),
            size: connections.div_ceil(SLOTS / 2).max(1),
        }
    }

    /// Takes the memory; nothing the second time.
    pub(super) fn allocate(&self) {
        self.lines
            .get_or_init(|| (0..self.size).map(|_| Line::default()).collect());
    }

    fn line(&self, hash: u64) -> Option<&Line> {
        self.lines.get()?.get(self.number(hash))
    }

    /// The line comes from the upper half of the hash, what is kept of it from the lower.
    #[inline(always)]
    fn number(&self, hash: u64) -> usize {
        (((hash >> 32) * u64::from(self.size)) >> 32) as usize
    }

    /// Fetches the line of a hash.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(lines) = self.lines.get() {
            prefetch(lines, self.number(hash));
        }
    }

    /// Notes that `worker` has the connection. False if there is no room for it.
    pub(super) fn list(&self, hash: u64, worker: WorkerIndex) -> bool {
        let entry = entry(hash, worker);
        // Another worker may take the same slot at the same time, then the next one is tried. Nothing else
        // is read because of a slot, so no order is asked for.
        self.line(hash).is_some_and(|line| {
            line.0.iter().any(|slot| {
                slot.load(Ordering::Relaxed) == FREE
                    && slot
                        .compare_exchange(FREE, entry, Ordering::Relaxed, Ordering::Relaxed)
                        .is_ok()
            })
        })
    }

    /// Takes back one [`list`](Self::list) of the same, if there was room for it.
    pub(super) fn unlist(&self, hash: u64, worker: WorkerIndex) {
        let entry = entry(hash, worker);
        let slots = self.line(hash).into_iter().flat_map(|line| &line.0);
        for slot in slots {
            // Only this worker clears its entries.
            if slot.load(Ordering::Relaxed) == entry {
                slot.store(FREE, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Who may have the connection, besides `not`, who asks.
    #[inline]
    pub(super) fn owner(&self, hash: u64, not: WorkerIndex) -> Option<WorkerIndex> {
        let wanted = entry(hash, not);
        let line = self.line(hash)?;
        let found = (line.0.iter())
            .map(|slot| slot.load(Ordering::Relaxed))
            .find(|entry| (entry ^ wanted) & !WORKER_MASK == 0 && worker(*entry) != Some(not))?;
        worker(found)
    }
}

/// What stands for a connection of `worker`: never [`FREE`].
#[inline(always)]
fn entry(hash: u64, worker: WorkerIndex) -> u64 {
    hash << WORKER_BITS | (u64::from(worker.0) + 1)
}

/// Whose entry it is; `None` for a free slot.
#[inline(always)]
fn worker(entry: u64) -> Option<WorkerIndex> {
    let number = (entry & WORKER_MASK).checked_sub(1)?;
    u16::try_from(number).ok().map(WorkerIndex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowHasher;

    const A: WorkerIndex = WorkerIndex(0);
    const B: WorkerIndex = WorkerIndex(1);

    fn hashes(number: u32) -> Vec<u64> {
        let hasher = FlowHasher::fixed();
        (0..number).map(|key| hasher.hash_of(&key)).collect()
    }

    #[test]
    fn nobody_owns_what_is_not_listed() {
        let directory = Directory::new(1000);
        assert!(!directory.list(7, A), "there is no memory yet");
        assert_eq!(directory.owner(7, B), None);
        directory.allocate();
        assert!(directory.list(7, A));
        assert_eq!(directory.owner(7, B), Some(A));
        assert_eq!(directory.owner(7, A), None, "who asks is not the answer");
        directory.unlist(7, B);
        assert_eq!(directory.owner(7, B), Some(A));
        directory.unlist(7, A);
        assert_eq!(directory.owner(7, B), None);
    }

    #[test]
    fn the_last_worker_and_all_bits_of_the_hash_have_room() {
        let directory = Directory::new(1);
        directory.allocate();
        let last = WorkerIndex(MOST_WORKERS - 1);
        for hash in [0, u64::MAX] {
            assert!(directory.list(hash, last));
            assert_eq!(directory.owner(hash, A), Some(last));
        }
    }

    #[test]
    fn what_is_listed_twice_stays_until_it_is_taken_back_twice() {
        let directory = Directory::new(100);
        directory.allocate();
        assert!(directory.list(9, A) && directory.list(9, A) && directory.list(9, B));
        directory.unlist(9, A);
        assert_eq!(directory.owner(9, B), Some(A));
        directory.unlist(9, A);
        assert_eq!(directory.owner(9, B), None);
        assert_eq!(directory.owner(9, A), Some(B));
    }

    #[test]
    fn a_full_table_lists_nearly_all_of_its_connections() {
        let hashes = hashes(100_000);
        let directory = Directory::new(100_000);
        directory.allocate();
        let listed: Vec<_> = (hashes.iter())
            .map(|hash| directory.list(*hash, A))
            .collect();
        let missed = listed.iter().filter(|listed| !**listed).count();
        // A line has four on the average; in a Poisson distribution 0.8 % of all are beyond eight.
        assert!((1..2000).contains(&missed), "{missed} of 100000");
        for (hash, listed) in hashes.iter().zip(listed) {
            assert_eq!(directory.owner(*hash, B).is_some(), listed);
            directory.unlist(*hash, A);
        }
        assert!(
            hashes
                .iter()
                .all(|hash| directory.owner(*hash, B).is_none())
        );
    }

    /// Both fight for the same few lines; in the end each entry is there once, or was refused.
    #[test]
    fn two_threads_never_overwrite_each_other() {
        const KEYS: u32 = 400;
        let hashes = hashes(KEYS);
        let directory = Directory::new(KEYS);
        directory.allocate();
        std::thread::scope(|scope| {
            for worker in [A, B] {
                let (directory, hashes) = (&directory, &hashes);
                scope.spawn(move || {
                    for round in 0..200 {
                        let mine: Vec<_> = (hashes.iter().zip(0..))
                            .filter(|(_, key)| key % 2 == u32::from(worker.0))
                            .map(|(hash, _)| (*hash, directory.list(*hash, worker)))
                            .collect();
                        let other = WorkerIndex(1 - worker.0);
                        for (hash, listed) in &mine {
                            let owner = directory.owner(*hash, other);
                            assert_eq!(owner.is_some(), *listed, "round {round}");
                            if *listed {
                                directory.unlist(*hash, worker);
                            }
                        }
                        std::thread::yield_now();
                    }
                });
            }
        });
        let lines = directory.lines.get().expect("allocated");
        let left = lines.iter().flat_map(|line| &line.0);
        assert!(
            left.into_iter()
                .all(|slot| slot.load(Ordering::Relaxed) == FREE)
        );
    }
}
