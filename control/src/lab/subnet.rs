//! IPv4 and IPv6 subnets and the free addresses in them.
//!
//! Both families are numbers here, so that one piece of arithmetic serves
//! both. No I/O.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network prefix; host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    network: IpAddr,
    prefix_length: u8,
}

/// How far down from the top of an IPv6 subnet addresses are looked for: the
/// last 16 bits, so that they stay short to read.
const IPV6_TOP: u128 = 0xffff;

impl Subnet {
    /// The subnet of `prefix_length` bits that `address` is in.
    ///
    /// A length beyond the family's is taken as a host route.
    #[must_use]
    pub fn of(address: IpAddr, prefix_length: u8) -> Self {
        let prefix_length = prefix_length.min(bits(address));
        let network = from_number(
            number(address) & !host_mask(address, prefix_length),
            address,
        );
        Self {
            network,
            prefix_length,
        }
    }

    /// The subnet that an administrator would give `address` when nothing says
    /// otherwise: /24 or /64.
    #[must_use]
    pub fn standard(address: IpAddr) -> Self {
        Self::of(address, if address.is_ipv4() { 24 } else { 64 })
    }

    /// True if `address` is of the same family and in this subnet.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4()
            && Self::of(address, self.prefix_length).network == self.network
    }

    /// True if one of the two holds the other.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.network.is_ipv4()
    }

    #[must_use]
    pub fn prefix_length(&self) -> u8 {
        self.prefix_length
    }

    /// True if it has room for nothing but one host.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.prefix_length == bits(self.network)
    }

    /// Takes the highest host address that is not in `taken`, and adds it
    /// there. The network's and the broadcast address are never given away.
    pub fn take_free(&self, taken: &mut BTreeSet<IpAddr>) -> Option<IpAddr> {
        let first = number(self.network);
        let mask = host_mask(self.network, self.prefix_length);
        let last = if self.is_ipv4() {
            first | mask
        } else {
            first | (mask & IPV6_TOP)
        };
        (first.checked_add(1)?..last)
            .rev()
            .map(|candidate| from_number(candidate, self.network))
            .find(|candidate| taken.insert(*candidate))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_length)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The inverse of [`number`], in the family of `like`.
fn from_number(number: u128, like: IpAddr) -> IpAddr {
    match like {
        // Only numbers made from an IPv4 address and 32-bit masks come here.
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

/// Ones where the host part of an address of `like`'s family is.
fn host_mask(like: IpAddr, prefix_length: u8) -> u128 {
    let host_bits = u32::from(bits(like) - prefix_length);
    1u128
        .checked_shl(host_bits)
        .map_or(u128::MAX, |power| power - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str, length: u8) -> Subnet {
        Subnet::of(text.parse().unwrap(), length)
    }

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!(subnet("192.168.1.77", 24).to_string(), "192.168.1.0/24");
        assert_eq!(subnet("10.1.2.3", 0).to_string(), "0.0.0.0/0");
        assert_eq!(subnet("2001:db8::7:1", 64).to_string(), "2001:db8::/64");
        assert_eq!(subnet("2001:db8::7:1", 0).to_string(), "::/0");
        assert_eq!(subnet("10.1.2.3", 99).to_string(), "10.1.2.3/32");
    }

    #[test]
    fn families_never_hold_each_other() {
        assert!(!subnet("0.0.0.0", 0).contains("::1".parse().unwrap()));
        assert!(!subnet("::", 0).overlaps(&subnet("10.0.0.0", 8)));
    }

    #[test]
    fn overlap_is_seen_from_both_sides() {
        let wide = subnet("10.0.0.0", 8);
        let narrow = subnet("10.9.0.0", 24);
        assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide));
        assert!(!narrow.overlaps(&subnet("10.9.1.0", 24)));
    }

    #[test]
    fn free_addresses_come_from_the_top_and_skip_the_taken() {
        let mut taken = BTreeSet::from(["10.0.0.254".parse().unwrap()]);
        let net = subnet("10.0.0.1", 24);
        assert_eq!(
            net.take_free(&mut taken),
            Some("10.0.0.253".parse().unwrap())
        );
        assert_eq!(
            net.take_free(&mut taken),
            Some("10.0.0.252".parse().unwrap())
        );
        let six = subnet("2001:db8::1", 64);
        assert_eq!(
            six.take_free(&mut taken),
            Some("2001:db8::fffe".parse().unwrap())
        );
    }

    #[test]
    fn a_full_subnet_has_nothing_free() {
        let mut taken = BTreeSet::new();
        let net = subnet("10.0.0.0", 30);
        assert!(net.take_free(&mut taken).is_some());
        assert!(net.take_free(&mut taken).is_some());
        assert_eq!(net.take_free(&mut taken), None);
        assert_eq!(subnet("10.0.0.1", 32).take_free(&mut taken), None);
        assert_eq!(
            subnet("255.255.255.255", 32).take_free(&mut taken),
            None,
            "no overflow at the end of the address space"
        );
    }
}
