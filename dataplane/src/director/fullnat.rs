//! FULLNAT: NAT, and the source of requests becomes an address of the director, so that real servers need no
//! route by which their replies pass the director.
//!
//! All that [`translate`](super::translate) says of NAT holds; here is what it takes besides: a local
//! address and port for each connection, of its own worker's range; and the packets of *particular*
//! connections, whose keys do not say all that becomes of them, because the real server is told who
//! the client is ([`introduction`]), or because it has another IP version (NAT64).

mod introduction;

use introduction::Addition;
pub(super) use introduction::Introduction;

use super::flows::Flows;
use super::sending::Refusal;
use super::translate::{apply, endpoints, rewrite, write_addresses};
use super::{Packet, Slot, What};
use crate::conn::{Direction, EntryIndex, Reply, State};
use crate::counters::DropReason;
use crate::flow::FlowKey;
use crate::forward::fragment::{self, Oversize};
use crate::forward::nat64::{self, Translation};
use crate::forward::rewrite::{Endpoint, Endpoints};
use crate::forward::toa::ClientOption;
use crate::service::{Address, ClientAddress, ForwardingMethod, Hop, PortIndex, ServerId};
use crate::snapshot::{Server, Snapshot};
use crate::wire::tcp::{self, flags};
use crate::wire::{ipv4, ipv6};
use crate::xsk::umem::Frame;

impl Flows {
    /// Where the real server sees a new connection of `client` come from. Of FULLNAT that is a port which the
    /// connection has to give back.
    ///
    /// # Errors
    /// No port is free.
    pub(super) fn source_for_server(
        &mut self,
        snapshot: &Snapshot,
        server: &Server,
        client: &FlowKey,
    ) -> Result<Endpoint, Refusal> {
        if server.method != ForwardingMethod::FullNat {
            return Ok(Endpoint {
                address: client.source(),
                port: client.source_port(),
            });
        }
        let own = snapshot.service_of(server);
        own.and_then(|own| self.local_ports.allocate(own.id, server.address.is_v4()))
            .ok_or(Refusal::Drop(DropReason::NoLocalPort))
    }

    /// The local end of a connection that is removed, or was not made, serves others.
    pub(super) fn give_back_local(&mut self, client: &FlowKey, reply: &Reply) {
        if let Some(local) = local_end(client, reply) {
            self.local_ports.free(local);
        }
    }

    /// The address that a connection's real server sends to, if that is an address of the director.
    pub(super) fn local_address_of(&self, entry: EntryIndex) -> Option<Address> {
        let reply = self.table.reply(entry)?;
        let local = local_end(&self.table.get(entry).key(), &reply)?;
        Some(local.address)
    }

    /// Takes note of what the server of a new connection is to be told.
    pub(super) fn introduce(&mut self, entry: EntryIndex, packet: &Packet<'_>) {
        let connection = self.table.get(entry);
        let snapshot = packet.snapshot;
        let service = snapshot
            .server(connection.server())
            .and_then(|server| snapshot.service_of(server));
        let way = service.map_or(ClientAddress::None, |own| own.full_nat.client_address);
        let ends = endpoints(&connection.key());
        if let Some(introduction) = self.introductions.get_mut(entry.number()) {
            // Of a SYN proxy's connection the first packet is an ACK.
            let is_answer =
                packet.slot.tcp_flags & flags::SYN != 0 && packet.slot.tcp_flags & flags::ACK != 0;
            let begins = connection.state() == State::SynRecv && !is_answer;
            *introduction = Introduction::new(way, &ends, packet.slot, begins);
        }
    }

    /// What a server that is told its clients by TOA has not acknowledged yet.
    pub(super) fn client_option(&self, entry: EntryIndex) -> Option<ClientOption> {
        // Of any other connection it is an earlier one's.
        self.table.reply(entry).filter(|reply| reply.particular)?;
        let introduction = self.introductions.get(entry.number())?;
        let client = endpoints(&self.table.get(entry).key()).source;
        matches!(introduction, Introduction::Option { .. }).then(|| ClientOption::new(client))
    }

    /// Sends a packet of a particular connection, whose state has been seen to, by `hop`.
    pub(super) fn forward_particular(
        &mut self,
        entry: EntryIndex,
        direction: Direction,
        packet: &Packet<'_>,
        frame: &mut Frame,
        hop: &Hop,
    ) -> Result<PortIndex, Refusal> {
        let Packet {
            snapshot,
            slot,
            umem,
            ..
        } = *packet;
        let Some(reply) = self.table.reply(entry) else {
            return Err(Refusal::Drop(DropReason::ServerUnavailable));
        };
        let connection = self.table.get(entry);
        let (id, state, ends) = (
            connection.server(),
            connection.state(),
            endpoints(&connection.key()),
        );
        let crosses = crosses(&connection.key(), &reply);
        if slot.what == What::IcmpError {
            translate_error(&ends, &reply, direction, packet, frame)?;
            write_addresses(umem.bytes_mut(frame), hop)?;
            self.count_translated(id, direction, slot, frame);
            return Ok(hop.port);
        }
        let mut introduction = self.introduction(entry);
        let addition = match direction {
            Direction::Request => {
                let begins = state == State::SynRecv && slot.tcp_flags & flags::SYN != 0;
                introduction.addition(&ends, slot, umem.bytes(frame), begins)?
            }
            Direction::Reply => Addition::None,
        };
        let l3 = usize::from(slot.l3_offset);
        let mtu = snapshot.routes.mtu(hop.port);
        fits(umem.bytes(frame), slot, mtu, addition.room(), crosses)?;
        let rewrite = rewrite(connection, &reply, direction);
        let l4 = match crosses {
            false => {
                apply(&rewrite, slot, umem, frame, hop)?;
                usize::from(slot.l4_offset)
            }
            true => {
                self.identification = self.identification.wrapping_add(1);
                Translation::of(rewrite).apply(umem, frame, l3, self.identification)?;
                write_addresses(umem.bytes_mut(frame), hop)?;
                l3 + header_after_crossing(slot)
            }
        };
        match direction {
            Direction::Request => {
                addition.apply(umem, frame, (l3, l4), slot.key.protocol(), mtu)?;
            }
            Direction::Reply => {
                let most = longest_segment(snapshot, id);
                introduction.hear(&ends, slot, umem.bytes_mut(frame), l4, most);
            }
        }
        if let Some(noted) = self.introductions.get_mut(entry.number()) {
            *noted = introduction;
        }
        if introduction == Introduction::None && !crosses {
            self.table.make_ordinary(entry);
            self.share(entry, packet.now);
        }
        self.count_translated(id, direction, slot, frame);
        Ok(hop.port)
    }

    fn introduction(&self, entry: EntryIndex) -> Introduction {
        let noted = self.introductions.get(entry.number());
        noted.copied().unwrap_or_default()
    }
}

/// True if the client's and the real server's packets are not of one IP version.
pub(super) fn crosses(client: &FlowKey, reply: &Reply) -> bool {
    client.destination().is_v4() != reply.key.source().is_v4()
}

/// Turns an ICMP error about a packet of a connection that [`crosses`] into the one that its other end
/// understands.
fn translate_error(
    client: &Endpoints,
    reply: &Reply,
    direction: Direction,
    packet: &Packet<'_>,
    frame: &mut Frame,
) -> Result<(), DropReason> {
    // What it quotes becomes what its receiver had sent.
    let server = endpoints(&reply.key);
    let quoted = match direction {
        Direction::Request => Translation::new(&client.reversed(), &server),
        Direction::Reply => Translation::new(&server.reversed(), client),
    };
    let l3 = usize::from(packet.slot.l3_offset);
    match quoted.apply_to_error(packet.umem, frame, l3) {
        true => Ok(()),
        false => Err(DropReason::BadIcmp),
    }
}

/// Whether an IP packet may leave that gets `room` bytes longer on its way through, besides what the
/// other IP version takes.
fn fits(frame: &[u8], slot: &Slot, mtu: u16, room: u16, crosses: bool) -> Result<(), Refusal> {
    let mtu = mtu.saturating_sub(room);
    let is_whole = matches!(slot.what, What::Plain | What::Packet);
    let most = match (crosses, slot.is_v4) {
        (false, _) => mtu,
        (true, false) => mtu.saturating_add(nat64::GROWTH),
        (true, true) if is_whole => mtu.saturating_sub(nat64::GROWTH),
        (true, true) => mtu.saturating_sub(nat64::FRAGMENT_GROWTH),
    };
    let l3 = usize::from(slot.l3_offset);
    match fragment::check_size(frame, l3, slot.is_v4, most) {
        // Nothing can be put into a fragment.
        Err(Oversize::Fragment { mtu }) if room > 0 => Err(Oversize::TooBig { mtu }.into()),
        Err(Oversize::Fragment { .. }) if crosses => {
            Err(Refusal::Cut(mtu.saturating_sub(nat64::FRAGMENT_GROWTH)))
        }
        fits => Ok(fits?),
    }
}

/// Bytes of the IP headers of a packet that came with the other version's.
fn header_after_crossing(slot: &Slot) -> usize {
    match (slot.is_v4, slot.what == What::FirstFragment) {
        (false, _) => ipv4::HEADER_LEN,
        (true, false) => ipv6::HEADER_LEN,
        (true, true) => ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN,
    }
}

/// Most bytes of payload in a segment on the way to a server.
fn longest_segment(snapshot: &Snapshot, id: ServerId) -> u16 {
    let Some(server) = snapshot.server(id) else {
        return u16::MAX;
    };
    let mtu = server.next_hop.map(|hop| snapshot.routes.mtu(hop.port));
    let header = match server.address.is_v4() {
        true => ipv4::HEADER_LEN,
        false => ipv6::HEADER_LEN,
    };
    let headers = u16::try_from(header + tcp::HEADER_LEN).unwrap_or(0); // 40 or 60
    mtu.unwrap_or(u16::MAX).saturating_sub(headers)
}

/// True if more than its keys has to be known of a new connection of `client` to `server`.
pub(super) fn is_particular(snapshot: &Snapshot, server: &Server, client: &FlowKey) -> bool {
    let service = snapshot.service_of(server);
    let way = service.map_or(ClientAddress::None, |own| own.full_nat.client_address);
    let is_introduced = way != ClientAddress::None;
    let crosses = client.destination().is_v4() != server.address.is_v4();
    server.method == ForwardingMethod::FullNat && (is_introduced || crosses)
}

/// Where the real server sends to, unless that is the client itself: NAT. No client has a local address
/// ([`DropReason::LocalSource`]).
fn local_end(client: &FlowKey, reply: &Reply) -> Option<Endpoint> {
    let address = reply.key.destination();
    (address != client.source()).then(|| Endpoint {
        address,
        port: reply.key.destination_port(),
    })
}
