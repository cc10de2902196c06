//! UDP header (RFC 768).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |          Source Port          |       Destination Port        |
//! +-------------------------------+-------------------------------+
//! |            Length             |           Checksum            |
//! +-------------------------------+-------------------------------+
//! ```

use super::checksum::Sum;
use super::{Malformed, chunk, read_u16, write};
use crate::service::{Address, Protocol};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

mod field {
    use std::ops::Range;

    pub(super) const SOURCE_PORT: Range<usize> = 0..2;
    pub(super) const DESTINATION_PORT: Range<usize> = 2..4;
    pub(super) const LENGTH: Range<usize> = 4..6;
    pub(super) const CHECKSUM: Range<usize> = 6..8;
}

/// A datagram, from its source port on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of bytes that hold the whole datagram.
    ///
    /// # Errors
    /// [`Malformed::BadUdpHeader`].
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        chunk::<HEADER_LEN>(buffer.as_ref(), 0).map_err(|_| Malformed::BadUdpHeader)?;
        let packet = Self { buffer };
        if (HEADER_LEN..=packet.buffer.as_ref().len()).contains(&packet.total_len()) {
            Ok(packet)
        } else {
            Err(Malformed::BadUdpHeader)
        }
    }

    #[inline]
    pub fn source_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::SOURCE_PORT)
    }

    #[inline]
    pub fn destination_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::DESTINATION_PORT)
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(read_u16(self.buffer.as_ref(), field::LENGTH))
    }

    /// Zero: none (IPv4 only).
    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// True if the datagram sums up with its checksum, or has none and is IPv4.
    pub fn verify_checksum(&self, source: Address, destination: Address) -> bool {
        if self.checksum() == 0 {
            return destination.is_v4();
        }
        self.sum(source, destination).fold() == 0xffff
    }

    fn sum(&self, source: Address, destination: Address) -> Sum {
        let length = read_u16(self.buffer.as_ref(), field::LENGTH);
        Sum::ZERO
            .pseudo_header(source, destination, Protocol::Udp as u8, u32::from(length))
            .bytes(&self.buffer.as_ref()[..self.total_len()])
    }

    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..self.total_len()]
    }
}

impl<'a> Packet<&'a [u8; HEADER_LEN]> {
    /// The header at `at`; nothing is checked but its presence.
    #[inline(always)]
    pub(super) fn header(bytes: &'a [u8], at: usize) -> Result<Self, Malformed> {
        chunk(bytes, at).map(|buffer| Self { buffer })
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    #[inline]
    pub fn set_source_port(&mut self, port: u16) {
        write(self.buffer.as_mut(), field::SOURCE_PORT, port.to_be_bytes());
    }

    #[inline]
    pub fn set_destination_port(&mut self, port: u16) {
        write(
            self.buffer.as_mut(),
            field::DESTINATION_PORT,
            port.to_be_bytes(),
        );
    }

    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        write(
            self.buffer.as_mut(),
            field::CHECKSUM,
            checksum.to_be_bytes(),
        );
    }

    /// Computes the checksum of the datagram anew.
    pub fn fill_checksum(&mut self, source: Address, destination: Address) {
        self.set_checksum(0);
        let sum = self.sum(source, destination);
        self.set_checksum(sum.udp_checksum());
    }
}
