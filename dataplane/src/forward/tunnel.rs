//! TUN: the packet goes to the real server inside another (`ip_vs_tunnel_xmit` and its IPv6 twin).
//!
//! A [`Template`], built once for a real server, has the outer headers; per packet they are copied
//! in front of the packet, and what depends on it is filled in:
//!
//! ```text
//!  before             Ethernet [tags] | IP | …
//!  after    Ethernet [tags] | outer IP | UDP+GUE or GRE or nothing | IP | …
//! ```
//!
//! As IPVS does: one hop is taken from the inner packet's life, and the outer begins with what is
//! left; DSCP, ECN (RFC 6040 §4.1, normal mode) and the don't-fragment flag are copied.
//! Other than IPVS, which fragments the outer packet: one that is too long and may be fragmented is
//! cut *before* it is wrapped ([`Oversize::Fragment`]). The real server then gets packets that it
//! can unwrap one by one, and only its own stack has to put fragments together; decapsulation in
//! BPF could not do with less.
//!
//! Invariant: the outer packet ends where the inner one does.

mod outer;
mod plain;

use self::outer::{Inner, checksum, fill_gue, word, write_outer_v4};
pub use self::plain::Front;
pub(crate) use self::plain::Outers;
use super::fragment::{self, Oversize};
use super::rewrite::at_mut;
use crate::counters::DropReason;
use crate::service::{Address, Protocol, Tunnel};
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{self, ethertype};
use crate::wire::{gre, gue, ipv4, ipv6, udp};
use crate::xsk::umem::{Frame, Umem};

/// IP protocol numbers of IP in IP: IPv4 (RFC 2003) and IPv6 (RFC 2473, RFC 4213).
pub mod protocol {
    pub const IPV4: u8 = 4;
    pub const IPV6: u8 = 41;
}

/// What a [`Template`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub tunnel: Tunnel,
    /// `ipvsadm --tun-csum`: a checksum over the inner packet, in GRE or in UDP. IPIP has none.
    pub checksum: bool,
    /// Version of the packets that are wrapped: that of the virtual server's address.
    pub inner_is_v4: bool,
    /// Outer source: an address of the director, of the same version as `destination`.
    pub source: Address,
    /// So many of the last bits of `source`, at most 32, are taken from the flow's hash instead, so
    /// that the real server spreads tunnelled flows over its queues; 0 for none.
    pub source_bits: u8,
    /// Outer destination: the real server.
    pub destination: Address,
    /// Most bytes of an IP packet on the way to the real server.
    pub mtu: u16,
}

/// Outer headers for the packets of one virtual server to one real server: plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    outer: Outer,
    shim: Shim,
    /// A checksum over the inner packet is wanted.
    checksum: bool,
    inner_is_v4: bool,
    /// Bytes in front of the inner packet.
    overhead: u16,
    /// Most bytes of an inner packet.
    inner_mtu: u16,
    /// Of the last word of the source address, those taken from the flow's hash.
    source_mask: u32,
    source: Address,
    destination: Address,
}

/// The outer IP header, with zero where the inner packet decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outer {
    V4 {
        header: [u8; ipv4::HEADER_LEN],
        /// Its sum, folded, in the order of the bytes in a header.
        sum: u16,
    },
    V6 {
        header: [u8; ipv6::HEADER_LEN],
    },
}

/// What is between the IP headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shim {
    None,
    Gre([u8; gre::HEADER_LEN]),
    GreChecksum([u8; gre::CHECKSUM_HEADER_LEN]),
    Gue([u8; GUE_LEN]),
}

/// Bytes of a UDP and a GUE header.
const GUE_LEN: usize = udp::HEADER_LEN + gue::HEADER_LEN;

impl Shim {
    const fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Gre(_) => gre::HEADER_LEN,
            Self::GreChecksum(_) => gre::CHECKSUM_HEADER_LEN,
            Self::Gue(_) => GUE_LEN,
        }
    }
}

/// What differs from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variation {
    /// Of an outer IPv4 header: a number that the worker counts up, from another start than other
    /// workers, so that fragments made by routers on the way are told apart (RFC 6864 §4.3).
    pub identification: u16,
    /// The hash of the packet's flow.
    pub entropy: u32,
}

/// Why a packet was not wrapped. It is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWrapped {
    /// It is longer than the way allows; `mtu` is without the outer headers.
    Oversize(Oversize),
    Drop(DropReason),
}

impl From<DropReason> for NotWrapped {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

impl Template {
    /// The outer headers that `options` describe.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let (inner_protocol, inner_type) = if options.inner_is_v4 {
            (protocol::IPV4, ethertype::IPV4)
        } else {
            (protocol::IPV6, ethertype::IPV6)
        };
        let (shim, outer_protocol) = match options.tunnel {
            Tunnel::Ipip => (Shim::None, inner_protocol),
            Tunnel::Gre if options.checksum => (
                Shim::GreChecksum(gre::checksum_header(inner_type)),
                gre::PROTOCOL,
            ),
            Tunnel::Gre => (Shim::Gre(gre::header(inner_type)), gre::PROTOCOL),
            Tunnel::Gue { port } => {
                let mut headers = [0; GUE_LEN];
                headers[2..4].copy_from_slice(&port.to_be_bytes());
                headers[udp::HEADER_LEN..].copy_from_slice(&gue::header(inner_protocol));
                (Shim::Gue(headers), Protocol::Udp as u8)
            }
        };
        let source_mask = u32::MAX.checked_shr(32 - u32::from(options.source_bits.min(32)));
        let source_mask = source_mask.unwrap_or(0);
        let mut octets = options.source.octets();
        let last = u32::from_be_bytes(options.source.last_octets()) & !source_mask;
        octets[12..].copy_from_slice(&last.to_be_bytes());
        let source = Address::from_octets(octets);
        let destination = options.destination;
        let outer = if destination.is_v4() {
            let mut header = [0; ipv4::HEADER_LEN];
            let mut ip = ipv4::Packet::header_mut(&mut header);
            ip.set_plain_header();
            ip.set_protocol(outer_protocol);
            ip.set_source(source.last_octets());
            ip.set_destination(destination.last_octets());
            let sum = Sum::ZERO.bytes(&header).fold().to_be();
            Outer::V4 { header, sum }
        } else {
            let mut header = [0; ipv6::HEADER_LEN];
            let mut ip = ipv6::Packet::header_mut(&mut header);
            ip.set_plain_header();
            ip.set_next_header(outer_protocol);
            ip.set_source(source);
            ip.set_destination(destination);
            Outer::V6 { header }
        };
        let ip_len = match outer {
            Outer::V4 { .. } => ipv4::HEADER_LEN,
            Outer::V6 { .. } => ipv6::HEADER_LEN,
        };
        let overhead = u16::try_from(ip_len + shim.len()).unwrap_or(u16::MAX); // at most 52
        Self {
            outer,
            shim,
            checksum: options.checksum,
            inner_is_v4: options.inner_is_v4,
            overhead,
            inner_mtu: options.mtu.saturating_sub(overhead),
            source_mask,
            source,
            destination,
        }
    }

    /// Bytes that a packet grows by.
    #[inline(always)]
    #[must_use]
    pub const fn overhead(&self) -> u16 {
        self.overhead
    }

    /// Most bytes of a packet that can be wrapped, with its IP header.
    #[inline(always)]
    #[must_use]
    pub const fn inner_mtu(&self) -> u16 {
        self.inner_mtu
    }

    /// Wraps the packet in `frame`, whose IP header is at `l3`, for the next hop with these MAC
    /// `addresses`. Tags stay.
    ///
    /// # Errors
    /// [`NotWrapped`]; the frame is unchanged.
    #[inline(always)]
    pub fn forward(
        &self,
        umem: &Umem,
        frame: &mut Frame,
        l3: usize,
        addresses: &ethernet::Addresses,
        variation: Variation,
    ) -> Result<(), NotWrapped> {
        fragment::check_size(umem.bytes(frame), l3, self.inner_is_v4, self.inner_mtu)
            .map_err(NotWrapped::Oversize)?;
        let grown = umem.prepend(frame, self.overhead);
        grown.map_err(|_| DropReason::BadIpTotalLength)?;
        let bytes = umem.bytes_mut(frame);
        if let Err(reason) = self.encapsulate(bytes, l3, addresses, variation) {
            return Err(self.undo(umem, frame, reason));
        }
        Ok(())
    }

    /// Takes the room in front away again. Nothing was written when a packet was refused.
    #[cold]
    fn undo(&self, umem: &Umem, frame: &mut Frame, reason: DropReason) -> NotWrapped {
        // It was lengthened by as much.
        let _ = umem.cut_front(frame, self.overhead);
        NotWrapped::Drop(reason)
    }

    /// Wraps the packet in `frame`, which begins with [`overhead`](Self::overhead) bytes of room.
    /// `l3` is where the IP header was before there was room, and where the outer one will be.
    ///
    /// # Errors
    /// The packet may not travel further; nothing was written.
    #[inline(always)]
    pub fn encapsulate(
        &self,
        frame: &mut [u8],
        l3: usize,
        addresses: &ethernet::Addresses,
        variation: Variation,
    ) -> Result<(), DropReason> {
        // Four straight ways, rather than two choices that meet in between.
        match (&self.outer, self.inner_is_v4) {
            (Outer::V4 { header, sum }, true) => {
                let inner = self.take_hop::<true>(frame, l3)?;
                self.wrap_v4(frame, l3, (header, *sum), inner, addresses, variation)
            }
            (Outer::V4 { header, sum }, false) => {
                let inner = self.take_hop::<false>(frame, l3)?;
                self.wrap_v4(frame, l3, (header, *sum), inner, addresses, variation)
            }
            (Outer::V6 { header }, true) => {
                let inner = self.take_hop::<true>(frame, l3)?;
                self.wrap_v6(frame, l3, header, inner, addresses, variation)
            }
            (Outer::V6 { header }, false) => {
                let inner = self.take_hop::<false>(frame, l3)?;
                self.wrap_v6(frame, l3, header, inner, addresses, variation)
            }
        }
    }

    #[inline(always)]
    fn wrap_v4(
        &self,
        frame: &mut [u8],
        l3: usize,
        outer: (&[u8; ipv4::HEADER_LEN], u16),
        inner: Inner,
        addresses: &ethernet::Addresses,
        variation: Variation,
    ) -> Result<(), DropReason> {
        let inner_len = inner.length;
        self.write_link(frame, l3, addresses, ethertype::IPV4)?;
        self.write_v4(at_mut(frame, l3)?, outer, inner, variation);
        self.write_shim(frame, l3 + ipv4::HEADER_LEN, inner_len, variation)
    }

    #[inline(always)]
    fn wrap_v6(
        &self,
        frame: &mut [u8],
        l3: usize,
        header: &[u8; ipv6::HEADER_LEN],
        inner: Inner,
        addresses: &ethernet::Addresses,
        variation: Variation,
    ) -> Result<(), DropReason> {
        let inner_len = inner.length;
        self.write_link(frame, l3, addresses, ethertype::IPV6)?;
        self.write_v6(at_mut(frame, l3)?, header, inner, variation);
        self.write_shim(frame, l3 + ipv6::HEADER_LEN, inner_len, variation)
    }

    /// Tags, MAC addresses and EtherType.
    #[inline(always)]
    fn write_link(
        &self,
        frame: &mut [u8],
        l3: usize,
        addresses: &ethernet::Addresses,
        ethertype: u16,
    ) -> Result<(), DropReason> {
        if l3 != ethernet::HEADER_LEN {
            self.move_tags(frame, l3)?;
        }
        *at_mut(frame, l3.wrapping_sub(2))? = ethertype.to_be_bytes();
        addresses.write(at_mut::<{ ethernet::HEADER_LEN }>(frame, 0)?);
        Ok(())
    }

    /// Reads the inner header and takes a hop from its life.
    #[inline(always)]
    fn take_hop<const IS_V4: bool>(
        &self,
        frame: &mut [u8],
        l3: usize,
    ) -> Result<Inner, DropReason> {
        let at = l3 + usize::from(self.overhead);
        // The outer length must be expressible; frames are far shorter.
        const LONGEST: u16 = u16::MAX - 64;
        let inner = if IS_V4 {
            let mut ip = ipv4::Packet::header_mut(at_mut(frame, at)?);
            if !ip.decrement_ttl() {
                return Err(DropReason::TtlExceeded);
            }
            Inner::v4(&ip)
        } else {
            let mut ip = ipv6::Packet::header_mut(at_mut(frame, at)?);
            if !ip.decrement_hop_limit() {
                return Err(DropReason::TtlExceeded);
            }
            Inner {
                class: ip.traffic_class(),
                hops: ip.hop_limit(),
                length: ip.total_len_u16(),
                flags: 0,
            }
        };
        if inner.length > LONGEST {
            return Err(DropReason::BadIpTotalLength);
        }
        Ok(inner)
    }

    #[inline(always)]
    fn write_v4(
        &self,
        room: &mut [u8; ipv4::HEADER_LEN],
        (header, sum): (&[u8; ipv4::HEADER_LEN], u16),
        inner: Inner,
        variation: Variation,
    ) {
        let bits = (variation.entropy & self.source_mask).to_be_bytes();
        let [a, b, c, d] = bits;
        let sum = u32::from(sum) + word([a, b]) + word([c, d]);
        write_outer_v4(
            room,
            header,
            sum,
            self.overhead,
            &inner,
            variation.identification,
        );
        if self.source_mask != 0 {
            let source = u32::from_be_bytes(self.source.last_octets()) | u32::from_be_bytes(bits);
            ipv4::Packet::header_mut(room).set_source(source.to_be_bytes());
        }
    }

    #[inline(always)]
    fn write_v6(
        &self,
        room: &mut [u8; ipv6::HEADER_LEN],
        header: &[u8; ipv6::HEADER_LEN],
        inner: Inner,
        variation: Variation,
    ) {
        *room = *header;
        let source = self.varied_source(variation);
        let mut ip = ipv6::Packet::header_mut(room);
        if self.source_mask != 0 {
            ip.set_source(source);
        }
        ip.set_traffic_class(inner.class);
        ip.set_payload_len(inner.length + shim_len(&self.shim));
        ip.set_hop_limit(inner.hops);
    }

    /// What is between the IP headers.
    #[inline(always)]
    fn write_shim(
        &self,
        frame: &mut [u8],
        at: usize,
        inner_len: u16,
        variation: Variation,
    ) -> Result<(), DropReason> {
        if matches!(self.shim, Shim::None) {
            return Ok(()); // before the jump table of the rest
        }
        match self.shim {
            Shim::None => {}
            Shim::Gre(header) => *at_mut(frame, at)? = header,
            Shim::GreChecksum(header) => {
                *at_mut(frame, at)? = header;
                self.fill_gre_checksum(frame, at, inner_len)?;
            }
            Shim::Gue(headers) => {
                *at_mut(frame, at)? = fill_gue(headers, inner_len, variation);
                if self.checksum {
                    self.fill_udp_checksum(frame, at, inner_len, variation)?;
                }
            }
        }
        Ok(())
    }

    /// RFC 2784 §2.3: over GRE header and payload.
    #[inline(never)]
    fn fill_gre_checksum(
        &self,
        frame: &mut [u8],
        at: usize,
        inner_len: u16,
    ) -> Result<(), DropReason> {
        let packet = self.after_outer(frame, at, inner_len)?;
        let checksum = Sum::ZERO.bytes(packet).checksum();
        packet
            .get_mut(gre::CHECKSUM)
            .ok_or(DropReason::Truncated)?
            .copy_from_slice(&checksum.to_be_bytes());
        Ok(())
    }

    /// RFC 768: over pseudo-header, UDP header and payload.
    #[inline(never)]
    fn fill_udp_checksum(
        &self,
        frame: &mut [u8],
        at: usize,
        inner_len: u16,
        variation: Variation,
    ) -> Result<(), DropReason> {
        let source = self.varied_source(variation);
        let length = u32::from(inner_len + shim_len(&self.shim));
        let datagram = self.after_outer(frame, at, inner_len)?;
        let sum = Sum::ZERO
            .pseudo_header(source, self.destination, Protocol::Udp as u8, length)
            .bytes(datagram);
        let checksum = match sum.checksum() {
            0 => 0xffff_u16,
            checksum => checksum,
        };
        datagram
            .get_mut(6..8)
            .ok_or(DropReason::Truncated)?
            .copy_from_slice(&checksum.to_be_bytes());
        Ok(())
    }

    /// From the first byte after the outer IP header to the end of the packet.
    fn after_outer<'a>(
        &self,
        frame: &'a mut [u8],
        at: usize,
        inner_len: u16,
    ) -> Result<&'a mut [u8], DropReason> {
        frame
            .get_mut(at..at + self.shim.len() + usize::from(inner_len))
            .ok_or(DropReason::Truncated)
    }

    /// The outer source address of a packet of this flow.
    #[inline(always)]
    fn varied_source(&self, variation: Variation) -> Address {
        let bits = u64::from((variation.entropy & self.source_mask).to_be()) << 32;
        let [first, last] = self.source.words;
        Address {
            words: [first, last | bits],
        }
    }

    /// Moves the tags from before the inner IP header to before the outer one.
    #[cold]
    fn move_tags(&self, frame: &mut [u8], l3: usize) -> Result<(), DropReason> {
        let room = usize::from(self.overhead);
        // Both MAC addresses come before the tags, the EtherType after them.
        let tags = room + 12..(room + l3).saturating_sub(2);
        if tags.start > tags.end || tags.end > frame.len() {
            return Err(DropReason::Truncated);
        }
        frame.copy_within(tags, 12);
        Ok(())
    }
}

/// Bytes between the IP headers, as they are added to lengths.
#[inline(always)]
fn shim_len(shim: &Shim) -> u16 {
    u16::try_from(shim.len()).unwrap_or(0) // at most 12
}

#[cfg(test)]
mod tests;
