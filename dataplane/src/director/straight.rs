//! The straight way, for nearly all packets: plain ones of connections that go on as before. A loop over
//! the burst for each way to forward; what none of them takes, [`Flows::decide`] decides.
//!
//! All that depends on the connection, its real server and the configuration was decided before: by
//! the connection table, and by the snapshot ([`Path`]).

use std::hint::cold_path;

use super::burst::{Notes, Others, PlainNotes};
use super::flows::Flows;
use super::sending::variation;
use super::translate::{learn_way, way_out};
use crate::conn::{Candidate, Direction, StraightConnections};
use crate::counters::ServerStatistics;
use crate::flow::PlainKey;
use crate::forward::direct;
use crate::forward::rewrite::PlainRewrite;
use crate::forward::tunnel::Variation;
use crate::processor::Loop;
use crate::routes::Routes;
use crate::service::PortIndex;
use crate::snapshot::{Path, Snapshot, TunnelPath};
use crate::wire;
use crate::xsk::umem::{Frame, Packets, Umem};

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

impl Flows {
    /// Rewrites those plain packets that go straight on, but for TUN's, and notes where they leave;
    /// returns the others, which are unchanged.
    #[inline(always)]
    pub(super) fn send_straight(
        &mut self,
        notes: &mut Notes,
        packets: &mut Packets<'_>,
        snapshot: &Snapshot,
        now: u64,
    ) -> Others {
        let mut others = Others::all(packets.count());
        if snapshot.sends_direct {
            others = notes.processor.run(SendDirect {
                straight: self.straight(snapshot, now),
                plain: &mut notes.plain,
                packets: packets.reborrow(),
            });
        }
        if self.table.has_replies() && !others.is_empty() {
            others = notes.processor.run(SendTranslated {
                straight: self.straight(snapshot, now),
                plain: &mut notes.plain,
                packets: packets.reborrow(),
                others,
            });
        }
        others
    }

    /// The same for TUN's.
    pub(super) fn wrap_straight(
        &mut self,
        others: Others,
        notes: &mut Notes,
        (umem, frames): (&Umem, &mut [Frame]),
        snapshot: &Snapshot,
        now: u64,
    ) -> Others {
        let mut last = self.identification;
        let (others, grown) = notes.processor.run(SendWrapped {
            straight: self.straight(snapshot, now),
            plain: &mut notes.plain,
            umem,
            frames,
            others,
            identification: &mut last,
        });
        self.identification = last;
        self.counters.tx_bytes += grown;
        others
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

/// Sends all packets of DR.
struct SendDirect<'a> {
    straight: Straight<'a>,
    plain: &'a mut PlainNotes,
    packets: Packets<'a>,
}

impl Loop for SendDirect<'_> {
    type Result = Others;

    #[inline(always)]
    fn run(self) -> Others {
        let (mut straight, mut packets) = (self.straight.with_servers(), self.packets);
        let count = packets.count();
        let notes = self.plain;
        let (first, second) = notes.keys.words(count);
        let (candidates, ports) = (&notes.candidates[..count], &mut notes.ports[..count]);
        let mut left = Others::NONE;
        for number in 0..count {
            let key = PlainKey::from_words([first[number], second[number]]);
            match straight.send_direct(&key, candidates[number], &mut packets, number) {
                Some(port) => ports[number] = port,
                None => {
                    cold_path();
                    left.add(number);
                }
            }
        }
        left
    }
}

/// Sends those of NAT and FULLNAT, in both directions.
struct SendTranslated<'a> {
    straight: Straight<'a>,
    plain: &'a mut PlainNotes,
    packets: Packets<'a>,
    others: Others,
}

impl Loop for SendTranslated<'_> {
    type Result = Others;

    #[inline(always)]
    fn run(self) -> Others {
        let (mut straight, mut packets) = (self.straight.with_servers(), self.packets);
        let plain = self.plain;
        let mut left = Others::NONE;
        for number in self.others.numbers() {
            let (key, candidate) = (plain.keys.get(number), plain.candidates[number]);
            match straight.send_translated(&key, candidate, &mut packets, number) {
                Some(port) => plain.ports[number] = port,
                None => left.add(number),
            }
        }
        left
    }
}

/// Sends those of TUN; the second result is how many bytes longer they became.
struct SendWrapped<'a> {
    straight: Straight<'a>,
    plain: &'a mut PlainNotes,
    umem: &'a Umem,
    frames: &'a mut [Frame],
    others: Others,
    identification: &'a mut u16,
}

impl Loop for SendWrapped<'_> {
    type Result = (Others, u64);

    #[inline(always)]
    fn run(self) -> (Others, u64) {
        let (plain, mut last, mut grown) = (self.plain, *self.identification, 0);
        let mut straight = self.straight.with_servers();
        let mut left = Others::NONE;
        for number in self.others.numbers() {
            let Some(frame) = self.frames.get_mut(number) else {
                break;
            };
            let connection = (&plain.keys.get(number), plain.candidates[number]);
            let variation = || variation(&mut last, plain.places[number]);
            match straight.send_wrapped(connection, self.umem, frame, variation) {
                Some((port, overhead)) => {
                    plain.ports[number] = port;
                    grown += u64::from(overhead);
                }
                None => left.add(number),
            }
        }
        *self.identification = last;
        (left, grown)
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
        key: &PlainKey,
        candidate: Candidate,
        packets: &mut Packets<'_>,
        number: usize,
    ) -> Option<PortIndex> {
        let connection = self.connections.sent(candidate, key)?;
        let id = connection.server().0 as usize;
        let Path::Direct(hop) = self.paths.get(id)? else {
            return None;
        };
        if !direct::forward_plain(packets.head_mut(number), &hop.addresses) {
            return None;
        }
        connection.refresh(self.now);
        let bytes =
            u32::from(packets.length(number)).wrapping_sub(u32::from(wire::PLAIN_L3_OFFSET));
        self.statistics[id].count_packet(u64::from(bytes));
        Some(hop.port)
    }

    #[inline(always)]
    fn send_translated(
        &mut self,
        key: &PlainKey,
        candidate: Candidate,
        packets: &mut Packets<'_>,
        number: usize,
    ) -> Option<PortIndex> {
        let found = self.connections.translated(candidate, key);
        let (connection, reply, direction) = found?;
        let id = connection.server().0 as usize;
        let is_tcp = key.is_tcp();
        let length = usize::from(packets.length(number));
        let head = packets.head_mut(number);
        let egress = match direction {
            Direction::Request => {
                let Path::Translated(hop) = self.paths.get(id)? else {
                    return None;
                };
                learn_way(reply, head);
                let rewrite = PlainRewrite::opposite(&reply.key, reply.network, reply.transport);
                (rewrite.forward(head, is_tcp, &hop.addresses)).then_some(hop.port)
            }
            Direction::Reply => {
                let hop = way_out(self.routes, reply, head)?;
                if length > L3 + usize::from(self.routes.mtu(hop.port)) {
                    return None;
                }
                let (network, transport) = (reply.network.inverse(), reply.transport.inverse());
                let rewrite = PlainRewrite::opposite(connection.key(), network, transport);
                (rewrite.forward(head, is_tcp, &hop.addresses)).then_some(hop.port)
            }
        }?;
        connection.refresh(self.now);
        if let Some(statistics) = self.statistics.get(id) {
            let bytes = (length - L3) as u64;
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
        (key, candidate): (&PlainKey, Candidate),
        umem: &Umem,
        frame: &mut Frame,
        variation: impl FnOnce() -> Variation,
    ) -> Option<(PortIndex, u16)> {
        let connection = self.connections.sent(candidate, key)?;
        let id = connection.server().0 as usize;
        let Path::Wrapped(number) = self.paths.get(id)? else {
            return None;
        };
        let TunnelPath { template, hop } = self.tunnels.get(*number as usize)?;
        let bytes = (frame.len() - L3) as u64;
        if !template.forward_plain(umem, frame, &hop.addresses, variation()) {
            return None;
        }
        connection.refresh(self.now);
        self.statistics[id].count_packet(bytes);
        Some((hop.port, template.overhead()))
    }
}
