//! GRE header (RFC 2784 §2.1), without key and sequence number.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-----------------------+-----+-------------------------------+
//! |C|       Reserved0       | Ver |         EtherType             |
//! +-+-----------------------+-----+-------------------------------+
//! |      Checksum, if C is set    |           Reserved1           |
//! +-------------------------------+-------------------------------+
//! ```

use std::ops::Range;

/// IP protocol number.
pub const PROTOCOL: u8 = 47;

/// Bytes of the header without a checksum.
pub const HEADER_LEN: usize = 4;

/// Bytes of the header with a checksum.
pub const CHECKSUM_HEADER_LEN: usize = 8;

/// Where the checksum is, over header and payload.
pub const CHECKSUM: Range<usize> = 4..6;

/// The C bit, in the first byte.
const CHECKSUM_PRESENT: u8 = 0x80;

/// A header without a checksum.
#[must_use]
pub const fn header(ethertype: u16) -> [u8; HEADER_LEN] {
    let [high, low] = ethertype.to_be_bytes();
    [0, 0, high, low]
}

/// A header with room for a checksum.
#[must_use]
pub const fn checksum_header(ethertype: u16) -> [u8; CHECKSUM_HEADER_LEN] {
    let [high, low] = ethertype.to_be_bytes();
    [CHECKSUM_PRESENT, 0, high, low, 0, 0, 0, 0]
}

/// EtherType and length of a header; `None` for one with a key, a sequence number, routing, or of
/// another version, which are not sent here.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<(u16, usize)> {
    let [flags, version, high, low] = *bytes.first_chunk()?;
    let length = match (flags, version) {
        (0, 0) => HEADER_LEN,
        (CHECKSUM_PRESENT, 0) => CHECKSUM_HEADER_LEN,
        _ => return None,
    };
    Some((u16::from_be_bytes([high, low]), length))
}
