//! The ways to clients: the kernel's main routing table, folded into what the data plane looks up for
//! each connection whose replies pass the director.
//!
//! A gateway keeps its place for as long as a route names it, so that connections which remember the place
//! find its MAC address, whatever that is by then; and for some time longer, as workers take a moment to give all
//! of its connections another way. Until then these wait for it, and go to no other gateway.
//!
//! Not done here: policy routing, and more than the first next hop of a route.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use dataplane::routes::{Egress, Prefix, Routes, Via};
use dataplane::service::{Address, GatewayId, MacAddress};

use super::addresses::Addresses;
use super::next_hops::{NextHops, Port};
use crate::event::TableRoute;

/// So many gateways that no route names keep their places; then the first of them loses it to a new one.
const UNNAMED_GATEWAYS: usize = 256;

/// What an interface without a known MTU is taken to carry.
const USUAL_MTU: u16 = 1500;

/// Where no interface is, and nothing leads to.
const NOBODY: Egress = Egress {
    index: 0,
    mac: MacAddress([0; 6]),
    mtu: 0,
    v4: None,
    v6: None,
};

/// The routing table as last read.
#[derive(Debug, Default)]
pub(super) struct Ways {
    routes: Vec<TableRoute>,
    /// By [`GatewayId`].
    gateways: Vec<Gateway>,
    /// How often the routes changed.
    changes: u64,
    /// Of the links, by interface index.
    mtus: BTreeMap<u32, u32>,
}

#[derive(Debug)]
struct Gateway {
    address: IpAddr,
    /// The change since which no route names it.
    unnamed_since: Option<u64>,
}

impl Ways {
    /// A link's MTU; true if it is another one than before.
    pub(super) fn link(&mut self, index: u32, mtu: u32) -> bool {
        self.mtus.insert(index, mtu) != Some(mtu)
    }

    /// The table was read; true if it says something else than before.
    pub(super) fn take_up(&mut self, routes: Vec<TableRoute>) -> bool {
        if routes == self.routes {
            return false;
        }
        self.routes = routes;
        self.changes += 1;
        let routes = self.routes.iter();
        let named: BTreeSet<IpAddr> = routes.filter_map(|route| route.route.gateway).collect();
        for place in &mut self.gateways {
            place.unnamed_since = match named.contains(&place.address) {
                true => None,
                false => place.unnamed_since.or(Some(self.changes)),
            };
        }
        for address in named {
            if self.place_of(address).is_none() {
                self.add(address);
            }
        }
        true
    }

    fn add(&mut self, address: IpAddr) {
        let new = Gateway {
            address,
            unnamed_since: None,
        };
        let unnamed = self.gateways.iter_mut();
        let unnamed = unnamed.filter(|place| place.unnamed_since.is_some());
        let mut unnamed: Vec<_> = unnamed.collect();
        unnamed.sort_by_key(|place| place.unnamed_since);
        let is_full = unnamed.len() >= UNNAMED_GATEWAYS;
        match unnamed.into_iter().next().filter(|_| is_full) {
            Some(first) => *first = new,
            None => self.gateways.push(new),
        }
    }

    fn place_of(&self, gateway: IpAddr) -> Option<GatewayId> {
        let mut places = self.gateways.iter();
        let place = places.position(|place| place.address == gateway)?;
        u16::try_from(place).ok().map(GatewayId)
    }

    /// Gateways of routes by one of `ports`.
    pub(super) fn gateways<'a>(&'a self, ports: &'a [Port]) -> impl Iterator<Item = IpAddr> + 'a {
        self.routes
            .iter()
            .filter(|route| ports.iter().any(|port| port.index == route.route.index))
            .filter_map(|route| route.route.gateway)
    }

    /// What the data plane looks up. Virtual servers' addresses are nobody's own.
    pub(super) fn routes(
        &self,
        ports: &[Port],
        next_hops: &NextHops,
        addresses: &Addresses,
        virtual_addresses: &HashSet<IpAddr>,
    ) -> Routes {
        let port_of = |index: u32| {
            let port = ports.iter().find(|port| port.index == index);
            port.map(|port| port.number)
        };
        let routes = self.routes.iter().filter_map(|route| {
            let prefix = Prefix::new(route.destination.into(), route.prefix_length);
            let port = port_of(route.route.index)?;
            Some(match route.route.gateway {
                Some(gateway) => (prefix, Via::Gateway(self.place_of(gateway)?)),
                None => (prefix, Via::Link(port)),
            })
        });
        let gateways = self
            .gateways
            .iter()
            .map(|gateway| next_hops.next_hop(gateway.address).ok());
        let egress = ports.iter().map(|port| {
            let own = |is_v4: bool| -> Option<Address> {
                let candidates = addresses
                    .of_link(port.index)
                    .filter(|own| own.is_ipv4() == is_v4 && !virtual_addresses.contains(own))
                    .filter(|own| !is_link_local(*own));
                candidates.min().map(Address::from)
            };
            let mtu = self.mtus.get(&port.index).copied();
            let egress = Egress {
                index: port.index,
                mac: MacAddress(port.mac),
                mtu: mtu.map_or(USUAL_MTU, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX)),
                v4: own(true),
                v6: own(false),
            };
            (usize::from(port.number.0), egress)
        });
        // A number between others may be nobody's, when an interface is not used any more.
        let numbers = ports.iter().map(|port| usize::from(port.number.0) + 1);
        let mut by_number = vec![NOBODY; numbers.max().unwrap_or(0)];
        for (number, egress) in egress {
            by_number[number] = egress;
        }
        Routes::new(routes, gateways.collect(), by_number)
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Route;

    fn route(destination: &str, prefix_length: u8, gateway: &str) -> TableRoute {
        TableRoute {
            destination: destination.parse().unwrap(),
            prefix_length,
            route: Route {
                index: 7,
                gateway: Some(gateway.parse().unwrap()),
            },
        }
    }

    #[test]
    fn gateways_keep_their_place() {
        let mut ways = Ways::default();
        let (a, b) = (
            route("0.0.0.0", 0, "10.0.0.1"),
            route("10.9.0.0", 16, "10.0.0.2"),
        );
        assert!(ways.take_up(vec![a, b]));
        assert!(!ways.take_up(vec![a, b]), "nothing new");
        let place = |ways: &Ways, address: &str| {
            let place = ways.place_of(address.parse().unwrap());
            place.map(|GatewayId(place)| place)
        };
        // An unrelated route comes while the first one is away.
        assert!(ways.take_up(vec![b]));
        let c = route("10.8.0.0", 16, "10.0.0.3");
        assert!(ways.take_up(vec![b, c]));
        assert_eq!(place(&ways, "10.0.0.2"), Some(1));
        assert_eq!(place(&ways, "10.0.0.3"), Some(2));
        assert!(ways.take_up(vec![a, b, c]));
        assert_eq!(place(&ways, "10.0.0.1"), Some(0));
        // Nor do ever new ones take more and more places.
        for number in 0..1000_u16 {
            let [high, low] = number.to_be_bytes();
            let gateway = format!("10.1.{high}.{low}");
            assert!(ways.take_up(vec![b, route("0.0.0.0", 0, &gateway)]));
            assert_eq!(place(&ways, "10.0.0.2"), Some(1));
            assert!(place(&ways, &gateway).unwrap() < 260);
        }
        assert_eq!(place(&ways, "10.0.0.1"), None, "too long ago");
    }
}
