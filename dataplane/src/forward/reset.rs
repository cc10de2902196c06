//! Answering a TCP segment of no connection with a RST, as its destination
//! would (RFC 9293 §3.10.7.1), in the frame that brought it.
//!
//! The answer goes back to where the frame came from: same interface, same
//! VLAN, same router.

use crate::counters::DropReason;
use crate::service::Protocol;
use crate::wire::{self, Parsed, ethernet, ipv4, ipv6, tcp};
use crate::xsk::umem::{Frame, Umem};

/// TTL and hop limit of the answer: Linux's default.
const HOPS: u8 = 64;

/// Turns a frame with a TCP segment into the RST that answers it.
///
/// # Errors
/// The frame holds no TCP segment, which does not happen.
#[cold]
pub(crate) fn answer(umem: &Umem, frame: &mut Frame) -> Result<(), DropReason> {
    let parsed = &wire::parse(umem.bytes(frame))?;
    let (l3, old_l4) = (usize::from(parsed.l3_offset), usize::from(parsed.l4_offset));
    let is_v4 = parsed.destination.is_v4();
    let ip_header = if is_v4 {
        ipv4::HEADER_LEN
    } else {
        ipv6::HEADER_LEN
    };
    let l4 = l3 + ip_header;
    let end = l4 + tcp::HEADER_LEN;
    let numbers =
        Numbers::answering(umem.bytes(frame), l3, old_l4, is_v4).ok_or(DropReason::Truncated)?;
    umem.set_length(frame, end)
        .map_err(|_| DropReason::Truncated)?;
    let bytes = umem.bytes_mut(frame);

    let mut ethernet =
        ethernet::Packet::new_checked(&mut *bytes).map_err(|_| DropReason::Truncated)?;
    let (client, director) = (ethernet.source(), ethernet.destination());
    ethernet.set_destination(client);
    ethernet.set_source(director);
    let ip = bytes.get_mut(l3..l4).ok_or(DropReason::Truncated)?;
    if is_v4 {
        write_ipv4(ip, parsed)?;
    } else {
        write_ipv6(ip, parsed)?;
    }
    let segment = bytes.get_mut(l4..end).ok_or(DropReason::Truncated)?;
    let mut tcp = tcp::Packet::new_plain(segment).map_err(|_| DropReason::Truncated)?;
    tcp.set_source_port(parsed.destination_port);
    tcp.set_destination_port(parsed.source_port);
    tcp.set_sequence(numbers.sequence);
    tcp.set_acknowledgment(numbers.acknowledgment);
    tcp.set_flags(numbers.flags);
    tcp.fill_checksum(parsed.destination, parsed.source);
    Ok(())
}

/// Sequence numbers and flags of the answer.
struct Numbers {
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
}

impl Numbers {
    fn answering(frame: &[u8], l3: usize, l4: usize, is_v4: bool) -> Option<Self> {
        let ip = frame.get(l3..)?;
        let length = if is_v4 {
            ipv4::Packet::new_checked(ip).ok()?.total_len()
        } else {
            ipv6::Packet::new_checked(ip).ok()?.total_len()
        };
        let segment = tcp::Packet::new_checked(frame.get(l4..l3 + length)?).ok()?;
        Some(if segment.flags() & tcp::flags::ACK != 0 {
            Self {
                sequence: segment.acknowledgment(),
                acknowledgment: 0,
                flags: tcp::flags::RST,
            }
        } else {
            Self {
                sequence: 0,
                acknowledgment: segment.sequence().wrapping_add(segment.segment_len()),
                flags: tcp::flags::RST | tcp::flags::ACK,
            }
        })
    }
}

fn write_ipv4(header: &mut [u8], parsed: &Parsed) -> Result<(), DropReason> {
    let header = header.first_chunk_mut().ok_or(DropReason::Truncated)?;
    let mut ip = ipv4::Packet::header_mut(header);
    ip.set_plain_header();
    ip.set_type_of_service(0);
    ip.set_total_len(40);
    ip.set_identification(0);
    ip.set_whole(true);
    ip.set_ttl(HOPS);
    ip.set_protocol(Protocol::Tcp as u8);
    ip.set_source(parsed.destination.last_octets());
    ip.set_destination(parsed.source.last_octets());
    ip.fill_checksum();
    Ok(())
}

fn write_ipv6(header: &mut [u8], parsed: &Parsed) -> Result<(), DropReason> {
    let header = header.first_chunk_mut().ok_or(DropReason::Truncated)?;
    let mut ip = ipv6::Packet::header_mut(header);
    ip.set_plain_header();
    ip.set_payload_len(20);
    ip.set_next_header(Protocol::Tcp as u8);
    ip.set_hop_limit(HOPS);
    ip.set_source(parsed.destination);
    ip.set_destination(parsed.source);
    Ok(())
}
