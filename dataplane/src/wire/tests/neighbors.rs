//! ARP and neighbour discovery: bytes as others read and write them.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpOperation, ArpPacket, EtherType, IpNumber, PacketBuilder, SlicedPacket, TransportSlice,
};
use proptest::prelude::*;

use super::{MAC_A, MAC_B, V4_A, V4_B, V6_A};
use crate::service::MacAddress;
use crate::wire::{arp, ndisc};

const OWN: MacAddress = MacAddress(MAC_A);

#[test]
fn gratuitous_arp_is_keepaliveds_byte_for_byte() {
    assert_eq!(
        arp::announcement(OWN, V4_B.into()),
        [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0xa, 0x08, 0x06, // Ethernet
            0, 1, 0x08, 0, 6, 4, 0, 1, // Ethernet, IPv4, request
            2, 0, 0, 0, 0, 0xa, 192, 168, 1, 100, // sender
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 192, 168, 1, 100, // target
        ]
    );
}

#[test]
fn arp_probe_has_no_sender_address() {
    let frame = arp::probe(OWN, V4_B.into());
    assert_eq!(frame.len(), 42);
    assert_eq!(frame[28..32], [0; 4]);
    assert_eq!(frame[32..38], [0; 6]);
    assert_eq!(frame[38..], V4_B);
}

/// A packet of the host with [`MAC_B`], as another implementation writes it.
fn arp_of(operation: ArpOperation, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let arp = ArpPacket::new(
        etherparse::ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &MAC_B,
        &sender,
        &MAC_A,
        &target,
    )
    .expect("addresses of their lengths");
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MAC_B, MAC_A)
        .arp(arp)
        .write(&mut frame)
        .expect("valid");
    frame
}

#[test]
fn arp_packets_from_an_address_claim_it() {
    let claimant =
        |operation, sender, target| arp::claimant(&arp_of(operation, sender, target), V4_B.into());
    let other = Some(MacAddress(MAC_B));
    assert_eq!(claimant(ArpOperation::REPLY, V4_B, V4_A), other);
    assert_eq!(claimant(ArpOperation::REQUEST, V4_B, V4_A), other);
    assert_eq!(claimant(ArpOperation::REQUEST, [0; 4], V4_B), other);
    // Someone resolving the address does not have it, nor does whom it is told.
    assert_eq!(claimant(ArpOperation::REQUEST, V4_A, V4_B), None);
    assert_eq!(claimant(ArpOperation::REPLY, [0; 4], V4_B), None);
    assert_eq!(claimant(ArpOperation::REQUEST, [0; 4], V4_A), None);

    let mut token_ring = arp_of(ArpOperation::REPLY, V4_B, V4_A);
    token_ring[15] = 6;
    assert_eq!(arp::claimant(&token_ring, V4_B.into()), None);
    let mut experimental = arp_of(ArpOperation::REPLY, V4_B, V4_A);
    experimental[12..14].copy_from_slice(&[0x88, 0xb5]);
    assert_eq!(arp::claimant(&experimental, V4_B.into()), None);
}

fn checksum_is_right(frame: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> bool {
    let sliced = SlicedPacket::from_ethernet(frame).expect("valid");
    let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else {
        panic!("not ICMPv6: {sliced:?}");
    };
    icmp.is_checksum_valid(source.octets(), destination.octets())
}

#[test]
fn neighbour_advertisement_overrides() {
    let address = "2001:db8::100".parse().expect("an address");
    let frame = ndisc::announcement(OWN, address, false);
    assert_eq!(frame.len(), 86);
    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(frame[18..22], [0, 32, 58, 255]);
    assert_eq!(frame[54], 136);
    assert_eq!(frame[58], 0x20);
    assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 0xa]);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    assert!(checksum_is_right(&frame, address, all_nodes));
    let of_router = ndisc::announcement(OWN, address, true);
    assert_eq!(of_router[58], 0xa0);
    assert!(checksum_is_right(&of_router, address, all_nodes));
}

#[test]
fn solicitation_goes_to_the_solicited_node_group() {
    let frame = ndisc::probe(OWN, "2001:db8::12:3456".parse().expect("an address"));
    assert_eq!(frame.len(), 78);
    assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    let group: Ipv6Addr = "ff02::1:ff12:3456".parse().expect("an address");
    assert_eq!(frame[22..38], [0; 16]);
    assert_eq!(frame[38..54], group.octets());
    assert!(checksum_is_right(&frame, Ipv6Addr::UNSPECIFIED, group));
}

/// A message about `target` by the host with [`MAC_B`].
fn icmpv6_of(kind: u8, source: [u8; 16], hop_limit: u8, target: [u8; 16]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MAC_B, MAC_A)
        .ipv6(source, V6_A, hop_limit)
        .icmpv6_raw(kind, 0, [0; 4])
        .write(&mut frame, &target)
        .expect("valid");
    assert_eq!(frame[20], IpNumber::IPV6_ICMP.0);
    frame
}

#[test]
fn advertisements_and_probes_claim_an_address() {
    let vip = super::V6_B;
    let claimant = |frame: &[u8]| ndisc::claimant(frame, vip.into());
    let other = Some(MacAddress(MAC_B));
    assert_eq!(claimant(&icmpv6_of(136, vip, 255, vip)), other);
    assert_eq!(claimant(&icmpv6_of(135, [0; 16], 255, vip)), other);
    // Resolving it, another address, another message, from beyond the link.
    assert_eq!(claimant(&icmpv6_of(135, V6_A, 255, vip)), None);
    assert_eq!(claimant(&icmpv6_of(136, vip, 255, V6_A)), None);
    assert_eq!(claimant(&icmpv6_of(134, vip, 255, vip)), None);
    assert_eq!(claimant(&icmpv6_of(136, vip, 254, vip)), None);

    let mut corrupt = icmpv6_of(136, vip, 255, vip);
    corrupt[58] ^= 0x20;
    assert_eq!(claimant(&corrupt), None);
}

proptest! {
    #[test]
    fn what_is_built_is_understood(mac: [u8; 6], v4: u32, v6: u128, router: bool) {
        let (mac, v4, v6) = (MacAddress(mac), Ipv4Addr::from_bits(v4), Ipv6Addr::from_bits(v6));
        prop_assert_eq!(arp::claimant(&arp::announcement(mac, v4), v4), Some(mac));
        prop_assert_eq!(arp::claimant(&arp::probe(mac, v4), v4), Some(mac));
        prop_assert_eq!(ndisc::claimant(&ndisc::announcement(mac, v6, router), v6), Some(mac));
        prop_assert_eq!(ndisc::claimant(&ndisc::probe(mac, v6), v6), Some(mac));
    }
}
