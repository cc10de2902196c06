//! What the kernel has told, and the differences that matter.
//!
//! Pure: messages in, events out. An event is produced only when something that
//! it carries changed, so a neighbour that goes from reachable to stale and back
//! is silent. The same comparison serves a dump after lost messages
//! ([`View::replace`]): what is gone meanwhile is reported like any other change.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteFlags;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::ADDRESS_PROTOCOL;
use crate::event::NetworkEvent;

/// Index of a link.
type Index = u32;

/// Link, address, prefix length.
type AddressKey = (Index, IpAddr, u8);

/// Link and address of a neighbour.
type NeighborKey = (Index, IpAddr);

/// The kernel's state as far as it has been told.
#[derive(Clone, Debug, Default)]
pub struct View {
    links: BTreeMap<Index, Link>,
    /// Whether each address is ours.
    addresses: BTreeMap<AddressKey, bool>,
    /// Those with a usable MAC only.
    neighbors: BTreeMap<NeighborKey, [u8; 6]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    name: String,
    mac: [u8; 6],
    up: bool,
    mtu: u32,
    ethernet: bool,
    kind: Option<String>,
    master: Option<Index>,
}

impl View {
    /// Takes over one message and returns what it changes, in the order in which
    /// it is to be told. Messages of other kinds change nothing.
    pub fn apply(&mut self, message: &RouteNetlinkMessage) -> Vec<NetworkEvent> {
        use RouteNetlinkMessage as M;
        if let M::NewLink(message) = message {
            link_of(message).map_or_else(Vec::new, |(index, link)| self.set_link(index, link))
        } else if let M::DelLink(message) = message {
            // A bridge says so, in a family of its own, when a port leaves it.
            if message.header.interface_family == AddressFamily::Unspec {
                self.remove_link(message.header.index)
            } else {
                Vec::new()
            }
        } else if let M::NewAddress(message) = message {
            address_of(message).map_or_else(Vec::new, |(key, ours)| self.set_address(key, ours))
        } else if let M::DelAddress(message) = message {
            address_of(message).map_or_else(Vec::new, |(key, _)| self.remove_address(key))
        } else if let M::NewNeighbour(message) = message {
            neighbor_of(message)
                .and_then(|(key, mac)| self.set_neighbor(key, mac))
                .into_iter()
                .collect()
        } else if let M::DelNeighbour(message) = message {
            neighbor_of(message)
                .and_then(|(key, _)| self.set_neighbor(key, None))
                .into_iter()
                .collect()
        } else if let M::NewRoute(message) | M::DelRoute(message) = message {
            // A cached exception (path MTU, redirect) is no route.
            if message.header.flags.contains(RouteFlags::Cloned) {
                Vec::new()
            } else {
                vec![NetworkEvent::RoutesChanged]
            }
        } else if let M::NewRule(_) | M::DelRule(_) = message {
            vec![NetworkEvent::RoutesChanged]
        } else {
            Vec::new()
        }
    }

    /// Takes a whole dump as the truth and returns the differences to what was
    /// known; the last event is [`NetworkEvent::RoutesChanged`], because routes
    /// are not followed one by one.
    pub fn replace(&mut self, dump: &[RouteNetlinkMessage]) -> Vec<NetworkEvent> {
        let mut now = Self::default();
        for message in dump {
            now.apply(message);
        }
        let mut events = Vec::new();
        for index in gone(&self.links, &now.links) {
            events.extend(self.remove_link(index));
        }
        for key in gone(&self.addresses, &now.addresses) {
            events.extend(self.remove_address(key));
        }
        for key in gone(&self.neighbors, &now.neighbors) {
            events.extend(self.set_neighbor(key, None));
        }
        for (index, link) in now.links {
            events.extend(self.set_link(index, link));
        }
        for (key, ours) in now.addresses {
            events.extend(self.set_address(key, ours));
        }
        for (key, mac) in now.neighbors {
            events.extend(self.set_neighbor(key, Some(mac)));
        }
        events.retain(|event| *event != NetworkEvent::RoutesChanged);
        events.push(NetworkEvent::RoutesChanged);
        events
    }

    fn set_link(&mut self, index: Index, link: Link) -> Vec<NetworkEvent> {
        let before = self.links.insert(index, link.clone());
        if before.as_ref() == Some(&link) {
            return Vec::new();
        }
        // The kernel takes the routes of a link that goes down along with it,
        // without a message for each.
        let routes = before.is_some_and(|before| before.up != link.up);
        let mut events = vec![NetworkEvent::Link {
            index,
            name: link.name,
            mac: link.mac,
            up: link.up,
            mtu: link.mtu,
            ethernet: link.ethernet,
            kind: link.kind,
            master: link.master,
        }];
        if routes {
            events.push(NetworkEvent::RoutesChanged);
        }
        events
    }

    fn remove_link(&mut self, index: Index) -> Vec<NetworkEvent> {
        if self.links.remove(&index).is_none() {
            return Vec::new();
        }
        let addresses: Vec<_> = self
            .addresses
            .keys()
            .copied()
            .filter(|k| k.0 == index)
            .collect();
        let neighbors: Vec<_> = self
            .neighbors
            .keys()
            .copied()
            .filter(|k| k.0 == index)
            .collect();
        let mut events = Vec::new();
        for key in addresses {
            events.extend(self.remove_address(key));
        }
        for key in neighbors {
            events.extend(self.set_neighbor(key, None));
        }
        events.retain(|event| *event != NetworkEvent::RoutesChanged);
        events.push(NetworkEvent::LinkGone { index });
        events.push(NetworkEvent::RoutesChanged);
        events
    }

    fn set_address(&mut self, key: AddressKey, ours: bool) -> Vec<NetworkEvent> {
        if self.addresses.insert(key, ours) == Some(ours) {
            return Vec::new();
        }
        address_changed(key, ours, true)
    }

    fn remove_address(&mut self, key: AddressKey) -> Vec<NetworkEvent> {
        self.addresses
            .remove(&key)
            .map_or_else(Vec::new, |ours| address_changed(key, ours, false))
    }

    fn set_neighbor(&mut self, key: NeighborKey, mac: Option<[u8; 6]>) -> Option<NetworkEvent> {
        let before = match mac {
            Some(mac) => self.neighbors.insert(key, mac),
            None => self.neighbors.remove(&key),
        };
        let (index, address) = key;
        (before != mac).then_some(NetworkEvent::Neighbor {
            index,
            address,
            mac,
        })
    }
}

/// The kernel removes routes through an address's source or subnet silently.
fn address_changed(key: AddressKey, ours: bool, present: bool) -> Vec<NetworkEvent> {
    let (index, address, prefix_length) = key;
    vec![
        NetworkEvent::Address {
            index,
            address,
            prefix_length,
            ours,
            present,
        },
        NetworkEvent::RoutesChanged,
    ]
}

fn gone<K: Ord + Copy, V, W>(before: &BTreeMap<K, V>, now: &BTreeMap<K, W>) -> Vec<K> {
    before
        .keys()
        .copied()
        .filter(|key| !now.contains_key(key))
        .collect()
}

/// `None`: not about the link itself. Bridges and wireless drivers send messages
/// of the same type with other contents; those have no MTU.
fn link_of(message: &LinkMessage) -> Option<(Index, Link)> {
    let header = &message.header;
    if header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let (mut name, mut mtu, mut mac, mut kind, mut master) = (None, None, None, None, None);
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(value) = attribute {
            name = Some(value.clone());
        } else if let LinkAttribute::Mtu(value) = attribute {
            mtu = Some(*value);
        } else if let LinkAttribute::Address(value) = attribute {
            mac = <[u8; 6]>::try_from(value.as_slice()).ok();
        } else if let LinkAttribute::Controller(value) = attribute {
            master = Some(*value).filter(|&index| index != 0);
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            kind = infos.iter().find_map(|info| {
                if let LinkInfo::Kind(kind) = info {
                    Some(kind.to_string())
                } else {
                    None
                }
            });
        }
    }
    let link = Link {
        name: name?,
        mac: mac.unwrap_or_default(),
        // IFF_LOWER_UP is the carrier.
        up: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        mtu: mtu?,
        ethernet: header.link_layer_type == LinkLayerType::Ether
            && !header.flags.contains(LinkFlags::Loopback)
            && mac.is_some(),
        kind,
        master,
    };
    Some((header.index, link))
}

fn address_of(message: &AddressMessage) -> Option<(AddressKey, bool)> {
    let (mut local, mut address, mut ours) = (None, None, false);
    for attribute in &message.attributes {
        if let AddressAttribute::Local(value) = attribute {
            local = Some(*value);
        } else if let AddressAttribute::Address(value) = attribute {
            address = Some(*value);
        } else if let AddressAttribute::Protocol(value) = attribute {
            ours = *value == AddressProtocol::Other(ADDRESS_PROTOCOL);
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end; IPv6 has no
    // IFA_LOCAL otherwise.
    let own = local.or(address)?;
    let header = &message.header;
    Some(((header.index, own, header.prefix_len), ours))
}

/// `None`: not a neighbour that one could send to (a bridge's forwarding entry,
/// a proxy entry, a multicast mapping).
fn neighbor_of(message: &NeighbourMessage) -> Option<(NeighborKey, Option<[u8; 6]>)> {
    use NeighbourState as S;
    let header = &message.header;
    if header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut destination, mut mac) = (None, None);
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(value)) = attribute {
            destination = Some(IpAddr::V4(*value));
        } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(value)) = attribute {
            destination = Some(IpAddr::V6(*value));
        } else if let NeighbourAttribute::LinkLayerAddress(value) = attribute {
            mac = <[u8; 6]>::try_from(value.as_slice()).ok();
        }
    }
    let destination = destination.filter(|address| !address.is_multicast())?;
    // The kernel goes on sending to a stale, delayed or probed neighbour, so do we.
    let usable = matches!(
        header.state,
        S::Reachable | S::Stale | S::Delay | S::Probe | S::Permanent | S::Noarp
    );
    Some(((header.ifindex, destination), mac.filter(|_| usable)))
}

/// The address of an unusable neighbour is no news, that of a usable one is:
/// also what a single lookup wants to know.
pub(super) fn neighbor_mac(message: &NeighbourMessage) -> Option<[u8; 6]> {
    neighbor_of(message)?.1
}

#[cfg(test)]
mod tests;
