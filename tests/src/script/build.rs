//! From what a line says to the bytes of a frame, with etherparse's headers and checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, bail, ensure};
use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpDscp, IpEcn,
    IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FragmentHeader, Ipv6Header,
    SingleVlanHeader, TcpHeader, UdpHeader, VlanId, VlanPcp,
};

use super::{
    Anchor, Body, Damage, Extension, IcmpPayload, IpPacket, Packet, Patch, Tcp, Transport,
};

const IPV4_HEADER: usize = 20;

/// The bytes of a frame.
///
/// # Errors
/// What the packet says cannot be put into headers, such as a payload beyond 64 KiB.
pub fn build(packet: &Packet) -> anyhow::Result<Vec<u8>> {
    let mut frame = Vec::new();
    let (ethertype, payload, l4) = match &packet.body {
        Body::Raw(bytes) => return Ok(bytes.clone()),
        Body::Other(ethertype, bytes) => (EtherType(*ethertype), bytes.clone(), None),
        Body::Ip(ip) => {
            let (bytes, l4) = ip_packet(ip)?;
            let ethertype = match ip.source {
                IpAddr::V4(_) => EtherType::IPV4,
                IpAddr::V6(_) => EtherType::IPV6,
            };
            (ethertype, bytes, Some(l4))
        }
    };
    let l3_at = link(packet, ethertype, &mut frame)?;
    frame.extend(payload);
    let is_v4 = ethertype == EtherType::IPV4;
    damage(&mut frame, l3_at, l4.map(|l4| l3_at + l4), is_v4, packet)?;
    Ok(frame)
}

/// Writes the Ethernet header and the tags; returns where their payload begins.
fn link(packet: &Packet, ethertype: EtherType, frame: &mut Vec<u8>) -> anyhow::Result<usize> {
    // 802.1ad outside, 802.1Q inside; a single tag is 802.1Q.
    let tag_type = |inner: usize| match inner {
        0 => ethertype,
        1 => EtherType::VLAN_TAGGED_FRAME,
        _ => EtherType::PROVIDER_BRIDGING,
    };
    let count = packet.tags.len();
    Ethernet2Header {
        source: packet.source_mac,
        destination: packet.destination_mac,
        ether_type: tag_type(count),
    }
    .write(frame)?;
    for (number, tag) in packet.tags.iter().enumerate() {
        SingleVlanHeader {
            pcp: VlanPcp::try_new(tag.priority)?,
            drop_eligible_indicator: false,
            vlan_id: VlanId::try_new(tag.id)?,
            ether_type: tag_type(count - number - 1),
        }
        .write(frame)?;
    }
    Ok(frame.len())
}

/// The bytes of an IP packet and where its transport begins.
fn ip_packet(ip: &IpPacket) -> anyhow::Result<(Vec<u8>, usize)> {
    let (protocol, bytes) = transport(ip)?;
    let (start, end) = ip.fragment.unwrap_or((0, None));
    let (start, end) = (usize::from(start), end.map(usize::from));
    let part = bytes
        .get(start..end.unwrap_or(bytes.len()))
        .with_context(|| format!("the fragment is beyond the {} bytes there are", bytes.len()))?;
    let offset = IpFragOffset::try_new(u16::try_from(start / 8)?)?;
    let more = end.is_some_and(|end| end < bytes.len());
    let mut packet = Vec::new();
    match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ipv4Header {
                dscp: IpDscp::try_new(ip.tos >> 2)?,
                ecn: IpEcn::try_new(ip.tos & 3)?,
                identification: ip.id,
                dont_fragment: ip.dont_fragment,
                more_fragments: more,
                fragment_offset: offset,
                time_to_live: ip.ttl,
                protocol,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv4Header::default()
            };
            header.options = Ipv4Options::try_from(&vec![1; usize::from(ip.options)][..])?;
            header.set_payload_len(part.len())?;
            header.write(&mut packet)?;
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let fragment = ip.fragment.map(|_| (offset, more));
            let (first, extensions) = extensions(ip, protocol, fragment)?;
            let mut header = Ipv6Header {
                traffic_class: ip.tos,
                hop_limit: ip.ttl,
                next_header: first,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            header.set_payload_length(extensions.len() + part.len())?;
            header.write(&mut packet)?;
            packet.extend(extensions);
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            bail!("source and destination are of different families")
        }
    }
    let l4 = packet.len();
    packet.extend(part);
    Ok((packet, l4))
}

/// The extension headers, and the number of the first header after the fixed one.
fn extensions(
    ip: &IpPacket,
    protocol: IpNumber,
    fragment: Option<(IpFragOffset, bool)>,
) -> anyhow::Result<(IpNumber, Vec<u8>)> {
    let mut headers: Vec<(IpNumber, Vec<u8>)> = Vec::new();
    let fragment_header = |offset, more| {
        // The next header is filled in below.
        let header = Ipv6FragmentHeader::new(IpNumber(0), offset, more, u32::from(ip.id));
        (
            IpNumber::IPV6_FRAGMENTATION_HEADER,
            header.to_bytes().to_vec(),
        )
    };
    for extension in &ip.extensions {
        // Next header, length 0 (8 bytes), PadN over the rest.
        let padding = vec![0, 0, 1, 4, 0, 0, 0, 0];
        headers.push(match extension {
            Extension::HopByHop => (IpNumber::IPV6_HEADER_HOP_BY_HOP, padding),
            Extension::DestinationOptions => (IpNumber::IPV6_DESTINATION_OPTIONS, padding),
            // Type 253 (for experiments, RFC 4727), no segments left: to be ignored.
            Extension::Routing => (IpNumber::IPV6_ROUTE_HEADER, vec![0, 0, 253, 0, 0, 0, 0, 0]),
            Extension::AtomicFragment => fragment_header(IpFragOffset::ZERO, false),
        });
    }
    if let Some((offset, more)) = fragment {
        headers.push(fragment_header(offset, more));
    }
    let mut next = protocol;
    for (number, bytes) in headers.iter_mut().rev() {
        bytes[0] = next.0;
        next = *number;
    }
    Ok((
        next,
        headers.into_iter().flat_map(|(_, bytes)| bytes).collect(),
    ))
}

/// Protocol number and bytes of the transport, with its checksum.
fn transport(ip: &IpPacket) -> anyhow::Result<(IpNumber, Vec<u8>)> {
    let addresses = (ip.source, ip.destination);
    match &ip.transport {
        Transport::Tcp(tcp) => Ok((IpNumber::TCP, segment(tcp, addresses)?)),
        Transport::Udp {
            source_port,
            destination_port,
            checksum,
            payload,
        } => {
            let (from, to) = (*source_port, *destination_port);
            let header = match addresses {
                (IpAddr::V4(_), _) if !checksum => {
                    UdpHeader::without_ipv4_checksum(from, to, payload.len())?
                }
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    let header = Ipv4Header {
                        source: source.octets(),
                        destination: destination.octets(),
                        ..Ipv4Header::default()
                    };
                    UdpHeader::with_ipv4_checksum(from, to, &header, payload)?
                }
                _ => {
                    ensure!(*checksum, "UDP over IPv6 has a checksum");
                    UdpHeader::with_ipv6_checksum(from, to, &ipv6_addresses(ip)?, payload)?
                }
            };
            Ok((IpNumber::UDP, [&header.to_bytes()[..], payload].concat()))
        }
        Transport::Sctp(sctp) => Ok((IpNumber::SCTP, sctp.to_bytes()?)),
        Transport::Icmp {
            kind,
            code,
            rest,
            payload,
        } => {
            let payload = match payload {
                IcmpPayload::Bytes(bytes) => bytes.clone(),
                IcmpPayload::About(packet, quote) => {
                    let (mut bytes, _) = ip_packet(packet)?;
                    bytes.truncate(quote.unwrap_or(usize::MAX));
                    bytes
                }
            };
            icmp(ip, *kind, *code, *rest, &payload)
        }
        Transport::Other(protocol, payload) => Ok((IpNumber(*protocol), payload.clone())),
    }
}

fn segment(tcp: &Tcp, addresses: (IpAddr, IpAddr)) -> anyhow::Result<Vec<u8>> {
    let mut header = TcpHeader::new(
        tcp.source_port,
        tcp.destination_port,
        tcp.sequence,
        tcp.window,
    );
    header.acknowledgment_number = tcp.acknowledgment;
    let mut options = tcp.offer.bytes();
    options.resize(options.len() + usize::from(tcp.options), 1);
    header.set_options_raw(&options)?;
    let has = |flag: u8| tcp.flags & flag != 0;
    header.cwr = has(0x80);
    header.ece = has(0x40);
    header.urg = has(0x20);
    header.ack = has(0x10);
    header.psh = has(0x08);
    header.rst = has(0x04);
    header.syn = has(0x02);
    header.fin = has(0x01);
    header.checksum = match addresses {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &tcp.payload)?
        }
        (source, destination) => {
            let [source, destination] = [source, destination].map(octets_v6);
            header.calc_checksum_ipv6_raw(source, destination, &tcp.payload)?
        }
    };
    Ok([&header.to_bytes()[..], &tcp.payload].concat())
}

fn icmp(
    ip: &IpPacket,
    kind: u8,
    code: u8,
    rest: u32,
    payload: &[u8],
) -> anyhow::Result<(IpNumber, Vec<u8>)> {
    let (type_u8, code_u8, bytes5to8) = (kind, code, rest.to_be_bytes());
    Ok(match (ip.source, ip.destination) {
        (IpAddr::V4(_), _) => {
            let kind = Icmpv4Type::Unknown {
                type_u8,
                code_u8,
                bytes5to8,
            };
            let header = Icmpv4Header::with_checksum(kind, payload);
            (IpNumber::ICMP, [&header.to_bytes()[..], payload].concat())
        }
        (source, destination) => {
            let kind = Icmpv6Type::Unknown {
                type_u8,
                code_u8,
                bytes5to8,
            };
            let [source, destination] = [source, destination].map(octets_v6);
            let header = Icmpv6Header::with_checksum(kind, source, destination, payload)?;
            (
                IpNumber::IPV6_ICMP,
                [&header.to_bytes()[..], payload].concat(),
            )
        }
    })
}

fn ipv6_addresses(ip: &IpPacket) -> anyhow::Result<Ipv6Header> {
    Ok(Ipv6Header {
        source: octets_v6(ip.source),
        destination: octets_v6(ip.destination),
        ..Ipv6Header::default()
    })
}

fn octets_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => Ipv4Addr::to_ipv6_mapped(&address).octets(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address),
    }
}

/// Does what the line wants done to the finished frame.
fn damage(
    frame: &mut Vec<u8>,
    l3_at: usize,
    l4_at: Option<usize>,
    is_v4: bool,
    packet: &Packet,
) -> anyhow::Result<()> {
    let Damage {
        set,
        bad_ip_checksum,
        bad_checksum,
        pad,
        truncate,
    } = &packet.damage;
    for Patch {
        from,
        offset,
        bytes,
    } in set
    {
        let start = offset
            + match from {
                Anchor::Frame => 0,
                Anchor::Ip => l3_at,
                Anchor::Transport => l4_at.context("`set l4+…` needs an IP packet")?,
            };
        frame
            .get_mut(start..start + bytes.len())
            .with_context(|| format!("`set` is beyond the frame, at byte {start}"))?
            .copy_from_slice(bytes);
    }
    if !set.is_empty() && is_v4 {
        refresh_ipv4_checksum(frame, l3_at);
    }
    if *bad_ip_checksum {
        ensure!(is_v4, "only IPv4 has a header checksum");
        frame[l3_at + 10] ^= 0x55;
    }
    if *bad_checksum {
        let at = l4_at.unwrap_or_default() + checksum_offset(packet)?;
        *frame
            .get_mut(at)
            .context("there is no checksum in this fragment")? ^= 0x55;
    }
    frame.resize(pad.unwrap_or_default().max(frame.len()), 0);
    frame.truncate(truncate.unwrap_or(usize::MAX));
    Ok(())
}

/// Where the checksum is in the transport's header.
fn checksum_offset(packet: &Packet) -> anyhow::Result<usize> {
    match &packet.body {
        Body::Ip(ip) => match ip.transport {
            Transport::Tcp(_) => Ok(16),
            Transport::Udp { .. } => Ok(6),
            Transport::Sctp(_) => Ok(8),
            Transport::Icmp { .. } => Ok(2),
            Transport::Other(..) => bail!("`bad-checksum` needs TCP, UDP, SCTP or ICMP"),
        },
        Body::Raw(_) | Body::Other(..) => bail!("`bad-checksum` needs TCP, UDP, SCTP or ICMP"),
    }
}

/// After `set`: so that what was set is found for itself and not by the checksum. The header is as
/// long as it says, or 20 bytes if it cannot be.
fn refresh_ipv4_checksum(frame: &mut [u8], at: usize) {
    let claimed = usize::from(frame[at] & 0x0f) * 4;
    let length = if claimed < IPV4_HEADER || at + claimed > frame.len() {
        IPV4_HEADER
    } else {
        claimed
    };
    let header = &mut frame[at..at + length];
    header[10..12].fill(0);
    let mut sum = 0_u32;
    for word in header.chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let folded = u16::try_from(sum).unwrap_or_default();
    header[10..12].copy_from_slice(&(!folded).to_be_bytes());
}
