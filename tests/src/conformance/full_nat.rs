//! What FULLNAT does besides translating, judged by etherparse: it tells the server who the client is, and
//! crosses from one IP version to the other.

use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice};

use super::Frame;
use super::rewriting::{header_is_right, hops, is_right};

/// True if `frame` is the segment or datagram in `cause` between other addresses, of either IP version, with
/// one hop less to live and checksums that are as right as they were; and nothing else of it changed
/// but for what tells the server who the client is, and makes room for that.
pub(super) fn is_told(cause: &Frame, frame: &Frame) -> bool {
    let (Ok(before), Ok(after)) = (
        SlicedPacket::from_ethernet(&cause.bytes),
        SlicedPacket::from_ethernet(&frame.bytes),
    ) else {
        return false;
    };
    let (Some(before_hops), Some(after_hops)) = (hops(&before.net), hops(&after.net)) else {
        return false;
    };
    let same_content = match (&before.transport, &after.transport) {
        (Some(TransportSlice::Tcp(was)), Some(TransportSlice::Tcp(is))) => {
            is_told_in_segment(&before, was, is)
        }
        (Some(TransportSlice::Udp(was)), Some(TransportSlice::Udp(is))) => {
            let told = [&header(&before), was.payload()].concat();
            is.payload() == was.payload() || is.payload() == told
        }
        // What is told nobody, but crosses. The kind is looked at by people, in `out.txt`.
        (Some(TransportSlice::Icmpv4(_)), Some(TransportSlice::Icmpv6(_)))
        | (Some(TransportSlice::Icmpv6(_)), Some(TransportSlice::Icmpv4(_))) => {
            return cause.time == frame.time && header_is_right(&after.net) && is_right(&after);
        }
        _ => false,
    };
    cause.time == frame.time
        && before_hops == after_hops.wrapping_add(1)
        && before.vlan_ids() == after.vlan_ids()
        && header_is_right(&after.net)
        && is_right(&before) == is_right(&after)
        && same_content
}

fn is_told_in_segment(packet: &SlicedPacket<'_>, was: &TcpSlice<'_>, is: &TcpSlice<'_>) -> bool {
    let header = header(packet);
    let shift = is.sequence_number().wrapping_sub(was.sequence_number());
    let back = was
        .acknowledgment_number()
        .wrapping_sub(is.acknowledgment_number());
    let told = is.payload() == [&header, was.payload()].concat();
    // Flags, window and urgent pointer.
    was.slice()[13..16] == is.slice()[13..16]
        && was.slice()[18..20] == is.slice()[18..20]
        && (is.payload() == was.payload() || told && shift == 0)
        && [0, 28, 52].contains(&shift)
        && back <= 52
        && (is.options() == was.options()
            || is.options() == [&option(packet), was.options()].concat()
            || was.syn() && is_smaller(was.options(), is.options()))
}

/// True if nothing differs but the maximum segment size, which comes first, and is smaller.
fn is_smaller(was: &[u8], is: &[u8]) -> bool {
    match (was, is) {
        ([2, 4, a, b, was @ ..], [2, 4, c, d, is @ ..]) => {
            was == is && u16::from_be_bytes([*a, *b]) > u16::from_be_bytes([*c, *d])
        }
        _ => false,
    }
}

/// Source and destination of a packet: addresses, then ports.
fn ends(packet: &SlicedPacket<'_>) -> (Vec<u8>, Vec<u8>, [u8; 4]) {
    let (source, destination) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            (header.source().to_vec(), header.destination().to_vec())
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (header.source().to_vec(), header.destination().to_vec())
        }
        Some(NetSlice::Arp(_)) | None => (Vec::new(), Vec::new()),
    };
    let ports = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => tcp.slice().first_chunk().copied(),
        Some(TransportSlice::Udp(udp)) => udp.slice().first_chunk().copied(),
        _ => None,
    };
    (source, destination, ports.unwrap_or_default())
}

/// TOA: kind, length, the client's port and address.
pub(super) fn option(packet: &SlicedPacket<'_>) -> Vec<u8> {
    let (source, _, [p, q, ..]) = ends(packet);
    let length = u8::try_from(source.len() + 4).unwrap_or(0);
    [&[254, length, p, q], &source[..]].concat()
}

/// PROXY protocol version 2, §2.2.
fn header(packet: &SlicedPacket<'_>) -> Vec<u8> {
    let (source, destination, ports) = ends(packet);
    let family = if source.len() == 4 { 0x10 } else { 0x20 };
    let protocol = match &packet.transport {
        Some(TransportSlice::Tcp(_)) => 1,
        _ => 2,
    };
    let length = u8::try_from(source.len() * 2 + 4).unwrap_or(0);
    let fixed = [0x21, family | protocol, 0, length];
    [
        b"\r\n\r\n\0\r\nQUIT\n",
        &fixed[..],
        &source,
        &destination,
        &ports,
    ]
    .concat()
}
