//! What each forwarding method does with the first packet of a connection.

use crate::conn::{Beginning, Reply, Vacancy};
use crate::director::Slot;
use crate::director::sending::variation;
use crate::director::straight::L3;
use crate::director::translate::way_back;
use crate::flow::FlowKey;
use crate::forward::direct;
use crate::forward::rewrite::{Endpoint, PlainRewrite};
use crate::handoff::{Arrival, Owners};
use crate::ports::LocalPorts;
use crate::service::{ForwardingMethod, PortIndex, ServerId};
use crate::snapshot::{Path, Service, Snapshot, TunnelPath};
use crate::xsk::umem::{Frame, Packets, Umem};

/// A packet that begins a connection.
pub(super) struct First<'a> {
    /// In the burst.
    pub(super) number: usize,
    pub(super) slot: &'a Slot,
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
        if !direct::forward_plain(self.packets.head_mut(first.number), &hop.addresses) {
            return None;
        }
        vacancy.fill(first.slot.key, first.server, first.beginning);
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
        let TunnelPath { template, hop } = self.tunnels.get(*number as usize)?;
        let frame = self.frames.get_mut(first.number)?;
        let bytes = (frame.len() - L3) as u64;
        let before = *self.identification;
        let variation = variation(self.identification, first.slot.place);
        if !template.forward_plain(self.umem, frame, &hop.addresses, variation) {
            *self.identification = before;
            return None;
        }
        *self.tx_bytes += u64::from(template.overhead());
        vacancy.fill(first.slot.key, first.server, first.beginning);
        Some((hop.port, bytes))
    }
}

/// NAT and FULLNAT.
pub(super) struct Translated<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) service: &'a Service,
    pub(super) packets: Packets<'a>,
    /// One is that of all.
    pub(super) arrivals: &'a [Arrival],
    pub(super) local_ports: &'a mut LocalPorts,
    pub(super) owners: Option<&'a Owners>,
}

impl Method for Translated<'_> {
    #[inline(always)]
    fn open(&mut self, first: &First<'_>, vacancy: Vacancy<'_>) -> Option<(PortIndex, u64)> {
        let client = &first.slot.key;
        let server = self.snapshot.server(first.server)?;
        if server.method != ForwardingMethod::FullNat {
            let source = Endpoint {
                address: client.source(),
                port: client.source_port(),
            };
            return self.open_from(source, first, vacancy);
        }
        let addresses = &self.service.full_nat.local_addresses;
        let source = self.local_ports.allocate(addresses, true)?;
        let opened = self.open_from(source, first, vacancy);
        if opened.is_none() {
            self.local_ports.undo(source);
        }
        opened
    }
}

impl Translated<'_> {
    /// The real server sees the client come from `source`.
    #[inline(always)]
    fn open_from(
        &mut self,
        source: Endpoint,
        first: &First<'_>,
        vacancy: Vacancy<'_>,
    ) -> Option<(PortIndex, u64)> {
        let (id, client) = (first.server, &first.slot.key);
        let Path::Translated(hop) = self.snapshot.paths().get(id.0 as usize)? else {
            return None;
        };
        let server = self.snapshot.server(id)?;
        // As in `Flows::reply`, of which this is the straight way.
        let port = match server.port {
            0 => client.destination_port(),
            port => port,
        };
        let protocol = client.protocol();
        let key = FlowKey::new(server.address, port, source.address, source.port, protocol);
        let place = vacancy.for_reply(&key)?;
        let (network, transport) = PlainRewrite::deltas(client, &key);
        let all = &self.arrivals[0];
        let ingress = self.arrivals.get(first.number).unwrap_or(all).ingress;
        let bytes = bytes(&self.packets, first.number);
        let head = self.packets.head_mut(first.number);
        let way = way_back(&self.snapshot.routes, client, ingress, head);
        let rewrite = PlainRewrite::opposite(&key, network, transport);
        if !rewrite.forward(head, client.is_tcp(), &hop.addresses) {
            return None;
        }
        let reply = Reply {
            key,
            network,
            transport,
            way,
            particular: false,
        };
        vacancy.fill_both((*client, &reply), place, id, first.beginning);
        if let Some(owners) = self.owners {
            owners.list(place.hash);
        }
        Some((hop.port, bytes))
    }
}

/// Of the IP packet.
#[inline(always)]
fn bytes(packets: &Packets<'_>, number: usize) -> u64 {
    u64::from(packets.length(number)) - L3 as u64
}
