//! The flows of a run: a source address and port each, taken from a prefix.
//!
//! Flow `f` of `n` has source address `first + f % hosts` and source port `1024 + f / hosts`: many
//! clients with few connections each, as a balancer sees them. [`Order`] visits every flow once a
//! round, neighbours in time far apart in number, so that a table sees no order it could exploit.
//!
//! `bpf/generate.bpf.c` computes the same; `tests/generate.rs` compares the two.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// First source port in use; those below are for servers.
pub const FIRST_PORT: u16 = 1024;

/// Source ports in use per address.
const PORTS: u64 = 65_536 - FIRST_PORT as u64;

/// Most source addresses in use, however wide the prefix is.
const MAX_HOSTS: u32 = 1 << 24;

/// An address and a prefix length; a plain address is a prefix of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix that holds `address` alone.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self {
            address,
            length: width(address),
        }
    }

    /// The first usable address and how many follow it, itself counted. The network's own address,
    /// and for IPv4 the broadcast address, are left out, except in prefixes of two or one (RFC 3021,
    /// RFC 6164).
    fn usable(self) -> (IpAddr, u32) {
        let host_bits = u32::from(width(self.address) - self.length);
        let (skipped, reserved) = match (host_bits, self.address) {
            (0 | 1, _) => (0, 0),
            (_, IpAddr::V4(_)) => (1, 2),
            (_, IpAddr::V6(_)) => (1, 1),
        };
        let total = 1u32.checked_shl(host_bits).unwrap_or(u32::MAX);
        let hosts = (total - reserved).min(MAX_HOSTS - reserved);
        let first = match self.address {
            IpAddr::V4(v4) => {
                let network = u64::from(v4.to_bits()) >> host_bits << host_bits;
                #[expect(clippy::cast_possible_truncation, reason = "32 bits with some cleared")]
                let network = network as u32;
                IpAddr::V4(Ipv4Addr::from_bits(network | skipped))
            }
            IpAddr::V6(v6) => {
                let network = v6
                    .to_bits()
                    .checked_shr(host_bits)
                    .and_then(|bits| bits.checked_shl(host_bits))
                    .unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(network | u128::from(skipped)))
            }
        };
        (first, hosts)
    }
}

fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl FromStr for Prefix {
    type Err = FlowsError;

    fn from_str(text: &str) -> Result<Self, FlowsError> {
        let bad = || FlowsError::Prefix(text.to_owned());
        let (address, length) = text
            .split_once('/')
            .map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let length = match length {
            None => width(address),
            Some(length) => length.parse().map_err(|_| bad())?,
        };
        if length > width(address) {
            return Err(bad());
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A number of flows and where their sources come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flows {
    first: IpAddr,
    hosts: u32,
    count: u32,
    /// Of a part: flows of the parts before it.
    offset: u32,
}

impl Flows {
    /// `count` flows with sources from `prefix`.
    ///
    /// # Errors
    /// `count` is zero, or the prefix has not that many addresses and ports.
    pub fn new(prefix: Prefix, count: u32) -> Result<Self, FlowsError> {
        let (first, hosts) = prefix.usable();
        let most = u64::from(hosts) * PORTS;
        if count == 0 {
            return Err(FlowsError::None);
        }
        if u64::from(count) > most {
            return Err(FlowsError::TooMany {
                count,
                prefix,
                most,
            });
        }
        Ok(Self {
            first,
            hosts,
            count,
            offset: 0,
        })
    }

    /// One of `parts` parts of about the same size, the first being 0, or `None` if there are fewer flows
    /// than that.
    #[must_use]
    pub fn part(self, number: u32, parts: u32) -> Option<Self> {
        let begin = |number: u32| {
            let flows = u64::from(self.count) * u64::from(number) / u64::from(parts.max(1));
            u32::try_from(flows).ok()
        };
        let offset = begin(number)?;
        let count = begin(number + 1)?.checked_sub(offset)?;
        (count > 0 && number < parts).then_some(Self {
            count,
            offset,
            ..self
        })
    }

    /// Number of this part's flow 0 among all.
    #[must_use]
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// Number of flows.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Source addresses in use.
    #[must_use]
    pub fn hosts(&self) -> u32 {
        self.hosts
    }

    /// Source address of flow 0.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Source address and port of `flow`, which is below [`count`](Self::count).
    #[must_use]
    pub fn source(&self, flow: u32) -> (IpAddr, u16) {
        let flow = self.offset + flow;
        let host = flow % self.hosts;
        let address = match self.first {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits().wrapping_add(host))),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() + u128::from(host))),
        };
        let port = u16::try_from(flow / self.hosts).unwrap_or(u16::MAX);
        (address, FIRST_PORT.saturating_add(port))
    }

    /// The order in which flows are visited.
    #[must_use]
    pub fn order(&self) -> Order {
        Order {
            count: self.count,
            stride: stride(self.count),
            flow: 0,
            position: 0,
            round: 0,
        }
    }
}

/// The step from one flow to the next: coprime to `count`, so that a round visits every flow once,
/// and near the golden section of it, so that consecutive flows are far apart.
#[must_use]
pub fn stride(count: u32) -> u32 {
    let golden = u64::from(count) * 618_034 / 1_000_000;
    (golden.max(1)..u64::from(count))
        .find(|&step| gcd(step, u64::from(count)) == 1)
        .and_then(|step| u32::try_from(step).ok())
        .unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Endless visits `(flow, round)`; the round is the sequence number within the flow.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    count: u32,
    stride: u32,
    flow: u32,
    position: u32,
    round: u32,
}

impl Iterator for Order {
    type Item = (u32, u32);

    #[inline]
    fn next(&mut self) -> Option<(u32, u32)> {
        let visit = (self.flow, self.round);
        if self.count > 1 {
            let next = u64::from(self.flow) + u64::from(self.stride);
            let wrapped = if next >= u64::from(self.count) {
                next - u64::from(self.count)
            } else {
                next
            };
            #[expect(clippy::cast_possible_truncation, reason = "below count, a u32")]
            let wrapped = wrapped as u32;
            self.flow = wrapped;
        }
        self.position += 1;
        if self.position >= self.count {
            self.position = 0;
            self.round = self.round.wrapping_add(1);
        }
        Some(visit)
    }
}

/// The wanted flows cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FlowsError {
    #[error("{0:?} is no address or prefix: write 10.1.0.0/16, 10.1.0.9 or 2001:db8::/64")]
    Prefix(String),
    #[error("0 flows send nothing: ask for at least 1")]
    None,
    #[error(
        "{count} flows do not fit in {prefix}, which has addresses and ports for {most}: give a wider --src"
    )]
    TooMany {
        count: u32,
        prefix: Prefix,
        most: u64,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn flows(prefix: &str, count: u32) -> Flows {
        Flows::new(prefix.parse().unwrap(), count).unwrap()
    }

    #[test]
    fn every_flow_has_its_own_source() {
        for (prefix, count) in [("10.1.0.0/29", 1000), ("10.0.0.7", 60_000)] {
            let flows = flows(prefix, count);
            let sources: HashSet<_> = (0..count).map(|flow| flows.source(flow)).collect();
            assert_eq!(sources.len(), count as usize, "{prefix}");
        }
    }

    #[test]
    fn parts_together_are_all_flows() {
        let all = flows("10.1.0.0/29", 1001);
        let parts: Vec<Flows> = (0..3).map(|number| all.part(number, 3).unwrap()).collect();
        let of =
            |part: &Flows| -> Vec<_> { (0..part.count()).map(|flow| part.source(flow)).collect() };
        let together: Vec<_> = parts.iter().flat_map(of).collect();
        let expected: Vec<_> = of(&all);
        assert_eq!(together, expected);
        assert_eq!(flows("10.1.0.0/29", 2).part(0, 3), None);
        assert_eq!(all.part(3, 3), None);
    }

    #[test]
    fn network_and_broadcast_addresses_are_left_out() {
        let flows = flows("192.0.2.77/30", 5);
        let sources: Vec<_> = (0..5).map(|flow| flows.source(flow)).collect();
        let [a, b] = ["192.0.2.77", "192.0.2.78"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(
            sources,
            [(a, 1024), (b, 1024), (a, 1025), (b, 1025), (a, 1026)]
        );
    }

    #[test]
    fn wide_prefixes_are_capped() {
        assert_eq!(flows("2001:db8::/32", 1).first().to_string(), "2001:db8::1");
        assert_eq!(flows("0.0.0.0/0", 1).hosts(), MAX_HOSTS - 2);
        assert_eq!(flows("::/0", 1).first().to_string(), "::1");
    }

    #[test]
    fn a_round_visits_every_flow_once() {
        for count in [1, 2, 3, 4, 10, 97, 4096, 10_000] {
            let mut order = flows("10.0.0.0/16", count).order();
            for round in 0..2 {
                let visited: HashSet<u32> = order
                    .by_ref()
                    .take(count as usize)
                    .map(|(flow, of)| {
                        assert_eq!(of, round);
                        flow
                    })
                    .collect();
                assert_eq!(visited.len(), count as usize);
                assert!(visited.iter().all(|&flow| flow < count));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let prefix: Prefix = "10.0.0.1".parse().unwrap();
        let error = Flows::new(prefix, 64_513).unwrap_err();
        assert!(error.to_string().contains("10.0.0.1/32"), "{error}");
        assert!(Flows::new(prefix, 64_512).is_ok());
        for text in [
            "",
            "10.0.0.1/33",
            "10.0.0/8",
            "::1/129",
            "10.0.0.1/",
            "10.0.0.1/x",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
