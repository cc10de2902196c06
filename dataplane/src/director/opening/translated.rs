//! NAT and FULLNAT, in stages: one loop of it all would have more to hold than a processor has registers.
//!
//! First each connection begins under the client's key, and where its real server is is noted; FULLNAT takes a port for
//! each. Then, in columns: the replies' keys, where they belong, and what the checksums change by. While it is found
//! where replies leave, and the connections get their reply halves, the buckets come. At last the replies' keys go into
//! the index, and the packets are sent.

use super::Opening;
use super::method::{First, Method, bytes};
use crate::conn::{ConnectionTable, EntryIndex, Places, ReplyHalf};
use crate::device::BURST;
use crate::director::burst::FrameSet;
use crate::director::translate::way_to_neighbor;
use crate::flow::{Hashes, PlainEnd, PlainEnds, PlainKey, PlainKeys};
use crate::forward::rewrite::{Endpoint, PlainRewrite};
use crate::handoff::{Arrival, Owners, SharedReply};
use crate::ports::LocalPorts;
use crate::routes::V4Range;
use crate::service::{Address, PortIndex, ServerId, VirtualServerId};
use crate::snapshot::{Path, Snapshot};
use crate::wire::checksum::Delta;
use crate::xsk::umem::Packets;

/// What is noted of the connections that have begun, by the number of their packets in the burst.
#[derive(Debug)]
pub(in crate::director) struct Begun {
    entries: [EntryIndex; BURST],
    servers: [ServerId; BURST],
    /// Where requests go; port 0 is that of the request.
    server_ends: PlainEnds<BURST>,
    /// Where the real server sees them come from, if not from the client.
    local_ends: PlainEnds<BURST>,
    /// Of the replies.
    keys: PlainKeys<BURST>,
    hashes: Hashes<BURST>,
    places: Places<BURST>,
    /// What becoming each other's opposite changes in the network header, and in the transport's.
    networks: [Delta; BURST],
    transports: [Delta; BURST],
}

impl Begun {
    pub(in crate::director) const NONE: Self = Self {
        entries: [EntryIndex::FIRST; BURST],
        servers: [ServerId(0); BURST],
        server_ends: PlainEnds::EMPTY,
        local_ends: PlainEnds::EMPTY,
        keys: PlainKeys::EMPTY,
        hashes: Hashes::EMPTY,
        places: Places::EMPTY,
        networks: [Delta::NONE; BURST],
        transports: [Delta::NONE; BURST],
    };

    /// The server of this packet's connection, which is among the last to begin.
    pub(super) fn server_of(&self, number: usize) -> ServerId {
        self.servers[number]
    }
}

/// NAT.
pub(super) struct Nat<'a>(pub(super) Translated<'a>);

impl Method for Nat<'_> {
    const REPLIES: bool = true;

    #[inline(always)]
    fn open(&mut self, first: &First) -> Option<(PortIndex, u64)> {
        self.0.begin(first)
    }

    #[inline(always)]
    fn finish(
        &mut self,
        opened: FrameSet,
        table: &mut ConnectionTable,
        opening: &Opening<'_>,
    ) -> FrameSet {
        self.0.finish::<false>(opened, table, opening, |_| ())
    }
}

/// FULLNAT.
pub(super) struct FullNat<'a> {
    pub(super) translated: Translated<'a>,
    pub(super) service: VirtualServerId,
    pub(super) ports: &'a mut LocalPorts,
}

impl Method for FullNat<'_> {
    const REPLIES: bool = true;

    #[inline(always)]
    fn open(&mut self, first: &First) -> Option<(PortIndex, u64)> {
        self.translated.begin(first)
    }

    #[inline(always)]
    fn finish(
        &mut self,
        opened: FrameSet,
        table: &mut ConnectionTable,
        opening: &Opening<'_>,
    ) -> FrameSet {
        // In their order and before any is given back, so that those without one are the last of them, as when each is
        // decided by itself.
        let local_ends = &mut self.translated.begun.local_ends;
        let wanted = opened.len() as usize;
        let give = |number, address: Address, port: u16| {
            let address = u32::from_ne_bytes(address.last_octets());
            let port = port.to_be();
            local_ends.set(number, PlainEnd { address, port });
        };
        let without = match self.ports.of(self.service, true) {
            Some(mut ports) => ports.allocate(wanted, opened.numbers(), give),
            None => wanted,
        };
        let lacking = opened.last(without);
        for number in lacking.numbers() {
            discard(table, self.translated.begun.entries[number], opening);
        }
        let opened = opened.without(lacking);
        let undone = (self.translated).finish::<true>(opened, table, opening, |key| {
            let local = key.destination();
            self.ports.free(Endpoint {
                address: Address::v4(local.address.to_ne_bytes()),
                port: u16::from_be(local.port),
            });
        });
        lacking.with(undone)
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
    /// First stage.
    #[inline(always)]
    fn begin(&mut self, first: &First) -> Option<(PortIndex, u64)> {
        let Path::Translated(hop) = self.snapshot.paths().get(first.server.0 as usize)? else {
            return None;
        };
        let end = *self.snapshot.ends().get(first.server.0 as usize)?;
        let (begun, at) = (&mut *self.begun, first.number);
        begun.server_ends.set(at, end);
        begun.servers[at] = first.server;
        begun.entries[at] = first.entry;
        Some((hop.port, 0))
    }

    /// The other stages: the straight way of `Flows::reply` and what is around it. `LOCAL` if the real servers see the
    /// director's own ends. `undo` is called with the replies' keys of those that need a closer look.
    #[inline(always)]
    fn finish<const LOCAL: bool>(
        &mut self,
        opened: FrameSet,
        table: &mut ConnectionTable,
        opening: &Opening<'_>,
        mut undo: impl FnMut(&PlainKey),
    ) -> FrameSet {
        let Opening {
            statistics, plain, ..
        } = opening;
        let Begun {
            entries,
            servers,
            server_ends,
            local_ends,
            keys,
            hashes,
            places,
            networks,
            transports,
        } = &mut *self.begun;
        let clients = &plain.headers.keys;
        let (lookup, wanted) = (table.lookup(), opened.bits());
        keys.answer(clients, server_ends, LOCAL.then_some(&*local_ends), wanted);
        keys.hash(lookup.hasher(), hashes, wanted);
        lookup.places_of(hashes, wanted, places);
        clients.deltas(keys, wanted, networks, transports);
        let taken = match self.owners {
            // Workers share no local port.
            Some(owners) if !LOCAL => taken_elsewhere(owners, opened, hashes, keys, clients),
            Some(_) | None => FrameSet::NONE,
        };
        for number in taken.numbers() {
            discard(table, entries[number], opening);
        }
        let opened = opened.without(taken);
        let all = &self.arrivals[0];
        let mut range = V4Range::NONE;
        for number in opened.numbers() {
            table.lookup().prefetch(places.get(number));
            let client = clients.sources[number];
            if !range.has(client) {
                range = self.snapshot.routes.v4_range(client);
            }
            let way = range.gateway.unwrap_or_else(|| {
                let ingress = self.arrivals.get(number).unwrap_or(all).ingress;
                way_to_neighbor(ingress, self.packets.head(number))
            });
            let reply = ReplyHalf {
                key: keys.get(number),
                deltas: (networks[number], transports[number]),
                way,
            };
            table.begin_replies(entries[number], &reply);
        }
        let mut undone = taken;
        for number in opened.numbers() {
            let entry = entries[number];
            if !table.add_replies(entry, places.get(number)) {
                discard(table, entry, opening);
                undo(&keys.get(number));
                undone.add(number);
                continue;
            }
            let server = servers[number];
            let (head, length) = self.packets.head_and_length(number);
            if let Some(statistics) = statistics.get(server.0 as usize) {
                statistics.count_first(bytes(length));
            }
            if let Some(Path::Translated(hop)) = self.snapshot.paths().get(server.0 as usize) {
                let life = plain.headers.lives[number];
                let deltas = (networks[number], transports[number]);
                PlainRewrite::new(keys.reversed(number), deltas).forward(
                    head,
                    life,
                    &hop.addresses,
                );
            }
            if let Some(owners) = self.owners {
                owners.list(hashes.get(number), entry);
                if opening.state.is_kept() {
                    owners.share(entry, &SharedReply::of(table.get(entry)), opening.now);
                }
            }
        }
        undone
    }
}

/// Those whose replies could not be told from those of other workers' connections.
#[inline(never)]
fn taken_elsewhere(
    owners: &Owners,
    opened: FrameSet,
    hashes: &Hashes<BURST>,
    keys: &PlainKeys<BURST>,
    clients: &PlainKeys<BURST>,
) -> FrameSet {
    let mut taken = FrameSet::NONE;
    let Some(elsewhere) = owners.look() else {
        return taken;
    };
    // These lines are written next, when the connections are listed.
    for number in opened.numbers() {
        elsewhere.prefetch(hashes.get(number));
    }
    for number in opened.numbers() {
        let (key, client) = (keys.get(number), clients.get(number));
        if elsewhere.is_of_others(hashes.get(number), &key, &client) {
            taken.add(number);
        }
    }
    taken
}

/// Removes a connection that was begun in vain, and what was counted of it.
#[cold]
#[inline(never)]
fn discard(table: &mut ConnectionTable, entry: EntryIndex, opening: &Opening<'_>) {
    let server = table.remove(entry).server();
    if let Some(statistics) = opening.statistics.get(server.0 as usize) {
        statistics.shift(Some(opening.state.is_active()), None);
    }
}
