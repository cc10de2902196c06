//! Virtual servers by IPv4 address, port and protocol in one word: a lookup is a multiplication and a line of
//! memory.

use std::net::Ipv4Addr;

use hashbrown::HashMap;

use crate::flow::{FlowKey, PlainKey};
use crate::service::{Address, ServiceKey};

/// Open addressing with linear probing, at most half full. What is in it is configured, not chosen by
/// clients, so that the hash needs no secret.
#[derive(Debug, Default)]
pub(super) struct PlainServices {
    /// As many as a power of two, or none; a word of 0 is free.
    slots: Vec<(u64, u32)>,
    /// Some are for every port.
    every_port: bool,
}

impl PlainServices {
    /// Those of IPv4 in `by_key`.
    pub(super) fn new(by_key: &HashMap<ServiceKey, u32>) -> Self {
        let is_v4 = |key: &ServiceKey| key.address.is_v4();
        let count = by_key.keys().filter(|key| is_v4(key)).count();
        let mut this = Self {
            slots: vec![(0, 0); (2 * count).next_power_of_two()],
            every_port: false,
        };
        for (key, &index) in by_key.iter().filter(|(key, _)| is_v4(key)) {
            let nobody = Address::from(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            let ServiceKey {
                address,
                port,
                protocol,
            } = *key;
            this.every_port |= port == 0;
            let key = FlowKey::new(nobody, 0, address, port, protocol);
            let word = key.plain().service_word();
            let mut place = this.place(word);
            while this.slots[place].0 != 0 {
                place = this.after(place);
            }
            this.slots[place] = (word, index);
        }
        this
    }

    /// What packets with this service word are for: its port, or else every port.
    #[inline(always)]
    pub(super) fn find(&self, word: u64) -> Option<u32> {
        match self.find_word(word) {
            None if self.every_port => self.find_word(PlainKey::every_port(word)),
            found => found,
        }
    }

    #[inline(always)]
    fn find_word(&self, word: u64) -> Option<u32> {
        let mut place = self.place(word);
        loop {
            match *self.slots.get(place)? {
                (0, _) => return None,
                (found, index) if found == word => return Some(index),
                _ => place = self.after(place),
            }
        }
    }

    /// The upper bits of a product with what the golden section is times 2^64.
    #[inline(always)]
    fn place(&self, word: u64) -> usize {
        let mixed = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize & self.slots.len().wrapping_sub(1)
    }

    #[inline(always)]
    fn after(&self, place: usize) -> usize {
        (place + 1) & self.slots.len().wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Protocol;

    fn service(last: u8, port: u16, protocol: Protocol) -> ServiceKey {
        ServiceKey {
            address: Address::v4([192, 0, 2, last]),
            port,
            protocol,
        }
    }

    fn find(services: &PlainServices, key: ServiceKey) -> Option<u32> {
        let client = Address::v4([10, 0, 0, 1]);
        let ServiceKey {
            address,
            port,
            protocol,
        } = key;
        let key = FlowKey::new(client, 40_000, address, port, protocol);
        services.find(key.plain().service_word())
    }

    #[test]
    fn all_are_found_and_nothing_else() {
        let mut by_key = HashMap::new();
        for (number, last) in (0..).zip(0..200) {
            by_key.insert(service(last, 80, Protocol::Tcp), 2 * number);
            by_key.insert(service(last, 80, Protocol::Udp), 2 * number + 1);
        }
        let services = PlainServices::new(&by_key);
        for (key, index) in &by_key {
            assert_eq!(find(&services, *key), Some(*index));
        }
        assert_eq!(find(&services, service(7, 81, Protocol::Tcp)), None);
        assert_eq!(find(&services, service(200, 80, Protocol::Tcp)), None);
        assert_eq!(find(&services, service(7, 80, Protocol::Sctp)), None);
    }

    #[test]
    fn a_port_comes_before_every_port() {
        let (all, one) = (service(1, 0, Protocol::Tcp), service(1, 80, Protocol::Tcp));
        let services = PlainServices::new(&HashMap::from([(all, 0), (one, 1)]));
        assert_eq!(find(&services, one), Some(1));
        assert_eq!(find(&services, service(1, 81, Protocol::Tcp)), Some(0));
        assert_eq!(find(&services, service(1, 81, Protocol::Udp)), None);
    }

    #[test]
    fn without_any_nothing_is_found() {
        for services in [
            PlainServices::default(),
            PlainServices::new(&HashMap::new()),
        ] {
            assert_eq!(find(&services, service(1, 80, Protocol::Tcp)), None);
        }
    }
}
