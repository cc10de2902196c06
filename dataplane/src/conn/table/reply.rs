//! What the table keeps of connections whose replies pass the director.

use std::hint::cold_path;

use crate::flow::FlowKey;
use crate::service::{GatewayId, MacAddress, PortIndex};
use crate::wire::checksum::Delta;

/// The other half of a connection whose replies are translated.
#[derive(Clone, Copy, Debug, Default)]
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

/// What of it has no room in a connection's own line, if that is a wide one.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct WideReply {
    pub(super) key: FlowKey,
    pub(super) way: WayWord,
}

const _: () = assert!(size_of::<WideReply>() == 64);

/// How replies reach the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By this gateway of the snapshot.
    Gateway(GatewayId),
    /// The client is a neighbour; this is where its last request came from.
    Neighbor { port: PortIndex, mac: MacAddress },
}

impl Default for Way {
    fn default() -> Self {
        Self::Gateway(GatewayId(0))
    }
}

/// A [`Way`] in a word, whose lower two bytes are the port and whose upper ones are the MAC address as in a header; or the
/// gateway's number above [`GATEWAY`](Self::GATEWAY).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct WayWord(u64);

impl WayWord {
    /// Instead of a port, of which there are far fewer.
    const GATEWAY: u64 = 0xffff;
    const PORT: u64 = 0xffff;

    #[inline(always)]
    #[must_use]
    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    #[must_use]
    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) const fn is_gateway(self) -> bool {
        self.0 & Self::PORT == Self::GATEWAY
    }

    /// To a neighbour by this port, at the MAC address that these bytes end with.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn neighbor(PortIndex(port): PortIndex, source: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(source) & !Self::PORT | port as u64)
    }

    /// By this gateway.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn gateway(GatewayId(id): GatewayId) -> Self {
        Self(Self::GATEWAY | (id as u64) << 16)
    }

    /// A client that is a neighbour is answered where its last request came from: by the same port, at the same MAC
    /// address, as neither is of use without the other. `None` if the way leads there already: to the port `ingress`
    /// and the MAC address that these bytes end with.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn learned(self, ingress: PortIndex, source: [u8; 8]) -> Option<Self> {
        let came = Self::neighbor(ingress, source);
        if came.0 == self.0 {
            return None;
        }
        // Otherwise the compiler asks for the gateway first: two instructions more for each packet of a neighbour.
        cold_path();
        match self.is_gateway() {
            true => None,
            false => Some(came),
        }
    }
}

impl From<Way> for WayWord {
    #[inline(always)]
    fn from(way: Way) -> Self {
        match way {
            Way::Gateway(id) => Self::gateway(id),
            Way::Neighbor { port, mac } => {
                let [a, b, c, d, e, f] = mac.0;
                Self::neighbor(port, [0, 0, a, b, c, d, e, f])
            }
        }
    }
}

impl From<WayWord> for Way {
    #[inline(always)]
    fn from(word: WayWord) -> Self {
        let [low, high, a, b, c, d, e, f] = word.0.to_le_bytes();
        match word.is_gateway() {
            true => Self::Gateway(GatewayId(u16::from_le_bytes([a, b]))),
            false => Self::Neighbor {
                port: PortIndex(u16::from_le_bytes([low, high])),
                mac: MacAddress([a, b, c, d, e, f]),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_what_its_word_says() {
        let mac = MacAddress([0xff; 6]);
        let other = MacAddress([2, 0, 0, 0, 0, 1]);
        let port = PortIndex(254);
        for way in [
            Way::Gateway(GatewayId(0)),
            Way::Gateway(GatewayId(u16::MAX)),
            Way::Neighbor { port, mac },
        ] {
            assert_eq!(Way::from(WayWord::from(way)), way);
        }
        let neighbor = WayWord::from(Way::Neighbor { port, mac });
        let learned = |ingress, source| neighbor.learned(ingress, source).map(Way::from);
        assert_eq!(learned(port, [0xff; 8]), None);
        let source = [7, 7, 2, 0, 0, 0, 0, 1];
        let moved = |port, mac| Some(Way::Neighbor { port, mac });
        assert_eq!(learned(port, source), moved(port, other));
        // Its cable may go to another port, and then a new client's MAC address would be the same.
        assert_eq!(learned(PortIndex(3), [0xff; 8]), moved(PortIndex(3), mac));
        assert_eq!(learned(PortIndex(3), source), moved(PortIndex(3), other));
        let gateway = WayWord::from(Way::Gateway(GatewayId(7)));
        assert_eq!(gateway.learned(port, source), None);
    }
}
