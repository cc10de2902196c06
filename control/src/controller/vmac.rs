//! The macvlan interfaces of instances with `use_vmac`: there as long as the file says so, up while their
//! instance is master, with its addresses on them.
//!
//! Down they are nobody's: what other directors send from the virtual router's MAC address is then
//! received by the interface below, which a macvlan that is up keeps it from.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::service::MacAddress;

use super::Port;
use crate::config::{Config, VrrpInstance};
use crate::event::Action;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Device {
    /// The interface below, and its index.
    base: String,
    base_index: u32,
    mac: [u8; 6],
}

/// By the names of the interfaces.
#[derive(Debug, Default)]
pub(super) struct Vmacs {
    devices: BTreeMap<String, Device>,
    indexes: BTreeMap<String, u32>,
    up: BTreeSet<String>,
}

impl Vmacs {
    /// The kernel's index of an interface; `None`: it is not there (yet).
    pub(super) fn index(&self, name: &str) -> Option<u32> {
        self.indexes.get(name).copied()
    }

    /// True if the interface with this index is one of these.
    pub(super) fn has(&self, index: u32) -> bool {
        self.indexes.values().any(|known| *known == index)
    }

    /// A link is there. True if it is one of these and was not before.
    pub(super) fn link(&mut self, name: &str, index: u32) -> bool {
        self.devices.contains_key(name)
            && self.indexes.insert(name.to_owned(), index) != Some(index)
    }

    /// A link is there no more. True if it was one of these: it is to be made again.
    pub(super) fn link_gone(&mut self, index: u32) -> bool {
        let mut known = self.indexes.iter();
        let Some((name, _)) = known.find(|(_, known)| **known == index) else {
            return false;
        };
        let name = name.clone();
        self.indexes.remove(&name);
        self.up.remove(&name);
        self.devices.remove(&name).is_some()
    }

    /// Makes those that the file wants.
    pub(super) fn add(&mut self, config: &Config, ports: &[Port], actions: &mut Vec<Action>) {
        for (name, device) in wanted(config, ports) {
            if self.devices.get(&name) == Some(&device) {
                continue;
            }
            actions.push(Action::AddVmac {
                name: name.clone(),
                base: device.base_index,
                mac: device.mac,
            });
            self.up.remove(&name);
            self.indexes.remove(&name);
            self.devices.insert(name, device);
        }
    }

    /// Up with that of an instance that became master.
    pub(super) fn raise(&mut self, instance: &VrrpInstance, actions: &mut Vec<Action>) {
        let Some(vmac) = &instance.vmac else { return };
        let device = self.devices.get(&vmac.name);
        if let Some(device) = device.filter(|_| !self.up.contains(&vmac.name)) {
            self.up.insert(vmac.name.clone());
            actions.push(set(&vmac.name, device, true));
        }
    }

    /// Down with those of all but the masters, and away with those that the file does not want.
    pub(super) fn lower(
        &mut self,
        config: &Config,
        ports: &[Port],
        masters: &BTreeSet<String>,
        actions: &mut Vec<Action>,
    ) {
        let wanted = wanted(config, ports);
        let instances = config.vrrp_instances.iter();
        let masters = instances.filter(|instance| masters.contains(&instance.name));
        let names = masters.filter_map(|instance| Some(instance.vmac.as_ref()?.name.as_str()));
        let held: BTreeSet<_> = names.collect();
        self.lower_all_but(&held, actions);
        self.devices.retain(|name, device| {
            let is_wanted = wanted.get(name) == Some(device);
            if !is_wanted {
                let name = name.clone();
                actions.push(Action::RemoveVmac { name });
            }
            is_wanted
        });
    }

    fn lower_all_but(&mut self, held: &BTreeSet<&str>, actions: &mut Vec<Action>) {
        let devices = &self.devices;
        self.up.retain(|name| {
            let is_held = held.contains(name.as_str());
            if let Some(device) = devices.get(name).filter(|_| !is_held) {
                actions.push(set(name, device, false));
            }
            is_held
        });
    }

    /// Removes all of them.
    pub(super) fn release(&mut self, actions: &mut Vec<Action>) {
        self.lower_all_but(&BTreeSet::new(), actions);
        let names = std::mem::take(&mut self.devices).into_keys();
        actions.extend(names.map(|name| Action::RemoveVmac { name }));
        self.indexes.clear();
    }

    /// The MAC addresses that an interface answers to because of those above it.
    pub(super) fn macs(&self, base_index: u32) -> Vec<MacAddress> {
        let above = self.up.iter().filter_map(|name| self.devices.get(name));
        let above = above.filter(|device| device.base_index == base_index);
        above.map(|device| MacAddress(device.mac)).collect()
    }
}

fn set(name: &str, device: &Device, up: bool) -> Action {
    Action::SetVmac {
        name: name.to_owned(),
        base: device.base.clone(),
        up,
    }
}

fn wanted(config: &Config, ports: &[Port]) -> BTreeMap<String, Device> {
    let instances = config.vrrp_instances.iter();
    let wanted = instances.filter_map(|instance| {
        let vmac = instance.vmac.as_ref()?;
        let port = ports.iter().find(|port| port.name == instance.interface)?;
        let device = Device {
            base: port.name.clone(),
            base_index: port.index,
            mac: instance.virtual_mac(),
        };
        Some((vmac.name.clone(), device))
    });
    wanted.collect()
}
