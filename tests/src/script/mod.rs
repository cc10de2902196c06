//! Packets in words: one line, one packet.
//!
//! ```text
//! client = 10.0.0.7                       # a name for an address
//! vip    = 192.168.1.100
//!
//! 0.000  client:40001 > vip:80  tcp S seq 1000
//! 0.010  client:40001 > vip:80  tcp PA seq 1001 ack 1 len 100
//! +900   client:40001 > vip:80  tcp A vlan 10 ttl 1
//! 1000   10.9.9.9 > vip  icmp frag-needed mtu 1400 about vip:80 > client:40001 tcp A len 1400
//! ```
//!
//! `tests/conformance/README.md` is the reference. A [`Packet`] is what a line says; [`build()`] makes
//! bytes of it, [`render()`] makes a line of bytes. Rendering is exact: a frame that would not come
//! out of its own description is rendered as `raw` and its bytes.

use std::net::IpAddr;
use std::time::Duration;

mod build;
mod parse;
mod render;
mod sctp;
#[cfg(test)]
mod tests;
mod words;

pub use build::build;
pub use parse::{ScriptError, parse};
pub use render::render;
pub use sctp::{Sctp, crc32c};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The director's own MAC address in a replay.
pub const DIRECTOR: Mac = [0x02, 0, 0, 0, 0, 0x01];
/// The MAC address that clients' packets come from when a line does not say.
pub const ROUTER: Mac = [0x02, 0, 0, 0, 0, 0xfe];
/// Time to live when a line does not say.
const DEFAULT_TTL: u8 = 64;
/// TCP window when a line does not say.
const DEFAULT_WINDOW: u16 = 65535;

/// The MAC address that a replay makes of a real server's IP address.
#[must_use]
pub fn mac_of(address: IpAddr) -> Mac {
    let [.., a, b, c, d] = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    [0x02, 0, a, b, c, d]
}

/// A whole script.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    pub names: Names,
    pub packets: Vec<TimedPacket>,
}

/// Names for addresses, in the order of definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<(String, IpAddr)>);

impl Names {
    fn define(&mut self, name: &str, address: IpAddr) {
        self.0.push((name.to_owned(), address));
    }

    fn address(&self, name: &str) -> Option<IpAddr> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, address)| *address)
    }

    fn name(&self, address: IpAddr) -> Option<&str> {
        let found = self.0.iter().find(|(_, known)| *known == address);
        found.map(|(name, _)| name.as_str())
    }

    /// The name whose address makes this MAC address in a replay.
    fn name_of_mac(&self, mac: Mac) -> Option<&str> {
        let found = self.0.iter().find(|(_, known)| mac_of(*known) == mac);
        found.map(|(name, _)| name.as_str())
    }
}

/// A packet and when it comes.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedPacket {
    /// Since the start of the script.
    pub time: Duration,
    pub packet: Packet,
}

/// A frame: its Ethernet header, what is in it, and what was done to it afterwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    pub source_mac: Mac,
    pub destination_mac: Mac,
    /// Outermost first.
    pub tags: Vec<Tag>,
    pub body: Body,
    pub damage: Damage,
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// 0..=4095
    pub id: u16,
    /// 0..=7
    pub priority: u8,
}

/// What an Ethernet frame carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The whole frame as bytes; link, tags and damage do not apply.
    Raw(Vec<u8>),
    /// An EtherType and its payload.
    Other(u16, Vec<u8>),
    Ip(IpPacket),
}

/// An IPv4 or IPv6 packet; the family is that of the addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct IpPacket {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// IPv4 identification; the fragment header's in IPv6.
    pub id: u16,
    /// IPv4 only.
    pub dont_fragment: bool,
    /// Bytes of no-operation options, a multiple of 4 (IPv4 only).
    pub options: u8,
    /// In order (IPv6 only).
    pub extensions: Vec<Extension>,
    /// The part of the transport's bytes that this packet carries: from and, unless it is the last
    /// part, to, both in bytes and multiples of 8.
    pub fragment: Option<(u16, Option<u16>)>,
    pub transport: Transport,
}

/// An IPv6 extension header of 8 bytes without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    HopByHop,
    Routing,
    DestinationOptions,
    /// A fragment header that says the packet is whole (RFC 6946).
    AtomicFragment,
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    Tcp(Tcp),
    Udp {
        source_port: u16,
        destination_port: u16,
        /// False: sent without one (IPv4 only).
        checksum: bool,
        payload: Vec<u8>,
    },
    Sctp(Sctp),
    /// ICMP or ICMPv6, by the family of the packet.
    Icmp {
        kind: u8,
        code: u8,
        /// Bytes 4 to 8: the MTU of some errors.
        rest: u32,
        payload: IcmpPayload,
    },
    /// Any other IP protocol.
    Other(u8, Vec<u8>),
}

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub source_port: u16,
    pub destination_port: u16,
    /// As in byte 13 of the header.
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub window: u16,
    pub offer: TcpOffer,
    /// Bytes of no-operation options, a multiple of 4.
    pub options: u8,
    pub payload: Vec<u8>,
}

/// The options of a SYN, each in four bytes with no-operation before it, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpOffer {
    pub maximum_segment_size: Option<u16>,
    pub sack_permitted: bool,
    pub window_scale: Option<u8>,
}

impl TcpOffer {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(size) = self.maximum_segment_size {
            bytes.extend([2, 4]);
            bytes.extend(size.to_be_bytes());
        }
        if self.sack_permitted {
            bytes.extend([1, 1, 4, 2]);
        }
        if let Some(scale) = self.window_scale {
            bytes.extend([1, 3, 3, scale]);
        }
        bytes
    }

    /// What options begin with, and how many bytes are left.
    fn read(options: &[u8]) -> (Self, usize) {
        let (mut offer, mut rest) = (Self::default(), options);
        if let [2, 4, high, low, after @ ..] = rest {
            offer.maximum_segment_size = Some(u16::from_be_bytes([*high, *low]));
            rest = after;
        }
        if let [1, 1, 4, 2, after @ ..] = rest {
            offer.sack_permitted = true;
            rest = after;
        }
        if let [1, 3, 3, scale, after @ ..] = rest {
            offer.window_scale = Some(*scale);
            rest = after;
        }
        (offer, rest.len())
    }
}

/// What an ICMP message carries.
#[derive(Clone, Debug, PartialEq)]
pub enum IcmpPayload {
    Bytes(Vec<u8>),
    /// The packet that it is about, cut to so many bytes if they are given.
    About(Box<IpPacket>, Option<usize>),
}

/// What is done to the finished frame, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bytes overwritten. After it the IPv4 header checksum is computed again.
    pub set: Vec<Patch>,
    /// The IPv4 header checksum is made wrong.
    pub bad_ip_checksum: bool,
    /// The TCP, UDP, SCTP or ICMP checksum is made wrong.
    pub bad_checksum: bool,
    /// Zeros are added up to this length of the frame.
    pub pad: Option<usize>,
    /// The frame is cut to this length.
    pub truncate: Option<usize>,
}

/// Bytes to overwrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    pub from: Anchor,
    /// In bytes from the anchor.
    pub offset: usize,
    pub bytes: Vec<u8>,
}

/// What a patch's offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Frame,
    Ip,
    /// The TCP, UDP, SCTP or ICMP header.
    Transport,
}

/// TCP flags in the order in which they are written, with their letters.
const FLAGS: [(char, u8); 8] = [
    ('C', 0x80),
    ('E', 0x40),
    ('U', 0x20),
    ('S', 0x02),
    ('F', 0x01),
    ('R', 0x04),
    ('P', 0x08),
    ('A', 0x10),
];

/// Type and code of an ICMP message.
type IcmpKind = (u8, u8);

/// Names of ICMP messages: word, in IPv4, in IPv6.
const ICMP_KINDS: [(&str, Option<IcmpKind>, Option<IcmpKind>); 10] = [
    ("echo", Some((8, 0)), Some((128, 0))),
    ("echo-reply", Some((0, 0)), Some((129, 0))),
    ("net-unreachable", Some((3, 0)), Some((1, 0))),
    ("host-unreachable", Some((3, 1)), Some((1, 3))),
    ("port-unreachable", Some((3, 3)), Some((1, 4))),
    ("frag-needed", Some((3, 4)), None),
    ("too-big", None, Some((2, 0))),
    ("time-exceeded", Some((11, 0)), Some((3, 0))),
    ("parameter-problem", Some((12, 0)), Some((4, 0))),
    ("redirect", Some((5, 1)), Some((137, 0))),
];

/// The payload that `len N` stands for: bytes that count up, so that a shift shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..=u8::MAX).cycle().take(length).collect()
}
