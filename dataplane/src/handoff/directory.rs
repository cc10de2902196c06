//! Which worker has a connection: a table that all workers share without locks.
//!
//! A slot has the number of a connection over all workers, and half of the hash of its reply key. The owner
//! writes it when the connection is made and frees it when that ends; others only read. Everything it says
//! is a hint, so that nothing has to be exact:
//! - a wrong answer (a connection that ended this moment; two hashes alike, once in 10^9 questions)
//!   costs one way too many: what the owner shares of the connection is compared with the packet's key,
//!   and a worker that is asked looks into its own table;
//! - no answer (a line was full) costs time: the workers are asked in turn.
//!
//! Sized for two slots a connection, in lines of eight: with all tables full, four are used on the
//! average, and 1 % of the connections find none; with half of that, one in 7000. Sixteen bytes a
//! connection, allocated when the first forwarding method is configured that translates replies.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::processor::prefetch;

/// Slots in a cache line.
const SLOTS: u32 = 8;
const FREE: u32 = 0;

/// A connection by its number over all workers: those of the first worker come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed(pub(super) u32);

impl Listed {
    /// None in particular.
    pub(crate) const FIRST: Self = Self(0);

    /// Never [`FREE`].
    const fn entry(self) -> u32 {
        self.0 + 1
    }
}

/// One cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Line {
    /// The lower half of a hash; in a free slot it means nothing.
    tags: [AtomicU32; SLOTS as usize],
    /// Connections, or [`FREE`].
    entries: [AtomicU32; SLOTS as usize],
}

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

    /// What all have, once there is memory for it.
    #[inline(always)]
    pub(super) fn look(&self) -> Option<Lines<'_>> {
        Some(Lines(self.lines.get()?))
    }

    /// Notes that there is this connection. False if there is no room for it.
    pub(super) fn list(&self, hash: u64, listed: Listed) -> bool {
        let Some(line) = self.look().and_then(|lines| lines.of(hash)) else {
            return false;
        };
        // Another worker may take the same slot at the same time, then the next one is tried. What else is
        // read because of a slot says itself whose it is, so no order is asked for.
        let free = line.entries.iter().position(|slot| {
            slot.load(Ordering::Relaxed) == FREE
                && slot
                    .compare_exchange(FREE, listed.entry(), Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
        });
        if let Some(slot) = free {
            line.tags[slot].store(tag(hash), Ordering::Relaxed);
        }
        free.is_some()
    }

    /// Takes back a [`list`](Self::list) of the same, if there was room for it.
    pub(super) fn unlist(&self, hash: u64, listed: Listed) {
        let line = self.look().and_then(|lines| lines.of(hash));
        let mut slots = line.into_iter().flat_map(|line| &line.entries);
        // Only its owner frees it.
        let own = slots.find(|slot| slot.load(Ordering::Relaxed) == listed.entry());
        if let Some(slot) = own {
            slot.store(FREE, Ordering::Relaxed);
        }
    }
}

/// The same for a loop, which has it in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines<'a>(&'a [Line]);

impl<'a> Lines<'a> {
    fn of(self, hash: u64) -> Option<&'a Line> {
        self.0.get(self.number(hash))
    }

    /// The line comes from the upper half of the hash, what is kept of it is the lower.
    #[inline(always)]
    fn number(self, hash: u64) -> usize {
        (((hash >> 32) * self.0.len() as u64) >> 32) as usize
    }

    /// Fetches the line of a hash.
    #[inline(always)]
    pub(super) fn prefetch(self, hash: u64) {
        prefetch(self.0, self.number(hash));
    }

    /// What connection it may be, besides those of `own`, who asks.
    #[inline(always)]
    pub(super) fn find(self, hash: u64, own: &Range<u32>) -> Option<Listed> {
        let line = self.0.get(self.number(hash))?;
        let tag = tag(hash);
        for (slot, entry) in line.tags.iter().zip(&line.entries) {
            if slot.load(Ordering::Relaxed) == tag
                && let Some(number) = entry.load(Ordering::Relaxed).checked_sub(1)
                && !own.contains(&number)
            {
                return Some(Listed(number));
            }
        }
        None
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
const fn tag(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowHasher;

    /// The connections of two workers.
    const A: Range<u32> = 0..1000;
    const B: Range<u32> = 1000..2000;
    const OF_A: Listed = Listed(7);
    const OF_B: Listed = Listed(1007);

    fn hashes(number: u32) -> Vec<u64> {
        let hasher = FlowHasher::fixed();
        (0..number).map(|key| hasher.hash_of(&key)).collect()
    }

    fn find(directory: &Directory, hash: u64, own: &Range<u32>) -> Option<Listed> {
        directory.look()?.find(hash, own)
    }

    #[test]
    fn nobody_owns_what_is_not_listed() {
        let directory = Directory::new(1000);
        assert!(!directory.list(7, OF_A), "there is no memory yet");
        assert_eq!(find(&directory, 7, &B), None);
        directory.allocate();
        assert!(directory.list(7, OF_A));
        assert_eq!(find(&directory, 7, &B), Some(OF_A));
        assert_eq!(find(&directory, 7, &A), None, "who asks is not the answer");
        directory.unlist(7, OF_B);
        assert_eq!(find(&directory, 7, &B), Some(OF_A));
        directory.unlist(7, OF_A);
        assert_eq!(find(&directory, 7, &B), None);
    }

    #[test]
    fn the_last_connection_and_all_bits_of_the_hash_have_room() {
        let directory = Directory::new(1);
        directory.allocate();
        let last = Listed(u32::MAX - 1);
        for hash in [0, u64::MAX] {
            assert!(directory.list(hash, last));
            assert_eq!(find(&directory, hash, &A), Some(last));
        }
    }

    #[test]
    fn two_of_one_hash_are_listed_and_taken_back_each_for_itself() {
        let directory = Directory::new(100);
        directory.allocate();
        let other = Listed(8);
        assert!(directory.list(9, OF_A) && directory.list(9, other) && directory.list(9, OF_B));
        directory.unlist(9, OF_A);
        assert_eq!(find(&directory, 9, &B), Some(other));
        directory.unlist(9, other);
        assert_eq!(find(&directory, 9, &B), None);
        assert_eq!(find(&directory, 9, &A), Some(OF_B));
    }

    #[test]
    fn a_full_table_lists_nearly_all_of_its_connections() {
        let hashes = hashes(100_000);
        let directory = Directory::new(100_000);
        directory.allocate();
        let all = || hashes.iter().zip((0..).map(Listed));
        let listed: Vec<_> = all().map(|(hash, of)| directory.list(*hash, of)).collect();
        let missed = listed.iter().filter(|listed| !**listed).count();
        // A line has four on the average; in a Poisson distribution 0.8 % of all are beyond eight.
        assert!((1..2000).contains(&missed), "{missed} of 100000");
        let nobody = 0..0;
        for ((hash, of), listed) in all().zip(listed) {
            assert_eq!(find(&directory, *hash, &nobody), listed.then_some(of));
            directory.unlist(*hash, of);
        }
        assert!(all().all(|(hash, _)| find(&directory, *hash, &nobody).is_none()));
    }

    /// Both fight for the same few lines; in the end each entry is there once, or was refused.
    #[test]
    fn two_threads_never_overwrite_each_other() {
        const KEYS: u32 = 400;
        let hashes = hashes(KEYS);
        let directory = Directory::new(KEYS);
        directory.allocate();
        std::thread::scope(|scope| {
            for (own, other) in [(A, B), (B, A)] {
                let (directory, hashes) = (&directory, &hashes);
                scope.spawn(move || {
                    let odd = u32::from(own != A);
                    for round in 0..200 {
                        let mine: Vec<_> = (hashes.iter().zip(own.clone()))
                            .filter(|(_, number)| number % 2 == odd)
                            .map(|(hash, number)| (*hash, Listed(number)))
                            .map(|(hash, of)| (hash, of, directory.list(hash, of)))
                            .collect();
                        for (hash, of, listed) in &mine {
                            let found = find(directory, *hash, &other);
                            assert_eq!(found, listed.then_some(*of), "round {round}");
                            if *listed {
                                directory.unlist(*hash, *of);
                            }
                        }
                        std::thread::yield_now();
                    }
                });
            }
        });
        let lines = directory.lines.get().expect("allocated");
        let left = lines.iter().flat_map(|line| &line.entries);
        assert!(
            left.into_iter()
                .all(|slot| slot.load(Ordering::Relaxed) == FREE)
        );
    }
}
