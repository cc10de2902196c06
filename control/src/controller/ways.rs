//! The ways to clients: the kernel's main routing table, folded into what the data plane looks up for
//! each connection whose replies pass the director.
//!
//! A gateway keeps its place for as long as a route names it, so that connections which remember the place
//! find its MAC address, whatever that is by then.
//!
//! Not done here: policy routing, and more than the first next hop of a route.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use dataplane::routes::{Egress, Prefix, Routes, Via};
use dataplane::service::{Address, GatewayId, MacAddress};

use super::addresses::Addresses;
use super::next_hops::{NextHops, Port};
use crate::event::TableRoute;

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
    gateways: Vec<Option<IpAddr>>,
    /// Of the links, by interface index.
    mtus: BTreeMap<u32, u32>,
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
        let named = |gateway: IpAddr| {
            self.routes
                .iter()
                .any(|route| route.route.gateway == Some(gateway))
        };
        for place in &mut self.gateways {
            *place = place.filter(|gateway| named(*gateway));
        }
        for gateway in self.routes.iter().filter_map(|route| route.route.gateway) {
            if self.gateways.contains(&Some(gateway)) {
                continue;
            }
            match self.gateways.iter().position(Option::is_none) {
                Some(free) => self.gateways[free] = Some(gateway),
                None => self.gateways.push(Some(gateway)),
            }
        }
        true
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
        let place_of = |gateway: IpAddr| {
            let place = self.gateways.iter().position(|own| *own == Some(gateway))?;
            u16::try_from(place).ok().map(GatewayId)
        };
        let routes = self.routes.iter().filter_map(|route| {
            let prefix = Prefix::new(route.destination.into(), route.prefix_length);
            let port = port_of(route.route.index)?;
            Some(match route.route.gateway {
                Some(gateway) => (prefix, Via::Gateway(place_of(gateway)?)),
                None => (prefix, Via::Link(port)),
            })
        });
        let gateways = self
            .gateways
            .iter()
            .map(|gateway| next_hops.next_hop((*gateway)?).ok());
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
        assert!(ways.take_up(vec![b]));
        assert_eq!(ways.gateways[1], Some("10.0.0.2".parse().unwrap()));
        assert_eq!(ways.gateways[0], None);
        assert!(ways.take_up(vec![b, route("10.8.0.0", 16, "10.0.0.3")]));
        assert_eq!(ways.gateways[0], Some("10.0.0.3".parse().unwrap()));
    }
}
