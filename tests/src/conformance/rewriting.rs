//! What may leave besides forwarded packets and RSTs, judged by etherparse and by what came in: translated
//! packets (NAT), packets in tunnels (TUN), ICMP errors and fragments.

use std::net::IpAddr;

use etherparse::{
    IpNumber, IpSlice, LaxNetSlice, LaxSlicedPacket, NetSlice, SlicedPacket, TransportSlice,
};

use super::Frame;
use crate::script::crc32c;

/// True if `frame` is `cause` with other addresses or ports: nothing else of it changed, it has one hop
/// less to live, and its checksums are as right as they were.
pub(super) fn is_translated(cause: &Frame, frame: &Frame) -> bool {
    let (Ok(before), Ok(after)) = (
        SlicedPacket::from_ethernet(&cause.bytes),
        SlicedPacket::from_ethernet(&frame.bytes),
    ) else {
        return false;
    };
    let (Some(before_hops), Some(after_hops)) = (hops(&before.net), hops(&after.net)) else {
        return false;
    };
    cause.time == frame.time
        && cause.bytes.len() == frame.bytes.len()
        && before_hops == after_hops.wrapping_add(1)
        && before.vlan_ids() == after.vlan_ids()
        && header_is_right(&after.net)
        && is_right(&before) == is_right(&after)
        && rest(&before) == rest(&after)
}

/// Source and destination of an IP packet, whole or a fragment.
pub(super) fn addresses(frame: &Frame) -> Option<[IpAddr; 2]> {
    let packet = LaxSlicedPacket::from_ethernet(&frame.bytes).ok()?;
    match packet.net? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some([
                header.source_addr().into(),
                header.destination_addr().into(),
            ])
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some([
                header.source_addr().into(),
                header.destination_addr().into(),
            ])
        }
        LaxNetSlice::Arp(_) => None,
    }
}

/// What translation leaves alone: of TCP the numbers, flags, window and options, and all payload.
fn rest(packet: &SlicedPacket<'_>) -> Option<Vec<u8>> {
    if let Some(sctp) = sctp(packet) {
        return Some([&sctp[4..8], &sctp[12..]].concat());
    }
    Some(match packet.transport.as_ref()? {
        TransportSlice::Tcp(tcp) => [&tcp.slice()[4..16], &tcp.slice()[18..]].concat(),
        TransportSlice::Udp(udp) => [&udp.slice()[4..6], &udp.slice()[8..]].concat(),
        // Of an ICMP error the quoted packet changes too; its length does not.
        TransportSlice::Icmpv4(icmp) => icmp.slice()[..2].to_vec(),
        TransportSlice::Icmpv6(icmp) => icmp.slice()[..2].to_vec(),
        TransportSlice::Igmp(_) => return None,
    })
}

pub(super) fn hops(net: &Option<NetSlice<'_>>) -> Option<u8> {
    match net {
        Some(NetSlice::Ipv4(ip)) => Some(ip.header().ttl()),
        Some(NetSlice::Ipv6(ip)) => Some(ip.header().hop_limit()),
        Some(NetSlice::Arp(_)) | None => None,
    }
}

pub(super) fn header_is_right(net: &Option<NetSlice<'_>>) -> bool {
    match net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            header.to_header().calc_header_checksum() == header.header_checksum()
        }
        Some(NetSlice::Ipv6(_)) => true,
        Some(NetSlice::Arp(_)) | None => false,
    }
}

/// A whole SCTP packet.
fn sctp<'a>(packet: &SlicedPacket<'a>) -> Option<&'a [u8]> {
    let payload = packet.ip_payload()?;
    let is_it = payload.ip_number == IpNumber::SCTP && !payload.fragmented;
    (is_it && payload.payload.len() >= 12).then_some(payload.payload)
}

/// True if the transport's checksum is right, or is none where that is allowed.
pub(super) fn is_right(packet: &SlicedPacket<'_>) -> bool {
    if let Some(sctp) = sctp(packet) {
        let mut without = sctp.to_vec();
        without[8..12].fill(0);
        return sctp[8..12] == crc32c(&without).to_le_bytes();
    }
    match (&packet.net, &packet.transport) {
        (Some(NetSlice::Ipv4(ip)), Some(transport)) => {
            let (source, destination) = (ip.header().source(), ip.header().destination());
            match transport {
                TransportSlice::Tcp(tcp) => {
                    tcp.calc_checksum_ipv4(source, destination) == Ok(tcp.checksum())
                }
                TransportSlice::Udp(udp) => {
                    let header = udp.to_header();
                    let sum = header.calc_checksum_ipv4_raw(source, destination, udp.payload());
                    udp.checksum() == 0 || sum == Ok(udp.checksum())
                }
                TransportSlice::Icmpv4(icmp) => super::invariants::sum(icmp.slice()) == 0xffff,
                TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => false,
            }
        }
        (Some(NetSlice::Ipv6(ip)), Some(transport)) => {
            let (source, destination) = (ip.header().source(), ip.header().destination());
            match transport {
                TransportSlice::Tcp(tcp) => {
                    tcp.calc_checksum_ipv6(source, destination) == Ok(tcp.checksum())
                }
                TransportSlice::Udp(udp) => {
                    let header = udp.to_header();
                    let sum = header.calc_checksum_ipv6_raw(source, destination, udp.payload());
                    sum == Ok(udp.checksum())
                }
                TransportSlice::Icmpv6(icmp) => icmp.is_checksum_valid(source, destination),
                TransportSlice::Icmpv4(_) | TransportSlice::Igmp(_) => false,
            }
        }
        // A later fragment has none.
        (Some(_), None) => true,
        (None | Some(NetSlice::Arp(_)), _) => false,
    }
}

/// True if `frame` is a later fragment of NAT: the same payload between other addresses.
pub(super) fn is_translated_fragment(cause: &Frame, frame: &Frame) -> bool {
    let ip = |frame: &Frame| -> Option<(u16, Vec<u8>, bool)> {
        let packet = LaxSlicedPacket::from_ethernet(&frame.bytes).ok()?;
        let LaxNetSlice::Ipv4(ip) = packet.net? else {
            return None;
        };
        let header = ip.header();
        let right = header.to_header().calc_header_checksum() == header.header_checksum();
        let offset = header.fragments_offset().value();
        (offset > 0).then(|| (offset, ip.payload().payload.to_vec(), right))
    };
    match (ip(cause), ip(frame)) {
        (Some(before), Some(after)) => cause.time <= frame.time && before == after && after.2,
        _ => false,
    }
}

/// True if `frame`, IPv4, is a fragment made of `cause`: its payload is part of that of `cause`, up to a
/// translated port and the checksum over it.
pub(super) fn is_piece(cause: &Frame, frame: &Frame) -> bool {
    let ip = |frame: &Frame| -> Option<(usize, u16, Vec<u8>)> {
        let packet = LaxSlicedPacket::from_ethernet(&frame.bytes).ok()?;
        let LaxNetSlice::Ipv4(ip) = packet.net? else {
            return None;
        };
        let header = ip.header();
        let right = header.to_header().calc_header_checksum() == header.header_checksum();
        let offset = usize::from(header.fragments_offset().value()) * 8;
        right.then(|| {
            (
                offset,
                header.identification(),
                ip.payload().payload.to_vec(),
            )
        })
    };
    let (Some((0, id, whole)), Some((offset, piece_id, piece))) = (ip(cause), ip(frame)) else {
        return false;
    };
    let ports = if offset == 0 { 18 } else { 0 };
    cause.time == frame.time
        && id == piece_id
        && piece.len() < whole.len()
        && whole.get(offset + ports..offset + piece.len()) == piece.get(ports..)
}

/// True if `frame` is an ICMP error that quotes the beginning of `cause`, to where that came from.
pub(super) fn is_answer(cause: &Frame, frame: &Frame) -> bool {
    let Ok(answer) = SlicedPacket::from_ethernet(&frame.bytes) else {
        return false;
    };
    let quoted = match &answer.transport {
        Some(TransportSlice::Icmpv4(icmp)) if matches!(icmp.type_u8(), 3 | 11) => icmp.payload(),
        Some(TransportSlice::Icmpv6(icmp)) if icmp.type_u8() < 128 => icmp.payload(),
        _ => return false,
    };
    let Ok(at) = super::invariants::l3_offset(&cause.bytes) else {
        return false;
    };
    let packet = &cause.bytes[at..];
    let goes_back = match (&answer.net, packet[0] >> 4) {
        (Some(NetSlice::Ipv4(ip)), 4) => ip.header().destination()[..] == packet[12..16],
        (Some(NetSlice::Ipv6(ip)), 6) => ip.header().destination()[..] == packet[8..24],
        _ => false,
    };
    goes_back
        && header_is_right(&answer.net)
        && is_right(&answer)
        && cause.bytes[6..12] == frame.bytes[..6]
        && packet.starts_with(quoted)
}

/// True if `cause` is an ICMP error about a packet in a tunnel, and `frame` one about what is inside, to where that came from.
pub(super) fn is_relayed(cause: &Frame, frame: &Frame) -> bool {
    let (Ok(error), Ok(answer)) = (
        SlicedPacket::from_ethernet(&cause.bytes),
        SlicedPacket::from_ethernet(&frame.bytes),
    ) else {
        return false;
    };
    let quoted = |packet: &SlicedPacket<'_>| match &packet.transport {
        Some(TransportSlice::Icmpv4(icmp)) if matches!(icmp.type_u8(), 3 | 11) => {
            Some(icmp.payload().to_vec())
        }
        Some(TransportSlice::Icmpv6(icmp)) if icmp.type_u8() < 128 => Some(icmp.payload().to_vec()),
        _ => None,
    };
    let (Some(outer), Some(inner)) = (quoted(&error), quoted(&answer)) else {
        return false;
    };
    let goes_back = match &answer.net {
        Some(NetSlice::Ipv4(ip)) => inner.get(12..16) == Some(&ip.header().destination()[..]),
        Some(NetSlice::Ipv6(ip)) => inner.get(8..24) == Some(&ip.header().destination()[..]),
        Some(NetSlice::Arp(_)) | None => false,
    };
    goes_back
        && header_is_right(&answer.net)
        && is_right(&answer)
        && cause.time == frame.time
        && (20..=52).any(|at| outer.get(at..).is_some_and(|rest| rest.starts_with(&inner)))
}

/// What `frame` carries in a tunnel, with the outer link header: IPIP, GRE or GUE.
pub(super) fn unwrapped(frame: &Frame) -> Option<Frame> {
    let at = super::invariants::l3_offset(&frame.bytes).ok()?;
    let outer = IpSlice::from_slice(&frame.bytes[at..]).ok()?;
    if let IpSlice::Ipv4(ip) = &outer {
        let header = ip.header();
        if header.to_header().calc_header_checksum() != header.header_checksum() {
            return None;
        }
    }
    let shim = match outer.payload_ip_number().0 {
        4 | 41 => 0,
        47 => 4,
        17 => 12,
        _ => return None,
    };
    let inner = outer.payload().payload.get(shim..)?;
    let ethertype = match inner.first()? >> 4 {
        4 => [0x08, 0x00],
        _ => [0x86, 0xdd],
    };
    let bytes = [&frame.bytes[..at - 2], &ethertype, inner].concat();
    Some(Frame {
        time: frame.time,
        bytes,
    })
}
