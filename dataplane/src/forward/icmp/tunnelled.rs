//! ICMP errors about the outer packets of TUN, sent by routers between the director and a real server
//! (`ip_vs_in_icmp`): what they mean for the client (RFC 2003 §4).

use super::{Error, answer};
use crate::forward::rewrite::{Endpoint, at_mut};
use crate::forward::tunnel::protocol;
use crate::service::{Address, Protocol};
use crate::wire::ethernet::{self, ethertype};
use crate::wire::icmp::{self, v4, v6};
use crate::wire::{gre, gue, ipv4, ipv6, udp};
use crate::xsk::umem::{Frame, Umem};

/// An error about a tunnelled packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelError {
    /// Where the outer packet was to go: a real server.
    pub real_server: Address,
    /// Of an error that says so: most bytes of an outer packet on the way to the real server, with
    /// its IP header. As trustworthy as any ICMP: a packet of the connection should be known.
    pub path_mtu: Option<u16>,
    /// The packet of the client, if enough of it is quoted.
    pub inner: Option<Inner>,
}

/// The client's packet in an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// The client.
    pub source: Endpoint,
    /// The virtual server.
    pub destination: Endpoint,
    /// IP protocol number.
    pub protocol: u8,
    /// What the client is to be told; `None` if it does not care: it sends packets that may be
    /// fragmented.
    pub error: Option<Error>,
    /// Where its IP header begins in the frame.
    offset: usize,
}

/// Reads an ICMP error at `l3` of `frame` that is about an IPIP, GRE or GUE packet, the last being
/// UDP to a port for which `is_gue_port` is true. `None` for everything else.
#[cold]
#[must_use]
pub fn tunnelled(
    frame: &[u8],
    l3: usize,
    is_gue_port: impl FnOnce(u16) -> bool,
) -> Option<TunnelError> {
    let Message {
        message,
        is_v4,
        quote_at,
    } = Message::of(frame, l3)?;
    let report = Report::of(&message, is_v4)?;
    let quote = message.quoted();
    let (real_server, shim_at, outer_protocol) = if is_v4 {
        let ip = ipv4::Packet::new_header(quote).ok()?;
        (ip.destination(), ip.header_len(), ip.protocol())
    } else {
        let ip = ipv6::Packet::new_header(quote).ok()?;
        (ip.destination(), ipv6::HEADER_LEN, ip.next_header())
    };
    let (inner_protocol, shim_len) = inside(quote.get(shim_at..)?, outer_protocol, is_gue_port)?;
    let overhead = shim_at + shim_len;
    let inner = quote
        .get(overhead..)
        .and_then(|inner| read_inner(inner, inner_protocol, report, overhead))
        .map(|inner| Inner {
            offset: quote_at + overhead,
            ..inner
        });
    Some(TunnelError {
        real_server,
        path_mtu: report.mtu,
        inner,
    })
}

/// An ICMP message that is whole.
struct Message<'a> {
    message: icmp::Packet<&'a [u8]>,
    is_v4: bool,
    /// Where the packet that an error quotes begins in the frame.
    quote_at: usize,
}

impl<'a> Message<'a> {
    fn of(frame: &'a [u8], l3: usize) -> Option<Self> {
        let packet = frame.get(l3..)?;
        let is_v4 = packet.first()? >> 4 == 4;
        let (at, end) = if is_v4 {
            let ip = ipv4::Packet::new_checked(packet).ok()?;
            let is_icmp = ip.protocol() == icmp::PROTOCOL_V4;
            let whole = ip.fragment() == ipv4::Fragment::Whole;
            (is_icmp && whole).then_some((ip.header_len(), ip.total_len()))?
        } else {
            let ip = ipv6::Packet::new_checked(packet).ok()?;
            let upper = ipv6::walk(packet.get(..ip.total_len())?, 0, ip.next_header()).ok()?;
            let is_icmp = upper.protocol == icmp::PROTOCOL_V6;
            let whole = upper.fragment == ipv4::Fragment::Whole;
            (is_icmp && whole).then_some((upper.offset, ip.total_len()))?
        };
        let message = icmp::Packet::new_checked(packet.get(at..end)?).ok()?;
        let quote_at = l3 + at + icmp::HEADER_LEN;
        Some(Self {
            message,
            is_v4,
            quote_at,
        })
    }
}

/// What the ICMP error at `l3` says, and where the packet that it quotes begins in the frame.
pub(in crate::forward) fn report(frame: &[u8], l3: usize) -> Option<(usize, Error)> {
    let found = Message::of(frame, l3)?;
    let message = &found.message;
    let kind = (found.is_v4, message.message_type(), message.code());
    let error = match (Report::of(message, found.is_v4)?.mtu, kind) {
        (Some(mtu), _) => Error::TooBig { mtu },
        (None, (true, v4::TIME_EXCEEDED, _) | (false, v6::TIME_EXCEEDED, _)) => Error::TimeExceeded,
        (
            None,
            (true, v4::DESTINATION_UNREACHABLE, 3) | (false, v6::DESTINATION_UNREACHABLE, 4),
        ) => Error::PortUnreachable,
        (None, _) => Error::HostUnreachable,
    };
    Some((found.quote_at, error))
}

/// Cuts everything between the link header, which ends at `l3`, and `quote_at`. The EtherType is the
/// old one. False, and nothing changed, if the frame is not as long.
pub(in crate::forward) fn cut_to_quote(
    umem: &Umem,
    frame: &mut Frame,
    l3: usize,
    quote_at: usize,
) -> bool {
    let Some(gap) = quote_at.checked_sub(l3) else {
        return false;
    };
    let bytes = umem.bytes_mut(frame);
    if quote_at > bytes.len() || l3 < ethernet::HEADER_LEN {
        return false;
    }
    bytes.copy_within(..l3, gap);
    u16::try_from(gap).is_ok_and(|gap| umem.cut_front(frame, gap).is_ok())
}

/// What an error says that a client should know.
#[derive(Clone, Copy)]
struct Report {
    mtu: Option<u16>,
}

impl Report {
    fn of(message: &icmp::Packet<&[u8]>, is_v4: bool) -> Option<Self> {
        const FRAGMENTATION_NEEDED: u8 = 4;
        let is_error = if is_v4 {
            message.is_error_v4() && message.message_type() != v4::SOURCE_QUENCH
        } else {
            message.is_error_v6()
        };
        let too_big = if is_v4 {
            message.message_type() == v4::DESTINATION_UNREACHABLE
                && message.code() == FRAGMENTATION_NEEDED
        } else {
            message.message_type() == v6::PACKET_TOO_BIG
        };
        // Routers older than RFC 1191 say zero: nothing to go by.
        let mtu = too_big.then(|| message.mtu());
        (is_error && mtu != Some(0)).then_some(Self { mtu })
    }

    /// What is said to the client: RFC 2003 §4 wants nothing but its own MTU and host unreachable,
    /// for the tunnel's inner life is not the client's.
    fn to_client(self, overhead: usize, may_be_fragmented: bool) -> Option<Error> {
        match self.mtu {
            Some(_) if may_be_fragmented => None,
            Some(mtu) => Some(Error::TooBig {
                mtu: mtu.saturating_sub(u16::try_from(overhead).unwrap_or(u16::MAX)),
            }),
            None => Some(Error::HostUnreachable),
        }
    }
}

/// IP protocol number of the inner packet and bytes of what is between the IP headers.
fn inside(
    bytes: &[u8],
    outer_protocol: u8,
    is_gue_port: impl FnOnce(u16) -> bool,
) -> Option<(u8, usize)> {
    match outer_protocol {
        protocol::IPV4 | protocol::IPV6 => Some((outer_protocol, 0)),
        gre::PROTOCOL => match gre::read(bytes)? {
            (ethertype::IPV4, length) => Some((protocol::IPV4, length)),
            (ethertype::IPV6, length) => Some((protocol::IPV6, length)),
            _ => None,
        },
        number if number == Protocol::Udp as u8 => {
            let [_, _, high, low] = *bytes.first_chunk()?;
            if !is_gue_port(u16::from_be_bytes([high, low])) {
                return None;
            }
            let inner = gue::read(bytes.get(udp::HEADER_LEN..)?)?;
            matches!(inner, protocol::IPV4 | protocol::IPV6)
                .then_some((inner, udp::HEADER_LEN + gue::HEADER_LEN))
        }
        _ => None,
    }
}

/// The client's packet, but for its offset in the frame.
fn read_inner(packet: &[u8], inner_protocol: u8, report: Report, overhead: usize) -> Option<Inner> {
    let (ends, may_be_fragmented) = if inner_protocol == protocol::IPV4 {
        let ip = ipv4::Packet::new_header(packet).ok()?;
        (icmp::quoted_v4(packet).ok()??, !ip.dont_fragment())
    } else {
        (icmp::quoted_v6(packet).ok()??, false)
    };
    Some(Inner {
        source: Endpoint {
            address: ends.source,
            port: ends.source_port,
        },
        destination: Endpoint {
            address: ends.destination,
            port: ends.destination_port,
        },
        protocol: ends.protocol,
        error: report.to_client(overhead, may_be_fragmented),
        offset: 0,
    })
}

/// Turns `frame`, an ICMP packet at `l3` about `inner`, into the error for the client, from the
/// virtual server. False if there is nothing to be said; then the frame is to be dropped.
///
/// The answer's MAC addresses are those of the frame, exchanged: the caller sets others if the
/// client is not behind the router that sent the error.
#[cold]
#[must_use = "a frame that was not turned into an error is to be dropped"]
pub fn relay(umem: &Umem, frame: &mut Frame, l3: usize, inner: &Inner) -> bool {
    let Some(error) = inner.error else {
        return false;
    };
    let local = inner.destination.address;
    if !cut_to_quote(umem, frame, l3, inner.offset) {
        return false;
    }
    let ethertype = if local.is_v4() {
        ethertype::IPV4
    } else {
        ethertype::IPV6
    };
    if let Ok(field) = at_mut(umem.bytes_mut(frame), l3 - 2) {
        *field = ethertype.to_be_bytes();
    }
    answer(umem, frame, l3, local, error)
}
