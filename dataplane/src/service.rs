//! Virtual servers and real servers as the data plane sees them.
//!
//! Everything here is plain data: the control plane builds it, a
//! [`Snapshot`](crate::snapshot::Snapshot) carries it, workers only read it.

mod full_nat;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use self::full_nat::{ClientAddress, FullNat};
use crate::limits::{Limits, SynProxy};
use crate::matching::Match;
use crate::persistence::Persistence;
use crate::wire::ethernet::Addresses;

/// An IPv4 or IPv6 address of 16 bytes; IPv4 is carried as an IPv4-mapped IPv6
/// address (RFC 4291 §2.5.5.2), so one key format and one comparison serve
/// both families.
///
/// Kept as two words, whose bytes in memory are the address in network byte
/// order: the hot path moves and compares words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub(crate) words: [u64; 2],
}

impl Address {
    /// The bytes before an IPv4 address, and where they are in the second word.
    const MAPPED: u64 = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    const MAPPED_MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);

    /// The mapped form of an IPv4 address given in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self {
            words: [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])],
        }
    }

    /// From 16 bytes in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self {
            words: [
                u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
                u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
            ],
        }
    }

    /// The 16 bytes in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn octets(&self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.words[0].to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.words[1].to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The last four bytes: all of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn last_octets(&self) -> [u8; 4] {
        let [.., a, b, c, d] = self.words[1].to_ne_bytes();
        [a, b, c, d]
    }

    /// True for an IPv4-mapped address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] & Self::MAPPED_MASK == Self::MAPPED
    }

    /// The first address of the network that has this one: all but the first
    /// `prefix` bits, of 32 or 128, are zero.
    #[must_use]
    pub fn network(&self, prefix: u8) -> Self {
        let prefix = if self.is_v4() {
            96 + prefix.min(32)
        } else {
            prefix.min(128)
        };
        let kept = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
        Self::from_octets((u128::from_be_bytes(self.octets()) & kept).to_be_bytes())
    }

    const fn to_ipv6(self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.octets())
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Self::from_octets(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::v4(address.octets())
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        address.to_ipv6().to_canonical()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A transport protocol that can be balanced; the value is the IP protocol
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    /// Every protocol with its name, as configuration and listings have it.
    pub const NAMES: [(&str, Self); 3] =
        [("TCP", Self::Tcp), ("UDP", Self::Udp), ("SCTP", Self::Sctp)];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A scheduling algorithm, by IPVS's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// `rr`: round robin.
    RoundRobin,
    /// `wrr`: weighted round robin.
    WeightedRoundRobin,
    /// `lc`: least connection.
    LeastConnection,
    /// `wlc`: weighted least connection, IPVS's default.
    WeightedLeastConnection,
    /// `lblc`: locality-based least connection.
    Locality,
    /// `lblcr`: locality-based least connection with replication.
    ReplicatedLocality,
    /// `dh`: hash of the destination address.
    DestinationHash,
    /// `sh`: hash of the source address.
    SourceHash(HashFlags),
    /// `sed`: shortest expected delay.
    ShortestExpectedDelay,
    /// `nq`: never queue.
    NeverQueue,
    /// `fo`: weighted failover.
    Failover,
    /// `ovf`: weighted overflow.
    Overflow,
    /// `mh`: Maglev hash of the source address.
    MaglevHash(HashFlags),
    /// `twos`: power of two choices.
    TwoChoices,
}

/// The flags of `sh` and `mh`: `sh-port`, `sh-fallback` and so on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HashFlags {
    /// The client's port is hashed besides its address.
    pub port: bool,
    /// A client whose server takes no connection gets another one.
    pub fallback: bool,
}

impl SchedulerKind {
    /// Every kind, without flags, with the name that IPVS gives it.
    pub const NAMES: [(&str, Self); 14] = [
        ("rr", Self::RoundRobin),
        ("wrr", Self::WeightedRoundRobin),
        ("lc", Self::LeastConnection),
        ("wlc", Self::WeightedLeastConnection),
        ("lblc", Self::Locality),
        ("lblcr", Self::ReplicatedLocality),
        ("dh", Self::DestinationHash),
        ("sh", Self::SourceHash(HashFlags::NONE)),
        ("sed", Self::ShortestExpectedDelay),
        ("nq", Self::NeverQueue),
        ("fo", Self::Failover),
        ("ovf", Self::Overflow),
        ("mh", Self::MaglevHash(HashFlags::NONE)),
        ("twos", Self::TwoChoices),
    ];

    /// The same with these flags, if it is `sh` or `mh`.
    #[must_use]
    pub fn with_flags(self, sh: HashFlags, mh: HashFlags) -> Self {
        match self {
            Self::SourceHash(_) => Self::SourceHash(sh),
            Self::MaglevHash(_) => Self::MaglevHash(mh),
            Self::RoundRobin
            | Self::WeightedRoundRobin
            | Self::LeastConnection
            | Self::WeightedLeastConnection
            | Self::Locality
            | Self::ReplicatedLocality
            | Self::DestinationHash
            | Self::ShortestExpectedDelay
            | Self::NeverQueue
            | Self::Failover
            | Self::Overflow
            | Self::TwoChoices => self,
        }
    }

    /// The names of the flags that are set, as ipvsadm shows them.
    pub fn flags(self) -> impl Iterator<Item = &'static str> {
        let (flags, [port, fallback]) = match self {
            Self::SourceHash(flags) => (flags, ["sh-port", "sh-fallback"]),
            Self::MaglevHash(flags) => (flags, ["mh-port", "mh-fallback"]),
            Self::RoundRobin
            | Self::WeightedRoundRobin
            | Self::LeastConnection
            | Self::WeightedLeastConnection
            | Self::Locality
            | Self::ReplicatedLocality
            | Self::DestinationHash
            | Self::ShortestExpectedDelay
            | Self::NeverQueue
            | Self::Failover
            | Self::Overflow
            | Self::TwoChoices => (HashFlags::NONE, [""; 2]),
        };
        let set = [(flags.fallback, fallback), (flags.port, port)];
        set.into_iter()
            .filter(|(set, _)| *set)
            .map(|(_, name)| name)
    }
}

impl HashFlags {
    /// No flag set.
    pub const NONE: Self = Self {
        port: false,
        fallback: false,
    };
}

/// The name, without flags.
impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
            Self::LeastConnection => "lc",
            Self::WeightedLeastConnection => "wlc",
            Self::Locality => "lblc",
            Self::ReplicatedLocality => "lblcr",
            Self::DestinationHash => "dh",
            Self::SourceHash(_) => "sh",
            Self::ShortestExpectedDelay => "sed",
            Self::NeverQueue => "nq",
            Self::Failover => "fo",
            Self::Overflow => "ovf",
            Self::MaglevHash(_) => "mh",
            Self::TwoChoices => "twos",
        })
    }
}

/// How packets reach the real server, by IPVS's and DPVS's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ForwardingMethod {
    /// `DR`: the packet as it is, to the real server's MAC address.
    #[default]
    Direct,
    /// `NAT`: the destination becomes the real server's address and port; replies pass the
    /// director, which restores the virtual server's.
    Nat,
    /// `TUN`: the packet as it is, inside another that is addressed to the real server.
    Tunnel(Tunnel),
    /// `FULLNAT`: as NAT, and the source becomes an address of the director.
    FullNat,
}

impl ForwardingMethod {
    /// Every method with its name in configuration; a tunnel is IPIP unless said otherwise.
    pub const NAMES: [(&str, Self); 4] = [
        ("DR", Self::Direct),
        ("NAT", Self::Nat),
        ("TUN", Self::Tunnel(Tunnel::Ipip)),
        ("FULLNAT", Self::FullNat),
    ];

    /// True if replies of the real server pass the director, which then changes them.
    #[inline(always)]
    #[must_use]
    pub const fn rewrites_replies(&self) -> bool {
        matches!(self, Self::Nat | Self::FullNat)
    }
}

impl fmt::Display for ForwardingMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "DR",
            Self::Nat => "NAT",
            Self::Tunnel(_) => "TUN",
            Self::FullNat => "FULLNAT",
        })
    }
}

/// What a tunnelled packet is wrapped in, as `ipvsadm --tun-type` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Tunnel {
    /// `ipip`: an IPv4 or IPv6 header only (RFC 2003, RFC 2473, RFC 4213).
    #[default]
    Ipip,
    /// `gre`: an IP header and a GRE header of four bytes (RFC 2784).
    Gre,
    /// `gue`: an IP header, a UDP header to `port` (host byte order) and a GUE header of four
    /// bytes (draft-ietf-intarea-gue, as Linux's FOU module reads it).
    Gue { port: u16 },
}

/// What is done with a TCP packet, other than a SYN, that belongs to no
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TcpMidstream {
    /// Answer with a RST, so that the client reconnects at once.
    #[default]
    Reset,
    /// Drop it.
    Drop,
    /// Schedule it as if it were a SYN (IPVS's `sloppy_tcp`).
    Schedule,
}

/// What a virtual server is found by: address, port and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub address: Address,
    /// Host byte order.
    pub port: u16,
    pub protocol: Protocol,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = std::net::SocketAddr::new(self.address.into(), self.port);
        write!(f, "{} {socket}", self.protocol)
    }
}

/// Reads what `Display` writes: `TCP 192.168.1.100:80`.
impl std::str::FromStr for ServiceKey {
    type Err = NotAServiceKey;

    fn from_str(text: &str) -> Result<Self, NotAServiceKey> {
        let (protocol, socket) = text.split_once(' ').ok_or(NotAServiceKey)?;
        let mut known = Protocol::NAMES.into_iter();
        let (_, protocol) = known
            .find(|(name, _)| *name == protocol)
            .ok_or(NotAServiceKey)?;
        let socket: std::net::SocketAddr = socket.parse().map_err(|_| NotAServiceKey)?;
        Ok(Self {
            address: socket.ip().into(),
            port: socket.port(),
            protocol,
        })
    }
}

/// The text names no virtual server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a protocol and an address, such as \"TCP 192.168.1.100:80\"")]
pub struct NotAServiceKey;

/// Names a real server of one virtual server for as long as any connection
/// refers to it; the control plane never gives an id to another server before
/// that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u32);

/// Most real servers that exist at once, over all virtual servers.
pub const MAX_SERVERS: usize = 65_536;

/// Names a virtual server; the workers' scheduler state is found by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualServerId(pub u32);

/// Most virtual servers that exist at once.
pub const MAX_VIRTUAL_SERVERS: usize = 16_384;

/// An interface by its number, the same for every worker, for as long as it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortIndex(pub u16);

/// A gateway by its place in the snapshot; one that goes leaves its place empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayId(pub u16);

/// How a packet reaches the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface it leaves by.
    pub port: PortIndex,
    /// That of the next hop.
    pub destination: MacAddress,
    /// That of the outgoing interface.
    pub source: MacAddress,
}

/// A [`NextHop`] as packets need it: both MAC addresses as they stand in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub addresses: Addresses,
    /// The interface that frames leave by.
    pub port: PortIndex,
}

impl From<NextHop> for Hop {
    fn from(next_hop: NextHop) -> Self {
        Self {
            addresses: Addresses::new(next_hop.destination, next_hop.source),
            port: next_hop.port,
        }
    }
}

/// A real server of one virtual server, as workers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServer {
    pub id: ServerId,
    pub address: Address,
    /// Host byte order.
    pub port: u16,
    pub method: ForwardingMethod,
    /// 0..=65535; 0 takes no new connections, existing ones are kept.
    pub weight: u32,
    /// False: down by its checks. It takes no new connections, and packets of existing ones
    /// are dropped until it returns (IPVS with `expire_nodest_conn` off).
    pub available: bool,
    /// Taken out of use by an operator, with weight 0: persistent clients get
    /// another server too.
    pub drained: bool,
    /// `None` until the neighbour is resolved; packets wait a short time.
    pub next_hop: Option<NextHop>,
    pub thresholds: Thresholds,
}

/// How many connections, active and inactive, make a real server overloaded:
/// it takes no new ones, except by persistence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// With so many it is overloaded; 0: it never is.
    pub upper: u32,
    /// With fewer it is not any more; 0: three quarters of `upper`.
    pub lower: u32,
}

impl Thresholds {
    /// True if a server with so many connections is overloaded, having been
    /// so `before` (`ip_vs_bind_dest`, `ip_vs_unbind_dest`).
    #[must_use]
    pub fn overloads(&self, connections: u32, before: bool) -> bool {
        if self.upper == 0 {
            return false;
        }
        let is_relieved = if self.lower == 0 {
            u64::from(connections) * 4 < u64::from(self.upper) * 3
        } else {
            connections < self.lower
        };
        connections >= self.upper || before && !is_relieved
    }
}

/// A virtual server with its real servers in the order of configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualServer {
    pub id: VirtualServerId,
    pub key: ServiceKey,
    pub scheduler: SchedulerKind,
    pub options: ServiceOptions,
    pub real_servers: Vec<RealServer>,
}

/// What a virtual server does besides scheduling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceOptions {
    /// A client's connections go to one real server.
    pub persistence: Option<Persistence>,
    /// Every UDP datagram is scheduled for itself (IPVS's one-packet
    /// scheduling).
    pub one_packet: bool,
    /// What it matches; empty: its key.
    pub matches: Vec<Match>,
    /// For those of its real servers that are reached by FULLNAT.
    pub full_nat: FullNat,
    pub limits: Limits,
    /// TCP whose real servers are reached by NAT or FULLNAT only.
    pub syn_proxy: Option<SynProxy>,
}

#[cfg(test)]
mod tests;
