//! ICMP for IPv4 (RFC 792) and ICMPv6 (RFC 4443): errors, with the packet that they quote.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+
//! |     Type      |     Code      |           Checksum            |
//! +---------------+---------------+-------------------------------+
//! |                     by type, an MTU say                       |
//! +---------------------------------------------------------------+
//! |     an error: the packet it is about, from its IP header on,  |
//! |           as much of it as the sender saw fit                 |
//! +---------------------------------------------------------------+
//! ```

use super::parse::Endpoints;
use super::{Malformed, chunk, ipv4, ipv6, read, read_u16, write};
use crate::service::Protocol;

/// Bytes before the quoted packet.
pub const HEADER_LEN: usize = 8;

/// IP protocol number of ICMP.
pub const PROTOCOL_V4: u8 = 1;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_V6: u8 = 58;

/// Types of ICMP for IPv4 that quote a packet.
pub mod v4 {
    pub const DESTINATION_UNREACHABLE: u8 = 3;
    /// Deprecated by RFC 6633, and like IPVS passed on.
    pub const SOURCE_QUENCH: u8 = 4;
    pub const TIME_EXCEEDED: u8 = 11;
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Types of ICMPv6 that quote a packet.
pub mod v6 {
    pub const DESTINATION_UNREACHABLE: u8 = 1;
    pub const PACKET_TOO_BIG: u8 = 2;
    pub const TIME_EXCEEDED: u8 = 3;
    pub const PARAMETER_PROBLEM: u8 = 4;
}

mod field {
    use std::ops::Range;

    pub(super) const TYPE: usize = 0;
    pub(super) const CODE: usize = 1;
    pub(super) const CHECKSUM: Range<usize> = 2..4;
    /// Of what says that a packet is too big; the two bytes before are zero, also in ICMPv6, as no
    /// packet without a jumbo payload option is longer than 64 KiB.
    pub(super) const MTU: Range<usize> = 6..8;
}

/// A message of either version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of the bytes of a message, without padding.
    ///
    /// # Errors
    /// [`Malformed::BadIcmp`] if they are fewer than a header.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        chunk::<HEADER_LEN>(buffer.as_ref(), 0).map_err(|_| Malformed::BadIcmp)?;
        Ok(Self { buffer })
    }

    #[inline]
    pub fn message_type(&self) -> u8 {
        self.buffer.as_ref()[field::TYPE]
    }

    #[inline]
    pub fn code(&self) -> u8 {
        self.buffer.as_ref()[field::CODE]
    }

    /// As it is in the header: over the message, and for ICMPv6 a pseudo-header.
    #[inline]
    pub fn checksum(&self) -> [u8; 2] {
        read(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Of an error that says that a packet was too big: how many bytes, IP header included, it may
    /// have. 0 from routers older than RFC 1191.
    #[inline]
    pub fn mtu(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::MTU)
    }

    /// True for a type of ICMP for IPv4 that quotes the packet it is about.
    #[inline]
    pub fn is_error_v4(&self) -> bool {
        use v4::{DESTINATION_UNREACHABLE, PARAMETER_PROBLEM, SOURCE_QUENCH, TIME_EXCEEDED};
        matches!(
            self.message_type(),
            DESTINATION_UNREACHABLE | SOURCE_QUENCH | TIME_EXCEEDED | PARAMETER_PROBLEM
        )
    }

    /// True for an error of ICMPv6 that quotes the packet it is about. RFC 4443 §2.1 calls all types
    /// below 128 errors; unknown ones are not followed.
    #[inline]
    pub fn is_error_v6(&self) -> bool {
        use v6::{DESTINATION_UNREACHABLE, PACKET_TOO_BIG, PARAMETER_PROBLEM, TIME_EXCEEDED};
        matches!(
            self.message_type(),
            DESTINATION_UNREACHABLE | PACKET_TOO_BIG | TIME_EXCEEDED | PARAMETER_PROBLEM
        )
    }

    /// The quoted packet, for an error.
    #[inline]
    pub fn quoted(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the checksum, as it is in the header.
    #[inline]
    pub fn set_checksum(&mut self, checksum: [u8; 2]) {
        write(self.buffer.as_mut(), field::CHECKSUM, checksum);
    }

    /// The quoted packet of an error, to be changed.
    #[inline]
    pub fn quoted_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }
}

/// Addresses, ports and protocol of a quoted IPv4 packet; `None` if it is of a protocol or a
/// fragment without ports.
///
/// A quote is cut off, so its total length says nothing, and its checksum was true before some
/// router touched the header, so it is not looked at.
///
/// # Errors
/// [`Malformed::BadIcmp`] if it ends before the ports or is no IPv4.
pub(crate) fn quoted_v4(packet: &[u8]) -> Result<Option<Endpoints>, Malformed> {
    let broken = |_| Malformed::BadIcmp;
    let ip = ipv4::Packet::header(packet, 0).map_err(broken)?;
    if ip.version() != 4 || ip.header_len() < ipv4::HEADER_LEN {
        return Err(Malformed::BadIcmp);
    }
    if ip.fragment() == ipv4::Fragment::Later || !has_ports(ip.protocol()) {
        return Ok(None);
    }
    let [source_port, destination_port] = ports(packet, ip.header_len()).map_err(broken)?;
    Ok(Some(Endpoints {
        source: ip.source(),
        destination: ip.destination(),
        source_port,
        destination_port,
        protocol: ip.protocol(),
    }))
}

/// As [`quoted_v4`], for a quoted IPv6 packet.
pub(crate) fn quoted_v6(packet: &[u8]) -> Result<Option<Endpoints>, Malformed> {
    let broken = |_| Malformed::BadIcmp;
    let ip = ipv6::Packet::header(packet, 0).map_err(broken)?;
    if ip.version() != 6 || ip.source().is_v4() || ip.destination().is_v4() {
        return Err(Malformed::BadIcmp);
    }
    let upper = ipv6::walk(packet, 0, ip.next_header()).map_err(broken)?;
    if upper.fragment == ipv4::Fragment::Later || !has_ports(upper.protocol) {
        return Ok(None);
    }
    let [source_port, destination_port] = ports(packet, upper.offset).map_err(broken)?;
    Ok(Some(Endpoints {
        source: ip.source(),
        destination: ip.destination(),
        source_port,
        destination_port,
        protocol: upper.protocol,
    }))
}

fn has_ports(protocol: u8) -> bool {
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    known.iter().any(|known| *known as u8 == protocol)
}

/// Source and destination port, which TCP, UDP and SCTP have at the same place.
fn ports(packet: &[u8], at: usize) -> Result<[u16; 2], Malformed> {
    let header: &[u8; 4] = chunk(packet, at)?;
    Ok([read_u16(header, 0..2), read_u16(header, 2..4)])
}
