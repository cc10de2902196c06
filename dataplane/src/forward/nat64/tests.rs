//! Translated packets against packets that etherparse builds for the other side.

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpFragOffset, IpHeaders, IpNumber, Ipv4Options, Ipv6Extensions,
    Ipv6FragmentHeader, Ipv6RawExtHeader, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
    icmpv4,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::forward::rewrite::Endpoint;
use crate::forward::rewrite::tests::{packet, v4_endpoint, v6_endpoint};
use crate::wire::sctp;
use crate::xsk::umem::FrameSize;

fn in_frame<R>(bytes: &[u8], work: impl FnOnce(&Umem, &mut Frame) -> R) -> (R, Vec<u8>) {
    let (umem, mut pool) = Umem::new(1, FrameSize::Bytes2048).unwrap();
    let mut frame = pool.take().unwrap();
    umem.fill(&mut frame, bytes).unwrap();
    let result = work(&umem, &mut frame);
    let bytes = umem.bytes(&frame).to_vec();
    (result, bytes)
}

fn translated(before: &Endpoints, after: &Endpoints, frame: &[u8]) -> Result<Vec<u8>, DropReason> {
    let translation = Translation::new(before, after);
    let apply = |umem: &Umem, held: &mut Frame| translation.apply(umem, held, 14, 0x1234);
    let (result, bytes) = in_frame(frame, apply);
    result.map(|()| bytes)
}

/// A packet as `packet` builds it, over IPv4 with the flags that a translator sets.
fn sent_v4(ends: &Endpoints, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = packet(ends, protocol, ttl, payload);
    let short = frame.len() - 14 <= 1260;
    let mut ip = ipv4::Packet::new_checked(&mut frame[14..]).unwrap();
    ip.set_whole(!short);
    ip.set_identification(if short { 0x1234 } else { 0 });
    ip.fill_checksum();
    frame
}

/// The ends of one connection on both sides: first IPv6, then IPv4.
fn connections() -> impl Strategy<Value = (Endpoints, Endpoints)> {
    let ends = |(source, destination)| Endpoints {
        source,
        destination,
    };
    (
        (v6_endpoint(), v6_endpoint()).prop_map(ends),
        (v4_endpoint(), v4_endpoint()).prop_map(ends),
    )
}

fn one_connection() -> (Endpoints, Endpoints) {
    let end = |address: &str, port| Endpoint {
        address: address.parse::<std::net::IpAddr>().unwrap().into(),
        port,
    };
    let six = Endpoints {
        source: end("2001:db8::7", 40001),
        destination: end("2001:db8:1::1", 80),
    };
    let four = Endpoints {
        source: end("10.0.0.1", 5000),
        destination: end("10.0.0.9", 8080),
    };
    (six, four)
}

proptest! {
    #[test]
    fn a_translated_packet_is_one_built_for_the_other_side(
        (six, four) in connections(),
        protocol in prop_oneof![Just(6_u8), Just(17), Just(sctp::PROTOCOL)],
        payload in prop_oneof![vec(any::<u8>(), 0..200), vec(any::<u8>(), 1200..1400)],
        hops in 2_u8..,
    ) {
        let to_server = translated(&six, &four, &packet(&six, protocol, hops, &payload)).unwrap();
        prop_assert_eq!(to_server, sent_v4(&four, protocol, hops - 1, &payload));
        let to_client = translated(&four, &six, &packet(&four, protocol, hops, &payload)).unwrap();
        prop_assert_eq!(to_client, packet(&six, protocol, hops - 1, &payload));
    }

    #[test]
    fn udp_without_a_checksum_gets_one((six, four) in connections(), payload in vec(any::<u8>(), 0..99)) {
        let mut frame = packet(&four, 17, 64, &payload);
        frame[40..42].fill(0);
        prop_assert_eq!(translated(&four, &six, &frame), Ok(packet(&six, 17, 63, &payload)));
    }

    #[test]
    fn a_fragment_stays_one(
        (six, four) in connections(),
        id in any::<u16>(),
        (units, more) in prop_oneof![Just((0_u16, true)), (1_u16..1000, any::<bool>())],
        payload in vec(any::<u8>(), 64),
    ) {
        let offset = IpFragOffset::try_new(units).unwrap();
        let header = Ipv6FragmentHeader::new(IpNumber::UDP, offset, more, id.into());
        let extensions = Ipv6Extensions { fragment: Some(header), ..Default::default() };
        // The first one begins with a UDP header of a longer datagram.
        let upper = |ends: &Endpoints, checksum: u16| {
            let mut upper = payload.clone();
            if units == 0 {
                upper[..4].copy_from_slice(&ends.ports());
                upper[6..8].copy_from_slice(&checksum.to_be_bytes());
            }
            upper
        };
        let frame_v6 = |checksum| {
            let ip = etherparse::Ipv6Header {
                hop_limit: 64,
                source: six.source.address.octets(),
                destination: six.destination.address.octets(),
                ..Default::default()
            };
            built(IpHeaders::Ipv6(ip, extensions.clone()), &upper(&six, checksum))
        };
        let sent = frame_v6(0xbeef);
        let to_server = translated(&six, &four, &sent).unwrap();
        let sliced = SlicedPacket::from_ethernet(&to_server).unwrap();
        let Some(NetSlice::Ipv4(ip)) = sliced.net else { panic!("{sliced:?}") };
        let ip_header = ip.header().to_header();
        prop_assert_eq!(ip_header.calc_header_checksum(), ip_header.header_checksum);
        prop_assert_eq!(
            (ip_header.identification, ip_header.fragment_offset, ip_header.more_fragments),
            (id, offset, more)
        );
        prop_assert_eq!(ip_header.protocol, IpNumber::UDP);
        prop_assert!(!ip_header.dont_fragment);
        if units > 0 {
            prop_assert_eq!(&to_server[34..], &payload[..]);
        }

        // And back: but for two hops it is what it was.
        let back = translated(&four, &six, &to_server).unwrap();
        let mut expected = sent;
        expected[21] -= 2;
        prop_assert_eq!(back, expected);
    }

    #[test]
    fn no_bytes_panic(
        mut bytes in vec(any::<u8>(), 0..150),
        l3 in 0_usize..60,
        (six, four) in connections(),
        version in prop_oneof![Just(0x45_u8), Just(0x4f), Just(0x60)],
        next in prop_oneof![Just(0_u8), Just(44), Just(1), Just(58), Just(17)],
    ) {
        for (at, byte) in [(0, version), (6, next), (9, next), (28, 0x45), (48, 0x60)] {
            if let Some(place) = bytes.get_mut(l3 + at) {
                *place = byte;
            }
        }
        for translation in [Translation::new(&six, &four), Translation::new(&four, &six)] {
            let _ = in_frame(&bytes, |umem, frame| translation.apply(umem, frame, l3, 1));
            let _ = in_frame(&bytes, |umem, frame| translation.apply_to_error(umem, frame, l3));
        }
    }
}

fn built(ip: IpHeaders, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [2; 6])
        .ip(ip)
        .write(&mut frame, IpNumber::UDP, payload)
        .unwrap();
    frame
}

#[test]
fn extension_headers_and_options_are_left_behind() {
    let (six, four) = one_connection();
    let options =
        Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut extensions = Ipv6Extensions {
        destination_options: Some(options.unwrap()),
        ..Default::default()
    };
    extensions.set_next_headers(IpNumber::UDP);
    let ip = etherparse::Ipv6Header {
        hop_limit: 64,
        source: six.source.address.octets(),
        destination: six.destination.address.octets(),
        ..Default::default()
    };
    let plain = packet(&six, 17, 64, b"query");
    let frame = built(IpHeaders::Ipv6(ip, extensions), &plain[54..]);
    let to_server = translated(&six, &four, &frame).unwrap();
    assert_eq!(to_server[12..], sent_v4(&four, 17, 63, b"query")[12..]);

    let plain = packet(&four, 17, 64, b"reply");
    for options in [[1; 4].as_slice(), &[1; 40]] {
        let ip = etherparse::Ipv4Header {
            time_to_live: 64,
            source: four.source.address.last_octets(),
            destination: four.destination.address.last_octets(),
            options: Ipv4Options::try_from(options).unwrap(),
            ..Default::default()
        };
        let frame = built(IpHeaders::Ipv4(ip, Default::default()), &plain[34..]);
        let to_client = translated(&four, &six, &frame).unwrap();
        assert_eq!(to_client[12..], packet(&six, 17, 63, b"reply")[12..]);
    }
}

#[test]
fn what_cannot_be_translated_is_refused() {
    let (six, four) = one_connection();
    let refused = |before, after, frame: &[u8]| translated(before, after, frame).unwrap_err();
    assert_eq!(
        refused(&six, &four, &packet(&six, 6, 1, b"")),
        DropReason::TtlExceeded
    );
    assert_eq!(
        refused(&four, &six, &packet(&four, 6, 1, b"")),
        DropReason::TtlExceeded
    );
    // A first fragment of a datagram without a checksum.
    let mut frame = packet(&four, 17, 64, &[0; 64]);
    frame[40..42].fill(0);
    let mut ip = ipv4::Packet::new_checked(&mut frame[14..]).unwrap();
    ip.set_fragment(false, true, 0);
    ip.fill_checksum();
    assert_eq!(refused(&four, &six, &frame), DropReason::Fragment);
}

/// An error about what was sent to the server reaches the client, and the other way.
#[test]
fn errors_are_translated_with_what_they_quote() {
    let (six, four) = one_connection();
    for quoted in [28, 40, 500] {
        let offending = packet(&four, 6, 9, &[3; 1000]);
        let mut error = Vec::new();
        let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 254], [10, 0, 0, 1], 64)
            .icmpv4(Icmpv4Type::DestinationUnreachable(needed))
            .write(&mut error, &offending[14..14 + quoted])
            .unwrap();
        let back = Translation::new(&four, &six);
        let (sent, frame) = in_frame(&error, |umem, frame| back.apply_to_error(umem, frame, 14));
        assert!(sent);
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(message))) =
            (sliced.net, sliced.transport)
        else {
            panic!("no ICMPv6: {frame:?}");
        };
        let (from, to) = (ip.header().source(), ip.header().destination());
        assert!(message.is_checksum_valid(from, to));
        assert_eq!(from, six.destination.address.octets());
        assert_eq!(to, six.source.address.octets());
        assert_eq!(message.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1420 });
        let original = packet(&six, 6, 9, &[3; 1000]);
        assert_eq!(message.payload(), &original[14..14 + quoted + 20]);
    }

    let offending = packet(&six, 17, 9, &[3; 1000]);
    let mut error = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6([0x20; 16], six.source.address.octets(), 64)
        .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1280 })
        .write(&mut error, &offending[14..])
        .unwrap();
    let back = Translation::new(&six, &four);
    let (sent, frame) = in_frame(&error, |umem, frame| back.apply_to_error(umem, frame, 14));
    assert!(sent);
    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(message))) =
        (sliced.net, sliced.transport)
    else {
        panic!("no ICMP: {frame:?}");
    };
    assert_eq!(ip.header().source(), four.destination.address.last_octets());
    assert_eq!(ip.header().destination(), four.source.address.last_octets());
    assert_eq!(Sum::ZERO.bytes(message.slice()).fold(), 0xffff);
    let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1260 };
    assert_eq!(
        message.icmp_type(),
        Icmpv4Type::DestinationUnreachable(needed)
    );
    let mut original = sent_v4(&four, 17, 9, &[3; 1000]);
    let mut ip = ipv4::Packet::new_checked(&mut original[14..]).unwrap();
    ip.set_identification(0);
    ip.fill_checksum();
    assert_eq!(message.payload(), &original[14..14 + 548]);
}
