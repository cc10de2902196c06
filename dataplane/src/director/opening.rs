//! The straight way of new connections: the first packets of TCP and UDP over IPv4 for virtual servers where
//! nobody but the scheduler has a say, and whose real servers are all reached in one way
//! ([`Snapshot::plain_service`]). What it does not take, and whatever there is to refuse, is for
//! [`Flows::decide`], which comes to the same.
//!
//! Those of a burst that are for one virtual server are opened in one loop, in which only packet, connection and
//! real server differ. When a packet needs a closer look after a server was chosen for it, the loop ends there, so
//! that the server stays the one and whatever comes behind it is decided after it. NAT finds out last whether another
//! connection has the replies' key, and FULLNAT whether there is a port: then the connection is removed again, and the
//! general way has its packet once the others of the loop are opened. A scheduler may have counted it meanwhile, and
//! FULLNAT tries another port, where the general way alone would refuse a key that is taken.

mod method;
#[cfg(test)]
mod tests;
mod translated;

use self::method::{Direct, First, Method, Wrapped, WrappedOtherwise};
pub(super) use self::translated::Begun;
use self::translated::{FullNat, Nat, Translated};
use super::burst::{FrameSet, Notes, PlainNotes, Read};
use super::choose::{Chosen, ServerLoads};
use super::flows::Flows;
use super::{Packet, Verdict};
use crate::conn::{ConnectionTable, Direction, NoVacancy, State};
use crate::counters::ServerStatistics;
use crate::device::BURST;
use crate::flow::FlowKey;
use crate::forward::tunnel::Front;
use crate::handoff::Arrival;
use crate::limits::WhenFull;
use crate::processor::Loop;
use crate::scheduler::{Memory, Request, Scheduler};
use crate::service::ServerId;
use crate::snapshot::{OpensBy, Service, Snapshot};
use crate::xsk::umem::{Frame, Umem};

/// A burst: what was read of its packets, the packets, and what becomes of them.
pub(super) struct Burst<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) notes: &'a mut Notes,
    pub(super) read: &'a Read,
    /// One is that of all.
    pub(super) arrivals: &'a [Arrival],
    pub(super) umem: &'a Umem,
    pub(super) frames: &'a mut [Frame],
    pub(super) verdicts: &'a mut [Verdict; BURST],
    pub(super) now: u64,
}

impl Burst<'_> {
    /// Notes what the general way asks for.
    fn complete(&mut self, others: FrameSet) {
        if others.is_empty() {
            return;
        }
        let packets = self.umem.packets(self.frames);
        self.notes.complete_plain(others, self.read, &packets);
    }

    fn packet(&mut self, number: usize) -> (Packet<'_>, &mut Frame) {
        let first = &self.arrivals[0];
        let Arrival { ingress, asked } = *self.arrivals.get(number).unwrap_or(first);
        let packet = Packet {
            snapshot: self.snapshot,
            slot: &self.notes.slots[number],
            ingress,
            asked,
            umem: self.umem,
            now: self.now,
        };
        (packet, &mut self.frames[number])
    }
}

/// What is the same for all that a loop opens.
struct Opening<'a> {
    /// Of the connections.
    state: State,
    now: u64,
    statistics: &'a [ServerStatistics],
    plain: &'a PlainNotes,
}

/// What a loop did; what is in none of these is behind the chosen one and was not looked at.
struct Opened {
    opened: FrameSet,
    /// A closer look is needed. Nothing has changed.
    unclear: FrameSet,
    /// The same, but for room in the table.
    full: FrameSet,
    /// A closer look is needed, but this is the server.
    chosen: Option<(usize, ServerId)>,
    /// The same of those whose connection was made in vain: it is removed again.
    undone: FrameSet,
}

impl Flows {
    /// Decides what becomes of a frame of a burst, and counts it; its bytes are counted already, as if it left.
    #[inline(always)]
    fn settle(
        &mut self,
        number: usize,
        burst: &mut Burst<'_>,
        decide: impl FnOnce(&mut Self, &Packet<'_>, &mut Frame) -> Verdict,
    ) {
        let (packet, frame) = burst.packet(number);
        self.counters.tx_bytes -= frame.len() as u64;
        let verdict = decide(self, &packet, frame);
        self.count(verdict, frame);
        burst.verdicts[number] = verdict;
    }

    /// The frames of a burst that did not go the straight way of known connections.
    #[inline(never)]
    pub(super) fn decide_others(&mut self, mut others: FrameSet, burst: &mut Burst<'_>) {
        if burst.snapshot.opens_straight && !others.is_empty() {
            others = self.open_straight(others, burst);
        }
        burst.complete(others);
        for number in others.numbers() {
            self.settle(number, burst, Self::decide);
        }
    }

    /// Makes connections of those frames of a burst that begin one, and sends them; returns the others,
    /// which are unchanged.
    #[inline(never)]
    fn open_straight(&mut self, others: FrameSet, burst: &mut Burst<'_>) -> FrameSet {
        let unknown = others.among(burst.notes.plain.unknown);
        let mut begin = unknown.among(burst.read.requests);
        if let Some(local) = burst.snapshot.common_of_local() {
            // Forged, perhaps.
            begin = begin.without(burst.notes.sources_with(local));
        }
        let mut left = others;
        while let Some(first) = begin.numbers().next() {
            let same = begin.among(burst.notes.same_service(first));
            begin = begin.without(same);
            let key = burst.notes.plain.headers.keys.get(first);
            if let Some(service) = burst.snapshot.plain_service(key.service_word()) {
                let unopened = self.open_all(service, same, burst);
                left = left.without(same.without(unopened));
            }
        }
        left
    }

    /// The same with those that are for one virtual server.
    fn open_all(&mut self, service: &Service, same: FrameSet, burst: &mut Burst<'_>) -> FrameSet {
        let (mut unclear, mut rest, mut evicted) = (FrameSet::NONE, same, false);
        loop {
            let [more, full] = self.open_each(service, rest, burst);
            unclear = unclear.with(more);
            if full.is_empty() {
                return unclear;
            }
            // If connections were made in vain, nobody need be evicted for the next ones.
            if self.table.free() == 0 {
                if evicted || !self.make_room(full.len(), burst.snapshot, burst.now) {
                    return unclear.with(full);
                }
                evicted = true;
            }
            rest = full;
        }
    }

    /// The same as far as there is room in the table. The second result is those that want nothing but that.
    fn open_each(
        &mut self,
        service: &Service,
        same: FrameSet,
        burst: &mut Burst<'_>,
    ) -> [FrameSet; 2] {
        let [mut unclear, mut full] = [FrameSet::NONE; 2];
        let mut rest = same;
        loop {
            let opened = self.open(service, rest, burst);
            unclear = unclear.with(opened.unclear);
            full = full.with(opened.full);
            for number in opened.undone.numbers() {
                let server = burst.notes.begun.server_of(number);
                self.open_chosen(server, number, burst);
            }
            let Some((number, server)) = opened.chosen else {
                return [unclear, full];
            };
            self.open_chosen(server, number, burst);
            rest = rest.after(number);
        }
    }

    /// The general way of a frame that begins a connection with this server.
    #[cold]
    fn open_chosen(&mut self, server: ServerId, number: usize, burst: &mut Burst<'_>) {
        burst.complete(FrameSet::only(number));
        self.settle(number, burst, |flows, packet, frame| {
            flows.open_with(server, packet, frame)
        });
    }

    fn open_with(&mut self, server: ServerId, packet: &Packet<'_>, frame: &mut Frame) -> Verdict {
        let chosen = Chosen {
            server,
            templated: false,
        };
        let state = first_state(packet.slot.key.is_tcp());
        let made = self.make(chosen, false, state, packet, frame);
        let decided = made.and_then(|entry| self.forward(entry, Direction::Request, packet, frame));
        self.carry_out(decided, packet, frame)
    }

    #[inline(never)]
    fn open(&mut self, service: &Service, same: FrameSet, burst: &mut Burst<'_>) -> Opened {
        let first = same.numbers().next().zip(service.opens_by);
        let Some((first, by)) = first else {
            return Opened::nothing_of(same);
        };
        let Notes {
            plain,
            begun,
            processor,
            ..
        } = &mut *burst.notes;
        let plain = &*plain;
        let state = first_state(plain.headers.keys.get(first).is_tcp());
        let opening = Opening {
            state,
            now: burst.now,
            statistics: self.statistics.servers(),
            plain,
        };
        let snapshot = burst.snapshot;
        let scheduling = Scheduling {
            service,
            schedulers: &mut self.schedulers,
            loads: ServerLoads::<false> {
                snapshot,
                own: &self.statistics,
                peers: &self.peer_load,
                overloaded: &self.overloaded,
            },
            now: burst.now,
        };
        let (umem, arrivals) = (burst.umem, burst.arrivals);
        let work = Work {
            opening,
            same,
            scheduling,
            table: &mut self.table,
            verdicts: &mut *burst.verdicts,
        };
        let opened = match by {
            OpensBy::Direct => {
                let method = Direct {
                    paths: snapshot.paths(),
                    packets: umem.packets(burst.frames),
                };
                processor.run(By { method, work })
            }
            OpensBy::Nat => {
                let method = Nat(Translated {
                    snapshot,
                    packets: umem.packets(burst.frames),
                    arrivals,
                    owners: self.owners.as_ref(),
                    begun,
                });
                processor.run(By { method, work })
            }
            OpensBy::FullNat => {
                let translated = Translated {
                    snapshot,
                    packets: umem.packets(burst.frames),
                    arrivals,
                    owners: self.owners.as_ref(),
                    begun,
                };
                let method = FullNat {
                    translated,
                    service: service.id,
                    ports: &mut self.local_ports,
                };
                processor.run(By { method, work })
            }
            OpensBy::Wrapped if !snapshot.wraps_otherwise => {
                let method = Wrapped {
                    paths: snapshot.paths(),
                    tunnels: snapshot.tunnel_paths(),
                    packets: umem.packets(burst.frames),
                    outers: &plain.outers,
                };
                let opened = processor.run(By { method, work });
                let (last, count) = (self.identification, opened.opened.len());
                self.identification = plain.outers.last_below(opened.opened.end(), last);
                self.counters.tx_bytes += u64::from(count) * u64::from(Front::OVERHEAD);
                opened
            }
            OpensBy::Wrapped => {
                let method = WrappedOtherwise {
                    paths: snapshot.paths(),
                    tunnels: snapshot.tunnel_paths(),
                    places: &plain.places,
                    umem,
                    frames: burst.frames,
                    identification: &mut self.identification,
                    tx_bytes: &mut self.counters.tx_bytes,
                };
                processor.run(By { method, work })
            }
        };
        let count = opened.opened.len();
        self.counters.tx_packets += u64::from(count);
        self.counters.connections_created += u64::from(count);
        if let Some(statistics) = self.statistics.service(service.id) {
            statistics.begin(count, state.is_half_open());
        }
        opened
    }

    /// Evicts so many connections, or as many as may be, if that is how a full table gets room. False if
    /// there is none.
    #[cold]
    fn make_room(&mut self, wanted: u32, snapshot: &Snapshot, now: u64) -> bool {
        if snapshot.when_full == WhenFull::DropNew {
            return false;
        }
        let mut evicted = 0;
        while evicted < wanted
            && let Some(oldest) = self.table.oldest_evictable(now)
        {
            self.remove(snapshot, oldest, now);
            evicted += 1;
        }
        self.counters.connections_evicted += u64::from(evicted);
        evicted > 0
    }
}

/// Who chooses the real servers.
struct Scheduling<'a> {
    service: &'a Service,
    schedulers: &'a mut Memory,
    loads: ServerLoads<'a, false>,
    now: u64,
}

impl Opened {
    /// All of these need a closer look.
    const fn nothing_of(unclear: FrameSet) -> Self {
        Self {
            opened: FrameSet::NONE,
            unclear,
            full: FrameSet::NONE,
            chosen: None,
            undone: FrameSet::NONE,
        }
    }
}

/// Packets of one virtual server.
struct Work<'a> {
    opening: Opening<'a>,
    same: FrameSet,
    scheduling: Scheduling<'a>,
    table: &'a mut ConnectionTable,
    verdicts: &'a mut [Verdict; BURST],
}

/// A loop over them.
struct By<'a, M> {
    method: M,
    work: Work<'a>,
}

impl<M: Method> Loop for By<'_, M> {
    type Result = Opened;

    #[inline(always)]
    fn run(self) -> Opened {
        let Self { mut method, work } = self;
        let Work {
            opening,
            same,
            scheduling,
            table,
            verdicts,
        } = work;
        let Scheduling {
            service,
            schedulers,
            loads,
            now,
        } = scheduling;
        let to = (&mut *table, verdicts);
        let scheduler = &service.scheduler;
        let mut opened = if let Scheduler::RoundRobin(scheduler) = scheduler {
            // Without a call and what it would need.
            let mut state = schedulers.state(service.id);
            let choose = |_| scheduler.turn(state.as_deref_mut()?);
            opening.each(&mut method, same, to, choose)
        } else {
            opening.each(&mut method, same, to, |number| {
                let key = FlowKey::from(opening.plain.headers.keys.get(number));
                let request = Request {
                    client: key.source(),
                    client_port: key.source_port(),
                    destination: key.destination(),
                    now,
                };
                scheduler.schedule(service.id, schedulers, &request, &loads)
            })
        };
        opened.undone = method.finish(opened.opened, table, &opening);
        opened.opened = opened.opened.without(opened.undone);
        opened
    }
}

impl Opening<'_> {
    #[inline(always)]
    fn each<M: Method>(
        &self,
        method: &mut M,
        same: FrameSet,
        (table, verdicts): (&mut ConnectionTable, &mut [Verdict; BURST]),
        mut choose: impl FnMut(usize) -> Option<ServerId>,
    ) -> Opened {
        let [mut opened, mut unclear, mut full] = [FrameSet::NONE; 3];
        let mut chosen = None;
        let is_active = self.state.is_active();
        let mut newcomers = table.newcomers(self.state, M::REPLIES, self.now);
        for number in same.numbers() {
            let place = self.plain.places.get(number);
            // Another frame of the burst may have had the same key: then it is there by now.
            let entry = match newcomers.prepare(place) {
                Ok(entry) => entry,
                Err(NoVacancy::Full) => {
                    full.add(number);
                    continue;
                }
                Err(NoVacancy::Unclear) => {
                    unclear.add(number);
                    continue;
                }
            };
            let Some(server) = choose(number) else {
                newcomers.give_up(&self.plain.places, number);
                unclear.add(number);
                continue;
            };
            let first = First {
                number,
                life: self.plain.headers.lives[number],
                server,
                entry,
            };
            let Some((egress, bytes)) = method.open(&first) else {
                newcomers.give_up(&self.plain.places, number);
                chosen = Some((number, server));
                break;
            };
            newcomers.begin(self.plain.headers.keys.get(number), server);
            verdicts[number] = Verdict::Transmit(egress);
            opened.add(number);
            if let Some(statistics) = self.statistics.get(server.0 as usize) {
                statistics.shift(None, Some(is_active));
                if !M::REPLIES {
                    statistics.count_first(bytes);
                }
            }
        }
        newcomers.end(opened.len());
        Opened {
            opened,
            unclear,
            full,
            chosen,
            undone: FrameSet::NONE,
        }
    }
}

/// State of the connection that a packet of TCP, or else UDP, begins.
#[inline(always)]
fn first_state(is_tcp: bool) -> State {
    match is_tcp {
        true => State::SynRecv,
        false => State::Udp,
    }
}
