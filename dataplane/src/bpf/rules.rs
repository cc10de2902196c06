//! By what the program steers, and how that looks in its maps.

use std::collections::BTreeSet;
use std::fmt;

use aya::maps::lpm_trie::{self, LpmTrie};
use aya::maps::{HashMap, MapData, MapError};
use rustix::io::Errno;

use super::attach::Object;
use super::error::{XdpError, errno};
use super::prefix::Prefix;
use crate::service::{Address, ServiceKey, Tunnel};

/// One reason to steer packets, or not to. Ordered so that what keeps packets with the
/// kernel comes before what takes them from it: added in this order and removed
/// in the opposite one, no packet is taken that should not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// An address of this host: what comes from a [`RealServer`](Self::RealServer) to it is the
    /// kernel's, such as the answers to health checks. Not for a pool address.
    LocalAddress(Address),
    /// Packets from there pass although a shorter prefix is denied.
    Allow(Prefix),
    /// Packets from there are dropped, whatever they are for.
    Deny(Prefix),
    /// Packets to this address and port, and ICMP errors about packets from there, are the
    /// workers'. Port 0: every port.
    VirtualServer(ServiceKey),
    /// An address that real servers of FULLNAT answer to: TCP, UDP and SCTP, and ICMP errors, are
    /// the workers'.
    PoolAddress(Address),
    /// An address of this host that drops what is no virtual server's, but for neighbour discovery.
    /// Neither a local nor a pool address.
    RefusedAddress(Address),
    /// ICMP errors about tunnelled packets to this real server are the workers'.
    TunnelServer {
        address: Address,
        /// Host byte order; `None`: IPIP and GRE.
        gue_port: Option<u16>,
    },
    /// Packets from this real server of NAT that are not for this host, and ICMP errors about
    /// packets to it, are the workers'. Port 0: every port.
    RealServer(ServiceKey),
}

impl Rule {
    /// How many of its kind the program has room for; see `steer.bpf.c`.
    pub(super) fn room(&self) -> &'static str {
        match self {
            Self::LocalAddress(_) | Self::PoolAddress(_) | Self::RefusedAddress(_) => {
                "65536 addresses"
            }
            Self::Allow(_) | Self::Deny(_) => "1048576 prefixes",
            Self::VirtualServer(_) | Self::RealServer(_) => {
                "131072 ports, and each address takes one more"
            }
            Self::TunnelServer { .. } => "131072 protocols and ports of tunnels",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalAddress(address) => write!(f, "address {address} of this host"),
            Self::Allow(prefix) => write!(f, "allowed prefix {prefix}"),
            Self::Deny(prefix) => write!(f, "denied prefix {prefix}"),
            Self::VirtualServer(key) => write!(f, "virtual server {key}"),
            Self::PoolAddress(address) => write!(f, "pool address {address}"),
            Self::RefusedAddress(address) => write!(f, "refusing address {address}"),
            Self::TunnelServer { address, gue_port } => {
                write!(f, "tunnel to {address}")?;
                gue_port.map_or(Ok(()), |port| write!(f, ", GUE port {port}"))
            }
            Self::RealServer(key) => write!(f, "real server {key}"),
        }
    }
}

/// `struct endpoint` of the program.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct End {
    address: [u8; 16],
    /// Network byte order.
    port: [u8; 2],
    protocol: u8,
    zero: u8,
}

// SAFETY: bytes only: no padding, and every bit pattern is valid.
unsafe impl aya::Pod for End {}

impl End {
    fn new(address: Address, port: u16, protocol: u8) -> Self {
        Self {
            address: address.octets(),
            port: port.to_be_bytes(),
            protocol,
            zero: 0,
        }
    }
}

/// What an entry is for.
const PACKETS: u32 = 1;
const LATER_FRAGMENTS: u32 = 2;
/// What an address of this host is.
const HOST: u32 = 1;
const POOL: u32 = 2;
const REFUSED: u32 = 3;
/// What is done with packets from a prefix.
const DENY: u32 = 1;
const ALLOW: u32 = 2;

/// IP protocol numbers of an outer packet's content; IPIP is that of IPv4 or IPv6.
const IPIP: [u8; 2] = [4, 41];
const UDP: u8 = 17;
const GRE: u8 = 47;

/// Ends of flows: those with a port, and for their later fragments one entry for
/// all of an address and protocol.
#[derive(Debug)]
struct Ends {
    map: HashMap<MapData, End, u32>,
    keys: BTreeSet<ServiceKey>,
}

impl Ends {
    fn new(map: HashMap<MapData, End, u32>) -> Self {
        let keys = BTreeSet::new();
        Self { map, keys }
    }

    fn add(&mut self, key: &ServiceKey) -> Result<(), MapError> {
        if self.keys.contains(key) {
            return Ok(());
        }
        if key.port != 0 {
            let end = End::new(key.address, key.port, key.protocol as u8);
            self.map.insert(end, PACKETS, 0)?;
        }
        self.keys.insert(*key);
        self.fit_portless(key)
    }

    fn remove(&mut self, key: &ServiceKey) -> Result<(), MapError> {
        if !self.keys.remove(key) {
            return Ok(());
        }
        if key.port != 0 {
            let end = End::new(key.address, key.port, key.protocol as u8);
            absent_is_fine(self.map.remove(&end))?;
        }
        self.fit_portless(key)
    }

    /// Makes the entry without a port what the keys of its address and protocol
    /// demand.
    fn fit_portless(&mut self, of: &ServiceKey) -> Result<(), MapError> {
        let end = End::new(of.address, 0, of.protocol as u8);
        let every_port = ServiceKey { port: 0, ..*of };
        let of_address = ServiceKey { port: 0, ..*of }..;
        let mut same = self
            .keys
            .range(of_address)
            .take_while(|key| key.address == of.address)
            .filter(|key| key.protocol == of.protocol);
        if self.keys.contains(&every_port) {
            self.map.insert(end, PACKETS | LATER_FRAGMENTS, 0)
        } else if same.next().is_some() {
            self.map.insert(end, LATER_FRAGMENTS, 0)
        } else {
            absent_is_fine(self.map.remove(&end))
        }
    }
}

fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(error) if errno(&error) == Some(Errno::NOENT) => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        removed => removed,
    }
}

/// The program's maps that rules are written to.
#[derive(Debug)]
pub(super) struct Tables {
    services: Ends,
    returns: Ends,
    tunnel_servers: HashMap<MapData, End, u32>,
    local_addresses: HashMap<MapData, [u8; 16], u32>,
    prefixes_ipv4: LpmTrie<MapData, [u8; 4], u32>,
    prefixes_ipv6: LpmTrie<MapData, [u8; 16], u32>,
}

impl Tables {
    pub(super) fn take(object: &mut Object) -> Result<Self, XdpError> {
        Ok(Self {
            services: Ends::new(object.take("services")?),
            returns: Ends::new(object.take("returns")?),
            tunnel_servers: object.take("tunnel_servers")?,
            local_addresses: object.take("local_addresses")?,
            prefixes_ipv4: object.take("prefixes_ipv4")?,
            prefixes_ipv6: object.take("prefixes_ipv6")?,
        })
    }

    pub(super) fn add(&mut self, rule: &Rule) -> Result<(), MapError> {
        match rule {
            Rule::LocalAddress(address) => self.local_addresses.insert(address.octets(), HOST, 0),
            Rule::PoolAddress(address) => self.local_addresses.insert(address.octets(), POOL, 0),
            Rule::RefusedAddress(address) => {
                self.local_addresses.insert(address.octets(), REFUSED, 0)
            }
            Rule::Allow(prefix) => self.add_prefix(prefix, ALLOW),
            Rule::Deny(prefix) => self.add_prefix(prefix, DENY),
            Rule::VirtualServer(key) => self.services.add(key),
            Rule::RealServer(key) => self.returns.add(key),
            Rule::TunnelServer { address, gue_port } => tunnel_ends(*address, *gue_port)
                .try_for_each(|end| self.tunnel_servers.insert(end, PACKETS, 0)),
        }
    }

    pub(super) fn remove(&mut self, rule: &Rule) -> Result<(), MapError> {
        match rule {
            // Meanwhile the address may have become one of the other kind.
            Rule::LocalAddress(address) => self.remove_address(*address, HOST),
            Rule::PoolAddress(address) => self.remove_address(*address, POOL),
            Rule::RefusedAddress(address) => self.remove_address(*address, REFUSED),
            Rule::Allow(prefix) | Rule::Deny(prefix) => self.remove_prefix(prefix),
            Rule::VirtualServer(key) => self.services.remove(key),
            Rule::RealServer(key) => self.returns.remove(key),
            Rule::TunnelServer { address, gue_port } => tunnel_ends(*address, *gue_port)
                .try_for_each(|end| absent_is_fine(self.tunnel_servers.remove(&end))),
        }
    }

    fn add_prefix(&mut self, prefix: &Prefix, what: u32) -> Result<(), MapError> {
        let address = prefix.address;
        let length = prefix.length().into();
        if address.is_v4() {
            let key = lpm_trie::Key::new(length, address.last_octets());
            self.prefixes_ipv4.insert(&key, what, 0)
        } else {
            let key = lpm_trie::Key::new(length, address.octets());
            self.prefixes_ipv6.insert(&key, what, 0)
        }
    }

    fn remove_prefix(&mut self, prefix: &Prefix) -> Result<(), MapError> {
        let address = prefix.address;
        let length = prefix.length().into();
        absent_is_fine(if address.is_v4() {
            let key = lpm_trie::Key::new(length, address.last_octets());
            self.prefixes_ipv4.remove(&key)
        } else {
            let key = lpm_trie::Key::new(length, address.octets());
            self.prefixes_ipv6.remove(&key)
        })
    }

    fn remove_address(&mut self, address: Address, kind: u32) -> Result<(), MapError> {
        match self.local_addresses.get(&address.octets(), 0) {
            Ok(found) if found == kind => {
                absent_is_fine(self.local_addresses.remove(&address.octets()))
            }
            _ => Ok(()),
        }
    }
}

/// Where the outer packets of the tunnels to a real server go.
fn tunnel_ends(address: Address, gue_port: Option<u16>) -> impl Iterator<Item = End> {
    let tunnels = match gue_port {
        Some(port) => [Some(Tunnel::Gue { port }), None],
        None => [Some(Tunnel::Ipip), Some(Tunnel::Gre)],
    };
    let tunnels = tunnels.into_iter().flatten();
    tunnels.flat_map(move |tunnel| ends_of(address, tunnel))
}

/// Where the outer packets of a tunnel go, as the programs tell them: IPIP is two protocols.
pub(super) fn ends_of(address: Address, tunnel: Tunnel) -> impl Iterator<Item = End> {
    let (port, protocols): (u16, &[u8]) = match tunnel {
        Tunnel::Ipip => (0, &IPIP),
        Tunnel::Gre => (0, &[GRE]),
        Tunnel::Gue { port } => (port, &[UDP]),
    };
    let ends = protocols.iter();
    ends.map(move |protocol| End::new(address, port, *protocol))
}
