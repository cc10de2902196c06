//! From the bytes of a frame to the line that describes them.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, IpNumber, Ipv4Header, Ipv6Header, SingleVlanHeader,
    TcpHeader, UdpHeader,
};

use super::{
    Anchor, Body, DEFAULT_TTL, DEFAULT_WINDOW, DIRECTOR, Damage, Extension, FLAGS, ICMP_KINDS,
    IcmpPayload, IpPacket, Mac, Names, Packet, Patch, ROUTER, Sctp, Tag, Tcp, TcpOffer, Transport,
    build, pattern,
};

/// The line for a frame that was sent at `time`, with names for the addresses that have one.
///
/// Exact: [`parse`](super::parse()) and [`build()`] give the same bytes again. What words cannot
/// describe is rendered as `raw` bytes.
#[must_use]
pub fn render(time: Duration, frame: &[u8], names: &Names) -> String {
    let mut line = format!("{:<8}", seconds(time));
    match describe(frame) {
        Some(packet) => write_packet(&mut line, &packet, names),
        None => {
            let _ = write!(line, "  raw {}", hex(frame));
        }
    }
    line
}

fn seconds(time: Duration) -> String {
    if time.subsec_micros().is_multiple_of(1000) {
        format!("{:.3}", time.as_secs_f64())
    } else {
        format!("{:.6}", time.as_secs_f64())
    }
}

/// The packet whose bytes these are, if the language has words for all of it.
fn describe(frame: &[u8]) -> Option<Packet> {
    let (ethernet, mut rest) = Ethernet2Header::from_slice(frame).ok()?;
    let mut tags = Vec::new();
    let mut ethertype = ethernet.ether_type;
    while matches!(
        ethertype,
        EtherType::VLAN_TAGGED_FRAME | EtherType::PROVIDER_BRIDGING
    ) {
        let (tag, inner) = SingleVlanHeader::from_slice(rest).ok()?;
        tags.push(Tag {
            id: tag.vlan_id.value(),
            priority: tag.pcp.value(),
        });
        (ethertype, rest) = (tag.ether_type, inner);
    }
    let body = match ethertype {
        EtherType::IPV4 | EtherType::IPV6 => Body::Ip(ip_packet(rest)?),
        EtherType(number) => Body::Other(number, rest.to_vec()),
    };
    let mut packet = Packet {
        source_mac: ethernet.source,
        destination_mac: ethernet.destination,
        tags,
        body,
        damage: Damage::default(),
    };
    if build(&packet).ok()?.len() < frame.len() {
        packet.damage.pad = Some(frame.len());
    }
    let built = build(&packet).ok()?;
    if built == frame {
        return Some(packet);
    }
    // Only a wrong checksum, or a few bytes that are not as they should be?
    let bad_checksum = with_damage(&packet, |damage| damage.bad_checksum = true);
    let set = with_damage(&packet, |damage| damage.set = differences(&built, frame));
    [bad_checksum, set]
        .into_iter()
        .find(|packet| build(packet).is_ok_and(|built| built == frame))
}

fn with_damage(packet: &Packet, damage: impl FnOnce(&mut Damage)) -> Packet {
    let mut packet = packet.clone();
    damage(&mut packet.damage);
    packet
}

/// The few neighbouring bytes in which `frame` differs; nothing if they are far apart.
fn differences(built: &[u8], frame: &[u8]) -> Vec<Patch> {
    let differs = |at: &usize| built.get(*at) != frame.get(*at);
    let places: Vec<usize> = (0..frame.len()).filter(differs).collect();
    let (Some(&first), Some(&last)) = (places.first(), places.last()) else {
        return Vec::new();
    };
    if last - first >= 8 {
        return Vec::new();
    }
    vec![Patch {
        from: Anchor::Frame,
        offset: first,
        bytes: frame[first..=last].to_vec(),
    }]
}

fn ip_packet(bytes: &[u8]) -> Option<IpPacket> {
    if bytes.first()? >> 4 == 6 {
        return ipv6_packet(bytes);
    }
    let (header, _) = Ipv4Header::from_slice(bytes).ok()?;
    if header.is_fragmenting_payload() {
        return None;
    }
    let payload = bytes.get(header.header_len()..usize::from(header.total_len))?;
    Some(IpPacket {
        source: IpAddr::from(header.source),
        destination: IpAddr::from(header.destination),
        ttl: header.time_to_live,
        tos: header.dscp.value() << 2 | header.ecn.value(),
        id: header.identification,
        dont_fragment: header.dont_fragment,
        options: u8::try_from(header.options.len()).ok()?,
        extensions: Vec::new(),
        fragment: None,
        transport: transport(header.protocol, payload, true)?,
    })
}

fn ipv6_packet(bytes: &[u8]) -> Option<IpPacket> {
    let (header, rest) = Ipv6Header::from_slice(bytes).ok()?;
    let mut rest = rest.get(..usize::from(header.payload_length))?;
    let mut next = header.next_header;
    let mut extensions = Vec::new();
    let mut id = 0;
    loop {
        extensions.push(match next {
            IpNumber::IPV6_HEADER_HOP_BY_HOP => Extension::HopByHop,
            IpNumber::IPV6_ROUTE_HEADER => Extension::Routing,
            IpNumber::IPV6_DESTINATION_OPTIONS => Extension::DestinationOptions,
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                id = u16::from_be_bytes([*rest.get(6)?, *rest.get(7)?]);
                Extension::AtomicFragment
            }
            _ => break,
        });
        next = IpNumber(*rest.first()?);
        rest = rest.get(8..)?;
    }
    Some(IpPacket {
        source: IpAddr::from(header.source),
        destination: IpAddr::from(header.destination),
        ttl: header.hop_limit,
        tos: header.traffic_class,
        id,
        dont_fragment: false,
        options: 0,
        extensions,
        fragment: None,
        transport: transport(next, rest, false)?,
    })
}

fn transport(protocol: IpNumber, bytes: &[u8], is_v4: bool) -> Option<Transport> {
    Some(match protocol {
        IpNumber::TCP => {
            let (header, payload) = TcpHeader::from_slice(bytes).ok()?;
            let (offer, options) = TcpOffer::read(header.options.as_slice());
            Transport::Tcp(Tcp {
                source_port: header.source_port,
                destination_port: header.destination_port,
                flags: *bytes.get(13)?,
                sequence: header.sequence_number,
                acknowledgment: header.acknowledgment_number,
                window: header.window_size,
                offer,
                options: u8::try_from(options).ok()?,
                payload: payload.to_vec(),
            })
        }
        IpNumber::UDP => {
            let (header, payload) = UdpHeader::from_slice(bytes).ok()?;
            Transport::Udp {
                source_port: header.source_port,
                destination_port: header.destination_port,
                checksum: header.checksum != 0,
                payload: payload.to_vec(),
            }
        }
        IpNumber::SCTP => match Sctp::from_bytes(bytes) {
            Some(sctp) => Transport::Sctp(sctp),
            None => Transport::Other(protocol.0, bytes.to_vec()),
        },
        IpNumber::ICMP | IpNumber::IPV6_ICMP if (protocol == IpNumber::ICMP) == is_v4 => {
            icmp(bytes, is_v4)?
        }
        IpNumber(number) => Transport::Other(number, bytes.to_vec()),
    })
}

fn icmp(bytes: &[u8], is_v4: bool) -> Option<Transport> {
    let (header, payload) = bytes.split_first_chunk::<{ Icmpv4Header::MIN_LEN }>()?;
    let [kind, code, _, _, rest @ ..] = *header;
    let is_error = if is_v4 {
        matches!(kind, 3 | 4 | 5 | 11 | 12)
    } else {
        matches!(kind, 1..=4)
    };
    let quoted = is_error.then(|| complete(payload)).flatten();
    let payload = match quoted.as_deref().and_then(ip_packet) {
        Some(packet) => {
            let whole = quoted.is_some_and(|quoted| quoted.len() == payload.len());
            IcmpPayload::About(Box::new(packet), (!whole).then_some(payload.len()))
        }
        None => IcmpPayload::Bytes(payload.to_vec()),
    };
    Some(Transport::Icmp {
        kind,
        code,
        rest: u32::from_be_bytes(rest),
        payload,
    })
}

/// A quoted packet with a guess of what was cut off: whether the guess is good, the comparison in
/// [`describe`] tells.
fn complete(quoted: &[u8]) -> Option<Vec<u8>> {
    let (header_len, total_len, protocol) = if quoted.first()? >> 4 == 6 {
        let (header, _) = Ipv6Header::from_slice(quoted).ok()?;
        let total = Ipv6Header::LEN + usize::from(header.payload_length);
        (Ipv6Header::LEN, total, header.next_header)
    } else {
        let (header, _) = Ipv4Header::from_slice(quoted).ok()?;
        let total = usize::from(header.total_len);
        (header.header_len(), total, header.protocol)
    };
    let transport: &[u8] = if protocol == IpNumber::TCP {
        &[
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
        ]
    } else {
        &[0; 8]
    };
    let guess = if protocol == IpNumber::SCTP {
        Sctp::guess(total_len.checked_sub(header_len)?)?
    } else {
        let payload_len = total_len.checked_sub(header_len + transport.len())?;
        [transport, &pattern(payload_len)].concat()
    };
    let known = quoted.get(header_len..)?.len();
    Some([quoted, guess.get(known..)?].concat())
}

fn write_packet(line: &mut String, packet: &Packet, names: &Names) {
    let link = [packet.source_mac, packet.destination_mac];
    if link != [ROUTER, DIRECTOR] {
        let [source, destination] = link.map(|mac| mac_name(mac, names));
        let _ = write!(line, "  {source} => {destination}");
    }
    match &packet.body {
        Body::Raw(bytes) => {
            let _ = write!(line, "  raw {}", hex(bytes));
        }
        Body::Other(ethertype, payload) => {
            let _ = write!(line, "  ethertype {ethertype:#06x}");
            write_payload(line, payload);
        }
        Body::Ip(ip) => {
            // What follows `about` takes the rest of the line: the frame's words come before it.
            let (before, after) = ip_words(ip, names);
            let _ = write!(line, "  {before}");
            write_frame_words(line, packet);
            line.push_str(&after);
            return;
        }
    }
    write_frame_words(line, packet);
}

fn write_frame_words(line: &mut String, packet: &Packet) {
    if !packet.tags.is_empty() {
        let tags = packet.tags.iter().map(|tag| match tag.priority {
            0 => tag.id.to_string(),
            priority => format!("{}/{priority}", tag.id),
        });
        let _ = write!(line, " vlan {}", tags.collect::<Vec<_>>().join(","));
    }
    for patch in &packet.damage.set {
        // From the frame's start always: see `differences`.
        let _ = write!(line, " set frame+{} {}", patch.offset, hex(&patch.bytes));
    }
    if packet.damage.bad_checksum {
        line.push_str(" bad-checksum");
    }
    if let Some(length) = packet.damage.pad {
        let _ = write!(line, " pad {length}");
    }
}

/// The words for an IP packet, and those for the packet that it quotes.
fn ip_words(ip: &IpPacket, names: &Names) -> (String, String) {
    let mut words = String::new();
    let mut quoted = String::new();
    let ports = match &ip.transport {
        Transport::Tcp(tcp) => Some((tcp.source_port, tcp.destination_port)),
        Transport::Udp {
            source_port,
            destination_port,
            ..
        } => Some((*source_port, *destination_port)),
        Transport::Sctp(sctp) => Some((sctp.source_port, sctp.destination_port)),
        Transport::Icmp { .. } | Transport::Other(..) => None,
    };
    let source = endpoint(ip.source, ports.map(|ports| ports.0), names);
    let destination = endpoint(ip.destination, ports.map(|ports| ports.1), names);
    let _ = write!(words, "{source} > {destination}  ");
    match &ip.transport {
        Transport::Tcp(tcp) => write_tcp(&mut words, tcp),
        Transport::Udp {
            checksum, payload, ..
        } => {
            words.push_str("udp");
            if !checksum {
                words.push_str(" no-checksum");
            }
            write_payload(&mut words, payload);
        }
        Transport::Sctp(sctp) => {
            sctp.write(&mut words);
            write_unless(&mut words, "tag", sctp.tag, 0);
            write_payload(&mut words, &sctp.payload);
        }
        Transport::Icmp {
            kind,
            code,
            rest,
            payload,
        } => {
            let _ = write!(
                words,
                "icmp {}",
                icmp_name((*kind, *code), ip.source.is_ipv4())
            );
            write_unless(&mut words, "mtu", *rest, 0);
            match payload {
                IcmpPayload::Bytes(bytes) => write_payload(&mut words, bytes),
                IcmpPayload::About(packet, quote) => {
                    if let Some(length) = quote {
                        let _ = write!(quoted, " quote {length}");
                    }
                    let _ = write!(quoted, " about {}", ip_words(packet, names).0);
                }
            }
        }
        Transport::Other(protocol, payload) => {
            let _ = write!(words, "proto {protocol}");
            write_payload(&mut words, payload);
        }
    }
    for extension in &ip.extensions {
        words.push_str(match extension {
            Extension::HopByHop => " ext hop-by-hop",
            Extension::Routing => " ext routing",
            Extension::DestinationOptions => " ext destination",
            Extension::AtomicFragment => " ext fragment",
        });
    }
    write_unless(&mut words, "options", ip.options, 0);
    write_unless(&mut words, "ttl", ip.ttl, DEFAULT_TTL);
    write_unless(&mut words, "tos", ip.tos, 0);
    write_unless(&mut words, "id", ip.id, 0);
    if ip.dont_fragment {
        words.push_str(" df");
    }
    (words, quoted)
}

fn write_tcp(words: &mut String, tcp: &Tcp) {
    let letters: String = FLAGS
        .iter()
        .filter(|(_, flag)| tcp.flags & flag != 0)
        .map(|(letter, _)| letter)
        .collect();
    let letters = if letters.is_empty() { "none" } else { &letters };
    let _ = write!(words, "tcp {letters}");
    write_unless(words, "seq", tcp.sequence, 0);
    write_unless(words, "ack", tcp.acknowledgment, 0);
    write_unless(words, "win", tcp.window, DEFAULT_WINDOW);
    if let Some(size) = tcp.offer.maximum_segment_size {
        let _ = write!(words, " mss {size}");
    }
    if tcp.offer.sack_permitted {
        words.push_str(" sack-permitted");
    }
    if let Some(scale) = tcp.offer.window_scale {
        let _ = write!(words, " wscale {scale}");
    }
    write_unless(words, "tcp-options", tcp.options, 0);
    write_payload(words, &tcp.payload);
}

fn write_unless<T: PartialEq + std::fmt::Display>(
    words: &mut String,
    word: &str,
    value: T,
    usual: T,
) {
    if value != usual {
        let _ = write!(words, " {word} {value}");
    }
}

fn write_payload(words: &mut String, payload: &[u8]) {
    if payload.is_empty() {
    } else if payload == pattern(payload.len()) {
        let _ = write!(words, " len {}", payload.len());
    } else {
        let _ = write!(words, " data {}", hex(payload));
    }
}

fn endpoint(address: IpAddr, port: Option<u16>, names: &Names) -> String {
    let host = match (names.name(address), address) {
        (Some(name), _) => name.to_owned(),
        (None, IpAddr::V6(address)) if port.is_some() => format!("[{address}]"),
        (None, address) => address.to_string(),
    };
    match port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

fn mac_name(mac: Mac, names: &Names) -> String {
    match mac {
        DIRECTOR => "director".to_owned(),
        ROUTER => "router".to_owned(),
        mac => match names.name_of_mac(mac) {
            Some(name) => name.to_owned(),
            None => mac.map(|byte| format!("{byte:02x}")).join(":"),
        },
    }
}

fn icmp_name(kind: (u8, u8), is_v4: bool) -> String {
    let known = ICMP_KINDS
        .iter()
        .find(|(_, v4, v6)| *if is_v4 { v4 } else { v6 } == Some(kind));
    match known {
        Some((name, ..)) => (*name).to_owned(),
        None => format!("{}/{}", kind.0, kind.1),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
