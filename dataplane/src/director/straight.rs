//! The straight way, for nearly all packets: plain ones of connections that go on as before. A loop over
//! the burst for each way to forward; what none of them takes, [`Flows::decide`] decides.
//!
//! All that depends on the connection, its real server and the configuration was decided before: by
//! the connection table, and by the snapshot ([`Path`]).

use super::flows::Flows;
use super::sending::variation;
use super::translate::{learn_way, rewrite, way_out};
use super::{Slot, Verdict, What};
use crate::conn::{ConnectionTable, Direction};
use crate::counters::WorkerStatistics;
use crate::device::BURST;
use crate::forward::direct;
use crate::service::PortIndex;
use crate::snapshot::{Path, Snapshot};
use crate::wire;
use crate::xsk::umem::{Frame, Umem};

/// Where the IP header of a plain packet is.
const L3: usize = wire::PLAIN_L3_OFFSET as usize;

/// The frames of a burst that are still to be decided, a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Others(u64);

const _: () = assert!(BURST <= u64::BITS as usize);

impl Others {
    pub(super) const NONE: Self = Self(0);
    const ALL: Self = Self(u64::MAX);

    #[inline(always)]
    fn has(self, number: usize) -> bool {
        self.0 >> number & 1 != 0
    }

    #[inline(always)]
    pub(super) fn add(&mut self, number: usize) {
        self.0 |= 1 << number;
    }

    #[inline(always)]
    pub(super) fn remove(&mut self, number: usize) {
        self.0 &= !(1 << number);
    }

    #[inline(always)]
    fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Their numbers in the burst, ascending.
    pub(super) fn numbers(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let number = left.trailing_zeros() as usize;
            left &= left.checked_sub(1)?;
            Some(number)
        })
    }
}

/// What the loops look at besides the connections.
#[derive(Clone, Copy)]
pub(super) struct Burst<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) slots: &'a [Slot],
    pub(super) umem: &'a Umem,
    /// As in [`Director::process`](super::Director::process).
    pub(super) now: u64,
}

impl Burst<'_> {
    /// Lets `send` try the frames in `others`; it says where one leaves, and changes none that does
    /// not. Returns those.
    #[inline(always)]
    fn each(
        &self,
        others: Others,
        frames: &mut [Frame],
        verdicts: &mut [Verdict],
        mut send: impl FnMut(&Slot, &mut Frame) -> Option<PortIndex>,
    ) -> Others {
        let mut left = Others::NONE;
        let burst = self.slots.iter().zip(frames).zip(verdicts);
        for (number, ((slot, frame), verdict)) in burst.enumerate() {
            if !others.has(number) {
                continue;
            }
            match send(slot, frame) {
                Some(egress) => *verdict = Verdict::Transmit(egress),
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
        burst: &Burst<'_>,
        frames: &mut [Frame],
        verdicts: &mut [Verdict],
    ) -> Others {
        let Burst { snapshot, now, .. } = *burst;
        let mut others = Others(Others::ALL.0 >> (BURST - frames.len()));
        let (table, statistics) = (&mut self.table, &*self.statistics);
        if snapshot.sends_direct {
            others = burst.each(Others::ALL, frames, verdicts, |slot, frame| {
                send_direct(table, statistics, snapshot, slot, burst.umem, frame, now)
            });
        }
        if table.has_replies() && !others.is_empty() {
            others = self.straight_translated(burst, others, frames, verdicts);
        }
        if snapshot.wraps && !others.is_empty() {
            others = self.straight_wrapped(burst, others, frames, verdicts);
        }
        others
    }

    /// Those of NAT and FULLNAT, in both directions.
    #[inline(never)]
    fn straight_translated(
        &mut self,
        burst: &Burst<'_>,
        others: Others,
        frames: &mut [Frame],
        verdicts: &mut [Verdict],
    ) -> Others {
        let Burst {
            snapshot,
            umem,
            now,
            ..
        } = *burst;
        let (table, statistics) = (&mut self.table, &*self.statistics);
        burst.each(others, frames, verdicts, |slot, frame| {
            send_translated(table, statistics, snapshot, slot, umem, frame, now)
        })
    }

    /// Those of TUN.
    #[inline(never)]
    fn straight_wrapped(
        &mut self,
        burst: &Burst<'_>,
        others: Others,
        frames: &mut [Frame],
        verdicts: &mut [Verdict],
    ) -> Others {
        let Burst {
            snapshot,
            umem,
            now,
            ..
        } = *burst;
        let Self {
            table,
            statistics,
            identification,
            counters,
            ..
        } = self;
        burst.each(others, frames, verdicts, |slot, frame| {
            if slot.what != What::Plain {
                return None;
            }
            let connection = table.straight(slot.candidate, &slot.key)?;
            let id = connection.server();
            let Path::Wrapped(tunnel) = snapshot.path(id)? else {
                return None;
            };
            let tunnel = snapshot.tunnel_path(*tunnel)?;
            let bytes = (frame.len() - L3) as u64;
            let variation = variation(identification, slot);
            let addresses = &tunnel.hop.addresses;
            let wrapped = tunnel
                .template
                .forward(umem, frame, L3, addresses, variation);
            wrapped.ok()?;
            connection.refresh(now);
            counters.tx_bytes += u64::from(tunnel.template.overhead());
            if let Some(statistics) = statistics.server(id) {
                statistics.count_packet(bytes);
            }
            Some(tunnel.hop.port)
        })
    }
}

#[inline(always)]
fn send_direct(
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
    let Path::Direct(hop) = snapshot.path(id)? else {
        return None;
    };
    if !direct::forward_plain(umem.bytes_mut(frame), &hop.addresses) {
        return None;
    }
    connection.refresh(now);
    if let Some(statistics) = statistics.server(id) {
        statistics.count_packet((frame.len() - L3) as u64);
    }
    Some(hop.port)
}

#[inline(always)]
fn send_translated(
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
    let (connection, reply, direction) = table.straight_translated(slot.candidate, &slot.key)?;
    let id = connection.server();
    let bytes = umem.bytes_mut(frame);
    let hop = match direction {
        Direction::Request => {
            let Path::Translated(hop) = snapshot.path(id)? else {
                return None;
            };
            learn_way(reply, bytes);
            *hop
        }
        Direction::Reply => {
            let hop = way_out(&snapshot.routes, reply, bytes)?;
            if bytes.len() > L3 + usize::from(snapshot.routes.mtu(hop.port)) {
                return None;
            }
            hop
        }
    };
    let rewrite = rewrite(connection, reply, direction);
    (rewrite.forward_plain(bytes, slot.key.is_tcp(), &hop.addresses)).ok()?;
    connection.refresh(now);
    if let Some(statistics) = statistics.server(id) {
        let bytes = (frame.len() - L3) as u64;
        match direction {
            Direction::Request => statistics.count_packet(bytes),
            Direction::Reply => statistics.count_reply(bytes),
        }
    }
    Some(hop.port)
}
