//! Which VIP addresses the director holds, and on which interface.
//!
//! An address of a `vrrp_instance` goes where the file says, while the
//! instance is master. That of a virtual server which no
//! instance manages and no interface has goes, as a host address, to the
//! interface whose subnet holds it; one outside every subnet is left to the
//! routers, and said. The routes and rules that go with an instance's addresses are in `routing`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use dataplane::service::MacAddress;

use super::Port;
use super::routing::Routing;
use super::vmac::Vmacs;
use crate::config::{Config, VirtualAddress, VirtualServer};
use crate::event::Action;

/// An address that the director is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The kernel's interface index.
    pub index: u32,
    pub interface: String,
    pub address: IpAddr,
    pub prefix_length: u8,
    pub label: Option<String>,
    pub scope: Option<u8>,
    /// The `vrrp_instance` that holds it, and announces it.
    pub instance: Option<String>,
    /// The MAC address that is its own: it is on a macvlan.
    pub mac: Option<[u8; 6]>,
}

/// The addresses of this host, and the VIPs among them.
#[derive(Debug, Default)]
pub struct Addresses {
    /// What interfaces have, each with its prefix length, as the same address may be there with several; and whether an
    /// appliance added it, this one or one that was killed.
    present: BTreeMap<(u32, IpAddr, u8), bool>,
    /// What the configuration wants, by address.
    wanted: BTreeMap<IpAddr, Wanted>,
    /// Local addresses that the configuration does not name any more, and connections may.
    pub(super) leaving: BTreeSet<IpAddr>,
    /// Not to be added: others are being asked whether they have them, or have answered that they do.
    pub(super) withheld: BTreeSet<IpAddr>,
    /// No other appliance ran here at the start.
    pub(super) owns_all_marked: bool,
    is_started: bool,
    /// Said once each.
    unplaced: BTreeSet<IpAddr>,
    routing: Routing,
    pub(super) vmacs: Vmacs,
}

impl Addresses {
    /// The kernel reported an address.
    pub(super) fn observe(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix_length: u8,
        ours: bool,
        present: bool,
    ) {
        let key = (index, address, prefix_length);
        if present {
            self.present.insert(key, ours);
        } else {
            self.present.remove(&key);
        }
    }

    /// An interface went, and its addresses with it: nothing is to be removed, and if it returns, all is to be added.
    pub(super) fn forget(&mut self, index: u32) {
        self.wanted.retain(|_, wanted| wanted.index != index);
    }

    /// True if an interface has the address, with whatever prefix.
    fn has(&self, index: u32, address: IpAddr) -> bool {
        let any = (index, address, 0)..=(index, address, u8::MAX);
        self.present.range(any).next().is_some()
    }

    /// The addresses of a link.
    pub(super) fn of_link(&self, index: u32) -> impl Iterator<Item = IpAddr> {
        self.present
            .keys()
            .filter(move |(link, ..)| *link == index)
            .map(|(_, address, _)| *address)
    }

    /// Every address of this host; one that several links have, or one with several prefixes, comes several times.
    pub(super) fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.present.keys().map(|(_, address, _)| *address)
    }

    /// What `config` wants on this host while `masters` are the instances in
    /// state MASTER. Used before anything is changed, to
    /// ask whether an address is in use elsewhere, and by `want`.
    #[must_use]
    pub fn plan(
        &self,
        config: &Config,
        ports: &[Port],
        masters: &BTreeSet<String>,
    ) -> BTreeMap<IpAddr, Wanted> {
        let mut wanted = BTreeMap::new();
        let usable = || ports.iter().filter(|port| !port.gone);
        let held = config.vrrp_instances.iter();
        for instance in held.filter(|instance| masters.contains(&instance.name)) {
            for VirtualAddress {
                address,
                prefix_length,
                interface,
                label,
                scope,
                no_track: _,
            } in instance.held()
            {
                let vmac = instance.vmac.as_ref().filter(|_| interface.is_none());
                let own = vmac.map_or(&instance.interface, |vmac| &vmac.name);
                let name = interface.as_ref().unwrap_or(own);
                let port = usable().find(|port| port.name == *name);
                let index = port.map(|port| port.index);
                if let Some(index) = index.or_else(|| self.vmacs.index(name)) {
                    wanted.insert(
                        *address,
                        Wanted {
                            index,
                            interface: name.clone(),
                            mac: vmac.map(|_| instance.virtual_mac()),
                            address: *address,
                            prefix_length: *prefix_length,
                            label: label.clone(),
                            scope: *scope,
                            instance: Some(instance.name.clone()),
                        },
                    );
                }
            }
        }
        // Of a thousand virtual addresses nearly all that are present are ours.
        let others: Vec<_> = self
            .present
            .iter()
            .filter(|(_, ours)| !**ours)
            .map(|(key, _)| *key)
            .collect();
        let services = config.virtual_servers.iter();
        // Of those that leave, what is here; that of an instance goes with it.
        let leaving = self.leaving.iter().copied().filter(|address| {
            let held = self.wanted.get(address);
            held.is_some_and(|held| held.instance.is_none())
        });
        let own = services.flat_map(VirtualServer::own_addresses);
        for address in own.chain(leaving) {
            let somebody_has_it = others.iter().any(|(_, present, _)| *present == address);
            if is_managed(config, address) {
                continue;
            }
            let holds = |port: &&Port| {
                let mut subnets = others.iter().filter(|(on, ..)| *on == port.index);
                subnets.any(|(_, own, length)| same_subnet(*own, address, *length))
            };
            let by_subnet = usable().find(holds).filter(|_| !somebody_has_it);
            // What is held stays: a subnet that is gone for a moment, as DHCP and a link that goes down and up make it,
            // and somebody who adds the address too, and removes it again, are no reason to leave clients alone.
            let held = self.wanted.get(&address);
            let held = held.filter(|held| held.instance.is_none());
            let by_habit = held.and_then(|held| usable().find(|port| port.index == held.index));
            if let Some(port) = by_subnet.or(by_habit) {
                wanted.insert(
                    address,
                    Wanted {
                        index: port.index,
                        interface: port.name.clone(),
                        address,
                        prefix_length: if address.is_ipv4() { 32 } else { 128 },
                        label: None,
                        scope: None,
                        instance: None,
                        mac: None,
                    },
                );
            }
        }
        wanted
    }

    /// Those of a plan that no interface has yet: to be asked for on the
    /// network before they are taken.
    pub fn missing<'a>(
        &'a self,
        plan: &'a BTreeMap<IpAddr, Wanted>,
    ) -> impl Iterator<Item = &'a Wanted> {
        plan.values()
            .filter(|wanted| !self.has(wanted.index, wanted.address))
    }

    /// Withholds what a plan would add, but for what VRRP decides about, and asks for it.
    pub(super) fn ask_for_new(
        &mut self,
        plan: &BTreeMap<IpAddr, Wanted>,
        actions: &mut Vec<Action>,
    ) {
        let mut new: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        let missing = self.missing(plan).filter(|wanted| {
            let address = &wanted.address;
            let is_known = self.wanted.contains_key(address) || self.withheld.contains(address);
            wanted.instance.is_none() && !is_known
        });
        for wanted in missing {
            new.entry(wanted.index).or_default().push(wanted.address);
        }
        for (index, addresses) in new {
            self.withheld.extend(&addresses);
            actions.push(Action::AskFor { index, addresses });
        }
    }

    /// Takes note of who has addresses that were asked for. What nobody has may be added.
    pub(super) fn answered(
        &mut self,
        addresses: &[IpAddr],
        claimed: &[(IpAddr, [u8; 6])],
        actions: &mut Vec<Action>,
    ) {
        for address in addresses {
            // A reload that came in between has asked itself.
            if !self.withheld.remove(address) {
                continue;
            }
            if let Some((_, mac)) = claimed.iter().find(|(claimed, _)| claimed == address) {
                self.withheld.insert(*address);
                actions.push(Action::Warn(format!(
                    "address {address} of a virtual server is in use by the host with MAC address {}, so it is not added \
                     here: stop it there and reload the configuration, or if that is a real server, keep it from answering \
                     ARP for the address (arp_ignore=1, arp_announce=2)",
                    MacAddress(*mac)
                )));
            }
        }
    }

    /// Takes up what `config` wants: adds, announces and removes addresses.
    pub(super) fn want(
        &mut self,
        config: &Config,
        ports: &[Port],
        masters: &BTreeSet<String>,
        actions: &mut Vec<Action>,
    ) {
        self.vmacs.add(config, ports, actions);
        let mut plan = self.plan(config, ports, masters);
        plan.retain(|address, _| !self.withheld.contains(address));
        let missing = self.routing.want(config, masters, actions);
        let unwanted = self
            .wanted
            .values()
            .filter(|held| plan.get(&held.address) != Some(*held));
        for held in unwanted {
            // What an instance gives up is said with its change of state.
            if held.instance.is_none() {
                actions.push(Action::Log(why_removed(held, config, &plan)));
            }
            actions.push(remove(held));
        }
        self.remove_left(&plan, ports, actions);
        for wanted in plan.values() {
            if self.wanted.get(&wanted.address) != Some(wanted) {
                actions.push(add(wanted));
                if wanted.instance.is_none() {
                    actions.push(Action::Announce {
                        index: wanted.index,
                        address: wanted.address,
                    });
                }
            }
        }
        // Ours is what the plan has, or about to be removed.
        let others = self.present.iter().filter(|(_, ours)| !**ours);
        let others: HashSet<IpAddr> = others.map(|((_, address, _), _)| *address).collect();
        let services = config.virtual_servers.iter();
        for address in services.flat_map(VirtualServer::own_addresses) {
            if self.withheld.contains(&address) {
                continue;
            }
            let placed = plan.get(&address);
            let held = placed.is_some() || is_managed(config, address) || others.contains(&address);
            if held {
                let was_unplaced = self.unplaced.remove(&address);
                actions.extend(placed.filter(|_| was_unplaced).map(|placed| {
                    Action::Log(format!(
                        "address {address} of a virtual server: {} has a subnet that holds it now, it is added there",
                        placed.interface
                    ))
                }));
            } else if self.unplaced.insert(address) {
                actions.push(Action::Log(format!(
                    "address {address} of a virtual server: no interface has a subnet that holds it, so it is not added to one; \
                     routers must send it here, or name it in a vrrp_instance"
                )));
            }
        }
        self.wanted = plan;
        missing.add(actions);
        self.vmacs.lower(config, ports, masters, actions);
    }

    /// Removes what a killed appliance left behind and this one does not want.
    ///
    /// On the interfaces in use, what has our mark is nobody else's. On others it may be that of an appliance that
    /// runs, if not now then later: there it is removed at the start only, if there is no other.
    fn remove_left(
        &mut self,
        plan: &BTreeMap<IpAddr, Wanted>,
        ports: &[Port],
        actions: &mut Vec<Action>,
    ) {
        let is_start = !std::mem::replace(&mut self.is_started, true);
        let everywhere = is_start && self.owns_all_marked;
        let (mut removed, mut spared) = (Vec::new(), Vec::new());
        let ours = self.present.iter().filter(|(_, ours)| **ours);
        for (&(index, address, prefix_length), _) in ours {
            let wanted = |held: &Wanted| held.index == index && held.prefix_length == prefix_length;
            if plan.get(&address).is_some_and(wanted) || self.wanted.contains_key(&address) {
                continue;
            }
            let is_in_use = ports.iter().any(|port| port.index == index) || self.vmacs.has(index);
            let left = (address, index, prefix_length);
            match everywhere || is_in_use {
                true => removed.push(left),
                false => spared.push(left),
            }
        }
        removed.sort_unstable();
        actions.extend(removed.iter().map(|&(address, index, prefix_length)| {
            Action::RemoveAddress {
                index,
                address,
                prefix_length,
            }
        }));
        // Later it may be what this one has just given up, and the kernel has not told of yet.
        if is_start && !removed.is_empty() {
            actions.push(Action::Log(format!(
                "removed {} that a killed appliance left behind",
                in_words(&removed)
            )));
        }
        if is_start && !spared.is_empty() {
            spared.sort_unstable();
            actions.push(Action::Log(format!(
                "another appliance runs in this network namespace, and what may be its stays: {} on interfaces not in use here",
                in_words(&spared)
            )));
        }
    }

    /// An address of ours disappeared: somebody removed it, or its interface
    /// went down and up. It is added again.
    pub(super) fn restore(
        &self,
        index: u32,
        address: IpAddr,
        prefix_length: u8,
        actions: &mut Vec<Action>,
    ) {
        let removed =
            |wanted: &&Wanted| wanted.index == index && wanted.prefix_length == prefix_length;
        if let Some(wanted) = self.wanted.get(&address).filter(removed) {
            actions.push(Action::Log(format!(
                "address {address} was removed from {}: adding it again",
                wanted.interface
            )));
            actions.push(add(wanted));
            actions.push(Action::Announce { index, address });
            actions.extend(self.routing.restore(|route| route.src == Some(address)));
        }
    }

    /// Adds the routes again that went with an interface, after it came up.
    pub(super) fn restore_routes(&self, interface: &str, actions: &mut Vec<Action>) {
        let by_it = self
            .routing
            .restore(|route| route.dev.as_deref() == Some(interface));
        actions.extend(by_it);
    }

    /// Announces every address on an interface, after it came up.
    pub(super) fn announce(&self, index: u32, actions: &mut Vec<Action>) {
        let on_interface = self.wanted.values().filter(|wanted| wanted.index == index);
        for wanted in on_interface {
            if !self.has(index, wanted.address) {
                actions.push(add(wanted));
            }
            actions.push(Action::Announce {
                index,
                address: wanted.address,
            });
        }
    }

    /// Removes every address, route and rule that was added.
    pub(super) fn release(&mut self, actions: &mut Vec<Action>) {
        self.routing.release(actions);
        actions.extend(std::mem::take(&mut self.wanted).values().map(remove));
        self.vmacs.release(actions);
    }

    /// What an instance of VRRP holds now.
    pub fn of_instance<'a>(&'a self, instance: &'a str) -> impl Iterator<Item = &'a Wanted> {
        let held = self.wanted.values();
        held.filter(move |wanted| wanted.instance.as_deref() == Some(instance))
    }
}

/// True if an instance of VRRP decides whether this host has the address.
fn is_managed(config: &Config, address: IpAddr) -> bool {
    let mut instances = config.vrrp_instances.iter();
    instances.any(|instance| instance.held().any(|held| held.address == address))
}

fn add(wanted: &Wanted) -> Action {
    Action::AddAddress {
        index: wanted.index,
        address: wanted.address,
        prefix_length: wanted.prefix_length,
        label: wanted.label.clone(),
        scope: wanted.scope,
    }
}

fn remove(wanted: &Wanted) -> Action {
    let Wanted {
        index,
        address,
        prefix_length,
        ..
    } = *wanted;
    Action::RemoveAddress {
        index,
        address,
        prefix_length,
    }
}

/// What is said of an address that is not held any more where it was.
fn why_removed(held: &Wanted, config: &Config, plan: &BTreeMap<IpAddr, Wanted>) -> String {
    let mut services = config.virtual_servers.iter();
    let why = if is_managed(config, held.address) {
        "a vrrp_instance manages it now".to_owned()
    } else if let Some(now) = plan.get(&held.address) {
        format!("{} has it now", now.interface)
    } else if !services.any(|service| service.own_addresses().any(|own| own == held.address)) {
        "no virtual server needs it any more".to_owned()
    } else {
        "the interface is not used any more".to_owned()
    };
    format!(
        "address {} is removed from {}: {why}",
        held.address, held.interface
    )
}

/// How many addresses, and the first of them.
fn in_words(addresses: &[(IpAddr, u32, u8)]) -> String {
    let first = addresses.iter().take(5);
    let named: Vec<String> = first.map(|(address, ..)| address.to_string()).collect();
    format!(
        "{} address{} ({}{})",
        addresses.len(),
        if addresses.len() == 1 { "" } else { "es" },
        named.join(", "),
        if addresses.len() > named.len() {
            ", …"
        } else {
            ""
        }
    )
}

/// True if `a/prefix_length` holds `b`. A link-local or host prefix holds
/// nothing else.
fn same_subnet(a: IpAddr, b: IpAddr, prefix_length: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32_u32.saturating_sub(prefix_length.into());
            a.to_bits().checked_shr(shift).unwrap_or(0)
                == b.to_bits().checked_shr(shift).unwrap_or(0)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128_u32.saturating_sub(prefix_length.into());
            a.to_bits().checked_shr(shift).unwrap_or(0)
                == b.to_bits().checked_shr(shift).unwrap_or(0)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}
