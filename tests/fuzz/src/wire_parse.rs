//! Any bytes as a frame: nothing panics, what is parsed lies inside the frame, and where etherparse
//! sees a whole TCP or UDP packet we see the same.

#![no_main]

use dataplane::service::{Address, Protocol};
use dataplane::wire::{
    Kind, Malformed, Parsed, arp, ethernet, icmp, ipv4, ipv6, ndisc, parse, sctp, tcp, udp, vlan,
};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use libfuzzer_sys::fuzz_target;

mod frame;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut repaired = bytes.to_vec();
    frame::repair_ipv4_checksum(&mut repaired);
    check(&repaired);
    views(bytes);
});

fn check(frame: &[u8]) {
    let ours = parse(frame);
    if let Ok(parsed) = &ours {
        inside(frame, parsed);
    }
    compare(frame, ours);
}

fn inside(frame: &[u8], parsed: &Parsed) {
    let [l3, l4] = [parsed.l3_offset, parsed.l4_offset].map(usize::from);
    assert!(l3 <= l4 && l4 <= frame.len());
    if parsed.kind == Kind::Packet {
        let end = l3 + total_len(&frame[l3..], parsed.destination);
        let payload = &frame[l4..end];
        if parsed.protocol == Protocol::Tcp as u8 {
            let segment = tcp::Packet::new_checked(payload).expect("checked by parse");
            assert_eq!(segment.flags(), parsed.tcp_flags);
        } else if parsed.protocol == sctp::PROTOCOL {
            let _ = sctp::Packet::new_checked(payload)
                .expect("checked by parse")
                .chunk();
        } else {
            udp::Packet::new_checked(payload).expect("checked by parse");
        }
    }
}

fn total_len(packet: &[u8], destination: Address) -> usize {
    if destination.is_v4() {
        ipv4::Packet::new_checked(packet)
            .expect("checked by parse")
            .total_len()
    } else {
        ipv6::Packet::new_checked(packet)
            .expect("checked by parse")
            .total_len()
    }
}

/// Where etherparse finds ports, so do we, the same, unless we are stricter for a named reason.
fn compare(frame: &[u8], ours: Result<Parsed, Malformed>) {
    let Ok(theirs) = SlicedPacket::from_ethernet(frame) else {
        return;
    };
    let ports = match &theirs.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        _ => return,
    };
    match ours {
        Ok(parsed) => match parsed.kind {
            Kind::Packet => {
                assert_eq!((parsed.source_port, parsed.destination_port), ports);
                let source = match &theirs.net {
                    Some(NetSlice::Ipv4(ip)) => Address::from(ip.header().source_addr()),
                    Some(NetSlice::Ipv6(ip)) => Address::from_octets(ip.header().source()),
                    other => panic!("ports without IP: {other:?}"),
                };
                assert_eq!(parsed.source, source);
            }
            // Behind an authentication header, which we do not walk, or a third tag.
            Kind::OtherProtocol | Kind::NotIp => {}
            kind @ (Kind::FirstFragment | Kind::LaterFragment | Kind::IcmpError) => panic!("{kind:?}, and to others a whole packet: {theirs:?}"),
        },
        Err(
            Malformed::BadIpChecksum
            | Malformed::MappedAddress
            | Malformed::BadExtensionHeader
            // It takes a length of 0 for a jumbogram's or an offloading sender's.
            | Malformed::BadUdpHeader
            | Malformed::BadTcpHeader
            | Malformed::BadIpTotalLength,
        ) => {}
        Err(reason) => panic!("{reason}, and to others a whole packet: {theirs:?}"),
    }
}

/// Every accessor of every view that accepts the bytes.
fn views(bytes: &[u8]) {
    if let Ok(packet) = ethernet::Packet::new_checked(bytes) {
        let _ = (packet.source(), packet.destination(), packet.ethertype());
    }
    if let Ok(packet) = vlan::Packet::new_checked(bytes) {
        let _ = packet.ethertype();
    }
    let _ = arp::claimant(bytes, [10, 0, 0, 1].into());
    let _ = ndisc::claimant(bytes, std::net::Ipv6Addr::LOCALHOST);
    if let Ok(packet) = icmp::Packet::new_checked(bytes) {
        let _ = packet.quoted();
    }
    if let Ok(packet) = ipv6::Packet::new_checked(bytes) {
        let _ = packet.payload();
    }
    if let Ok(packet) = udp::Packet::new_checked(bytes) {
        let _ = packet.total_len();
    }
    if let Ok(packet) = tcp::Packet::new_checked(bytes) {
        let _ = packet.segment_len();
    }
    let mut bytes = bytes.to_vec();
    if let Ok(mut packet) = ipv4::Packet::new_checked(&mut bytes[..]) {
        let right = packet.verify_checksum();
        if packet.decrement_ttl() {
            assert_eq!(
                packet.verify_checksum(),
                right,
                "the update keeps a checksum as right as it was"
            );
        }
        packet.fill_checksum();
        assert!(packet.verify_checksum());
    }
}
