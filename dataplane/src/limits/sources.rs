//! What each source of clients has begun: connections at a time, and lately.
//!
//! Shared by all workers, like persistence's templates and as they are kept: sets of eight sources,
//! each behind a lock that is held for a few dozen instructions, and only when a connection begins or
//! ends.
//!
//! Fixed in size, so that a flood from forged sources costs a bounded amount of memory and time. In a
//! full set the source goes that has the least to be remembered, which is what a forged one is: it has one
//! connection. A source that was pushed out begins at zero, so it may get more than its limit. No
//! source is ever counted for another: keys are compared whole.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::SourceLimits;
use super::bucket::{Rate, is_full};
use crate::flow::FlowHasher;
use crate::service::{Address, VirtualServerId};

/// Sources of a set.
const WAYS: usize = 8;
/// Sources that are known at a time: 4 MiB.
const SOURCES: usize = 1 << 17;

/// What a source is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceKey {
    pub service: VirtualServerId,
    /// The client's address without the bits that do not matter.
    pub network: Address,
}

#[derive(Clone, Copy, Debug)]
struct Source {
    key: SourceKey,
    connections: u32,
    /// Of its bucket, see [`Rate::take`](super::Rate::take).
    full_at: u64,
}

impl Source {
    const FREE: Self = Self {
        key: SourceKey {
            service: VirtualServerId(u32::MAX),
            network: Address::v4([0; 4]),
        },
        connections: 0,
        full_at: 0,
    };

    /// There is nothing to remember.
    fn is_idle(&self, now: u64) -> bool {
        self.connections == 0 && is_full(self.full_at, now)
    }

    /// In order of who gives way first.
    fn rank(&self, now: u64) -> (bool, u32, u64) {
        (!self.is_idle(now), self.connections, self.full_at)
    }
}

type Set = [Source; WAYS];

/// A source's connection is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Another source had to give way.
    pub evicted: bool,
}

/// Why a source's connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRefusal {
    /// It has as many as it may.
    Connections,
    /// It began as many lately as it may.
    Rate,
}

/// The sources of all virtual servers and workers.
#[derive(Debug)]
pub struct Sources {
    sets: OnceLock<Vec<Mutex<Set>>>,
    count: usize,
    hasher: FlowHasher,
}

impl Sources {
    /// An empty table, not yet allocated, whose sets nobody can aim at.
    #[must_use]
    pub fn new(hasher: FlowHasher) -> Self {
        Self::of_size(SOURCES, hasher)
    }

    fn of_size(sources: usize, hasher: FlowHasher) -> Self {
        Self {
            sets: OnceLock::new(),
            count: sources.div_ceil(WAYS).max(1),
            hasher,
        }
    }

    /// Allocates, once, when the first virtual server limits its sources.
    pub fn allocate(&self) {
        self.sets.get_or_init(|| {
            (0..self.count)
                .map(|_| Mutex::new([Source::FREE; WAYS]))
                .collect()
        });
    }

    /// A new connection of a source, which counts it if `limits` allow it. `now` is in milliseconds.
    ///
    /// # Errors
    /// They do not; nothing is counted.
    pub fn admit(
        &self,
        key: SourceKey,
        limits: &SourceLimits,
        now: u64,
    ) -> Result<Admitted, SourceRefusal> {
        let Some(mut set) = self.set(&key) else {
            return Ok(Admitted { evicted: false });
        };
        let known = set.iter().position(|source| source.key == key);
        let place = known.unwrap_or_else(|| first_to_give_way(&set, now));
        let Some(slot) = set.get_mut(place) else {
            return Ok(Admitted { evicted: false });
        };
        let mut source = match known {
            Some(_) => *slot,
            None => Source {
                key,
                ..Source::FREE
            },
        };
        if let Some(most) = limits.max_connections {
            if source.connections >= most {
                return Err(SourceRefusal::Connections);
            }
            source.connections += 1;
        }
        if let Some(rate) = &limits.rate {
            source.full_at = rate.take(source.full_at, now).ok_or(SourceRefusal::Rate)?;
        }
        let evicted = known.is_none() && !slot.is_idle(now);
        *slot = source;
        Ok(Admitted { evicted })
    }

    /// Why no connection of a source would be admitted now; none is counted. `now` is in milliseconds.
    #[must_use]
    pub fn refuses(
        &self,
        key: &SourceKey,
        limits: &SourceLimits,
        now: u64,
    ) -> Option<SourceRefusal> {
        let set = self.set(key)?;
        let source = set.iter().find(|source| source.key == *key)?;
        let is_enough = |most: u32| source.connections >= most;
        if limits.max_connections.is_some_and(is_enough) {
            return Some(SourceRefusal::Connections);
        }
        let is_empty = |rate: Rate| rate.take(source.full_at, now).is_none();
        limits
            .rate
            .is_some_and(is_empty)
            .then_some(SourceRefusal::Rate)
    }

    /// A connection that was admitted is over.
    pub fn release(&self, key: SourceKey) {
        let Some(mut set) = self.set(&key) else {
            return;
        };
        // One that was pushed out in between may have more to release than it has.
        if let Some(source) = set.iter_mut().find(|source| source.key == key) {
            source.connections = source.connections.saturating_sub(1);
        }
    }

    /// Connections of a source that are counted now.
    #[must_use]
    pub fn connections(&self, key: &SourceKey) -> u32 {
        let set = self.set(key);
        let sources = set.iter().flat_map(|set| set.iter());
        let mut found = sources.filter(|source| source.key == *key);
        found.next().map_or(0, |source| source.connections)
    }

    /// Forgets all sources of a virtual server, whose limits changed so that what was counted does not
    /// fit any more.
    pub fn forget(&self, service: VirtualServerId) {
        for set in self.sets.get().into_iter().flatten() {
            for source in lock(set).iter_mut() {
                if source.key.service == service {
                    *source = Source::FREE;
                }
            }
        }
    }

    fn set(&self, key: &SourceKey) -> Option<MutexGuard<'_, Set>> {
        let sets = self.sets.get()?;
        let hash = usize::try_from(self.hasher.hash_of(key)).unwrap_or(0);
        sets.get(hash.checked_rem(sets.len())?).map(lock)
    }
}

fn lock(set: &Mutex<Set>) -> MutexGuard<'_, Set> {
    // Nothing that holds the lock can panic half way.
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

fn first_to_give_way(set: &Set, now: u64) -> usize {
    let first = (0..).zip(set).min_by_key(|(_, source)| source.rank(now));
    first.map_or(0, |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: VirtualServerId = VirtualServerId(3);

    fn sources(count: usize) -> Sources {
        let sources = Sources::of_size(count, FlowHasher::fixed());
        sources.allocate();
        sources
    }

    fn client(number: u32) -> Address {
        let [_, a, b, c] = number.to_be_bytes();
        Address::v4([10, a, b, c])
    }

    fn limits(max_connections: Option<u32>, rate: Option<(u32, u32)>) -> SourceLimits {
        SourceLimits {
            max_connections,
            rate: rate.map(|(per_second, burst)| Rate { per_second, burst }),
            granularity: 24,
        }
    }

    #[test]
    fn a_network_is_one_source_and_another_service_another() {
        let sources = sources(1024);
        let limits = limits(Some(2), None);
        let admit = |service, octet| {
            let key = limits.key(service, Address::v4([10, 0, 0, octet]));
            sources.admit(key, &limits, 0).map(|_| ())
        };
        assert_eq!(admit(SERVICE, 1), Ok(()));
        assert_eq!(admit(SERVICE, 2), Ok(()));
        assert_eq!(admit(SERVICE, 3), Err(SourceRefusal::Connections));
        assert_eq!(admit(VirtualServerId(4), 3), Ok(()));
        sources.release(limits.key(SERVICE, Address::v4([10, 0, 0, 99])));
        assert_eq!(admit(SERVICE, 3), Ok(()));
        sources.forget(SERVICE);
        let key = limits.key(VirtualServerId(4), Address::v4([10, 0, 0, 1]));
        assert_eq!(sources.connections(&key), 1, "another's are not forgotten");
        assert_eq!(admit(SERVICE, 3), Ok(()));
    }

    #[test]
    fn a_refused_connection_is_not_counted() {
        let sources = sources(1024);
        let limits = limits(Some(5), Some((1, 1)));
        let key = limits.key(SERVICE, client(1));
        assert_eq!(
            sources.admit(key, &limits, 0),
            Ok(Admitted { evicted: false })
        );
        assert_eq!(sources.admit(key, &limits, 999), Err(SourceRefusal::Rate));
        assert_eq!(sources.connections(&key), 1);
        assert!(sources.admit(key, &limits, 1000).is_ok());
        assert_eq!(sources.connections(&key), 2);
    }

    /// Whatever a flood does to a table that is much too small, a source within its limits is
    /// admitted, and one that holds many connections stays known.
    #[test]
    fn a_flood_of_sources_refuses_nobody_and_is_counted() {
        let sources = sources(64);
        let limits = SourceLimits {
            granularity: 32,
            ..limits(Some(10), Some((100, 10)))
        };
        let heavy = limits.key(SERVICE, client(0));
        for _ in 0..10 {
            sources.admit(heavy, &limits, 0).expect("within its limits");
        }
        let mut evicted = 0;
        for number in 1..10_000 {
            let key = limits.key(SERVICE, client(number));
            let admitted = sources.admit(key, &limits, 1000).expect("its first");
            evicted += u32::from(admitted.evicted);
        }
        assert!((9_900..9_999).contains(&evicted), "{evicted}");
        assert_eq!(
            sources.admit(heavy, &limits, 1000),
            Err(SourceRefusal::Connections)
        );
        // Those that were pushed out have more to release than is known of them.
        for number in 1..10_000 {
            sources.release(limits.key(SERVICE, client(number)));
        }
        let admitted = sources.admit(limits.key(SERVICE, client(77)), &limits, 9000);
        assert_eq!(admitted, Ok(Admitted { evicted: false }));
    }

    #[test]
    fn without_a_table_everybody_is_admitted() {
        let sources = Sources::new(FlowHasher::fixed());
        let limits = limits(Some(1), Some((1, 1)));
        let key = limits.key(SERVICE, client(1));
        assert!((0..9).all(|_| sources.admit(key, &limits, 0).is_ok()));
        sources.release(key);
        sources.forget(SERVICE);
    }
}
