//! Local addresses and ports of FULLNAT, one pool for each worker and virtual server.
//!
//! Workers share no pool: of the ports 1024..=65535 each has its own range on every address, so that
//! the port of a reply says which worker it belongs to ([`PortRange::owner`]), and nothing is locked.
//!
//! A free port is found and given back in constant time. The one that has been free the longest is
//! used first, so that a server that still remembers its last connection has the most time to
//! forget it. A port serves one connection at a time, whatever its destination.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use hashbrown::HashMap;

use crate::forward::rewrite::Endpoint;
use crate::service::Address;

/// Ports that are handed out: none of those below, which are servers' (RFC 6335 §6).
pub const PORTS: RangeInclusive<u16> = 1024..=65_535;

/// How many ports those are.
const COUNT: u32 = 65_535 - 1024 + 1;

/// The ports of one worker, on every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// Host byte order.
    pub first: u16,
    /// Host byte order; the last is of it.
    pub last: u16,
}

impl PortRange {
    /// That of worker number `worker` of `workers`, from 0. Ranges are of the same size; the few
    /// ports that are left over belong to nobody. `None` if there is no such worker, or no port for
    /// each.
    #[must_use]
    pub fn of(worker: u32, workers: u32) -> Option<Self> {
        let size = COUNT.checked_div(workers).filter(|size| *size > 0)?;
        if worker >= workers {
            return None;
        }
        let first = u32::from(*PORTS.start()) + worker * size;
        Some(Self {
            first: u16::try_from(first).ok()?,
            last: u16::try_from(first + size - 1).ok()?,
        })
    }

    /// The number of the worker to whose range `port` belongs, of `workers`; `None` for a port that
    /// is nobody's.
    #[inline]
    #[must_use]
    pub fn owner(port: u16, workers: u32) -> Option<u32> {
        let size = COUNT.checked_div(workers).filter(|size| *size > 0)?;
        let offset = port.checked_sub(*PORTS.start())?;
        Some(u32::from(offset) / size).filter(|worker| *worker < workers)
    }
}

/// A place in the pool: which address, which port.
#[derive(Clone, Copy, Debug)]
struct Place {
    address: u16,
    port: u16,
}

/// The local addresses and ports of one worker.
#[derive(Debug)]
pub struct PortPool {
    addresses: Box<[Address]>,
    /// The place of each in `addresses`.
    numbers: HashMap<Address, u16>,
    range: PortRange,
    /// The one that has been free the longest is in front. Never grows: it is made with room for all.
    free: VecDeque<Place>,
    /// One bit for each place, set while it is in use: a port that is given back twice would
    /// otherwise serve two connections.
    used: Box<[u64]>,
    exhausted: u64,
}

impl PortPool {
    /// All ports of `range` on each of the addresses, all different, of which there are at most 65536; further ones
    /// are not used.
    #[must_use]
    pub fn new(addresses: &[Address], range: PortRange) -> Self {
        let ports = range.first..=range.last;
        // Neighbouring connections get different addresses.
        let free: VecDeque<Place> = ports
            .flat_map(|port| {
                let addresses = (0..=u16::MAX).zip(addresses);
                addresses.map(move |(address, _)| Place { address, port })
            })
            .collect();
        Self {
            addresses: addresses.into(),
            numbers: addresses.iter().copied().zip(0..=u16::MAX).collect(),
            range,
            used: vec![0; free.len().div_ceil(64)].into_boxed_slice(),
            free,
            exhausted: 0,
        }
    }

    /// A free address and port, which are in use from now on; `None`, counted, if all are.
    #[inline]
    #[must_use]
    pub fn allocate(&mut self) -> Option<Endpoint> {
        let Some(place) = self.free.pop_front() else {
            self.exhausted += 1;
            return None;
        };
        let address = *self.addresses.get(usize::from(place.address))?;
        let (word, bit) = self.bit(place);
        if let Some(word) = self.used.get_mut(word) {
            *word |= bit;
        }
        Some(Endpoint {
            address,
            port: place.port,
        })
    }

    /// Gives back what [`allocate`](Self::allocate) returned. What is not in use is left alone.
    #[inline]
    pub fn free(&mut self, endpoint: Endpoint) {
        let of_range = (self.range.first..=self.range.last).contains(&endpoint.port);
        let known = self.numbers.get(&endpoint.address);
        let (true, Some(&address)) = (of_range, known) else {
            return;
        };
        let place = Place {
            address,
            port: endpoint.port,
        };
        let (word, bit) = self.bit(place);
        if let Some(word) = self.used.get_mut(word)
            && *word & bit != 0
        {
            *word &= !bit;
            self.free.push_back(place);
        }
    }

    /// Number of connections that can still be made.
    #[must_use]
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// How often no port was free.
    #[must_use]
    pub fn exhausted(&self) -> u64 {
        self.exhausted
    }

    /// Where the bit of a place is.
    #[inline]
    fn bit(&self, place: Place) -> (usize, u64) {
        let port = usize::from(place.port.saturating_sub(self.range.first));
        let number = port * self.addresses.len().min(1 << 16) + usize::from(place.address);
        (number / 64, 1 << (number % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn addresses(number: u8) -> Vec<Address> {
        (1..=number)
            .map(|last| Address::v4([10, 0, 0, last]))
            .collect()
    }

    const FOUR: PortRange = PortRange {
        first: 2000,
        last: 2003,
    };

    #[test]
    fn every_port_has_one_worker_at_most() {
        for workers in [1, 2, 3, 7, 64, 64_512] {
            let mut owned = 0;
            for worker in [0, workers / 2, workers - 1] {
                let range = PortRange::of(worker, workers).unwrap();
                for port in [range.first, range.last] {
                    assert_eq!(PortRange::owner(port, workers), Some(worker));
                }
                owned = range.last;
            }
            let beyond = PortRange::owner(owned.saturating_add(1), workers);
            assert!(owned == u16::MAX || beyond.is_none(), "{workers}");
        }
        let whole = PortRange {
            first: 1024,
            last: 65_535,
        };
        assert_eq!(PortRange::of(0, 1), Some(whole));
        assert_eq!(PortRange::of(2, 2), None);
        assert_eq!(PortRange::of(0, 0), None);
        assert_eq!(PortRange::of(0, 64_513), None);
        assert_eq!(PortRange::owner(1023, 2), None);
    }

    #[test]
    fn all_are_used_once_and_the_end_is_said() {
        let mut pool = PortPool::new(&addresses(3), FOUR);
        let all: HashSet<Endpoint> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(all.len(), 12);
        assert!(all.iter().all(|end| (2000..=2003).contains(&end.port)));
        assert_eq!((pool.available(), pool.exhausted()), (0, 1));
        for end in all {
            pool.free(end);
        }
        assert_eq!(pool.available(), 12);
    }

    #[test]
    fn neighbours_differ_in_address_and_freed_ports_wait_longest() {
        let mut pool = PortPool::new(&addresses(2), FOUR);
        let first = pool.allocate().unwrap();
        let second = pool.allocate().unwrap();
        assert_ne!(first.address, second.address);
        pool.free(second);
        pool.free(first);
        let next: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(next[6..], [second, first]);
    }

    #[test]
    fn what_is_not_in_use_is_not_taken_back() {
        let mut pool = PortPool::new(&addresses(2), FOUR);
        let used = pool.allocate().unwrap();
        let foreign = |address, port| Endpoint { address, port };
        pool.free(foreign(Address::v4([9, 9, 9, 9]), 2000));
        pool.free(foreign(used.address, 1999));
        pool.free(foreign(used.address, 2004));
        pool.free(foreign(used.address, 2003));
        assert_eq!(pool.available(), 7);
        pool.free(used);
        pool.free(used);
        assert_eq!(pool.available(), 8);
    }

    #[test]
    fn a_pool_without_addresses_is_exhausted() {
        let mut pool = PortPool::new(&[], FOUR);
        assert_eq!(pool.allocate(), None);
        pool.free(Endpoint {
            address: Address::v4([10, 0, 0, 1]),
            port: 2000,
        });
        assert_eq!((pool.available(), pool.exhausted()), (0, 1));
    }

    proptest! {
        #[test]
        fn no_two_connections_share_a_port(steps in vec((any::<bool>(), any::<prop::sample::Index>()), 0..200)) {
            let mut pool = PortPool::new(&addresses(3), PortRange { first: 60_000, last: 60_029 });
            let mut used = Vec::new();
            for (allocate, which) in steps {
                if allocate {
                    if let Some(end) = pool.allocate() {
                        prop_assert!(!used.contains(&end));
                        used.push(end);
                    }
                } else if !used.is_empty() {
                    pool.free(used.swap_remove(which.index(used.len())));
                }
                prop_assert_eq!(pool.available() + used.len(), 90);
            }
        }
    }
}
