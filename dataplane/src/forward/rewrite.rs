//! NAT and FULLNAT: addresses and ports of a packet become others, and its checksums follow
//! (`ip_vs_nat_xmit`, `tcp_snat_handler` and their kind).
//!
//! A [`Rewrite`] is computed once for each direction of a connection; applying it adds two
//! precomputed differences (RFC 1624, equation 3). A checksum that was wrong stays wrong.
//!
//! Not done here: MAC addresses ([`Addresses`]), the size
//! of the packet on its new way ([`fragment`](super::fragment)), and packets of another IP version
//! than before ([`nat64`](super::nat64)).

use crate::counters::DropReason;
use crate::flow::{FlowKey, PlainKey, Reversed};
use crate::service::{Address, Protocol};
use crate::wire::checksum::{Delta, Sum};
use crate::wire::ethernet::{self, Addresses};
use crate::wire::ipv4::Life;
use crate::wire::{ipv4, ipv6, sctp, udp};
use crate::xsk::umem::HEAD;

/// An address and a port in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: Address,
    pub port: u16,
}

/// Where a packet comes from and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints {
    pub source: Endpoint,
    pub destination: Endpoint,
}

impl Endpoints {
    /// Those of the answers.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }

    /// Both ports, as they follow each other in a header.
    #[must_use]
    pub const fn ports(&self) -> [u8; 4] {
        let [a, b] = self.source.port.to_be_bytes();
        let [c, d] = self.destination.port.to_be_bytes();
        [a, b, c, d]
    }

    /// What becoming `after` does to the checksum of an IPv4 header (without the hop), and to that of TCP or UDP.
    pub(crate) fn deltas(&self, after: &Self) -> (Delta, Delta) {
        let addresses = Delta::between(self.sum_of_addresses(), after.sum_of_addresses());
        let ports = Delta::between(
            Sum::ZERO.bytes(&self.ports()),
            Sum::ZERO.bytes(&after.ports()),
        );
        (addresses, addresses.and(ports))
    }

    pub(super) fn sum_of_addresses(&self) -> Sum {
        Sum::ZERO
            .address(self.source.address)
            .address(self.destination.address)
    }
}

/// What becomes of every packet of one direction of a connection: plain data, 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    source: Address,
    destination: Address,
    /// As in a header.
    ports: [u8; 4],
    /// For the IPv4 header: addresses and one hop less.
    network: Delta,
    /// For TCP and UDP: addresses and ports.
    transport: Delta,
}

impl Rewrite {
    /// Packets between `before` shall be between `after`. All four addresses are of one IP version.
    #[must_use]
    pub fn new(before: &Endpoints, after: &Endpoints) -> Self {
        let (addresses, transport) = before.deltas(after);
        Self {
            source: after.source.address,
            destination: after.destination.address,
            ports: after.ports(),
            network: addresses.and(Delta::ONE_HOP),
            transport,
        }
    }

    /// Packets shall be between the ends of `opposite`, turned round: the key of packets that go
    /// the other way. `network` and `transport` are the changes of the addresses, and of both.
    #[inline(always)]
    #[must_use]
    pub(crate) fn opposite(opposite: &FlowKey, network: Delta, transport: Delta) -> Self {
        Self {
            source: opposite.destination(),
            destination: opposite.source(),
            ports: opposite.reversed_ports(),
            network: network.and(Delta::ONE_HOP),
            transport,
        }
    }

    /// Where packets come from afterwards.
    #[must_use]
    pub fn source(&self) -> Endpoint {
        let [high, low, ..] = self.ports;
        Endpoint {
            address: self.source,
            port: u16::from_be_bytes([high, low]),
        }
    }

    /// Where they go.
    #[must_use]
    pub fn destination(&self) -> Endpoint {
        let [.., high, low] = self.ports;
        Endpoint {
            address: self.destination,
            port: u16::from_be_bytes([high, low]),
        }
    }

    /// Rewrites a whole IPv4 packet, or the first fragment of one, and takes a hop from its life.
    /// `l3` and `l4` are where the headers begin in `frame`, `protocol` is the IP protocol number.
    ///
    /// # Errors
    /// The packet may not travel further: unchanged. A first fragment of SCTP to another port, whose
    /// checksum cannot be known: to be dropped.
    #[inline(always)]
    pub fn apply_v4(
        &self,
        frame: &mut [u8],
        l3: usize,
        l4: usize,
        protocol: u8,
    ) -> Result<(), DropReason> {
        self.apply_v4_addresses(frame, l3)?;
        self.apply_transport(frame, l3, l4, protocol)
    }

    /// Rewrites a later fragment, which has addresses only, and takes a hop from its life.
    ///
    /// # Errors
    /// The packet may not travel further; it is unchanged.
    #[inline(always)]
    pub fn apply_v4_addresses(&self, frame: &mut [u8], l3: usize) -> Result<(), DropReason> {
        let header = at_mut::<{ ipv4::HEADER_LEN }>(frame, l3)?;
        let mut ip = ipv4::Packet::header_mut(header);
        let ttl = ip.ttl();
        if ttl <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        ip.set_ttl(ttl - 1);
        ip.adjust_checksum(self.network);
        ip.set_source(self.source.last_octets());
        ip.set_destination(self.destination.last_octets());
        Ok(())
    }

    /// As [`apply_v4`](Self::apply_v4), for IPv6.
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn apply_v6(
        &self,
        frame: &mut [u8],
        l3: usize,
        l4: usize,
        protocol: u8,
    ) -> Result<(), DropReason> {
        self.apply_v6_addresses(frame, l3)?;
        self.apply_transport(frame, l3, l4, protocol)
    }

    /// As [`apply_v4_addresses`](Self::apply_v4_addresses), for IPv6.
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn apply_v6_addresses(&self, frame: &mut [u8], l3: usize) -> Result<(), DropReason> {
        let header = at_mut::<{ ipv6::HEADER_LEN }>(frame, l3)?;
        let mut ip = ipv6::Packet::header_mut(header);
        if !ip.decrement_hop_limit() {
            return Err(DropReason::TtlExceeded);
        }
        ip.set_source(self.source);
        ip.set_destination(self.destination);
        Ok(())
    }

    /// New ports, and the checksum of the transport at `l4`.
    #[inline(always)]
    pub(super) fn apply_transport(
        &self,
        frame: &mut [u8],
        l3: usize,
        l4: usize,
        protocol: u8,
    ) -> Result<(), DropReason> {
        if protocol == Protocol::Tcp as u8 {
            let header = at_mut::<{ tcp_field::CHECKSUM + 2 }>(frame, l4)?;
            let [p0, p1, p2, p3, .., c0, c1] = header;
            [*p0, *p1, *p2, *p3] = self.ports;
            [*c0, *c1] = self.transport.apply([*c0, *c1]);
            Ok(())
        } else if protocol == Protocol::Udp as u8 {
            let header = at_mut::<8>(frame, l4)?;
            let [p0, p1, p2, p3, _, _, c0, c1] = header;
            [*p0, *p1, *p2, *p3] = self.ports;
            [*c0, *c1] = udp_checksum([*c0, *c1], self.transport);
            Ok(())
        } else if protocol == sctp::PROTOCOL {
            self.apply_sctp(frame, l3, l4)
        } else {
            Ok(())
        }
    }

    #[cold]
    fn apply_sctp(&self, frame: &mut [u8], l3: usize, l4: usize) -> Result<(), DropReason> {
        if *at_mut::<4>(frame, l4)? == self.ports {
            return Ok(()); // addresses are not in the checksum, so fragments pass, too
        }
        let whole = whole_packet(frame, l3, l4)?;
        let mut packet = sctp::Packet::new_checked(whole)?;
        packet.set_ports(self.ports);
        Ok(())
    }
}

/// A [`Rewrite`] for untagged frames with an IPv4 header without options, of TCP or UDP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainRewrite {
    /// What its headers get.
    ends: Reversed,
    network: Delta,
    transport: Delta,
}

impl PlainRewrite {
    /// As [`Rewrite::opposite`].
    #[inline(always)]
    #[must_use]
    pub(crate) const fn opposite(opposite: PlainKey, deltas: (Delta, Delta)) -> Self {
        Self::new(opposite.reversed(), deltas)
    }

    /// The same, where the key has been reversed.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn new(ends: Reversed, (network, transport): (Delta, Delta)) -> Self {
        Self {
            ends,
            network,
            transport,
        }
    }

    /// Rewrites a packet that would leave with this `life`, and addresses it to the next hop.
    #[inline(always)]
    pub(crate) fn forward(&self, head: &mut [u8; HEAD], life: Life, hop: &Addresses) {
        let Some(header) = head[ethernet::HEADER_LEN..].first_chunk_mut() else {
            return; // it is longer
        };
        let mut ip = ipv4::Packet::header_mut(header);
        ip.set_life(life.changed(self.network));
        ip.set_source(self.ends.source);
        ip.set_destination(self.ends.destination);
        let transport = &mut head[PLAIN_L4..];
        transport[..4].copy_from_slice(&self.ends.ports);
        // A branch for each protocol, so that all offsets are constants.
        if life.protocol() == Protocol::Tcp as u8 {
            if let Some(checksum) = transport[tcp_field::CHECKSUM..].first_chunk_mut() {
                *checksum = self.transport.apply(*checksum);
            }
        } else if let Some(checksum) = transport[udp::HEADER_LEN - 2..].first_chunk_mut() {
            *checksum = udp_checksum(*checksum, self.transport);
        }
        hop.write(head);
    }
}

/// Where the transport header is in an untagged frame behind an IPv4 header without options.
const PLAIN_L4: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;

/// Where the checksum is in a TCP header.
mod tcp_field {
    pub(super) const CHECKSUM: usize = 16;
}

/// The checksum of UDP after a change: none stays none, and one that comes out as zero is sent as
/// its other form, for zero says that there is none (RFC 768).
#[inline(always)]
pub(super) fn udp_checksum(checksum: [u8; 2], delta: Delta) -> [u8; 2] {
    // As numbers, so that they are not taken apart.
    match u16::from_ne_bytes(checksum) {
        0 => 0,
        some => match delta.apply_word(some) {
            0 => u16::MAX,
            changed => changed,
        },
    }
    .to_ne_bytes()
}

/// The transport's part of the IP packet at `l3`, which must be whole.
fn whole_packet(frame: &mut [u8], l3: usize, l4: usize) -> Result<&mut [u8], DropReason> {
    let ip = frame.get(l3..).unwrap_or_default();
    let (length, is_whole) = if ip.first().is_some_and(|first| first >> 4 == 4) {
        let ip = ipv4::Packet::new_checked(ip)?;
        (ip.total_len(), ip.fragment() == ipv4::Fragment::Whole)
    } else {
        let packet = ipv6::Packet::new_checked(ip)?;
        let upper = ipv6::walk(ip, 0, packet.next_header())?;
        let is_whole = upper.fragment == ipv4::Fragment::Whole;
        (packet.total_len(), is_whole)
    };
    if !is_whole {
        return Err(DropReason::SctpFragment);
    }
    frame.get_mut(l4..l3 + length).ok_or(DropReason::Truncated)
}

/// The `N` bytes at `at`.
#[inline(always)]
pub(super) fn at_mut<const N: usize>(
    frame: &mut [u8],
    at: usize,
) -> Result<&mut [u8; N], DropReason> {
    let Some((_, rest)) = frame.split_at_mut_checked(at) else {
        return Err(DropReason::Truncated);
    };
    rest.first_chunk_mut().ok_or(DropReason::Truncated)
}

#[cfg(test)]
pub(super) mod tests;
