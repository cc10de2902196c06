//! A TCP segment of the director's own, in the frame of one that came: without payload, without IP
//! options or extension headers.

use crate::counters::DropReason;
use crate::service::Protocol;
use crate::wire::{self, Parsed, ethernet, ipv4, ipv6, tcp};
use crate::xsk::umem::{Frame, Umem};

/// TTL and hop limit: Linux's default.
const HOPS: u8 = 64;

/// Where the segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heading {
    /// From where the frame's segment came from to where it went; MAC addresses stay.
    Onward,
    /// Back to where the frame came from: same interface, same VLAN, same router.
    Back,
}

/// What is in the header besides ports and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// A multiple of four bytes, 40 at most.
    pub(crate) options: &'a [u8],
}

/// Puts `segment` in the place of the TCP segment in `frame`.
///
/// # Errors
/// The frame holds no TCP segment, or has no room, neither of which happens.
#[cold]
pub(crate) fn replace(
    umem: &Umem,
    frame: &mut Frame,
    heading: Heading,
    segment: &Segment<'_>,
) -> Result<(), DropReason> {
    let came = wire::parse(umem.bytes(frame))?;
    let parsed = match heading {
        Heading::Onward => came,
        Heading::Back => Parsed {
            source: came.destination,
            destination: came.source,
            source_port: came.destination_port,
            destination_port: came.source_port,
            ..came
        },
    };
    let l3 = usize::from(parsed.l3_offset);
    let ip_header = match parsed.destination.is_v4() {
        true => ipv4::HEADER_LEN,
        false => ipv6::HEADER_LEN,
    };
    let l4 = l3 + ip_header;
    let length = tcp::HEADER_LEN + segment.options.len();
    umem.set_length(frame, l4 + length)
        .map_err(|_| DropReason::Truncated)?;
    let bytes = umem.bytes_mut(frame);
    if heading == Heading::Back {
        let mut ethernet =
            ethernet::Packet::new_checked(&mut *bytes).map_err(|_| DropReason::Truncated)?;
        let (sender, director) = (ethernet.source(), ethernet.destination());
        ethernet.set_destination(sender);
        ethernet.set_source(director);
    }
    let length_u16 = u16::try_from(length).map_err(|_| DropReason::Truncated)?;
    let ip = bytes.get_mut(l3..l4).ok_or(DropReason::Truncated)?;
    match parsed.destination.is_v4() {
        true => write_ipv4(ip, &parsed, length_u16)?,
        false => write_ipv6(ip, &parsed, length_u16)?,
    }
    let bytes = bytes
        .get_mut(l4..l4 + length)
        .ok_or(DropReason::Truncated)?;
    let mut tcp = tcp::Packet::new_plain(bytes).map_err(|_| DropReason::Truncated)?;
    tcp.set_options(segment.options)
        .map_err(|_| DropReason::Truncated)?;
    tcp.set_source_port(parsed.source_port);
    tcp.set_destination_port(parsed.destination_port);
    tcp.set_sequence(segment.sequence);
    tcp.set_acknowledgment(segment.acknowledgment);
    tcp.set_flags(segment.flags);
    tcp.set_window(segment.window);
    tcp.fill_checksum(parsed.source, parsed.destination);
    Ok(())
}

/// The TCP segment in the IP packet at `l3`, of whose headers the lengths were checked.
pub(crate) fn read(
    frame: &[u8],
    l3: usize,
    l4: usize,
    is_v4: bool,
) -> Result<tcp::Packet<&[u8]>, DropReason> {
    let ip = frame.get(l3..).unwrap_or_default();
    let length = match is_v4 {
        true => ipv4::Packet::new_checked(ip)?.total_len(),
        false => ipv6::Packet::new_checked(ip)?.total_len(),
    };
    let segment = frame.get(l4..l3 + length).ok_or(DropReason::Truncated)?;
    Ok(tcp::Packet::new_checked(segment)?)
}

fn write_ipv4(header: &mut [u8], parsed: &Parsed, payload: u16) -> Result<(), DropReason> {
    let header = header.first_chunk_mut().ok_or(DropReason::Truncated)?;
    let mut ip = ipv4::Packet::header_mut(header);
    ip.set_plain_header();
    ip.set_type_of_service(0);
    ip.set_total_len(payload + 20);
    ip.set_identification(0);
    ip.set_whole(true);
    ip.set_ttl(HOPS);
    ip.set_protocol(Protocol::Tcp as u8);
    ip.set_source(parsed.source.last_octets());
    ip.set_destination(parsed.destination.last_octets());
    ip.fill_checksum();
    Ok(())
}

fn write_ipv6(header: &mut [u8], parsed: &Parsed, payload: u16) -> Result<(), DropReason> {
    let header = header.first_chunk_mut().ok_or(DropReason::Truncated)?;
    let mut ip = ipv6::Packet::header_mut(header);
    ip.set_plain_header();
    ip.set_payload_len(payload);
    ip.set_next_header(Protocol::Tcp as u8);
    ip.set_hop_limit(HOPS);
    ip.set_source(parsed.source);
    ip.set_destination(parsed.destination);
    Ok(())
}
