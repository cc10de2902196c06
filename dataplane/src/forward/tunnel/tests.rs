//! Wrapped packets, unwrapped again by etherparse.

use etherparse::{
    EtherType, IpNumber, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanId,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::flow::FlowHasher;
use crate::processor::Processor;
use crate::service::MacAddress;
use crate::wire::{Headers, parse_burst};
use crate::xsk::umem::{FrameSize, HEADROOM};

const ROUTER: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const OURS: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const V6_A: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const V6_B: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn options(tunnel: Tunnel, checksum: bool, inner_is_v4: bool, outer_is_v4: bool) -> Options {
    let (source, destination) = if outer_is_v4 {
        (Address::v4([172, 16, 0, 1]), Address::v4([172, 16, 0, 9]))
    } else {
        (Address::from_octets(V6_A), Address::from_octets(V6_B))
    };
    Options {
        tunnel,
        checksum,
        inner_is_v4,
        source,
        source_bits: 0,
        destination,
        mtu: 1500,
    }
}

fn packet(is_v4: bool, tags: usize, class: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([9; 6], [8; 6]);
    let vlan = |id| VlanId::try_new(id).unwrap();
    let ip = if is_v4 {
        etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header {
                time_to_live: hops,
                dscp: etherparse::IpDscp::try_new(class >> 2).unwrap(),
                ecn: etherparse::IpEcn::try_new(class & 3).unwrap(),
                dont_fragment: class & 4 != 0,
                source: [192, 0, 2, 1],
                destination: [192, 0, 2, 2],
                ..Default::default()
            },
            Default::default(),
        )
    } else {
        etherparse::IpHeaders::Ipv6(
            etherparse::Ipv6Header {
                traffic_class: class,
                hop_limit: hops,
                source: V6_B,
                destination: V6_A,
                ..Default::default()
            },
            Default::default(),
        )
    };
    let mut frame = Vec::new();
    match tags {
        0 => builder.ip(ip),
        1 => builder.single_vlan(vlan(10)).ip(ip),
        _ => builder.double_vlan(vlan(10), vlan(20)).ip(ip),
    }
    .udp(4000, 53)
    .write(&mut frame, payload)
    .unwrap();
    frame
}

fn wrap(options: &Options, frame: &[u8], l3: usize, variation: Variation) -> Vec<u8> {
    let template = Template::new(options);
    let mut wrapped = vec![0xee; usize::from(template.overhead())];
    wrapped.extend(frame);
    template
        .encapsulate(
            &mut wrapped,
            l3,
            &ethernet::Addresses::new(ROUTER, OURS),
            variation,
        )
        .unwrap();
    wrapped
}

/// What is inside, after the headers that `options` describe; checks them on the way.
fn unwrap<'a>(options: &Options, wrapped: &'a [u8], variation: Variation) -> &'a [u8] {
    let sliced = SlicedPacket::from_ethernet(wrapped).unwrap();
    let (protocol, payload) = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            assert_eq!(header.identification, variation.identification);
            (header.protocol, ip.payload().payload)
        }
        NetSlice::Ipv6(ip) => (ip.header().next_header(), ip.payload().payload),
        NetSlice::Arp(_) => panic!("not IP"),
    };
    let inner = if options.inner_is_v4 {
        (IpNumber::IPV4, EtherType::IPV4)
    } else {
        (IpNumber::IPV6, EtherType::IPV6)
    };
    match options.tunnel {
        Tunnel::Ipip => {
            assert_eq!(protocol, inner.0);
            payload
        }
        Tunnel::Gre => {
            assert_eq!(protocol, IpNumber::GRE);
            let (ethertype, length) = gre::read(payload).unwrap();
            assert_eq!(ethertype, inner.1.0);
            assert_eq!(length, if options.checksum { 8 } else { 4 });
            if options.checksum {
                assert_eq!(Sum::ZERO.bytes(payload).fold(), 0xffff);
            }
            &payload[length..]
        }
        Tunnel::Gue { port } => {
            let Some(TransportSlice::Udp(udp)) = &sliced.transport else {
                panic!("not UDP");
            };
            assert_eq!(udp.destination_port(), port);
            assert!(udp.source_port() >= 0xc000);
            let header = udp.to_header();
            let expected = match sliced.net.as_ref().unwrap() {
                _ if !options.checksum => 0,
                NetSlice::Ipv4(ip) => header
                    .calc_checksum_ipv4(&ip.header().to_header(), udp.payload())
                    .unwrap(),
                NetSlice::Ipv6(ip) => header
                    .calc_checksum_ipv6(&ip.header().to_header(), udp.payload())
                    .unwrap(),
                NetSlice::Arp(_) => panic!("not IP"),
            };
            assert_eq!(header.checksum, expected);
            assert_eq!(gue::read(udp.payload()), Some(inner.0.0));
            &udp.payload()[4..]
        }
    }
}

fn tunnels() -> impl Strategy<Value = Tunnel> {
    prop_oneof![
        Just(Tunnel::Ipip),
        Just(Tunnel::Gre),
        any::<u16>().prop_map(|port| Tunnel::Gue { port }),
    ]
}

proptest! {
    #[test]
    fn the_real_server_finds_the_packet_with_a_hop_less(
        tunnel in tunnels(),
        [checksum, inner_is_v4, outer_is_v4] in any::<[bool; 3]>(),
        source_bits in prop_oneof![Just(0_u8), 0_u8..=32],
        tags in 0_usize..3,
        (class, hops) in (any::<u8>(), 2_u8..),
        payload in vec(any::<u8>(), 0..300),
        (identification, entropy) in any::<(u16, u32)>(),
    ) {
        let mut options = options(tunnel, checksum, inner_is_v4, outer_is_v4);
        options.source_bits = source_bits;
        let variation = Variation { identification, entropy };
        let l3 = 14 + 4 * tags;
        let frame = packet(inner_is_v4, tags, class, hops, &payload);
        let wrapped = wrap(&options, &frame, l3, variation);

        let travelled = packet(inner_is_v4, tags, class, hops - 1, &payload);
        prop_assert_eq!(unwrap(&options, &wrapped, variation), &travelled[l3..]);
        prop_assert_eq!(&wrapped[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        prop_assert_eq!(&wrapped[12..l3 - 2], &frame[12..l3 - 2], "tags");
        let sliced = SlicedPacket::from_ethernet(&wrapped).unwrap();
        match sliced.net.as_ref().unwrap() {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                prop_assert_eq!(header.time_to_live, hops - 1);
                prop_assert_eq!(header.dscp.value() << 2 | header.ecn.value(), class);
                prop_assert_eq!(header.dont_fragment, inner_is_v4 && class & 4 != 0);
                prop_assert_eq!(header.destination, [172, 16, 0, 9]);
                let mask = u32::MAX.checked_shl(source_bits.into()).unwrap_or(0);
                let source = u32::from_be_bytes(header.source);
                prop_assert_eq!(source & mask, 0xac10_0001 & mask);
                prop_assert_eq!(source & !mask, entropy & !mask);
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header().to_header();
                prop_assert_eq!(header.hop_limit, hops - 1);
                prop_assert_eq!(header.traffic_class, class);
                prop_assert_eq!(header.destination, V6_B);
                prop_assert_eq!(&header.source[..12], &V6_A[..12]);
                let mask = u32::MAX.checked_shl(source_bits.into()).unwrap_or(0);
                let source = u32::from_be_bytes(*header.source.last_chunk().unwrap());
                prop_assert_eq!(source & mask, 7 & mask);
                prop_assert_eq!(source & !mask, entropy & !mask);
            }
            NetSlice::Arp(_) => panic!("not IP"),
        }
    }

    #[test]
    fn the_straight_way_does_the_same(
        tunnel in tunnels(),
        [checksum, outer_is_v4] in any::<[bool; 2]>(),
        source_bits in prop_oneof![Just(0_u8), 0_u8..=32],
        (class, hops) in (any::<u8>(), prop_oneof![0_u8..3, any::<u8>()]),
        payload in prop_oneof![vec(any::<u8>(), 0..300), vec(any::<u8>(), 1410..1480)],
        (identification, entropy) in any::<(u16, u32)>(),
    ) {
        let mut options = options(tunnel, checksum, true, outer_is_v4);
        options.source_bits = source_bits;
        let template = Template::new(&options);
        let variation = Variation { identification, entropy };
        let hop = ethernet::Addresses::new(ROUTER, OURS);
        let bytes = packet(true, 0, class, hops, &payload);
        let (umem, mut pool) = Umem::new(2, FrameSize::Bytes2048).unwrap();
        let [mut straight, mut expected] = [(); 2].map(|()| pool.take().unwrap());
        umem.fill(&mut straight, &bytes).unwrap();
        umem.fill(&mut expected, &bytes).unwrap();
        let forwarded = template.forward(&umem, &mut expected, 14, &hop, variation);
        let went = match Front::new(&template, &hop) {
            Some(front) => wrap_with(&front, &umem, &mut straight, identification),
            None => template.forward_plain(&umem, &mut straight, &hop, variation),
        };
        prop_assert_eq!(went, forwarded.is_ok());
        prop_assert_eq!(umem.bytes(&straight), umem.bytes(&expected));
    }

    #[test]
    fn no_bytes_panic(
        mut frame in vec(any::<u8>(), 0..200),
        l3 in 0_usize..220,
        tunnel in tunnels(),
        [checksum, inner_is_v4, outer_is_v4] in any::<[bool; 3]>(),
    ) {
        let template = Template::new(&options(tunnel, checksum, inner_is_v4, outer_is_v4));
        let variation = Variation { identification: 1, entropy: 2 };
        let _ = template.encapsulate(&mut frame, l3, &ethernet::Addresses::new(ROUTER, OURS), variation);
    }
}

/// As the director does it.
fn wrap_with(front: &Front, umem: &Umem, frame: &mut Frame, identification: u16) -> bool {
    let (mut headers, mut outers) = (Headers::EMPTY, Outers::<8>::EMPTY);
    let mut packets = umem.packets(std::slice::from_mut(frame));
    let hasher = FlowHasher::fixed();
    let found = parse_burst(Processor::detect(), &packets, &hasher, &mut headers);
    outers.find(&headers, 1, identification.wrapping_sub(1));
    found.plain == 1 && front.wrap(&mut packets, 0, headers.lives[0], &outers)
}

#[test]
fn what_does_not_fit_is_refused_unchanged() {
    let (umem, mut pool) = Umem::new(1, FrameSize::Bytes2048).unwrap();
    let mut frame = pool.take().unwrap();
    let variation = Variation {
        identification: 1,
        entropy: 2,
    };
    let template = Template::new(&options(Tunnel::Ipip, false, true, true));
    let forward = |frame: &mut Frame| {
        template.forward(
            &umem,
            frame,
            14,
            &ethernet::Addresses::new(ROUTER, OURS),
            variation,
        )
    };
    let of_length =
        |ip_len: usize, class, hops| packet(true, 0, class, hops, &vec![3; ip_len - 28]);

    let fits = of_length(1480, 4, 64);
    umem.fill(&mut frame, &fits).unwrap();
    assert_eq!(forward(&mut frame), Ok(()));
    assert_eq!(frame.len(), 14 + 1500);

    for (bytes, refused) in [
        (
            of_length(1481, 4, 64),
            NotWrapped::Oversize(Oversize::TooBig { mtu: 1480 }),
        ),
        (
            of_length(1481, 0, 64),
            NotWrapped::Oversize(Oversize::Fragment { mtu: 1480 }),
        ),
        (
            of_length(100, 0, 1),
            NotWrapped::Drop(DropReason::TtlExceeded),
        ),
    ] {
        umem.fill(&mut frame, &bytes).unwrap();
        assert_eq!(forward(&mut frame), Err(refused));
        assert_eq!(umem.bytes(&frame), bytes);
    }
}

#[test]
fn every_overhead_fits_in_the_headroom() {
    for tunnel in [Tunnel::Ipip, Tunnel::Gre, Tunnel::Gue { port: 6080 }] {
        let template = Template::new(&options(tunnel, true, true, false));
        assert!(template.overhead() <= HEADROOM, "{tunnel:?}");
    }
}
