//! Neighbour discovery (RFC 4861 §4.3, §4.4): what claims an address and what asks who has it, with
//! the one option that carries the Ethernet address of the former.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+
//! | Type 135/136  |     Code 0    |           Checksum            |
//! +-+-+-+---------+---------------+-------------------------------+
//! |R|S|O|                     Reserved                            |
//! +-+-+-+---------------------------------------------------------+
//! |                    Target Address, 16 bytes                   |
//! +---------------+---------------+-------------------------------+
//! |  Option (2)   |  Length (1)   |                               |
//! +---------------+---------------+                               +
//! |                      Ethernet Address                         |
//! +---------------------------------------------------------------+
//! ```
//!
//! For the control plane: the director never sees these, the kernel answers them.
//! Frames are untagged.

use std::net::Ipv6Addr;

use super::checksum::Sum;
use super::ethernet::{self, ethertype};
use super::{icmp, ipv6, read, write};
use crate::service::{Address, MacAddress};

/// Bytes of a message without options.
const MESSAGE_LEN: usize = 24;
/// Bytes of the option with an Ethernet address.
const OPTION_LEN: usize = 8;

/// Where the message begins in a frame.
const MESSAGE_AT: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;

/// Bytes of a probe's frame.
pub const PROBE_LEN: usize = MESSAGE_AT + MESSAGE_LEN;
/// Bytes of an announcement's frame.
pub const ANNOUNCEMENT_LEN: usize = PROBE_LEN + OPTION_LEN;

/// Only a hop limit that no router has touched is believed (RFC 4861 §7.1).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const TARGET_LINK_LAYER: u8 = 2;
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;

mod field {
    use std::ops::Range;

    pub(super) const TYPE: usize = 0;
    pub(super) const CHECKSUM: Range<usize> = 2..4;
    pub(super) const FLAGS: usize = 4;
    pub(super) const TARGET: Range<usize> = 8..24;
    pub(super) const OPTION: Range<usize> = 24..26;
    pub(super) const OPTION_MAC: Range<usize> = 26..32;
}

/// Tells every node that `address` is at `mac`, whatever it knew before: an unsolicited
/// advertisement with the override flag (RFC 4861 §7.2.6). `is_router` is the router flag: where it goes
/// from set to clear, the address is a default router no more (§7.2.5).
#[must_use]
pub fn announcement(mac: MacAddress, address: Ipv6Addr, is_router: bool) -> [u8; ANNOUNCEMENT_LEN] {
    let mut frame = [0; ANNOUNCEMENT_LEN];
    let message = &mut frame[MESSAGE_AT..];
    message[field::TYPE] = ADVERTISEMENT;
    message[field::FLAGS] = if is_router {
        ROUTER | OVERRIDE
    } else {
        OVERRIDE
    };
    write(message, field::TARGET, address.octets());
    write(message, field::OPTION, [TARGET_LINK_LAYER, 1]);
    write(message, field::OPTION_MAC, mac.0);
    finish(&mut frame, mac, address, ALL_NODES);
    frame
}

/// Asks whether anyone has `target` without claiming it: duplicate address detection (RFC 4862
/// §5.4.2), from the unspecified address and therefore without the option.
#[must_use]
pub fn probe(mac: MacAddress, target: Ipv6Addr) -> [u8; PROBE_LEN] {
    let mut frame = [0; PROBE_LEN];
    let message = &mut frame[MESSAGE_AT..];
    message[field::TYPE] = SOLICITATION;
    write(message, field::TARGET, target.octets());
    finish(
        &mut frame,
        mac,
        Ipv6Addr::UNSPECIFIED,
        solicited_node(target),
    );
    frame
}

/// Who has or wants `target`, as `frame` shows to a host that probes for it (RFC 4862 §5.4.3,
/// §5.4.4): the sender of an advertisement of it, and of a probe for it. `None` for every other
/// frame, and for one that is not valid (RFC 4861 §7.1).
#[must_use]
pub fn claimant(frame: &[u8], target: Ipv6Addr) -> Option<MacAddress> {
    let ethernet = ethernet::Packet::new_checked(frame).ok()?;
    if ethernet.ethertype() != ethertype::IPV6 {
        return None;
    }
    let ip = ipv6::Packet::new_checked(ethernet.payload()).ok()?;
    if ip.next_header() != icmp::PROTOCOL_V6 || ip.hop_limit() != HOP_LIMIT {
        return None;
    }
    let message: &[u8; MESSAGE_LEN] = ip.payload().first_chunk()?;
    if message_sum(ip.payload(), ip.source(), ip.destination()).fold() != 0xffff {
        return None;
    }
    let claims = match message[field::TYPE] {
        ADVERTISEMENT => true,
        // From an address it resolves the target, which it does not have.
        SOLICITATION => ip.source() == Address::from_octets(Ipv6Addr::UNSPECIFIED.octets()),
        _ => false,
    };
    let same = Ipv6Addr::from_octets(read(message, field::TARGET)) == target;
    (claims && same).then(|| ethernet.source())
}

/// The multicast address on which the owner of `target` listens (RFC 4291 §2.7.1).
const fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., x, y, z] = target.octets();
    Ipv6Addr::from_octets([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z])
}

/// Adds both headers in front of the message and its checksum.
fn finish(frame: &mut [u8], mac: MacAddress, source: Ipv6Addr, destination: Ipv6Addr) {
    let (headers, message) = frame.split_at_mut(MESSAGE_AT);
    let (ethernet_header, ip_header) = headers.split_at_mut(ethernet::HEADER_LEN);
    if let Ok(mut header) = ethernet::Packet::new_checked(ethernet_header) {
        header.set_destination(multicast_mac(destination));
        header.set_source(mac);
        header.set_ethertype(ethertype::IPV6);
    }
    let source = Address::from_octets(source.octets());
    let destination = Address::from_octets(destination.octets());
    if let Some(header) = ip_header.first_chunk_mut() {
        let mut header = ipv6::Packet::header_mut(header);
        header.set_plain_header();
        // At most 32 bytes.
        header.set_payload_len(u16::try_from(message.len()).unwrap_or_default());
        header.set_next_header(icmp::PROTOCOL_V6);
        header.set_hop_limit(HOP_LIMIT);
        header.set_source(source);
        header.set_destination(destination);
    }
    let checksum = message_sum(message, source, destination).checksum();
    write(message, field::CHECKSUM, checksum.to_be_bytes());
}

/// RFC 2464 §7.
const fn multicast_mac(address: Ipv6Addr) -> MacAddress {
    let [.., a, b, c, d] = address.octets();
    MacAddress([0x33, 0x33, a, b, c, d])
}

fn message_sum(message: &[u8], source: Address, destination: Address) -> Sum {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    Sum::ZERO
        .pseudo_header(source, destination, icmp::PROTOCOL_V6, length)
        .bytes(message)
}
