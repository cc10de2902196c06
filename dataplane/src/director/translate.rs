//! Connections whose replies pass the director, which translates both directions: NAT.
//!
//! Nothing but the two keys of a connection decides what its packets become: a packet that has one
//! key is sent between the ends of the other, turned round. So replies go on when their real server was removed
//! from the configuration, and the way to the client is the only thing that replies look up.

use super::flows::Flows;
use super::fullnat::{self, is_particular};
use super::sending::Refusal;
use super::synproxy::{asks, shift};
use super::{Packet, Slot, What};
use crate::conn::{Connection, Direction, EntryIndex, Reply, Way, WayWord};
use crate::counters::DropReason;
use crate::flow::FlowKey;
use crate::forward::fragment;
use crate::forward::icmp::{self, OuterSource};
use crate::forward::rewrite::{Endpoint, Endpoints, Rewrite};
use crate::routes::{Routes, Via};
use crate::service::{Address, Hop, PortIndex, ServerId};
use crate::snapshot::Server;
use crate::wire;
use crate::wire::ethernet::{self, Addresses};
use crate::wire::tcp::flags;
use crate::xsk::umem::{Frame, Umem};

impl Flows {
    /// A packet that is not plain, of a connection that goes on as before. `None`, and nothing changed,
    /// for all other frames.
    pub(super) fn translate(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Option<PortIndex> {
        let Packet {
            snapshot,
            slot,
            umem,
            now,
            ..
        } = *packet;
        let (entry, reply, direction) = self.table.translated(slot.candidate, &slot.key)?;
        let connection = self.table.get(entry);
        if flags::changes_state(slot.tcp_flags) || !connection.state().is_kept() {
            return None;
        }
        let next_hop = match direction {
            Direction::Request => {
                let server = snapshot.server(connection.server())?;
                if !server.serves(connection) {
                    return None;
                }
                server.next_hop?
            }
            Direction::Reply => way_out(&snapshot.routes, reply.way, umem.bytes(frame))?,
        };
        if frame.len()
            > usize::from(slot.l3_offset) + usize::from(snapshot.routes.mtu(next_hop.port))
        {
            return None;
        }
        let (id, rewrite) = (connection.server(), rewrite(connection, &reply, direction));
        if direction == Direction::Request {
            self.learn_way(entry, packet, frame);
        }
        apply(&rewrite, slot, umem, frame, &next_hop).ok()?;
        self.table.get_mut(entry).refresh(now);
        self.count_translated(id, direction, slot, frame);
        Some(next_hop.port)
    }

    /// A request came in this frame: a client that is a neighbour is answered where it came from, by all workers.
    fn learn_way(&mut self, entry: EntryIndex, packet: &Packet<'_>, frame: &Frame) {
        let source = ethernet::up_to_source(packet.umem.bytes(frame));
        let ingress = packet.ingress;
        if source.is_some_and(|source| self.table.learn_way(entry, ingress, source)) {
            self.share(entry, packet.now);
            // Replies may wait because nothing is where the client was before.
            self.news = true;
        }
    }

    #[inline(always)]
    pub(super) fn count_translated(
        &self,
        id: ServerId,
        direction: Direction,
        slot: &Slot,
        frame: &Frame,
    ) {
        if let Some(statistics) = self.statistics.server(id) {
            let bytes = (frame.len() - usize::from(slot.l3_offset)) as u64;
            match direction {
                Direction::Request => statistics.count_packet(bytes),
                Direction::Reply => statistics.count_reply(bytes),
            }
        }
    }

    /// Sends a packet of a translated connection, whose state has been seen to.
    pub(super) fn forward_translated(
        &mut self,
        entry: EntryIndex,
        direction: Direction,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<PortIndex, Refusal> {
        let way = self.way(entry, direction, packet, frame)?;
        let Some(handshake) = self.table.handshake(entry) else {
            return self.send_translated(entry, direction, &way, packet, frame);
        };
        let umem = packet.umem;
        if asks(&handshake, direction, packet.slot) {
            self.ask_server(entry, handshake, packet, frame)?;
            let slot = &Slot::of(umem.bytes(frame), &self.table);
            let packet = &Packet { slot, ..*packet };
            return self.send_translated(entry, direction, &way, packet, frame);
        }
        let port = self.send_translated(entry, direction, &way, packet, frame)?;
        if handshake.is_open() {
            // Headers may be elsewhere than before.
            let slot = &Slot::of(umem.bytes(frame), &self.table);
            shift(&handshake, direction, slot, umem, frame);
        }
        Ok(port)
    }

    fn send_translated(
        &mut self,
        entry: EntryIndex,
        direction: Direction,
        (reply, next_hop): &(Reply, Hop),
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<PortIndex, Refusal> {
        let Packet {
            snapshot,
            slot,
            umem,
            ..
        } = *packet;
        let crosses = || fullnat::crosses(&self.table.get(entry).key(), reply);
        if reply.particular && (slot.what != What::IcmpError || crosses()) {
            return self.forward_particular(entry, direction, packet, frame, next_hop);
        }
        let id = self.table.get(entry).server();
        let (l3, mtu) = (
            usize::from(slot.l3_offset),
            snapshot.routes.mtu(next_hop.port),
        );
        fragment::check_size(umem.bytes(frame), l3, slot.is_v4, mtu)?;
        let connection = self.table.get(entry);
        let rewrite = rewrite(connection, reply, direction);
        if slot.what == What::IcmpError {
            let source = match (direction, self.local_address_of(entry)) {
                (Direction::Request, None) => OuterSource::Keep,
                (Direction::Request, Some(local)) => OuterSource::Set(local),
                (Direction::Reply, _) => OuterSource::Set(connection.key().destination()),
            };
            let bytes = umem.bytes_mut(frame);
            match slot.is_v4 {
                true => icmp::rewrite_error_v4(bytes, l3, &rewrite, source)?,
                false => icmp::rewrite_error_v6(bytes, l3, &rewrite, source)?,
            }
            write_addresses(bytes, next_hop)?;
        } else {
            apply(&rewrite, slot, umem, frame, next_hop)?;
        }
        self.count_translated(id, direction, slot, frame);
        Ok(next_hop.port)
    }

    /// Where a packet of a translated connection leaves.
    fn way(
        &mut self,
        entry: EntryIndex,
        direction: Direction,
        packet: &Packet<'_>,
        frame: &Frame,
    ) -> Result<(Reply, Hop), Refusal> {
        let (snapshot, bytes) = (packet.snapshot, packet.umem.bytes(frame));
        let id = self.table.get(entry).server();
        let Some(reply) = self.table.reply(entry) else {
            return Err(Refusal::Drop(DropReason::ServerUnavailable));
        };
        let hop = match direction {
            Direction::Request => {
                let server = snapshot.server(id);
                let Some(server) = server.filter(|server| server.method.rewrites_replies()) else {
                    return Err(Refusal::Drop(DropReason::ServerUnavailable));
                };
                // An ICMP error comes from wherever a router is.
                if packet.slot.what != What::IcmpError {
                    self.learn_way(entry, packet, frame);
                }
                server.next_hop
            }
            // The client's port may be gone, and is nothing that packets could be too long for.
            Direction::Reply => way_out(&snapshot.routes, reply.way, bytes)
                .filter(|hop| snapshot.routes.has_port(hop.port)),
        };
        let hop = hop.ok_or(Refusal::Wait(DropReason::NextHopUnresolved))?;
        Ok((reply, hop))
    }

    /// A new connection that would have this key for its replies is not to be.
    #[cold]
    fn conflict(&mut self, client: &FlowKey, key: FlowKey) -> Refusal {
        let reply = Reply {
            key,
            ..Reply::default()
        };
        self.give_back_local(client, &reply);
        Refusal::Drop(DropReason::TranslationConflict)
    }

    /// The reply half of a new connection to `server`.
    ///
    /// # Errors
    /// The real server could not tell the connection from another one of the same client, which
    /// came by another virtual server and goes on; or there is no local port for it.
    pub(super) fn reply(
        &mut self,
        packet: &Packet<'_>,
        server: &Server,
        frame: &Frame,
    ) -> Result<Reply, Refusal> {
        let client = &packet.slot.key;
        // Port 0 is every port: the one that the client asked for.
        let port = match server.port {
            0 => client.destination_port(),
            port => port,
        };
        let source = self.source_for_server(packet.snapshot, server, client)?;
        let key = FlowKey::new(
            server.address,
            port,
            source.address,
            source.port,
            client.protocol(),
        );
        if let Some((entry, _)) = self.table.find(self.table.place(&key), &key) {
            if !self.table.get(entry).state().is_over() {
                return Err(self.conflict(client, key));
            }
            self.remove(packet.snapshot, entry, packet.now);
        }
        if self.is_taken_elsewhere(client, &key) {
            return Err(self.conflict(client, key));
        }
        let before = endpoints(client);
        let after = Endpoints {
            source,
            destination: Endpoint {
                address: server.address,
                port,
            },
        };
        let (network, transport) = before.deltas(&after);
        let bytes = packet.umem.bytes(frame);
        let way = way_back(
            &packet.snapshot.routes,
            client.source(),
            packet.ingress,
            bytes,
        );
        Ok(Reply {
            key,
            network,
            transport,
            way: way.into(),
            particular: is_particular(packet.snapshot, server, client),
        })
    }
}

pub(super) fn endpoints(key: &FlowKey) -> Endpoints {
    Endpoints {
        source: Endpoint {
            address: key.source(),
            port: key.source_port(),
        },
        destination: Endpoint {
            address: key.destination(),
            port: key.destination_port(),
        },
    }
}

/// What becomes of a packet: it goes between the ends of the other direction's key.
#[inline(always)]
pub(super) fn rewrite(connection: &Connection, reply: &Reply, direction: Direction) -> Rewrite {
    match direction {
        Direction::Request => Rewrite::opposite(&reply.key, reply.network, reply.transport),
        Direction::Reply => Rewrite::opposite(
            &connection.key(),
            reply.network.inverse(),
            reply.transport.inverse(),
        ),
    }
}

#[inline(always)]
pub(super) fn apply(
    rewrite: &Rewrite,
    slot: &Slot,
    umem: &Umem,
    frame: &mut Frame,
    hop: &Hop,
) -> Result<(), DropReason> {
    let bytes = umem.bytes_mut(frame);
    let protocol = slot.key.protocol_number();
    if slot.what == What::Plain {
        let [l3, l4] = [wire::PLAIN_L3_OFFSET, wire::PLAIN_L4_OFFSET].map(usize::from);
        rewrite.apply_v4(bytes, l3, l4, protocol)?;
    } else {
        let [l3, l4] = [slot.l3_offset, slot.l4_offset].map(usize::from);
        match (slot.is_v4, slot.what == What::LaterFragment) {
            (true, false) => rewrite.apply_v4(bytes, l3, l4, protocol)?,
            (false, false) => rewrite.apply_v6(bytes, l3, l4, protocol)?,
            (true, true) => rewrite.apply_v4_addresses(bytes, l3)?,
            (false, true) => rewrite.apply_v6_addresses(bytes, l3)?,
        }
    }
    write_addresses(bytes, hop)
}

#[inline(always)]
pub(super) fn write_addresses(frame: &mut [u8], hop: &Hop) -> Result<(), DropReason> {
    let ethernet = frame
        .first_chunk_mut::<{ ethernet::HEADER_LEN }>()
        .ok_or(DropReason::Truncated)?;
    hop.addresses.write(ethernet);
    Ok(())
}

/// How replies to a client leave, whose first packet is `frame`.
fn way_back(routes: &Routes, client: Address, ingress: PortIndex, frame: &[u8]) -> WayWord {
    match routes.route(client) {
        Some(Via::Gateway(gateway)) => WayWord::gateway(gateway),
        Some(Via::Link(_)) | None => way_to_neighbor(ingress, frame),
    }
}

/// The same where no route to the client has a gateway. A client that is a neighbour elsewhere came by a way
/// that the kernel would not take back; there is no other MAC address to answer to.
#[inline(always)]
pub(super) fn way_to_neighbor(ingress: PortIndex, frame: &[u8]) -> WayWord {
    let source = ethernet::up_to_source(frame);
    WayWord::neighbor(ingress, source.unwrap_or_default())
}

/// How a reply, which is `frame`, reaches the client by `way`; `None` while its gateway is not resolved. The port may be one
/// that no packet fits through, because it is gone ([`Routes::has_port`]).
#[inline(always)]
pub(super) fn way_out(routes: &Routes, way: Way, frame: &[u8]) -> Option<Hop> {
    match way {
        Way::Gateway(gateway) => routes.gateway(gateway).copied(),
        Way::Neighbor { port, mac } => {
            // Replay and tests know no interfaces: there the reply's own destination is ours.
            let own = match routes.egress(port) {
                Some(own) => own.mac,
                None if routes.has_port(port) => ethernet::destination(frame)?,
                None => return None,
            };
            Some(Hop {
                addresses: Addresses::new(mac, own),
                port,
            })
        }
    }
}
