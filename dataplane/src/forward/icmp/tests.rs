//! Answers and rewritten errors, read by etherparse.

use etherparse::{
    Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, icmpv4,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::forward::rewrite::tests::{packet, v4_endpoint, v6_endpoint};
use crate::forward::rewrite::{Endpoint, Endpoints, Rewrite};
use crate::forward::tunnel::{Options, Template, Variation};
use crate::service::{MacAddress, Tunnel};
use crate::xsk::umem::FrameSize;

fn in_frame<R>(bytes: &[u8], work: impl FnOnce(&Umem, &mut Frame) -> R) -> (R, Vec<u8>) {
    let (umem, mut pool) = Umem::new(1, FrameSize::Bytes2048).unwrap();
    let mut frame = pool.take().unwrap();
    umem.fill(&mut frame, bytes).unwrap();
    let result = work(&umem, &mut frame);
    let bytes = umem.bytes(&frame).to_vec();
    (result, bytes)
}

fn answered(bytes: &[u8], local: Address, error: Error) -> Option<Vec<u8>> {
    let (sent, after) = in_frame(bytes, |umem, frame| answer(umem, frame, 14, local, error));
    if !sent {
        assert_eq!(after, bytes, "not answered, so not changed");
    }
    sent.then_some(after)
}

/// Source, destination and transport of a frame, all of whose checksums are verified.
fn read(frame: &[u8]) -> (Address, Address, TransportSlice<'_>) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let transport = sliced.transport.unwrap();
    match (sliced.net.unwrap(), transport) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            assert_eq!(
                Sum::ZERO.bytes(icmp.slice()).fold(),
                0xffff,
                "ICMP's checksum"
            );
            (
                Address::v4(header.source),
                Address::v4(header.destination),
                TransportSlice::Icmpv4(icmp),
            )
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let header = ip.header();
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            (
                Address::from_octets(header.source()),
                Address::from_octets(header.destination()),
                TransportSlice::Icmpv6(icmp),
            )
        }
        other => panic!("{other:?}"),
    }
}

fn ends_v4() -> Endpoints {
    let end = |octets, port| Endpoint {
        address: Address::v4(octets),
        port,
    };
    Endpoints {
        source: end([10, 0, 0, 7], 40001),
        destination: end([192, 168, 1, 100], 80),
    }
}

fn ends_v6() -> Endpoints {
    let end = |last, port| Endpoint {
        address: Address::from_octets([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]),
        port,
    };
    Endpoints {
        source: end(7, 40001),
        destination: end(100, 80),
    }
}

#[test]
fn a_sender_is_told_and_the_packet_quoted() {
    use etherparse::icmpv4::DestUnreachableHeader as V4;
    use etherparse::icmpv6::DestUnreachableCode as V6;
    use etherparse::{icmpv4::TimeExceededCode as Time4, icmpv6::TimeExceededCode as Time6};
    let cases = [
        (
            Error::TooBig { mtu: 1400 },
            Icmpv4Type::DestinationUnreachable(V4::FragmentationNeeded { next_hop_mtu: 1400 }),
            Icmpv6Type::PacketTooBig { mtu: 1400 },
        ),
        (
            Error::TimeExceeded,
            Icmpv4Type::TimeExceeded(Time4::TtlExceededInTransit),
            Icmpv6Type::TimeExceeded(Time6::HopLimitExceeded),
        ),
        (
            Error::PortUnreachable,
            Icmpv4Type::DestinationUnreachable(V4::Port),
            Icmpv6Type::DestinationUnreachable(V6::Port),
        ),
        (
            Error::HostUnreachable,
            Icmpv4Type::DestinationUnreachable(V4::Host),
            Icmpv6Type::DestinationUnreachable(V6::Address),
        ),
    ];
    for (error, v4, v6) in cases {
        for payload in [0, 100, 1400] {
            let ends = ends_v4();
            let offending = packet(&ends, 6, 64, &vec![9; payload]);
            let frame = answered(&offending, ends.destination.address, error).unwrap();
            let (from, to, transport) = read(&frame);
            assert_eq!((from, to), (ends.destination.address, ends.source.address));
            let TransportSlice::Icmpv4(message) = transport else {
                panic!("{transport:?}");
            };
            assert_eq!(message.icmp_type(), v4);
            let quoted = (offending.len() - 14).min(576 - 28);
            assert_eq!(message.payload(), &offending[14..14 + quoted]);

            let ends = ends_v6();
            let offending = packet(&ends, 17, 64, &vec![9; payload]);
            let frame = answered(&offending, ends.destination.address, error).unwrap();
            let (from, to, transport) = read(&frame);
            assert_eq!((from, to), (ends.destination.address, ends.source.address));
            let TransportSlice::Icmpv6(message) = transport else {
                panic!("{transport:?}");
            };
            assert_eq!(message.icmp_type(), v6);
            let quoted = (offending.len() - 14).min(1280 - 48);
            assert_eq!(message.payload(), &offending[14..14 + quoted]);
        }
    }
}

#[test]
fn an_answer_goes_back_by_the_way_the_packet_came_without_its_padding() {
    let ends = ends_v4();
    let mut frame = packet(&ends, 17, 64, b"");
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xa, 2, 0, 0, 0, 0, 0xb]);
    frame.splice(12..12, [0x81, 0, 0, 10]);
    frame.resize(60, 0);
    let local = ends.destination.address;
    let (sent, frame) = in_frame(&frame, |umem, frame| {
        answer(umem, frame, 18, local, Error::PortUnreachable)
    });
    assert!(sent);
    assert_eq!(frame[..12], [2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa]);
    assert_eq!(frame[12..18], [0x81, 0, 0, 10, 8, 0]);
    assert_eq!(frame.len(), 18 + 28 + 28);
    read(&frame);
}

#[test]
fn what_is_not_answered() {
    let local = ends_v4().destination.address;
    let good = packet(&ends_v4(), 6, 64, b"x");
    let changed = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let error = Error::PortUnreachable;
    assert!(answered(&good, local, error).is_some());
    for (why, frame) in [
        ("to an Ethernet group", changed(0, &[1])),
        ("to a multicast group", changed(30, &[224, 0, 0, 18])),
        ("to everyone", changed(30, &[255; 4])),
        ("from nobody", changed(26, &[0; 4])),
        ("from a group", changed(26, &[239, 1, 1, 1])),
        ("from loopback", changed(26, &[127, 0, 0, 1])),
        ("a later fragment", changed(20, &[0, 5])),
        ("cut off", good[..30].to_vec()),
        ("an ICMP error", changed(23, &[1, 0, 0])), // and TCP's source port begins with 0x9c
    ] {
        assert_eq!(answered(&frame, local, error), None, "{why}");
    }

    let local = ends_v6().destination.address;
    let good = packet(&ends_v6(), 17, 64, b"x");
    let changed = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    assert!(answered(&good, local, error).is_some());
    for (why, frame) in [
        ("to a group", changed(38, &[0xff, 2])),
        ("from a group", changed(22, &[0xff, 2])),
        ("from nobody", changed(22, &[0; 16])),
    ] {
        assert_eq!(answered(&frame, local, error), None, "{why}");
    }
    let to_group = changed(38, &[0xff, 2]);
    assert!(answered(&to_group, local, Error::TooBig { mtu: 1280 }).is_some());
    let mut message = Vec::new();
    PacketBuilder::ethernet2([2; 6], [2; 6])
        .ipv6([0x20; 16], local.octets(), 64)
        .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1280 })
        .write(&mut message, &[0; 60])
        .unwrap();
    assert_eq!(answered(&message, local, error), None);
}

/// An error of `router` to `to` that quotes `quote`.
fn error_about(router: Address, to: Address, quote: &[u8], mtu: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let mut frame = Vec::new();
    if to.is_v4() {
        let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
        builder
            .ipv4(router.last_octets(), to.last_octets(), 64)
            .icmpv4(Icmpv4Type::DestinationUnreachable(needed))
            .write(&mut frame, quote)
            .unwrap();
    } else {
        builder
            .ipv6(router.octets(), to.octets(), 64)
            .icmpv6(Icmpv6Type::PacketTooBig { mtu: mtu.into() })
            .write(&mut frame, quote)
            .unwrap();
    }
    frame
}

fn connections() -> impl Strategy<Value = (Endpoints, Endpoints, Address)> {
    let four = |([a, b, c, d], router): ([Endpoint; 4], Endpoint)| {
        let ends = |source, destination| Endpoints {
            source,
            destination,
        };
        (ends(a, b), ends(c, d), router.address)
    };
    let (v4, v6) = (v4_endpoint, v6_endpoint);
    prop_oneof![
        ([v4(), v4(), v4(), v4()], v4()).prop_map(four),
        ([v6(), v6(), v6(), v6()], v6()).prop_map(four),
    ]
}

proptest! {
    /// `before` is what arrives and `after` what is sent on, in the direction of the error; the
    /// quoted packet went the other way.
    #[test]
    fn an_error_through_nat_is_about_the_packet_that_its_receiver_sent(
        (before, after, router) in connections(),
        set_source in any::<bool>(),
        protocol in prop_oneof![Just(6_u8), Just(17)],
        payload in vec(any::<u8>(), 0..100),
        cut in any::<prop::sample::Index>(),
    ) {
        let quote = |ends: Endpoints| {
            let frame = packet(&ends.reversed(), protocol, 3, &payload);
            // At least as much as RFC 792 wants: the header and eight bytes.
            let least = if before.source.address.is_v4() { 28 } else { 48 };
            // Never in the middle of a checksum: half of one cannot be adjusted.
            let length = (least + cut.index(frame.len() - 14 - least + 1)) & !1;
            frame[14..14 + length].to_vec()
        };
        let mut frame = error_about(router, before.destination.address, &quote(before), 1400);
        let local = after.source.address;
        let (outer, from) = if set_source {
            (OuterSource::Set(local), local)
        } else {
            (OuterSource::Keep, router)
        };
        let rewrite = Rewrite::new(&before, &after);
        let is_v4 = router.is_v4();
        if is_v4 {
            rewrite_error_v4(&mut frame, 14, &rewrite, outer).unwrap();
        } else {
            rewrite_error_v6(&mut frame, 14, &rewrite, outer).unwrap();
        }
        let mut expected = error_about(from, after.destination.address, &quote(after), 1400);
        let mut ip = crate::wire::ipv4::Packet::new_checked(&mut expected[14..]);
        if let Ok(ip) = &mut ip {
            prop_assert!(ip.decrement_ttl());
        } else {
            expected[21] -= 1;
        }
        prop_assert_eq!(frame, expected);
    }

    #[test]
    fn no_bytes_panic(
        mut bytes in vec(any::<u8>(), 0..200),
        l3 in 0_usize..60,
        (before, after, _) in connections(),
        version in prop_oneof![Just(0x45_u8), Just(0x60)],
        protocol in prop_oneof![Just(1_u8), Just(58)],
    ) {
        let l3 = l3.min(bytes.len());
        for (at, byte) in [(0, version), (9, 1), (6, protocol), (28, 0x45), (48, 0x60)] {
            if let Some(place) = bytes.get_mut(l3 + at) {
                *place = byte;
            }
        }
        let rewrite = Rewrite::new(&before, &after);
        let local = before.destination.address;
        if let Some(TunnelError { inner: Some(inner), .. }) = tunnelled(&bytes, l3, |_| true) {
            let _ = in_frame(&bytes, |umem, frame| relay(umem, frame, l3, &inner));
        }
        let _ = in_frame(&bytes, |umem, frame| {
            answer(umem, frame, l3, local, Error::TimeExceeded)
        });
        let _ = rewrite_error_v4(&mut bytes, l3, &rewrite, OuterSource::Keep);
        let _ = rewrite_error_v6(&mut bytes, l3, &rewrite, OuterSource::Keep);
    }

    #[test]
    fn an_error_about_a_tunnelled_packet_reaches_the_client(
        (ends, _, router) in connections(),
        outer_is_v4 in any::<bool>(),
        tunnel in prop_oneof![
            Just(Tunnel::Ipip), Just(Tunnel::Gre), Just(Tunnel::Gue { port: 6080 })],
        checksum in any::<bool>(),
        cut in 0_usize..=500,
    ) {
        // The client and the virtual server must be hosts that may be answered.
        prop_assume!(!ends.source.address.is_v4()
            || matches!(ends.source.address.last_octets(), [1..=126 | 128..=223, ..]));
        prop_assume!(!ends.source.address.is_v4() || ends.destination.address.last_octets()[0] < 224);
        let inner_is_v4 = ends.source.address.is_v4();
        let (source, destination) = if outer_is_v4 {
            (Address::v4([172, 16, 0, 1]), Address::v4([172, 16, 0, 9]))
        } else {
            (Address::from_octets([0x20; 16]), Address::from_octets([0x21; 16]))
        };
        let template = Template::new(&Options {
            tunnel, checksum, inner_is_v4, source, source_bits: 0, destination, mtu: 9000,
        });
        let mut client = packet(&ends, 6, 64, &[3; 500]);
        if inner_is_v4 {
            let mut ip = ipv4::Packet::new_checked(&mut client[14..]).unwrap();
            ip.set_whole(true);
            ip.fill_checksum();
        }
        let mut wrapped = vec![0; usize::from(template.overhead())];
        wrapped.extend(&client);
        let macs = &ethernet::Addresses::new(MacAddress([2; 6]), MacAddress([4; 6]));
        let variation = Variation { identification: 1, entropy: 2 };
        template.encapsulate(&mut wrapped, 14, macs, variation).unwrap();
        let router = if outer_is_v4 == router.is_v4() { router } else { source };
        let quote = &wrapped[14..wrapped.len() - cut];
        let error = error_about(router, source, quote, 1400);

        let found = tunnelled(&error, 14, |port| port == 6080).unwrap();
        prop_assert_eq!(found.real_server, destination);
        prop_assert_eq!(found.path_mtu, Some(1400));
        let inner = found.inner.unwrap();
        prop_assert_eq!((inner.source, inner.destination), (ends.source, ends.destination));
        let mtu = 1400 - template.overhead();
        prop_assert_eq!(inner.error, Some(Error::TooBig { mtu }));
        let (sent, frame) = in_frame(&error, |umem, frame| relay(umem, frame, 14, &inner));
        prop_assert!(sent);
        let (from, to, transport) = read(&frame);
        prop_assert_eq!((from, to), (ends.destination.address, ends.source.address));
        let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
        let quote = if let TransportSlice::Icmpv4(message) = &transport {
            prop_assert_eq!(message.icmp_type(), Icmpv4Type::DestinationUnreachable(needed));
            message.payload()
        } else if let TransportSlice::Icmpv6(message) = &transport {
            prop_assert_eq!(message.icmp_type(), Icmpv6Type::PacketTooBig { mtu: mtu.into() });
            message.payload()
        } else {
            panic!("{transport:?}");
        };
        let mut travelled = packet(&ends, 6, 63, &[3; 500]);
        if inner_is_v4 {
            let mut ip = ipv4::Packet::new_checked(&mut travelled[14..]).unwrap();
            ip.set_whole(true);
            ip.fill_checksum();
        }
        prop_assert_eq!(quote, &travelled[14..14 + quote.len()]);
        prop_assert!(quote.len() >= (client.len() - 14 - cut).min(548));
    }
}

#[test]
fn other_errors_about_tunnels_are_host_unreachable() {
    let ends = ends_v4();
    let template = Template::new(&Options {
        tunnel: Tunnel::Ipip,
        checksum: false,
        inner_is_v4: true,
        source: Address::v4([172, 16, 0, 1]),
        source_bits: 0,
        destination: Address::v4([172, 16, 0, 9]),
        mtu: 1500,
    });
    let mut wrapped = vec![0; usize::from(template.overhead())];
    wrapped.extend(packet(&ends, 17, 64, b"x"));
    let variation = Variation {
        identification: 1,
        entropy: 2,
    };
    let macs = &ethernet::Addresses::new(MacAddress([2; 6]), MacAddress([4; 6]));
    template
        .encapsulate(&mut wrapped, 14, macs, variation)
        .unwrap();
    let mut error = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([172, 16, 0, 254], [172, 16, 0, 1], 64)
        .icmpv4(Icmpv4Type::DestinationUnreachable(
            icmpv4::DestUnreachableHeader::Protocol,
        ))
        .write(&mut error, &wrapped[14..])
        .unwrap();
    let found = tunnelled(&error, 14, |_| false).unwrap();
    assert_eq!(found.path_mtu, None);
    assert_eq!(found.inner.unwrap().error, Some(Error::HostUnreachable));

    // Only eight bytes behind the outer header: the real server is known, the client is not.
    let short = error_about(
        Address::v4([172, 16, 0, 254]),
        Address::v4([172, 16, 0, 1]),
        &wrapped[14..14 + 28],
        1400,
    );
    let found = tunnelled(&short, 14, |_| false).unwrap();
    assert_eq!((found.path_mtu, found.inner), (Some(1400), None));
}
