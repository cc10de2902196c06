//! The key of a connection and its hash.

use std::net::SocketAddr;

use crate::service::{Address, Protocol, ServiceKey};

/// A connection as the client sees it: client and virtual server, each with
/// its port, and the protocol.
///
/// Five words, so that comparing two keys is five XORs and one branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct FlowKey([u64; 5]);

impl FlowKey {
    /// The key of no connection.
    pub const EMPTY: Self = Self([0; 5]);

    /// Ports in host byte order.
    #[inline(always)]
    #[must_use]
    pub fn new(
        client: Address,
        client_port: u16,
        virtual_address: Address,
        virtual_port: u16,
        protocol: Protocol,
    ) -> Self {
        let [c0, c1] = client.words;
        let [v0, v1] = virtual_address.words;
        let rest = u64::from(client_port) << 32 | u64::from(virtual_port) << 16 | protocol as u64;
        Self([c0, c1, v0, v1, rest])
    }

    /// The same from both ports in one word, as they follow each other in a
    /// TCP or UDP header.
    #[inline(always)]
    #[must_use]
    pub(crate) fn from_ports(
        client: Address,
        virtual_address: Address,
        ports: [u8; 4],
        protocol: Protocol,
    ) -> Self {
        let [c0, c1] = client.words;
        let [v0, v1] = virtual_address.words;
        let rest = u64::from(u32::from_be_bytes(ports)) << 16 | protocol as u64;
        Self([c0, c1, v0, v1, rest])
    }

    /// True if both are the same connection, without a branch per word.
    #[inline(always)]
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        let [a0, a1, a2, a3, a4] = self.0;
        let [b0, b1, b2, b3, b4] = other.0;
        (a0 ^ b0) | (a1 ^ b1) | (a2 ^ b2) | (a3 ^ b3) | (a4 ^ b4) == 0
    }

    /// The client's address.
    #[must_use]
    pub fn client_address(&self) -> Address {
        Address {
            words: [self.0[0], self.0[1]],
        }
    }

    /// The client's address and port.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        SocketAddr::new(self.client_address().into(), self.port_at(32))
    }

    /// What the virtual server is found by.
    #[must_use]
    pub fn service(&self) -> ServiceKey {
        let protocol = if self.is_tcp() {
            Protocol::Tcp
        } else {
            Protocol::Udp
        };
        ServiceKey {
            address: Address {
                words: [self.0[2], self.0[3]],
            },
            port: self.port_at(16),
            protocol,
        }
    }

    /// TCP, not UDP.
    #[inline(always)]
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.0[4] & 0xff == Protocol::Tcp as u64
    }

    fn port_at(&self, shift: u32) -> u16 {
        let [.., high, low] = (self.0[4] >> shift).to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

/// Hashes flow keys with a secret that is new at each start, so that an
/// attacker cannot aim at one bucket.
///
/// ahash claims resistance against hash flooding; the bucket chains of the
/// table are bounded besides, so that a break of it costs speed, not service.
#[derive(Clone, Debug)]
pub struct FlowHasher(ahash::RandomState);

impl FlowHasher {
    /// With a random secret.
    #[must_use]
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        // The standard library's hasher is seeded by the operating system;
        // hashing a counter with it yields secret words.
        let source = RandomState::new();
        let [a, b, c, d] = [0_u8, 1, 2, 3].map(|word| source.hash_one(word));
        Self(ahash::RandomState::with_seeds(a, b, c, d))
    }

    /// With a known secret: the same order of events in every run, for
    /// replay, tests and instruction counts.
    #[must_use]
    pub fn fixed() -> Self {
        Self(ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    /// The hash of a key.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.0.build_hasher();
        for word in key.0 {
            hasher.write_u64(word);
        }
        hasher.finish()
    }
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
            for protocol in [Protocol::Tcp, Protocol::Udp] {
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
