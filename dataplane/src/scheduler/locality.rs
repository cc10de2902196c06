//! Which servers the connections to a destination went to: the memory of
//! `lblc` and `lblcr`.
//!
//! Fixed in size, for all virtual servers of a worker together: sets of four
//! entries, of which the longest unused one gives way to a new destination. So
//! an attacker who makes up destinations costs the caches hits, not the
//! director memory.
//!
//! An entry may name a server that is gone; its reader looks.

use crate::flow::FlowHasher;
use crate::service::{Address, ServerId, VirtualServerId};

/// Destinations remembered (IPVS: 1024 buckets of 16, each virtual server).
const ENTRIES: usize = 16_384;
/// Entries that share a place.
const WAYS: usize = 4;
/// Most servers that one destination is spread over by `lblcr`.
pub(super) const MOST_SERVERS: usize = 8;
/// IPVS's `lblc_expiration` and `lblcr_expiration`, in seconds: after a day an
/// unused destination is forgotten, and a set of servers that did not
/// grow loses one.
pub(super) const EXPIRATION: u32 = 24 * 3600;

/// What is known of a destination: one cache line.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Locality {
    destination: Address,
    service: VirtualServerId,
    /// Seconds since the worker's start.
    last_used: u32,
    /// When `servers` changed last.
    changed: u32,
    /// How many of `servers` there are; 0: a free entry.
    count: u32,
    servers: [ServerId; MOST_SERVERS],
}

const _: () = assert!(size_of::<Locality>() == 64);

impl Locality {
    const FREE: Self = Self {
        destination: Address::v4([0; 4]),
        service: VirtualServerId(0),
        last_used: 0,
        changed: 0,
        count: 0,
        servers: [ServerId(0); MOST_SERVERS],
    };

    pub(super) fn servers(&self) -> &[ServerId] {
        &self.servers[..self.count as usize]
    }

    /// Remembers this server only.
    pub(super) fn set(&mut self, server: ServerId, now: u32) {
        self.servers[0] = server;
        self.count = 1;
        self.changed = now;
    }

    /// Adds a server if it is not there. A full set loses its first one.
    pub(super) fn add(&mut self, server: ServerId, now: u32) {
        if self.servers().contains(&server) {
            return;
        }
        let place = self.count as usize;
        if place < MOST_SERVERS {
            self.servers[place] = server;
            self.count += 1;
        } else {
            self.servers.rotate_left(1);
            self.servers[MOST_SERVERS - 1] = server;
        }
        self.changed = now;
    }

    pub(super) fn remove(&mut self, server: ServerId, now: u32) {
        let count = self.count as usize;
        if let Some(place) = self.servers().iter().position(|known| *known == server) {
            self.servers[place..count].rotate_left(1);
            self.count -= 1;
            self.changed = now;
        }
    }

    /// Seconds since the set of servers changed.
    pub(super) fn unchanged(&self, now: u32) -> u32 {
        now.saturating_sub(self.changed)
    }

    fn is_of(&self, service: VirtualServerId, destination: Address) -> bool {
        self.count > 0 && self.service == service && self.destination == destination
    }
}

/// The destinations of a worker.
#[derive(Debug)]
pub(super) struct Localities {
    /// Empty until a scheduler needs it.
    entries: Vec<Locality>,
    hasher: FlowHasher,
}

impl Localities {
    pub(super) fn new(hasher: FlowHasher) -> Self {
        Self {
            entries: Vec::new(),
            hasher,
        }
    }

    pub(super) fn allocate(&mut self) {
        if self.entries.is_empty() {
            self.entries = vec![Locality::FREE; ENTRIES];
        }
    }

    /// The entry of a destination, marked as used; a new one names no server.
    /// `None` without memory.
    pub(super) fn of(
        &mut self,
        service: VirtualServerId,
        destination: Address,
        now: u32,
    ) -> Option<&mut Locality> {
        let sets = self.entries.len() / WAYS;
        let hash = self.hasher.hash_of(&(service, destination));
        let set = usize::try_from(hash).unwrap_or(0).checked_rem(sets)?;
        let ways = self.entries.get_mut(set * WAYS..(set + 1) * WAYS)?;
        let known = ways
            .iter()
            .position(|entry| entry.is_of(service, destination));
        let place = known.unwrap_or_else(|| longest_unused(ways));
        let entry = &mut ways[place];
        let forgotten = now.saturating_sub(entry.last_used) >= EXPIRATION;
        if known.is_none() || forgotten {
            *entry = Locality {
                destination,
                service,
                changed: now,
                ..Locality::FREE
            };
        }
        entry.last_used = now;
        Some(entry)
    }
}

fn longest_unused(ways: &[Locality]) -> usize {
    let age = |entry: &Locality| {
        if entry.count == 0 {
            0
        } else {
            entry.last_used + 1
        }
    };
    let oldest = (0..).zip(ways).min_by_key(|(_, entry)| age(entry));
    oldest.map_or(0, |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: VirtualServerId = VirtualServerId(3);

    fn destination(number: u32) -> Address {
        Address::v4(number.to_be_bytes())
    }

    fn localities() -> Localities {
        let mut localities = Localities::new(FlowHasher::fixed());
        localities.allocate();
        localities
    }

    #[test]
    fn without_memory_nothing_is_known() {
        let mut none = Localities::new(FlowHasher::fixed());
        assert!(none.of(SERVICE, destination(1), 0).is_none());
    }

    #[test]
    fn each_virtual_server_has_its_own_destinations() {
        let mut localities = localities();
        let mut of = |service| {
            localities
                .of(VirtualServerId(service), destination(1), 5)
                .cloned()
        };
        assert!(of(1).unwrap().servers().is_empty());
        localities
            .of(VirtualServerId(1), destination(1), 5)
            .unwrap()
            .set(ServerId(7), 5);
        let mut of = |service| {
            localities
                .of(VirtualServerId(service), destination(1), 6)
                .cloned()
        };
        assert_eq!(of(1).unwrap().servers(), [ServerId(7)]);
        assert!(of(2).unwrap().servers().is_empty());
    }

    #[test]
    fn the_longest_unused_destination_gives_way() {
        let mut localities = localities();
        let many = u32::try_from(ENTRIES * 4).unwrap();
        for number in 0..many {
            // Number 0 is used all the time and stays.
            for number in [number, 0] {
                let entry = localities
                    .of(SERVICE, destination(number), number + 1)
                    .unwrap();
                entry.add(ServerId(number), number + 1);
            }
        }
        let servers = |localities: &mut Localities, number| {
            localities
                .of(SERVICE, destination(number), many)
                .unwrap()
                .servers()
                .to_vec()
        };
        assert_eq!(servers(&mut localities, 0), [ServerId(0)]);
        assert_eq!(servers(&mut localities, many - 1), [ServerId(many - 1)]);
        assert_eq!(servers(&mut localities, 1), []);
        assert_eq!(localities.entries.len(), ENTRIES);
    }

    #[test]
    fn a_destination_is_forgotten_after_a_day() {
        let mut localities = localities();
        localities
            .of(SERVICE, destination(1), 0)
            .unwrap()
            .set(ServerId(1), 0);
        let servers = |localities: &mut Localities, now| {
            localities
                .of(SERVICE, destination(1), now)
                .unwrap()
                .servers()
                .len()
        };
        assert_eq!(servers(&mut localities, EXPIRATION - 1), 1);
        assert_eq!(servers(&mut localities, 2 * EXPIRATION - 2), 1);
        assert_eq!(servers(&mut localities, 3 * EXPIRATION - 2), 0);
    }

    #[test]
    fn a_set_of_servers_is_bounded() {
        let mut entry = Locality::FREE;
        for server in 0..20 {
            entry.add(ServerId(server), server);
            entry.add(ServerId(server), server);
        }
        let most = u32::try_from(MOST_SERVERS).unwrap();
        assert_eq!(
            entry.servers(),
            (20 - most..20).map(ServerId).collect::<Vec<_>>()
        );
        entry.remove(ServerId(15), 30);
        entry.remove(ServerId(99), 40);
        assert_eq!(entry.servers().len(), MOST_SERVERS - 1);
        assert!(!entry.servers().contains(&ServerId(15)));
        assert_eq!(entry.unchanged(31), 1);
    }
}
