//! The next hop's Ethernet address and our own source address, as the kernel would choose them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dataplane::service::MacAddress;
use futures_util::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use crate::interface::Interface;

/// How long the kernel may take to resolve a neighbour; it asks three times, a second apart.
const RESOLVE: Duration = Duration::from_millis(3500);

/// The address that the kernel would send from to `destination`.
///
/// # Errors
/// There is no route.
pub fn source_address(destination: SocketAddr) -> Result<IpAddr, NextHopError> {
    Ok(connected(destination)?.1)
}

/// A socket to `destination` and its own address; nothing is sent.
fn connected(destination: SocketAddr) -> Result<(UdpSocket, IpAddr), NextHopError> {
    let any: IpAddr = if destination.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let open = || -> std::io::Result<(UdpSocket, IpAddr)> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(destination)?;
        let own = socket.local_addr()?.ip();
        Ok((socket, own))
    };
    open().map_err(|source| NextHopError::NoRoute {
        destination: destination.ip(),
        source: Some(source),
    })
}

/// The Ethernet address to which frames for `destination` go from `interface`. Makes the kernel
/// resolve it when it has not yet, by one datagram to the next hop's discard port.
///
/// # Errors
/// There is no route out of this interface, or nobody answers for the next hop.
pub fn resolve(interface: &Interface, destination: IpAddr) -> Result<MacAddress, NextHopError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NextHopError::Netlink)?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NextHopError::Netlink)?;
        tokio::spawn(connection);
        let next_hop = gateway(&handle, interface, destination).await?;
        if let Some(mac) = neighbour(&handle, interface, next_hop).await? {
            return Ok(mac);
        }
        let (socket, _) = connected(SocketAddr::new(next_hop, 9))?;
        // An error here is the neighbour's silence, reported below.
        let _ = socket.send(&[0]);
        let deadline = Instant::now() + RESOLVE;
        while Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Some(mac) = neighbour(&handle, interface, next_hop).await? {
                return Ok(mac);
            }
        }
        Err(NextHopError::Unresolved {
            next_hop,
            interface: interface.name.clone(),
        })
    })
}

/// Who is asked for `destination`: its gateway, or itself when it is on the link.
async fn gateway(
    handle: &rtnetlink::Handle,
    interface: &Interface,
    destination: IpAddr,
) -> Result<IpAddr, NextHopError> {
    let mut request = RouteMessage::default();
    (
        request.header.address_family,
        request.header.destination_prefix_length,
    ) = match destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    request
        .attributes
        .push(RouteAttribute::Destination(destination.into()));
    let no_route = || NextHopError::NoRoute {
        destination,
        source: None,
    };
    let mut routes = handle.route().get(request).execute();
    let route = routes
        .try_next()
        .await
        .ok()
        .flatten()
        .ok_or_else(no_route)?;
    if route.header.kind == RouteType::Local {
        return Err(NextHopError::Local { destination });
    }
    let mut gateway = destination;
    for attribute in &route.attributes {
        if let RouteAttribute::Gateway(RouteAddress::Inet(v4)) = attribute {
            gateway = (*v4).into();
        } else if let RouteAttribute::Gateway(RouteAddress::Inet6(v6)) = attribute {
            gateway = (*v6).into();
        } else if let RouteAttribute::Oif(index) = attribute
            && *index != interface.index
        {
            return Err(NextHopError::OtherInterface {
                destination,
                interface: interface.name.clone(),
            });
        }
    }
    Ok(gateway)
}

/// The kernel's entry for `next_hop`, if it has a usable one.
async fn neighbour(
    handle: &rtnetlink::Handle,
    interface: &Interface,
    next_hop: IpAddr,
) -> Result<Option<MacAddress>, NextHopError> {
    let family = if next_hop.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let mut entries = handle
        .neighbours()
        .get()
        .set_address_family(family)
        .execute();
    while let Some(entry) = entries
        .try_next()
        .await
        .map_err(|error| NextHopError::Netlink(std::io::Error::other(error)))?
    {
        if entry.header.ifindex == interface.index && is_of(&entry, next_hop) {
            let mac = entry.attributes.iter().find_map(|attribute| {
                if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
                    <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddress)
                } else {
                    None
                }
            });
            return Ok(mac);
        }
    }
    Ok(None)
}

fn is_of(entry: &NeighbourMessage, next_hop: IpAddr) -> bool {
    entry.attributes.iter().any(|attribute| {
        if let NeighbourAttribute::Destination(address) = attribute {
            match (address, next_hop) {
                (NeighbourAddress::Inet(v4), IpAddr::V4(wanted)) => *v4 == wanted,
                (NeighbourAddress::Inet6(v6), IpAddr::V6(wanted)) => *v6 == wanted,
                (_, _) => false,
            }
        } else {
            false
        }
    })
}

/// The way to the destination is unknown.
#[derive(Debug, thiserror::Error)]
pub enum NextHopError {
    #[error("no route to {destination}: add one, or give --src and --dst-mac")]
    NoRoute {
        destination: IpAddr,
        source: Option<std::io::Error>,
    },
    #[error(
        "{destination} is an address of this host: run pktgen on another host or network namespace"
    )]
    Local { destination: IpAddr },
    #[error(
        "the route to {destination} does not leave by {interface}: give another --interface, or --dst-mac"
    )]
    OtherInterface {
        destination: IpAddr,
        interface: String,
    },
    #[error(
        "nobody answers for next hop {next_hop} on {interface}: is it up? Otherwise give --dst-mac"
    )]
    Unresolved { next_hop: IpAddr, interface: String },
    #[error("cannot ask the kernel by netlink")]
    Netlink(#[source] std::io::Error),
}
