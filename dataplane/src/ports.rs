//! Local addresses and ports of FULLNAT: a pool of ports for each address and worker.
//!
//! Workers share no pool: of the ports 1024..=65535 each has its own range on every address, so that no two
//! workers use the same one, and nothing is locked.
//! Virtual servers may share addresses: a port serves one connection at a time, whatever its
//! virtual server, protocol and destination.
//!
//! A free port is found and given back in constant time. The one of an address that has been free the longest
//! is used first, so that a server that still remembers its last connection has the most time to
//! forget it.

use std::ops::RangeInclusive;

use hashbrown::{HashMap, HashSet};

use crate::device::BURST;
use crate::forward::rewrite::Endpoint;
use crate::service::{Address, VirtualServerId};

/// Ports that are handed out: none of those below, which are servers' (RFC 6335 §6).
pub const PORTS: RangeInclusive<u16> = 1024..=65_535;

/// How many ports those are, of each address and over all workers.
pub const COUNT: u32 = 65_535 - 1024 + 1;

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
}

/// The ports of one address. They are numbered from 0, from the range's first on.
#[derive(Debug)]
struct Ports {
    range: PortRange,
    /// A ring of as many places as ports: from `first` on the free ones, the one that has been free the longest first.
    ring: Box<[u16]>,
    /// Places in `ring`.
    first: usize,
    free: usize,
    /// A bit for each port, set while it is in use: one that is given back twice would otherwise serve two connections.
    used: Box<[u64]>,
}

impl Ports {
    fn new(range: PortRange) -> Self {
        let ring: Box<[u16]> = (0..=range.last - range.first).collect();
        Self {
            range,
            first: 0,
            free: ring.len(),
            used: vec![0; ring.len().div_ceil(64)].into(),
            ring,
        }
    }

    /// Gives the next of the wanted ones a port, up to so many of them, or fewer. Returns how many: none only if no
    /// port is free.
    #[inline(always)]
    fn allocate(
        &mut self,
        most: usize,
        wanted: &mut impl Iterator<Item = usize>,
        mut give: impl FnMut(usize, u16),
    ) -> usize {
        let next = self.ring.get(self.first..).unwrap_or_default();
        let count = most.min(self.free).min(next.len());
        let (used, first) = (&mut *self.used, self.range.first);
        for (number, wanted) in next[..count].iter().zip(wanted) {
            if let Some(used) = used.get_mut(usize::from(*number / 64)) {
                *used |= 1 << (number % 64);
            }
            give(wanted, first + number);
        }
        self.free -= count;
        self.first += count;
        if self.first == self.ring.len() {
            self.first = 0;
        }
        count
    }

    fn free(&mut self, port: u16) {
        let Some(number) = port.checked_sub(self.range.first) else {
            return;
        };
        let bit = 1 << (number % 64);
        match self.used.get_mut(usize::from(number / 64)) {
            Some(used) if *used & bit != 0 => *used &= !bit,
            Some(_) | None => return,
        }
        let place = match self.first + self.free {
            place if place < self.ring.len() => place,
            place => place - self.ring.len(),
        };
        self.ring[place] = number;
        self.free += 1;
    }

    fn is_used(&self) -> bool {
        self.free < self.ring.len()
    }
}

/// The addresses of one IP version that a virtual server uses.
#[derive(Debug, Default)]
struct Own {
    /// Places in `pools`.
    pools: Vec<u32>,
    /// Whose turn it is.
    turn: usize,
    /// How many ports it has given in this turn.
    given: usize,
}

/// So many ports an address gives before it is another one's turn: those of a burst lie side by side.
const TURN: usize = BURST;

/// Those of one virtual server and IP version.
#[derive(Debug)]
pub(crate) struct ServicePorts<'a> {
    own: &'a mut Own,
    pools: &'a mut [(Address, Ports)],
}

impl ServicePorts<'_> {
    /// Gives the wanted ones, of which there are `count`, a free port each, in their order: as [`LocalPorts::allocate`].
    /// Returns how many got none, the last ones.
    #[inline(always)]
    pub(crate) fn allocate(
        &mut self,
        count: usize,
        mut wanted: impl Iterator<Item = usize>,
        mut give: impl FnMut(usize, Address, u16),
    ) -> usize {
        let (mut left, mut without) = (count, 0);
        while left > 0 && without < self.own.pools.len() {
            let turn = self.own.turn;
            let pool = self.own.pools.get(turn).map(|place| *place as usize);
            let given = match pool.and_then(|place| self.pools.get_mut(place)) {
                Some((address, ports)) => {
                    let (address, most) = (*address, left.min(TURN - self.own.given));
                    ports.allocate(most, &mut wanted, |wanted, port| {
                        give(wanted, address, port);
                    })
                }
                None => 0,
            };
            left -= given;
            self.own.given += given;
            without = if given == 0 { without + 1 } else { 0 };
            if given == 0 || self.own.given == TURN {
                self.own.given = 0;
                self.own.turn = if turn + 1 < self.own.pools.len() {
                    turn + 1
                } else {
                    0
                };
            }
        }
        left
    }
}

/// The local addresses and ports of one worker.
#[derive(Debug)]
pub struct LocalPorts {
    /// `None`: there are none.
    range: Option<PortRange>,
    pools: Vec<(Address, Ports)>,
    /// Places in `pools`.
    by_address: HashMap<Address, u32>,
    /// By `VirtualServerId`, those of IPv6 and of IPv4.
    services: Vec<[Own; 2]>,
}

impl LocalPorts {
    /// Without addresses; without a range there will be no ports either.
    #[must_use]
    pub fn new(range: Option<PortRange>) -> Self {
        Self {
            range,
            pools: Vec::new(),
            by_address: HashMap::new(),
            services: Vec::new(),
        }
    }

    /// Makes ready to allocate for these virtual servers on their addresses, and for no others. An address that is
    /// not wanted any more is kept while a connection has a port of it. Allocates memory, about 140 kB an address
    /// over all workers.
    pub fn keep_only<'a>(
        &mut self,
        services: impl Iterator<Item = (VirtualServerId, &'a [Address])>,
    ) {
        let services: Vec<_> = services.filter(|(_, own)| !own.is_empty()).collect();
        let addresses = services.iter().flat_map(|(_, addresses)| *addresses);
        let wanted: HashSet<Address> = addresses.clone().copied().collect();
        self.pools
            .retain(|(address, ports)| wanted.contains(address) || ports.is_used());
        self.by_address = (0..)
            .zip(&self.pools)
            .map(|(place, (address, _))| (*address, place))
            .collect();
        self.services.clear();
        let Some(range) = self.range else { return };
        for address in addresses {
            let next = u32::try_from(self.pools.len()).unwrap_or(u32::MAX);
            if *self.by_address.entry(*address).or_insert(next) == next {
                self.pools.push((*address, Ports::new(range)));
            }
        }
        for (id, addresses) in services {
            let at = id.0 as usize;
            if self.services.len() <= at {
                self.services.resize_with(at + 1, Default::default);
            }
            for address in addresses {
                let own = &mut self.services[at][usize::from(address.is_v4())];
                own.pools.extend(self.by_address.get(address));
            }
        }
    }

    /// The ports of a virtual server on its addresses of the wanted IP version, if it has such.
    #[inline(always)]
    #[must_use]
    pub(crate) fn of(&mut self, service: VirtualServerId, is_v4: bool) -> Option<ServicePorts<'_>> {
        let own = self.services.get_mut(service.0 as usize)?;
        Some(ServicePorts {
            own: &mut own[usize::from(is_v4)],
            pools: &mut self.pools,
        })
    }

    /// A free port on one of the virtual server's addresses of the wanted IP version, which is in use from now on;
    /// `None` if all are. Addresses take turns.
    #[must_use]
    pub fn allocate(&mut self, service: VirtualServerId, is_v4: bool) -> Option<Endpoint> {
        let mut found = None;
        let only = std::iter::once(0);
        (self.of(service, is_v4)?).allocate(1, only, |_, address, port| {
            found = Some(Endpoint { address, port });
        });
        found
    }

    /// The addresses of which a connection has a port.
    pub(crate) fn used(&self) -> impl Iterator<Item = Address> {
        let used = self.pools.iter().filter(|(_, ports)| ports.is_used());
        used.map(|(address, _)| *address)
    }

    /// Gives back what [`allocate`](Self::allocate) returned. What is not in use is left alone.
    pub fn free(&mut self, endpoint: Endpoint) {
        let place = self.by_address.get(&endpoint.address);
        if let Some((_, ports)) = place.and_then(|place| self.pools.get_mut(*place as usize)) {
            ports.free(endpoint.port);
        }
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

    const SERVICE: VirtualServerId = VirtualServerId(1);

    fn pool(addresses: &[Address], range: PortRange) -> LocalPorts {
        let mut pool = LocalPorts::new(Some(range));
        pool.keep_only([(SERVICE, addresses)].into_iter());
        pool
    }

    fn rest(pool: &mut LocalPorts) -> Vec<Endpoint> {
        std::iter::from_fn(|| pool.allocate(SERVICE, true)).collect()
    }

    #[test]
    fn every_port_has_one_worker_at_most() {
        for workers in [1, 2, 3, 7, 64, 64_512] {
            let mut next = 1024;
            for worker in 0..workers {
                let range = PortRange::of(worker, workers).unwrap();
                assert_eq!(u32::from(range.first), next);
                next = u32::from(range.last) + 1;
            }
            assert!((65_536 - workers..=65_536).contains(&next), "{workers}");
        }
        for (worker, workers) in [(2, 2), (0, 0), (0, 64_513)] {
            assert_eq!(PortRange::of(worker, workers), None);
        }
    }

    #[test]
    fn all_are_used_once_and_can_be_used_again() {
        let own = addresses(3);
        let mut pool = pool(&own, FOUR);
        let all: HashSet<Endpoint> = rest(&mut pool).into_iter().collect();
        assert_eq!(all.len(), 12);
        assert!(all.iter().all(|end| (2000..=2003).contains(&end.port)));
        for end in all {
            pool.free(end);
        }
        assert_eq!(rest(&mut pool).len(), 12);
    }

    #[test]
    fn addresses_take_turns() {
        let own = addresses(3);
        let range = PortRange {
            first: 2000,
            last: 2131,
        };
        let mut pool = pool(&own, range);
        let all = rest(&mut pool);
        let turns = all.chunk_by(|one, next| one.address == next.address);
        assert_eq!(
            turns.map(<[_]>::len).collect::<Vec<_>>(),
            [64, 64, 64, 64, 64, 64, 4, 4, 4]
        );
    }

    #[test]
    fn freed_ports_wait_longest() {
        let own = addresses(2);
        let mut pool = pool(&own, FOUR);
        let first = pool.allocate(SERVICE, true).unwrap();
        pool.free(first);
        let next = rest(&mut pool);
        assert_eq!(next.len(), 8);
        assert_eq!(
            next.iter().rfind(|end| end.address == first.address),
            Some(&first)
        );
    }

    #[test]
    fn virtual_servers_share_an_address_but_no_port() {
        let own = addresses(2);
        let mut pool = pool(&own, FOUR);
        let other = VirtualServerId(0);
        pool.keep_only([(SERVICE, &own[..]), (other, &own[..1])].into_iter());
        let first: Vec<_> = std::iter::from_fn(|| pool.allocate(other, true)).collect();
        let second = rest(&mut pool);
        assert_eq!((first.len(), second.len()), (4, 4));
        assert!(second.iter().all(|end| end.address == own[1]));
    }

    #[test]
    fn the_ip_version_is_the_wanted_one() {
        let own = [Address::v4([10, 0, 0, 1]), Address::from_octets([0xfd; 16])];
        let mut pool = pool(&own, FOUR);
        for is_v4 in [true, false, false, true] {
            let end = pool.allocate(SERVICE, is_v4).unwrap();
            assert_eq!(end.address.is_v4(), is_v4);
        }
    }

    #[test]
    fn what_is_not_in_use_is_not_taken_back() {
        let own = addresses(2);
        let mut pool = pool(&own, FOUR);
        let used = pool.allocate(SERVICE, true).unwrap();
        let foreign = |address, port| Endpoint { address, port };
        pool.free(foreign(Address::v4([9, 9, 9, 9]), 2000));
        pool.free(foreign(used.address, 1999));
        pool.free(foreign(used.address, 2004));
        pool.free(foreign(used.address, 2003));
        pool.free(used);
        pool.free(used);
        assert_eq!(rest(&mut pool).len(), 8);
    }

    #[test]
    fn an_address_is_kept_while_a_port_of_it_is_used() {
        let own = addresses(1);
        let mut pool = pool(&own, FOUR);
        assert_eq!(pool.used().next(), None);
        let used = pool.allocate(SERVICE, true).unwrap();
        pool.keep_only([].into_iter());
        assert_eq!(pool.allocate(SERVICE, true), None, "it is nobody's");
        assert_eq!(pool.used().next(), Some(own[0]));
        pool.keep_only([(SERVICE, &own[..])].into_iter());
        assert_eq!(rest(&mut pool).len(), 3, "one is still in use");
        pool.free(used);
        assert_eq!(rest(&mut pool), [used]);
    }

    #[test]
    fn without_addresses_there_is_no_port() {
        assert_eq!(pool(&[], FOUR).allocate(SERVICE, true), None);
        assert_eq!(pool(&addresses(1), FOUR).allocate(SERVICE, false), None);
    }

    #[test]
    fn a_reload_in_the_middle_of_a_turn_gives_no_port_twice() {
        let own = addresses(2);
        let range = PortRange {
            first: 2000,
            last: 2099,
        };
        let mut pool = pool(&own, range);
        // Round the end of the first address's ring.
        let mut used: Vec<_> = (0..170)
            .filter_map(|_| pool.allocate(SERVICE, true))
            .collect();
        for end in used.drain(..80) {
            pool.free(end);
        }
        used.extend((0..5).filter_map(|_| pool.allocate(SERVICE, true)));
        pool.keep_only([(SERVICE, &own[..])].into_iter());
        used.extend(rest(&mut pool));
        assert_eq!(used.len(), 200);
        assert_eq!(used.into_iter().collect::<HashSet<_>>().len(), 200);
    }

    proptest! {
        #[test]
        fn no_two_connections_share_a_port(steps in vec((any::<bool>(), any::<prop::sample::Index>()), 0..200)) {
            let own = addresses(3);
            let mut pool = pool(&own, PortRange { first: 60_000, last: 60_029 });
            let mut used = Vec::new();
            for (allocate, which) in steps {
                if allocate {
                    if let Some(end) = pool.allocate(SERVICE, true) {
                        prop_assert!(!used.contains(&end));
                        used.push(end);
                    }
                } else if !used.is_empty() {
                    pool.free(used.swap_remove(which.index(used.len())));
                }
            }
            prop_assert_eq!(rest(&mut pool).len() + used.len(), 90);
        }

        #[test]
        fn several_at_once_get_what_each_would(steps in vec((0..80_usize, any::<prop::sample::Index>()), 0..60)) {
            let own = addresses(3);
            let range = PortRange { first: 60_000, last: 60_099 };
            let [mut pool, mut twin] = [pool(&own, range), pool(&own, range)];
            let mut used = Vec::new();
            for (count, which) in steps {
                let mut given = Vec::new();
                let mut ports = pool.of(SERVICE, true).unwrap();
                let without = ports.allocate(count, 7..7 + count, |wanted, address, port| {
                    given.push((wanted, Endpoint { address, port }));
                });
                let one_by_one: Vec<_> = (7..7 + count)
                    .map_while(|wanted| Some((wanted, twin.allocate(SERVICE, true)?)))
                    .collect();
                prop_assert_eq!(&given, &one_by_one);
                prop_assert_eq!(without, count - given.len());
                used.extend(given.into_iter().map(|(_, end)| end));
                for _ in 0..which.index(used.len() + 1) {
                    let end = used.swap_remove(which.index(used.len()));
                    pool.free(end);
                    twin.free(end);
                }
            }
        }
    }
}
