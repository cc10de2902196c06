//! NAT and FULLNAT, in stages: one loop of it all would have more to hold than a processor has registers.
//!
//! First each connection begins under the client's key, and its replies' key is noted. Then for all of them: where
//! replies leave, and where their keys belong, whose buckets come meanwhile. At last they get their reply halves, and
//! their packets are sent.

use std::hint::cold_path;

use super::Opening;
use super::method::{First, Method, bytes};
use crate::conn::{ConnectionTable, EntryIndex, Places, ReplyHalf, Vacancy, WayWord};
use crate::counters::ServerStatistics;
use crate::device::BURST;
use crate::director::burst::Others;
use crate::director::translate::way_back;
use crate::flow::{Hashes, PlainEnd, PlainKey, PlainKeys};
use crate::forward::rewrite::{Endpoint, PlainRewrite};
use crate::handoff::{Arrival, Owners, SharedReply};
use crate::ports::LocalPorts;
use crate::service::{Address, PortIndex, ServerId, VirtualServerId};
use crate::snapshot::{Path, Snapshot};
use crate::xsk::umem::Packets;

/// What is noted of the connections that have begun, in their order.
#[derive(Debug)]
pub(in crate::director) struct Begun {
    count: usize,
    /// Of their packets in the burst.
    numbers: [usize; BURST],
    entries: [EntryIndex; BURST],
    servers: [ServerId; BURST],
    /// Their replies'.
    keys: PlainKeys<BURST>,
    hashes: Hashes<BURST>,
    places: Places<BURST>,
    ways: [WayWord; BURST],
}

impl Begun {
    pub(in crate::director) const NONE: Self = Self {
        count: 0,
        numbers: [0; BURST],
        entries: [EntryIndex::FIRST; BURST],
        servers: [ServerId(0); BURST],
        keys: PlainKeys::EMPTY,
        hashes: Hashes::EMPTY,
        places: Places::EMPTY,
        ways: [WayWord::from_word(0); BURST],
    };

    /// The server of this packet's connection, if that was among the last to begin.
    pub(super) fn server_of(&self, number: usize) -> Option<ServerId> {
        let at = self.numbers.iter().position(|other| *other == number)?;
        Some(self.servers[at])
    }
}

/// NAT.
pub(super) struct Nat<'a>(pub(super) Translated<'a>);

impl Method for Nat<'_> {
    const SENDS: bool = false;

    #[inline(always)]
    fn open(&mut self, first: &First<'_>, vacancy: Vacancy<'_>) -> Option<(PortIndex, u64)> {
        self.0.begin(first.key.source(), first, vacancy)
    }

    #[inline(always)]
    fn finish(&mut self, table: &mut ConnectionTable, opening: &Opening<'_>) -> Others {
        self.0.finish(table, opening, |_| ())
    }
}

/// FULLNAT.
pub(super) struct FullNat<'a> {
    pub(super) translated: Translated<'a>,
    pub(super) service: VirtualServerId,
    pub(super) ports: &'a mut LocalPorts,
}

impl Method for FullNat<'_> {
    const SENDS: bool = false;

    #[inline(always)]
    fn open(&mut self, first: &First<'_>, vacancy: Vacancy<'_>) -> Option<(PortIndex, u64)> {
        let local = self.ports.allocate(self.service, true)?;
        let source = PlainEnd {
            address: u32::from_ne_bytes(local.address.last_octets()),
            port: local.port.to_be(),
        };
        let begun = self.translated.begin(source, first, vacancy);
        if begun.is_none() {
            cold_path();
            self.ports.undo(self.service, local);
        }
        begun
    }

    #[inline(always)]
    fn finish(&mut self, table: &mut ConnectionTable, opening: &Opening<'_>) -> Others {
        self.translated.finish(table, opening, |key| {
            let local = key.destination();
            self.ports.free(Endpoint {
                address: Address::v4(local.address.to_ne_bytes()),
                port: u16::from_be(local.port),
            });
        })
    }
}

/// What is the same for both.
pub(super) struct Translated<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) packets: Packets<'a>,
    /// One is that of all.
    pub(super) arrivals: &'a [Arrival],
    pub(super) owners: Option<&'a Owners>,
    pub(super) begun: &'a mut Begun,
}

impl Translated<'_> {
    /// First stage. The real server sees the client come from `source`. The straight way of [`Flows::reply`] and what is
    /// around it.
    #[inline(always)]
    fn begin(
        &mut self,
        source: PlainEnd,
        first: &First<'_>,
        vacancy: Vacancy<'_>,
    ) -> Option<(PortIndex, u64)> {
        let Path::Translated(hop) = self.snapshot.paths().get(first.server.0 as usize)? else {
            return None;
        };
        let server = self.snapshot.server(first.server)?;
        let server = PlainEnd {
            address: u32::from_ne_bytes(server.address.last_octets()),
            port: match server.port {
                0 => first.key.destination().port,
                port => port.to_be(),
            },
        };
        let begun = &mut *self.begun;
        let at = begun.count % BURST;
        begun.keys.set(at, first.key.between(server, source));
        begun.numbers[at] = first.number;
        begun.servers[at] = first.server;
        begun.entries[at] = vacancy.begin(first.key, first.server, first.beginning);
        begun.count = at + 1;
        Some((hop.port, bytes(&self.packets, first.number)))
    }

    /// The other stages. `undo` is called with the replies' keys of those that need a closer look.
    #[inline(always)]
    fn finish(
        &mut self,
        table: &mut ConnectionTable,
        opening: &Opening<'_>,
        mut undo: impl FnMut(&PlainKey),
    ) -> Others {
        let Opening {
            beginning,
            is_active,
            statistics,
            plain,
        } = opening;
        let mut undone = Others::NONE;
        let Begun {
            count,
            numbers,
            entries,
            servers,
            keys,
            hashes,
            places,
            ways,
        } = &mut *self.begun;
        let count = std::mem::take(count);
        let lookup = table.lookup();
        keys.hash(lookup.hasher(), count, hashes);
        lookup.places(hashes, count, places);
        let all = &self.arrivals[0];
        for (&number, way) in numbers[..count].iter().zip(&mut *ways) {
            let ingress = self.arrivals.get(number).unwrap_or(all).ingress;
            let client = plain.keys[number].source().address.to_ne_bytes();
            let head = self.packets.head(number);
            *way = way_back(&self.snapshot.routes, Address::v4(client), ingress, head);
        }
        for at in 0..count {
            let (number, entry) = (numbers[at], entries[at]);
            let (client, key) = (plain.keys[number], keys.get(at));
            let deltas = PlainRewrite::deltas(&client, &key);
            let reply = ReplyHalf {
                key,
                deltas,
                way: ways[at],
            };
            let server = servers[at];
            let statistics = statistics.get(server.0 as usize);
            if !table.add_reply(entry, places.get(at), &reply, beginning) {
                discard(table, entry, statistics, *is_active);
                undo(&key);
                undone.add(number);
                continue;
            }
            if let Some(statistics) = statistics {
                statistics.count_first(bytes(&self.packets, number));
            }
            if let Some(Path::Translated(hop)) = self.snapshot.paths().get(server.0 as usize) {
                let life = plain.headers.lives[number];
                let head = self.packets.head_mut(number);
                PlainRewrite::opposite(key, deltas).forward(head, life, &hop.addresses);
            }
            if let Some(owners) = self.owners {
                owners.list(hashes.get(at), entry);
                if let Some(now) = beginning.straight_since() {
                    owners.share(entry, &SharedReply::of(table.get(entry)), now);
                }
            }
        }
        undone
    }
}

/// Removes a connection that was begun in vain, and what was counted of it.
#[cold]
#[inline(never)]
fn discard(
    table: &mut ConnectionTable,
    entry: EntryIndex,
    statistics: Option<&ServerStatistics>,
    is_active: bool,
) {
    table.remove(entry);
    if let Some(statistics) = statistics {
        statistics.shift(Some(is_active), None);
    }
}
