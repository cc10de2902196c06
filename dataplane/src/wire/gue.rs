//! GUE header (draft-ietf-intarea-gue-09 §3.1), version 0, data, without options; it follows a UDP
//! header.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---+-+---------+---------------+-------------------------------+
//! |Ver|C|  Hlen   | Protocol/ctype|             Flags             |
//! +---+-+---------+---------------+-------------------------------+
//! ```

/// Bytes of the header.
pub const HEADER_LEN: usize = 4;

/// The header of a packet of this IP protocol number: 4 for IPv4, 41 for IPv6.
#[must_use]
pub const fn header(protocol: u8) -> [u8; HEADER_LEN] {
    [0, protocol, 0, 0]
}

/// IP protocol number of what follows; `None` for a header with options, a control message or
/// another version, which are not sent here.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<u8> {
    let [0, protocol, 0, 0] = *bytes.first_chunk()? else {
        return None;
    };
    Some(protocol)
}
