//! Packet formats: one header a file, as checked views over bytes.
//!
//! A view is `Packet<T: AsRef<[u8]>>`. `new_checked` looks at every length that the accessors rely
//! on, so that on a checked view no accessor panics, whatever the bytes are; the setters, for
//! `T: AsMut<[u8]>`, keep to the same ranges. The hot path is [`parse()`], which takes one
//! fixed-size chunk a header (`Packet<&[u8; N]>`), so that one bounds check covers all its fields.
//!
//! Multi-byte fields are in network byte order on the wire and in host byte order in Rust;
//! addresses stay bytes. Nothing here allocates, and nothing verifies a TCP, UDP, SCTP or ICMP checksum:
//! the director forwards what it does not own, and the real server verifies it.

use std::ops::Range;

pub mod arp;
mod burst;
pub mod checksum;
pub mod ethernet;
pub mod gre;
pub mod gue;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod ndisc;
pub mod parse;
pub mod sctp;
pub mod tcp;
pub mod tcp_offer;
pub mod tcp_options;
pub mod udp;
pub mod vlan;

pub(crate) use burst::{Headers, parse_burst};
pub(crate) use parse::plain_tcp_flags;
pub use parse::{Kind, Parsed, Plain, parse, parse_plain};

#[cfg(test)]
mod tests;

/// Where [`parse_plain`] finds the IP header, in bytes.
pub const PLAIN_L3_OFFSET: u16 = 14;
/// Where such a packet has its TCP or UDP header.
pub const PLAIN_L4_OFFSET: u16 = PLAIN_L3_OFFSET + 20;

/// Why bytes are not the packet that they claim to be. Each becomes a drop reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    #[error("the frame ends inside a header")]
    Truncated,
    #[error("the IP version is not the one that the EtherType says")]
    BadIpVersion,
    #[error("the IPv4 header length is below 20 bytes or beyond the packet")]
    BadIpHeaderLength,
    #[error("the IP length is below the header's or beyond the frame")]
    BadIpTotalLength,
    #[error("the IPv4 header checksum is wrong")]
    BadIpChecksum,
    #[error("the IPv6 extension headers are too many or reach beyond the packet")]
    BadExtensionHeader,
    #[error("an IPv6 packet carries an IPv4-mapped address, which never belongs on the wire")]
    MappedAddress,
    #[error("the TCP header is cut off, or its data offset is below 20 or beyond the packet")]
    BadTcpHeader,
    #[error("the UDP header is cut off, or its length is below 8 or beyond the packet")]
    BadUdpHeader,
    #[error("the SCTP header is cut off")]
    BadSctpHeader,
    #[error("the ICMP header, or the packet quoted by an ICMP error, is cut off or broken")]
    BadIcmp,
}

/// The `N` bytes at `at`.
#[inline(always)]
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Result<&[u8; N], Malformed> {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .ok_or(Malformed::Truncated)
}

/// The two bytes of `field`, in host byte order.
#[inline(always)]
fn read_u16(bytes: &[u8], field: Range<usize>) -> u16 {
    u16::from_be_bytes(read(bytes, field))
}

/// The four bytes of `field`, in host byte order.
#[inline(always)]
fn read_u32(bytes: &[u8], field: Range<usize>) -> u32 {
    u32::from_be_bytes(read(bytes, field))
}

/// The bytes of `field`, which is `N` long.
#[inline(always)]
fn read<const N: usize>(bytes: &[u8], field: Range<usize>) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[field]);
    value
}

/// Writes `value` to `field`, which is as long.
#[inline(always)]
fn write<const N: usize>(bytes: &mut [u8], field: Range<usize>, value: [u8; N]) {
    bytes[field].copy_from_slice(&value);
}
