//! IPv6 header and extension headers (RFC 8200 §3, §4).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+---------------+---------------------------------------+
//! |Version| Traffic Class |              Flow Label               |
//! +-------+---------------+-------+---------------+---------------+
//! |         Payload Length        |  Next Header  |   Hop Limit   |
//! +-------------------------------+---------------+---------------+
//! |                   Source Address, 16 bytes                    |
//! +---------------------------------------------------------------+
//! |                 Destination Address, 16 bytes                 |
//! +---------------------------------------------------------------+
//! ```
//!
//! Extension headers that are skipped begin with next header and length in units of 8 bytes, the
//! first 8 not counted; the fragment header (§4.5) is always 8 bytes:
//!
//! ```text
//! +---------------+---------------+-------------------------+---+-+
//! |  Next Header  |   Reserved    |     Fragment Offset     |Res|M|
//! +---------------+---------------+-------------------------+---+-+
//! |                        Identification                         |
//! +---------------------------------------------------------------+
//! ```
//!
//! AH and ESP are not walked: what is under them is not balanced. Jumbograms (RFC 2675) are
//! malformed here: no frame holds one.

use super::ipv4::Fragment;
use super::{Malformed, chunk, read, read_u16, write};
use crate::service::Address;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// Most extension headers that are walked. RFC 8200 §4.1 orders at most six before the upper layer
/// (destination options twice); more is an attempt to burn our time.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Extension header numbers.
pub mod extension {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const DESTINATION_OPTIONS: u8 = 60;
}

mod field {
    use std::ops::Range;

    pub(super) const VERSION: usize = 0;
    pub(super) const VERSION_CLASS_LABEL: Range<usize> = 0..4;
    pub(super) const PAYLOAD_LENGTH: Range<usize> = 4..6;
    pub(super) const NEXT_HEADER: usize = 6;
    pub(super) const HOP_LIMIT: usize = 7;
    pub(super) const SOURCE: Range<usize> = 8..24;
    pub(super) const DESTINATION: Range<usize> = 24..40;
}

/// A packet, from its version on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of bytes that hold the whole packet, and perhaps padding after it.
    ///
    /// # Errors
    /// `Truncated`, `BadIpVersion`, `BadIpTotalLength`.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        chunk::<HEADER_LEN>(buffer.as_ref(), 0)?;
        let packet = Self { buffer };
        if packet.version() != 6 {
            return Err(Malformed::BadIpVersion);
        }
        if packet.total_len() > packet.buffer.as_ref().len() {
            return Err(Malformed::BadIpTotalLength);
        }
        Ok(packet)
    }

    #[inline]
    pub fn version(&self) -> u8 {
        self.buffer.as_ref()[field::VERSION] >> 4
    }

    /// Bytes after the fixed header: extension headers and upper layer.
    #[inline]
    pub fn payload_len(&self) -> usize {
        usize::from(read_u16(self.buffer.as_ref(), field::PAYLOAD_LENGTH))
    }

    /// The same, as it is in the header.
    #[inline]
    pub fn payload_len_u16(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::PAYLOAD_LENGTH)
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn total_len(&self) -> usize {
        HEADER_LEN + self.payload_len()
    }

    /// Bytes of header and payload as an IPv4 header would say it; one that is too long for that comes
    /// out as the most.
    #[inline]
    pub fn total_len_u16(&self) -> u16 {
        self.payload_len_u16().saturating_add(40)
    }

    /// Number of the first extension header or of the upper layer.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.buffer.as_ref()[field::NEXT_HEADER]
    }

    /// DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        let [high, low] = read(self.buffer.as_ref(), 0..2);
        high << 4 | low >> 4
    }

    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.buffer.as_ref()[field::HOP_LIMIT]
    }

    #[inline]
    pub fn source(&self) -> Address {
        Address::from_octets(read(self.buffer.as_ref(), field::SOURCE))
    }

    #[inline]
    pub fn destination(&self) -> Address {
        Address::from_octets(read(self.buffer.as_ref(), field::DESTINATION))
    }

    /// What follows the fixed header, without padding.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..self.total_len()]
    }
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of bytes that begin with a whole fixed header, of a packet that may be cut off behind it:
    /// what an ICMP error quotes. Only header accessors may be used.
    ///
    /// # Errors
    /// `Truncated`, `BadIpVersion`.
    pub fn new_header(buffer: T) -> Result<Self, Malformed> {
        chunk::<HEADER_LEN>(buffer.as_ref(), 0)?;
        let packet = Self { buffer };
        if packet.version() == 6 {
            Ok(packet)
        } else {
            Err(Malformed::BadIpVersion)
        }
    }
}

impl<'a> Packet<&'a [u8; HEADER_LEN]> {
    /// The fixed header at `at`; its accessors check no bounds, and nothing else is checked either.
    #[inline(always)]
    pub(crate) fn header(bytes: &'a [u8], at: usize) -> Result<Self, Malformed> {
        chunk(bytes, at).map(|buffer| Self { buffer })
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Takes one from the hop limit; false, and nothing changed, when the packet may not be
    /// forwarded any more (RFC 8200 §3).
    #[inline(always)]
    #[must_use = "a packet whose hop limit is reached must not be forwarded"]
    pub fn decrement_hop_limit(&mut self) -> bool {
        let hop_limit = self.hop_limit();
        if hop_limit <= 1 {
            return false;
        }
        self.set_hop_limit(hop_limit - 1);
        true
    }

    #[inline]
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.buffer.as_mut()[field::HOP_LIMIT] = hop_limit;
    }

    /// Sets version 6, traffic class 0 and flow label 0.
    #[inline]
    pub fn set_plain_header(&mut self) {
        write(
            self.buffer.as_mut(),
            field::VERSION_CLASS_LABEL,
            [0x60, 0, 0, 0],
        );
    }

    /// Sets version 6, this traffic class (DSCP and ECN) and flow label 0.
    #[inline]
    pub fn set_traffic_class(&mut self, class: u8) {
        write(
            self.buffer.as_mut(),
            field::VERSION_CLASS_LABEL,
            [0x60 | class >> 4, class << 4, 0, 0],
        );
    }

    /// Sets the bytes after the fixed header.
    #[inline]
    pub fn set_payload_len(&mut self, length: u16) {
        write(
            self.buffer.as_mut(),
            field::PAYLOAD_LENGTH,
            length.to_be_bytes(),
        );
    }

    #[inline]
    pub fn set_next_header(&mut self, next_header: u8) {
        self.buffer.as_mut()[field::NEXT_HEADER] = next_header;
    }

    /// Sets the source address without adjusting any checksum.
    #[inline]
    pub fn set_source(&mut self, address: Address) {
        write(self.buffer.as_mut(), field::SOURCE, address.octets());
    }

    /// Sets the destination address without adjusting any checksum.
    #[inline]
    pub fn set_destination(&mut self, address: Address) {
        write(self.buffer.as_mut(), field::DESTINATION, address.octets());
    }
}

impl<'a> Packet<&'a mut [u8; HEADER_LEN]> {
    /// The fixed header of a packet that was parsed before; for writing without bounds checks.
    #[inline(always)]
    #[must_use]
    pub fn header_mut(buffer: &'a mut [u8; HEADER_LEN]) -> Self {
        Self { buffer }
    }
}

/// What is found behind the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// Protocol number of the upper layer; of a later fragment, what its fragment header says.
    pub protocol: u8,
    /// Where the upper layer begins, in bytes from the start of `bytes`; never beyond them.
    pub offset: usize,
    pub fragment: Fragment,
}

/// Walks the extension headers behind the fixed header that begins at `at`; `bytes` end where the
/// packet does.
///
/// A fragment header that fragments nothing (RFC 6946) leaves the packet whole.
///
/// # Errors
/// [`Malformed::BadExtensionHeader`] for more than [`MAX_EXTENSION_HEADERS`], or one that reaches
/// beyond the packet.
#[inline]
pub fn walk(bytes: &[u8], at: usize, next_header: u8) -> Result<Upper, Malformed> {
    let offset = at + HEADER_LEN;
    if is_extension(next_header) {
        return walk_extensions(bytes, offset, next_header);
    }
    Ok(Upper {
        protocol: next_header,
        offset,
        fragment: Fragment::Whole,
    })
}

/// Bytes of a fragment header.
pub const FRAGMENT_HEADER_LEN: usize = 8;

/// What a fragment header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Number of the first header of the fragmented part.
    pub next_header: u8,
    /// Where the fragment's payload begins in that of the datagram, in bytes, a multiple of eight.
    pub offset: u16,
    /// It is not the last.
    pub more: bool,
    pub identification: u32,
}

impl FragmentHeader {
    /// As it is in a packet.
    #[must_use]
    pub fn bytes(&self) -> [u8; FRAGMENT_HEADER_LEN] {
        let [high, low] = (self.offset | u16::from(self.more)).to_be_bytes();
        let [a, b, c, d] = self.identification.to_be_bytes();
        [self.next_header, 0, high, low, a, b, c, d]
    }
}

/// The fragment header of the packet at the start of `packet`; `None` for one without.
#[cold]
#[must_use]
pub fn fragment_header(packet: &[u8]) -> Option<FragmentHeader> {
    let mut number = Packet::new_header(packet).ok()?.next_header();
    let mut offset = HEADER_LEN;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(number) {
            return None;
        }
        let header: &[u8; 8] = chunk(packet, offset).ok()?;
        let [next, length, high, low, identification @ ..] = *header;
        if number == extension::FRAGMENT {
            let field = u16::from_be_bytes([high, low]);
            return Some(FragmentHeader {
                next_header: next,
                offset: field & 0xfff8,
                more: field & 1 != 0,
                identification: u32::from_be_bytes(identification),
            });
        }
        number = next;
        offset += (usize::from(length) + 1) * 8;
    }
    None
}

const fn is_extension(number: u8) -> bool {
    use extension::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};
    matches!(
        number,
        HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS
    )
}

#[cold]
fn walk_extensions(bytes: &[u8], offset: usize, next_header: u8) -> Result<Upper, Malformed> {
    let mut upper = Upper {
        protocol: next_header,
        offset,
        fragment: Fragment::Whole,
    };
    for _ in 0..MAX_EXTENSION_HEADERS {
        let header: &[u8; 8] =
            chunk(bytes, upper.offset).map_err(|_| Malformed::BadExtensionHeader)?;
        let [next, length, fragment_high, fragment_low, ..] = *header;
        if upper.protocol == extension::FRAGMENT {
            let field = u16::from_be_bytes([fragment_high, fragment_low]);
            upper.offset += 8;
            if field & 0xfff8 != 0 {
                upper.protocol = next;
                upper.fragment = Fragment::Later;
                return Ok(upper);
            }
            if field & 1 != 0 {
                upper.fragment = Fragment::First;
            }
        } else {
            upper.offset += (usize::from(length) + 1) * 8;
        }
        upper.protocol = next;
        if upper.offset > bytes.len() {
            return Err(Malformed::BadExtensionHeader);
        }
        if !is_extension(next) {
            return Ok(upper);
        }
    }
    Err(Malformed::BadExtensionHeader)
}
