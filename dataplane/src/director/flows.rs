//! The connections of a worker and all that changes with a packet.
//!
//! Nearly all packets go the straight way ([`straight`](super::straight)); whatever else a frame may
//! be, [`Flows::decide`] decides.

use std::cell::Cell;
use std::sync::Arc;

use super::choose::Chosen;
use super::fullnat::Introduction;
use super::limits::ServiceLimits;
use super::rerouting::Rerouting;
use super::sending::{ICMP_PER_SECOND, Refusal};
use super::synproxy::cookie::Cookies;
use super::{DirectorOptions, Packet, Verdict, What};
use crate::conn::{
    Association, ConnectionTable, Direction, EXPIRED_TOGETHER, EntryIndex, New, Seen, Signal,
    State, TableFull, Timeouts,
};
use crate::counters::{Counters, DropReason, ServerStatistics, WorkerStatistics};
use crate::flow::FlowKey;
use crate::forward::icmp;
use crate::fragments::{FragmentOptions, FragmentTable};
use crate::handoff::Owners;
use crate::limits::WhenFull;
use crate::ports::{LocalPorts, PortRange};
use crate::scheduler::{Load, Memory};
use crate::service::{PortIndex, Protocol, TcpMidstream};
use crate::snapshot::Snapshot;
use crate::wire::sctp;
use crate::wire::tcp::flags;
use crate::xsk::umem::Frame;

/// Timers examined at most at a time: so many that connections which come as fast as they can, and whose
/// timers are examined twice, end as fast; some 20 µs.
const TIMERS_PER_BURST: u32 = 128;
/// How old the sum of the other workers' connections may be, in
/// milliseconds; within it `wlc` may choose by figures that miss what the others scheduled.
const PEER_LOAD_AGE: u64 = 10;

/// The connections and all that changes with a packet.
#[derive(Debug)]
pub(super) struct Flows {
    pub(super) table: ConnectionTable,
    pub(super) counters: Counters,
    pub(super) statistics: Arc<WorkerStatistics>,
    pub(super) peers: Vec<Arc<WorkerStatistics>>,
    pub(super) limits: ServiceLimits,
    pub(super) cookies: Cookies,
    /// Connections on the other workers by `ServerId`, for `wlc`.
    pub(super) peer_load: Vec<Load>,
    /// Servers that reached their upper threshold and did not come below the
    /// lower one, by `ServerId`.
    pub(super) overloaded: Vec<Cell<bool>>,
    peer_load_time: u64,
    pub(super) schedulers: Memory,
    /// Keys of the first fragments of datagrams.
    pub(super) fragments: FragmentTable<FlowKey>,
    /// Something came, since this was last asked, that frames wait for.
    pub(super) news: bool,
    /// ICMP errors that may be sent within this second.
    pub(super) icmp_left: u32,
    /// Of the worker's time.
    icmp_second: u64,
    /// Of the outer IPv4 header of the last tunnelled packet.
    pub(super) identification: u16,
    /// The way back to the kernel, if there is one.
    pub(super) kernel: Option<PortIndex>,
    /// Who has which connection, if there are other workers.
    pub(super) owners: Option<Owners>,
    /// For FULLNAT.
    pub(super) local_ports: LocalPorts,
    /// By the number of the connection; empty until a virtual server wants clients to be introduced.
    pub(super) introductions: Vec<Introduction>,
    /// How old a connection for one packet may be, in milliseconds, while more of its packet is awaited; 0 if nothing
    /// is. By its number; empty until a virtual server has `ops`.
    pub(super) awaited: Vec<u32>,
    pub(super) rerouting: Rerouting,
}

impl Flows {
    #[must_use]
    pub(super) fn new(
        options: DirectorOptions,
        statistics: Arc<WorkerStatistics>,
        peers: Vec<Arc<WorkerStatistics>>,
    ) -> Self {
        let DirectorOptions {
            max_connections,
            hasher,
            worker,
            kernel,
        } = options;
        let workers = u32::try_from(peers.len() + 1).unwrap_or(u32::MAX);
        Self {
            schedulers: Memory::new(worker, &hasher),
            fragments: FragmentTable::new(FragmentOptions::default()),
            news: false,
            cookies: Cookies::new(&hasher),
            icmp_left: ICMP_PER_SECOND,
            icmp_second: 0,
            // Far from the other workers'.
            identification: u16::try_from(worker).unwrap_or(0).wrapping_mul(0x9e37),
            kernel,
            local_ports: LocalPorts::new(PortRange::of(worker, workers)),
            introductions: Vec::new(),
            awaited: Vec::new(),
            rerouting: Rerouting::default(),
            table: ConnectionTable::new(max_connections, hasher, &Timeouts::default()),
            counters: Counters::default(),
            statistics,
            peers,
            limits: ServiceLimits::default(),
            peer_load: Vec::new(),
            overloaded: Vec::new(),
            peer_load_time: 0,
            owners: None,
        }
    }

    /// There are other workers.
    pub(super) fn set_owners(&mut self, owners: Owners, snapshot: &Snapshot) {
        self.owners = Some(owners);
        self.adopt(snapshot);
    }

    /// Prepares for a new snapshot.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot) {
        self.table.set_timeouts(&snapshot.timeouts);
        if snapshot.translates_replies {
            self.table.translate_replies();
            if snapshot.translates_wide_replies {
                self.table.translate_wide_replies();
            }
            if let Some(owners) = &self.owners {
                owners.allocate();
            }
        }
        if snapshot
            .services()
            .any(|service| service.syn_proxy.is_some())
        {
            self.table.remember_handshakes();
        }
        if snapshot.remembers_destinations() {
            self.schedulers.remember_destinations();
        }
        self.local_ports.keep_only(snapshot.local_addresses());
        if snapshot.introduces_clients {
            let room = self.table.capacity();
            self.introductions.resize(room, Introduction::None);
        }
        if snapshot.services().any(|service| service.one_packet) {
            self.awaited.resize(self.table.capacity(), 0);
        }
        let highest = snapshot.counted_servers().last();
        let room = highest.map_or(0, |id| id.0 as usize + 1);
        self.peer_load.resize(room, Load::default());
        self.overloaded.resize(room, Cell::new(false));
        self.limits.adopt(snapshot);
        self.rerouting.adopt(&snapshot.routes);
    }

    /// Decides what becomes of a frame and rewrites it if it leaves.
    #[inline(never)]
    pub(super) fn decide(&mut self, packet: &Packet<'_>, frame: &mut Frame) -> Verdict {
        let what = packet.slot.what;
        if let What::Unwanted(reason) = what {
            return Verdict::Drop(reason);
        }
        if what == What::Packet
            && let Some(egress) = self.translate(packet, frame)
        {
            return Verdict::Transmit(egress);
        }
        let decided = self.decide_unusual(packet, frame);
        self.carry_out(decided, packet, frame)
    }

    /// The same for what is not of a connection that goes on as before.
    fn decide_unusual(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<PortIndex, Refusal> {
        match packet.slot.what {
            What::LaterFragment => return self.forward_later_fragment(packet, frame),
            What::FirstFragment => return self.forward_first_fragment(packet, frame),
            What::TunnelError => return self.relay_tunnel_error(packet, frame),
            What::Plain | What::Packet | What::IcmpError | What::Unwanted(_) => {}
        }
        let (entry, direction) = self.connection_of(packet, frame)?;
        let sent = self.forward(entry, direction, packet, frame);
        if self.table.get(entry).is_for_one_packet() {
            self.end_or_await(entry, &sent, packet);
        }
        sent
    }

    /// The connection of a packet with a key, which advances or is made.
    pub(super) fn connection_of(
        &mut self,
        packet: &Packet<'_>,
        frame: &Frame,
    ) -> Result<(EntryIndex, Direction), Refusal> {
        let slot = packet.slot;
        let found = self.table.find(slot.place, &slot.key);
        if let Some((entry, direction)) = found
            && let Some(handshake) = self.table.handshake(entry)
        {
            let is_repeated = direction == Direction::Reply && slot.tcp_flags & flags::SYN != 0;
            if !handshake.is_open() && self.asks_in_vain(entry, direction, packet) {
                // The packet shows once more what the first one did, so that another server can be asked.
                self.remove(packet.snapshot, entry, packet.now);
                self.counters.connections_reused += 1;
                return self.new_connection(packet, frame, signal(packet, frame));
            }
            if !handshake.is_open() || is_repeated {
                return self.opening((entry, direction), handshake, packet, frame);
            }
        }
        let signal = signal(packet, frame);
        match found {
            Some((entry, direction)) => match self.packet_of(packet, entry, direction, signal) {
                Err(NotSent::Anew) => {
                    self.remove(packet.snapshot, entry, packet.now);
                    self.counters.connections_reused += 1;
                    self.new_connection(packet, frame, signal)
                }
                Err(NotSent::Ended) => {
                    self.remove(packet.snapshot, entry, packet.now);
                    self.counters.connections_expired += 1;
                    self.new_connection(packet, frame, signal)
                }
                Err(NotSent::Drop(reason)) => Err(Refusal::Drop(reason)),
                Ok(()) => Ok((entry, direction)),
            },
            // A card gives fragments to a worker by their addresses alone.
            None if slot.what == What::FirstFragment && self.may_be_elsewhere(packet) => {
                Err(Refusal::NotOurs(DropReason::NoVirtualServer))
            }
            None => self.new_connection(packet, frame, signal),
        }
    }

    /// A client goes on whose server has not answered, and is down or gone. It will not begin anew: its SYN was answered
    /// here, so to the client the connection is established.
    fn asks_in_vain(&self, entry: EntryIndex, direction: Direction, packet: &Packet<'_>) -> bool {
        let connection = self.table.get(entry);
        let server = packet.snapshot.server(connection.server());
        direction == Direction::Request
            && matches!(packet.slot.what, What::Plain | What::Packet)
            && !server.is_some_and(|server| server.serves(connection))
    }

    /// A packet of a known connection: its state advances.
    fn packet_of(
        &mut self,
        packet: &Packet<'_>,
        entry: EntryIndex,
        direction: Direction,
        signal: Signal,
    ) -> Result<(), NotSent> {
        let (slot, now) = (packet.slot, packet.now);
        let connection = self.table.get(entry);
        let (server, state) = (connection.server(), connection.state());
        if slot.what == What::IcmpError {
            return Ok(());
        }
        if direction == Direction::Reply {
            // Its time runs from when it was made; refreshed, it would hold up those queued behind it.
            if connection.is_for_one_packet() {
                return Ok(());
            }
            // Of a server that is down or gone, too: what it still says reaches the client.
            self.advance(entry, Seen::Server, signal, now);
            return Ok(());
        }
        let ends_with_server = packet.snapshot.expiry.nodest_conn;
        let server = packet.snapshot.server(server);
        let Some(server) = server.filter(|server| server.serves(connection)) else {
            // A client that starts again is served by another server; what
            // is under way waits for its server's return, as with IPVS.
            return Err(if signal.is_request() {
                NotSent::Anew
            } else if ends_with_server {
                NotSent::Ended
            } else {
                NotSent::Drop(DropReason::ServerUnavailable)
            });
        };
        // By weight 0 a server is down as well (`inhibit_on_failure`), or about to go. As in `ip_vs_in`, UDP, which
        // always asks, stays.
        let moves_on =
            ends_with_server && server.weight == 0 && signal.is_request() && signal != Signal::Udp;
        if moves_on || state.begins_anew(signal) {
            return Err(NotSent::Anew);
        }
        if connection.is_for_one_packet() {
            // A key has one connection: without this one, pieces that are still to come would be lost or go elsewhere.
            return match connection.idle(now) < self.awaited(entry) {
                true => Ok(()),
                false => Err(NotSent::Anew),
            };
        }
        let seen = match connection.is_translated() {
            true => Seen::Client,
            false => Seen::ClientOnly,
        };
        self.advance(entry, seen, signal, now);
        Ok(())
    }

    pub(super) fn advance(&mut self, entry: EntryIndex, seen: Seen, signal: Signal, now: u64) {
        let connection = self.table.get(entry);
        let (server, before) = (connection.server(), connection.state());
        let after = before.after(seen, signal);
        if after == before && !after.is_half_open() {
            self.table.get_mut(entry).refresh(now);
            return;
        }
        let was_shared = connection.is_shared();
        self.table.set_state(entry, after, now);
        match (was_shared, self.table.get(entry).is_shared()) {
            (false, true) => self.share(entry, now),
            (true, false) => self.withdraw(entry),
            (true, true) | (false, false) => {}
        }
        self.shift_service(
            server,
            Some(before.is_half_open()),
            Some(after.is_half_open()),
        );
        if let Some(server) = self.statistics.server(server) {
            server.shift(Some(before.is_active()), Some(after.is_active()));
            if before.is_half_open() && seen != Seen::Server {
                if after == State::Established {
                    server.count_answered();
                } else if signal.is_request() {
                    server.count_unanswered();
                }
            }
        }
    }

    /// The slow path: finds the virtual server, schedules, inserts.
    #[inline(never)]
    fn new_connection(
        &mut self,
        packet: &Packet<'_>,
        frame: &Frame,
        signal: Signal,
    ) -> Result<(EntryIndex, Direction), Refusal> {
        let Packet {
            snapshot,
            slot,
            now,
            ..
        } = *packet;
        if slot.what == What::IcmpError {
            return Err(Refusal::NotOurs(DropReason::IcmpNoConnection));
        }
        let service = snapshot
            .service(slot.key.source(), &slot.key.service())
            .ok_or(Refusal::NotOurs(DropReason::NoVirtualServer))?;
        if snapshot.is_local(slot.key.source()) {
            return Err(Refusal::Drop(DropReason::LocalSource));
        }
        let handshake = self.proxied(service, packet, frame)?;
        let state = match handshake {
            Some(_) => State::SynRecv,
            None => first_state(signal, snapshot.tcp_midstream)?,
        };
        let client = slot.key.source();
        self.admit(snapshot, service, client, now)?;
        let chosen = self.choose(snapshot, service, slot, now);
        let made = match chosen {
            Some(chosen) => self.make(chosen, service.one_packet, state, packet, frame),
            // To its client the connection is established.
            None if handshake.is_some() => Err(Refusal::Reset),
            None => Err(Refusal::Answer(
                DropReason::NoRealServer,
                icmp::Error::PortUnreachable,
            )),
        };
        if let (Ok(entry), Some(handshake)) = (&made, handshake) {
            self.table.set_handshake(*entry, handshake);
            self.counters.syn_cookies_accepted += 1;
        }
        if made.is_err() {
            self.release_source(snapshot, service.id, client);
            if let Some(chosen) = chosen {
                self.release(snapshot, chosen, client, now);
            }
        }
        Ok((made?, Direction::Request))
    }

    pub(super) fn make(
        &mut self,
        chosen: Chosen,
        for_one_packet: bool,
        state: State,
        packet: &Packet<'_>,
        frame: &Frame,
    ) -> Result<EntryIndex, Refusal> {
        let reply = match packet.snapshot.server(chosen.server) {
            Some(server) if server.method.rewrites_replies() => {
                Some(self.reply(packet, server, frame)?)
            }
            Some(_) | None => None,
        };
        let new = New {
            server: chosen.server,
            state,
            reply,
            templated: chosen.templated,
            for_one_packet,
        };
        let inserted = self.insert(packet, new);
        match (&inserted, &new.reply) {
            (Ok(entry), Some(reply)) if reply.particular => self.introduce(*entry, packet),
            (Err(_), Some(reply)) => self.give_back_local(&packet.slot.key, reply),
            (Ok(_) | Err(_), _) => {}
        }
        inserted
    }

    fn insert(&mut self, packet: &Packet<'_>, new: New) -> Result<EntryIndex, Refusal> {
        let (slot, now) = (packet.slot, packet.now);
        let entry = match self.table.insert(slot.place, slot.key, new, now) {
            Ok(entry) => entry,
            Err(TableFull) => {
                let evicted = match packet.snapshot.when_full {
                    WhenFull::EvictHalfOpen => self.table.oldest_evictable(now),
                    WhenFull::DropNew => None,
                };
                let oldest = evicted.ok_or(Refusal::Drop(DropReason::TableFull))?;
                self.remove(packet.snapshot, oldest, now);
                self.counters.connections_evicted += 1;
                let inserted = self.table.insert(slot.place, slot.key, new, now);
                inserted.map_err(|TableFull| Refusal::Drop(DropReason::TableFull))?
            }
        };
        if let (Some(owners), Some(reply)) = (&self.owners, &new.reply) {
            owners.list(self.table.hash(&reply.key), entry);
            self.share(entry, now);
        }
        if new.for_one_packet
            && let Some(awaited) = self.awaited.get_mut(entry.number())
        {
            *awaited = 0;
        }
        self.counters.connections_created += 1;
        if let Some(server) = self.statistics.server(new.server) {
            server.count_connection();
            server.shift(None, Some(new.state.is_active()));
        }
        self.shift_service(new.server, None, Some(new.state.is_half_open()));
        self.note_load(packet.snapshot, new.server);
        Ok(entry)
    }

    #[inline(always)]
    pub(super) fn count(&mut self, verdict: Verdict, frame: &Frame) {
        match verdict {
            Verdict::Transmit(_) => {
                self.counters.tx_packets += 1;
                self.counters.tx_bytes += frame.len() as u64;
            }
            Verdict::Drop(reason) => self.counters.drop_packet(reason),
            Verdict::Wait(_) | Verdict::Cut(_) => self.counters.waiting += 1,
            Verdict::HandOff(_) | Verdict::Offer => self.counters.handed_off_tx += 1,
        }
    }

    pub(super) fn remove(&mut self, snapshot: &Snapshot, entry: EntryIndex, now: u64) {
        if let Some(reply) = self.table.reply(entry) {
            if let Some(owners) = &self.owners {
                owners.unlist(self.table.hash(&reply.key), entry);
            }
            if self.table.get(entry).is_shared() {
                self.withdraw(entry);
            }
            let client = self.table.get(entry).key();
            self.give_back_local(&client, &reply);
        }
        let connection = self.table.remove(entry);
        let chosen = Chosen {
            server: connection.server(),
            templated: connection.is_templated(),
        };
        if let Some(server) = self.statistics.server(chosen.server) {
            server.shift(Some(connection.state().is_active()), None);
        }
        let half_open = connection.state().is_half_open();
        if let Some(service) = self.shift_service(chosen.server, Some(half_open), None) {
            self.release_source(snapshot, service, connection.key().source());
        }
        self.release(snapshot, chosen, connection.key().source(), now);
    }

    /// Called before timers are examined: a new second, a new allowance of ICMP errors.
    pub(super) fn allow_icmp(&mut self, now: u64) {
        let second = now / 1000;
        if second != self.icmp_second {
            self.icmp_second = second;
            self.icmp_left = ICMP_PER_SECOND;
        }
    }

    /// True if the budget ended before the timers that are due.
    pub(super) fn expire(&mut self, snapshot: &Snapshot, now: u64) -> bool {
        let (mut budget, mut found) = (TIMERS_PER_BURST, 0);
        while let Some(entry) = self.table.expired(now, &mut budget) {
            if found % EXPIRED_TOGETHER == 0 {
                self.table.prefetch_expired(entry, now);
            }
            found += 1;
            let idle = self.idle(entry, now);
            if idle < self.table.get(entry).idle(now) {
                self.table.set_idle(entry, idle, now);
                continue;
            }
            self.remove(snapshot, entry, now);
            self.counters.connections_expired += 1;
        }
        budget == 0
    }

    /// Adds up what the other workers have, if a scheduler wants to know.
    pub(super) fn sum_peer_load(&mut self, snapshot: &Snapshot, now: u64) {
        let wanted = !self.peer_load.is_empty() && !self.peers.is_empty();
        if !wanted || now < self.peer_load_time + PEER_LOAD_AGE {
            return;
        }
        self.peer_load_time = now;
        for id in snapshot.counted_servers() {
            let mut sum = Load::default();
            for peer in &self.peers {
                let totals = peer
                    .server(id)
                    .map(ServerStatistics::totals)
                    .unwrap_or_default();
                sum.active += totals.active;
                sum.inactive += totals.inactive;
            }
            if let Some(load) = self.peer_load.get_mut(id.0 as usize) {
                *load = sum;
            }
        }
    }
}

/// Why a packet of a known connection does not go to its server.
enum NotSent {
    /// The connection is over; this packet begins a new one.
    Anew,
    /// The connection ended with its server; this packet is one of no connection.
    Ended,
    Drop(DropReason),
}

/// What a packet with a key says to its connection.
#[inline(always)]
fn signal(packet: &Packet<'_>, frame: &Frame) -> Signal {
    let slot = packet.slot;
    match slot.key.protocol() {
        Protocol::Tcp => Signal::Tcp(slot.tcp_flags),
        Protocol::Udp => Signal::Udp,
        Protocol::Sctp => {
            let transport = packet.umem.bytes(frame).get(usize::from(slot.l4_offset)..);
            let header = sctp::Packet::new_checked(transport.unwrap_or_default());
            Signal::Sctp(header.map_or(sctp::Chunk::Data, |header| header.chunk()))
        }
    }
}

/// State of a connection that begins with a packet of this signal.
fn first_state(signal: Signal, midstream: TcpMidstream) -> Result<State, Refusal> {
    match signal {
        Signal::Udp => Ok(State::Udp),
        Signal::Sctp(sctp::Chunk::Init) => Ok(State::Sctp(Association::Init1)),
        Signal::Sctp(_) => Err(Refusal::Drop(DropReason::SctpMidstream)),
        Signal::Tcp(_) if signal.is_request() => Ok(State::SynRecv),
        Signal::Tcp(tcp_flags) if tcp_flags & flags::RST != 0 => {
            Err(Refusal::Drop(DropReason::TcpMidstream))
        }
        Signal::Tcp(tcp_flags) => match midstream {
            TcpMidstream::Reset => Err(Refusal::Reset),
            TcpMidstream::Drop => Err(Refusal::Drop(DropReason::TcpMidstream)),
            TcpMidstream::Schedule => Ok(State::first(tcp_flags)),
        },
    }
}
