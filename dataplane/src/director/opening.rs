//! The straight way of new connections: the first packets of TCP and UDP over IPv4 for virtual servers where
//! nobody but the scheduler has a say ([`Snapshot::plain_service`]), by DR. What it does not
//! take, and whatever there is to refuse, is for [`Flows::decide`], which comes to the same.
//!
//! Those of a burst that are for one virtual server are opened in one loop, in which only packet, connection and
//! real server differ.

use super::burst::Others;
use super::choose::Connections;
use super::flows::Flows;
use super::straight::L3;
use super::{Slot, Verdict, What};
use crate::conn::{Beginning, Candidate, ConnectionTable, NoVacancy, Signal, State};
use crate::counters::ServerStatistics;
use crate::device::BURST;
use crate::forward::direct;
use crate::limits::WhenFull;
use crate::scheduler::{Request, Scheduler};
use crate::service::{PortIndex, ServerId};
use crate::snapshot::{Path, Service, Snapshot};
use crate::wire;
use crate::xsk::umem::{HEAD, Packets};

/// What is the same for all that a loop opens.
struct Opening<'a> {
    beginning: Beginning,
    is_active: bool,
    paths: &'a [Path],
    statistics: &'a [ServerStatistics],
}

/// A burst: what was read of its packets, the packets, and what becomes of them.
pub(super) struct Burst<'a> {
    pub(super) slots: &'a [Slot; BURST],
    pub(super) packets: Packets<'a>,
    pub(super) verdicts: &'a mut [Verdict; BURST],
}

impl Burst<'_> {
    /// Lets `send` try `others`, given length and beginning of each; it says where one leaves, and changes none that
    /// does not. Returns those.
    #[inline(always)]
    fn each_of(
        &mut self,
        others: Others,
        mut send: impl FnMut(&Slot, u16, &mut [u8; HEAD]) -> Option<PortIndex>,
    ) -> Others {
        let mut left = Others::NONE;
        for number in others.numbers() {
            let length = self.packets.length(number);
            match send(&self.slots[number], length, self.packets.head_mut(number)) {
                Some(egress) => self.verdicts[number] = Verdict::Transmit(egress),
                None => left.add(number),
            }
        }
        left
    }
}

/// What a loop did.
struct Opened {
    left: Others,
    /// Of those, how many want nothing but room in the table.
    wanting: u32,
}

impl Flows {
    /// Makes connections of those frames of a burst that begin one, and sends them; returns the others,
    /// which are unchanged.
    #[inline(never)]
    pub(super) fn open_straight(
        &mut self,
        others: Others,
        burst: &mut Burst<'_>,
        snapshot: &Snapshot,
        now: u64,
    ) -> Others {
        let mut services = [0; BURST];
        let mut begin = Others::NONE;
        let (mut any, mut differ) = (None, 0);
        for number in others.numbers() {
            let slot = &burst.slots[number];
            if begins(slot) {
                let service = slot.key.service_word();
                differ |= service ^ *any.get_or_insert(service);
                services[number] = service;
                begin.add(number);
            }
        }
        let mut left = others;
        while let Some(first) = begin.numbers().next() {
            let mut same = begin;
            if differ != 0 {
                same = Others::NONE;
                for number in begin.numbers() {
                    if services[number] == services[first] {
                        same.add(number);
                    }
                }
            }
            begin = begin.without(same);
            if let Some(service) = snapshot.plain_service(&burst.slots[first].key) {
                let unopened = self.open_all(service, same, burst, snapshot, now);
                left = left.without(same.without(unopened));
            }
        }
        left
    }

    /// The same with those that are for one virtual server.
    fn open_all(
        &mut self,
        service: &Service,
        same: Others,
        burst: &mut Burst<'_>,
        snapshot: &Snapshot,
        now: u64,
    ) -> Others {
        let Opened { mut left, wanting } = self.open(service, same, burst, snapshot, now);
        if wanting > 0 && self.make_room(wanting, snapshot, now) {
            left = self.open(service, left, burst, snapshot, now).left;
        }
        left
    }

    #[inline(never)]
    fn open(
        &mut self,
        service: &Service,
        same: Others,
        burst: &mut Burst<'_>,
        snapshot: &Snapshot,
        now: u64,
    ) -> Opened {
        let is_tcp = (same.numbers().next()).is_some_and(|first| burst.slots[first].key.is_tcp());
        let first_state = if is_tcp { State::SynRecv } else { State::Udp };
        let opening = Opening {
            beginning: self.table.beginning(first_state, now),
            is_active: first_state.is_active(),
            paths: snapshot.paths(),
            statistics: self.statistics.servers(),
        };
        let (id, schedulers) = (service.id, &mut self.schedulers);
        let opened = if let Scheduler::RoundRobin(scheduler) = &service.scheduler {
            // Without a call and what it would need.
            let mut state = schedulers.state(id);
            let choose = |_: &Slot| scheduler.turn(state.as_deref_mut()?);
            opening.each(same, &mut self.table, burst, choose)
        } else {
            let connections = Connections::<false> {
                snapshot,
                own: &self.statistics,
                peers: &self.peer_load,
                overloaded: &self.overloaded,
            };
            let choose = |slot: &Slot| {
                let request = Request {
                    client: slot.key.source(),
                    client_port: slot.key.source_port(),
                    destination: slot.key.destination(),
                    now,
                };
                let scheduler = &service.scheduler;
                scheduler.schedule(id, schedulers, &request, &connections)
            };
            opening.each(same, &mut self.table, burst, choose)
        };
        let count = same.without(opened.left).len();
        self.counters.connections_created += u64::from(count);
        if let Some(statistics) = self.statistics.service(id) {
            statistics.begin(count, first_state.is_half_open());
        }
        opened
    }

    /// Evicts so many half-open connections, or as many as there are, if that is how a full table gets room. False if
    /// there is none.
    #[cold]
    fn make_room(&mut self, wanted: u32, snapshot: &Snapshot, now: u64) -> bool {
        if snapshot.when_full == WhenFull::DropNew {
            return false;
        }
        let mut evicted = 0;
        while evicted < wanted
            && let Some(oldest) = self.table.oldest_half_open(now)
        {
            self.remove(snapshot, oldest, now);
            evicted += 1;
        }
        self.counters.connections_evicted += u64::from(evicted);
        evicted > 0
    }
}

impl Opening<'_> {
    #[inline(always)]
    fn each(
        &self,
        same: Others,
        table: &mut ConnectionTable,
        burst: &mut Burst<'_>,
        mut choose: impl FnMut(&Slot) -> Option<ServerId>,
    ) -> Opened {
        let mut wanting = 0;
        let left = burst.each_of(same, |slot, length, head| {
            // Asked anew: another frame of the burst may have had the same key.
            let vacancy = match table.vacancy(slot.place) {
                Ok(vacancy) => vacancy,
                Err(NoVacancy::Full) => {
                    wanting += 1;
                    return None;
                }
                Err(NoVacancy::Unclear) => return None,
            };
            // Before it takes a turn of the scheduler's.
            if !direct::may_go_on(head) {
                return None;
            }
            let length = u64::from(length) - L3 as u64;
            let server = choose(slot)?;
            let Path::Direct(hop) = self.paths.get(server.0 as usize)? else {
                return None;
            };
            if !direct::forward_plain(head, &hop.addresses) {
                return None;
            }
            vacancy.fill(slot.key, server, &self.beginning);
            if let Some(statistics) = self.statistics.get(server.0 as usize) {
                statistics.count_connection();
                statistics.shift(None, Some(self.is_active));
                statistics.count_packet(length);
            }
            Some(hop.port)
        });
        Opened { left, wanting }
    }
}

/// True for a plain packet that begins a connection if there is none.
#[inline(always)]
fn begins(slot: &Slot) -> bool {
    // That is IPv4 without options.
    let is_plain =
        slot.l3_offset == wire::PLAIN_L3_OFFSET && slot.l4_offset == wire::PLAIN_L4_OFFSET;
    let is_first = match slot.key.is_tcp() {
        true => slot.what == What::Packet && Signal::Tcp(slot.tcp_flags).is_request(),
        // UDP: SCTP is never plain.
        false => slot.what == What::Plain,
    };
    is_first && is_plain && slot.candidate == Candidate::NONE
}
