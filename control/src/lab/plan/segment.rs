//! The subnets of virtual and real servers, the addresses taken from them, and
//! the kernel settings of the hosts there.
//!
//! Subnets are outside, where the router and so the clients are, or inside:
//! those of NAT's real servers alone, which only the director leads to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{
    Config, INTERFACE, Namespace, PlanError, RealServer, addresses_in_use, on,
    servers::is_translated,
};
use crate::lab::subnet::Subnet;

/// Subnets for the client, best first: documentation networks (RFC 5737,
/// RFC 3849), then private ones, in case a file uses those.
const CLIENT_SUBNETS: [(&str, u8); 7] = [
    ("198.51.100.0", 24),
    ("203.0.113.0", 24),
    ("10.255.255.0", 24),
    ("172.31.255.0", 24),
    ("2001:db8:c11e::", 64),
    ("2001:db8:ffff:ffff::", 64),
    ("fd00:c11e::", 64),
];

/// Router settings: it forwards, and has no opinion on where packets come from.
const FORWARD_IPV4: [(&str, &str); 3] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];
const FORWARD_IPV6: [(&str, &str); 2] = [
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
];

/// Addresses are usable at once: no duplicate address detection, not even of
/// the link-local ones, and no waiting for router advertisements.
const IPV6_HOST: [(&str, &str); 5] = [
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
];

/// A real server must never answer ARP for the VIP on its loopback, nor
/// announce it as the sender of a request. IPv6 needs no such setting:
/// neighbour discovery answers only for addresses of the interface asked.
const NO_ARP: [(&str, &str); 2] = [
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/all/arp_announce", "2"),
];

/// The segment under construction: which addresses are taken changes as
/// hosts get theirs.
#[derive(Debug)]
pub(super) struct Segment {
    subnets: Vec<Subnet>,
    inside: BTreeSet<Subnet>,
    taken: BTreeSet<IpAddr>,
}

impl Segment {
    /// Derives the subnets from the addresses of the file.
    pub(super) fn of(config: &Config) -> Result<Self, PlanError> {
        let taken = addresses_in_use(config);
        if let Some(&address) = taken.iter().find(|address| !is_host(**address)) {
            return Err(PlanError::Unroutable(address));
        }
        let virtual_servers = config.virtual_servers.iter();
        let vips: BTreeSet<IpAddr> = virtual_servers
            .clone()
            .map(|server| server.address().ip())
            .collect();
        let subnets = subnets(config, &taken);
        let subnet_of = |address| subnets.iter().find(|subnet| subnet.contains(address));
        let mut inside = BTreeSet::new();
        let mut outside: BTreeSet<_> = vips.iter().filter_map(|vip| subnet_of(*vip)).collect();
        for real in virtual_servers.flat_map(|server| &server.real_servers) {
            let side = if is_translated(real) {
                &mut inside
            } else {
                &mut outside
            };
            side.extend(subnet_of(real.address.ip()));
            if vips.contains(&real.address.ip()) {
                return Err(PlanError::VirtualAndReal(real.address.ip()));
            }
        }
        Ok(Self {
            inside: inside.difference(&outside).map(|net| **net).collect(),
            subnets,
            taken,
        })
    }

    pub(super) fn subnets(&self) -> &[Subnet] {
        &self.subnets
    }

    /// True if nothing but the director leads to a subnet.
    pub(super) fn is_inside(&self, subnet: &Subnet) -> bool {
        self.inside.contains(subnet)
    }

    /// One free address of each subnet outside, with its prefix length.
    pub(super) fn take_outside(
        &mut self,
        role: &'static str,
    ) -> Result<Vec<(IpAddr, u8)>, PlanError> {
        let mut taken = self.take(role)?;
        taken.retain(|(address, _)| {
            let is_outside = |net: &Subnet| !self.is_inside(net);
            self.subnet_of(*address).is_some_and(is_outside)
        });
        Ok(taken)
    }

    /// As [`Self::take`], but an address that the file gives where there is one.
    pub(super) fn take_or_given(
        &mut self,
        role: &'static str,
        given: &[IpAddr],
    ) -> Result<Vec<(IpAddr, u8)>, PlanError> {
        let mut taken = self.take(role)?;
        for (address, prefix_length) in &mut taken {
            let subnet = Subnet::of(*address, *prefix_length);
            if let Some(better) = given.iter().find(|given| subnet.contains(**given)) {
                *address = *better;
            }
        }
        Ok(taken)
    }

    /// One free address of each subnet, with its prefix length.
    pub(super) fn take(&mut self, role: &'static str) -> Result<Vec<(IpAddr, u8)>, PlanError> {
        let taken = &mut self.taken;
        let one = |&subnet: &Subnet| {
            let address = subnet.take_free(taken);
            let address = address.ok_or(PlanError::NoFreeAddress { subnet, role })?;
            Ok((address, subnet.prefix_length()))
        };
        self.subnets.iter().map(one).collect()
    }

    /// An address of the other IP version for a real server that answers for virtual addresses of it, as one at the end of
    /// a tunnel may.
    pub(super) fn take_beside(
        &mut self,
        server: &RealServer,
    ) -> Result<Option<(IpAddr, u8)>, PlanError> {
        let is_other = |address: &IpAddr| address.is_ipv4() != server.address.is_ipv4();
        if !server.vips.iter().any(is_other) {
            return Ok(None);
        }
        let mut taken = self.take_outside("real server")?.into_iter();
        Ok(taken.find(|(address, _)| is_other(address)))
    }

    /// Addresses of the router and of the client on a network of their own,
    /// one for each family in use.
    #[expect(clippy::type_complexity, reason = "two lists of address and prefix")]
    pub(super) fn client_side(
        &mut self,
    ) -> Result<(Vec<(IpAddr, u8)>, Vec<(IpAddr, u8)>), PlanError> {
        let mut router = Vec::new();
        let mut client = Vec::new();
        for is_ipv4 in [true, false] {
            if !self.subnets.iter().any(|known| known.is_ipv4() == is_ipv4) {
                continue;
            }
            let is_free = |candidate: &Subnet| {
                candidate.is_ipv4() == is_ipv4
                    && !self.subnets.iter().any(|known| known.overlaps(candidate))
            };
            let subnet = CLIENT_SUBNETS
                .iter()
                .filter_map(|(network, length)| Some(Subnet::of(network.parse().ok()?, *length)))
                .find(is_free)
                .ok_or(PlanError::NoClientSubnet)?;
            for side in [&mut router, &mut client] {
                let address = subnet.take_free(&mut self.taken);
                let address = address.ok_or(PlanError::NoClientSubnet)?;
                side.push((address, subnet.prefix_length()));
            }
        }
        Ok((router, client))
    }

    /// The first address of each family: there is one default route a family.
    pub(super) fn one_a_family(&self, addresses: &[(IpAddr, u8)]) -> Vec<IpAddr> {
        [true, false]
            .into_iter()
            .filter_map(|is_ipv4| addresses.iter().find(|(ip, _)| ip.is_ipv4() == is_ipv4))
            .map(|(address, _)| *address)
            .collect()
    }

    /// The default gateway of a real server whose answers pass the director: an
    /// address of that subnet which the master holds, else the director's own.
    pub(super) fn way_back(
        &self,
        config: &Config,
        server: IpAddr,
        director: &[(IpAddr, u8)],
    ) -> Option<IpAddr> {
        let subnet = self.subnet_of(server)?;
        let instances = config.vrrp_instances.iter();
        let held = instances.flat_map(|instance| instance.held().map(|held| held.address));
        let own = director.iter().map(|(address, _)| *address);
        held.chain(own).find(|address| subnet.contains(*address))
    }

    /// A real server: its address and what it has `beside` it, its VIPs on `lo`, and its way to the clients.
    pub(super) fn real_server(
        &self,
        server: &RealServer,
        beside: Option<(IpAddr, u8)>,
        gateways: Vec<IpAddr>,
    ) -> Namespace {
        let prefix_length = self
            .subnet_of(server.address)
            .map_or(0, |subnet| subnet.prefix_length());
        let host_route = |vip: &IpAddr| (*vip, if vip.is_ipv4() { 32 } else { 128 });
        let vips: Vec<_> = server.vips.iter().map(host_route).collect();
        let mut addresses = on(INTERFACE, &[(server.address, prefix_length)]);
        addresses.extend(on(INTERFACE, beside.as_slice()));
        addresses.extend(on("lo", &vips));
        Namespace {
            name: server.namespace.clone(),
            settings: [self.host_settings(), NO_ARP.to_vec()].concat(),
            addresses,
            gateways,
            ..Namespace::default()
        }
    }

    pub(super) fn host_settings(&self) -> Vec<(&'static str, &'static str)> {
        if self.has_ipv6() {
            IPV6_HOST.to_vec()
        } else {
            Vec::new()
        }
    }

    pub(super) fn router_settings(&self) -> Vec<(&'static str, &'static str)> {
        let mut settings = self.host_settings();
        settings.extend(FORWARD_IPV4);
        if self.has_ipv6() {
            settings.extend(FORWARD_IPV6);
        }
        settings
    }

    /// A switch has no addresses, not even link-local ones.
    pub(super) fn switch_settings(&self) -> Vec<(&'static str, &'static str)> {
        if self.has_ipv6() {
            vec![("ipv6/conf/default/disable_ipv6", "1")]
        } else {
            Vec::new()
        }
    }

    /// What the derived subnets should make the user look at twice.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (family, is_ipv4) in [("IPv4", true), ("IPv6", false)] {
            let outside = self.subnets.iter().filter(|net| !self.is_inside(net));
            let of_family = outside.filter(|net| net.is_ipv4() == is_ipv4);
            let names: Vec<String> = of_family.map(Subnet::to_string).collect();
            if names.len() > 1 {
                notes.push(format!(
                    "the file's {family} addresses are in several subnets ({}): \
                     the director and the router have an address in each",
                    names.join(", ")
                ));
            }
        }
        notes
    }

    /// Those of `addresses` that are in the subnet of `host`.
    pub(super) fn near(&self, host: IpAddr, addresses: &[(IpAddr, u8)]) -> Vec<IpAddr> {
        let subnet = self.subnet_of(host);
        let near = |ip: &IpAddr| subnet.is_some_and(|subnet| subnet.contains(*ip));
        let addresses = addresses.iter().map(|(address, _)| *address);
        addresses.filter(near).collect()
    }

    fn has_ipv6(&self) -> bool {
        self.subnets.iter().any(|subnet| !subnet.is_ipv4())
    }

    fn subnet_of(&self, address: IpAddr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.contains(address))
    }
}

/// The prefixes that the file gives, then standard ones for what is in none
/// of them; none overlaps another.
fn subnets(config: &Config, addresses: &BTreeSet<IpAddr>) -> Vec<Subnet> {
    let held = config
        .vrrp_instances
        .iter()
        .flat_map(|instance| &instance.virtual_ipaddress);
    let mut given: Vec<Subnet> = held
        .map(|vip| Subnet::of(vip.address, vip.prefix_length))
        .filter(|subnet| !subnet.is_host())
        .collect();
    // Widest first, so that a narrower one inside it is found and left out.
    given.sort_by_key(Subnet::prefix_length);
    let standard = addresses.iter().map(|address| Subnet::standard(*address));
    let mut chosen: Vec<Subnet> = Vec::new();
    for subnet in given {
        if !chosen.iter().any(|known| known.overlaps(&subnet)) {
            chosen.push(subnet);
        }
    }
    for (subnet, address) in standard.zip(addresses) {
        if !chosen.iter().any(|known| known.contains(*address)) {
            // A standard subnet around a narrower given one swallows it.
            chosen.retain(|known| !known.overlaps(&subnet));
            chosen.push(subnet);
        }
    }
    chosen
}

/// True for an address that a host on a segment can have.
fn is_host(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !special && !link_local
}
