//! From a frame to what the director needs of it, in one pass.
//!
//! Zero to two VLAN tags, IPv4 with options, IPv6 with extension headers; TCP, UDP, SCTP, and ICMP errors
//! by the packet that they quote. Every length that forwarding relies on is checked here, once: of a
//! [`Parsed`] frame, the headers at `l3_offset` and `l4_offset` are inside the frame, and the IP packet ends
//! inside it too (the frame may be longer: Ethernet pads to 60 bytes).
//!
//! Plain IPv4 and IPv6 go straight through; what is rare is in `#[cold]` functions, so that it costs
//! the straight way one predicted branch each.

use super::checksum::Sum;
use super::ethernet::{self, ethertype};
use super::ipv4::Fragment;
use super::{Malformed, icmp, ipv4, ipv6, sctp, tcp, udp, vlan};
use crate::flow::PlainKey;
use crate::service::{Address, Protocol};
use crate::xsk::umem::HEAD;

/// What a frame is to the director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole TCP, UDP or SCTP packet.
    Packet,
    /// The first fragment of such a packet: it has the ports, not all of the payload.
    FirstFragment,
    /// A later fragment of any protocol: no ports.
    LaterFragment,
    /// An ICMP error about such a packet. Addresses, ports and protocol are those of the
    /// *quoted* packet: of an error about what a real server sent, the source is the virtual server.
    IcmpError,
    /// IP, but none of these protocols nor an error about one. No ports.
    OtherProtocol,
    /// Neither IPv4 nor IPv6. Nothing but `l3_offset` is set.
    NotIp,
}

/// What a frame says; see [`Kind`] for what is set when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub source: Address,
    pub destination: Address,
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// Of the IP header, in bytes from the start of the frame: 14, 18 or 22.
    pub l3_offset: u16,
    /// Of the TCP, UDP or ICMP header, in bytes from the start of the frame; of a later fragment,
    /// of its payload.
    pub l4_offset: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`tcp::flags`]; 0 for what is not TCP, and for a quoted packet.
    pub tcp_flags: u8,
    pub kind: Kind,
}

impl Parsed {
    const fn not_ip(l3_offset: u16) -> Self {
        Self {
            source: Address::from_octets([0; 16]),
            destination: Address::from_octets([0; 16]),
            source_port: 0,
            destination_port: 0,
            l3_offset,
            l4_offset: l3_offset,
            protocol: 0,
            tcp_flags: 0,
            kind: Kind::NotIp,
        }
    }
}

/// Addresses, ports and protocol of a quoted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) protocol: u8,
}

/// What [`parse_plain`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    pub key: PlainKey,
    /// 0 for UDP.
    pub tcp_flags: u8,
    /// What it leaves with.
    pub life: ipv4::Life,
}

/// The straight way for nearly every packet: untagged, IPv4 without options, whole, with a hop left to go,
/// TCP or UDP.
/// `None` only says that [`parse`] is to be asked; what is returned is what `parse` would say.
///
/// `head` is how a frame of `length` bytes begins, and holds anything behind its end.
#[inline(always)]
#[must_use]
pub fn parse_plain(head: &[u8; HEAD], length: u16) -> Option<Plain> {
    const L3: usize = ethernet::HEADER_LEN;
    const L4: usize = L3 + ipv4::HEADER_LEN;
    const UDP: usize = ipv4::HEADER_LEN + udp::HEADER_LEN;
    let ip = ipv4::Packet::header(head, L3).ok()?;
    // What the frame has behind the shortest packet, and below what the packet has there: one
    // comparison for both bounds of its length.
    let room = usize::from(length).checked_sub(L3 + UDP)?;
    let total_len = ip.total_len();
    let straight = ethernet::Packet::header(head).ok()?.ethertype() == ethertype::IPV4
        && ip.is_plain()
        && ip.fragment() == Fragment::Whole
        && total_len.wrapping_sub(UDP) <= room
        && ip.verifies_plain();
    if !straight {
        return None;
    }
    let life = ip.life().one_hop_less()?;
    let key = PlainKey::of(head);
    if ip.protocol() == Protocol::Udp as u8 {
        let length = udp::Packet::header(head, L4).ok()?.total_len();
        let fits = length >= udp::HEADER_LEN && ipv4::HEADER_LEN + length <= total_len;
        fits.then_some(Plain {
            key,
            tcp_flags: 0,
            life,
        })
    } else if ip.protocol() == Protocol::Tcp as u8 {
        let tcp = tcp::Packet::header(head, L4).ok()?;
        let header_len = tcp.header_len();
        let fits = header_len >= tcp::HEADER_LEN && ipv4::HEADER_LEN + header_len <= total_len;
        let tcp_flags = tcp.flags();
        fits.then_some(Plain {
            key,
            tcp_flags,
            life,
        })
    } else {
        None
    }
}

/// The TCP flags of what [`parse_plain`] took for TCP; 0 if that was UDP.
#[must_use]
pub(crate) fn plain_tcp_flags(head: &[u8; HEAD], is_tcp: bool) -> u8 {
    let at = usize::from(super::PLAIN_L4_OFFSET);
    match tcp::Packet::header(head, at) {
        Ok(tcp) if is_tcp => tcp.flags(),
        Ok(_) | Err(_) => 0,
    }
}

/// Parses a frame from its destination MAC on.
///
/// # Errors
/// The [`Malformed`] reason; a frame that is well-formed but none of ours is not an error.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Parsed, Malformed> {
    let ethertype = ethernet::Packet::header(frame)?.ethertype();
    if vlan::is_tag(ethertype) {
        return parse_tagged(frame, ethertype);
    }
    // A constant offset: no arithmetic on the straight way.
    parse_network(frame, ethertype, ethernet::HEADER_LEN)
}

/// A frame with tags. A third one is left as the EtherType.
#[inline(never)]
fn parse_tagged(frame: &[u8], mut ethertype: u16) -> Result<Parsed, Malformed> {
    let mut l3_offset = ethernet::HEADER_LEN;
    for _ in 0..vlan::MAX_TAGS {
        if !vlan::is_tag(ethertype) {
            break;
        }
        let tag = frame.get(l3_offset..).unwrap_or_default();
        ethertype = vlan::Packet::new_checked(tag)?.ethertype();
        l3_offset += vlan::TAG_LEN;
    }
    parse_network(frame, ethertype, l3_offset)
}

#[inline(always)]
fn parse_network(frame: &[u8], ethertype: u16, l3_offset: usize) -> Result<Parsed, Malformed> {
    match ethertype {
        ethertype::IPV4 => parse_ipv4(frame, l3_offset),
        ethertype::IPV6 => parse_ipv6(frame, l3_offset),
        _ => Ok(Parsed::not_ip(offset(l3_offset)?)),
    }
}

#[inline(always)]
fn parse_ipv4(frame: &[u8], l3_offset: usize) -> Result<Parsed, Malformed> {
    let ip = ipv4::Packet::header(frame, l3_offset)?;
    if !ip.is_plain() {
        return parse_ipv4_options(frame, l3_offset);
    }
    if !ip.verifies_plain() {
        return Err(Malformed::BadIpChecksum);
    }
    ipv4_payload(frame, ip, l3_offset, ipv4::HEADER_LEN)
}

/// An IPv4 header with options, or with a first byte that is wrong.
#[cold]
fn parse_ipv4_options(frame: &[u8], l3_offset: usize) -> Result<Parsed, Malformed> {
    let ip = ipv4::Packet::header(frame, l3_offset)?;
    ip.check_header_len()?;
    let header_len = ip.header_len();
    let header = frame
        .get(l3_offset..l3_offset + header_len)
        .ok_or(Malformed::BadIpHeaderLength)?;
    if Sum::ZERO.bytes(header).fold() != 0xffff {
        return Err(Malformed::BadIpChecksum);
    }
    ipv4_payload(frame, ip, l3_offset, header_len)
}

#[inline(always)]
fn ipv4_payload(
    frame: &[u8],
    ip: ipv4::Packet<&[u8; ipv4::HEADER_LEN]>,
    l3_offset: usize,
    header_len: usize,
) -> Result<Parsed, Malformed> {
    let total_len = ip.total_len();
    if total_len < header_len {
        return Err(Malformed::BadIpTotalLength);
    }
    let packet = frame
        .get(..l3_offset + total_len)
        .ok_or(Malformed::BadIpTotalLength)?;
    let l4_offset = l3_offset + header_len;
    let network = Network {
        source: ip.source(),
        destination: ip.destination(),
        l3_offset: offset(l3_offset)?,
        l4_offset: offset(l4_offset)?,
        protocol: ip.protocol(),
    };
    transport(packet, ip.fragment(), network)
}

#[inline(always)]
fn parse_ipv6(frame: &[u8], l3_offset: usize) -> Result<Parsed, Malformed> {
    let ip = ipv6::Packet::header(frame, l3_offset)?;
    if ip.version() != 6 {
        return Err(Malformed::BadIpVersion);
    }
    let packet = frame
        .get(..l3_offset + ip.total_len())
        .ok_or(Malformed::BadIpTotalLength)?;
    // IPv4 is carried as mapped addresses from here on; mapped ones from the wire would pass for it
    // and reach an IPv4 virtual server with an IPv6 header.
    if ip.source().is_v4() || ip.destination().is_v4() {
        return Err(Malformed::MappedAddress);
    }
    let upper = ipv6::walk(packet, l3_offset, ip.next_header())?;
    let network = Network {
        source: ip.source(),
        destination: ip.destination(),
        l3_offset: offset(l3_offset)?,
        l4_offset: offset(upper.offset)?,
        protocol: upper.protocol,
    };
    transport(packet, upper.fragment, network)
}

/// An offset in a frame as it is kept. Frames are below 64 KiB, and so is every offset in them.
#[inline(always)]
fn offset(value: usize) -> Result<u16, Malformed> {
    u16::try_from(value).map_err(|_| Malformed::BadIpTotalLength)
}

/// What the headers below the transport's say.
///
/// Its address is not taken on the straight way, so that it stays in registers.
#[derive(Clone, Copy)]
struct Network {
    source: Address,
    destination: Address,
    l3_offset: u16,
    l4_offset: u16,
    protocol: u8,
}

impl Network {
    #[inline(always)]
    fn with(self, kind: Kind, source_port: u16, destination_port: u16, tcp_flags: u8) -> Parsed {
        Parsed {
            source: self.source,
            destination: self.destination,
            source_port,
            destination_port,
            l3_offset: self.l3_offset,
            l4_offset: self.l4_offset,
            protocol: self.protocol,
            tcp_flags,
            kind,
        }
    }

    #[inline(always)]
    fn with_tcp(self, kind: Kind, packet: &[u8]) -> Result<Parsed, Malformed> {
        let at = usize::from(self.l4_offset);
        let tcp = tcp::Packet::header(packet, at).map_err(|_| Malformed::BadTcpHeader)?;
        let header_len = tcp.header_len();
        if header_len < tcp::HEADER_LEN || header_len > packet.len() - at {
            return Err(Malformed::BadTcpHeader);
        }
        Ok(self.with(kind, tcp.source_port(), tcp.destination_port(), tcp.flags()))
    }
}

/// Reads the transport header; `packet` ends where the IP packet does.
#[inline(always)]
fn transport(packet: &[u8], fragment: Fragment, network: Network) -> Result<Parsed, Malformed> {
    if fragment != Fragment::Whole {
        let network = Network { ..network }; // a copy to point to; see there
        return fragmented(packet, fragment, &network);
    }
    if network.protocol == Protocol::Tcp as u8 {
        network.with_tcp(Kind::Packet, packet)
    } else if network.protocol == Protocol::Udp as u8 {
        let at = usize::from(network.l4_offset);
        let udp = udp::Packet::header(packet, at).map_err(|_| Malformed::BadUdpHeader)?;
        let length = udp.total_len();
        if length < udp::HEADER_LEN || length > packet.len() - at {
            return Err(Malformed::BadUdpHeader);
        }
        Ok(network.with(Kind::Packet, udp.source_port(), udp.destination_port(), 0))
    } else {
        let network = Network { ..network };
        other(packet, &network)
    }
}

/// A fragment. The first one must hold the whole transport header (RFC 7112; for IPv4 RFC 1858
/// advises so), but not the payload that the header speaks of.
#[cold]
fn fragmented(packet: &[u8], fragment: Fragment, network: &Network) -> Result<Parsed, Malformed> {
    if fragment == Fragment::Later {
        Ok(network.with(Kind::LaterFragment, 0, 0, 0))
    } else if network.protocol == Protocol::Tcp as u8 {
        network.with_tcp(Kind::FirstFragment, packet)
    } else if network.protocol == Protocol::Udp as u8 {
        let udp = udp::Packet::header(packet, usize::from(network.l4_offset))
            .map_err(|_| Malformed::BadUdpHeader)?;
        Ok(network.with(
            Kind::FirstFragment,
            udp.source_port(),
            udp.destination_port(),
            0,
        ))
    } else if network.protocol == sctp::PROTOCOL {
        with_sctp(packet, Kind::FirstFragment, network)
    } else {
        // The beginning of an ICMP message is not worth following without its end.
        Ok(network.with(Kind::OtherProtocol, 0, 0, 0))
    }
}

/// An SCTP packet, or the first fragment of one: its header is whole.
fn with_sctp(packet: &[u8], kind: Kind, network: &Network) -> Result<Parsed, Malformed> {
    let transport = packet.get(usize::from(network.l4_offset)..);
    let sctp = sctp::Packet::new_checked(transport.unwrap_or_default())
        .map_err(|_| Malformed::BadSctpHeader)?;
    Ok(network.with(kind, sctp.source_port(), sctp.destination_port(), 0))
}

/// Neither TCP nor UDP: SCTP, and of ICMP errors the quoted packet counts.
#[cold]
fn other(packet: &[u8], network: &Network) -> Result<Parsed, Malformed> {
    if network.protocol == sctp::PROTOCOL {
        return with_sctp(packet, Kind::Packet, network);
    }
    let parsed = network.with(Kind::OtherProtocol, 0, 0, 0);
    let is_v4 = parsed.destination.is_v4();
    let icmp_protocol = if is_v4 {
        icmp::PROTOCOL_V4
    } else {
        icmp::PROTOCOL_V6
    };
    if parsed.protocol != icmp_protocol {
        return Ok(parsed);
    }
    let message = packet
        .get(usize::from(parsed.l4_offset)..)
        .unwrap_or_default();
    let message = icmp::Packet::new_checked(message)?;
    let quoted = if is_v4 && message.is_error_v4() {
        icmp::quoted_v4(message.quoted())?
    } else if !is_v4 && message.is_error_v6() {
        icmp::quoted_v6(message.quoted())?
    } else {
        None
    };
    Ok(quoted.map_or(parsed, |quoted| Parsed {
        source: quoted.source,
        destination: quoted.destination,
        source_port: quoted.source_port,
        destination_port: quoted.destination_port,
        protocol: quoted.protocol,
        kind: Kind::IcmpError,
        ..parsed
    }))
}
