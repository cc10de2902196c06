//! The straight way, for nearly all packets: plain ones of connections that go on as before. Stage by stage
//! over the burst, at last a loop for each way to forward; what none of them takes, [`Flows::decide`]
//! decides.
//!
//! All that depends on the connection, its real server and the configuration was decided before: by
//! the connection table, and by the snapshot ([`Path`]).

use std::hint::cold_path;

use super::burst::{FrameSet, Notes, PlainNotes, Read};
use super::flows::Flows;
use super::sending::variation;
use super::translate::way_out;
use crate::conn::{Candidate, StraightConnections};
use crate::counters::ServerStatistics;
use crate::forward::direct;
use crate::forward::rewrite::PlainRewrite;
use crate::forward::tunnel::{Front, Variation};
use crate::handoff::Arrival;
use crate::processor::Loop;
use crate::routes::Routes;
use crate::service::PortIndex;
use crate::snapshot::{Path, Snapshot, TunnelPath};
use crate::wire;
use crate::wire::ethernet;
use crate::wire::ipv4::Life;
use crate::xsk::umem::{Frame, HEAD, Packets, Umem};

/// Where the IP header of a plain packet is.
pub(super) const L3: usize = wire::PLAIN_L3_OFFSET as usize;

/// What the loops over a burst look at. All of it is found before they begin, so that it need not be
/// found again for each packet.
struct Straight<'a> {
    connections: StraightConnections<'a>,
    paths: &'a [Path],
    tunnels: &'a [TunnelPath],
    routes: &'a Routes,
    statistics: &'a [ServerStatistics],
    now: u64,
}

/// A burst on its way: what goes straight on is sent.
pub(super) struct SendStraight<'a> {
    pub(super) flows: &'a mut Flows,
    pub(super) notes: &'a mut Notes,
    pub(super) umem: &'a Umem,
    pub(super) frames: &'a mut [Frame],
    /// One is that of all.
    pub(super) arrivals: &'a [Arrival],
    pub(super) snapshot: &'a Snapshot,
    /// As in [`Director::process`](super::Director::process).
    pub(super) now: u64,
}

/// What was done with a burst.
pub(super) struct Sent {
    pub(super) read: Read,
    /// Those that did not go straight on; they are unchanged.
    pub(super) others: FrameSet,
    /// By which interface all leave, if they do.
    pub(super) egress: Option<PortIndex>,
}

impl Loop for SendStraight<'_> {
    type Result = Sent;

    #[inline(always)]
    fn run(self) -> Sent {
        let Self {
            flows,
            notes,
            umem,
            frames,
            arrivals,
            snapshot,
            now,
        } = self;
        let count = frames.len();
        let mut packets = umem.packets(frames);
        packets.prefetch();
        let read = notes.read(&packets, &flows.table);
        notes.find_candidates(&read, count, &flows.table);

        let (processor, plain) = (notes.processor, &mut notes.plain);
        let all = FrameSet::all(count);
        // What has no candidate may begin a connection, and does not go this way.
        let new = all.among(plain.unknown);
        let mut known = all.without(new);
        if snapshot.sends_direct && new.is_empty() {
            known = processor.run(SendDirect::<true> {
                straight: flows.straight(snapshot, now),
                plain,
                packets: packets.reborrow(),
                others: known,
            });
        } else if snapshot.sends_direct && !known.is_empty() {
            known = processor.run(SendDirect::<false> {
                straight: flows.straight(snapshot, now),
                plain,
                packets: packets.reborrow(),
                others: known,
            });
        }
        if flows.table.has_replies() && !known.is_empty() {
            let ingress = arrivals[0].ingress;
            let elsewhere = came_elsewhere(arrivals);
            let others = known.without(elsewhere);
            known = match flows.owners {
                None => processor.run(SendTranslated::<true, false> {
                    straight: flows.straight(snapshot, now),
                    plain,
                    packets: packets.reborrow(),
                    others,
                    ingress,
                }),
                Some(_) => processor.run(SendTranslated::<true, true> {
                    straight: flows.straight(snapshot, now),
                    plain,
                    packets: packets.reborrow(),
                    others,
                    ingress,
                }),
            }
            .with(known.among(elsewhere));
        }
        if flows.table.has_replies() && !known.is_empty() {
            known = processor.run(SendTranslated::<false, false> {
                straight: flows.straight(snapshot, now),
                plain,
                packets: packets.reborrow(),
                others: known,
                ingress: arrivals[0].ingress,
            });
        }
        if !snapshot.tunnel_paths().is_empty() && !known.with(new).is_empty() {
            let last = flows.identification;
            let left = processor.run(SendWrapped {
                straight: flows.straight(snapshot, now),
                plain,
                packets,
                others: known,
                last,
            });
            let sent = known.without(left);
            flows.identification = last.wrapping_add(sent.end());
            flows.counters.tx_bytes += u64::from(sent.len()) * u64::from(Front::OVERHEAD);
            known = left;
            if snapshot.wraps_otherwise && !known.is_empty() {
                known = flows.wrap_others(known, notes, (umem, frames), snapshot, now);
            }
        }
        let others = known.with(new);
        let egress = match others.is_empty() {
            true => only_one(&notes.plain.ports[..count]),
            false => None,
        };
        Sent {
            read,
            others,
            egress,
        }
    }
}

/// Those that did not come by the interface of the first one: only other workers hand over such bursts.
#[inline(always)]
fn came_elsewhere(arrivals: &[Arrival]) -> FrameSet {
    let (first, mut elsewhere) = (arrivals[0].ingress, FrameSet::NONE);
    for (number, _) in (arrivals.iter().enumerate()).filter(|(_, one)| one.ingress != first) {
        elsewhere.add(number);
    }
    elsewhere
}

/// The interface, if they are all the same one.
#[inline(always)]
pub(super) fn only_one(ports: &[PortIndex]) -> Option<PortIndex> {
    let first = *ports.first()?;
    // Without an early end, so that it is done for many at once.
    let different = ports
        .iter()
        .fold(0, |different, port| different | (port.0 ^ first.0));
    (different == 0).then_some(first)
}

impl Flows {
    /// Sends those of TUN that get more than a [`Front`].
    #[inline(never)]
    fn wrap_others(
        &mut self,
        others: FrameSet,
        notes: &mut Notes,
        (umem, frames): (&Umem, &mut [Frame]),
        snapshot: &Snapshot,
        now: u64,
    ) -> FrameSet {
        let (mut left, mut grown) = (FrameSet::NONE, 0);
        let mut last = self.identification;
        let mut straight = self.straight(snapshot, now);
        let plain = &mut notes.plain;
        for (number, frame) in frames.iter_mut().enumerate() {
            if !others.has(number) {
                continue;
            }
            let mut next = last;
            let variation = variation(&mut next, plain.places.get(number));
            match straight.wrap_other(plain.candidates[number], (umem, frame), variation) {
                Some((port, overhead)) => {
                    last = next;
                    plain.ports[number] = port;
                    grown += u64::from(overhead);
                }
                None => left.add(number),
            }
        }
        self.identification = last;
        self.counters.tx_bytes += grown;
        left
    }

    /// A new one for each loop, which then has it in registers.
    #[inline(always)]
    fn straight<'a>(&'a mut self, snapshot: &'a Snapshot, now: u64) -> Straight<'a> {
        Straight {
            connections: self.table.straight(),
            paths: snapshot.paths(),
            tunnels: snapshot.tunnel_paths(),
            routes: &snapshot.routes,
            statistics: self.statistics.servers(),
            now,
        }
    }
}

/// Sends those of DR, of `ALL` packets or of the others. This loop and the next ones are functions of their own, each of
/// which has the registers for itself; they return what is left.
struct SendDirect<'a, const ALL: bool> {
    straight: Straight<'a>,
    plain: &'a mut PlainNotes,
    packets: Packets<'a>,
    others: FrameSet,
}

impl<const ALL: bool> Loop for SendDirect<'_, ALL> {
    type Result = FrameSet;

    #[inline(always)]
    fn run(self) -> FrameSet {
        let count = self.packets.count();
        let mut direct = DirectLoop {
            straight: self.straight.with_servers(),
            candidates: &self.plain.candidates[..count],
            lives: &self.plain.headers.lives[..count],
            ports: &mut self.plain.ports[..count],
            packets: self.packets,
        };
        let mut left = FrameSet::NONE;
        if ALL {
            for number in 0..count {
                if direct.send(number).is_none() {
                    leave(&mut left, number);
                }
            }
        } else {
            for number in self.others.numbers().take_while(|number| *number < count) {
                if direct.send(number).is_none() {
                    leave(&mut left, number);
                }
            }
        }
        left
    }
}

/// The same, while it goes on.
struct DirectLoop<'a> {
    straight: Straight<'a>,
    candidates: &'a [Candidate],
    lives: &'a [Life],
    ports: &'a mut [PortIndex],
    packets: Packets<'a>,
}

impl DirectLoop<'_> {
    #[inline(always)]
    fn send(&mut self, number: usize) -> Option<()> {
        let (candidate, life) = (self.candidates[number], self.lives[number]);
        let (length, head) = (self.packets.length(number), self.packets.head_mut(number));
        let port = self.straight.send_direct(candidate, life, length, head)?;
        self.ports[number] = port;
        Some(())
    }
}

/// Adds one that does not go straight on. Not inlined, so that in the loops `left` takes no register.
#[cold]
#[inline(never)]
fn leave(left: &mut FrameSet, number: usize) {
    left.add(number);
}

/// Sends those of NAT and FULLNAT that go one way: `REQUESTS`, or replies.
struct SendTranslated<'a, const REQUESTS: bool, const SHARED: bool> {
    straight: Straight<'a>,
    plain: &'a mut PlainNotes,
    packets: Packets<'a>,
    others: FrameSet,
    /// By which all requests came.
    ingress: PortIndex,
}

impl<const REQUESTS: bool, const SHARED: bool> Loop for SendTranslated<'_, REQUESTS, SHARED> {
    type Result = FrameSet;

    #[inline(always)]
    fn run(self) -> FrameSet {
        let (mut straight, plain, mut packets) =
            (self.straight.with_servers(), self.plain, self.packets);
        let count = packets.count();
        let mut left = FrameSet::NONE;
        for number in self.others.numbers().take_while(|number| *number < count) {
            let (candidate, life) = (plain.candidates[number], plain.headers.lives[number]);
            let (length, head) = (packets.length(number), packets.head_mut(number));
            let sent = match REQUESTS {
                true => {
                    straight.send_request::<SHARED>(candidate, life, length, self.ingress, head)
                }
                false => straight.send_reply(candidate, life, length, head),
            };
            match sent {
                Some(port) => plain.ports[number] = port,
                None => leave(&mut left, number),
            }
        }
        left
    }
}

/// Sends those of TUN that get no more than a [`Front`], with the identifications that follow `last`.
struct SendWrapped<'a> {
    straight: Straight<'a>,
    plain: &'a mut PlainNotes,
    packets: Packets<'a>,
    others: FrameSet,
    last: u16,
}

impl Loop for SendWrapped<'_> {
    type Result = FrameSet;

    #[inline(always)]
    fn run(self) -> FrameSet {
        let (mut straight, plain, mut packets) =
            (self.straight.with_servers(), self.plain, self.packets);
        let count = packets.count();
        plain.outers.find(&plain.headers, count, self.last);
        let mut left = FrameSet::NONE;
        for number in self.others.numbers().take_while(|number| *number < count) {
            match straight.send_wrapped(plain, &mut packets, number) {
                Some(port) => plain.ports[number] = port,
                None => leave(&mut left, number),
            }
        }
        left
    }
}

impl Straight<'_> {
    /// With as many paths as statistics, so that in a loop one comparison answers for both. There are
    /// statistics for all servers.
    #[inline(always)]
    fn with_servers(self) -> Self {
        let servers = self.paths.len().min(self.statistics.len());
        Self {
            paths: &self.paths[..servers],
            statistics: &self.statistics[..servers],
            ..self
        }
    }

    #[inline(always)]
    fn send_direct(
        &mut self,
        candidate: Candidate,
        life: Life,
        length: u16,
        head: &mut [u8; HEAD],
    ) -> Option<PortIndex> {
        let connection = self.connections.request(candidate, head)?;
        let id = connection.sends_to() as usize;
        let Path::Direct(hop) = self.paths.get(id)? else {
            return None;
        };
        direct::forward_plain(head, life, &hop.addresses);
        connection.refresh(self.now);
        self.statistics[id].count_packet(ip_bytes(length));
        Some(hop.port)
    }

    #[inline(always)]
    fn send_request<const SHARED: bool>(
        &mut self,
        candidate: Candidate,
        life: Life,
        length: u16,
        ingress: PortIndex,
        head: &mut [u8; HEAD],
    ) -> Option<PortIndex> {
        let connection = self.connections.request(candidate, head)?;
        let id = connection.exchanges_with() as usize;
        let Path::Translated(hop) = self.paths.get(id)? else {
            return None;
        };
        let source = ethernet::up_to_source(head)?;
        if let Some(way) = connection.way().learned(ingress, source) {
            cold_path();
            if SHARED {
                return None; // the others are to be told
            }
            connection.set_way(way);
        }
        connection.refresh(self.now);
        self.statistics[id].count_packet(ip_bytes(length));
        let rewrite = PlainRewrite::opposite(connection.plain_reply_key(), connection.deltas());
        rewrite.forward(head, life, &hop.addresses);
        Some(hop.port)
    }

    #[inline(always)]
    fn send_reply(
        &mut self,
        candidate: Candidate,
        life: Life,
        length: u16,
        head: &mut [u8; HEAD],
    ) -> Option<PortIndex> {
        let connection = self.connections.reply(candidate, head)?;
        let hop = way_out(self.routes, connection.way().into(), head)?;
        if usize::from(length) > L3 + usize::from(self.routes.mtu(hop.port)) {
            return None;
        }
        let (network, transport) = connection.deltas();
        let back = (network.inverse(), transport.inverse());
        PlainRewrite::opposite(connection.plain_key(), back).forward(head, life, &hop.addresses);
        connection.refresh(self.now);
        let id = connection.server().0 as usize;
        if let Some(statistics) = self.statistics.get(id) {
            statistics.count_reply(ip_bytes(length));
        }
        Some(hop.port)
    }

    #[inline(always)]
    fn send_wrapped(
        &mut self,
        plain: &PlainNotes,
        packets: &mut Packets<'_>,
        number: usize,
    ) -> Option<PortIndex> {
        let candidate = plain.candidates[number];
        let connection = self.connections.request(candidate, packets.head(number))?;
        let id = connection.sends_to() as usize;
        let Path::Wrapped(path) = self.paths.get(id)? else {
            return None;
        };
        let path = self.tunnels.get(*path as usize)?;
        let length = packets.length(number);
        let (front, life) = (path.front.as_ref()?, plain.headers.lives[number]);
        if !front.wrap(packets, number, life, &plain.outers) {
            return None;
        }
        connection.refresh(self.now);
        self.statistics[id].count_packet(ip_bytes(length));
        Some(path.hop.port)
    }

    /// The same with any other headers; the second result is how many bytes longer it became.
    fn wrap_other(
        &mut self,
        candidate: Candidate,
        (umem, frame): (&Umem, &mut Frame),
        variation: Variation,
    ) -> Option<(PortIndex, u16)> {
        let packets = umem.packets(std::slice::from_mut(frame));
        let connection = self.connections.request(candidate, packets.head(0))?;
        let length = packets.length(0);
        let id = connection.sends_to() as usize;
        let Path::Wrapped(path) = self.paths.get(id)? else {
            return None;
        };
        let TunnelPath { template, hop, .. } = self.tunnels.get(*path as usize)?;
        if !template.forward_plain(umem, frame, &hop.addresses, variation) {
            return None;
        }
        connection.refresh(self.now);
        self.statistics[id].count_packet(ip_bytes(length));
        Some((hop.port, template.overhead()))
    }
}

/// Of a plain frame of this length, those that are counted.
#[inline(always)]
fn ip_bytes(length: u16) -> u64 {
    u64::from(u32::from(length).wrapping_sub(u32::from(wire::PLAIN_L3_OFFSET)))
}
