//! Against segments that etherparse builds with the option in place.

use etherparse::{PacketBuilder, TcpOptionElement};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::forward::rewrite::Endpoints;
use crate::forward::rewrite::tests::{v4_endpoint, v6_endpoint};
use crate::xsk::umem::FrameSize;

/// A segment with raw options.
pub(crate) fn segment(
    ends: &Endpoints,
    (sequence, acknowledgment): (u32, u32),
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let (source, destination) = (ends.source, ends.destination);
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = if source.address.is_v4() {
        let [from, to] = [source.address, destination.address].map(|it| it.last_octets());
        builder.ipv4(from, to, 64)
    } else {
        builder.ipv6(source.address.octets(), destination.address.octets(), 64)
    };
    let mut frame = Vec::new();
    builder
        .tcp(source.port, destination.port, sequence, 100)
        .ack(acknowledgment)
        .options_raw(options)
        .unwrap()
        .write(&mut frame, payload)
        .unwrap();
    frame
}

pub(crate) fn l4(ends: &Endpoints) -> usize {
    if ends.source.address.is_v4() { 34 } else { 54 }
}

pub(crate) fn any_ends() -> impl Strategy<Value = Endpoints> {
    let ends = |(source, destination)| Endpoints {
        source,
        destination,
    };
    prop_oneof![
        (v4_endpoint(), v4_endpoint()).prop_map(ends),
        (v6_endpoint(), v6_endpoint()).prop_map(ends),
    ]
}

fn inserted(frame: &[u8], l4: usize, option: &ClientOption, mtu: u16) -> Option<Vec<u8>> {
    let (umem, mut pool) = Umem::new(1, FrameSize::Bytes2048).unwrap();
    let mut held = pool.take().unwrap();
    umem.fill(&mut held, frame).unwrap();
    let done = insert(&umem, &mut held, (14, l4), option, mtu).unwrap();
    let after = umem.bytes(&held).to_vec();
    assert!(done || after == frame, "refused, so not changed");
    done.then_some(after)
}

proptest! {
    #[test]
    fn a_segment_with_the_option_is_one_built_with_it(
        ends in any_ends(),
        client in prop_oneof![v4_endpoint().boxed(), v6_endpoint().boxed()],
        words in 0_usize..=10,
        payload in vec(any::<u8>(), 0..200),
    ) {
        let option = ClientOption::new(client);
        let options: Vec<u8> = std::iter::repeat_n(1, words * 4).collect();
        let frame = segment(&ends, (7, 9), &options, &payload);
        let all = [option.bytes(), &options].concat();
        let expected = (all.len() <= 40).then(|| segment(&ends, (7, 9), &all, &payload));
        prop_assert_eq!(inserted(&frame, l4(&ends), &option, 1500), expected);
    }
}

#[test]
fn the_bytes_are_those_that_the_kernel_module_reads() {
    let client = |address: &str| Endpoint {
        address: address.parse::<std::net::IpAddr>().unwrap().into(),
        port: 0x1234,
    };
    let option = ClientOption::new(client("10.1.2.3"));
    assert_eq!(option.bytes(), [254, 8, 0x12, 0x34, 10, 1, 2, 3]);
    let option = ClientOption::new(client("2001:db8::5"));
    let mut expected = vec![254, 20, 0x12, 0x34, 0x20, 1, 0xd, 0xb8];
    expected.extend([0; 11]);
    expected.push(5);
    assert_eq!(option.bytes(), expected);
}

#[test]
fn a_full_segment_stays_as_it_is() {
    let end = |octets| Endpoint {
        address: crate::service::Address::v4(octets),
        port: 80,
    };
    let ends = Endpoints {
        source: end([10, 0, 0, 1]),
        destination: end([10, 0, 0, 2]),
    };
    let option = ClientOption::new(end([192, 0, 2, 1]));
    let frame = segment(&ends, (7, 9), &[], &[0; 1000]);
    assert_eq!(inserted(&frame, 34, &option, 1047), None);
    assert!(inserted(&frame, 34, &option, 1048).is_some());
}

#[test]
fn the_maximum_segment_size_leaves_room() {
    let (source, destination) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    // At an even and at an odd place.
    for before in [&[][..], &[TcpOptionElement::Noop][..]] {
        let syn = |size| {
            let mut options = before.to_vec();
            options.push(TcpOptionElement::MaximumSegmentSize(size));
            let mut frame = Vec::new();
            PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4(source, destination, 64)
                .tcp(80, 4000, 1, 100)
                .syn()
                .options(&options)
                .unwrap()
                .write(&mut frame, &[])
                .unwrap();
            frame
        };
        let mut frame = syn(1460);
        lower_maximum_segment_size(&mut frame, 34, 1440, 8);
        assert_eq!(frame, syn(1432));
        lower_maximum_segment_size(&mut frame, 34, 1440, 8);
        assert_eq!(frame, syn(1424));
    }
}
