//! ARP for IPv4 over Ethernet (RFC 826), probes and announcements (RFC 5227).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |    Hardware Type (1)          |     Protocol Type (0x0800)    |
//! +---------------+---------------+-------------------------------+
//! | HW Length (6) | P Length (4)  |           Operation           |
//! +---------------+---------------+-------------------------------+
//! |                   Sender Hardware Address                     |
//! +                               +-------------------------------+
//! |                               |   Sender Protocol Address     |
//! +-------------------------------+-------------------------------+
//! |            (cont.)            |    Target Hardware Address    |
//! +-------------------------------+                               +
//! |                                                               |
//! +---------------------------------------------------------------+
//! |                   Target Protocol Address                     |
//! +---------------------------------------------------------------+
//! ```
//!
//! For the control plane: the director never sees ARP, the kernel answers it.
//! Frames are untagged.

use std::net::Ipv4Addr;

use super::ethernet::{self, ethertype};
use super::{read, read_u16, write};
use crate::service::MacAddress;

/// Bytes of an ARP packet for IPv4 over Ethernet.
const PACKET_LEN: usize = 28;

/// Bytes of the frame around it, before the network card pads it to 60.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + PACKET_LEN;

const BROADCAST: MacAddress = MacAddress([0xff; 6]);
const UNKNOWN: MacAddress = MacAddress([0; 6]);
/// Ethernet, IPv4, and their address lengths: what every packet here begins with.
const ETHERNET_IPV4: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];
const REQUEST: u16 = 1;

mod field {
    use std::ops::Range;

    pub(super) const TYPES_AND_LENGTHS: Range<usize> = 0..6;
    pub(super) const OPERATION: Range<usize> = 6..8;
    pub(super) const SENDER_MAC: Range<usize> = 8..14;
    pub(super) const SENDER_IP: Range<usize> = 14..18;
    pub(super) const TARGET_MAC: Range<usize> = 18..24;
    pub(super) const TARGET_IP: Range<usize> = 24..28;
}

/// Tells everyone that `ip` is at `mac`: a gratuitous ARP as keepalived sends it, a request with
/// the address as sender and target (an "ARP announcement", RFC 5227 §1.1) and a target MAC of all
/// ones.
#[must_use]
pub fn announcement(mac: MacAddress, ip: Ipv4Addr) -> [u8; FRAME_LEN] {
    request(mac, ip, BROADCAST, ip)
}

/// Asks whether anyone has `ip` without touching anyone's cache (RFC 5227 §2.1.1).
#[must_use]
pub fn probe(mac: MacAddress, ip: Ipv4Addr) -> [u8; FRAME_LEN] {
    request(mac, Ipv4Addr::UNSPECIFIED, UNKNOWN, ip)
}

/// Who has or wants `ip`, as `frame` shows to a host that probes for it (RFC 5227 §2.1.1): the
/// sender of any packet from `ip`, and of a probe for it. `None` for every other frame.
#[must_use]
pub fn claimant(frame: &[u8], ip: Ipv4Addr) -> Option<MacAddress> {
    let ethernet = ethernet::Packet::new_checked(frame).ok()?;
    let packet: &[u8; PACKET_LEN] = ethernet.payload().first_chunk()?;
    if ethernet.ethertype() != ethertype::ARP || packet[field::TYPES_AND_LENGTHS] != ETHERNET_IPV4 {
        return None;
    }
    let sender = Ipv4Addr::from_octets(read(packet, field::SENDER_IP));
    let target = Ipv4Addr::from_octets(read(packet, field::TARGET_IP));
    let probes =
        read_u16(packet, field::OPERATION) == REQUEST && sender.is_unspecified() && target == ip;
    (sender == ip || probes).then(|| MacAddress(read(packet, field::SENDER_MAC)))
}

/// A request, which goes to everyone.
fn request(
    mac: MacAddress,
    sender: Ipv4Addr,
    target_mac: MacAddress,
    target: Ipv4Addr,
) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    let (header, packet) = frame.split_at_mut(ethernet::HEADER_LEN);
    // The header has the length that is asked for, by the constants above.
    if let Ok(mut header) = ethernet::Packet::new_checked(header) {
        header.set_destination(BROADCAST);
        header.set_source(mac);
        header.set_ethertype(ethertype::ARP);
    }
    write(packet, field::TYPES_AND_LENGTHS, ETHERNET_IPV4);
    write(packet, field::OPERATION, REQUEST.to_be_bytes());
    write(packet, field::SENDER_MAC, mac.0);
    write(packet, field::SENDER_IP, sender.octets());
    write(packet, field::TARGET_MAC, target_mac.0);
    write(packet, field::TARGET_IP, target.octets());
    frame
}
