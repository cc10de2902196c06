//! Frames, built from what matters about them.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, PacketBuilder};

use super::network::{CLIENT_MAC, DIRECTOR_MAC};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;

/// A packet of twelve bytes after the ports, of any protocol.
pub(crate) fn packet(protocol: u8, from: &str, to: &str) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    build(
        protocol,
        from.ip(),
        to.ip(),
        &[&ports[..], b"twelve bytes"].concat(),
    )
}

pub(crate) fn build(protocol: u8, from: IpAddr, to: IpAddr, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC);
    let step = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("{from} and {to}"),
    };
    let mut packet = Vec::new();
    step.write(&mut packet, IpNumber(protocol), payload)
        .unwrap();
    packet
}

/// An ICMP or ICMPv6 error about the IP packet of a frame.
pub(crate) fn error(kind: u8, from: &str, to: &str, about: &[u8]) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let protocol = if from.is_ipv4() { ICMP } else { ICMPV6 };
    let body = [&[kind, 0, 0, 0, 0, 0, 0, 0], &about[14..]].concat();
    build(protocol, from, to, &body)
}

pub(crate) fn with(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

/// Makes it a fragment at an offset of 24 bytes.
pub(crate) fn later(packet: Vec<u8>) -> Vec<u8> {
    if packet[12..14] == [0x08, 0] {
        with(packet, 20, &[0, 3])
    } else {
        extended(packet, 44, [0, 0, 24, 0, 0, 0, 7])
    }
}

/// Puts an extension header of 8 bytes before what follows the IPv6 header.
pub(crate) fn extended(mut packet: Vec<u8>, kind: u8, body: [u8; 7]) -> Vec<u8> {
    let next = std::mem::replace(&mut packet[20], kind);
    let header = [&[next][..], &body[..]].concat();
    packet.splice(54..54, header);
    let length = u16::try_from(packet.len() - 54).unwrap();
    with(packet, 18, &length.to_be_bytes())
}

/// The packet with a right UDP checksum: none in IPv4.
pub(crate) fn udp(from: &str, to: &str) -> Vec<u8> {
    let mut packet = packet(UDP, from, to);
    let at = packet.len() - 12;
    let v4 = packet[12..14] == [0x08, 0];
    // Of "twelve bytes" the first four become length and checksum.
    packet[at..at + 2].copy_from_slice(&16_u16.to_be_bytes());
    packet[at + 2..at + 4].copy_from_slice(&[0, 0]);
    if !v4 {
        let header = [&packet[22..54], &[0, 0, 0, 16, 0, 0, 0, UDP]].concat();
        let sum: u32 = header
            .chunks(2)
            .chain(packet[54..].chunks(2))
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        packet[at + 2..at + 4].copy_from_slice(&(!folded).to_be_bytes());
    }
    packet
}
