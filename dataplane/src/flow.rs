//! The key of a connection and its hash.

mod columns;
mod hash;

use std::net::SocketAddr;

pub(crate) use self::columns::{CommonBits, LANES, PlainEnds, PlainKeys, eights, first_eights};
pub use self::hash::FlowHasher;
pub(crate) use self::hash::{Hashes, Secret};
use crate::processor::same_where;
use crate::service::{Address, Protocol, ServiceKey};
use crate::wire::{self, ipv4};
use crate::xsk::umem::HEAD;

/// Source and destination of a packet, each with its port, and the protocol. From the client, that
/// is client and virtual server; a reply to be translated has a key of its own.
///
/// Five words, so that two keys are compared by words:
///
/// ```text
///  IPv4   0, protocol, 0, 0, source   destination, both ports       0, 0, 0
///  else   the source's two words (see Address), the destination's two  ports and protocol
/// ```
///
/// The words of IPv4 are 16 bytes of a packet as they are, from the time to live on, without that and the
/// header's checksum. No protocol has number 0, so that the last word tells which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct FlowKey([u64; 5]);

/// The key of a packet between IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainKey([u64; 2]);

/// What the headers of packets have whose key is the opposite of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reversed {
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
    /// The source's first.
    pub(crate) ports: [u8; 4],
}

impl Reversed {
    /// Of a key with these, as [`PlainKeys`] has them.
    #[inline(always)]
    const fn of(source: u32, destination: u32, ports: u32) -> Self {
        Self {
            source: destination.to_ne_bytes(),
            destination: source.to_ne_bytes(),
            ports: ports.rotate_left(16).to_ne_bytes(),
        }
    }
}

/// Where a plain packet has its key.
const KEY: usize = wire::PLAIN_L3_OFFSET as usize + ipv4::TTL;

const UDP: u8 = Protocol::Udp as u8;
const SCTP: u8 = Protocol::Sctp as u8;

impl PlainKey {
    /// What of a header's second eight bytes is the key's.
    const MASK: u64 = u64::from_ne_bytes([0, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff]);

    /// From the words themselves.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// The words.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn words(self) -> [u64; 2] {
        self.0
    }

    /// Of a plain packet that begins like this.
    #[inline(always)]
    #[must_use]
    pub(crate) fn of(head: &[u8; HEAD]) -> Self {
        let mut words = [[0; 8]; 2];
        words
            .as_flattened_mut()
            .copy_from_slice(&head[KEY..KEY + 16]);
        Self::from_headers(words[0], words[1])
    }

    /// True if it is that of the plain packet that begins like this.
    #[inline(always)]
    #[must_use]
    pub(crate) fn is_of(&self, head: &[u8; HEAD]) -> bool {
        let key = head[KEY..].first_chunk();
        key.is_some_and(|key| same_where([Self::MASK, u64::MAX], key, self.0))
    }

    /// From an IPv4 header without options, from its time to live on, and the ports of TCP or UDP behind
    /// it: eight bytes, and eight bytes.
    #[inline(always)]
    #[must_use]
    const fn from_headers(first: [u8; 8], second: [u8; 8]) -> Self {
        let first = u64::from_ne_bytes(first) & Self::MASK;
        Self([first, u64::from_ne_bytes(second)])
    }
}

impl From<PlainKey> for FlowKey {
    #[inline(always)]
    fn from(PlainKey([first, second]): PlainKey) -> Self {
        Self([first, second, 0, 0, 0])
    }
}

impl FlowKey {
    /// The key of no connection.
    pub const EMPTY: Self = Self([0; 5]);

    /// Ports in host byte order.
    #[inline(always)]
    #[must_use]
    pub fn new(
        source: Address,
        source_port: u16,
        destination: Address,
        destination_port: u16,
        protocol: Protocol,
    ) -> Self {
        if source.is_v4() && destination.is_v4() {
            let ([a, b, c, d], [e, f, g, h]) = (source.last_octets(), destination.last_octets());
            let ([i, j], [k, l]) = (source_port.to_be_bytes(), destination_port.to_be_bytes());
            let first = [0, protocol as u8, 0, 0, a, b, c, d];
            return PlainKey::from_headers(first, [e, f, g, h, i, j, k, l]).into();
        }
        let ([s0, s1], [d0, d1]) = (source.words, destination.words);
        let rest =
            u64::from(source_port) << 32 | u64::from(destination_port) << 16 | protocol as u64;
        Self([s0, s1, d0, d1, rest])
    }

    /// From the words themselves.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn from_words(words: [u64; 5]) -> Self {
        Self(words)
    }

    /// The words.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn words(self) -> [u64; 5] {
        self.0
    }

    /// True if both are the same.
    #[inline(always)]
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        let [a, b, rest @ ..] = &self.0;
        let [c, d, other_rest @ ..] = &other.0;
        a == c && b == d && rest == other_rest
    }

    /// True if both addresses are IPv4.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn is_v4(&self) -> bool {
        self.0[4] == 0
    }

    /// Where the packet comes from.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> Address {
        if self.is_v4() {
            let [.., a, b, c, d] = self.0[0].to_ne_bytes();
            return Address::v4([a, b, c, d]);
        }
        Address {
            words: [self.0[0], self.0[1]],
        }
    }

    /// Where the packet goes to.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> Address {
        if self.is_v4() {
            let [a, b, c, d, ..] = self.0[1].to_ne_bytes();
            return Address::v4([a, b, c, d]);
        }
        Address {
            words: [self.0[2], self.0[3]],
        }
    }

    /// The same key, if it is known to have IPv4 addresses.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn plain(&self) -> PlainKey {
        let [first, second, ..] = self.0;
        PlainKey([first, second])
    }

    /// In host byte order.
    #[inline(always)]
    #[must_use]
    pub fn source_port(&self) -> u16 {
        let [high, low, ..] = self.ports();
        u16::from_be_bytes([high, low])
    }

    /// In host byte order.
    #[inline(always)]
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        let [.., high, low] = self.ports();
        u16::from_be_bytes([high, low])
    }

    /// Both ports as a packet has them in its header.
    #[inline(always)]
    const fn ports(&self) -> [u8; 4] {
        if self.is_v4() {
            let [.., a, b, c, d] = self.0[1].to_ne_bytes();
            return [a, b, c, d];
        }
        let [_, _, a, b, c, d, ..] = self.0[4].to_be_bytes();
        [a, b, c, d]
    }

    /// Both ports as a packet the other way has them in its header.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn reversed_ports(&self) -> [u8; 4] {
        let [a, b, c, d] = self.ports();
        [c, d, a, b]
    }

    /// The protocol.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self.protocol_number() {
            UDP => Protocol::Udp,
            SCTP => Protocol::Sctp,
            // Keys are made of a `Protocol`: it is TCP.
            _ => Protocol::Tcp,
        }
    }

    /// The client's address and port, if the packet is a client's.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        SocketAddr::new(self.source().into(), self.source_port())
    }

    /// What the virtual server is found by, if the packet is a client's.
    #[must_use]
    pub fn service(&self) -> ServiceKey {
        ServiceKey {
            address: self.destination(),
            port: self.destination_port(),
            protocol: self.protocol(),
        }
    }

    /// TCP, no other protocol.
    #[inline(always)]
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.protocol_number() == Protocol::Tcp as u8
    }

    /// As in an IP header.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn protocol_number(&self) -> u8 {
        if self.is_v4() {
            let [_, number, ..] = self.0[0].to_ne_bytes();
            return number;
        }
        let [.., number] = self.0[4].to_be_bytes();
        number
    }
}

/// An IPv4 address and a port, whose bytes in memory are as in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlainEnd {
    pub(crate) address: u32,
    pub(crate) port: u16,
}

impl PlainEnd {
    /// Nowhere.
    pub(crate) const NONE: Self = Self {
        address: 0,
        port: 0,
    };
}

impl PlainKey {
    /// Where it goes to.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn destination(&self) -> PlainEnd {
        let [a, b, c, d, _, _, high, low] = self.0[1].to_ne_bytes();
        PlainEnd {
            address: u32::from_ne_bytes([a, b, c, d]),
            port: u16::from_ne_bytes([high, low]),
        }
    }

    /// What a packet the other way has in its headers.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn reversed(&self) -> Reversed {
        let [[_, source], [destination, ports]] = [halves(self.0[0]), halves(self.0[1])];
        Reversed::of(source, destination, ports)
    }

    /// Destination, its port and the protocol in one word: with another one's it is equal if those are. Not 0.
    #[inline(always)]
    #[must_use]
    pub(crate) fn service_word(&self) -> u64 {
        let [_, protocol, ..] = self.0[0].to_ne_bytes();
        let [a, b, c, d, _, _, high, low] = self.0[1].to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, protocol, 0, high, low])
    }

    /// The same of every port of the destination.
    #[inline(always)]
    #[must_use]
    pub(crate) fn every_port(service_word: u64) -> u64 {
        let [a, b, c, d, protocol, ..] = service_word.to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, protocol, 0, 0, 0])
    }

    /// TCP, no other protocol.
    #[inline(always)]
    #[must_use]
    pub(crate) fn is_tcp(&self) -> bool {
        let [_, number, ..] = self.0[0].to_ne_bytes();
        number == Protocol::Tcp as u8
    }
}

/// The lower half and the upper one.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
const fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_back_what_it_was_made_of() {
        for (client, service) in [
            ("10.0.0.7:40001", "192.168.1.100:80"),
            ("[2001:db8::7]:65535", "[2001:db8::1]:443"),
        ] {
            let (client, service): (SocketAddr, SocketAddr) =
                (client.parse().unwrap(), service.parse().unwrap());
            for (_, protocol) in Protocol::NAMES {
                let key = FlowKey::new(
                    client.ip().into(),
                    client.port(),
                    service.ip().into(),
                    service.port(),
                    protocol,
                );
                assert_eq!(key.client(), client);
                assert_eq!(key.service().to_string(), format!("{protocol} {service}"));
            }
        }
    }

    /// Keys as they come: one service, clients of few networks with consecutive ports. No bucket
    /// may get more than chance gives it.
    #[test]
    fn like_keys_spread_over_buckets_and_tags() {
        const BUCKETS: usize = 1 << 12;
        const KEYS: u32 = 1 << 17;
        let service = Address::v4([192, 168, 1, 100]);
        let networks: [fn([u8; 2]) -> Address; 2] = [
            |[a, b]| Address::v4([10, 0, a, b]),
            |[a, b]| Address::from_octets([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b]),
        ];
        for network in networks {
            let hasher = FlowHasher::random();
            let (mut buckets, mut tags) = (vec![0_u32; BUCKETS], vec![0_u32; 256]);
            for number in 0..KEYS {
                let [.., host, high, low] = number.to_be_bytes();
                let client = network([host, high & 0xf0]);
                let port = u16::from_be_bytes([high, low]);
                let hash = hasher.hash(&FlowKey::new(client, port, service, 80, Protocol::Tcp));
                buckets[(hash >> 52) as usize] += 1;
                tags[(hash & 0xff) as usize] += 1;
            }
            // A mean of 32 and of 512: ten standard deviations are 57 and 226.
            assert!(buckets.iter().all(|&count| count < 32 + 57), "{buckets:?}");
            assert!(
                tags.iter().all(|&count| count.abs_diff(512) < 226),
                "{tags:?}"
            );
        }
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let base = (
            Address::v4([10, 0, 0, 1]),
            1,
            Address::v4([10, 0, 0, 2]),
            2,
            Protocol::Tcp,
        );
        let key = |p: (Address, u16, Address, u16, Protocol)| FlowKey::new(p.0, p.1, p.2, p.3, p.4);
        let hasher = FlowHasher::random();
        for other in [
            (Address::v4([10, 0, 0, 3]), 1, base.2, 2, Protocol::Tcp),
            (base.0, 3, base.2, 2, Protocol::Tcp),
            (base.0, 1, Address::v4([10, 0, 0, 4]), 2, Protocol::Tcp),
            (base.0, 1, base.2, 4, Protocol::Tcp),
            (base.0, 1, base.2, 2, Protocol::Udp),
            (base.0, 1, base.2, 2, Protocol::Sctp),
        ] {
            assert!(!key(base).same(&key(other)));
            assert_ne!(hasher.hash(&key(base)), hasher.hash(&key(other)));
        }
        assert!(key(base).same(&key(base)));
        assert_ne!(
            FlowHasher::random().hash(&key(base)),
            FlowHasher::random().hash(&key(base))
        );
    }
}
