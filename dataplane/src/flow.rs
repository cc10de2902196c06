//! The key of a connection and its hash.

use std::net::SocketAddr;

use crate::service::{Address, Protocol, ServiceKey};

/// Source and destination of a packet, each with its port, and the protocol. From the client, that
/// is client and virtual server; a reply to be translated has a key of its own.
///
/// Five words, so that two keys are compared by words:
///
/// ```text
///  IPv4   both addresses as in a header, 0, 0, 0                       ports and protocol, with a mark
///  else   the source's two words (see Address), the destination's two  ports and protocol
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct FlowKey([u64; 5]);

const UDP: u8 = Protocol::Udp as u8;
const SCTP: u8 = Protocol::Sctp as u8;

impl FlowKey {
    /// The key of no connection.
    pub const EMPTY: Self = Self([0; 5]);

    /// In the last word, if both addresses are IPv4.
    const V4: u64 = 1 << 8;

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
        let rest =
            u64::from(source_port) << 32 | u64::from(destination_port) << 16 | protocol as u64;
        if source.is_v4() && destination.is_v4() {
            let ([a, b, c, d], [e, f, g, h]) = (source.last_octets(), destination.last_octets());
            let addresses = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
            return Self([addresses, 0, 0, 0, rest | Self::V4]);
        }
        let ([s0, s1], [d0, d1]) = (source.words, destination.words);
        Self([s0, s1, d0, d1, rest])
    }

    /// The same from both IPv4 addresses as they follow each other in their header, and both ports
    /// as in that of TCP or UDP.
    #[inline(always)]
    #[must_use]
    pub(crate) fn from_headers(addresses: [u8; 8], ports: [u8; 4], protocol: Protocol) -> Self {
        let rest = u64::from(u32::from_be_bytes(ports)) << 16 | protocol as u64 | Self::V4;
        Self([u64::from_ne_bytes(addresses), 0, 0, 0, rest])
    }

    /// True if both are the same.
    #[inline(always)]
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.same_v4(other) && self.0[1..4] == other.0[1..4]
    }

    /// The same, if either is known to have IPv4 addresses.
    #[inline(always)]
    #[must_use]
    pub(crate) fn same_v4(&self, other: &Self) -> bool {
        self.0[0] == other.0[0] && self.0[4] == other.0[4]
    }

    /// True if both addresses are IPv4.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn is_v4(&self) -> bool {
        self.0[4] & Self::V4 != 0
    }

    /// Where the packet comes from.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> Address {
        if self.is_v4() {
            let [a, b, c, d, ..] = self.0[0].to_ne_bytes();
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
            let [.., a, b, c, d] = self.0[0].to_ne_bytes();
            return Address::v4([a, b, c, d]);
        }
        Address {
            words: [self.0[2], self.0[3]],
        }
    }

    /// Both IPv4 addresses as a packet the other way has them in its header.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn reversed_v4_addresses(&self) -> [u8; 8] {
        self.0[0].rotate_left(32).to_ne_bytes()
    }

    /// In host byte order.
    #[inline(always)]
    #[must_use]
    pub fn source_port(&self) -> u16 {
        self.port_at(32)
    }

    /// In host byte order.
    #[inline(always)]
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        self.port_at(16)
    }

    /// Both ports as a packet the other way has them in its header.
    #[inline(always)]
    #[must_use]
    pub(crate) fn reversed_ports(&self) -> [u8; 4] {
        #[expect(clippy::cast_possible_truncation, reason = "the two ports are wanted")]
        let ports = (self.0[4] >> 16) as u32;
        ports.rotate_left(16).to_be_bytes()
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

    /// Destination, its port and the protocol in one word, if the addresses are IPv4: with another one's
    /// it is equal if those are. Not 0.
    #[inline(always)]
    #[must_use]
    pub(crate) fn service_word(&self) -> u64 {
        let [.., a, b, c, d] = self.0[0].to_ne_bytes();
        u64::from(u32::from_ne_bytes([a, b, c, d])) << 32 | self.0[4] & 0xffff_ffff
    }

    /// The same of every port of the destination.
    #[inline(always)]
    #[must_use]
    pub(crate) fn every_port(service_word: u64) -> u64 {
        service_word & !0xffff_0000
    }

    /// TCP, no other protocol.
    #[inline(always)]
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.0[4] & 0xff == Protocol::Tcp as u64
    }

    /// As in an IP header.
    #[inline(always)]
    #[must_use]
    pub(crate) fn protocol_number(&self) -> u8 {
        let [.., number] = self.0[4].to_be_bytes();
        number
    }

    fn port_at(&self, shift: u32) -> u16 {
        let [.., high, low] = (self.0[4] >> shift).to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

/// Hashes flow keys with a secret that is new at each start, so that an
/// attacker cannot aim at one bucket.
///
/// Two blinded multiplications for IPv4, four for IPv6, each folded to its halves' XOR: the construction of
/// wyhash and of ahash without AES, without what those need for keys of any length. The bucket
/// chains of the table are bounded besides, so that a break of it costs speed, not service.
#[derive(Clone, Debug)]
pub struct FlowHasher([u64; 8]);

impl FlowHasher {
    /// With a random secret.
    #[must_use]
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        // The standard library's hasher is seeded by the operating system;
        // hashing a counter with it yields secret words.
        let source = RandomState::new();
        Self([0_u8, 1, 2, 3, 4, 5, 6, 7].map(|word| source.hash_one(word)))
    }

    /// With a known secret: the same order of events in every run, for
    /// replay, tests and instruction counts.
    #[must_use]
    pub fn fixed() -> Self {
        // The first hexadecimal digits of π after the point, as good as any.
        Self([
            0x243f_6a88_85a3_08d3,
            0x1319_8a2e_0370_7344,
            0xa409_3822_299f_31d0,
            0x082e_fa98_ec4e_6c89,
            0x4528_21e6_38d0_1377,
            0xbe54_66cf_34e9_0c6c,
            0xc0ac_29b7_c97c_50dd,
            0x3f84_d5b5_b547_0917,
        ])
    }

    /// A hasher for another purpose, of whose hashes none says anything of this one's.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Self {
        let mut words = [0; 8];
        for (number, word) in (0_u8..).zip(&mut words) {
            *word = self.hash_of(&(purpose, number));
        }
        Self(words)
    }

    /// The hash of anything else, by SipHash: for what happens once a connection at most.
    #[must_use]
    pub fn hash_of(&self, value: &impl std::hash::Hash) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        value.hash(&mut hasher);
        hasher.finish()
    }

    /// The hash of a key. Of IPv4 addresses only what varies is hashed.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        let [k0, k1, k2, k3, k4, k5, k6, k7] = self.0;
        let [s0, s1, d0, d1, rest] = key.0;
        let addresses = match key.is_v4() {
            true => s0,
            false => fold(s0 ^ k4, s1 ^ k5) ^ fold(d0 ^ k6, d1 ^ k7),
        };
        fold(fold(addresses ^ k0, rest ^ k1) ^ k2, k3)
    }
}

/// Both halves of the product, as one word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
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
