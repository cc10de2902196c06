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

use super::{Malformed, chunk, read_u16};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

mod field {
    use std::ops::Range;

    pub(super) const SOURCE_PORT: Range<usize> = 0..2;
    pub(super) const DESTINATION_PORT: Range<usize> = 2..4;
    pub(super) const LENGTH: Range<usize> = 4..6;
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
}

impl<'a> Packet<&'a [u8; HEADER_LEN]> {
    /// The header at `at`; nothing is checked but its presence.
    #[inline(always)]
    pub(super) fn header(bytes: &'a [u8], at: usize) -> Result<Self, Malformed> {
        chunk(bytes, at).map(|buffer| Self { buffer })
    }
}
