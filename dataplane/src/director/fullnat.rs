//! FULLNAT: NAT, and the source of requests becomes an address of the director, so that real servers need no
//! route by which their replies pass the director.
//!
//! All that [`translate`](super::translate) says of NAT holds; here is what it takes besides: a local
//! address and port for each connection, of its own worker's range.

use super::flows::Flows;
use super::sending::Refusal;
use crate::conn::{EntryIndex, Reply};
use crate::counters::DropReason;
use crate::flow::FlowKey;
use crate::forward::rewrite::Endpoint;
use crate::service::{Address, ForwardingMethod};
use crate::snapshot::{Server, Snapshot};

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
        let addresses = own.map_or(&[][..], |own| &own.full_nat.local_addresses);
        self.local_ports
            .allocate(addresses, server.address.is_v4())
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
        let local = local_end(self.table.get(entry).key(), reply)?;
        Some(local.address)
    }
}

/// Where the real server sends to, unless that is the client itself: NAT.
fn local_end(client: &FlowKey, reply: &Reply) -> Option<Endpoint> {
    let address = reply.key.destination();
    (address != client.source()).then(|| Endpoint {
        address,
        port: reply.key.destination_port(),
    })
}
