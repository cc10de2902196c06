//! Neighbour discovery (RFC 4861 §4.3, §4.4): solicitations and advertisements, with the one option
//! that carries an Ethernet address.
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
//! | Option 1 or 2 |  Length (1)   |                               |
//! +---------------+---------------+                               +
//! |                      Ethernet Address                         |
//! +---------------------------------------------------------------+
//! ```
//!
//! For the control plane: the director never sees these, the kernel answers them.

use std::net::Ipv6Addr;

use super::checksum::Sum;
use super::ethernet::{self, ethertype};
use super::{Malformed, chunk, icmp, ipv6, read, write};
use crate::service::{Address, MacAddress};

/// Bytes of a message without options.
const MESSAGE_LEN: usize = 24;
/// Bytes of the option with an Ethernet address.
const OPTION_LEN: usize = 8;

/// Bytes of a frame with the option.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + MESSAGE_LEN + OPTION_LEN;
/// Bytes of a frame without the option.
pub const PROBE_LEN: usize = FRAME_LEN - OPTION_LEN;

/// Only a hop limit that no router has touched is believed (RFC 4861 §7.1).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const OVERRIDE: u8 = 0x20;
const ROUTER: u8 = 0x80;

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
/// advertisement with the override flag (RFC 4861 §7.2.6). `router` must be true on a host that
/// forwards, or its neighbours drop it from their default routers.
#[must_use]
pub fn unsolicited_advertisement(
    mac: MacAddress,
    address: Ipv6Addr,
    router: bool,
) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    let message = &mut frame[MESSAGE_AT..];
    message[field::TYPE] = ADVERTISEMENT;
    message[field::FLAGS] = OVERRIDE | if router { ROUTER } else { 0 };
    write(message, field::TARGET, address.octets());
    write(message, field::OPTION, [TARGET_LINK_LAYER, 1]);
    write(message, field::OPTION_MAC, mac.0);
    finish(&mut frame, mac, address, ALL_NODES);
    frame
}

/// Asks who has `target`, from `source` at `mac` (RFC 4861 §7.2.2).
#[must_use]
pub fn solicitation(mac: MacAddress, source: Ipv6Addr, target: Ipv6Addr) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    let message = &mut frame[MESSAGE_AT..];
    message[field::TYPE] = SOLICITATION;
    write(message, field::TARGET, target.octets());
    write(message, field::OPTION, [SOURCE_LINK_LAYER, 1]);
    write(message, field::OPTION_MAC, mac.0);
    finish(&mut frame, mac, source, solicited_node(target));
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

/// The multicast address on which the owner of `target` listens (RFC 4291 §2.7.1).
#[must_use]
pub const fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., x, y, z] = target.octets();
    Ipv6Addr::from_octets([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z])
}

/// An advertisement that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    pub target: Ipv6Addr,
    /// From the option, if it is there.
    pub mac: Option<MacAddress>,
}

impl Advertisement {
    /// Reads an untagged frame; `None` for one that is no valid advertisement (RFC 4861 §7.1.2).
    ///
    /// # Errors
    /// What is wrong with its IPv6 header, or [`Malformed::BadIcmp`].
    pub fn parse(frame: &[u8]) -> Result<Option<Self>, Malformed> {
        let ethernet = ethernet::Packet::new_checked(frame)?;
        if ethernet.ethertype() != ethertype::IPV6 {
            return Ok(None);
        }
        let ip = ipv6::Packet::new_checked(ethernet.payload())?;
        if ip.next_header() != icmp::PROTOCOL_V6 || ip.hop_limit() != HOP_LIMIT {
            return Ok(None);
        }
        let bytes = ip.payload();
        let message: &[u8; MESSAGE_LEN] = chunk(bytes, 0).map_err(|_| Malformed::BadIcmp)?;
        if message[field::TYPE] != ADVERTISEMENT {
            return Ok(None);
        }
        if message_sum(bytes, ip.source(), ip.destination()).fold() != 0xffff {
            return Err(Malformed::BadIcmp);
        }
        Ok(Some(Self {
            target: Ipv6Addr::from_octets(read(message, field::TARGET)),
            mac: target_link_layer(&bytes[MESSAGE_LEN..])?,
        }))
    }
}

/// Finds the target's Ethernet address among the options.
fn target_link_layer(mut options: &[u8]) -> Result<Option<MacAddress>, Malformed> {
    while let [kind, units, ..] = *options {
        // In units of 8 bytes; zero is forbidden (RFC 4861 §4.6) and would loop for ever.
        let length = usize::from(units) * 8;
        if length == 0 || length > options.len() {
            return Err(Malformed::BadIcmp);
        }
        if kind == TARGET_LINK_LAYER {
            return Ok(Some(MacAddress(read(options, 2..8))));
        }
        options = &options[length..];
    }
    Ok(None)
}

const MESSAGE_AT: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;

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
