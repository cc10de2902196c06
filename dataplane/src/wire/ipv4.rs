//! IPv4 header (RFC 791 §3.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+-------------------------------+
//! |Version|  IHL  |Type of Service|          Total Length         |
//! +-------+-------+---------------+-----+-------------------------+
//! |         Identification        |Flags|      Fragment Offset    |
//! +---------------+---------------+-----+-------------------------+
//! |  Time to Live |    Protocol   |         Header Checksum       |
//! +---------------+---------------+-------------------------------+
//! |                         Source Address                        |
//! +---------------------------------------------------------------+
//! |                      Destination Address                      |
//! +---------------------------------------------------------------+
//! |                    Options, 0 to 40 bytes                     |
//! +---------------------------------------------------------------+
//! ```

use std::hint::cold_path;

use super::checksum::{self, Delta, Sum};
use super::{Malformed, chunk, read, read_u16, write};
use crate::service::Address;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// Where the time to live is.
pub(crate) const TTL: usize = field::TTL;

/// Version 4 and a header of [`HEADER_LEN`] bytes, as the first byte says it.
pub(super) const VERSION_AND_LENGTH: u8 = 0x45;

/// More-fragments flag and fragment offset: all zero for a packet that is whole.
const FRAGMENT_MASK: u16 = 0x3fff;
const OFFSET_MASK: u16 = 0x1fff;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

mod field {
    use std::ops::Range;

    pub(super) const VERSION_IHL: usize = 0;
    pub(super) const TYPE_OF_SERVICE: usize = 1;
    pub(super) const TOTAL_LENGTH: Range<usize> = 2..4;
    pub(super) const IDENTIFICATION: Range<usize> = 4..6;
    pub(super) const FRAGMENT: Range<usize> = 6..8;
    pub(super) const TTL: usize = 8;
    pub(super) const PROTOCOL: usize = 9;
    /// From [`TTL`] on.
    pub(super) const LIFE: Range<usize> = 8..12;
    pub(super) const CHECKSUM: Range<usize> = 10..12;
    pub(super) const SOURCE: Range<usize> = 12..16;
    pub(super) const DESTINATION: Range<usize> = 16..20;
}

/// The third word of a header as it stands there: what a hop changes, and the protocol between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Life([u8; 4]);

impl Life {
    /// That of no packet.
    pub(crate) const OVER: Self = Self([0; 4]);

    /// From a number whose lowest byte is the time to live.
    #[inline(always)]
    pub(super) const fn from_word(word: u32) -> Self {
        Self(word.to_le_bytes())
    }

    /// The time to live.
    #[inline(always)]
    pub(crate) const fn ttl(self) -> u8 {
        let [ttl, ..] = self.0;
        ttl
    }

    /// The IP protocol number.
    #[inline(always)]
    pub(crate) const fn protocol(self) -> u8 {
        let [_, protocol, ..] = self.0;
        protocol
    }

    /// The checksum adjusted to another change of the header.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn changed(self, delta: Delta) -> Self {
        let [ttl, protocol, c0, c1] = self.0;
        let [c0, c1] = delta.apply([c0, c1]);
        Self([ttl, protocol, c0, c1])
    }

    /// One less of the time to live, and the checksum adjusted; `None` when a packet may not be forwarded
    /// any more (RFC 1812 §5.3.1).
    #[inline(always)]
    #[must_use]
    pub fn one_hop_less(self) -> Option<Self> {
        let word = u32::from_le_bytes(self.0);
        if word & 0xff <= 1 {
            return None;
        }
        // One less in the upper byte of a word is 0x0100 less in the sum, hence more in its
        // complement, with the carry at the other end (RFC 1624). The checksum is the upper half of `word`
        // with its bytes swapped, which one's-complement sums do not mind (RFC 1071 §2(B)): there it
        // is one more, and adding 0xffff does that and takes one from the lowest byte.
        let mut next = word.wrapping_add(0xffff);
        if word >= 0xfffe_0000 {
            // To 0xffff, which is never in a header, or beyond.
            cold_path();
            next = next.wrapping_add(0x1_0000);
        }
        Some(Self::from_word(next))
    }
}

/// Which part of a datagram a packet is (IPv4 and IPv6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// Its beginning, with the transport header.
    First,
    /// A part without the transport header.
    Later,
}

/// A packet, from its version on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of bytes that hold the whole packet, and perhaps padding after it. Does not verify the
    /// checksum: [`verify_checksum`](Self::verify_checksum) does.
    ///
    /// # Errors
    /// `Truncated`, `BadIpVersion`, `BadIpHeaderLength`, `BadIpTotalLength`.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        chunk::<HEADER_LEN>(buffer.as_ref(), 0)?;
        let packet = Self { buffer };
        packet.check_header_len()?;
        if packet.total_len() < packet.header_len()
            || packet.total_len() > packet.buffer.as_ref().len()
        {
            return Err(Malformed::BadIpTotalLength);
        }
        Ok(packet)
    }

    /// Looks at the first byte alone.
    #[inline]
    pub(super) fn check_header_len(&self) -> Result<(), Malformed> {
        if self.version() != 4 {
            Err(Malformed::BadIpVersion)
        } else if self.header_len() < HEADER_LEN {
            Err(Malformed::BadIpHeaderLength)
        } else {
            Ok(())
        }
    }

    #[inline]
    pub fn version(&self) -> u8 {
        self.buffer.as_ref()[field::VERSION_IHL] >> 4
    }

    /// Bytes of the header with its options.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.buffer.as_ref()[field::VERSION_IHL] & 0x0f) * 4
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(read_u16(self.buffer.as_ref(), field::TOTAL_LENGTH))
    }

    /// Bytes of header and payload, as they are in the header.
    #[inline]
    pub fn total_len_u16(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::TOTAL_LENGTH)
    }

    /// Which part of a datagram this is.
    #[inline]
    pub fn fragment(&self) -> Fragment {
        let fragment = read_u16(self.buffer.as_ref(), field::FRAGMENT) & FRAGMENT_MASK;
        if fragment == 0 {
            Fragment::Whole
        } else if fragment & OFFSET_MASK == 0 {
            Fragment::First
        } else {
            Fragment::Later
        }
    }

    /// Where the payload begins in that of the datagram, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> u16 {
        (read_u16(self.buffer.as_ref(), field::FRAGMENT) & OFFSET_MASK) << 3
    }

    /// True for every fragment but the last.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        read_u16(self.buffer.as_ref(), field::FRAGMENT) & MORE_FRAGMENTS != 0
    }

    /// True if routers may not fragment it.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        read_u16(self.buffer.as_ref(), field::FRAGMENT) & DONT_FRAGMENT != 0
    }

    /// What fragments of a datagram have in common.
    #[inline]
    pub fn identification(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::IDENTIFICATION)
    }

    /// DSCP and ECN.
    #[inline]
    pub fn type_of_service(&self) -> u8 {
        self.buffer.as_ref()[field::TYPE_OF_SERVICE]
    }

    #[inline]
    pub fn ttl(&self) -> u8 {
        self.buffer.as_ref()[field::TTL]
    }

    /// IP protocol number.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.buffer.as_ref()[field::PROTOCOL]
    }

    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    #[inline]
    pub fn source(&self) -> Address {
        Address::v4(read(self.buffer.as_ref(), field::SOURCE))
    }

    #[inline]
    pub fn destination(&self) -> Address {
        Address::v4(read(self.buffer.as_ref(), field::DESTINATION))
    }

    /// True if the header, options included, sums up with its checksum.
    pub fn verify_checksum(&self) -> bool {
        Sum::ZERO
            .bytes(&self.buffer.as_ref()[..self.header_len()])
            .fold()
            == 0xffff
    }
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of bytes that begin with a whole header, of a packet that may be cut off behind it: what
    /// an ICMP error quotes, or a packet whose length is still to be set. Only header accessors may be used.
    ///
    /// # Errors
    /// `Truncated`, `BadIpVersion`, `BadIpHeaderLength`.
    pub fn new_header(buffer: T) -> Result<Self, Malformed> {
        chunk::<HEADER_LEN>(buffer.as_ref(), 0)?;
        let packet = Self { buffer };
        packet.check_header_len()?;
        if packet.header_len() > packet.buffer.as_ref().len() {
            return Err(Malformed::BadIpHeaderLength);
        }
        Ok(packet)
    }
}

impl<'a> Packet<&'a [u8; HEADER_LEN]> {
    /// The fixed part of the header at `at`; its accessors check no bounds, and nothing else is
    /// checked either.
    #[inline(always)]
    pub(crate) fn header(bytes: &'a [u8], at: usize) -> Result<Self, Malformed> {
        chunk(bytes, at).map(|buffer| Self { buffer })
    }

    /// True for version 4 without options.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        self.buffer[field::VERSION_IHL] == VERSION_AND_LENGTH
    }

    /// Time to live, protocol and checksum.
    #[inline(always)]
    pub(super) fn life(&self) -> Life {
        Life(read(self.buffer, field::LIFE))
    }

    /// True if a plain header sums up with its checksum.
    #[inline(always)]
    pub(super) fn verifies_plain(&self) -> bool {
        checksum::verifies(self.buffer)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Takes one from the time to live and adjusts the checksum; false, and nothing changed, when
    /// the packet may not be forwarded any more (RFC 1812 §5.3.1).
    #[inline(always)]
    #[must_use = "a packet whose time to live is over must not be forwarded"]
    pub fn decrement_ttl(&mut self) -> bool {
        let life = Life(read(self.buffer.as_ref(), field::LIFE));
        let Some(next) = life.one_hop_less() else {
            return false;
        };
        self.set_life(next);
        true
    }

    /// Sets time to live, protocol and checksum.
    #[inline(always)]
    pub(crate) fn set_life(&mut self, life: Life) {
        write(self.buffer.as_mut(), field::LIFE, life.0);
    }

    /// Sets the time to live without adjusting the checksum.
    #[inline]
    pub fn set_ttl(&mut self, ttl: u8) {
        self.buffer.as_mut()[field::TTL] = ttl;
    }

    /// Sets version 4 and a header without options.
    #[inline]
    pub fn set_plain_header(&mut self) {
        self.buffer.as_mut()[field::VERSION_IHL] = VERSION_AND_LENGTH;
    }

    #[inline]
    pub fn set_type_of_service(&mut self, value: u8) {
        self.buffer.as_mut()[field::TYPE_OF_SERVICE] = value;
    }

    /// Sets the bytes of header and payload.
    #[inline]
    pub fn set_total_len(&mut self, length: u16) {
        write(
            self.buffer.as_mut(),
            field::TOTAL_LENGTH,
            length.to_be_bytes(),
        );
    }

    #[inline]
    pub fn set_identification(&mut self, identification: u16) {
        write(
            self.buffer.as_mut(),
            field::IDENTIFICATION,
            identification.to_be_bytes(),
        );
    }

    /// Makes it a whole packet, which routers may fragment or not.
    #[inline]
    pub fn set_whole(&mut self, dont_fragment: bool) {
        let flags = u16::from(dont_fragment) << 14;
        write(self.buffer.as_mut(), field::FRAGMENT, flags.to_be_bytes());
    }

    /// Makes it a fragment whose payload begins at `offset` bytes of the datagram's, a multiple of
    /// eight.
    #[inline]
    pub fn set_fragment(&mut self, dont_fragment: bool, more_fragments: bool, offset: u16) {
        let flags = u16::from(dont_fragment) << 14 | u16::from(more_fragments) << 13;
        let field = flags | offset >> 3;
        write(self.buffer.as_mut(), field::FRAGMENT, field.to_be_bytes());
    }

    #[inline]
    pub fn set_protocol(&mut self, protocol: u8) {
        self.buffer.as_mut()[field::PROTOCOL] = protocol;
    }

    /// Sets the source address, network byte order, without adjusting any checksum.
    #[inline]
    pub fn set_source(&mut self, address: [u8; 4]) {
        write(self.buffer.as_mut(), field::SOURCE, address);
    }

    /// Sets the destination address, network byte order, without adjusting any checksum.
    #[inline]
    pub fn set_destination(&mut self, address: [u8; 4]) {
        write(self.buffer.as_mut(), field::DESTINATION, address);
    }

    #[inline]
    pub(crate) fn set_checksum(&mut self, checksum: u16) {
        write(
            self.buffer.as_mut(),
            field::CHECKSUM,
            checksum.to_be_bytes(),
        );
    }

    /// Adjusts the checksum to a change of the header.
    #[inline(always)]
    pub fn adjust_checksum(&mut self, delta: checksum::Delta) {
        let checksum = delta.apply(read(self.buffer.as_ref(), field::CHECKSUM));
        write(self.buffer.as_mut(), field::CHECKSUM, checksum);
    }

    /// Computes the header's checksum anew.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let length = self.header_len();
        let sum = Sum::ZERO.bytes(&self.buffer.as_ref()[..length]);
        self.set_checksum(sum.checksum());
    }
}

impl<'a> Packet<&'a mut [u8; HEADER_LEN]> {
    /// The fixed part of a header that was parsed before; for writing without bounds checks.
    #[inline(always)]
    #[must_use]
    pub fn header_mut(buffer: &'a mut [u8; HEADER_LEN]) -> Self {
        Self { buffer }
    }
}
