//! TOA: FULLNAT tells the real server who the client is by a TCP option (DPVS's `tcp_in_add_toa`; read
//! by the `toa` kernel module).
//!
//! ```text
//! +---------------+---------------+-------------------------------+
//! |   kind 254    | length 8 / 20 |         client's port         |
//! +---------------+---------------+-------------------------------+
//! |           client's address, 4 or 16 bytes                     |
//! +---------------------------------------------------------------+
//! ```
//!
//! DPVS puts it into the SYN, the segment that ends the handshake, and the first one with data;
//! which segments these are is the director's to know. Segments that are full already have no room
//! for it: [`lower_maximum_segment_size`] on the server's SYN keeps the client from sending such.

use super::insert::{Insertion, packet_len};
use super::rewrite::Endpoint;
use crate::counters::DropReason;
use crate::service::Protocol;
use crate::wire::checksum::{Delta, Sum};
use crate::wire::tcp::{self, flags};
use crate::wire::tcp_options::{self, kind};
use crate::xsk::umem::{Frame, Umem};

const LENGTH_V4: u8 = 8;
const LENGTH_V6: u8 = 20;

/// The option for one connection: plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOption {
    bytes: [u8; LENGTH_V6 as usize],
    is_v4: bool,
}

impl ClientOption {
    /// The option that names `client`. One with an IPv6 address may go into an IPv4 packet (NAT64).
    #[must_use]
    pub fn new(client: Endpoint) -> Self {
        let is_v4 = client.address.is_v4();
        let mut bytes = [0; LENGTH_V6 as usize];
        bytes[0] = kind::CLIENT_ADDRESS;
        bytes[1] = if is_v4 { LENGTH_V4 } else { LENGTH_V6 };
        bytes[2..4].copy_from_slice(&client.port.to_be_bytes());
        if is_v4 {
            bytes[4..8].copy_from_slice(&client.address.last_octets());
        } else {
            bytes[4..].copy_from_slice(&client.address.octets());
        }
        Self { bytes, is_v4 }
    }

    /// As it goes into a header: 8 or 20 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len())]
    }

    /// How many bytes that are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> u8 {
        if self.is_v4 { LENGTH_V4 } else { LENGTH_V6 }
    }
}

/// Inserts `option` before the other options of the whole TCP segment at `l4`, in the IP packet at
/// `l3`. False, and nothing changed, if the segment has more options than leave room for it, or
/// would be longer than `mtu` bytes with its IP header.
///
/// # Errors
/// The segment is broken.
#[cold]
pub fn insert(
    umem: &Umem,
    frame: &mut Frame,
    (l3, l4): (usize, usize),
    option: &ClientOption,
    mtu: u16,
) -> Result<bool, DropReason> {
    let packet = umem.bytes(frame);
    let is_v4 = packet.get(l3).is_some_and(|first| first >> 4 == 4);
    let length = packet_len(packet, l3, is_v4)?;
    let segment = packet.get(l4..l3 + length).unwrap_or_default();
    let segment = tcp::Packet::new_checked(segment)?;
    let bytes = option.bytes();
    if segment.header_len() + bytes.len() > tcp::HEADER_LEN + tcp_options::MAX_LEN
        || length + bytes.len() > usize::from(mtu)
    {
        return Ok(false);
    }
    let insertion = Insertion {
        l3,
        l4,
        at: tcp::HEADER_LEN,
        bytes,
        protocol: Protocol::Tcp,
        are_options: true,
    };
    insertion.apply(umem, frame, is_v4)?;
    Ok(true)
}

/// Lowers the maximum segment size that the SYN at `l4` announces: to `most`, if it is more, and by `room`
/// bytes that the director will put into segments.
#[cold]
pub fn lower_maximum_segment_size(frame: &mut [u8], l4: usize, most: u16, room: u16) {
    let Some(header) = tcp_header(frame, l4) else {
        return;
    };
    let Some((fixed, options)) = header.split_first_chunk_mut::<{ tcp::HEADER_LEN }>() else {
        return;
    };
    let [.., flags_, _, _, c0, c1, _, _] = fixed;
    if *flags_ & flags::SYN == 0 {
        return;
    }
    let Some(data) = tcp_options::find(options, kind::MAXIMUM_SEGMENT_SIZE) else {
        return;
    };
    // An option may begin anywhere, so its bytes may be the halves of two words: sum all of them.
    let before = Sum::ZERO.bytes(options);
    if let Some(Ok(size)) = options.get_mut(data).map(<&mut [u8; 2]>::try_from) {
        let lowered = u16::from_be_bytes(*size).min(most).saturating_sub(room);
        *size = lowered.to_be_bytes();
        let delta = Delta::between(before, Sum::ZERO.bytes(options));
        [*c0, *c1] = delta.apply([*c0, *c1]);
    }
}

/// The TCP header at `l4` with its options.
pub(super) fn tcp_header(frame: &mut [u8], l4: usize) -> Option<&mut [u8]> {
    let segment = frame.get_mut(l4..)?;
    let length = tcp::Packet::new_checked(&*segment).ok()?.header_len();
    segment.get_mut(..length)
}

#[cfg(test)]
pub(super) mod tests;
