//! SCTP common header (RFC 9260 §3.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |          Source Port          |       Destination Port        |
//! +-------------------------------+-------------------------------+
//! |                       Verification Tag                        |
//! +---------------------------------------------------------------+
//! |                       Checksum: CRC32c                        |
//! +---------------------------------------------------------------+
//! ```
//!
//! The checksum covers the whole packet and no IP address: a change of addresses leaves it alone.

use super::{Malformed, chunk, read, read_u16, write};

/// Bytes of the common header.
pub const HEADER_LEN: usize = 12;

/// IP protocol number.
pub const PROTOCOL: u8 = 132;

/// Bytes of a chunk's header: type, flags, length.
const CHUNK_HEADER_LEN: usize = 4;

/// Most chunks of a packet that are looked at: what an end says stands before its data.
const CHUNKS: usize = 4;

/// What a packet says to the state of its association: the strongest of its chunks (RFC 9260 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Data, or anything else that changes no state.
    Data,
    Init,
    InitAck,
    CookieEcho,
    CookieAck,
    Shutdown,
    ShutdownAck,
    ShutdownComplete,
    Error,
    Abort,
}

impl Chunk {
    fn of(chunk_type: u8) -> Self {
        match chunk_type {
            1 => Self::Init,
            2 => Self::InitAck,
            6 => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Data,
        }
    }
}

mod field {
    use std::ops::Range;

    pub(super) const PORTS: Range<usize> = 0..4;
    pub(super) const SOURCE_PORT: Range<usize> = 0..2;
    pub(super) const DESTINATION_PORT: Range<usize> = 2..4;
    pub(super) const CHECKSUM: Range<usize> = 8..12;
}

/// A packet, from its source port to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of the bytes of a whole packet, without padding.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] if they are fewer than a header.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        chunk::<HEADER_LEN>(buffer.as_ref(), 0)?;
        Ok(Self { buffer })
    }

    #[inline]
    pub fn source_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::SOURCE_PORT)
    }

    #[inline]
    pub fn destination_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::DESTINATION_PORT)
    }

    /// The first of its chunks that changes a state; an ABORT, which may follow others (RFC 9260
    /// §3.3.7), counts more than any.
    #[must_use]
    pub fn chunk(&self) -> Chunk {
        let mut rest = &self.buffer.as_ref()[HEADER_LEN..];
        let mut strongest = Chunk::Data;
        for _ in 0..CHUNKS {
            let Some(&[chunk_type, _, high, low]) = rest.first_chunk::<CHUNK_HEADER_LEN>() else {
                break;
            };
            match (Chunk::of(chunk_type), strongest) {
                (Chunk::Abort, _) => return Chunk::Abort,
                (chunk, Chunk::Data) => strongest = chunk,
                _ => {}
            }
            let length = usize::from(u16::from_be_bytes([high, low])).max(CHUNK_HEADER_LEN);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        strongest
    }

    /// The checksum that the packet's bytes call for.
    fn computed_checksum(&self) -> u32 {
        let bytes = self.buffer.as_ref();
        let crc = crc32c::crc32c(&bytes[..field::CHECKSUM.start]);
        let crc = crc32c::crc32c_append(crc, &[0; 4]); // its own field counts as zero
        crc32c::crc32c_append(crc, &bytes[field::CHECKSUM.end..])
    }

    /// True if the packet carries the checksum that its bytes call for.
    pub fn verify_checksum(&self) -> bool {
        self.checksum() == self.computed_checksum()
    }

    /// Least significant byte first on the wire, unlike all else (RFC 9260 appendix A).
    fn checksum(&self) -> u32 {
        u32::from_le_bytes(read(self.buffer.as_ref(), field::CHECKSUM))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets both ports, as they are in a header, and adjusts the checksum.
    ///
    /// What is added to the checksum is the difference between those of the packet before and after,
    /// so a packet that was damaged before stays recognisable as such.
    pub fn set_ports(&mut self, ports: [u8; 4]) {
        if read::<4>(self.buffer.as_ref(), field::PORTS) == ports {
            return;
        }
        let before = self.computed_checksum();
        write(self.buffer.as_mut(), field::PORTS, ports);
        let checksum = self.checksum() ^ before ^ self.computed_checksum();
        write(
            self.buffer.as_mut(),
            field::CHECKSUM,
            checksum.to_le_bytes(),
        );
    }
}
