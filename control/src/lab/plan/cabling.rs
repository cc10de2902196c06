//! Which interface of a director is in which subnet, and which switch it and
//! the hosts of that subnet are plugged into.
//!
//! There is one switch, unless NAT's real servers have a subnet of their own
//! and the file an interface for it: that is a second one, and the director is
//! the only way between the two.

use super::segment::Segment;
use super::{Config, INSIDE_SWITCH, InterfaceAddress, SWITCH, on};
use crate::lab::subnet::Subnet;
use std::net::IpAddr;

/// The director's interfaces, each in its place. All directors are alike.
#[derive(Debug)]
pub(super) struct Cabling {
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    subnet: Subnet,
    interface: String,
    is_inside: bool,
}

impl Cabling {
    /// Puts every subnet where the file holds addresses of it; else what is
    /// behind the director on an interface that nothing outside is on, if
    /// there is one, and the rest on the first that is left.
    pub(super) fn of(config: &Config, segment: &Segment, interfaces: &[String]) -> Self {
        let given = |subnet: &Subnet| {
            config.vrrp_instances.iter().find_map(|instance| {
                let mut held = instance.held();
                let here = held.find(|held| subnet.contains(held.address))?;
                Some(here.interface.as_ref().unwrap_or(&instance.interface))
            })
        };
        let is_given = |name: &String, inside: bool| {
            let mut others = segment.subnets().iter();
            others.any(|net| segment.is_inside(net) == inside && given(net) == Some(name))
        };
        let first = &interfaces[0];
        let outside = interfaces.iter().find(|name| !is_given(name, true));
        let outside = outside.unwrap_or(first);
        let inside = interfaces
            .iter()
            .find(|name| *name != outside && !is_given(name, false));
        let place = |subnet: &Subnet| {
            let is_inside = segment.is_inside(subnet);
            let otherwise = if is_inside {
                inside.unwrap_or(outside)
            } else {
                outside
            };
            Place {
                subnet: *subnet,
                interface: given(subnet).unwrap_or(otherwise).clone(),
                is_inside,
            }
        };
        Self {
            places: segment.subnets().iter().map(place).collect(),
        }
    }

    /// A director's own addresses, each on its interface.
    pub(super) fn place(&self, own: &[(IpAddr, u8)]) -> Vec<InterfaceAddress> {
        own.iter()
            .filter_map(|one| Some((self.at(one.0)?, one)))
            .flat_map(|(place, one)| on(&place.interface, std::slice::from_ref(one)))
            .collect()
    }

    /// The switch that a director's interface is plugged into.
    pub(super) fn switch_of_interface(&self, interface: &str) -> &'static str {
        let mut here = self.places.iter().filter(|p| p.interface == interface);
        let mut found = here.clone();
        if found.next().is_some() && here.all(|place| place.is_inside) {
            INSIDE_SWITCH
        } else {
            SWITCH
        }
    }

    /// The switch that a host with this address is plugged into.
    pub(super) fn switch_of(&self, address: IpAddr) -> &'static str {
        self.at(address)
            .map_or(SWITCH, |place| self.switch_of_interface(&place.interface))
    }

    fn at(&self, address: IpAddr) -> Option<&Place> {
        let mut places = self.places.iter();
        places.find(|place| place.subnet.contains(address))
    }
}
