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

use std::net::Ipv4Addr;

use super::ethernet::{self, ethertype};
use super::{Malformed, chunk, read, read_u16, write};
use crate::service::MacAddress;

/// Bytes of an ARP packet for IPv4 over Ethernet.
pub const PACKET_LEN: usize = 28;

/// Bytes of the frame around it, before the network card pads it to 60.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + PACKET_LEN;

const BROADCAST: MacAddress = MacAddress([0xff; 6]);
const UNKNOWN: MacAddress = MacAddress([0; 6]);
/// Ethernet, IPv4, and their address lengths: what every packet here begins with.
const ETHERNET_IPV4: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];

mod field {
    use std::ops::Range;

    pub(super) const TYPES_AND_LENGTHS: Range<usize> = 0..6;
    pub(super) const OPERATION: Range<usize> = 6..8;
    pub(super) const SENDER_MAC: Range<usize> = 8..14;
    pub(super) const SENDER_IP: Range<usize> = 14..18;
    pub(super) const TARGET_MAC: Range<usize> = 18..24;
    pub(super) const TARGET_IP: Range<usize> = 24..28;
}

/// What an ARP packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    Request = 1,
    Reply = 2,
}

/// The contents of an ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    pub operation: Operation,
    pub sender_mac: MacAddress,
    pub sender_ip: Ipv4Addr,
    pub target_mac: MacAddress,
    pub target_ip: Ipv4Addr,
}

impl Repr {
    /// Reads an ARP packet, from its hardware type on; padding may follow.
    ///
    /// `None` for what is not a request or a reply for IPv4 over Ethernet.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    pub fn parse(packet: &[u8]) -> Result<Option<Self>, Malformed> {
        let packet: &[u8; PACKET_LEN] = chunk(packet, 0)?;
        if packet[field::TYPES_AND_LENGTHS] != ETHERNET_IPV4 {
            return Ok(None);
        }
        let operation = match read_u16(packet, field::OPERATION) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Ok(None),
        };
        Ok(Some(Self {
            operation,
            sender_mac: MacAddress(read(packet, field::SENDER_MAC)),
            sender_ip: Ipv4Addr::from_octets(read(packet, field::SENDER_IP)),
            target_mac: MacAddress(read(packet, field::TARGET_MAC)),
            target_ip: Ipv4Addr::from_octets(read(packet, field::TARGET_IP)),
        }))
    }

    /// Tells everyone that `ip` is at `mac`: an ARP announcement (RFC 5227 §1.1), which is a
    /// "gratuitous ARP" in the form of a request.
    #[must_use]
    pub const fn announcement(mac: MacAddress, ip: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender_ip: ip,
            target_mac: UNKNOWN,
            target_ip: ip,
        }
    }

    /// Asks whether anyone has `ip` without touching anyone's cache (RFC 5227 §2.1.1).
    #[must_use]
    pub const fn probe(mac: MacAddress, ip: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender_ip: Ipv4Addr::UNSPECIFIED,
            target_mac: UNKNOWN,
            target_ip: ip,
        }
    }

    /// True if this packet, received by the host with `mac`, shows that another host has or wants
    /// `ip`, which the receiver is probing for (RFC 5227 §2.1.1).
    #[must_use]
    pub fn conflicts_with_probe(&self, mac: MacAddress, ip: Ipv4Addr) -> bool {
        let claims = self.sender_ip == ip;
        let probes = self.operation == Operation::Request
            && self.sender_ip.is_unspecified()
            && self.target_ip == ip;
        self.sender_mac != mac && (claims || probes)
    }

    /// The frame that carries it: a request to everyone, a reply to its target.
    #[must_use]
    pub fn frame(&self) -> [u8; FRAME_LEN] {
        let mut frame = [0; FRAME_LEN];
        let (header, packet) = frame.split_at_mut(ethernet::HEADER_LEN);
        // Both parts have the length that the setters rely on, by the constants above.
        if let Ok(mut header) = ethernet::Packet::new_checked(header) {
            header.set_destination(match self.operation {
                Operation::Request => BROADCAST,
                Operation::Reply => self.target_mac,
            });
            header.set_source(self.sender_mac);
            header.set_ethertype(ethertype::ARP);
        }
        write(packet, field::TYPES_AND_LENGTHS, ETHERNET_IPV4);
        write(
            packet,
            field::OPERATION,
            (self.operation as u16).to_be_bytes(),
        );
        write(packet, field::SENDER_MAC, self.sender_mac.0);
        write(packet, field::SENDER_IP, self.sender_ip.octets());
        write(packet, field::TARGET_MAC, self.target_mac.0);
        write(packet, field::TARGET_IP, self.target_ip.octets());
        frame
    }
}
