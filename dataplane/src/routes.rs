//! The way to clients, for replies that pass the director: what the kernel's main routing table
//! says, as the control plane last read it.
//!
//! A route is looked up once for each connection whose replies are translated, and again when the routes are
//! others than before (`director/rerouting.rs`). The gateway it names is looked up for each reply, so that a gateway's
//! new MAC address counts at once.
//!
//! Not done here: policy routing, metrics (the control plane keeps the best route of a prefix),
//! more than one next hop for a prefix.

use crate::conn::WayWord;
use crate::service::{Address, GatewayId, Hop, MacAddress, NextHop, PortIndex};

/// Where packets for a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Gateway(GatewayId),
    /// The destination is itself a neighbour on this interface.
    Link(PortIndex),
}

/// A prefix of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: Address,
    /// Of 128 bits: an IPv4 prefix has 96 more than it is written with.
    length: u8,
}

impl Prefix {
    /// The prefix of `length` bits (at most 32 for IPv4, 128 for IPv6; more means as many)
    /// that `address` lies in.
    #[must_use]
    pub fn new(address: Address, length: u8) -> Self {
        let length = match address.is_v4() {
            true => 96 + length.min(32),
            false => length.min(128),
        };
        Self::of(address, length)
    }

    fn of(address: Address, length: u8) -> Self {
        let bits = number(address);
        Self {
            address: Address::from_octets((bits & !rest(length)).to_be_bytes()),
            length,
        }
    }

    /// Its first address and its last one.
    fn range(&self) -> (u128, u128) {
        let first = number(self.address);
        (first, first | rest(self.length))
    }
}

/// The bits behind a prefix of this length.
fn rest(length: u8) -> u128 {
    u128::MAX.checked_shr(length.into()).unwrap_or(0)
}

#[inline(always)]
fn number(address: Address) -> u128 {
    u128::from_be_bytes(address.octets())
}

/// What forwarding knows of an interface of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The kernel's number of it; 0 where there is no kernel.
    pub index: u32,
    pub mac: MacAddress,
    /// Most bytes of an IP packet; 0 where no interface is.
    pub mtu: u16,
    /// The director's addresses there, from which tunnelled packets are sent.
    pub v4: Option<Address>,
    pub v6: Option<Address>,
}

/// Routes with the gateways they name, and the interfaces.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Where each range of addresses begins that go the same way, ascending; the first one is in front of all.
    starts: Vec<u128>,
    /// The ways.
    vias: Vec<Option<Via>>,
    /// The same of IPv4 addresses alone, as numbers in host byte order.
    v4_starts: Vec<u32>,
    /// By which gateway replies go there; [`NO_GATEWAY`] if by none.
    v4_gateways: Vec<WayWord>,
    gateways: Vec<Option<Hop>>,
    ports: Vec<Egress>,
    /// Another one than that of the routes before, if an address may go another way now.
    revision: u64,
}

impl Routes {
    /// Of two routes for a prefix the last one counts. `gateways` are indexed by [`GatewayId`], `None`
    /// where the MAC address is not known; `ports` by [`PortIndex`].
    #[must_use]
    pub fn new(
        routes: impl IntoIterator<Item = (Prefix, Via)>,
        gateways: Vec<Option<NextHop>>,
        ports: Vec<Egress>,
    ) -> Self {
        let ranges = Ranges::of(routes);
        let (v4_starts, v4_gateways) = v4_ranges(&ranges).unzip();
        let (starts, vias) = ranges.into_iter().unzip();
        Self {
            starts,
            vias,
            v4_starts,
            v4_gateways,
            gateways: gateways.into_iter().map(|hop| hop.map(Hop::from)).collect(),
            ports,
            revision: 0,
        }
    }

    /// The same as what comes after `before`: workers see by the revision whether ways are others.
    #[must_use]
    pub fn replacing(self, before: &Self) -> Self {
        let is_same = self.starts == before.starts && self.vias == before.vias;
        Self {
            revision: before.revision + u64::from(!is_same),
            ..self
        }
    }

    /// As long as it is the same, so is the way of every address.
    #[must_use]
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The route of the longest prefix that `address` lies in.
    #[must_use]
    pub fn route(&self, address: Address) -> Option<Via> {
        let address = number(address);
        let behind = self.starts.partition_point(|start| *start <= address);
        *self.vias.get(behind.checked_sub(1)?)?
    }

    /// What is reached as an IPv4 address is, whose bytes in memory are as in a header.
    #[inline(always)]
    #[must_use]
    pub(crate) fn v4_range(&self, address: u32) -> V4Range {
        let address = u32::from_be(address);
        let behind = self.v4_starts.partition_point(|start| *start <= address);
        let at = |starts: &[u32], number: usize| starts.get(number).copied();
        let number = behind.checked_sub(1);
        let first = number.and_then(|number| at(&self.v4_starts, number));
        let last = at(&self.v4_starts, behind).map(|next| next - 1);
        let way = number.and_then(|number| self.v4_gateways.get(number));
        V4Range {
            first: first.unwrap_or(0),
            last: last.unwrap_or(u32::MAX),
            gateway: way.copied().filter(|way| way.is_gateway()),
        }
    }

    /// How packets reach a gateway; `None` while it is not resolved.
    #[inline(always)]
    #[must_use]
    pub fn gateway(&self, id: GatewayId) -> Option<&Hop> {
        self.gateways.get(usize::from(id.0))?.as_ref()
    }

    /// An interface; `None` where interfaces are not known, as in replay.
    #[inline(always)]
    #[must_use]
    pub fn egress(&self, port: PortIndex) -> Option<&Egress> {
        self.ports.get(usize::from(port.0))
    }

    /// There is such an interface: it may be gone, and with it the ways by it. Where interfaces are not known, there are all.
    #[must_use]
    pub fn has_port(&self, port: PortIndex) -> bool {
        self.ports.is_empty() || self.egress(port).is_some_and(|egress| egress.mtu > 0)
    }

    /// Most bytes of an IP packet that leaves by `port`.
    #[inline(always)]
    #[must_use]
    pub fn mtu(&self, port: PortIndex) -> u16 {
        self.egress(port).map_or(u16::MAX, |egress| egress.mtu)
    }

    /// The largest MTU of all interfaces: what is received is no longer.
    #[must_use]
    pub fn largest_mtu(&self) -> u16 {
        let mtus = self.ports.iter().map(|egress| egress.mtu);
        mtus.max().unwrap_or(u16::MAX)
    }
}

/// IPv4 addresses that are all reached in one way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct V4Range {
    /// In host byte order; behind `last` if there are none.
    first: u32,
    last: u32,
    /// If they have one.
    pub(crate) gateway: Option<WayWord>,
}

impl V4Range {
    /// Without addresses.
    pub(crate) const NONE: Self = Self {
        first: 1,
        last: 0,
        gateway: None,
    };

    /// True for an address of them, whose bytes in memory are as in a header.
    #[inline(always)]
    pub(crate) fn has(&self, address: u32) -> bool {
        (self.first..=self.last).contains(&u32::from_be(address))
    }
}

/// Not that of any gateway.
const NO_GATEWAY: WayWord = WayWord::from_word(0);

/// Those ranges, ascending and without a gap, that have IPv4 addresses, and only these of them.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half of an IPv4 address is all of it"
)]
fn v4_ranges(ranges: &[(u128, Option<Via>)]) -> impl Iterator<Item = (u32, WayWord)> {
    let all = Prefix::new(Address::v4([0; 4]), 0);
    let (first, last) = all.range();
    let ends = ranges.iter().skip(1).map(|(next, _)| *next);
    let ends = ends.chain(std::iter::once(u128::MAX));
    (ranges.iter().zip(ends))
        .filter(move |((start, _), end)| *start <= last && *end > first)
        .map(move |((start, via), _)| {
            let way = match via {
                Some(Via::Gateway(gateway)) => WayWord::gateway(*gateway),
                Some(Via::Link(_)) | None => NO_GATEWAY,
            };
            ((*start).max(first) as u32, way)
        })
}

/// Prefixes that lie in each other become ranges that do not.
#[derive(Debug, Default)]
struct Ranges {
    /// Where each begins, and its way.
    done: Vec<(u128, Option<Via>)>,
    /// Of the prefixes that are begun, each of which lies in the one before it: last address and way.
    begun: Vec<(u128, Option<Via>)>,
}

impl Ranges {
    fn of(routes: impl IntoIterator<Item = (Prefix, Via)>) -> Vec<(u128, Option<Via>)> {
        // An IPv4 address does not lie in ::/0.
        let v4 = Prefix::new(Address::v4([0; 4]), 0);
        let routes = routes.into_iter().map(|(prefix, via)| (prefix, Some(via)));
        let mut routes: Vec<_> = std::iter::once((v4, None)).chain(routes).collect();
        // What lies in a prefix comes behind it.
        routes.sort_by_key(|(prefix, _)| (prefix.range().0, prefix.length));
        let mut this = Self::default();
        this.begin(0, None);
        for (prefix, via) in routes {
            let (start, last) = prefix.range();
            while this.begun.last().is_some_and(|(last, _)| *last < start) {
                this.end();
            }
            this.begin(start, via);
            this.begun.push((last, via));
        }
        while !this.begun.is_empty() {
            this.end();
        }
        this.done
    }

    fn begin(&mut self, start: u128, via: Option<Via>) {
        match self.done.last_mut() {
            Some(last) if last.0 == start => last.1 = via,
            Some(last) if last.1 == via => {}
            Some(_) | None => self.done.push((start, via)),
        }
    }

    /// The innermost prefix ends; that around it goes on.
    fn end(&mut self) {
        if let Some((last, _)) = self.begun.pop()
            && let Some(next) = last.checked_add(1)
        {
            let via = self.begun.last().and_then(|(_, via)| *via);
            self.begin(next, via);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix::new(address.parse::<IpAddr>().unwrap().into(), length)
    }

    #[test]
    fn the_longest_prefix_counts() {
        let gateway = |id| Via::Gateway(GatewayId(id));
        let link = Via::Link(PortIndex(1));
        let routes = Routes::new(
            [
                (prefix("0.0.0.0", 0), gateway(0)),
                (prefix("10.1.2.3", 8), gateway(1)),
                (prefix("10.1.0.0", 16), link),
                (prefix("2001:db8::", 32), gateway(2)),
            ],
            Vec::new(),
            Vec::new(),
        );
        let route = |address: &str| routes.route(address.parse::<IpAddr>().unwrap().into());
        assert_eq!(route("10.1.9.9"), Some(link));
        assert_eq!(route("10.2.9.9"), Some(gateway(1)));
        assert_eq!(route("11.2.9.9"), Some(gateway(0)));
        assert_eq!(route("2001:db8::1"), Some(gateway(2)));
        assert_eq!(route("2001:db9::1"), None, "0.0.0.0/0 is not ::/0");
        let all = Routes::new([(prefix("::", 0), gateway(0))], Vec::new(), Vec::new());
        assert_eq!(all.route(Address::v4([10, 0, 0, 1])), None);
        assert_eq!(
            all.route(Address::from_octets([0xff; 16])),
            Some(gateway(0))
        );
        assert_eq!(Routes::default().route(Address::v4([10, 0, 0, 1])), None);
    }

    /// Prefixes of few bits, so that many are in each other.
    fn prefixes() -> impl Strategy<Value = Prefix> {
        let v4 = (0..8_u8, 0..=32_u8).prop_map(|(bits, length)| match bits {
            7 => Prefix::new(Address::v4([255; 4]), length),
            _ => Prefix::new(Address::v4([bits << 5 | bits, 0, bits, bits]), length),
        });
        let v6 = (0..4_u8, 0..=128_u8).prop_map(|(bits, length)| {
            let mut octets = [bits << 6 | bits; 16];
            octets[..4].fill(bits << 6);
            Prefix::new(Address::from_octets(octets), length)
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn ranges_say_what_prefixes_do(prefixes in vec(prefixes(), 0..20)) {
            let vias = (0..).map(|id| match id % 3 {
                0 => Via::Link(PortIndex(id)),
                _ => Via::Gateway(GatewayId(id)),
            });
            let all: Vec<(Prefix, Via)> = prefixes.into_iter().zip(vias).collect();
            let routes = Routes::new(all.iter().copied(), Vec::new(), Vec::new());
            // At all ends of prefixes, and beside them.
            let ends = all.iter().map(|(prefix, _)| prefix.range());
            for end in ends.flat_map(|(first, last)| [first, last]) {
                for bits in [end.wrapping_sub(1), end, end.wrapping_add(1)] {
                    let address = Address::from_octets(bits.to_be_bytes());
                    let shortest = if address.is_v4() { 96 } else { 0 };
                    let matching = all.iter().filter(|(prefix, _)| {
                        prefix.length >= shortest && Prefix::of(address, prefix.length) == *prefix
                    });
                    // Of two of one length, the last one.
                    let longest = matching.max_by_key(|(prefix, _)| prefix.length);
                    let via = longest.map(|(_, via)| *via);
                    prop_assert_eq!(routes.route(address), via);
                    if address.is_v4() {
                        let word = u32::from_ne_bytes(address.last_octets());
                        let gateway = match via {
                            Some(Via::Gateway(gateway)) => Some(WayWord::gateway(gateway)),
                            Some(Via::Link(_)) | None => None,
                        };
                        let range = routes.v4_range(word);
                        prop_assert!(range.has(word) && !V4Range::NONE.has(word));
                        prop_assert_eq!(range.gateway, gateway);
                        for end in [range.first, range.last] {
                            prop_assert_eq!(routes.v4_range(end.to_be()).gateway, gateway);
                        }
                    }
                }
            }
        }
    }
}
