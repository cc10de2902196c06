//! ICMP: telling a packet's sender why it goes no further (RFC 1812 §4.3, RFC 4443 §2.4), in the frame
//! that brought the packet; and passing on what others say about the packets of a connection.
//!
//! An answer goes back to where the frame came from: same interface, same tags, same router. The
//! packet that it quotes is not moved; the answer's headers are put in front of it:
//!
//! ```text
//!  before                      Ethernet [tags] | IP | …
//!  after    Ethernet [tags] | IP | ICMP header | IP | … cut off
//! ```
//!
//! Not done here: limits on how many are sent (RFC 1812 §4.3.2.8), which the caller has to keep.

mod rewrite;
mod tunnelled;

pub use rewrite::{OuterSource, rewrite_error_v4, rewrite_error_v6};
pub(super) use rewrite::{between, quoted_transport};
pub use tunnelled::{Inner, TunnelError, relay, tunnelled};
pub(super) use tunnelled::{cut_to_quote, report};

use crate::counters::DropReason;
use crate::service::Address;
use crate::wire::checksum::Sum;
use crate::wire::icmp::{self, v4, v6};
use crate::wire::{ethernet, ipv4, ipv6};
use crate::xsk::umem::{Frame, Umem};

/// TTL and hop limit of an answer: Linux's default.
const HOPS: u8 = 64;

/// Type of service of an ICMP error: internetwork control (RFC 1812 §4.3.2.5).
const CONTROL: u8 = 0xc0;

/// Longest answer over IPv4, in bytes with its IP header (RFC 1812 §4.3.2.3).
const LONGEST_V4: usize = 576;

/// Longest answer over IPv6 (RFC 4443 §2.4(c)): every way takes as much.
const LONGEST_V6: usize = 1280;

/// What a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Fragmentation needed, packet too big: `mtu` bytes with the IP header would pass.
    TooBig { mtu: u16 },
    /// The TTL or hop limit was reached.
    TimeExceeded,
    /// Nobody serves this port.
    PortUnreachable,
    /// The host that serves it is not reached.
    HostUnreachable,
}

impl Error {
    /// The first eight bytes of the message, with no checksum yet.
    fn header(self, is_v4: bool) -> [u8; icmp::HEADER_LEN] {
        let (kind, code) = match (self, is_v4) {
            (Self::TooBig { .. }, true) => (v4::DESTINATION_UNREACHABLE, 4),
            (Self::TooBig { .. }, false) => (v6::PACKET_TOO_BIG, 0),
            (Self::TimeExceeded, true) => (v4::TIME_EXCEEDED, 0),
            (Self::TimeExceeded, false) => (v6::TIME_EXCEEDED, 0),
            (Self::PortUnreachable, true) => (v4::DESTINATION_UNREACHABLE, 3),
            (Self::PortUnreachable, false) => (v6::DESTINATION_UNREACHABLE, 4),
            (Self::HostUnreachable, true) => (v4::DESTINATION_UNREACHABLE, 1),
            (Self::HostUnreachable, false) => (v6::DESTINATION_UNREACHABLE, 3),
        };
        // The MTU is in the last two of four bytes (RFC 1191 §4), or in all four (RFC 4443 §3.2).
        let mtu = match self {
            Self::TooBig { mtu } => mtu,
            Self::TimeExceeded | Self::PortUnreachable | Self::HostUnreachable => 0,
        };
        let [high, low] = mtu.to_be_bytes();
        [kind, code, 0, 0, 0, 0, high, low]
    }
}

/// What an answer needs of the packet that it is about.
struct Offender {
    source: Address,
    /// Bytes of it that the frame holds.
    length: usize,
}

/// Turns `frame`, whose IP packet at `l3` goes no further, into the answer that says so, from
/// `local`: the virtual server's address. False, and the frame as it was, if there is to be no
/// answer: to an ICMP error, a later fragment, or what has no single sender or receiver.
///
/// The packet may be cut off behind its IP header. Its TTL is quoted as it is.
#[cold]
#[must_use = "a frame that was not answered is to be dropped"]
pub fn answer(umem: &Umem, frame: &mut Frame, l3: usize, local: Address, error: Error) -> bool {
    let is_v4 = local.is_v4();
    let Some(offender) = offender(umem.bytes(frame), l3, is_v4, error) else {
        return false;
    };
    let (ip_header, longest) = if is_v4 {
        (ipv4::HEADER_LEN, LONGEST_V4)
    } else {
        (ipv6::HEADER_LEN, LONGEST_V6)
    };
    let room = ip_header + icmp::HEADER_LEN;
    let quoted = offender.length.min(longest - room);
    // The frame gets shorter first, so this cannot fail once there is room in front.
    let before = frame.len();
    if umem.set_length(frame, l3 + quoted).is_err() {
        return false;
    }
    let added = u16::try_from(room).unwrap_or(u16::MAX); // 28 or 48
    if umem.prepend(frame, added).is_err() {
        let _ = umem.set_length(frame, before);
        return false;
    }
    let bytes = umem.bytes_mut(frame);
    bytes.copy_within(room..room + l3, 0);
    write_answer(bytes, l3, local, offender.source, error).is_ok()
}

/// Writes all headers of an answer into a frame that begins with the link header of the packet.
fn write_answer(
    bytes: &mut [u8],
    l3: usize,
    local: Address,
    sender: Address,
    error: Error,
) -> Result<(), DropReason> {
    let mut link = ethernet::Packet::new_checked(&mut *bytes)?;
    let (router, director) = (link.source(), link.destination());
    link.set_destination(router);
    link.set_source(director);
    let packet = bytes.get_mut(l3..).ok_or(DropReason::Truncated)?;
    let length = u16::try_from(packet.len()).map_err(|_| DropReason::BadIpTotalLength)?;
    let is_v4 = local.is_v4();
    let message = if is_v4 {
        let (header, message) = packet
            .split_first_chunk_mut()
            .ok_or(DropReason::Truncated)?;
        let mut ip = ipv4::Packet::header_mut(header);
        ip.set_plain_header();
        ip.set_type_of_service(CONTROL);
        ip.set_total_len(length);
        ip.set_identification(0);
        ip.set_whole(true);
        ip.set_ttl(HOPS);
        ip.set_protocol(icmp::PROTOCOL_V4);
        ip.set_source(local.last_octets());
        ip.set_destination(sender.last_octets());
        ip.fill_checksum();
        message
    } else {
        let (header, message) = packet
            .split_first_chunk_mut::<{ ipv6::HEADER_LEN }>()
            .ok_or(DropReason::Truncated)?;
        let mut ip = ipv6::Packet::header_mut(header);
        ip.set_plain_header();
        ip.set_payload_len(u16::try_from(message.len()).unwrap_or(u16::MAX));
        ip.set_next_header(icmp::PROTOCOL_V6);
        ip.set_hop_limit(HOPS);
        ip.set_source(local);
        ip.set_destination(sender);
        message
    };
    let header = message.first_chunk_mut().ok_or(DropReason::Truncated)?;
    *header = error.header(is_v4);
    let pseudo_header = if is_v4 {
        Sum::ZERO
    } else {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        Sum::ZERO.pseudo_header(local, sender, icmp::PROTOCOL_V6, length)
    };
    let checksum = pseudo_header.bytes(message).checksum();
    icmp::Packet::new_checked(message)?.set_checksum(checksum.to_be_bytes());
    Ok(())
}

/// The packet at `l3`, if it may be answered (RFC 1812 §4.3.2.7, RFC 4443 §2.4(e)).
fn offender(frame: &[u8], l3: usize, is_v4: bool, error: Error) -> Option<Offender> {
    const GROUP: u8 = 1; // of an Ethernet address: broadcast or multicast
    if frame.first()? & GROUP != 0 {
        return None;
    }
    let packet = frame.get(l3..)?;
    if is_v4 {
        offender_v4(packet)
    } else {
        offender_v6(packet, error)
    }
}

fn offender_v4(packet: &[u8]) -> Option<Offender> {
    const REQUESTS_AND_REPLIES: [u8; 4] = [0, 8, 13, 14]; // echo, timestamp
    let ip = ipv4::Packet::new_header(packet).ok()?;
    let [first, ..] = ip.source().last_octets();
    let [to, ..] = ip.destination().last_octets();
    // This host, this network, and from 224 on multicast, reserved and broadcast.
    if matches!(first, 0 | 127 | 224..) || to >= 224 {
        return None;
    }
    if ip.fragment() == ipv4::Fragment::Later {
        return None;
    }
    if ip.protocol() == icmp::PROTOCOL_V4
        && !REQUESTS_AND_REPLIES.contains(packet.get(ip.header_len())?)
    {
        return None;
    }
    Some(Offender {
        source: ip.source(),
        length: ip.total_len().min(packet.len()),
    })
}

fn offender_v6(packet: &[u8], error: Error) -> Option<Offender> {
    const MULTICAST: u8 = 0xff;
    const REDIRECT: u8 = 137;
    let ip = ipv6::Packet::new_header(packet).ok()?;
    let source = ip.source().octets();
    let to_group = ip.destination().octets().starts_with(&[MULTICAST]);
    // Path MTU discovery works for multicast, too: RFC 4443 §2.4(e.3).
    let allowed = !to_group || matches!(error, Error::TooBig { .. });
    if source == [0; 16] || source.starts_with(&[MULTICAST]) || ip.source().is_v4() || !allowed {
        return None;
    }
    let length = ip.total_len().min(packet.len());
    let upper = ipv6::walk(packet.get(..length)?, 0, ip.next_header()).ok()?;
    if upper.fragment == ipv4::Fragment::Later {
        return None;
    }
    if upper.protocol == icmp::PROTOCOL_V6 {
        let kind = *packet.get(upper.offset)?;
        if kind < 128 || kind == REDIRECT {
            return None;
        }
    }
    Some(Offender {
        source: ip.source(),
        length,
    })
}

#[cfg(test)]
mod tests;
