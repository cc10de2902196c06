//! What a snapshot says of the way to a real server, and frames for it.

use std::net::IpAddr;

use dataplane::forward::tunnel::{Template, Variation};
use dataplane::service::{ForwardingMethod, Hop};
use dataplane::wire::ethernet::{HEADER_LEN, ethertype};

use super::{NoWay, Way};

/// The way as it is for one try.
#[derive(Debug)]
pub(in super::super) struct Path {
    /// The kernel's number of the interface.
    pub(super) interface: u32,
    /// An address of the director there.
    pub(super) source: IpAddr,
    /// Most bytes of an IP packet.
    pub(super) mtu: u16,
    hop: Hop,
    tunnel: Option<Template>,
}

impl Way {
    /// The way of packets to `target`, an address of the virtual server.
    pub(super) fn path(&self, target: IpAddr) -> Result<Path, NoWay> {
        let snapshot = self.published.load();
        let server = snapshot.server(self.server).ok_or(NoWay::Server)?;
        let hop = server.next_hop.ok_or(NoWay::NextHop)?;
        let egress = snapshot.routes.egress(hop.port).ok_or(NoWay::ThisHost)?;
        let source = if target.is_ipv4() {
            egress.v4
        } else {
            egress.v6
        };
        let (tunnel, mtu) = match server.method {
            ForwardingMethod::Tunnel(_) => {
                let template = *snapshot.tunnel(server).ok_or(NoWay::Source)?;
                (Some(template), template.inner_mtu())
            }
            ForwardingMethod::Direct | ForwardingMethod::Nat | ForwardingMethod::FullNat => {
                (None, egress.mtu)
            }
        };
        Ok(Path {
            interface: egress.index,
            source: source.ok_or(NoWay::Source)?.into(),
            mtu,
            hop,
            tunnel,
        })
    }
}

impl Path {
    /// The frame that takes an IP packet to the real server; `None` for what is no packet.
    pub(super) fn frame(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let kind = match packet.first()? >> 4 {
            4 => ethertype::IPV4,
            _ => ethertype::IPV6,
        };
        let overhead = self.tunnel.as_ref().map_or(0, Template::overhead);
        let mut frame = vec![0; HEADER_LEN + usize::from(overhead)];
        frame.extend_from_slice(packet);
        let Some(template) = &self.tunnel else {
            let header = frame.first_chunk_mut::<HEADER_LEN>()?;
            self.hop.addresses.write(header);
            header[HEADER_LEN - 2..].copy_from_slice(&kind.to_be_bytes());
            return Some(frame);
        };
        let variation = Variation {
            identification: 0,
            entropy: 0,
        };
        template
            .encapsulate(&mut frame, HEADER_LEN, &self.hop.addresses, variation)
            .ok()?;
        Some(frame)
    }
}
