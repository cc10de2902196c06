//! The parser and the views: against etherparse as an independent implementation, and against any
//! bytes at all.

use etherparse::{
    IpFragOffset, IpHeaders, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, PacketBuilderStep,
    SlicedPacket, TransportSlice, VlanId,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::checksum::Sum;
use super::*;
use crate::flow::FlowKey;
use crate::service::Address;
use crate::xsk::umem::HEAD;

mod neighbors;

const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const V4_A: [u8; 4] = [10, 0, 0, 7];
const V4_B: [u8; 4] = [192, 168, 1, 100];
const V6_A: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const V6_B: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn ethernet() -> PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2(MAC_A, MAC_B)
}

/// A TCP SYN with `payload` over the given IP headers.
fn tcp_over(ip: IpHeaders, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ethernet()
        .ip(ip)
        .tcp(40001, 80, 1000, 8192)
        .syn()
        .write(&mut frame, payload)
        .expect("a packet of valid headers");
    frame
}

fn udp_over(ip: IpHeaders, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ethernet()
        .ip(ip)
        .udp(40001, 53)
        .write(&mut frame, payload)
        .expect("a packet of valid headers");
    frame
}

fn ipv4() -> Ipv4Header {
    Ipv4Header {
        time_to_live: 64,
        source: V4_A,
        destination: V4_B,
        ..Ipv4Header::default()
    }
}

fn over_v4(header: Ipv4Header) -> IpHeaders {
    IpHeaders::Ipv4(header, Ipv4Extensions::default())
}

fn over_v6(extensions: Ipv6Extensions) -> IpHeaders {
    let header = Ipv6Header {
        hop_limit: 64,
        source: V6_A,
        destination: V6_B,
        ..Ipv6Header::default()
    };
    IpHeaders::Ipv6(header, extensions)
}

fn padded_extension() -> Ipv6RawExtHeader {
    // PadN of 12 bytes: 16 bytes in all with next header and length.
    let mut payload = [0; 14];
    payload[..2].copy_from_slice(&[1, 12]);
    Ipv6RawExtHeader::new_raw(etherparse::IpNumber::TCP, &payload).expect("a length of 8n+6")
}

fn refresh_ipv4_checksum(frame: &mut [u8], at: usize) {
    super::ipv4::Packet::new_checked(&mut frame[at..])
        .expect("still valid")
        .fill_checksum();
}

#[test]
fn plain_tcp_and_udp() {
    let parsed = parse(&tcp_over(over_v4(ipv4()), b"hello")).expect("valid");
    assert_eq!(
        parsed,
        Parsed {
            source: Address::v4(V4_A),
            destination: Address::v4(V4_B),
            source_port: 40001,
            destination_port: 80,
            l3_offset: 14,
            l4_offset: 34,
            protocol: 6,
            tcp_flags: tcp::flags::SYN,
            kind: Kind::Packet,
        }
    );
    let parsed = parse(&udp_over(over_v6(Ipv6Extensions::default()), b"q")).expect("valid");
    assert_eq!(
        parsed,
        Parsed {
            source: Address::from_octets(V6_A),
            destination: Address::from_octets(V6_B),
            source_port: 40001,
            destination_port: 53,
            l3_offset: 14,
            l4_offset: 54,
            protocol: 17,
            tcp_flags: 0,
            kind: Kind::Packet,
        }
    );
}

#[test]
fn up_to_two_tags() {
    let id = |id| VlanId::try_new(id).expect("12 bits");
    let mut one = Vec::new();
    ethernet()
        .single_vlan(id(10))
        .ipv4(V4_A, V4_B, 64)
        .udp(1, 2)
        .write(&mut one, &[])
        .expect("valid");
    let mut two = Vec::new();
    ethernet()
        .double_vlan(id(10), id(20))
        .ipv6(V6_A, V6_B, 64)
        .udp(1, 2)
        .write(&mut two, &[])
        .expect("valid");
    assert_eq!(parse(&one).expect("valid").l3_offset, 18);
    assert_eq!(parse(&two).expect("valid").l3_offset, 22);

    // A third tag is beyond what is balanced, and no error.
    let mut three = two.clone();
    three.splice(12..12, [0x88, 0xa8, 0, 5]);
    assert_eq!(parse(&three).expect("valid").kind, Kind::NotIp);
    assert_eq!(parse(&three[..17]), Err(Malformed::Truncated));
}

#[test]
fn ipv4_options_move_the_transport() {
    let mut header = ipv4();
    header.options = Ipv4Options::from([1; 8]);
    let frame = tcp_over(over_v4(header), b"x");
    let parsed = parse(&frame).expect("valid");
    assert_eq!((parsed.l4_offset, parsed.source_port), (42, 40001));

    let mut corrupt = frame.clone();
    corrupt[35] ^= 0xff; // inside the options
    assert_eq!(parse(&corrupt), Err(Malformed::BadIpChecksum));
}

#[test]
fn ipv6_extension_headers_are_walked() {
    let mut extensions = Ipv6Extensions {
        hop_by_hop_options: Some(padded_extension()),
        destination_options: Some(padded_extension()),
        ..Ipv6Extensions::default()
    };
    extensions.set_next_headers(etherparse::IpNumber::TCP);
    let frame = tcp_over(over_v6(extensions), b"x");
    let parsed = parse(&frame).expect("valid");
    assert_eq!((parsed.l4_offset, parsed.destination_port), (54 + 32, 80));
    assert_eq!(parsed.kind, Kind::Packet);

    // The last extension header says that it is longer than the packet.
    let mut long = frame.clone();
    long[54 + 16 + 1] = 200;
    assert_eq!(parse(&long), Err(Malformed::BadExtensionHeader));

    // A chain as long as the frame allows ends at the bound.
    let mut chain = frame[..54].to_vec();
    chain[20] = 60;
    for _ in 0..20 {
        chain.extend([60, 0, 1, 4, 0, 0, 0, 0]);
    }
    chain[18..20].copy_from_slice(&160_u16.to_be_bytes());
    assert_eq!(parse(&chain), Err(Malformed::BadExtensionHeader));
}

#[test]
fn fragments() {
    let fragment = |offset, more| {
        let mut header = ipv4();
        header.more_fragments = more;
        header.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
        header
    };
    let first = parse(&udp_over(over_v4(fragment(0, true)), &[0; 32])).expect("valid");
    assert_eq!(
        (first.kind, first.source_port),
        (Kind::FirstFragment, 40001)
    );
    let later = parse(&udp_over(over_v4(fragment(5, false)), &[0; 32])).expect("valid");
    assert_eq!((later.kind, later.source_port), (Kind::LaterFragment, 0));

    let extensions = |offset, more| {
        let offset = IpFragOffset::try_new(offset).expect("13 bits");
        Ipv6Extensions {
            fragment: Some(Ipv6FragmentHeader::new(
                etherparse::IpNumber::UDP,
                offset,
                more,
                7,
            )),
            ..Ipv6Extensions::default()
        }
    };
    let kind = |offset, more| {
        parse(&udp_over(over_v6(extensions(offset, more)), &[0; 32]))
            .expect("valid")
            .kind
    };
    assert_eq!(kind(0, true), Kind::FirstFragment);
    assert_eq!(kind(9, true), Kind::LaterFragment);
    assert_eq!(kind(0, false), Kind::Packet, "an atomic fragment is whole");
}

#[test]
fn a_first_fragment_holds_the_transport_header() {
    let mut header = ipv4();
    header.more_fragments = true;
    let mut frame = tcp_over(over_v4(header), b"");
    frame.truncate(34 + 16);
    frame[16..18].copy_from_slice(&36_u16.to_be_bytes());
    refresh_ipv4_checksum(&mut frame, 14);
    assert_eq!(parse(&frame), Err(Malformed::BadTcpHeader));
}

#[test]
fn icmp_errors_give_the_quoted_packet() {
    // A router tells the virtual server that its answer to the client is too big.
    let quoted = &tcp_over(
        over_v4(Ipv4Header {
            source: V4_B,
            destination: V4_A,
            ..ipv4()
        }),
        &[0; 100],
    )[14..];
    let mut frame = Vec::new();
    ethernet()
        .ipv4([10, 9, 9, 9], V4_B, 64)
        .icmpv4_raw(3, 4, [0, 0, 5, 0])
        .write(&mut frame, &quoted[..28])
        .expect("valid");
    let parsed = parse(&frame).expect("valid");
    assert_eq!(parsed.kind, Kind::IcmpError);
    assert_eq!(
        (parsed.source, parsed.destination),
        (Address::v4(V4_B), Address::v4(V4_A))
    );
    assert_eq!((parsed.source_port, parsed.destination_port), (40001, 80));
    assert_eq!(
        (parsed.protocol, parsed.tcp_flags, parsed.l4_offset),
        (6, 0, 34)
    );

    let mut short = Vec::new();
    ethernet()
        .ipv4([10, 9, 9, 9], V4_B, 64)
        .icmpv4_raw(3, 4, [0; 4])
        .write(&mut short, &quoted[..22])
        .expect("valid");
    assert_eq!(parse(&short), Err(Malformed::BadIcmp));

    let mut echo = Vec::new();
    ethernet()
        .ipv4(V4_A, V4_B, 64)
        .icmpv4_echo_request(1, 2)
        .write(&mut echo, &[])
        .expect("valid");
    assert_eq!(parse(&echo).expect("valid").kind, Kind::OtherProtocol);
}

#[test]
fn icmpv6_errors_give_the_quoted_packet() {
    let quoted = &udp_over(over_v6(Ipv6Extensions::default()), &[0; 100])[14..];
    let mut frame = Vec::new();
    ethernet()
        .ipv6(V6_A, V6_B, 64)
        .icmpv6_raw(2, 0, 1280_u32.to_be_bytes())
        .write(&mut frame, &quoted[..60])
        .expect("valid");
    let parsed = parse(&frame).expect("valid");
    assert_eq!(parsed.kind, Kind::IcmpError);
    assert_eq!(
        (parsed.source, parsed.destination_port),
        (Address::from_octets(V6_A), 53)
    );
    assert_eq!(parsed.protocol, 17);
}

/// Each reason is reached by one change of a valid frame.
#[test]
fn each_malformed_reason() {
    let valid = tcp_over(over_v4(ipv4()), b"0123456789");
    let with = |at: usize, value: u8| {
        let mut frame = valid.clone();
        frame[at] = value;
        // The changes below are meant to be found for themselves, not by the checksum.
        let sum = Sum::ZERO.bytes(&frame[14..24]).bytes(&frame[26..34]);
        frame[24..26].copy_from_slice(&sum.checksum().to_be_bytes());
        parse(&frame)
    };
    assert_eq!(parse(&valid[..13]), Err(Malformed::Truncated));
    assert_eq!(parse(&valid[..33]), Err(Malformed::Truncated));
    assert_eq!(with(14, 0x65), Err(Malformed::BadIpVersion));
    assert_eq!(with(14, 0x44), Err(Malformed::BadIpHeaderLength));
    assert_eq!(with(17, 19), Err(Malformed::BadIpTotalLength));
    assert_eq!(with(17, 51), Err(Malformed::BadIpTotalLength));
    assert_eq!(with(17, 39), Err(Malformed::BadTcpHeader));
    assert_eq!(with(46, 0x40), Err(Malformed::BadTcpHeader));
    assert_eq!(with(46, 0xf0), Err(Malformed::BadTcpHeader));
    let mut corrupt = valid.clone();
    corrupt[22] ^= 1;
    assert_eq!(parse(&corrupt), Err(Malformed::BadIpChecksum));

    let mut udp = udp_over(over_v6(Ipv6Extensions::default()), b"0123456789");
    udp[59] = 19;
    assert_eq!(parse(&udp), Err(Malformed::BadUdpHeader));
    udp[59] = 7;
    assert_eq!(parse(&udp), Err(Malformed::BadUdpHeader));
    udp[14] = 0x45;
    assert_eq!(parse(&udp), Err(Malformed::BadIpVersion));
    let mut mapped = udp_over(over_v6(Ipv6Extensions::default()), b"");
    mapped[22..38].copy_from_slice(&Address::v4(V4_A).octets());
    assert_eq!(parse(&mapped), Err(Malformed::MappedAddress));
}

#[test]
fn a_longer_frame_is_padding() {
    let mut frame = tcp_over(over_v4(ipv4()), b"");
    frame.resize(60, 0xaa);
    assert_eq!(parse(&frame).expect("valid").kind, Kind::Packet);
}

#[test]
fn ttl_is_decremented_with_its_checksum() {
    let mut frame = tcp_over(over_v4(ipv4()), b"");
    for expected in (1..64).rev() {
        let mut ip = super::ipv4::Packet::new_checked(&mut frame[14..]).expect("valid");
        assert!(ip.decrement_ttl());
        assert_eq!(ip.ttl(), expected);
        assert!(ip.verify_checksum(), "at {expected}");
        parse(&frame).expect("valid");
    }
    let before = frame.clone();
    assert!(
        !super::ipv4::Packet::new_checked(&mut frame[14..])
            .expect("valid")
            .decrement_ttl()
    );
    assert_eq!(frame, before);
}

/// The checksum as RFC 1071 §4.1 writes it down.
fn plain_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// A whole frame: addresses, ports, tags, payload.
fn any_frame() -> impl Strategy<Value = (Vec<u8>, bool)> {
    (
        any::<[u16; 2]>(),
        0..3_usize,
        any::<[bool; 4]>(),
        vec(any::<u8>(), 0..64),
        0..11_usize,
    )
        .prop_map(
            |([from, to], tags, [v6, tcp, options, extension], payload, words)| {
                let mut header = ipv4();
                if options {
                    header.options =
                        Ipv4Options::try_from(&[1; 40][..words.min(10) * 4]).expect("4n");
                }
                let mut extensions = Ipv6Extensions::default();
                if extension {
                    extensions.destination_options = Some(padded_extension());
                    extensions.set_next_headers(if tcp {
                        etherparse::IpNumber::TCP
                    } else {
                        etherparse::IpNumber::UDP
                    });
                }
                let ip = if v6 {
                    over_v6(extensions)
                } else {
                    over_v4(header)
                };
                let mut frame = Vec::new();
                let start = ethernet().ip(ip);
                if tcp {
                    start.tcp(from, to, 1, 2).write(&mut frame, &payload)
                } else {
                    start.udp(from, to).write(&mut frame, &payload)
                }
                .expect("valid");
                for tag in 0..tags {
                    frame.splice(12..12, [0x81, 0, 0, u8::try_from(tag).expect("small")]);
                }
                (frame, tcp)
            },
        )
}

/// What the straight way says of a frame, behind which is what another packet left there.
fn plain(frame: &[u8]) -> Option<Plain> {
    let mut head = [0; HEAD];
    head.copy_from_slice(&tcp_over(over_v4(ipv4()), &[0; HEAD])[..HEAD]);
    let length = frame.len().min(HEAD);
    head[..length].copy_from_slice(&frame[..length]);
    parse_plain(&head, u16::try_from(frame.len()).expect("short"))
}

/// What the straight way says, `parse` says too.
fn straight_way_agrees(frame: &[u8]) {
    burst::tests::agrees(frame);
    let parsed = parse(frame);
    if let Some(plain) = plain(frame) {
        let key = FlowKey::from(plain.key);
        let expected = Parsed {
            source: key.source(),
            destination: key.destination(),
            source_port: key.source_port(),
            destination_port: key.destination_port(),
            l3_offset: super::PLAIN_L3_OFFSET,
            l4_offset: super::PLAIN_L4_OFFSET,
            protocol: key.protocol() as u8,
            tcp_flags: plain.tcp_flags,
            kind: Kind::Packet,
        };
        assert_eq!(parsed, Ok(expected));
    }
}

#[test]
fn plain_packets_go_the_straight_way() {
    let tcp = tcp_over(over_v4(ipv4()), b"hello");
    let udp = udp_over(over_v4(ipv4()), b"q");
    for frame in [&tcp, &udp] {
        assert!(plain(frame).is_some());
        straight_way_agrees(frame);
        // Every byte of the headers spoiled in every way.
        for at in 0..54.min(frame.len()) {
            for bit in 0..8 {
                let mut spoiled = frame.clone();
                spoiled[at] ^= 1 << bit;
                straight_way_agrees(&spoiled);
                fix_checksum(&mut spoiled);
                straight_way_agrees(&spoiled);
            }
        }
        for length in 0..frame.len() {
            straight_way_agrees(&frame[..length]);
        }
    }
    assert_eq!(
        plain(&udp_over(over_v6(Ipv6Extensions::default()), b"q")),
        None
    );
}

/// Makes the IPv4 header checksum of an untagged frame right again.
fn fix_checksum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let checksum = Sum::ZERO.bytes(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

/// Calls everything that reads, so that a panic anywhere shows.
fn read_all(bytes: &[u8]) {
    straight_way_agrees(bytes);
    let _ = arp::claimant(bytes, V4_A.into());
    let _ = ndisc::claimant(bytes, V6_A.into());
    if let Ok(packet) = super::ipv4::Packet::new_checked(bytes) {
        let _ = (packet.verify_checksum(), packet.fragment());
    }
    if let Ok(packet) = ipv6::Packet::new_checked(bytes) {
        let _ = packet.payload();
    }
    if let Ok(packet) = tcp::Packet::new_checked(bytes) {
        let _ = packet.segment_len();
    }
    if let Ok(packet) = udp::Packet::new_checked(bytes) {
        let _ = packet.total_len();
    }
    if let Ok(packet) = icmp::Packet::new_checked(bytes) {
        let _ = packet.quoted();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_etherparse((frame, tcp) in any_frame()) {
        let parsed = parse(&frame).expect("a valid frame");
        let theirs = SlicedPacket::from_ethernet(&frame).expect("a valid frame");
        let (from, to, flags) = match theirs.transport {
            Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port(), tcp.slice()[13]),
            Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port(), 0),
            other => panic!("neither TCP nor UDP: {other:?}"),
        };
        prop_assert_eq!((parsed.source_port, parsed.destination_port, parsed.tcp_flags), (from, to, flags));
        prop_assert_eq!(parsed.protocol, if tcp { 6 } else { 17 });
        prop_assert_eq!(parsed.kind, Kind::Packet);
        let l4 = &frame[usize::from(parsed.l4_offset)..];
        if tcp {
            let mut ours = l4.to_vec();
            ours[16..18].fill(0xaa);
            let mut segment = tcp::Packet::new_checked(&mut ours[..]).expect("valid");
            segment.fill_checksum(parsed.source, parsed.destination);
            prop_assert_eq!(ours, l4);
        } else {
            let datagram = udp::Packet::new_checked(l4).expect("valid");
            prop_assert_eq!(datagram.total_len(), l4.len());
        }
    }

    /// Valid frames with a few bytes changed or cut reach deeper than random bytes.
    #[test]
    fn no_panic_on_damaged_frames(
        (mut frame, _) in any_frame(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frame.truncate(cut.index(frame.len() + 1));
        read_all(&frame);
        for at in [14, 18, 34, 54] {
            read_all(frame.get(at..).unwrap_or_default());
        }
    }

    #[test]
    fn no_panic_on_random_bytes(bytes in vec(any::<u8>(), 0..128)) {
        read_all(&bytes);
    }

    #[test]
    fn sums_like_rfc_1071(bytes in vec(any::<u8>(), 0..100)) {
        prop_assert_eq!(Sum::ZERO.bytes(&bytes).checksum(), plain_checksum(&bytes));
    }

    #[test]
    fn a_decremented_ttl_leaves_the_checksum_of_a_new_sum(
        mut header in any::<[u8; 20]>(),
        ttl in 2..=u8::MAX,
    ) {
        let mut ip = super::ipv4::Packet::header_mut(&mut header);
        ip.set_plain_header();
        ip.set_ttl(ttl);
        ip.fill_checksum();
        prop_assert!(ip.decrement_ttl());
        let mut anew = header;
        super::ipv4::Packet::header_mut(&mut anew).fill_checksum();
        prop_assert_eq!(header, anew);
    }
}
