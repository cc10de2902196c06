//! The way to clients, for replies that pass the director: what the kernel's main routing table
//! says, as the control plane last read it.
//!
//! A route is looked up once for each connection whose replies are translated. The gateway it
//! names is looked up for each reply, so that a gateway's new MAC address counts at once.
//!
//! Not done here: policy routing, metrics (the control plane keeps the best route of a prefix),
//! more than one next hop for a prefix.

use hashbrown::HashMap;

use crate::service::{Address, GatewayId, Hop, MacAddress, NextHop, PortIndex};

/// Where packets for a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Gateway(GatewayId),
    /// The destination is itself a neighbour on this interface.
    Link(PortIndex),
}

/// A prefix of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: Address,
    /// Of 128 bits: an IPv4 prefix has 96 more than it is written with.
    length: u8,
}

impl Prefix {
    /// The prefix of `length` bits (at most 32 for IPv4, 128 for IPv6; more means as many)
    /// that `address` lies in.
    #[must_use]
    pub fn new(address: Address, length: u8) -> Self {
        let length = match address.is_v4() {
            true => 96 + length.min(32),
            false => length.min(128),
        };
        Self::of(address, length)
    }

    fn of(address: Address, length: u8) -> Self {
        let bits = u128::from_be_bytes(address.octets());
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        Self {
            address: Address::from_octets((bits & mask).to_be_bytes()),
            length,
        }
    }
}

/// What forwarding knows of an interface of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The kernel's number of it; 0 where there is no kernel.
    pub index: u32,
    pub mac: MacAddress,
    /// Most bytes of an IP packet.
    pub mtu: u16,
    /// The director's addresses there, from which tunnelled packets are sent.
    pub v4: Option<Address>,
    pub v6: Option<Address>,
}

/// Routes with the gateways they name, and the interfaces.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    by_prefix: HashMap<Prefix, Via>,
    /// Those in `by_prefix`, longest first.
    lengths: Vec<u8>,
    gateways: Vec<Option<Hop>>,
    ports: Vec<Egress>,
}

impl Routes {
    /// Of two routes for a prefix the last one counts. `gateways` are indexed by [`GatewayId`], `None`
    /// where the MAC address is not known; `ports` by [`PortIndex`].
    #[must_use]
    pub fn new(
        routes: impl IntoIterator<Item = (Prefix, Via)>,
        gateways: Vec<Option<NextHop>>,
        ports: Vec<Egress>,
    ) -> Self {
        let by_prefix: HashMap<_, _> = routes.into_iter().collect();
        let mut lengths: Vec<_> = by_prefix.keys().map(|prefix| prefix.length).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self {
            by_prefix,
            lengths,
            gateways: gateways.into_iter().map(|hop| hop.map(Hop::from)).collect(),
            ports,
        }
    }

    /// The route of the longest prefix that `address` lies in.
    #[must_use]
    pub fn route(&self, address: Address) -> Option<Via> {
        // An IPv4 address does not lie in ::/0.
        let shortest = if address.is_v4() { 96 } else { 0 };
        let lengths = self.lengths.iter().filter(|length| **length >= shortest);
        lengths
            .filter_map(|length| self.by_prefix.get(&Prefix::of(address, *length)))
            .next()
            .copied()
    }

    /// How packets reach a gateway; `None` while it is not resolved.
    #[inline(always)]
    #[must_use]
    pub fn gateway(&self, id: GatewayId) -> Option<&Hop> {
        self.gateways.get(usize::from(id.0))?.as_ref()
    }

    /// An interface; `None` where interfaces are not known, as in replay.
    #[inline(always)]
    #[must_use]
    pub fn egress(&self, port: PortIndex) -> Option<&Egress> {
        self.ports.get(usize::from(port.0))
    }

    /// Most bytes of an IP packet that leaves by `port`.
    #[inline(always)]
    #[must_use]
    pub fn mtu(&self, port: PortIndex) -> u16 {
        self.egress(port).map_or(u16::MAX, |egress| egress.mtu)
    }

    /// The largest MTU of all interfaces: what is received is no longer.
    #[must_use]
    pub fn largest_mtu(&self) -> u16 {
        let mtus = self.ports.iter().map(|egress| egress.mtu);
        mtus.max().unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix::new(address.parse::<IpAddr>().unwrap().into(), length)
    }

    #[test]
    fn the_longest_prefix_counts() {
        let gateway = |id| Via::Gateway(GatewayId(id));
        let link = Via::Link(PortIndex(1));
        let routes = Routes::new(
            [
                (prefix("0.0.0.0", 0), gateway(0)),
                (prefix("10.1.2.3", 8), gateway(1)),
                (prefix("10.1.0.0", 16), link),
                (prefix("2001:db8::", 32), gateway(2)),
            ],
            Vec::new(),
            Vec::new(),
        );
        let route = |address: &str| routes.route(address.parse::<IpAddr>().unwrap().into());
        assert_eq!(route("10.1.9.9"), Some(link));
        assert_eq!(route("10.2.9.9"), Some(gateway(1)));
        assert_eq!(route("11.2.9.9"), Some(gateway(0)));
        assert_eq!(route("2001:db8::1"), Some(gateway(2)));
        assert_eq!(route("2001:db9::1"), None, "0.0.0.0/0 is not ::/0");
        let all = Routes::new([(prefix("::", 0), gateway(0))], Vec::new(), Vec::new());
        assert_eq!(all.route(Address::v4([10, 0, 0, 1])), None);
    }
}
