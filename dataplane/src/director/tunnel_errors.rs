//! ICMP errors of routers between the director and a real server of TUN: they are about packets that
//! the director wrapped, and become errors about what is inside, for the client (`ip_vs_in_icmp`).
//!
//! Not done here: remembering a path's MTU. A client that sets "don't fragment" is told of it, and
//! keeps to it; what may be cut is cut by the router.

use super::Packet;
use super::flows::Flows;
use super::sending::Refusal;
use crate::conn::Direction;
use crate::counters::DropReason;
use crate::flow::FlowKey;
use crate::forward::icmp;
use crate::routes::Via;
use crate::service::{ForwardingMethod, PortIndex, Protocol};
use crate::wire::{Parsed, ethernet};
use crate::xsk::umem::Frame;

/// The client's flow in an ICMP error, if that is about a packet in a tunnel.
#[cold]
pub(super) fn inner_key(frame: &[u8], parsed: &Parsed) -> Option<FlowKey> {
    let inner = icmp::tunnelled(frame, usize::from(parsed.l3_offset), |_| true)?.inner?;
    let mut known = Protocol::NAMES.into_iter().map(|(_, protocol)| protocol);
    let protocol = known.find(|known| *known as u8 == inner.protocol)?;
    Some(FlowKey::new(
        inner.source.address,
        inner.source.port,
        inner.destination.address,
        inner.destination.port,
        protocol,
    ))
}

impl Flows {
    /// Turns the error into one for the client, which leaves by the way to it: a gateway's, else back
    /// to the router that sent the error.
    #[cold]
    pub(super) fn relay_tunnel_error(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<PortIndex, Refusal> {
        let (snapshot, slot) = (packet.snapshot, packet.slot);
        let nobody = Refusal::NotOurs(DropReason::IcmpNoConnection);
        let l3 = usize::from(slot.l3_offset);
        let error = icmp::tunnelled(packet.umem.bytes(frame), l3, |_| true).ok_or(nobody)?;
        let inner = error.inner.ok_or(nobody)?;
        let entry = match self.table.find(slot.place, &slot.key) {
            Some((entry, Direction::Request)) => entry,
            Some((_, Direction::Reply)) | None => return Err(nobody),
        };
        // Who does not know where the connection's packets go made the error up.
        let is_its_server = snapshot
            .server(self.table.get(entry).server())
            .is_some_and(|server| {
                server.address == error.real_server
                    && matches!(server.method, ForwardingMethod::Tunnel(_))
            });
        if !is_its_server {
            return Err(nobody);
        }
        let way = match snapshot.routes.route(slot.key.source()) {
            Some(Via::Gateway(gateway)) => {
                let hop = snapshot.routes.gateway(gateway);
                Some(hop.ok_or(Refusal::Drop(DropReason::NextHopUnresolved))?)
            }
            Some(Via::Link(_)) | None => None,
        };
        if self.icmp_left == 0 || !icmp::relay(packet.umem, frame, l3, &inner) {
            return Err(Refusal::Drop(DropReason::IcmpNotRelayed));
        }
        self.icmp_left -= 1;
        self.counters.icmp_sent += 1;
        let Some(hop) = way else {
            return Ok(packet.ingress);
        };
        let link = packet.umem.bytes_mut(frame);
        if let Some(link) = link.first_chunk_mut::<{ ethernet::HEADER_LEN }>() {
            hop.addresses.write(link);
        }
        Ok(hop.port)
    }
}
