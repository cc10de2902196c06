//! Asking the kernel, and changing addresses and neighbours.

mod routing;
mod vmac;

pub use routing::LeftRouting;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::StreamExt as _;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload,
};
use rustix::io::Errno;
use tokio::task::JoinHandle;

use crate::event::{self, NetworkEvent, TableRoute};

use super::{ADDRESS_PROTOCOL, ANSWER_TIMEOUT, Error, interface_name, view};

/// A dump during which the table changed is asked for again this often.
const DUMP_ATTEMPTS: u32 = 10;

/// A connection for requests. Must be used within the tokio runtime in which it
/// was opened.
#[derive(Debug)]
pub struct Requests {
    handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// An address to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAddress {
    /// Of the link that is to hold it.
    pub index: u32,
    pub address: IpAddr,
    pub prefix_length: u8,
    /// IPv4 only: shown by `ip address` instead of the link's name, at most 15
    /// bytes, and must start with that name.
    pub label: Option<String>,
    /// IPv4 only: `ifa_scope`; `None`: global.
    pub scope: Option<u8>,
    /// IPv6 only: usable at once, without duplicate address detection.
    pub nodad: bool,
}

/// Where packets to a destination go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Forward(NextHop),
    /// To this host itself.
    Local,
    /// Nowhere: no route, or one that forbids.
    Unreachable,
}

/// The neighbour through which a destination is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// `None`: the destination itself is the neighbour.
    pub gateway: Option<IpAddr>,
    /// The link that leads to it.
    pub index: u32,
    /// The source address that the kernel would choose.
    pub source: Option<IpAddr>,
}

impl Requests {
    /// Opens the connection and drives it in a task of the current runtime.
    ///
    /// # Errors
    ///
    /// When no netlink socket can be made.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _no_events) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// Adds an address, marked as ours. False: the link has it already, and it
    /// stays as it is (and whose it is).
    ///
    /// A /128 is added as deprecated, as keepalived does: else the kernel would
    /// take a virtual address as the source of its own connections (RFC 6724 §5 rule 3).
    ///
    /// # Errors
    ///
    /// What the kernel says, with the address and the link.
    pub async fn add_address(&self, new: &NewAddress) -> Result<bool, Error> {
        let protocol = AddressProtocol::Other(ADDRESS_PROTOCOL);
        self.add(new, Some(AddressAttribute::Protocol(protocol)))
            .await
    }

    /// As [`Self::add_address`], but without the mark: the address is to stay
    /// when a director starts or ends here.
    ///
    /// # Errors
    ///
    /// What the kernel says, with the address and the link.
    pub async fn add_static_address(&self, new: &NewAddress) -> Result<bool, Error> {
        self.add(new, None).await
    }

    async fn add(&self, new: &NewAddress, mark: Option<AddressAttribute>) -> Result<bool, Error> {
        let mut message = address_message(new.index, new.address, new.prefix_length);
        if let Some(scope) = new.scope {
            message.header.scope = scope.into();
        }
        let attributes = &mut message.attributes;
        attributes.extend(mark);
        attributes.extend(new.label.clone().map(AddressAttribute::Label));
        if new.nodad && new.address.is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
            attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        if new.address.is_ipv6() && new.prefix_length == 128 {
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_preferred = 0;
            lifetime.ifa_valid = u32::MAX;
            attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
        let doing = || {
            let interface = interface_name(new.index);
            format!("add {}/{} to {interface}", new.address, new.prefix_length)
        };
        let message = RouteNetlinkMessage::NewAddress(message);
        unless(
            self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, doing)
                .await,
            &[Errno::EXIST],
        )
    }

    /// Removes an address. False: there was none.
    ///
    /// # Errors
    ///
    /// What the kernel says, with the address and the link.
    pub async fn remove_address(
        &self,
        index: u32,
        address: IpAddr,
        prefix_length: u8,
    ) -> Result<bool, Error> {
        let doing = || {
            let interface = interface_name(index);
            format!("remove {address}/{prefix_length} from {interface}")
        };
        let message = address_message(index, address, prefix_length);
        let message = RouteNetlinkMessage::DelAddress(message);
        unless(
            self.ask(message, NLM_F_ACK, doing).await,
            &[Errno::ADDRNOTAVAIL, Errno::NODEV],
        )
    }

    /// Asks where packets to `destination` go (`ip route get`).
    ///
    /// # Errors
    ///
    /// What the kernel says, except that there is no way.
    pub async fn route(&self, destination: IpAddr) -> Result<Route, Error> {
        self.look_up(destination, None).await
    }

    /// Asks where packets from `source`, an address of this host, go to `destination`, of the same family,
    /// by the rules of policy routing (`ip route get DESTINATION from SOURCE`).
    ///
    /// # Errors
    ///
    /// As [`route`](Self::route).
    pub async fn route_from(&self, source: IpAddr, destination: IpAddr) -> Result<Route, Error> {
        self.look_up(destination, Some(source)).await
    }

    async fn look_up(&self, destination: IpAddr, source: Option<IpAddr>) -> Result<Route, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = host_prefix(destination);
        message
            .attributes
            .push(RouteAttribute::Destination(destination.into()));
        if let Some(source) = source {
            message.header.source_prefix_length = host_prefix(source);
            message
                .attributes
                .push(RouteAttribute::Source(source.into()));
        }
        let doing = || format!("look up the route to {destination}");
        let message = RouteNetlinkMessage::GetRoute(message);
        match self.ask(message, 0, doing).await {
            Ok(answer) => Ok(answer
                .iter()
                .find_map(route_of)
                .unwrap_or(Route::Unreachable)),
            // EACCES: prohibit; EINVAL: blackhole.
            Err(error)
                if is_one_of(
                    &error,
                    &[
                        Errno::NETUNREACH,
                        Errno::HOSTUNREACH,
                        Errno::ACCESS,
                        Errno::INVAL,
                    ],
                ) =>
            {
                Ok(Route::Unreachable)
            }
            Err(error) => Err(error),
        }
    }

    /// The routes of the main table (`ip route`), for each prefix the one with the lowest metric.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub async fn routes(&self) -> Result<Vec<TableRoute>, Error> {
        let mut best = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let request = RouteNetlinkMessage::GetRoute(request);
            for message in self.dump_one("routes", request).await? {
                if let Some((route, metric)) = table_route(&message) {
                    let key = (route.destination, route.prefix_length);
                    match best.entry(key) {
                        Entry::Vacant(entry) => {
                            entry.insert((metric, route));
                        }
                        Entry::Occupied(mut entry) if entry.get().0 > metric => {
                            entry.insert((metric, route));
                        }
                        Entry::Occupied(_) => {}
                    }
                }
            }
        }
        Ok(best.into_values().map(|(_, route)| route).collect())
    }

    /// The MAC of a neighbour, as far as the kernel knows one that it uses.
    ///
    /// # Errors
    ///
    /// What the kernel says, except that it does not know the neighbour.
    pub async fn neighbor(&self, index: u32, address: IpAddr) -> Result<Option<[u8; 6]>, Error> {
        let known = self.neighbor_entry(index, address).await?;
        Ok(known.as_ref().and_then(view::neighbor_mac))
    }

    async fn neighbor_entry(
        &self,
        index: u32,
        address: IpAddr,
    ) -> Result<Option<NeighbourMessage>, Error> {
        let doing = || format!("look up neighbour {address} on {}", interface_name(index));
        let message = neighbor_message(index, address);
        let message = RouteNetlinkMessage::GetNeighbour(message);
        match self.ask(message, 0, doing).await {
            Ok(answer) => Ok(answer.into_iter().find_map(|message| {
                if let RouteNetlinkMessage::NewNeighbour(message) = message {
                    Some(message)
                } else {
                    None
                }
            })),
            Err(error) if is_one_of(&error, &[Errno::NOENT]) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel find an unknown neighbour's MAC (`NTF_USE`), as if a
    /// packet were to be sent. The [`Monitor`](super::Monitor) tells the result:
    /// usually within a millisecond; a neighbour that does not answer is given up
    /// after three seconds and found again only when asked for again. For a known
    /// one this counts as a use and changes nothing.
    ///
    /// # Errors
    ///
    /// What the kernel says, with the neighbour.
    pub async fn resolve(&self, index: u32, address: IpAddr) -> Result<(), Error> {
        let doing = || format!("resolve neighbour {address} on {}", interface_name(index));
        let mut message = neighbor_message(index, address);
        message.header.flags = NeighbourFlags::Use;
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, doing)
            .await
            .map(|_| ())
    }

    /// Makes the kernel ask a known neighbour whether it is still there
    /// (`NUD_PROBE`), or find an unknown one. Packets forwarded in user space do
    /// not count as a use, so without this a neighbour stays stale, and its death
    /// unnoticed. The MAC stays in use meanwhile; one that does not answer is
    /// dropped after three seconds. Permanent entries are left alone.
    ///
    /// # Errors
    ///
    /// What the kernel says, with the neighbour.
    pub async fn verify(&self, index: u32, address: IpAddr) -> Result<(), Error> {
        // Only an entry with a MAC can be probed.
        let known = self.neighbor_entry(index, address).await?;
        let Some(known) = known.filter(|entry| view::neighbor_mac(entry).is_some()) else {
            return self.resolve(index, address).await;
        };
        // An administrator's entry is the truth, and probing would make it one
        // that can be lost.
        if matches!(
            known.header.state,
            NeighbourState::Permanent | NeighbourState::Noarp
        ) {
            return Ok(());
        }
        let doing = || format!("verify neighbour {address} on {}", interface_name(index));
        let mut message = neighbor_message(index, address);
        message.header.state = NeighbourState::Probe;
        let message = RouteNetlinkMessage::NewNeighbour(message);
        let answer = self.ask(message, NLM_F_ACK | NLM_F_REPLACE, doing).await;
        if unless(answer, &[Errno::NOENT])? {
            return Ok(());
        }
        // It vanished in between.
        self.resolve(index, address).await
    }

    /// Every link, address and neighbour.
    /// Links, addresses and neighbours as they are now.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub async fn network(&self) -> Result<Vec<NetworkEvent>, Error> {
        Ok(view::View::default().replace(&self.dump().await?))
    }

    pub(super) async fn dump(&self) -> Result<Vec<RouteNetlinkMessage>, Error> {
        use RouteNetlinkMessage as M;
        let mut all = Vec::new();
        for (what, request) in [
            ("links", M::GetLink(Default::default())),
            ("addresses", M::GetAddress(Default::default())),
            ("neighbours", M::GetNeighbour(Default::default())),
        ] {
            all.extend(self.dump_one(what, request).await?);
        }
        Ok(all)
    }

    pub(super) async fn dump_one(
        &self,
        what: &str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let doing = || format!("list the {what}");
        let mut attempt = 1;
        loop {
            let (answer, whole) = self.exchange(request.clone(), NLM_F_DUMP, doing).await?;
            if whole || attempt == DUMP_ATTEMPTS {
                return Ok(answer);
            }
            attempt += 1;
        }
    }

    async fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        doing: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        Ok(self.exchange(message, flags, doing).await?.0)
    }

    /// Sends a request and collects the answer. False: the table changed while it
    /// was dumped (`NLM_F_DUMP_INTR`), so entries may be missing.
    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        doing: impl Fn() -> String,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), Error> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self
            .handle
            .clone()
            .request(message)
            .map_err(|_closed| Error::Closed { doing: doing() })?;
        let collect = async {
            let mut collected = Vec::new();
            let mut whole = true;
            while let Some(answer) = answers.next().await {
                whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                if let NetlinkPayload::Error(error) = answer.payload {
                    if error.code.is_some() {
                        return Err(Error::Refused {
                            doing: doing(),
                            error: error.to_io(),
                        });
                    }
                } else if let NetlinkPayload::InnerMessage(message) = answer.payload {
                    collected.push(message);
                }
            }
            Ok((collected, whole))
        };
        tokio::time::timeout(ANSWER_TIMEOUT, collect)
            .await
            .map_err(|_elapsed| Error::Silent { doing: doing() })?
    }
}

/// False for one of the errors that only say that there is nothing to do.
fn unless<T>(result: Result<T, Error>, harmless: &[Errno]) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if is_one_of(&error, harmless) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_one_of(error: &Error, numbers: &[Errno]) -> bool {
    numbers
        .iter()
        .any(|number| error.raw_os_error() == Some(number.raw_os_error()))
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn host_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn address_message(index: u32, address: IpAddr, prefix_length: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.index = index;
    message.header.prefix_len = prefix_length;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ];
    message
}

fn neighbor_message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::None;
    message
        .attributes
        .push(NeighbourAttribute::Destination(address.into()));
    message
}

pub(super) fn route_of(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    if message.header.kind == RouteType::Local {
        return Some(Route::Local);
    }
    if message.header.kind != RouteType::Unicast {
        return Some(Route::Unreachable);
    }
    let (mut gateway, mut index, mut source) = (None, None, None);
    for attribute in &message.attributes {
        if let RouteAttribute::Gateway(address) = attribute {
            gateway = ip_of(address);
        } else if let RouteAttribute::Via(RouteVia::Inet6(address)) = attribute {
            // An IPv4 route by way of an IPv6 neighbour (RFC 5549).
            gateway = Some(IpAddr::V6(*address));
        } else if let RouteAttribute::Oif(value) = attribute {
            index = Some(*value);
        } else if let RouteAttribute::PrefSource(address) = attribute {
            source = ip_of(address);
        }
    }
    Some(index.map_or(Route::Unreachable, |index| {
        Route::Forward(NextHop {
            gateway,
            index,
            source,
        })
    }))
}

/// A unicast route of the main table with its metric.
fn table_route(message: &RouteNetlinkMessage) -> Option<(TableRoute, u32)> {
    let Route::Forward(hop) = route_of(message)? else {
        return None;
    };
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    let header = &message.header;
    let (mut table, mut metric, mut destination) = (u32::from(header.table), 0, None);
    for attribute in &message.attributes {
        if let RouteAttribute::Table(value) = attribute {
            table = *value;
        } else if let RouteAttribute::Priority(value) = attribute {
            metric = *value;
        } else if let RouteAttribute::Destination(address) = attribute {
            destination = ip_of(address);
        }
    }
    let any: IpAddr = if header.address_family == AddressFamily::Inet6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let route = TableRoute {
        destination: destination.unwrap_or(any),
        prefix_length: header.destination_prefix_length,
        route: event::Route {
            index: hop.index,
            gateway: hop.gateway,
        },
    };
    (table == u32::from(RouteHeader::RT_TABLE_MAIN)).then_some((route, metric))
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(address) = address {
        Some(IpAddr::V4(*address))
    } else if let RouteAddress::Inet6(address) = address {
        Some(IpAddr::V6(*address))
    } else {
        None
    }
}
