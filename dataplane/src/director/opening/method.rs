//! What each forwarding method does with the first packet of a connection.

use std::hint::cold_path;

use crate::conn::{Beginning, Place, ReplyHalf, Vacancy};
use crate::director::sending::variation;
use crate::director::straight::L3;
use crate::director::translate::way_back;
use crate::flow::{PlainEnd, PlainKey};
use crate::forward::direct;
use crate::forward::rewrite::PlainRewrite;
use crate::handoff::{Arrival, Owners, SharedReply};
use crate::ports::LocalPorts;
use crate::service::{Address, PortIndex, ServerId, VirtualServerId};
use crate::snapshot::{Path, Snapshot, TunnelPath};
use crate::wire::ipv4::Life;
use crate::xsk::umem::{Frame, Packets, Umem};

/// A packet that begins a connection.
pub(super) struct First<'a> {
    /// In the burst.
    pub(super) number: usize,
    pub(super) key: PlainKey,
    pub(super) place: Place,
    /// What the packet leaves with.
    pub(super) life: Life,
    /// Who was chosen.
    pub(super) server: ServerId,
    pub(super) beginning: &'a Beginning,
}

/// One way to the real servers.
pub(super) trait Method {
    /// Sends the packet and adds its connection. Returns where it leaves, and the bytes of the IP packet that came;
    /// `None`, and nothing changed, if a closer look is needed.
    fn open(&mut self, first: &First<'_>, vacancy: Vacancy<'_>) -> Option<(PortIndex, u64)>;
}

/// DR.
pub(super) struct Direct<'a> {
    pub(super) paths: &'a [Path],
    pub(super) packets: Packets<'a>,
}

impl Method for Direct<'_> {
    #[inline(always)]
    fn open(&mut self, first: &First<'_>, vacancy: Vacancy<'_>) -> Option<(PortIndex, u64)> {
        let Path::Direct(hop) = self.paths.get(first.server.0 as usize)? else {
            return None;
        };
        let bytes = bytes(&self.packets, first.number);
        let head = self.packets.head_mut(first.number);
        direct::forward_plain(head, first.life, &hop.addresses);
        vacancy.fill(first.key, first.server, first.beginning);
        Some((hop.port, bytes))
    }
}

/// TUN.
pub(super) struct Wrapped<'a> {
    pub(super) paths: &'a [Path],
    pub(super) tunnels: &'a [TunnelPath],
    pub(super) umem: &'a Umem,
    pub(super) frames: &'a mut [Frame],
    pub(super) identification: &'a mut u16,
    pub(super) tx_bytes: &'a mut u64,
}

impl Method for Wrapped<'_> {
    #[inline(always)]
    fn open(&mut self, first: &First<'_>, vacancy: Vacancy<'_>) -> Option<(PortIndex, u64)> {
        let Path::Wrapped(number) = self.paths.get(first.server.0 as usize)? else {
            return None;
        };
        let TunnelPath { template, hop, .. } = self.tunnels.get(*number as usize)?;
        let frame = self.frames.get_mut(first.number)?;
        let bytes = (frame.len() - L3) as u64;
        let before = *self.identification;
        let variation = variation(self.identification, first.place);
        if !template.forward_plain(self.umem, frame, &hop.addresses, variation) {
            *self.identification = before;
            return None;
        }
        *self.tx_bytes += u64::from(template.overhead());
        vacancy.fill(first.key, first.server, first.beginning);
        Some((hop.port, bytes))
    }
}

/// NAT.
pub(super) struct Nat<'a>(pub(super) Translated<'a>);

impl Method for Nat<'_> {
    #[inline(always)]
    fn open(&mut self, first: &First<'_>, vacancy: Vacancy<'_>) -> Option<(PortIndex, u64)> {
        self.0.open_from(first.key.source(), first, vacancy)
    }
}

/// FULLNAT.
pub(super) struct FullNat<'a> {
    pub(super) translated: Translated<'a>,
    pub(super) service: VirtualServerId,
    pub(super) ports: &'a mut LocalPorts,
}

impl Method for FullNat<'_> {
    #[inline(always)]
    fn open(&mut self, first: &First<'_>, vacancy: Vacancy<'_>) -> Option<(PortIndex, u64)> {
        let local = self.ports.allocate(self.service, true)?;
        let source = PlainEnd {
            address: u32::from_ne_bytes(local.address.last_octets()),
            port: local.port.to_be(),
        };
        let opened = self.translated.open_from(source, first, vacancy);
        if opened.is_none() {
            cold_path();
            self.ports.undo(self.service, local);
        }
        opened
    }
}

/// What is the same for both.
pub(super) struct Translated<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) packets: Packets<'a>,
    /// One is that of all.
    pub(super) arrivals: &'a [Arrival],
    pub(super) owners: Option<&'a Owners>,
}

impl Translated<'_> {
    /// The real server sees the client come from `source`. The straight way of [`Flows::reply`] and what is around it.
    #[inline(always)]
    fn open_from(
        &mut self,
        source: PlainEnd,
        first: &First<'_>,
        vacancy: Vacancy<'_>,
    ) -> Option<(PortIndex, u64)> {
        let client = first.key;
        let all = &self.arrivals[0];
        let ingress = self.arrivals.get(first.number).unwrap_or(all).ingress;
        let address = Address::v4(client.source().address.to_ne_bytes());
        let head = self.packets.head(first.number);
        let way = way_back(&self.snapshot.routes, address, ingress, head);
        let Path::Translated(hop) = self.snapshot.paths().get(first.server.0 as usize)? else {
            return None;
        };
        let server = self.snapshot.server(first.server)?;
        let server = PlainEnd {
            address: u32::from_ne_bytes(server.address.last_octets()),
            port: match server.port {
                0 => client.destination().port,
                port => port.to_be(),
            },
        };
        let key = client.between(server, source);
        let place = vacancy.for_reply(&key)?;
        let deltas = PlainRewrite::deltas(&client, &key);
        let bytes = bytes(&self.packets, first.number);
        let head = self.packets.head_mut(first.number);
        PlainRewrite::opposite(key, deltas).forward(head, first.life, &hop.addresses);
        let hash = place.hash;
        let reply = ReplyHalf {
            key,
            deltas,
            way: way.into(),
            place,
        };
        let entry = vacancy.fill_both(client, reply, first.server, first.beginning);
        if let Some(owners) = self.owners {
            owners.list(hash, entry);
            if let Some(now) = first.beginning.straight_since() {
                let (network, transport) = deltas;
                let shared = SharedReply {
                    key,
                    client,
                    deltas: (network.inverse(), transport.inverse()),
                    way: way.into(),
                    server: first.server,
                };
                owners.share(entry, &shared, now);
            }
        }
        Some((hop.port, bytes))
    }
}

/// Of the IP packet.
#[inline(always)]
fn bytes(packets: &Packets<'_>, number: usize) -> u64 {
    u64::from(packets.length(number)) - L3 as u64
}
