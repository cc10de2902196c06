//! A burst's way through the director, stage by stage, for one worker.
//!
//! ```text
//!  frames ─► parse ─► fetch buckets ─► fetch entries ─► decide ─► forward ─► verdicts
//!            key+hash   (prefetch)       (prefetch)     hit: state machine
//!                                                       miss: virtual server, scheduler, insert
//! ```
//!
//! Each stage goes over the whole burst before the next begins, so that the
//! memory a packet needs is on its way while others are worked on.
//!
//! Invariants: every frame gets exactly one [`Verdict`]; nothing here
//! allocates, locks, logs or reads a clock, except in `adopt`, which runs
//! once for each new snapshot.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::Cache;

use crate::conn::{Connection, ConnectionTable, EntryIndex, State};
use crate::counters::{Counters, DropReason, ServerStatistics, WorkerStatistics};
use crate::device::BURST;
use crate::flow::{FlowHasher, FlowKey};
use crate::forward::{direct, reset};
use crate::prefetch::prefetch_address;
use crate::scheduler::{Load, SchedulerState};
use crate::service::{MAX_VIRTUAL_SERVERS, NextHop, PortIndex, Protocol, ServerId, TcpMidstream};
use crate::snapshot::{Published, Snapshot};
use crate::wire::tcp::flags;
use crate::wire::{self, Kind, Parsed};
use crate::xsk::umem::{Frame, Umem};

const UDP: u8 = Protocol::Udp as u8;
/// Timers examined at most after each burst.
const TIMERS_PER_BURST: u32 = 32;
/// How old the sum of the other workers' connections may be, in
/// milliseconds; within it `wlc` may choose by figures that miss what the others scheduled.
const PEER_LOAD_AGE: u64 = 10;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leaves by this interface, rewritten.
    Transmit(PortIndex),
    Drop(DropReason),
    /// Its real server's next hop has no MAC address yet.
    Wait(ServerId),
}

/// Sizes and identity of a director.
#[derive(Clone, Debug)]
pub struct DirectorOptions {
    /// Most connections of this worker.
    pub max_connections: u32,
    pub hasher: FlowHasher,
    /// Number of this worker, from 0.
    pub worker: u32,
}

/// One worker's director: its connections and how it treats a burst.
#[derive(Debug)]
pub struct Director {
    published: Cache<Published, Arc<Snapshot>>,
    generation: u64,
    burst: Vec<Slot>,
    flows: Flows,
}

/// What the stages note about one frame.
#[derive(Clone, Copy, Debug)]
struct Slot {
    key: FlowKey,
    hash: u64,
    candidate: Option<EntryIndex>,
    parsed: Result<Parsed, DropReason>,
}

impl Slot {
    fn dropped(mut self, reason: DropReason) -> Self {
        self.parsed = Err(reason);
        self
    }
}

impl Director {
    /// A director that reads `published`; `statistics` holds those of all
    /// workers, its own at index `options.worker`.
    ///
    /// # Panics
    /// If `statistics` has no entry for this worker, a programming error.
    #[must_use]
    pub fn new(
        options: DirectorOptions,
        published: Published,
        statistics: &[Arc<WorkerStatistics>],
    ) -> Self {
        let snapshot = published.load_full();
        let own = Arc::clone(&statistics[options.worker as usize]);
        let peers = (0..)
            .zip(statistics)
            .filter(|(number, _)| *number != options.worker);
        let mut director = Self {
            published: Cache::new(published),
            generation: 0,
            burst: Vec::with_capacity(BURST),
            flows: Flows {
                table: ConnectionTable::new(
                    options.max_connections,
                    options.hasher,
                    &snapshot.timeouts,
                ),
                counters: Counters::default(),
                statistics: own,
                peers: peers.map(|(_, peer)| Arc::clone(peer)).collect(),
                peer_load: Vec::new(),
                peer_load_time: 0,
                schedulers: vec![SchedulerState::starting_at(options.worker); MAX_VIRTUAL_SERVERS],
            },
        };
        director.adopt_snapshot();
        director
    }

    /// Takes up a newer snapshot if one was published. Called between bursts.
    #[inline]
    pub fn adopt(&mut self) -> bool {
        let newer = self.published.load().generation != self.generation;
        if newer {
            self.adopt_snapshot();
        }
        newer
    }

    #[cold]
    fn adopt_snapshot(&mut self) {
        let snapshot = self.published.load();
        self.generation = snapshot.generation;
        self.flows.table.set_timeouts(&snapshot.timeouts);
        let highest = snapshot.counted_servers().last();
        self.flows
            .peer_load
            .resize(highest.map_or(0, |id| id.0 as usize + 1), Load::default());
        self.flows
            .statistics
            .generation
            .store(self.generation, Ordering::Release);
    }

    /// Decides what becomes of each frame of a burst, rewriting those that
    /// leave, and appends one verdict a frame.
    ///
    /// `now` is in milliseconds since the worker's start and never goes back.
    pub fn process(
        &mut self,
        ingress: PortIndex,
        umem: &Umem,
        frames: &mut [Frame],
        now: u64,
        verdicts: &mut Vec<Verdict>,
    ) {
        let snapshot: &Snapshot = self.published.load();
        let flows = &mut self.flows;

        for frame in frames.iter() {
            prefetch_address(umem.start(frame));
        }
        self.burst.clear();
        for frame in frames.iter() {
            let slot = parse(umem.bytes(frame), &flows.table);
            flows.table.prefetch(slot.hash);
            flows.counters.rx_bytes += frame.len() as u64;
            self.burst.push(slot);
        }
        flows.counters.rx_packets += frames.len() as u64;
        for slot in &mut self.burst {
            slot.candidate = flows.table.candidate(slot.hash);
        }
        for (slot, frame) in self.burst.iter().zip(frames) {
            let verdict = flows.decide(snapshot, slot, ingress, umem, frame, now);
            flows.count(verdict, frame);
            verdicts.push(verdict);
        }
    }

    /// Tries again to forward a frame that waited for its next hop.
    pub fn retry(&mut self, server: ServerId, umem: &Umem, frame: &mut Frame) -> Verdict {
        let snapshot: &Snapshot = self.published.load();
        let verdict = match wire::parse(umem.bytes(frame)) {
            Ok(parsed) => self.flows.forward(snapshot, server, &parsed, umem, frame),
            // Not reached: it was parsed when it came.
            Err(malformed) => Verdict::Drop(malformed.into()),
        };
        if !matches!(verdict, Verdict::Wait(_)) {
            self.flows.counters.waiting -= 1;
            self.flows.count(verdict, frame);
        }
        verdict
    }

    /// Counts a frame that was to be sent or waited, and was dropped instead.
    pub fn dropped_after(&mut self, verdict: Verdict, reason: DropReason, length: usize) {
        let counters = &mut self.flows.counters;
        match verdict {
            Verdict::Transmit(_) => {
                counters.tx_packets -= 1;
                counters.tx_bytes -= length as u64;
            }
            Verdict::Wait(_) => counters.waiting -= 1,
            Verdict::Drop(_) => return,
        }
        counters.drop_packet(reason);
    }

    /// After each burst: expires connections, a bounded number, and publishes
    /// the counters. True if timers are left that should be looked at soon.
    pub fn tick(&mut self, now: u64) -> bool {
        let behind = self.flows.expire(now);
        if !self.flows.peer_load.is_empty() && !self.flows.peers.is_empty() {
            self.flows.sum_peer_load(self.published.load(), now);
        }
        self.flows.counters.connections = u64::from(self.flows.table.len());
        self.flows.statistics.publish(&self.flows.counters);
        behind
    }

    /// Where this worker publishes what it counts.
    pub(crate) fn statistics(&self) -> &WorkerStatistics {
        &self.flows.statistics
    }

    /// The connections, for listing them piecemeal.
    #[must_use]
    pub fn table(&self) -> &ConnectionTable {
        &self.flows.table
    }

    /// The counters, up to this moment.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.flows.counters
    }
}

/// First stage: headers to key and hash. A frame that will be dropped gets a
/// harmless key, so that the later stages need no special case.
#[inline(always)]
fn parse(frame: &[u8], table: &ConnectionTable) -> Slot {
    let mut slot = Slot {
        key: FlowKey::default(),
        hash: 0,
        candidate: None,
        parsed: Err(DropReason::NotTcpOrUdp),
    };
    let parsed = match wire::parse(frame) {
        Ok(parsed) => parsed,
        Err(malformed) => return slot.dropped(malformed.into()),
    };
    // A packet is one or the other, and so is what an ICMP error quotes; the rest gets no key.
    let protocol = if parsed.protocol == UDP {
        Protocol::Udp
    } else {
        Protocol::Tcp
    };
    slot.key = match parsed.kind {
        Kind::Packet => FlowKey::new(
            parsed.source,
            parsed.source_port,
            parsed.destination,
            parsed.destination_port,
            protocol,
        ),
        // About a packet of the real server: its destination is the client.
        Kind::IcmpError => FlowKey::new(
            parsed.destination,
            parsed.destination_port,
            parsed.source,
            parsed.source_port,
            protocol,
        ),
        Kind::FirstFragment | Kind::LaterFragment => return slot.dropped(DropReason::Fragment),
        Kind::OtherProtocol => return slot,
        Kind::NotIp => return slot.dropped(DropReason::NotIp),
    };
    slot.hash = table.hash(&slot.key);
    slot.parsed = Ok(parsed);
    slot
}

/// The connections and all that changes with a packet.
#[derive(Debug)]
struct Flows {
    table: ConnectionTable,
    counters: Counters,
    statistics: Arc<WorkerStatistics>,
    peers: Vec<Arc<WorkerStatistics>>,
    /// Connections on the other workers by `ServerId`, for `wlc`.
    peer_load: Vec<Load>,
    peer_load_time: u64,
    schedulers: Vec<SchedulerState>,
}

impl Flows {
    #[inline(always)]
    fn decide(
        &mut self,
        snapshot: &Snapshot,
        slot: &Slot,
        ingress: PortIndex,
        umem: &Umem,
        frame: &mut Frame,
        now: u64,
    ) -> Verdict {
        let parsed = match &slot.parsed {
            Ok(parsed) => parsed,
            Err(reason) => return Verdict::Drop(*reason),
        };
        let server = match self.table.lookup(slot.candidate, slot.hash, &slot.key) {
            Some(entry) => match self.packet_of(snapshot, entry, parsed, now) {
                Ok(server) => Ok(server),
                Err(Refused::Anew) => {
                    self.remove(entry);
                    self.counters.connections_reused += 1;
                    self.new_connection(snapshot, slot, parsed, now)
                }
                Err(Refused::Drop(reason)) => Err(Miss::Drop(reason)),
            },
            None => self.new_connection(snapshot, slot, parsed, now),
        };
        match server {
            Ok(server) => self.forward(snapshot, server, parsed, umem, frame),
            Err(Miss::Drop(reason)) => Verdict::Drop(reason),
            Err(Miss::Reset) => match reset::answer(parsed, umem, frame) {
                Ok(()) => {
                    self.counters.resets_sent += 1;
                    Verdict::Transmit(ingress)
                }
                Err(reason) => Verdict::Drop(reason),
            },
        }
    }

    /// A packet of a known connection: its state advances.
    #[inline(always)]
    fn packet_of(
        &mut self,
        snapshot: &Snapshot,
        entry: EntryIndex,
        parsed: &Parsed,
        now: u64,
    ) -> Result<ServerId, Refused> {
        let connection = self.table.get(entry);
        let (server, state) = (connection.server(), connection.state());
        if parsed.kind == Kind::IcmpError {
            return Ok(server);
        }
        if !snapshot
            .server(server)
            .is_some_and(|server| server.available)
        {
            // A client that starts again is served by another server; what
            // is under way waits for its server's return, as with IPVS.
            let starts = state == State::Udp || is_connection_request(parsed.tcp_flags);
            return Err(if starts {
                Refused::Anew
            } else {
                Refused::Drop(DropReason::ServerUnavailable)
            });
        }
        let changes = flags::SYN | flags::FIN | flags::RST;
        if parsed.tcp_flags & changes == 0 && state != State::SynRecv {
            self.table.refresh(entry, now);
        } else if state.begins_anew(parsed.tcp_flags) {
            return Err(Refused::Anew);
        } else {
            self.advance(entry, parsed.tcp_flags, now);
        }
        Ok(server)
    }

    fn advance(&mut self, entry: EntryIndex, tcp_flags: u8, now: u64) {
        let connection = self.table.get(entry);
        let (server, before) = (connection.server(), connection.state());
        let after = before.after(tcp_flags);
        if after == before && !after.is_half_open() {
            self.table.refresh(entry, now);
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
        parsed: &Parsed,
        now: u64,
    ) -> Result<ServerId, Miss> {
        if parsed.kind == Kind::IcmpError {
            return Err(Miss::Drop(DropReason::IcmpNoConnection));
        }
        let service = snapshot
            .service(&slot.key.service())
            .ok_or(Miss::Drop(DropReason::NoVirtualServer))?;
        let state = if parsed.protocol == UDP {
            State::Udp
        } else if is_connection_request(parsed.tcp_flags) {
            State::SynRecv
        } else if parsed.tcp_flags & flags::RST != 0 {
            return Err(Miss::Drop(DropReason::TcpMidstream));
        } else {
            match snapshot.tcp_midstream {
                TcpMidstream::Reset => return Err(Miss::Reset),
                TcpMidstream::Drop => return Err(Miss::Drop(DropReason::TcpMidstream)),
                TcpMidstream::Schedule => State::first(parsed.tcp_flags),
            }
        };
        let Self {
            statistics,
            peer_load,
            schedulers,
            ..
        } = self;
        let load = |id: ServerId| {
            let own = statistics
                .server(id)
                .map(ServerStatistics::totals)
                .unwrap_or_default();
            let others = peer_load.get(id.0 as usize).copied().unwrap_or_default();
            Load {
                active: own.active + others.active,
                inactive: own.inactive + others.inactive,
            }
        };
        let mut unkept = SchedulerState::default();
        let scheduler_state = schedulers
            .get_mut(service.id.0 as usize)
            .unwrap_or(&mut unkept);
        let server = service
            .scheduler
            .schedule(scheduler_state, slot.key.client_address(), load)
            .ok_or(Miss::Drop(DropReason::NoRealServer))?;
        self.insert(slot, server, state, now)?;
        Ok(server)
    }

    fn insert(
        &mut self,
        slot: &Slot,
        server: ServerId,
        state: State,
        now: u64,
    ) -> Result<(), Miss> {
        let insert =
            |table: &mut ConnectionTable| table.insert(slot.hash, slot.key, server, state, now);
        if insert(&mut self.table).is_err() {
            let oldest = self
                .table
                .oldest_half_open()
                .ok_or(Miss::Drop(DropReason::TableFull))?;
            self.remove(oldest);
            self.counters.connections_evicted += 1;
            insert(&mut self.table).map_err(|_| Miss::Drop(DropReason::TableFull))?;
        }
        self.counters.connections_created += 1;
        if let Some(server) = self.statistics.server(server) {
            server.count_connection();
            server.shift(None, Some(state.is_active()));
        }
        Ok(())
    }

    /// Last stage: rewrites the frame for its real server.
    #[inline(always)]
    fn forward(
        &mut self,
        snapshot: &Snapshot,
        id: ServerId,
        parsed: &Parsed,
        umem: &Umem,
        frame: &mut Frame,
    ) -> Verdict {
        let Some(server) = snapshot.server(id) else {
            return Verdict::Drop(DropReason::ServerUnavailable);
        };
        let Some(next_hop) = &server.next_hop else {
            return Verdict::Wait(id);
        };
        let NextHop { port, .. } = *next_hop;
        match direct::forward(umem.bytes_mut(frame), parsed, next_hop) {
            Ok(()) => {
                if let Some(statistics) = self.statistics.server(id) {
                    statistics.count_packet((frame.len() - usize::from(parsed.l3_offset)) as u64);
                }
                Verdict::Transmit(port)
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    #[inline(always)]
    fn count(&mut self, verdict: Verdict, frame: &Frame) {
        match verdict {
            Verdict::Transmit(_) => {
                self.counters.tx_packets += 1;
                self.counters.tx_bytes += frame.len() as u64;
            }
            Verdict::Drop(reason) => self.counters.drop_packet(reason),
            Verdict::Wait(_) => self.counters.waiting += 1,
        }
    }

    fn remove(&mut self, entry: EntryIndex) -> Connection {
        let connection = self.table.remove(entry);
        if let Some(server) = self.statistics.server(connection.server()) {
            server.shift(Some(connection.state().is_active()), None);
        }
        connection
    }

    /// True if the budget ended before the timers that are due.
    fn expire(&mut self, now: u64) -> bool {
        let mut budget = TIMERS_PER_BURST;
        while let Some(entry) = self.table.expired(now, &mut budget) {
            self.remove(entry);
            self.counters.connections_expired += 1;
        }
        budget == 0
    }

    fn sum_peer_load(&mut self, snapshot: &Snapshot, now: u64) {
        if now < self.peer_load_time + PEER_LOAD_AGE {
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
enum Refused {
    /// The connection is over; this packet begins a new one.
    Anew,
    Drop(DropReason),
}

/// Why a packet of no connection gets none.
enum Miss {
    Drop(DropReason),
    /// The client is told by a RST.
    Reset,
}

/// A SYN that asks for a connection: nothing else is set that contradicts it.
#[inline(always)]
fn is_connection_request(tcp_flags: u8) -> bool {
    tcp_flags & (flags::SYN | flags::ACK | flags::RST | flags::FIN) == flags::SYN
}
