//! NAT64: IPv6 clients of IPv4 real servers, as a kind of FULLNAT (DPVS). Headers are translated as
//! RFC 7915 has it; addresses are the connection's, not embedded ones (RFC 6052).
//!
//! ```text
//!  client's side    Ethernet [tags] | IPv6, 40 bytes, extension headers | TCP …
//!  server's side             Ethernet [tags] | IPv4, 20 bytes, options  | TCP …
//! ```
//!
//! Extension headers and IPv4 options are not passed on (§4.1, §5.1), the flow label is zero. A
//! packet gets longer by [`GROWTH`] on its way to the client, a fragment by [`FRAGMENT_GROWTH`]; the
//! caller has seen that it may ([`check_size`](super::fragment::check_size) with an MTU that much smaller).
//!
//! Not done here: MAC addresses, and echo requests, which are the kernel's.

use super::icmp::{self, Error};
use super::rewrite::{Endpoints, Rewrite, at_mut};
use crate::counters::DropReason;
use crate::service::{Address, Protocol};
use crate::wire::checksum::Sum;
use crate::wire::ethernet::ethertype;
use crate::wire::{Malformed, ipv4, ipv6, udp};
use crate::xsk::umem::{Frame, Umem};

/// Bytes that an IPv6 header is longer than an IPv4 header.
pub const GROWTH: u16 = 20;

/// The same for a fragment.
pub const FRAGMENT_GROWTH: u16 = GROWTH + 8;

/// Least MTU of IPv6 (RFC 8200 §5).
const LEAST_MTU_V6: u16 = 1280;

/// Longest IPv4 packet that routers may fragment: its sender may not know of a smaller MTU than
/// IPv6's (RFC 7915 §5.1).
const MAY_BE_FRAGMENTED: u16 = LEAST_MTU_V6 - GROWTH;

/// What becomes of every packet of one direction of a connection: plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation(Rewrite);

/// What both IP headers have in common.
struct Network {
    class: u8,
    hops: u8,
    protocol: u8,
    /// Bytes behind all headers of the old version.
    payload_len: u16,
    /// Bytes of all those headers.
    header_len: usize,
    fragment: Option<ipv6::FragmentHeader>,
    source: Address,
    destination: Address,
}

impl Translation {
    /// Packets between `before`, of one IP version, shall be between `after`, of the other.
    #[must_use]
    pub fn new(before: &Endpoints, after: &Endpoints) -> Self {
        Self(Rewrite::new(before, after))
    }

    /// The same as a rewriting of the addresses, ports and transport's checksum.
    #[must_use]
    pub(crate) fn of(rewrite: Rewrite) -> Self {
        Self(rewrite)
    }

    /// Translates the IP packet at `l3`, whole or a fragment, and takes a hop from its life. Its
    /// transport header, if it has one, is right behind the new IP header.
    /// `identification` is for an IPv4 packet that routers may fragment: a number that the worker
    /// counts up.
    ///
    /// # Errors
    /// The packet may not travel further, or its checksum cannot be made; it is to be dropped.
    pub fn apply(
        &self,
        umem: &Umem,
        frame: &mut Frame,
        l3: usize,
        identification: u16,
    ) -> Result<(), DropReason> {
        let packet = umem.bytes(frame).get(l3..).unwrap_or_default();
        let mut network = self.read(packet, packet.len())?;
        if network.hops <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        network.hops -= 1;
        if self.lacks_checksum(packet, &network) && network.fragment.is_some() {
            return Err(DropReason::Fragment); // the rest of what would be summed up is not here
        }
        let l4 = self.write(umem, frame, l3, &network, identification)?;
        let bytes = umem.bytes_mut(frame);
        match network.fragment {
            Some(fragment) if fragment.offset > 0 => Ok(()),
            _ => {
                self.0.apply_transport(bytes, l3, l4, network.protocol)?;
                self.complete_udp(bytes, l4, &network)
            }
        }
    }

    /// True if packets become IPv4.
    fn makes_v4(&self) -> bool {
        self.0.destination().address.is_v4()
    }

    /// The headers of the packet, of which `available` bytes must be there.
    fn read(&self, packet: &[u8], available: usize) -> Result<Network, DropReason> {
        if self.makes_v4() {
            let ip = ipv6::Packet::new_header(packet)?;
            let packet = packet.get(..ip.total_len().min(packet.len()));
            let packet = packet.unwrap_or_default();
            let upper = ipv6::walk(packet, 0, ip.next_header())?;
            if ip.total_len() > available {
                return Err(DropReason::BadIpTotalLength);
            }
            let extensions = u16::try_from(upper.offset - ipv6::HEADER_LEN)
                .map_err(|_| Malformed::BadExtensionHeader)?;
            let payload_len = ip.payload_len_u16().checked_sub(extensions);
            let fragmented = upper.fragment != ipv4::Fragment::Whole;
            Ok(Network {
                class: ip.traffic_class(),
                hops: ip.hop_limit(),
                protocol: upper.protocol,
                payload_len: payload_len.ok_or(Malformed::BadExtensionHeader)?,
                header_len: upper.offset,
                fragment: fragmented.then(|| ipv6::fragment_header(packet)).flatten(),
                source: ip.source(),
                destination: ip.destination(),
            })
        } else {
            let ip = ipv4::Packet::new_header(packet)?;
            let header_len =
                u16::try_from(ip.header_len()).map_err(|_| Malformed::BadIpHeaderLength)?;
            let payload_len = ip.total_len_u16().checked_sub(header_len);
            if ip.total_len() > available {
                return Err(DropReason::BadIpTotalLength);
            }
            let fragmented = ip.fragment() != ipv4::Fragment::Whole;
            Ok(Network {
                class: ip.type_of_service(),
                hops: ip.ttl(),
                protocol: ip.protocol(),
                payload_len: payload_len.ok_or(Malformed::BadIpTotalLength)?,
                header_len: ip.header_len(),
                fragment: fragmented.then(|| ipv6::FragmentHeader {
                    next_header: ip.protocol(),
                    offset: ip.fragment_offset(),
                    more: ip.more_fragments(),
                    identification: ip.identification().into(),
                }),
                source: ip.source(),
                destination: ip.destination(),
            })
        }
    }

    /// Replaces the IP header; returns where what follows it begins in the frame.
    fn write(
        &self,
        umem: &Umem,
        frame: &mut Frame,
        l3: usize,
        network: &Network,
        identification: u16,
    ) -> Result<usize, DropReason> {
        let new_len = match (self.makes_v4(), network.fragment) {
            (true, _) => ipv4::HEADER_LEN,
            (false, None) => ipv6::HEADER_LEN,
            (false, Some(_)) => ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN,
        };
        resize_header(umem, frame, l3, network.header_len, new_len)?;
        let bytes = umem.bytes_mut(frame);
        let ethertype = if self.makes_v4() {
            self.write_v4(at_mut(bytes, l3)?, network, identification)?;
            ethertype::IPV4
        } else {
            self.write_v6(at_mut(bytes, l3)?, network)?;
            if let Some(fragment) = &network.fragment {
                *at_mut(bytes, l3 + ipv6::HEADER_LEN)? = fragment.bytes();
            }
            ethertype::IPV6
        };
        *at_mut(bytes, l3.wrapping_sub(2))? = ethertype.to_be_bytes();
        Ok(l3 + new_len)
    }

    /// RFC 7915 §5.1.
    fn write_v4(
        &self,
        header: &mut [u8; ipv4::HEADER_LEN],
        network: &Network,
        identification: u16,
    ) -> Result<(), DropReason> {
        let total_len = network.payload_len.checked_add(GROWTH); // as long as the header
        let total_len = total_len.ok_or(DropReason::BadIpTotalLength)?;
        *header = [0; ipv4::HEADER_LEN];
        let mut ip = ipv4::Packet::header_mut(header);
        ip.set_plain_header();
        ip.set_type_of_service(network.class);
        ip.set_total_len(total_len);
        match network.fragment {
            Some(fragment) => {
                let [.., high, low] = fragment.identification.to_be_bytes();
                ip.set_identification(u16::from_be_bytes([high, low]));
                ip.set_fragment(false, fragment.more, fragment.offset);
            }
            None if total_len <= MAY_BE_FRAGMENTED => ip.set_identification(identification),
            None => ip.set_whole(true),
        }
        ip.set_ttl(network.hops);
        ip.set_protocol(network.protocol);
        ip.set_source(self.0.source().address.last_octets());
        ip.set_destination(self.0.destination().address.last_octets());
        ip.fill_checksum();
        Ok(())
    }

    /// RFC 7915 §4.1.
    fn write_v6(
        &self,
        header: &mut [u8; ipv6::HEADER_LEN],
        network: &Network,
    ) -> Result<(), DropReason> {
        let (next_header, added) = match network.fragment {
            Some(_) => (ipv6::extension::FRAGMENT, FRAGMENT_GROWTH - GROWTH),
            None => (network.protocol, 0),
        };
        let payload_len = network.payload_len.checked_add(added);
        let mut ip = ipv6::Packet::header_mut(header);
        ip.set_traffic_class(network.class);
        ip.set_payload_len(payload_len.ok_or(DropReason::BadIpTotalLength)?);
        ip.set_next_header(next_header);
        ip.set_hop_limit(network.hops);
        ip.set_source(self.0.source().address);
        ip.set_destination(self.0.destination().address);
        Ok(())
    }

    /// True for a UDP datagram, or the first fragment of one, without the checksum that IPv6 wants.
    fn lacks_checksum(&self, packet: &[u8], network: &Network) -> bool {
        let is_first = network.fragment.is_none_or(|fragment| fragment.offset == 0);
        let at = network.header_len + 6;
        let is_udp = network.protocol == Protocol::Udp as u8;
        !self.makes_v4() && is_udp && is_first && packet.get(at..at + 2) == Some(&[0, 0])
    }

    /// Gives a UDP datagram that comes from IPv4 without a checksum one: IPv6 wants it (§4.5).
    fn complete_udp(
        &self,
        frame: &mut [u8],
        l4: usize,
        network: &Network,
    ) -> Result<(), DropReason> {
        if self.makes_v4() || network.protocol != Protocol::Udp as u8 {
            return Ok(());
        }
        let length = usize::from(network.payload_len);
        let datagram = frame
            .get_mut(l4..l4 + length)
            .ok_or(DropReason::Truncated)?;
        let [.., c0, c1] = *datagram
            .first_chunk::<{ udp::HEADER_LEN }>()
            .ok_or(DropReason::BadUdpHeader)?;
        if [c0, c1] != [0, 0] {
            return Ok(());
        }
        let (source, destination) = (self.0.source().address, self.0.destination().address);
        let sum = Sum::ZERO.pseudo_header(
            source,
            destination,
            network.protocol,
            network.payload_len.into(),
        );
        let checksum = match sum.bytes(datagram).checksum() {
            0 => 0xffff,
            checksum => checksum,
        };
        *at_mut(datagram, 6)? = checksum.to_be_bytes();
        Ok(())
    }

    /// Turns the ICMP error at `l3` about a packet of the connection into the one of the other IP
    /// version (§4.2, §5.2). `self` translates the *quoted* packet back to what its sender, to whom
    /// the error then goes, had sent. It comes from the destination of that packet. False if there is
    /// nothing to be passed on; the frame is to be dropped.
    #[cold]
    #[must_use = "a frame that was not translated is to be dropped"]
    pub fn apply_to_error(&self, umem: &Umem, frame: &mut Frame, l3: usize) -> bool {
        let Some((quote_at, error)) = icmp::report(umem.bytes(frame), l3) else {
            return false;
        };
        let error = match error {
            Error::TooBig { mtu } if self.makes_v4() => Error::TooBig {
                mtu: mtu.saturating_sub(GROWTH),
            },
            Error::TooBig { mtu } => Error::TooBig {
                mtu: mtu.saturating_add(GROWTH).max(LEAST_MTU_V6),
            },
            Error::TimeExceeded | Error::PortUnreachable | Error::HostUnreachable => error,
        };
        let local = self.0.destination().address;
        icmp::cut_to_quote(umem, frame, l3, quote_at)
            && self.apply_to_quote(umem, frame, l3).is_ok()
            && icmp::answer(umem, frame, l3, local, error)
    }

    /// Translates a packet that is cut off, and keeps its hops.
    fn apply_to_quote(&self, umem: &Umem, frame: &mut Frame, l3: usize) -> Result<(), DropReason> {
        let packet = umem.bytes(frame).get(l3..).unwrap_or_default();
        let network = self.read(packet, usize::MAX)?;
        let l4 = self.write(umem, frame, l3, &network, 0)?;
        if network.fragment.is_none_or(|fragment| fragment.offset == 0) {
            let ends = Endpoints {
                source: self.0.source(),
                destination: self.0.destination(),
            };
            let before = [network.source, network.destination];
            let after = [ends.source.address, ends.destination.address];
            let addresses = icmp::between(before, after);
            let transport = umem.bytes_mut(frame).get_mut(l4..);
            icmp::quoted_transport(transport, network.protocol, &ends, addresses);
        }
        Ok(())
    }
}

/// Makes the header of `old` bytes at `l3` one of `new` bytes, of any content. What is behind it
/// stays where it is in memory; what is before it moves.
fn resize_header(
    umem: &Umem,
    frame: &mut Frame,
    l3: usize,
    old: usize,
    new: usize,
) -> Result<(), DropReason> {
    let too_long = DropReason::BadIpTotalLength;
    if l3 + old > frame.len() {
        return Err(DropReason::Truncated);
    }
    if new >= old {
        let added = new - old;
        let bytes = u16::try_from(added).map_err(|_| too_long)?;
        umem.prepend(frame, bytes).map_err(|_| too_long)?;
        umem.bytes_mut(frame).copy_within(added..added + l3, 0);
    } else {
        let removed = old - new;
        umem.bytes_mut(frame).copy_within(..l3, removed);
        let bytes = u16::try_from(removed).map_err(|_| too_long)?;
        umem.cut_front(frame, bytes).map_err(|_| too_long)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
