//! The connections of a worker and all that changes with a packet.
//!
//! The straight way, [`Flows::decide`], is for packets of connections that go
//! on as before; whatever else a frame may be is decided out of line.

use std::sync::Arc;

use super::{DirectorOptions, Slot, Verdict, What};
use crate::conn::{
    Connection, ConnectionTable, Direction, EntryIndex, New, Seen, State, TableFull, Timeouts,
};
use crate::counters::{Counters, DropReason, ServerStatistics, WorkerStatistics};
use crate::device::BURST;
use crate::forward::{direct, reset};
use crate::scheduler::{Load, Memory, Request, Servers};
use crate::service::{MacAddress, NextHop, PortIndex, ServerId, TcpMidstream};
use crate::snapshot::{Server, Snapshot};
use crate::wire::tcp::flags;
use crate::wire::{self, ethernet};
use crate::xsk::umem::{Frame, Umem};

/// Timers examined at most after each burst.
const TIMERS_PER_BURST: u32 = 32;
/// How old the sum of the other workers' connections may be, in
/// milliseconds; within it `wlc` may choose by figures that miss what the others scheduled.
const PEER_LOAD_AGE: u64 = 10;

/// The connections and all that changes with a packet.
#[derive(Debug)]
pub(super) struct Flows {
    pub(super) table: ConnectionTable,
    pub(super) counters: Counters,
    pub(super) statistics: Arc<WorkerStatistics>,
    peers: Vec<Arc<WorkerStatistics>>,
    /// Connections on the other workers by `ServerId`, for `wlc`.
    peer_load: Vec<Load>,
    peer_load_time: u64,
    schedulers: Memory,
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
        } = options;
        Self {
            schedulers: Memory::new(worker, &hasher),
            table: ConnectionTable::new(max_connections, hasher, &Timeouts::default()),
            counters: Counters::default(),
            statistics,
            peers,
            peer_load: Vec::new(),
            peer_load_time: 0,
        }
    }

    /// Prepares for a new snapshot.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot) {
        self.table.set_timeouts(&snapshot.timeouts);
        if snapshot.translates_replies {
            self.table.translate_replies();
        }
        if snapshot.remembers_destinations() {
            self.schedulers.remember_destinations();
        }
        let highest = snapshot.counted_servers().last();
        self.peer_load
            .resize(highest.map_or(0, |id| id.0 as usize + 1), Load::default());
    }

    /// Nearly all packets with DR: plain ones of a connection that goes on as before. Rewrites those
    /// frames of a burst and says where they leave; returns the others, which are unchanged.
    #[inline(always)]
    pub(super) fn decide_straight(
        &mut self,
        snapshot: &Snapshot,
        slots: &[Slot],
        umem: &Umem,
        frames: &mut [Frame],
        now: u64,
        verdicts: &mut [Verdict],
    ) -> Others {
        let mut others = Others {
            numbers: [0; BURST],
            count: 0,
        };
        let (table, statistics) = (&mut self.table, &self.statistics);
        let burst = slots.iter().zip(frames).zip(verdicts);
        for (number, ((slot, frame), verdict)) in (0_u8..).zip(burst) {
            match straight(table, statistics, snapshot, slot, umem, frame, now) {
                Some(egress) => *verdict = Verdict::Transmit(egress),
                None => {
                    others.numbers[others.count] = number;
                    others.count += 1;
                }
            }
        }
        others
    }

    /// Decides what becomes of a frame and rewrites it if it leaves.
    #[inline(never)]
    pub(super) fn decide(
        &mut self,
        snapshot: &Snapshot,
        slot: &Slot,
        ingress: PortIndex,
        umem: &Umem,
        frame: &mut Frame,
        now: u64,
    ) -> Verdict {
        if matches!(slot.what, What::Plain | What::Packet)
            && let Some(verdict) = self.translate(snapshot, slot, umem, frame, now)
        {
            return verdict;
        }
        self.decide_unusual(snapshot, slot, ingress, umem, frame, now)
    }

    /// The same for all other frames.
    #[inline(never)]
    fn decide_unusual(
        &mut self,
        snapshot: &Snapshot,
        slot: &Slot,
        ingress: PortIndex,
        umem: &Umem,
        frame: &mut Frame,
        now: u64,
    ) -> Verdict {
        if let What::Unwanted(reason) = slot.what {
            return Verdict::Drop(reason);
        }
        let arrival = Arrival {
            port: ingress,
            mac: ethernet::source(umem.bytes(frame)).unwrap_or_default(),
        };
        let target = match self.table.find(slot.place, &slot.key) {
            Some((entry, direction)) => {
                match self.packet_of(snapshot, entry, direction, slot, now) {
                    Err(Refused::Anew) => {
                        self.remove(entry);
                        self.counters.connections_reused += 1;
                        self.new_connection(snapshot, slot, arrival, now)
                    }
                    Err(Refused::Drop(reason)) => Err(Miss::Drop(reason)),
                    Ok(()) => Ok((entry, direction)),
                }
            }
            None => self.new_connection(snapshot, slot, arrival, now),
        };
        match target {
            Ok((entry, direction)) => self.forward(snapshot, entry, direction, slot, umem, frame),
            Err(Miss::Drop(reason)) => Verdict::Drop(reason),
            Err(Miss::Reset) => match reset::answer(umem, frame) {
                Ok(()) => {
                    self.counters.resets_sent += 1;
                    Verdict::Transmit(ingress)
                }
                Err(reason) => Verdict::Drop(reason),
            },
        }
    }

    /// A packet of a known connection: its state advances.
    fn packet_of(
        &mut self,
        snapshot: &Snapshot,
        entry: EntryIndex,
        direction: Direction,
        slot: &Slot,
        now: u64,
    ) -> Result<(), Refused> {
        let connection = self.table.get(entry);
        let (server, state) = (connection.server(), connection.state());
        if slot.what == What::IcmpError {
            return Ok(());
        }
        if direction == Direction::Reply {
            // Of a server that is down or gone, too: what it still says reaches the client.
            self.advance(entry, Seen::Server, slot.tcp_flags, now);
            return Ok(());
        }
        if !snapshot
            .server(server)
            .is_some_and(|server| server.available)
        {
            // A client that starts again is served by another server; what
            // is under way waits for its server's return, as with IPVS.
            let starts = state == State::Udp || is_connection_request(slot.tcp_flags);
            return Err(if starts {
                Refused::Anew
            } else {
                Refused::Drop(DropReason::ServerUnavailable)
            });
        }
        if state.begins_anew(slot.tcp_flags) {
            return Err(Refused::Anew);
        }
        let seen = match connection.is_translated() {
            true => Seen::Client,
            false => Seen::ClientOnly,
        };
        self.advance(entry, seen, slot.tcp_flags, now);
        Ok(())
    }

    fn advance(&mut self, entry: EntryIndex, seen: Seen, tcp_flags: u8, now: u64) {
        let connection = self.table.get(entry);
        let (server, before) = (connection.server(), connection.state());
        let after = before.after(seen, tcp_flags);
        if after == before && !after.is_half_open() {
            self.table.get_mut(entry).refresh(now);
            return;
        }
        self.table.set_state(entry, after, now);
        if let Some(server) = self.statistics.server(server) {
            server.shift(Some(before.is_active()), Some(after.is_active()));
        }
    }

    /// The slow path: finds the virtual server, schedules, inserts.
    #[inline(never)]
    fn new_connection(
        &mut self,
        snapshot: &Snapshot,
        slot: &Slot,
        arrival: Arrival,
        now: u64,
    ) -> Result<(EntryIndex, Direction), Miss> {
        if slot.what == What::IcmpError {
            return Err(Miss::Drop(DropReason::IcmpNoConnection));
        }
        let service = snapshot
            .service(&slot.key.service())
            .ok_or(Miss::Drop(DropReason::NoVirtualServer))?;
        let state = if !slot.key.is_tcp() {
            State::Udp
        } else if is_connection_request(slot.tcp_flags) {
            State::SynRecv
        } else if slot.tcp_flags & flags::RST != 0 {
            return Err(Miss::Drop(DropReason::TcpMidstream));
        } else {
            match snapshot.tcp_midstream {
                TcpMidstream::Reset => return Err(Miss::Reset),
                TcpMidstream::Drop => return Err(Miss::Drop(DropReason::TcpMidstream)),
                TcpMidstream::Schedule => State::first(slot.tcp_flags),
            }
        };
        let request = Request {
            client: slot.key.source(),
            client_port: slot.key.source_port(),
            destination: slot.key.destination(),
            now,
        };
        let servers = Connections {
            own: &self.statistics,
            peers: &self.peer_load,
        };
        let server = service
            .scheduler
            .schedule(service.id, &mut self.schedulers, &request, &servers)
            .ok_or(Miss::Drop(DropReason::NoRealServer))?;
        let reply = match snapshot.server(server) {
            Some(server) if server.method.rewrites_replies() => {
                Some(self.reply(snapshot, server, slot, arrival)?)
            }
            Some(_) | None => None,
        };
        let new = New {
            server,
            state,
            reply,
        };
        let entry = self.insert(slot, new, now)?;
        Ok((entry, Direction::Request))
    }

    fn insert(&mut self, slot: &Slot, new: New, now: u64) -> Result<EntryIndex, Miss> {
        let entry = match self.table.insert(slot.place, slot.key, new, now) {
            Ok(entry) => entry,
            Err(TableFull) => {
                let oldest = self
                    .table
                    .oldest_half_open()
                    .ok_or(Miss::Drop(DropReason::TableFull))?;
                self.remove(oldest);
                self.counters.connections_evicted += 1;
                let inserted = self.table.insert(slot.place, slot.key, new, now);
                inserted.map_err(|TableFull| Miss::Drop(DropReason::TableFull))?
            }
        };
        self.counters.connections_created += 1;
        if let Some(server) = self.statistics.server(new.server) {
            server.count_connection();
            server.shift(None, Some(new.state.is_active()));
        }
        Ok(entry)
    }

    /// Sends a frame that waited, if its connection is still there.
    pub(super) fn retry(
        &mut self,
        snapshot: &Snapshot,
        slot: &Slot,
        umem: &Umem,
        frame: &mut Frame,
    ) -> Verdict {
        match self.table.find(slot.place, &slot.key) {
            Some((entry, direction)) => self.forward(snapshot, entry, direction, slot, umem, frame),
            None => Verdict::Drop(DropReason::ServerUnavailable),
        }
    }

    /// Sends a frame of a connection on its way, if the way is known.
    fn forward(
        &mut self,
        snapshot: &Snapshot,
        entry: EntryIndex,
        direction: Direction,
        slot: &Slot,
        umem: &Umem,
        frame: &mut Frame,
    ) -> Verdict {
        if self.table.get(entry).is_translated() {
            return self.forward_translated(snapshot, entry, direction, slot, umem, frame);
        }
        let id = self.table.get(entry).server();
        match snapshot.server(id) {
            None => Verdict::Drop(DropReason::ServerUnavailable),
            Some(Server { next_hop: None, .. }) => Verdict::Wait(id),
            Some(Server {
                next_hop: Some(next_hop),
                ..
            }) => self.send_direct(id, next_hop, slot, umem, frame),
        }
    }

    /// Last stage of DR: addresses the frame to its real server.
    fn send_direct(
        &self,
        id: ServerId,
        next_hop: &NextHop,
        slot: &Slot,
        umem: &Umem,
        frame: &mut Frame,
    ) -> Verdict {
        let l3_offset = usize::from(slot.l3_offset);
        if let Err(reason) = direct::forward(umem.bytes_mut(frame), l3_offset, slot.is_v4, next_hop)
        {
            return Verdict::Drop(reason);
        }
        if let Some(statistics) = self.statistics.server(id) {
            statistics.count_packet((frame.len() - l3_offset) as u64);
        }
        Verdict::Transmit(next_hop.port)
    }

    #[inline(always)]
    pub(super) fn count(&mut self, verdict: Verdict, frame: &Frame) {
        match verdict {
            Verdict::Transmit(_) => {
                self.counters.tx_packets += 1;
                self.counters.tx_bytes += frame.len() as u64;
            }
            Verdict::Drop(reason) => self.counters.drop_packet(reason),
            Verdict::Wait(_) => self.counters.waiting += 1,
        }
    }

    pub(super) fn remove(&mut self, entry: EntryIndex) -> Connection {
        let connection = self.table.remove(entry);
        if let Some(server) = self.statistics.server(connection.server()) {
            server.shift(Some(connection.state().is_active()), None);
        }
        connection
    }

    /// True if the budget ended before the timers that are due.
    pub(super) fn expire(&mut self, now: u64) -> bool {
        let mut budget = TIMERS_PER_BURST;
        while let Some(entry) = self.table.expired(now, &mut budget) {
            self.remove(entry);
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

/// Frames of a burst that are not straight, by their number in it.
pub(super) struct Others {
    numbers: [u8; BURST],
    count: usize,
}

impl Others {
    pub(super) fn numbers(&self) -> impl ExactSizeIterator<Item = usize> {
        self.numbers[..self.count]
            .iter()
            .map(|number| usize::from(*number))
    }
}

/// Sends a frame of a connection that goes on as before; `None`, and nothing changed, if it is none.
#[inline(always)]
fn straight(
    table: &mut ConnectionTable,
    statistics: &WorkerStatistics,
    snapshot: &Snapshot,
    slot: &Slot,
    umem: &Umem,
    frame: &mut Frame,
    now: u64,
) -> Option<PortIndex> {
    if slot.what != What::Plain {
        return None;
    }
    let connection = table.straight(slot.candidate, &slot.key)?;
    let id = connection.server();
    let hop = snapshot.direct(id)?;
    if !direct::forward_plain(umem.bytes_mut(frame), &hop.addresses) {
        return None;
    }
    connection.refresh(now);
    if let Some(statistics) = statistics.server(id) {
        statistics.count_packet((frame.len() - usize::from(wire::PLAIN_L3_OFFSET)) as u64);
    }
    Some(hop.port)
}

/// Where a frame came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) port: PortIndex,
    pub(super) mac: MacAddress,
}

/// What schedulers may know of the servers.
struct Connections<'f> {
    own: &'f WorkerStatistics,
    peers: &'f [Load],
}

impl Servers for Connections<'_> {
    fn load(&self, id: ServerId) -> Load {
        let own = self
            .own
            .server(id)
            .map(ServerStatistics::totals)
            .unwrap_or_default();
        let others = self.peers.get(id.0 as usize).copied().unwrap_or_default();
        Load {
            active: own.active + others.active,
            inactive: own.inactive + others.inactive,
        }
    }

    fn is_overloaded(&self, _: ServerId) -> bool {
        false
    }
}

/// Why a packet of a known connection does not go to its server.
enum Refused {
    /// The connection is over; this packet begins a new one.
    Anew,
    Drop(DropReason),
}

/// Why a packet of no connection gets none.
pub(super) enum Miss {
    Drop(DropReason),
    /// The client is told by a RST.
    Reset,
}

/// A SYN that asks for a connection: nothing else is set that contradicts it.
#[inline(always)]
fn is_connection_request(tcp_flags: u8) -> bool {
    tcp_flags & (flags::SYN | flags::ACK | flags::RST | flags::FIN) == flags::SYN
}
