//! Against packets that etherparse builds with the header in place, and a stream that is followed
//! byte by byte.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::forward::rewrite::Endpoint;
use crate::forward::rewrite::tests::packet;
use crate::forward::toa::tests::{any_ends, l4, segment};
use crate::service::Address;
use crate::xsk::umem::FrameSize;

fn inserted(
    header: &ProxyHeader,
    frame: &[u8],
    l4: usize,
    protocol: Protocol,
    mtu: u16,
) -> Option<Vec<u8>> {
    let (umem, mut pool) = Umem::new(1, FrameSize::Bytes2048).unwrap();
    let mut held = pool.take().unwrap();
    umem.fill(&mut held, frame).unwrap();
    let done = header
        .insert(&umem, &mut held, (14, l4), protocol, mtu)
        .unwrap();
    let after = umem.bytes(&held).to_vec();
    assert!(done || after == frame, "refused, so not changed");
    done.then_some(after)
}

fn v4_ends() -> Endpoints {
    let end = |octets, port| Endpoint {
        address: Address::v4(octets),
        port,
    };
    Endpoints {
        source: end([192, 0, 2, 7], 0x1234),
        destination: end([10, 0, 0, 1], 443),
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let header = ProxyHeader::new(&v4_ends(), Protocol::Tcp);
    let mut expected = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a".to_vec();
    expected.extend([0x21, 0x11, 0, 12]);
    expected.extend([192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 1, 187]);
    assert_eq!(header.bytes(), expected);

    let mut ends = v4_ends();
    ends.source.address = Address::from_octets([0x20; 16]);
    ends.destination.address = Address::from_octets([0x21; 16]);
    let header = ProxyHeader::new(&ends, Protocol::Udp);
    assert_eq!(header.bytes()[12..16], [0x21, 0x22, 0, 36]);
    assert_eq!(header.bytes()[16..32], [0x20; 16]);
    assert_eq!(header.bytes()[32..48], [0x21; 16]);
    assert_eq!(header.bytes()[48..], [0x12, 0x34, 1, 187]);
}

proptest! {
    #[test]
    fn a_packet_with_the_header_is_one_built_with_it(
        (ends, client) in (any_ends(), any_ends()),
        payload in vec(any::<u8>(), 0..200),
        words in 0_usize..=10,
    ) {
        let options: Vec<u8> = std::iter::repeat_n(1, words * 4).collect();
        let header = ProxyHeader::new(&client, Protocol::Tcp);
        let longer = [header.bytes(), &payload].concat();
        let frame = segment(&ends, (7, 9), &options, &payload);
        prop_assert_eq!(
            inserted(&header, &frame, l4(&ends), Protocol::Tcp, 1500),
            Some(segment(&ends, (7, 9), &options, &longer))
        );

        let header = ProxyHeader::new(&client, Protocol::Udp);
        let longer = [header.bytes(), &payload].concat();
        let frame = packet(&ends, 17, 64, &payload);
        prop_assert_eq!(
            inserted(&header, &frame, l4(&ends), Protocol::Udp, 1500),
            Some(packet(&ends, 17, 64, &longer))
        );
    }

    #[test]
    fn a_full_segment_has_no_room(ends in any_ends(), payload in vec(any::<u8>(), 1400..1440)) {
        let header = ProxyHeader::new(&ends, Protocol::Tcp);
        let frame = segment(&ends, (7, 9), &[], &payload);
        let mtu = u16::try_from(frame.len() - 14 + 8).unwrap();
        prop_assert_eq!(inserted(&header, &frame, l4(&ends), Protocol::Tcp, mtu), None);
    }

    #[test]
    fn numbers_are_shifted_there_and_back(
        ends in any_ends(),
        first in any::<u32>(),
        sent in 1_u32..100_000,
        edges in vec(1_u32..100_000, 0..=4),
        pad in 0_usize..2,
    ) {
        let mut splice = Splice { first, length: 28, settled: false };
        let at = |number: u32| first.wrapping_add(number);
        let mut frame = segment(&ends, (at(sent), 5), &[], b"data");
        prop_assert_eq!(splice.part(at(sent)), Part::After);
        splice.shift_sequence(&mut frame, l4(&ends));
        prop_assert_eq!(&frame, &segment(&ends, (at(sent + 28), 5), &[], b"data"));

        // The server acknowledges what it got; blocks at an even or an odd place.
        let options = |shift: u32| {
            let blocks = edges.as_chunks::<2>().0;
            let mut options = vec![1; pad];
            options.extend([5, 2 + u8::try_from(blocks.len() * 8).unwrap()]);
            for edge in blocks.as_flattened() {
                options.extend(at(edge + shift).to_be_bytes());
            }
            options.resize(options.len().next_multiple_of(4), 0);
            options
        };
        let mut frame = segment(&ends, (5, at(sent + 28)), &options(28), b"");
        splice.shift_acknowledgment(&mut frame, l4(&ends));
        prop_assert_eq!(&frame, &segment(&ends, (5, at(sent)), &options(0), b""));
    }

    #[test]
    fn no_bytes_panic(mut bytes in vec(any::<u8>(), 0..120), l4 in 0_usize..140) {
        let mut splice = Splice { first: 5, length: 52, settled: false };
        splice.shift_sequence(&mut bytes, l4);
        splice.shift_acknowledgment(&mut bytes, l4);
        let (umem, mut pool) = Umem::new(1, FrameSize::Bytes2048).unwrap();
        let mut from = pool.take().unwrap();
        umem.fill(&mut from, &bytes).unwrap();
        let header = ProxyHeader::new(&v4_ends(), Protocol::Tcp);
        let _ = header.insert(&umem, &mut from, (14, l4), Protocol::Tcp, 1500);
        let _ = header.insert(&umem, &mut from, (14, l4), Protocol::Udp, 1500);
    }
}

#[test]
fn before_the_first_byte_nothing_is_shifted() {
    let mut splice = Splice {
        first: 1000,
        length: 28,
        settled: false,
    };
    assert_eq!(splice.part(999), Part::Before); // SYN, keepalive
    assert_eq!(splice.part(1000), Part::First); // the handshake's end, and each retransmission
    assert_eq!(splice.part(1001), Part::After);

    // The server's SYN acknowledges the client's; then half of the header, all of it, and more.
    for (acknowledged, told) in [(1000, 1000), (1014, 1000), (1028, 1000), (1029, 1001)] {
        let mut frame = segment(&v4_ends(), (5, acknowledged), &[], b"");
        splice.shift_acknowledgment(&mut frame, 34);
        assert_eq!(frame, segment(&v4_ends(), (5, told), &[], b""));
    }
}

#[test]
fn a_long_stream_stays_shifted() {
    const GIB: u32 = 1 << 30;
    let mut splice = Splice {
        first: 1000,
        length: 28,
        settled: false,
    };
    // The acknowledgment of all of the header settles it.
    for (acknowledged, settled) in [(1000, false), (1027, false), (1028, true), (1029, true)] {
        let mut frame = segment(&v4_ends(), (5, acknowledged), &[], b"");
        splice.shift_acknowledgment(&mut frame, 34);
        assert_eq!(splice.settled, settled, "{acknowledged}");
    }
    for sent in [1, GIB, 2 * GIB, 3 * GIB, u32::MAX - 5] {
        let sequence = 1000_u32.wrapping_add(sent);
        assert_eq!(splice.part(sequence), Part::After);
        let acknowledged = sequence.wrapping_add(28);
        let mut frame = segment(&v4_ends(), (5, acknowledged), &[], b"");
        splice.shift_acknowledgment(&mut frame, 34);
        assert_eq!(frame, segment(&v4_ends(), (5, sequence), &[], b""));
    }
    // A late retransmission of the first segment is of data that the server has.
    assert_eq!(splice.part(1000), Part::After);
}
