//! Rewritten packets against packets that etherparse builds with the new addresses: they are the
//! same, byte for byte, checksums included.

use etherparse::PacketBuilder;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::flow::PlainKeys;
use crate::service::MacAddress;
use crate::wire::{self, Kind};
use crate::xsk::umem::HEAD;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A packet with a transport of `protocol`; `ttl` hops to live.
pub(crate) fn packet(ends: &Endpoints, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (ends.source, ends.destination);
    let builder = PacketBuilder::ethernet2(MAC, MAC);
    let builder = if source.address.is_v4() {
        builder.ipv4(
            source.address.last_octets(),
            destination.address.last_octets(),
            ttl,
        )
    } else {
        builder.ipv6(source.address.octets(), destination.address.octets(), ttl)
    };
    let mut frame = Vec::new();
    if protocol == Protocol::Tcp as u8 {
        builder
            .tcp(source.port, destination.port, 7, 100)
            .write(&mut frame, payload)
            .unwrap();
    } else if protocol == Protocol::Udp as u8 {
        builder
            .udp(source.port, destination.port)
            .write(&mut frame, payload)
            .unwrap();
    } else {
        let mut transport = ends.ports().to_vec();
        transport.extend([0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 0]);
        transport.extend(payload);
        let crc = crc_by_bits(&transport);
        transport[8..12].copy_from_slice(&crc.to_le_bytes());
        builder
            .write(&mut frame, etherparse::IpNumber::SCTP, &transport)
            .unwrap();
    }
    frame
}

/// CRC32c as RFC 9260 appendix A defines it, a bit at a time.
fn crc_by_bits(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

pub(crate) fn v4_endpoint() -> impl Strategy<Value = Endpoint> {
    (any::<[u8; 4]>(), any::<u16>()).prop_map(|(octets, port)| Endpoint {
        address: Address::v4(octets),
        port,
    })
}

pub(crate) fn v6_endpoint() -> impl Strategy<Value = Endpoint> {
    (any::<[u8; 15]>(), any::<u16>()).prop_map(|(octets, port)| {
        let mut address = [0x20; 16]; // never a mapped one
        address[1..].copy_from_slice(&octets);
        Endpoint {
            address: Address::from_octets(address),
            port,
        }
    })
}

fn endpoints() -> impl Strategy<Value = (Endpoints, Endpoints)> {
    let four = |[a, b, c, d]: [Endpoint; 4]| {
        let ends = |source, destination| Endpoints {
            source,
            destination,
        };
        (ends(a, b), ends(c, d))
    };
    prop_oneof![
        [v4_endpoint(), v4_endpoint(), v4_endpoint(), v4_endpoint()].prop_map(four),
        [v6_endpoint(), v6_endpoint(), v6_endpoint(), v6_endpoint()].prop_map(four),
    ]
}

/// Applies it, and sees that the straight way does the same.
fn apply(rewrite: &Rewrite, frame: &mut [u8], protocol: u8) -> Result<(), DropReason> {
    let before = frame.to_vec();
    let applied = apply_general(rewrite, frame, protocol);
    if rewrite.source.is_v4() && protocol != sctp::PROTOCOL {
        let (source, destination) = (rewrite.destination(), rewrite.source());
        let opposite = FlowKey::new(
            source.address,
            source.port,
            destination.address,
            destination.port,
            Protocol::Tcp,
        );
        let mut head = [0; HEAD];
        let length = before.len().min(HEAD);
        head[..length].copy_from_slice(&before[..length]);
        // The hop comes before, and is not in the change: the opposite of one more.
        let network = rewrite.network.and(Delta::ONE_HOP.inverse());
        let plain = PlainRewrite::opposite(opposite.plain(), (network, rewrite.transport));
        let hop = Addresses::new(MacAddress([7; 6]), MacAddress([8; 6]));
        let (mut straight, mut expected) = (before, frame.to_vec());
        if let Some(read) = wire::parse_plain(&head, u16::try_from(straight.len()).unwrap()) {
            assert!(applied.is_ok());
            plain.forward(&mut head, read.life, &hop);
            straight[..length].copy_from_slice(&head[..length]);
        } else {
            assert!(
                applied.is_err(),
                "only a packet without a hop left is not plain"
            );
        }
        if applied.is_ok() {
            expected[..12].copy_from_slice(&[7, 7, 7, 7, 7, 7, 8, 8, 8, 8, 8, 8]);
        }
        assert_eq!(straight, expected);
    }
    applied
}

fn apply_general(rewrite: &Rewrite, frame: &mut [u8], protocol: u8) -> Result<(), DropReason> {
    let parsed = wire::parse(frame).unwrap();
    let (l3, l4) = (usize::from(parsed.l3_offset), usize::from(parsed.l4_offset));
    if parsed.destination.is_v4() {
        rewrite.apply_v4(frame, l3, l4, protocol)
    } else {
        rewrite.apply_v6(frame, l3, l4, protocol)
    }
}

proptest! {
    #[test]
    fn a_rewritten_packet_is_one_built_with_the_new_addresses(
        (before, after) in endpoints(),
        protocol in prop_oneof![Just(6_u8), Just(17), Just(132)],
        payload in vec(any::<u8>(), 0..200),
        ttl in 2_u8..,
    ) {
        let mut frame = packet(&before, protocol, ttl, &payload);
        apply(&Rewrite::new(&before, &after), &mut frame, protocol).unwrap();
        prop_assert_eq!(frame, packet(&after, protocol, ttl - 1, &payload));
    }

    #[test]
    fn a_wrong_checksum_stays_wrong(
        (before, after) in endpoints(),
        protocol in prop_oneof![Just(6_u8), Just(17), Just(132)],
        payload in vec(any::<u8>(), 1..200),
        flipped in any::<prop::sample::Index>(),
    ) {
        let mut frame = packet(&before, protocol, 64, &payload);
        let mut expected = packet(&after, protocol, 63, &payload);
        let at = frame.len() - 1 - flipped.index(payload.len());
        frame[at] ^= 0x40;
        expected[at] ^= 0x40;
        apply(&Rewrite::new(&before, &after), &mut frame, protocol).unwrap();
        prop_assert_eq!(frame, expected);
    }

    #[test]
    fn keys_and_ends_differ_by_the_same((before, after) in endpoints()) {
        prop_assume!(before.source.address.is_v4());
        let key = |ends: &Endpoints| {
            let Endpoints { source, destination } = *ends;
            FlowKey::new(source.address, source.port, destination.address, destination.port, Protocol::Udp)
        };
        let [mut keys, mut opposites] = [PlainKeys::<16>::EMPTY, PlainKeys::EMPTY];
        keys.set(11, key(&before).plain());
        opposites.set(11, key(&after.reversed()).plain());
        let [mut networks, mut transports] = [[Delta::NONE; 16]; 2];
        keys.deltas(&opposites, 1 << 11, &mut networks, &mut transports);
        prop_assert_eq!((networks[11], transports[11]), before.deltas(&after));
    }

    #[test]
    fn there_and_back_is_no_change_but_hops((before, after) in endpoints()) {
        let mut frame = packet(&before, 6, 64, b"x");
        apply(&Rewrite::new(&before, &after), &mut frame, 6).unwrap();
        apply(&Rewrite::new(&after, &before), &mut frame, 6).unwrap();
        prop_assert_eq!(frame, packet(&before, 6, 62, b"x"));
    }

    #[test]
    fn no_bytes_panic(
        mut frame in vec(any::<u8>(), 0..120),
        (before, after) in endpoints(),
        l3 in 0_usize..200, l4 in 0_usize..200, protocol in any::<u8>(),
    ) {
        let rewrite = Rewrite::new(&before, &after);
        let _ = rewrite.apply_v4(&mut frame, l3, l4, protocol);
        let _ = rewrite.apply_v6(&mut frame, l3, l4, protocol);
        let _ = rewrite.apply_v4(&mut frame, l3, l4, sctp::PROTOCOL);
    }
}

fn ends(source: [u8; 4], port: u16, destination: [u8; 4], to: u16) -> Endpoints {
    let end = |octets, port| Endpoint {
        address: Address::v4(octets),
        port,
    };
    Endpoints {
        source: end(source, port),
        destination: end(destination, to),
    }
}

#[test]
fn no_udp_checksum_stays_none_and_none_is_made() {
    let before = ends([10, 0, 0, 1], 5000, [192, 168, 1, 100], 53);
    let after = ends([10, 0, 0, 1], 5000, [10, 1, 0, 7], 5353);
    let rewrite = Rewrite::new(&before, &after);
    let mut frame = packet(&before, 17, 64, b"query");
    frame[40..42].fill(0);
    apply(&rewrite, &mut frame, 17).unwrap();
    assert_eq!(frame[40..42], [0, 0]);

    // A payload that makes the sum of the rewritten packet 0xffff, so that its checksum is zero:
    // the two bytes that are missing are what the checksum is without them.
    let mut probe = packet(&after, 17, 63, &[0, 0]);
    let missing = [probe[40], probe[41]];
    probe = packet(&after, 17, 63, &missing);
    assert_eq!(probe[40..42], [0xff, 0xff], "etherparse sends zero as ones");
    let mut frame = packet(&before, 17, 64, &missing);
    apply(&rewrite, &mut frame, 17).unwrap();
    assert_eq!(frame, probe);
}

#[test]
fn the_last_hop_is_refused_and_nothing_changed() {
    let before = ends([10, 0, 0, 1], 5000, [192, 168, 1, 100], 80);
    let after = ends([10, 0, 0, 1], 5000, [10, 1, 0, 7], 8080);
    let frame = packet(&before, 6, 1, b"x");
    let mut rewritten = frame.clone();
    let refused = apply(&Rewrite::new(&before, &after), &mut rewritten, 6);
    assert_eq!(refused, Err(DropReason::TtlExceeded));
    assert_eq!(rewritten, frame);
}

#[test]
fn a_later_fragment_gets_new_addresses_only() {
    let before = ends([10, 0, 0, 1], 5000, [192, 168, 1, 100], 53);
    let after = ends([10, 9, 0, 1], 4000, [10, 1, 0, 7], 5353);
    let mut frame = packet(&before, 17, 64, &[7; 64]);
    let mut ip = ipv4::Packet::new_checked(&mut frame[14..]).unwrap();
    ip.set_fragment(false, true, 8);
    ip.fill_checksum();
    let payload = frame[34..].to_vec();
    Rewrite::new(&before, &after)
        .apply_v4_addresses(&mut frame, 14)
        .unwrap();
    let parsed = wire::parse(&frame).expect("the header's checksum is right");
    assert_eq!(parsed.kind, Kind::LaterFragment);
    assert_eq!(parsed.source, after.source.address);
    assert_eq!(parsed.destination, after.destination.address);
    assert_eq!(frame[34..], payload);
}

#[test]
fn the_checksum_of_sctp_needs_the_whole_packet() {
    let before = ends([10, 0, 0, 1], 5000, [192, 168, 1, 100], 36412);
    let after = ends([10, 0, 0, 1], 5000, [10, 1, 0, 7], 36413);
    let mut frame = packet(&before, sctp::PROTOCOL, 64, &[7; 64]);
    let mut ip = ipv4::Packet::new_checked(&mut frame[14..]).unwrap();
    ip.set_fragment(false, true, 0);
    ip.fill_checksum();
    let rewrite = Rewrite::new(&before, &after);
    assert_eq!(
        rewrite.apply_v4(&mut frame, 14, 34, sctp::PROTOCOL),
        Err(DropReason::SctpFragment)
    );
    // Without another port the checksum stays as it is, whatever else the datagram holds.
    let after = ends([10, 0, 0, 1], 5000, [10, 1, 0, 7], 36412);
    let mut moved = frame.clone();
    let rewrite = Rewrite::new(&before, &after);
    rewrite
        .apply_v4(&mut moved, 14, 34, sctp::PROTOCOL)
        .unwrap();
    assert_eq!(moved[34..], frame[34..]);
}
