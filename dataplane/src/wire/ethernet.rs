//! Ethernet II header (IEEE 802.3 §3.2.6).
//!
//! ```text
//!  0                   6                  12      14
//! +-------------------+-------------------+-------+----------
//! |  destination MAC  |    source MAC     | type  | payload …
//! +-------------------+-------------------+-------+----------
//! ```
//!
//! A type below 0x0600 is a length (802.3 with LLC); such frames are not IP here.

use super::{Malformed, chunk, read, read_u16, write};
use crate::service::MacAddress;

/// Bytes of the header.
pub const HEADER_LEN: usize = 14;

/// EtherTypes, host byte order.
pub mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8;
}

mod field {
    use std::ops::Range;

    pub(super) const DESTINATION: Range<usize> = 0..6;
    pub(super) const SOURCE: Range<usize> = 6..12;
    pub(super) const TYPE: Range<usize> = 12..14;
}

/// A frame, from its destination MAC on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of bytes that hold a whole header.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        chunk::<HEADER_LEN>(buffer.as_ref(), 0)?;
        Ok(Self { buffer })
    }

    /// Where the frame goes.
    #[inline]
    pub fn destination(&self) -> MacAddress {
        MacAddress(read(self.buffer.as_ref(), field::DESTINATION))
    }

    /// Where it comes from.
    #[inline]
    pub fn source(&self) -> MacAddress {
        MacAddress(read(self.buffer.as_ref(), field::SOURCE))
    }

    /// An [`ethertype`], or a length below 0x0600.
    #[inline]
    pub fn ethertype(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::TYPE)
    }

    /// What follows the header.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }
}

impl<'a> Packet<&'a [u8; HEADER_LEN]> {
    /// The header alone; its accessors check no bounds.
    #[inline(always)]
    pub(super) fn header(frame: &'a [u8]) -> Result<Self, Malformed> {
        chunk(frame, 0).map(|buffer| Self { buffer })
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    #[inline]
    pub fn set_destination(&mut self, mac: MacAddress) {
        write(self.buffer.as_mut(), field::DESTINATION, mac.0);
    }

    #[inline]
    pub fn set_source(&mut self, mac: MacAddress) {
        write(self.buffer.as_mut(), field::SOURCE, mac.0);
    }

    /// Sets the type in host byte order.
    #[inline]
    pub fn set_ethertype(&mut self, ethertype: u16) {
        write(self.buffer.as_mut(), field::TYPE, ethertype.to_be_bytes());
    }
}

/// Where a frame goes; `None` if it is too short to say.
#[inline(always)]
#[must_use]
pub fn destination(frame: &[u8]) -> Option<MacAddress> {
    frame.first_chunk().copied().map(MacAddress)
}

/// Where a frame comes from; `None` if it is too short to say.
#[inline(always)]
#[must_use]
pub fn source(frame: &[u8]) -> Option<MacAddress> {
    let [_, _, _, _, _, _, source @ ..] = frame.first_chunk::<12>()?;
    Some(MacAddress(*source))
}

/// The eight bytes of a frame that end with where it comes from.
#[inline(always)]
#[must_use]
pub(crate) fn up_to_source(frame: &[u8]) -> Option<[u8; 8]> {
    let [_, _, _, _, source @ ..] = frame.first_chunk::<12>()?;
    Some(*source)
}

/// Both addresses of a frame as they stand in it: what forwarding writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses([u8; 12]);

impl Addresses {
    /// From the two.
    #[inline(always)]
    #[must_use]
    pub fn new(destination: MacAddress, source: MacAddress) -> Self {
        let mut both = [0; 12];
        both[..6].copy_from_slice(&destination.0);
        both[6..].copy_from_slice(&source.0);
        Self(both)
    }

    /// The first of them.
    #[must_use]
    pub fn destination(&self) -> MacAddress {
        let [a, b, c, d, e, f, ..] = self.0;
        MacAddress([a, b, c, d, e, f])
    }

    /// Writes both at the start of a frame.
    #[inline(always)]
    pub fn write<const N: usize>(&self, frame: &mut [u8; N]) {
        const { assert!(N >= HEADER_LEN) };
        frame[..12].copy_from_slice(&self.0);
    }
}
