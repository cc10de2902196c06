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
//! allocates, logs or reads a clock, except in `adopt`, which runs
//! once for each new snapshot; locks are taken only for persistence and limits
//! per source, when a connection begins or ends.

mod burst;
mod choose;
mod elsewhere;
mod flows;
mod fullnat;
mod limits;
mod opening;
mod rerouting;
mod sending;
mod straight;
mod synproxy;
mod translate;
mod tunnel_errors;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::Cache;

use self::burst::{FrameSet, Notes};
use self::flows::Flows;
use self::opening::Burst;
use self::straight::{Sent, only_one};
use crate::conn::{Candidate, ConnectionTable, EntryIndex, Place};
use crate::counters::{Counters, DropReason, WorkerStatistics};
use crate::device::BURST;
use crate::flow::{FlowHasher, FlowKey};
use crate::forward::fragment::Fragments;
use crate::handoff::{Arrival, Owners, WorkerIndex};
use crate::service::{Address, PortIndex, Protocol};
use crate::snapshot::{Published, Snapshot};
use crate::wire::{self, Kind};
use crate::xsk::umem::{Frame, FramePool, Umem};

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leaves by this interface, rewritten.
    Transmit(PortIndex),
    Drop(DropReason),
    /// To be tried again later: its next hop has no MAC address, or its datagram's first fragment
    /// has not come yet. The reason to drop it when that takes too long.
    Wait(DropReason),
    /// Longer than its way allows: to be cut into fragments of at most so many bytes, IP header
    /// included, which are then tried like frames that waited.
    Cut(u16),
    /// Is of a connection of this other worker.
    HandOff(WorkerIndex),
    /// May be of a connection of another worker: the next one in turn is asked.
    Offer,
}

/// Sizes and identity of a director.
#[derive(Clone, Debug)]
pub struct DirectorOptions {
    /// Most connections of this worker.
    pub max_connections: u32,
    pub hasher: FlowHasher,
    /// Number of this worker, from 0.
    pub worker: u32,
    /// Where frames leave that turn out to be the kernel's; without it they are dropped.
    pub kernel: Option<PortIndex>,
}

/// One worker's director: its connections and how it treats a burst.
#[derive(Debug)]
pub struct Director {
    published: Cache<Published, Arc<Snapshot>>,
    generation: u64,
    notes: Box<Notes>,
    flows: Flows,
}

/// What the stages note about one frame: one cache line.
#[derive(Clone, Copy, Debug)]
struct Slot {
    key: FlowKey,
    place: Place,
    candidate: Candidate,
    l3_offset: u16,
    l4_offset: u16,
    /// Of IPv4, not IPv6.
    is_v4: bool,
    /// 0 for UDP and SCTP.
    tcp_flags: u8,
    what: What,
}

const _: () = assert!(size_of::<Slot>() == 64);

/// A frame on its way through the slower stages.
struct Packet<'a> {
    snapshot: &'a Snapshot,
    slot: &'a Slot,
    ingress: PortIndex,
    /// As in [`Arrival`].
    asked: u16,
    umem: &'a Umem,
    /// As in [`Director::process`].
    now: u64,
}

/// What a frame is to the director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// TCP or UDP over IPv4, untagged and without options, so that all offsets are known; neither SYN nor
    /// FIN nor RST.
    Plain,
    /// Any other TCP or UDP, and SCTP.
    Packet,
    /// Of a datagram in fragments, the one with the ports.
    FirstFragment,
    /// Another one, which has no key.
    LaterFragment,
    /// An ICMP error about what a real server sent.
    IcmpError,
    /// One about what we sent through a tunnel; the key is that of the client's packet in it.
    TunnelError,
    /// Nothing to be forwarded.
    Unwanted(DropReason),
}

impl Slot {
    /// With a harmless key, so that the later stages need no special case.
    const EMPTY: Self = Self {
        key: FlowKey::EMPTY,
        place: Place::FIRST,
        candidate: Candidate::NONE,
        l3_offset: 0,
        l4_offset: 0,
        is_v4: true,
        tcp_flags: 0,
        what: What::Unwanted(DropReason::OtherProtocol),
    };

    /// Of a frame that is not plain.
    #[inline(never)]
    fn read_unusual(&mut self, frame: &[u8], table: &ConnectionTable) {
        let parsed = match wire::parse(frame) {
            Ok(parsed) => parsed,
            Err(malformed) => return self.unwanted(malformed.into()),
        };
        // A packet is one or the other, and so is what an ICMP error quotes; the rest gets no key.
        let known = [Protocol::Udp, Protocol::Sctp].into_iter();
        let mut known = known.filter(|known| *known as u8 == parsed.protocol);
        let protocol = known.next().unwrap_or(Protocol::Tcp);
        let about_tunnelled = match parsed.kind {
            Kind::IcmpError | Kind::OtherProtocol => tunnel_errors::inner_key(frame, &parsed),
            Kind::Packet | Kind::FirstFragment | Kind::LaterFragment | Kind::NotIp => None,
        };
        match parsed.kind {
            Kind::IcmpError | Kind::OtherProtocol if let Some(key) = about_tunnelled => {
                self.what = What::TunnelError;
                self.key = key;
            }
            Kind::Packet | Kind::FirstFragment => {
                self.what = if parsed.kind == Kind::FirstFragment {
                    What::FirstFragment
                } else {
                    What::Packet
                };
                self.key = FlowKey::new(
                    parsed.source,
                    parsed.source_port,
                    parsed.destination,
                    parsed.destination_port,
                    protocol,
                );
            }
            Kind::IcmpError => {
                self.what = What::IcmpError;
                // About a packet of the real server: its destination is the client.
                self.key = FlowKey::new(
                    parsed.destination,
                    parsed.destination_port,
                    parsed.source,
                    parsed.source_port,
                    protocol,
                );
            }
            Kind::LaterFragment => {
                *self = Self::EMPTY;
                self.what = What::LaterFragment;
            }
            Kind::OtherProtocol => return self.unwanted(DropReason::OtherProtocol),
            Kind::NotIp => return self.unwanted(DropReason::NotIp),
        }
        self.l3_offset = parsed.l3_offset;
        self.l4_offset = parsed.l4_offset;
        self.is_v4 = parsed.destination.is_v4();
        self.tcp_flags = parsed.tcp_flags;
        self.place = table.lookup().place(&self.key);
    }

    /// Of any frame, one by one.
    #[cold]
    fn of(frame: &[u8], table: &ConnectionTable) -> Self {
        let mut slot = Self::EMPTY;
        slot.read_unusual(frame, table);
        slot
    }

    #[cold]
    fn unwanted(&mut self, reason: DropReason) {
        *self = Self {
            what: What::Unwanted(reason),
            ..Self::EMPTY
        };
    }
}

/// The interface, if all frames leave and by the same one: nothing is to be sorted then.
#[inline(always)]
fn all_leave_by(verdicts: &[Verdict]) -> Option<PortIndex> {
    let first = *verdicts.first()?;
    let Verdict::Transmit(egress) = first else {
        return None;
    };
    let same = verdicts.iter().all(|verdict| *verdict == first);
    same.then_some(egress)
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
        let own = Arc::clone(&statistics[options.worker as usize]);
        let others = (0..)
            .zip(statistics)
            .filter(|(number, _)| *number != options.worker);
        let peers = others.map(|(_, peer)| Arc::clone(peer)).collect();
        let mut director = Self {
            published: Cache::new(published),
            generation: 0,
            notes: Notes::new(),
            flows: Flows::new(options, own, peers),
        };
        director.adopt_snapshot();
        director
    }

    /// There are other workers: what they may have a connection of is theirs, not the kernel's.
    pub(crate) fn set_owners(&mut self, owners: Owners) {
        self.flows.set_owners(owners, self.published.load());
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
        self.flows.adopt(snapshot);
        self.flows
            .statistics
            .generation
            .store(self.generation, Ordering::Release);
    }

    /// Decides what becomes of each frame of a received burst, rewriting those that leave. If all of
    /// them leave by one interface it is returned, and `verdicts` hold anything. Otherwise it sets one verdict a
    /// frame; those behind stay as they are.
    ///
    /// `now` is in milliseconds since the worker's start and never goes back.
    ///
    /// # Panics
    /// If there are more than [`BURST`] frames: a programming error.
    pub fn process(
        &mut self,
        ingress: PortIndex,
        umem: &Umem,
        frames: &mut [Frame],
        now: u64,
        verdicts: &mut [Verdict; BURST],
    ) -> Option<PortIndex> {
        let (bytes, egress) = self.decide(&[Arrival::by(ingress)], umem, frames, now, verdicts);
        let counters = &mut self.flows.counters;
        counters.rx_packets += frames.len() as u64;
        counters.rx_bytes += bytes;
        egress
    }

    /// The same for frames that another worker received, each with its arrival.
    ///
    /// # Panics
    /// As [`process`](Self::process), and if there are frames without an arrival.
    pub fn process_handed(
        &mut self,
        arrivals: &[Arrival],
        umem: &Umem,
        frames: &mut [Frame],
        now: u64,
        verdicts: &mut [Verdict; BURST],
    ) -> Option<PortIndex> {
        let (_, egress) = self.decide(arrivals, umem, frames, now, verdicts);
        self.flows.counters.handed_off_rx += frames.len() as u64;
        egress
    }

    /// Decides and counts what was decided; returns the bytes of all frames, and by which interface all of
    /// them leave. One arrival is that of all.
    #[inline(always)]
    fn decide(
        &mut self,
        arrivals: &[Arrival],
        umem: &Umem,
        frames: &mut [Frame],
        now: u64,
        verdicts: &mut [Verdict; BURST],
    ) -> (u64, Option<PortIndex>) {
        let snapshot: &Snapshot = self.published.load();
        let (flows, notes) = (&mut self.flows, &mut *self.notes);
        let count = frames.len();
        if count == 0 {
            return (0, None);
        }
        let Sent {
            read,
            mut others,
            mut egress,
        } = notes.processor.run(straight::SendStraight {
            flows,
            notes,
            umem,
            frames,
            arrivals,
            snapshot,
            now,
        });
        let bytes = read.bytes;
        flows.counters.tx_bytes += bytes;
        let mut handed = FrameSet::NONE;
        if !others.is_empty() && flows.shares_replies() && arrivals[0].asked == 0 {
            let plain = others.without(read.unusual).without(read.changing);
            let packets = umem.packets(frames);
            let served = flows.serve_others(plain, notes, packets, verdicts, snapshot, now);
            others = others.without(served.0);
            handed = served.1;
            if others.is_empty() {
                egress = only_one(&notes.plain.ports[..count]);
            }
        }
        flows.counters.tx_packets += count as u64 - u64::from(others.len());
        if egress.is_some() {
            return (bytes, egress);
        }
        for number in FrameSet::all(count).without(others).numbers() {
            verdicts[number] = Verdict::Transmit(notes.plain.ports[number]);
        }
        if !others.is_empty() {
            let mut burst = Burst {
                snapshot,
                notes,
                read: &read,
                arrivals,
                umem,
                frames,
                verdicts,
                now,
            };
            flows.decide_others(others.without(handed), &mut burst);
            return (bytes, all_leave_by(&verdicts[..count]));
        }
        (bytes, None)
    }

    /// Tries again to forward a frame that waited for its next hop.
    pub fn retry(&mut self, arrival: Arrival, umem: &Umem, frame: &mut Frame, now: u64) -> Verdict {
        let snapshot: &Snapshot = self.published.load();
        let slot = Slot::of(umem.bytes(frame), &self.flows.table);
        let packet = Packet {
            snapshot,
            slot: &slot,
            ingress: arrival.ingress,
            asked: arrival.asked,
            umem,
            now,
        };
        let verdict = self.flows.retry(&packet, frame);
        if !matches!(verdict, Verdict::Wait(_) | Verdict::Cut(_)) {
            self.flows.counters.waiting -= 1;
            self.flows.count(verdict, frame);
        }
        verdict
    }

    /// Cuts a packet into fragments of at most `mtu` bytes, IP header included, each in a frame of
    /// `pool`, which wait to be tried.
    ///
    /// # Errors
    /// There are not enough free frames, or the packet cannot be cut; `pieces` is as it was.
    pub(crate) fn cut(
        &mut self,
        umem: &Umem,
        frame: &Frame,
        mtu: u16,
        pool: &mut FramePool,
        pieces: &mut Vec<Frame>,
    ) -> Result<(), DropReason> {
        let packet = umem.bytes(frame);
        let l3_offset = usize::from(Slot::of(packet, &self.flows.table).l3_offset);
        let already = pieces.len();
        let cut = Fragments::new(packet, l3_offset, mtu)?.try_for_each(|piece| {
            let mut fresh = pool.take().ok_or(DropReason::TxRingFull)?;
            let written = umem
                .set_length(&mut fresh, piece.len())
                .map_err(|_| DropReason::TooBig)
                .and_then(|()| piece.write(umem.bytes_mut(&mut fresh)));
            match written {
                Ok(()) => pieces.push(fresh),
                Err(_) => pool.give(fresh),
            }
            written
        });
        if cut.is_err() {
            for piece in pieces.drain(already..) {
                pool.give(piece);
            }
            return cut;
        }
        // The packet waits already: what is more of it waits from now on.
        let more = (pieces.len() - already).saturating_sub(1) as u64;
        self.flows.counters.waiting += more;
        self.flows.counters.fragments_made += more;
        Ok(())
    }

    /// Counts a frame that was to be sent or waited, and was dropped instead.
    pub fn dropped_after(&mut self, verdict: Verdict, reason: DropReason, length: usize) {
        let counters = &mut self.flows.counters;
        match verdict {
            Verdict::Transmit(_) => {
                counters.tx_packets -= 1;
                counters.tx_bytes -= length as u64;
            }
            Verdict::Wait(_) | Verdict::Cut(_) => counters.waiting -= 1,
            Verdict::HandOff(_) | Verdict::Offer => counters.handed_off_tx -= 1,
            Verdict::Drop(_) => return,
        }
        counters.drop_packet(reason);
    }

    /// What becomes of a frame that waited too long. Whose a later fragment is only its datagram's first
    /// one tells; where that never came, the kernel has it or nobody.
    pub(crate) fn give_up(&mut self, frame: &Frame, reason: DropReason) -> Verdict {
        let flows = &mut self.flows;
        let verdict = match flows.kernel {
            Some(port) if reason == DropReason::Fragment => {
                flows.counters.returned_to_kernel += 1;
                Verdict::Transmit(port)
            }
            Some(_) | None => Verdict::Drop(reason),
        };
        flows.counters.waiting -= 1;
        flows.count(verdict, frame);
        verdict
    }

    /// Expires connections, a bounded number, and publishes the counters, for those who let time pass without a
    /// worker's loop. True if timers are left that should be looked at soon.
    pub fn tick(&mut self, now: u64) -> bool {
        let behind = self.expire(now);
        self.publish();
        behind
    }

    /// Expires connections that are due, a bounded number. True if timers are left that should be looked at soon.
    pub(crate) fn expire(&mut self, now: u64) -> bool {
        self.flows.allow_icmp(now);
        let snapshot: &Snapshot = self.published.load();
        let behind = self.flows.expire(snapshot, now) | self.flows.reroute(snapshot, now);
        self.flows.sum_peer_load(snapshot, now);
        behind
    }

    /// Publishes the counters.
    pub(crate) fn publish(&mut self) {
        self.flows.counters.connections = u64::from(self.flows.table.len());
        self.flows.statistics.publish(&self.flows.counters);
    }

    /// Those of FULLNAT that connections use.
    pub(crate) fn local_addresses(&self) -> impl Iterator<Item = Address> {
        self.flows.local_ports.used()
    }

    /// True if frames that wait should be tried again: the first fragment of a datagram came, or a server
    /// answered the SYN proxy. Asked once a turn.
    pub(crate) fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.flows.news)
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

    /// Milliseconds since a connection's last packet, whichever worker sent it on.
    pub(crate) fn idle(&self, entry: EntryIndex, now: u64) -> u32 {
        self.flows.idle(entry, now)
    }

    /// The counters, up to this moment.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.flows.counters
    }
}
