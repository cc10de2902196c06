//! What the steering program is to go by, and which MAC addresses interfaces
//! answer to.
//!
//! Invariant: the rules here are those that the actions so far told of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane::bpf::Rule;
use dataplane::service::{Address, ForwardingMethod, MacAddress, ServiceKey, Tunnel};

use super::{Addresses, Port};
use crate::config::{Config, VirtualServer};
use crate::event::Action;

/// What the steering program was told.
#[derive(Debug, Default)]
pub(super) struct Steering {
    rules: BTreeSet<Rule>,
    links: BTreeMap<u32, Link>,
    /// Of macvlans above an interface, by its index.
    virtual_macs: BTreeMap<u32, Vec<MacAddress>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    mac: [u8; 6],
    master: Option<u32>,
}

impl Steering {
    /// Gives up every rule that is not wanted any more, in the reverse of the order in
    /// which they are taken up.
    pub(super) fn keep_only(&mut self, wanted: &BTreeSet<Rule>, actions: &mut Vec<Action>) {
        let gone = self.rules.iter().rev();
        let gone = gone.filter(|rule| !wanted.contains(rule));
        actions.extend(gone.copied().map(Action::Unsteer));
        self.rules.retain(|rule| wanted.contains(rule));
    }

    /// Takes up every rule that is new.
    pub(super) fn take_up(&mut self, wanted: BTreeSet<Rule>, actions: &mut Vec<Action>) {
        let new = wanted.difference(&self.rules);
        actions.extend(new.copied().map(Action::Steer));
        self.rules = wanted;
    }

    /// Every rule, in the order in which they are taken up.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// True if it was told of this one.
    pub(super) fn has(&self, rule: &Rule) -> bool {
        self.rules.contains(rule)
    }

    /// An address of this host came or went.
    pub(super) fn local_address(
        &mut self,
        config: &Config,
        address: IpAddr,
        present: bool,
        actions: &mut Vec<Action>,
    ) {
        let known = Address::from(address);
        let (local, refused) = (Rule::LocalAddress(known), Rule::RefusedAddress(known));
        let wanted = if !present || self.rules.contains(&Rule::PoolAddress(known)) {
            None
        } else if config.refuses(address) {
            Some(refused)
        } else {
            needs_local_addresses(&self.rules).then_some(local)
        };
        for rule in [local, refused] {
            if wanted != Some(rule) && self.rules.remove(&rule) {
                actions.push(Action::Unsteer(rule));
            }
        }
        if let Some(rule) = wanted.filter(|rule| self.rules.insert(*rule)) {
            actions.push(Action::Steer(rule));
        }
    }

    /// A link came or changed; those of the ports whose MAC addresses are others now are told.
    pub(super) fn link(
        &mut self,
        index: u32,
        mac: [u8; 6],
        master: Option<u32>,
        ports: &[Port],
        actions: &mut Vec<Action>,
    ) {
        let before: Vec<_> = ports.iter().map(|port| self.own_macs(port)).collect();
        self.links.insert(index, Link { mac, master });
        for (port, before) in ports.iter().zip(before) {
            if self.own_macs(port) != before {
                actions.push(Action::OwnMacs { index: port.index });
            }
        }
    }

    /// An interface answers to these as well from now on, and to no others of that kind.
    pub(super) fn virtual_macs(
        &mut self,
        index: u32,
        macs: Vec<MacAddress>,
        actions: &mut Vec<Action>,
    ) {
        let known = self.virtual_macs.entry(index).or_default();
        if *known != macs {
            *known = macs;
            actions.push(Action::OwnMacs { index });
        }
    }

    /// A port's own MAC address, that of the bridge, bond or VRF it is part of, and those of the virtual
    /// routers that it is master of.
    pub(super) fn own_macs(&self, port: &Port) -> Vec<MacAddress> {
        let virtual_macs = self.virtual_macs.get(&port.index).into_iter().flatten();
        let Some(link) = self.links.get(&port.index) else {
            let own = [MacAddress(port.mac)].into_iter();
            return own.chain(virtual_macs.copied()).collect();
        };
        let master = link.master.and_then(|master| self.links.get(&master));
        let mut macs = vec![MacAddress(link.mac)];
        macs.extend(
            master
                .map(|master| MacAddress(master.mac))
                .filter(|mac| *mac != macs[0]),
        );
        macs.extend(virtual_macs);
        macs
    }
}

/// The rules that a configuration demands, on a host with these addresses, besides those that are `kept`.
pub(super) fn rules(
    config: &Config,
    addresses: &Addresses,
    kept: impl Iterator<Item = Rule>,
) -> BTreeSet<Rule> {
    let mut rules: BTreeSet<Rule> = kept.collect();
    rules.extend(config.appliance.allow.iter().copied().map(Rule::Allow));
    rules.extend(config.appliance.deny.iter().copied().map(Rule::Deny));
    for service in &config.virtual_servers {
        rules.extend(service.destinations().map(Rule::VirtualServer));
        rules.extend(rules_of_servers(service));
        let local = service.local_addresses().map(Address::from);
        rules.extend(local.map(Rule::PoolAddress));
    }
    let needs_local_addresses = needs_local_addresses(&rules);
    for address in addresses.all() {
        let known = Address::from(address);
        if rules.contains(&Rule::PoolAddress(known)) {
            continue;
        }
        if config.refuses(address) {
            rules.insert(Rule::RefusedAddress(known));
        } else if needs_local_addresses {
            rules.insert(Rule::LocalAddress(known));
        }
    }
    rules
}

fn rules_of_servers(service: &VirtualServer) -> impl Iterator<Item = Rule> {
    service.all_servers().filter_map(|server| {
        let address = server.address.ip().into();
        match server.lb_kind {
            // Their answers do not pass here, or go to a pool address.
            ForwardingMethod::Direct | ForwardingMethod::FullNat => None,
            ForwardingMethod::Nat => Some(Rule::RealServer(ServiceKey {
                address,
                port: server.address.port(),
                protocol: service.protocol(),
            })),
            ForwardingMethod::Tunnel(tunnel) => Some(Rule::TunnelServer {
                address,
                gue_port: match tunnel {
                    Tunnel::Gue { port } => Some(port),
                    Tunnel::Ipip | Tunnel::Gre => None,
                },
            }),
        }
    })
}

/// Without NAT nothing is taken for what it comes from, and nothing need be excepted.
fn needs_local_addresses(rules: &BTreeSet<Rule>) -> bool {
    rules.iter().any(|rule| matches!(rule, Rule::RealServer(_)))
}

#[cfg(test)]
mod tests {
    use dataplane::service::PortIndex;

    use super::*;

    fn port() -> Port {
        Port {
            number: PortIndex(0),
            index: 2,
            name: "eth0".into(),
            mac: [2, 0, 0, 0, 0, 2],
            up: true,
            gone: false,
        }
    }

    #[test]
    fn a_member_answers_to_its_masters_mac_as_well() {
        let mut steering = Steering::default();
        let ports = [port()];
        let mut actions = Vec::new();
        let mac = |last| MacAddress([2, 0, 0, 0, 0, last]);
        assert_eq!(steering.own_macs(&port()), [mac(2)]);
        steering.link(2, [2, 0, 0, 0, 0, 2], Some(9), &ports, &mut actions);
        assert_eq!(actions, []);
        steering.link(9, [2, 0, 0, 0, 0, 9], None, &ports, &mut actions);
        assert_eq!(actions, [Action::OwnMacs { index: 2 }]);
        assert_eq!(steering.own_macs(&port()), [mac(2), mac(9)]);
        // The same again, and a link that has nothing to do with it.
        steering.link(9, [2, 0, 0, 0, 0, 9], None, &ports, &mut actions);
        steering.link(7, [2, 0, 0, 0, 0, 7], None, &ports, &mut actions);
        // A bond has the address of its members.
        steering.link(9, [2, 0, 0, 0, 0, 2], None, &ports, &mut actions);
        assert_eq!(actions.len(), 2);
        assert_eq!(steering.own_macs(&port()), [mac(2)]);
    }

    #[test]
    fn an_address_that_refuses_does_so_while_it_is_here() {
        let text = r#"
[[vrrp_instance]]
name = "VI_1"
interface = "eth0"
virtual_router_id = 51
no_accept = true
virtual_ipaddress = ["10.0.0.100"]
"#;
        let path = std::path::Path::new("test.toml");
        let config = crate::config::parse(text, path).unwrap().config;
        let mut steering = Steering::default();
        let mut actions = Vec::new();
        let (own, vip) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 100]));
        let refused = Rule::RefusedAddress(vip.into());
        steering.local_address(&config, own, true, &mut actions);
        steering.local_address(&config, vip, true, &mut actions);
        steering.local_address(&config, vip, true, &mut actions);
        assert_eq!(actions, [Action::Steer(refused)]);
        // It may be the source of a connection to a real server of NAT, whose answers it refuses as well.
        let server = Rule::RealServer("TCP 10.0.0.9:80".parse().unwrap());
        steering.take_up(BTreeSet::from([server, refused]), &mut actions);
        steering.local_address(&config, own, true, &mut actions);
        steering.local_address(&config, vip, false, &mut actions);
        let rest = [
            Action::Steer(server),
            Action::Steer(Rule::LocalAddress(own.into())),
            Action::Unsteer(refused),
        ];
        assert_eq!(actions[1..], rest);
    }

    #[test]
    fn rules_are_given_up_in_the_opposite_order() {
        let key = "TCP 10.0.0.1:80".parse().unwrap();
        let local = Rule::LocalAddress(IpAddr::from([10, 0, 0, 2]).into());
        let rules = BTreeSet::from([Rule::RealServer(key), local, Rule::VirtualServer(key)]);
        let mut steering = Steering::default();
        let mut actions = Vec::new();
        steering.take_up(rules.clone(), &mut actions);
        steering.take_up(rules, &mut actions);
        steering.keep_only(&BTreeSet::new(), &mut actions);
        let order = [local, Rule::VirtualServer(key), Rule::RealServer(key)];
        let there = order.map(Action::Steer);
        let back = order.map(Action::Unsteer);
        assert_eq!(actions[..3], there);
        assert!(actions[3..].iter().eq(back.iter().rev()));
    }
}
