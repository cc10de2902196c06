//! What a virtual server of several addresses and ports matches: the
//! counterpart of a netfilter mark that IPVS schedules by (`fwmark`), without
//! netfilter.
//!
//! Written as users do: `192.168.1.100:80`, `192.168.1.100-192.168.1.103:8000-8080`,
//! `192.168.1.0/28:0 from 10.0.0.0/8`, `[2001:db8::100]:443`. Port 0 is every port.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::service::Address;

/// Most pairs of address and port that one match stands for; a match of
/// every port counts its addresses.
pub const MOST_PAIRS: usize = 16_384;

/// Packets to some addresses and ports, from some clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    first: Address,
    /// Not before `first`, and of the same IP version.
    last: Address,
    ports: Ports,
    source: Option<Network>,
}

/// Which ports match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ports {
    All,
    /// The first, not 0, and the last, inclusive.
    Some(u16, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: Address,
    prefix: u8,
}

impl Match {
    /// True if it is for IPv4.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.first.is_v4()
    }

    /// True for a packet of this client to this address and port.
    #[must_use]
    pub fn matches(&self, client: Address, destination: Address, port: u16) -> bool {
        let is_port = match self.ports {
            Ports::All => true,
            Ports::Some(first, last) => (first..=last).contains(&port),
        };
        let is_from = self.source.is_none_or(|network| {
            client.is_v4() == network.address.is_v4()
                && client.network(network.prefix) == network.address
        });
        self.holds(destination) && is_port && is_from
    }

    /// True for one of its addresses.
    #[must_use]
    pub fn holds(&self, destination: Address) -> bool {
        (self.first.octets()..=self.last.octets()).contains(&destination.octets())
    }

    /// The address, if it is only one.
    #[must_use]
    pub fn only_address(&self) -> Option<Address> {
        (self.first == self.last).then_some(self.first)
    }

    /// The address and port that it begins with, 0 for every port.
    #[must_use]
    pub fn begins_with(&self) -> (Address, u16) {
        let port = match self.ports {
            Ports::All => 0,
            Ports::Some(first, _) => first,
        };
        (self.first, port)
    }

    /// True if it is for some clients only.
    #[must_use]
    pub fn has_source(&self) -> bool {
        self.source.is_some()
    }

    /// What tells it from others for the same address and port: its clients'
    /// network, or else its address; with the port that it begins with.
    #[must_use]
    pub fn identity(&self) -> (Address, u16) {
        let (first, port) = self.begins_with();
        (self.source.map_or(first, |network| network.address), port)
    }

    /// Every address with every port, or with port 0 for all of them.
    pub fn pairs(&self) -> impl Iterator<Item = (Address, u16)> {
        let ports = match self.ports {
            Ports::All => 0..=0,
            Ports::Some(first, last) => first..=last,
        };
        let addresses = number(self.first)..=number(self.last);
        addresses.flat_map(move |address| {
            let address = Address::from_octets(address.to_be_bytes());
            ports.clone().map(move |port| (address, port))
        })
    }

    /// How many [`pairs`](Self::pairs) there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let ports = match self.ports {
            Ports::All => 1,
            Ports::Some(first, last) => u128::from(last - first) + 1,
        };
        let addresses = (number(self.last) - number(self.first)).saturating_add(1);
        usize::try_from(addresses.saturating_mul(ports)).unwrap_or(usize::MAX)
    }
}

fn number(address: Address) -> u128 {
    u128::from_be_bytes(address.octets())
}

/// What [`Match`] is read from, except that a network is shown as a range.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [open, close] = if self.first.is_v4() {
            ["", ""]
        } else {
            ["[", "]"]
        };
        write!(f, "{open}{}", self.first)?;
        if self.first != self.last {
            write!(f, "-{}", self.last)?;
        }
        write!(f, "{close}:")?;
        match self.ports {
            Ports::All => f.write_str("0")?,
            Ports::Some(first, last) if first == last => write!(f, "{first}")?,
            Ports::Some(first, last) => write!(f, "{first}-{last}")?,
        }
        match self.source {
            Some(Network { address, prefix }) => write!(f, " from {address}/{prefix}"),
            None => Ok(()),
        }
    }
}

/// Why a text is no [`Match`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAMatch {
    #[error(
        "addresses and ports, such as \"192.168.1.100:80\" or \"192.168.1.100-192.168.1.103:0 from 10.0.0.0/8\""
    )]
    Form,
    #[error("one IP version, and ranges whose end is not before their beginning")]
    Range,
    #[error("a network without bits beyond its prefix")]
    Network,
    #[error("at most {MOST_PAIRS} pairs of address and port")]
    TooMany,
}

impl FromStr for Match {
    type Err = NotAMatch;

    fn from_str(text: &str) -> Result<Self, NotAMatch> {
        let (destination, source) = match text.split_once(" from ") {
            Some((destination, source)) => (destination, Some(network(source.trim())?)),
            None => (text, None),
        };
        let (addresses, ports) = destination.trim().rsplit_once(':').ok_or(NotAMatch::Form)?;
        let bare = addresses
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let is_v6 = bare.is_some();
        let addresses = bare.unwrap_or(addresses);
        let (first, last) = if let Some((first, last)) = addresses.split_once('-') {
            (address(first)?, address(last)?)
        } else if addresses.contains('/') {
            let Network { address, prefix } = network(addresses)?;
            (address, last_of(address, prefix))
        } else {
            let only = address(addresses)?;
            (only, only)
        };
        let ports = match ports.split_once('-') {
            Some((first, last)) => Ports::Some(port(first)?, port(last)?),
            None if ports == "0" => Ports::All,
            None => Ports::Some(port(ports)?, port(ports)?),
        };
        let forward = matches!(ports, Ports::All)
            || matches!(ports, Ports::Some(first, last) if first <= last);
        if first.is_v4() == is_v6 {
            return Err(NotAMatch::Form);
        }
        let one_version = source.is_none_or(|network| network.address.is_v4() == first.is_v4())
            && first.is_v4() == last.is_v4();
        if !one_version || number(first) > number(last) || !forward {
            return Err(NotAMatch::Range);
        }
        let this = Self {
            first,
            last,
            ports,
            source,
        };
        if this.count() > MOST_PAIRS {
            return Err(NotAMatch::TooMany);
        }
        Ok(this)
    }
}

fn address(text: &str) -> Result<Address, NotAMatch> {
    let address: IpAddr = text.trim().parse().map_err(|_| NotAMatch::Form)?;
    Ok(address.into())
}

fn port(text: &str) -> Result<u16, NotAMatch> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err(NotAMatch::Form),
        Ok(port) => Ok(port),
    }
}

fn network(text: &str) -> Result<Network, NotAMatch> {
    let (text, prefix) = text.split_once('/').ok_or(NotAMatch::Form)?;
    let address = address(text)?;
    let prefix = prefix.parse().map_err(|_| NotAMatch::Form)?;
    if prefix > if address.is_v4() { 32 } else { 128 } {
        return Err(NotAMatch::Form);
    }
    if address.network(prefix) != address {
        return Err(NotAMatch::Network);
    }
    Ok(Network { address, prefix })
}

fn last_of(network: Address, prefix: u8) -> Address {
    let host_bits = if network.is_v4() { 32 } else { 128 } - u32::from(prefix);
    let hosts = 1_u128
        .checked_shl(host_bits)
        .map_or(u128::MAX, |count| count - 1);
    Address::from_octets((number(network) | hosts).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Match {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn reads_what_it_displays() {
        for (text, shown) in [
            ("192.168.1.100:80", None),
            ("192.168.1.100:0", None),
            ("192.168.1.100-192.168.1.103:8000-8080", None),
            ("[2001:db8::1]:443 from 2001:db8:1::/48", None),
            ("[2001:db8::1-2001:db8::9]:443", None),
            (
                "192.168.1.0/30:80 from 10.0.0.0/8",
                Some("192.168.1.0-192.168.1.3:80 from 10.0.0.0/8"),
            ),
            ("[2001:db8::/126]:80", Some("[2001:db8::-2001:db8::3]:80")),
            ("192.168.1.1:80-80", Some("192.168.1.1:80")),
        ] {
            assert_eq!(of(text).to_string(), shown.unwrap_or(text));
            assert_eq!(of(&of(text).to_string()), of(text));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, error) in [
            ("", NotAMatch::Form),
            ("192.168.1.100", NotAMatch::Form),
            ("192.168.1.100:", NotAMatch::Form),
            ("192.168.1.100:65536", NotAMatch::Form),
            ("192.168.1.100:0-80", NotAMatch::Form),
            ("2001:db8::1:80", NotAMatch::Form),
            ("[192.168.1.100]:80", NotAMatch::Form),
            ("192.168.1.100:80 from 10.0.0.1", NotAMatch::Form),
            ("192.168.1.100:80 from 10.0.0.0/33", NotAMatch::Form),
            ("192.168.1.100:80 from 10.0.0.1/8", NotAMatch::Network),
            ("192.168.1.1/24:80", NotAMatch::Network),
            ("192.168.1.100-192.168.1.99:80", NotAMatch::Range),
            ("192.168.1.100-2001:db8::1:80", NotAMatch::Range),
            ("192.168.1.100:90-80", NotAMatch::Range),
            ("[2001:db8::1]:80 from 0.0.0.0/0", NotAMatch::Range),
            ("10.0.0.0/8:0", NotAMatch::TooMany),
            ("192.168.1.100:1-20000", NotAMatch::TooMany),
            ("[2001:db8::/32]:0", NotAMatch::TooMany),
        ] {
            assert_eq!(text.parse::<Match>(), Err(error), "{text}");
        }
    }

    #[test]
    fn matches_by_address_port_and_client() {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        let group = of("192.168.1.100-192.168.1.103:80-90 from 10.0.0.0/8");
        for (client, destination, port, expected) in [
            ("10.1.2.3", "192.168.1.100", 80, true),
            ("10.1.2.3", "192.168.1.103", 90, true),
            ("10.1.2.3", "192.168.1.104", 90, false),
            ("10.1.2.3", "192.168.1.99", 90, false),
            ("10.1.2.3", "192.168.1.100", 79, false),
            ("10.1.2.3", "192.168.1.100", 91, false),
            ("11.1.2.3", "192.168.1.100", 80, false),
            ("2001:db8::1", "192.168.1.100", 80, false),
        ] {
            let found = group.matches(address(client), address(destination), port);
            assert_eq!(found, expected, "{client} {destination} {port}");
        }
        assert!(of("192.168.1.100:0").matches(address("10.0.0.1"), address("192.168.1.100"), 0));
    }

    #[test]
    fn pairs_are_all_it_matches() {
        let group = of("192.168.1.254-192.168.2.1:80-81");
        let pairs: Vec<_> = group
            .pairs()
            .map(|(address, port)| format!("{address} {port}"))
            .collect();
        assert_eq!(pairs.len(), group.count());
        assert_eq!(pairs[0], "192.168.1.254 80");
        assert_eq!(pairs[7], "192.168.2.1 81");
        let every: Vec<_> = of("192.168.1.1:0").pairs().collect();
        assert_eq!(every, [(Address::v4([192, 168, 1, 1]), 0)]);
    }
}
