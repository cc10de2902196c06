//! What the table keeps of connections whose replies pass the director.

use crate::flow::FlowKey;
use crate::service::{GatewayId, MacAddress, PortIndex};
use crate::wire::checksum::Delta;

/// The other half of a connection whose replies are translated.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Reply {
    /// A reply's source (the real server) and destination (the client, or a local address).
    pub key: FlowKey,
    /// What translating a request does to the checksum of its IPv4 header (without the hop), and of
    /// its TCP or UDP header; of a reply it is the opposite.
    pub network: Delta,
    pub transport: Delta,
    /// Where replies leave.
    pub way: Way,
    /// Its packets become more than its keys say, such as ones of another IP version.
    pub particular: bool,
}

const _: () = assert!(size_of::<Reply>() == 64);

/// How replies reach the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By this gateway of the snapshot.
    Gateway(GatewayId),
    /// The client is a neighbour; the MAC address is that of its last request.
    Neighbor { port: PortIndex, mac: MacAddress },
}

impl Default for Way {
    fn default() -> Self {
        Self::Gateway(GatewayId(0))
    }
}
