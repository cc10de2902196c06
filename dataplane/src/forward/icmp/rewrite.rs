//! ICMP errors through NAT and FULLNAT (`ip_vs_nat_icmp`, `ip_vs_nat_icmp_v6`).
//!
//! An error that goes one way is about a packet that went the other way, as its sender saw it. So
//! the [`Rewrite`] of the direction in which the error travels says it all: the error's destination
//! becomes the rewrite's, and of the quoted packet the source becomes the rewrite's destination and the
//! destination its source. Other than IPVS, the quoted transport's checksum is adjusted too, where it
//! is quoted: a receiver that looks at it finds what it sent.

use crate::counters::DropReason;
use crate::forward::rewrite::{Endpoints, Rewrite, at_mut, udp_checksum};
use crate::service::{Address, Protocol};
use crate::wire::checksum::{Delta, Sum};
use crate::wire::{icmp, ipv4, ipv6, sctp};

/// Who an error comes from after its rewriting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OuterSource {
    /// Who it came from: of what NAT passes to a real server, a router or the client.
    Keep,
    /// The virtual server, for what goes to a client; the local address, for FULLNAT.
    Set(Address),
}

impl OuterSource {
    fn of(self, source: Address) -> Address {
        match self {
            Self::Keep => source,
            Self::Set(address) => address,
        }
    }
}

/// Most bytes of a quoted packet that can change: an IP header of any length (IPv6 with the
/// extension headers that a quote has room for) and a TCP header. Even.
const CHANGED: usize = 1280;

/// Rewrites the ICMP error in the IPv4 packet at `l3` and takes a hop from its life. `rewrite` is
/// that of its connection, in the direction in which the error travels.
///
/// # Errors
/// The packet may not travel further, or is no whole ICMP error; it is unchanged.
#[cold]
pub fn rewrite_error_v4(
    frame: &mut [u8],
    l3: usize,
    rewrite: &Rewrite,
    outer_source: OuterSource,
) -> Result<(), DropReason> {
    let ip = ipv4::Packet::new_checked(frame.get(l3..).unwrap_or_default())?;
    let (l4, end) = (l3 + ip.header_len(), l3 + ip.total_len());
    let (from, to) = (ip.source(), ip.destination());
    if ip.ttl() <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let message = frame.get_mut(l4..end).ok_or(DropReason::Truncated)?;
    rewrite_message(message, rewrite, Delta::NONE, quoted_v4)?;

    let source = outer_source.of(from);
    let destination = rewrite.destination().address;
    let addresses = between([from, to], [source, destination]);
    let mut ip = ipv4::Packet::header_mut(at_mut(frame, l3)?);
    ip.set_ttl(ip.ttl().saturating_sub(1));
    ip.set_source(source.last_octets());
    ip.set_destination(destination.last_octets());
    ip.adjust_checksum(addresses.and(Delta::ONE_HOP));
    Ok(())
}

/// As [`rewrite_error_v4`], for IPv6.
///
/// # Errors
/// As there.
#[cold]
pub fn rewrite_error_v6(
    frame: &mut [u8],
    l3: usize,
    rewrite: &Rewrite,
    outer_source: OuterSource,
) -> Result<(), DropReason> {
    let packet = frame.get(l3..).unwrap_or_default();
    let ip = ipv6::Packet::new_checked(packet)?;
    let end = l3 + ip.total_len();
    let upper = ipv6::walk(
        packet.get(..ip.total_len()).unwrap_or_default(),
        0,
        ip.next_header(),
    )?;
    let (from, to) = (ip.source(), ip.destination());
    if ip.hop_limit() <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let source = outer_source.of(from);
    let destination = rewrite.destination().address;
    let addresses = between([from, to], [source, destination]);
    let message = frame
        .get_mut(l3 + upper.offset..end)
        .ok_or(DropReason::Truncated)?;
    rewrite_message(message, rewrite, addresses, quoted_v6)?;

    let mut ip = ipv6::Packet::header_mut(at_mut(frame, l3)?);
    ip.set_hop_limit(ip.hop_limit().saturating_sub(1));
    ip.set_source(source);
    ip.set_destination(destination);
    Ok(())
}

/// The change of two addresses.
pub(in crate::forward) fn between(before: [Address; 2], after: [Address; 2]) -> Delta {
    let sum = |[a, b]: [Address; 2]| Sum::ZERO.address(a).address(b);
    Delta::between(sum(before), sum(after))
}

/// Rewrites the packet that an ICMP message quotes. The message's checksum follows the bytes that
/// changed and `outer`, the change of its pseudo-header.
fn rewrite_message(
    message: &mut [u8],
    rewrite: &Rewrite,
    outer: Delta,
    quoted: fn(&mut [u8], &Endpoints) -> Result<(), DropReason>,
) -> Result<(), DropReason> {
    let mut packet = icmp::Packet::new_checked(message)?;
    let quote = packet.quoted_mut();
    let changed = quote.len().min(CHANGED);
    let before = Sum::ZERO.bytes(&quote[..changed]);
    let ends = Endpoints {
        source: rewrite.destination(),
        destination: rewrite.source(),
    };
    quoted(quote, &ends)?;
    let after = Sum::ZERO.bytes(&quote[..changed]);
    let delta = Delta::between(before, after).and(outer);
    packet.set_checksum(delta.apply(packet.checksum()));
    Ok(())
}

/// Gives a quoted IPv4 packet new ends.
fn quoted_v4(quote: &mut [u8], ends: &Endpoints) -> Result<(), DropReason> {
    let broken = |_| DropReason::BadIcmp;
    let mut ip = ipv4::Packet::new_header(&mut *quote).map_err(broken)?;
    let (l4, protocol) = (ip.header_len(), ip.protocol());
    let has_transport = ip.fragment() != ipv4::Fragment::Later;
    let before = [ip.source(), ip.destination()];
    let addresses = between(before, [ends.source.address, ends.destination.address]);
    ip.set_source(ends.source.address.last_octets());
    ip.set_destination(ends.destination.address.last_octets());
    ip.adjust_checksum(addresses);
    if has_transport {
        quoted_transport(quote.get_mut(l4..), protocol, ends, addresses);
    }
    Ok(())
}

/// Gives a quoted IPv6 packet new ends.
fn quoted_v6(quote: &mut [u8], ends: &Endpoints) -> Result<(), DropReason> {
    let broken = |_| DropReason::BadIcmp;
    let ip = ipv6::Packet::new_header(&*quote).map_err(broken)?;
    let upper = ipv6::walk(quote, 0, ip.next_header()).map_err(broken)?;
    let before = [ip.source(), ip.destination()];
    let addresses = between(before, [ends.source.address, ends.destination.address]);
    let mut ip = ipv6::Packet::header_mut(at_mut(quote, 0)?);
    ip.set_source(ends.source.address);
    ip.set_destination(ends.destination.address);
    if upper.fragment != ipv4::Fragment::Later {
        let transport = quote.get_mut(upper.offset..);
        quoted_transport(transport, upper.protocol, ends, addresses);
    }
    Ok(())
}

/// Gives what is quoted of a transport header new ports, and a checksum where there is one. The
/// checksum of SCTP needs the whole packet: it stays, and nobody verifies that of a quote.
pub(in crate::forward) fn quoted_transport(
    transport: Option<&mut [u8]>,
    protocol: u8,
    ends: &Endpoints,
    addresses: Delta,
) {
    let is_tcp = protocol == Protocol::Tcp as u8;
    let is_udp = protocol == Protocol::Udp as u8;
    let Some(transport) = transport else { return };
    if !(is_tcp || is_udp || protocol == sctp::PROTOCOL) {
        return;
    }
    let Some(ports) = transport.first_chunk_mut::<4>() else {
        return;
    };
    let before = Sum::ZERO.bytes(ports);
    *ports = ends.ports();
    let delta = addresses.and(Delta::between(before, Sum::ZERO.bytes(ports)));
    if is_tcp {
        if let Ok(checksum) = at_mut::<2>(transport, 16) {
            *checksum = delta.apply(*checksum);
        }
    } else if is_udp && let Ok(checksum) = at_mut::<2>(transport, 6) {
        *checksum = udp_checksum(*checksum, delta);
    }
}
