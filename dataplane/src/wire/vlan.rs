//! VLAN tag (IEEE 802.1Q §9.6): what follows an EtherType of 0x8100 or 0x88a8.
//!
//! ```text
//!  0                   1
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
//! +-----+-+-----------------------+-------------------------------+
//! | PCP |D|      VLAN identifier  |   EtherType of what follows   |
//! +-----+-+-----------------------+-------------------------------+
//! ```
//!
//! Identifier 0 is a priority tag: it belongs to no VLAN.

use super::ethernet::ethertype;
use super::{Malformed, chunk, read_u16};

/// Bytes of a tag, without the EtherType before it.
pub const TAG_LEN: usize = 4;

/// Most tags that a frame may carry and still be balanced: a service and a customer tag.
pub const MAX_TAGS: usize = 2;

mod field {
    use std::ops::Range;

    pub(super) const TYPE: Range<usize> = 2..4;
}

/// True for an EtherType that a tag follows.
#[inline(always)]
#[must_use]
pub const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::QINQ)
}

/// A tag, from its control information on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of bytes that hold a whole tag.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        chunk::<TAG_LEN>(buffer.as_ref(), 0)?;
        Ok(Self { buffer })
    }

    /// The EtherType of what follows.
    #[inline]
    pub fn ethertype(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::TYPE)
    }
}
