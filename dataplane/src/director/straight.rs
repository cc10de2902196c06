//! The straight way, for nearly all packets: plain ones of connections that go on as before. A loop over
//! the burst for each way to forward; what none of them takes, [`Flows::decide`] decides.
//!
//! All that depends on the connection, its real server and the configuration was decided before: by
//! the connection table, and by the snapshot ([`Path`]).

use std::num::NonZeroU64;

use super::flows::Flows;
use super::sending::variation;
use super::translate::{learn_way, way_out};
use super::{Slot, Verdict, What};
use crate::conn::{Direction, StraightConnections};
use crate::counters::ServerStatistics;
use crate::device::BURST;
use crate::forward::direct;
use crate::forward::rewrite::PlainRewrite;
use crate::routes::Routes;
use crate::service::PortIndex;
use crate::snapshot::{Path, Snapshot, TunnelPath};
use crate::wire;
use crate::xsk::umem::{Frame, Umem};

/// Where the IP header of a plain packet is.
pub(super) const L3: usize = wire::PLAIN_L3_OFFSET as usize;

/// The frames of a burst that are still to be decided, a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Others(u64);

const _: () = assert!(BURST <= u64::BITS as usize);

impl Others {
    pub(super) const NONE: Self = Self(0);

    /// Of a burst of `count` frames all; there is at least one.
    #[inline(always)]
    fn all(count: usize) -> Self {
        Self(u64::MAX >> (BURST - count))
    }

    #[inline(always)]
    pub(super) fn add(&mut self, number: usize) {
        self.0 |= 1 << number;
    }

    #[inline(always)]
    pub(super) fn remove(&mut self, number: usize) {
        self.0 &= !(1 << number);
    }

    /// Those that are not in `removed`.
    #[inline(always)]
    pub(super) fn without(self, removed: Self) -> Self {
        Self(self.0 & !removed.0)
    }

    #[inline(always)]
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Their numbers in the burst, ascending.
    #[inline(always)]
    pub(super) fn numbers(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let lowest = NonZeroU64::new(left)?.trailing_zeros();
            left &= left - 1;
            Some(lowest as usize)
        })
    }
}

/// What the loops over a burst look at. All of it is found before they begin, so that it need not be
/// found again for each packet.
struct Straight<'a> {
    connections: StraightConnections<'a>,
    paths: &'a [Path],
    tunnels: &'a [TunnelPath],
    routes: &'a Routes,
    statistics: &'a [ServerStatistics],
    umem: &'a Umem,
    now: u64,
}

/// A burst: what was read of its frames, the frames, and what becomes of them.
pub(super) struct Burst<'a> {
    pub(super) slots: &'a [Slot; BURST],
    pub(super) frames: &'a mut [Frame],
    pub(super) verdicts: &'a mut [Verdict; BURST],
}

impl Burst<'_> {
    /// Lets `send` try all frames; it says where one leaves, and changes none that does not. Returns
    /// those.
    #[inline(always)]
    fn each(&mut self, mut send: impl FnMut(&Slot, &mut Frame) -> Option<PortIndex>) -> Others {
        let mut left = Others::NONE;
        let burst = self.slots.iter().zip(&mut *self.frames);
        for (number, ((slot, frame), verdict)) in burst.zip(&mut *self.verdicts).enumerate() {
            match send(slot, frame) {
                Some(egress) => *verdict = Verdict::Transmit(egress),
                None => left.add(number),
            }
        }
        left
    }

    /// The same with those in `others`.
    #[inline(always)]
    pub(super) fn each_of(
        &mut self,
        others: Others,
        mut send: impl FnMut(&Slot, &mut Frame) -> Option<PortIndex>,
    ) -> Others {
        let mut left = Others::NONE;
        for number in others.numbers() {
            let Some(frame) = self.frames.get_mut(number) else {
                break;
            };
            match send(&self.slots[number], frame) {
                Some(egress) => self.verdicts[number] = Verdict::Transmit(egress),
                None => left.add(number),
            }
        }
        left
    }
}

impl Flows {
    /// Rewrites those frames of a burst that go straight on and says where they leave; returns the
    /// others, which are unchanged.
    #[inline(always)]
    pub(super) fn send_straight(
        &mut self,
        burst: &mut Burst<'_>,
        snapshot: &Snapshot,
        umem: &Umem,
        now: u64,
    ) -> Others {
        let mut others = Others::all(burst.frames.len());
        if snapshot.sends_direct {
            let mut straight = self.straight(snapshot, umem, now);
            others = burst.each(|slot, frame| straight.send_direct(slot, frame));
        }
        if self.table.has_replies() && !others.is_empty() {
            others = self.translate_straight(others, burst, snapshot, umem, now);
        }
        if !snapshot.tunnel_paths().is_empty() && !others.is_empty() {
            others = self.wrap_straight(others, burst, snapshot, umem, now);
        }
        others
    }

    /// Sends those of NAT and FULLNAT, in both directions.
    #[inline(never)]
    fn translate_straight(
        &mut self,
        others: Others,
        burst: &mut Burst<'_>,
        snapshot: &Snapshot,
        umem: &Umem,
        now: u64,
    ) -> Others {
        let mut straight = self.straight(snapshot, umem, now);
        burst.each_of(others, |slot, frame| straight.send_translated(slot, frame))
    }

    /// Sends those of TUN.
    #[inline(never)]
    fn wrap_straight(
        &mut self,
        others: Others,
        burst: &mut Burst<'_>,
        snapshot: &Snapshot,
        umem: &Umem,
        now: u64,
    ) -> Others {
        let (mut last, mut grown) = (self.identification, 0);
        let mut straight = self.straight(snapshot, umem, now);
        let others = burst.each_of(others, |slot, frame| {
            let (egress, overhead) = straight.send_wrapped(slot, frame, &mut last)?;
            grown += u64::from(overhead);
            Some(egress)
        });
        self.identification = last;
        self.counters.tx_bytes += grown;
        others
    }

    /// A new one for each loop, which then has it in registers.
    #[inline(always)]
    fn straight<'a>(
        &'a mut self,
        snapshot: &'a Snapshot,
        umem: &'a Umem,
        now: u64,
    ) -> Straight<'a> {
        Straight {
            connections: self.table.straight(),
            paths: snapshot.paths(),
            tunnels: snapshot.tunnel_paths(),
            routes: &snapshot.routes,
            statistics: self.statistics.servers(),
            umem,
            now,
        }
    }
}

impl Straight<'_> {
    #[inline(always)]
    fn send_direct(&mut self, slot: &Slot, frame: &mut Frame) -> Option<PortIndex> {
        if slot.what != What::Plain {
            return None;
        }
        let connection = self.connections.sent(slot.candidate, &slot.key)?;
        let id = connection.server().0 as usize;
        let Path::Direct(hop) = self.paths.get(id)? else {
            return None;
        };
        if !direct::forward_plain(self.umem.bytes_mut(frame), &hop.addresses) {
            return None;
        }
        connection.refresh(self.now);
        if let Some(statistics) = self.statistics.get(id) {
            statistics.count_packet((frame.len() - L3) as u64);
        }
        Some(hop.port)
    }

    #[inline(always)]
    fn send_translated(&mut self, slot: &Slot, frame: &mut Frame) -> Option<PortIndex> {
        if slot.what != What::Plain {
            return None;
        }
        let found = self.connections.translated(slot.candidate, &slot.key);
        let (connection, reply, direction) = found?;
        let id = connection.server().0 as usize;
        let is_tcp = slot.key.is_tcp();
        let bytes = self.umem.bytes_mut(frame);
        let egress = match direction {
            Direction::Request => {
                let Path::Translated(hop) = self.paths.get(id)? else {
                    return None;
                };
                learn_way(reply, bytes);
                let rewrite = PlainRewrite::opposite(&reply.key, reply.network, reply.transport);
                (rewrite.forward(bytes, is_tcp, &hop.addresses)).then_some(hop.port)
            }
            Direction::Reply => {
                let hop = way_out(self.routes, reply, bytes)?;
                if bytes.len() > L3 + usize::from(self.routes.mtu(hop.port)) {
                    return None;
                }
                let (network, transport) = (reply.network.inverse(), reply.transport.inverse());
                let rewrite = PlainRewrite::opposite(connection.key(), network, transport);
                (rewrite.forward(bytes, is_tcp, &hop.addresses)).then_some(hop.port)
            }
        }?;
        connection.refresh(self.now);
        if let Some(statistics) = self.statistics.get(id) {
            let bytes = (frame.len() - L3) as u64;
            match direction {
                Direction::Request => statistics.count_packet(bytes),
                Direction::Reply => statistics.count_reply(bytes),
            }
        }
        Some(egress)
    }

    #[inline(always)]
    fn send_wrapped(
        &mut self,
        slot: &Slot,
        frame: &mut Frame,
        identification: &mut u16,
    ) -> Option<(PortIndex, u16)> {
        if slot.what != What::Plain {
            return None;
        }
        let connection = self.connections.sent(slot.candidate, &slot.key)?;
        let id = connection.server().0 as usize;
        let Path::Wrapped(number) = self.paths.get(id)? else {
            return None;
        };
        let TunnelPath { template, hop } = self.tunnels.get(*number as usize)?;
        let bytes = (frame.len() - L3) as u64;
        let variation = variation(identification, slot);
        if !template.forward_plain(self.umem, frame, &hop.addresses, variation) {
            return None;
        }
        connection.refresh(self.now);
        if let Some(statistics) = self.statistics.get(id) {
            statistics.count_packet(bytes);
        }
        Some((hop.port, template.overhead()))
    }
}
