//! What a host has at one moment: its links with their addresses, and its
//! default routes. For commands that look once and end; what runs for long
//! follows the changes with a [`Monitor`](super::Monitor).

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_packet_route::route::{RouteHeader, RouteType};
use netlink_packet_route::{AddressFamily, address::AddressAttribute};

use super::requests::route_of;
use super::{Error, Requests, Route};

/// A link and what is on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostLink {
    pub index: u32,
    pub name: String,
    /// Set up by the administrator, whether or not there is a carrier.
    pub up: bool,
    pub loopback: bool,
    pub ethernet: bool,
    /// Most bytes of an IP packet.
    pub mtu: u32,
    /// The bond or bridge that it is a member of.
    pub master: Option<u32>,
    /// As `ip link add … type KIND`; hardware has none.
    pub kind: Option<String>,
    /// An XDP program is attached.
    pub xdp: bool,
    /// The number of that program; none if several are, in different modes.
    pub xdp_program: Option<u32>,
    /// With prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A default route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    pub is_v4: bool,
    /// `None`: everybody is a neighbour.
    pub gateway: Option<IpAddr>,
    /// The link that it leaves by.
    pub index: u32,
}

impl Requests {
    /// Every link of the calling thread's network namespace, with its addresses.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub async fn host_links(&self) -> Result<Vec<HostLink>, Error> {
        let mut links = Vec::new();
        for message in self.dump().await? {
            if let RouteNetlinkMessage::NewLink(message) = &message {
                links.extend(link_of(message));
            } else if let RouteNetlinkMessage::NewAddress(message) = &message {
                let index = message.header.index;
                let (mut local, mut address) = (None, None);
                for attribute in &message.attributes {
                    if let AddressAttribute::Local(value) = attribute {
                        local = Some(*value);
                    } else if let AddressAttribute::Address(value) = attribute {
                        address = Some(*value);
                    }
                }
                let holder = links.iter_mut().find(|link| link.index == index);
                if let (Some(holder), Some(own)) = (holder, local.or(address)) {
                    holder.addresses.push((own, message.header.prefix_len));
                }
            }
        }
        Ok(links)
    }

    /// The default routes, of both families. A route with several next hops is left out.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub async fn default_routes(&self) -> Result<Vec<DefaultRoute>, Error> {
        let request = RouteNetlinkMessage::GetRoute(Default::default());
        let messages = self.dump_one("routes", request).await?;
        Ok(messages.iter().filter_map(default_route).collect())
    }
}

fn default_route(message: &RouteNetlinkMessage) -> Option<DefaultRoute> {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return None;
    };
    let header = &route.header;
    let is_default = header.destination_prefix_length == 0
        && header.kind == RouteType::Unicast
        && header.table == RouteHeader::RT_TABLE_MAIN;
    match route_of(message).filter(|_| is_default)? {
        Route::Forward(next_hop) => Some(DefaultRoute {
            is_v4: header.address_family == AddressFamily::Inet,
            gateway: next_hop.gateway,
            index: next_hop.index,
        }),
        Route::Local | Route::Unreachable => None,
    }
}

/// `None`: not about the link itself, as in [`view`](super::view).
fn link_of(message: &LinkMessage) -> Option<HostLink> {
    let header = &message.header;
    if header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut link = HostLink {
        index: header.index,
        up: header.flags.contains(LinkFlags::Up),
        loopback: header.flags.contains(LinkFlags::Loopback),
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        ..HostLink::default()
    };
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name.clone_from(name);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = *mtu;
        } else if let LinkAttribute::Controller(master) = attribute {
            link.master = Some(*master);
        } else if let LinkAttribute::Xdp(attributes) = attribute {
            let attached =
                |xdp: &LinkXdp| matches!(xdp, LinkXdp::Attached(how) if *how != XdpAttached::None);
            link.xdp = attributes.iter().any(attached);
            link.xdp_program = attributes.iter().find_map(|xdp| {
                if let LinkXdp::ProgId(id) = xdp {
                    Some(*id)
                } else {
                    None
                }
            });
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            link.kind = infos.iter().find_map(|info| {
                if let LinkInfo::Kind(kind) = info {
                    Some(kind.to_string())
                } else {
                    None
                }
            });
        }
    }
    Some(link)
}
