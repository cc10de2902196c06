//! TCP header (RFC 9293 §3.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |          Source Port          |       Destination Port        |
//! +-------------------------------+-------------------------------+
//! |                        Sequence Number                        |
//! +---------------------------------------------------------------+
//! |                    Acknowledgment Number                      |
//! +-------+-------+-+-+-+-+-+-+-+-+-------------------------------+
//! | Data  |       |C|E|U|A|P|R|S|F|                               |
//! | Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
//! |       |       |R|E|G|K|H|T|N|N|                               |
//! +-------+-------+-+-+-+-+-+-+-+-+-------------------------------+
//! |           Checksum            |         Urgent Pointer        |
//! +-------------------------------+-------------------------------+
//! |                    Options, 0 to 40 bytes                     |
//! +---------------------------------------------------------------+
//! ```

use super::checksum::Sum;
use super::{Malformed, chunk, read_u16, read_u32, write};
use crate::service::{Address, Protocol};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// Flags, as in the header's byte 13.
pub mod flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
    pub const ECE: u8 = 0x40;
    pub const CWR: u8 = 0x80;

    /// True for a segment that begins or ends something; others only go on.
    #[inline(always)]
    #[must_use]
    pub const fn changes_state(flags: u8) -> bool {
        flags & (SYN | FIN | RST) != 0
    }

    /// True for a segment that asks for a connection: a SYN with nothing set that contradicts it.
    #[inline(always)]
    #[must_use]
    pub const fn is_request(flags: u8) -> bool {
        flags & (SYN | ACK | RST | FIN) == SYN
    }
}

mod field {
    use std::ops::Range;

    pub(super) const SOURCE_PORT: Range<usize> = 0..2;
    pub(super) const DESTINATION_PORT: Range<usize> = 2..4;
    pub(super) const SEQUENCE: Range<usize> = 4..8;
    pub(super) const ACKNOWLEDGMENT: Range<usize> = 8..12;
    pub(super) const DATA_OFFSET: usize = 12;
    pub(super) const FLAGS: usize = 13;
    pub(super) const WINDOW: Range<usize> = 14..16;
    pub(super) const CHECKSUM: Range<usize> = 16..18;
}

/// A segment, from its source port to the end of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of the bytes of a whole segment, without padding.
    ///
    /// # Errors
    /// [`Malformed::BadTcpHeader`].
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        chunk::<HEADER_LEN>(buffer.as_ref(), 0).map_err(|_| Malformed::BadTcpHeader)?;
        let packet = Self { buffer };
        if (HEADER_LEN..=packet.buffer.as_ref().len()).contains(&packet.header_len()) {
            Ok(packet)
        } else {
            Err(Malformed::BadTcpHeader)
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

    #[inline]
    pub fn sequence(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::SEQUENCE)
    }

    #[inline]
    pub fn acknowledgment(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::ACKNOWLEDGMENT)
    }

    /// Bytes of the header with its options: the data offset.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.buffer.as_ref()[field::DATA_OFFSET] >> 4) * 4
    }

    /// The [`flags`].
    #[inline]
    pub fn flags(&self) -> u8 {
        self.buffer.as_ref()[field::FLAGS]
    }

    /// Bytes that the sender accepts beyond the acknowledgment, before any scaling.
    #[inline]
    pub fn window(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::WINDOW)
    }

    /// The options, padding included.
    #[inline]
    pub fn options(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..self.header_len()]
    }

    /// What follows header and options.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[self.header_len()..]
    }

    /// Sequence numbers that the segment takes up: its payload, SYN and FIN (RFC 9293 §3.4,
    /// `SEG.LEN`). Segments are below 64 KiB, which fits.
    #[inline]
    pub fn segment_len(&self) -> u32 {
        let payload = u32::try_from(self.payload().len()).unwrap_or(u32::MAX - 2);
        let flags = self.flags();
        payload + u32::from(flags & flags::SYN != 0) + u32::from(flags & flags::FIN != 0)
    }
}

impl<'a> Packet<&'a [u8; HEADER_LEN]> {
    /// The fixed part of the header at `at`; its accessors check no bounds, and nothing else is
    /// checked either.
    #[inline(always)]
    pub(super) fn header(bytes: &'a [u8], at: usize) -> Result<Self, Malformed> {
        chunk(bytes, at).map(|buffer| Self { buffer })
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// A header without options over the first [`HEADER_LEN`] bytes of `buffer`, all of whose other
    /// fields are zero; for building a segment.
    ///
    /// # Errors
    /// [`Malformed::BadTcpHeader`] if the buffer is shorter.
    pub fn new_plain(mut buffer: T) -> Result<Self, Malformed> {
        let header = buffer
            .as_mut()
            .first_chunk_mut::<HEADER_LEN>()
            .ok_or(Malformed::BadTcpHeader)?;
        *header = [0; HEADER_LEN];
        header[field::DATA_OFFSET] = 5 << 4;
        Ok(Self { buffer })
    }

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
    pub fn set_sequence(&mut self, number: u32) {
        write(self.buffer.as_mut(), field::SEQUENCE, number.to_be_bytes());
    }

    #[inline]
    pub fn set_acknowledgment(&mut self, number: u32) {
        write(
            self.buffer.as_mut(),
            field::ACKNOWLEDGMENT,
            number.to_be_bytes(),
        );
    }

    #[inline]
    pub fn set_flags(&mut self, flags: u8) {
        self.buffer.as_mut()[field::FLAGS] = flags;
    }

    #[inline]
    pub fn set_window(&mut self, window: u16) {
        write(self.buffer.as_mut(), field::WINDOW, window.to_be_bytes());
    }

    /// Puts options, a multiple of four bytes, behind the fixed header.
    ///
    /// # Errors
    /// [`Malformed::BadTcpHeader`] if they are more than 40 bytes, or the buffer is shorter.
    pub fn set_options(&mut self, options: &[u8]) -> Result<(), Malformed> {
        let end = HEADER_LEN + options.len();
        let words = u8::try_from(end / 4).map_err(|_| Malformed::BadTcpHeader)?;
        let buffer = self.buffer.as_mut();
        let place = buffer.get_mut(HEADER_LEN..end).filter(|_| words <= 15);
        place
            .ok_or(Malformed::BadTcpHeader)?
            .copy_from_slice(options);
        buffer[field::DATA_OFFSET] = words << 4;
        Ok(())
    }

    #[inline]
    fn set_checksum(&mut self, checksum: u16) {
        write(
            self.buffer.as_mut(),
            field::CHECKSUM,
            checksum.to_be_bytes(),
        );
    }

    /// Computes the checksum of the whole segment anew.
    pub fn fill_checksum(&mut self, source: Address, destination: Address) {
        self.set_checksum(0);
        let sum = segment_sum(self.buffer.as_ref(), source, destination);
        self.set_checksum(sum.checksum());
    }
}

fn segment_sum(segment: &[u8], source: Address, destination: Address) -> Sum {
    // A segment is no longer than an IP packet.
    let length = u32::try_from(segment.len()).unwrap_or(u32::MAX);
    Sum::ZERO
        .pseudo_header(source, destination, Protocol::Tcp as u8, length)
        .bytes(segment)
}
