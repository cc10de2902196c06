//! Prefixes of addresses, as they are written: `192.0.2.0/24`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::service::Address;

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    pub(super) address: Address,
    /// Of the 128 bits of an [`Address`]: that of IPv4 plus 96.
    bits: u8,
}

impl Prefix {
    /// The longest prefix of an address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        let address = address.into();
        Self { address, bits: 128 }
    }

    /// The first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address.into()
    }

    /// In bits: 0..=32 or 0..=128.
    #[must_use]
    pub fn length(&self) -> u8 {
        if self.address.is_v4() {
            self.bits.saturating_sub(96)
        } else {
            self.bits
        }
    }

    /// True if the address begins with these bits. No IPv6 prefix holds an IPv4 address.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let address = Address::from(address);
        address.is_v4() == self.address.is_v4()
            && (bits(address) ^ bits(self.address)) & mask(self.bits) == 0
    }
}

fn bits(address: Address) -> u128 {
    u128::from_be_bytes(address.octets())
}

/// The first `length` bits.
fn mask(length: u8) -> u128 {
    !u128::MAX.checked_shr(length.into()).unwrap_or(0)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length())
    }
}

/// Reads `192.0.2.0/24`, `2001:db8::/32`, or a single address.
impl FromStr for Prefix {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadPrefix::Syntax)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().map_err(|_| BadPrefix::Syntax)?,
            None => longest,
        };
        if length > longest {
            return Err(BadPrefix::TooLong { longest });
        }
        let own = length + (128 - longest);
        let whole = Address::from(address);
        let clean = Address::from_octets((bits(whole) & mask(own)).to_be_bytes());
        let prefix = Self {
            address: clean,
            bits: own,
        };
        // ::ffff:0:0/96 and what is in it is IPv4, in the program as well.
        if clean.is_v4() != address.is_ipv4() || (whole.is_v4() && address.is_ipv6()) {
            return Err(BadPrefix::Mapped);
        }
        if clean == whole {
            Ok(prefix)
        } else {
            Err(BadPrefix::HostBits(prefix))
        }
    }
}

/// Why a text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPrefix {
    #[error("not an address with a prefix length")]
    Syntax,
    #[error("the prefix length is at most {longest}")]
    TooLong { longest: u8 },
    #[error("the address has bits beyond the prefix length: that would be {0}")]
    HostBits(Prefix),
    #[error("IPv4 addresses are written as such")]
    Mapped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_read_as_they_display() {
        for (text, length) in [
            ("0.0.0.0/0", 0),
            ("192.0.2.0/24", 24),
            ("192.0.2.1/32", 32),
            ("::/0", 0),
            ("2001:db8::/32", 32),
            ("2001:db8::1/128", 128),
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(
                (prefix.to_string().as_str(), prefix.length()),
                (text, length)
            );
        }
        assert_eq!("192.0.2.1".parse(), Ok(Prefix::host([192, 0, 2, 1].into())));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "/",
            "1.2.3/8",
            "1.2.3.4/",
            "1.2.3.4/x",
            "1.2.3.4/-1",
            "::/1000",
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(BadPrefix::Syntax), "{text}");
        }
        assert_eq!(
            "1.2.3.4/33".parse::<Prefix>(),
            Err(BadPrefix::TooLong { longest: 32 })
        );
        assert_eq!(
            "::/129".parse::<Prefix>(),
            Err(BadPrefix::TooLong { longest: 128 })
        );
        let network = "192.0.2.0/24".parse().unwrap();
        assert_eq!(
            "192.0.2.9/24".parse::<Prefix>(),
            Err(BadPrefix::HostBits(network))
        );
        for text in ["::ffff:0:0/96", "::ffff:1.2.3.4"] {
            assert_eq!(text.parse::<Prefix>(), Err(BadPrefix::Mapped), "{text}");
        }
    }

    #[test]
    fn a_prefix_holds_what_begins_like_it() {
        let holds = |prefix: &str, address: &str| {
            let prefix: Prefix = prefix.parse().unwrap();
            prefix.holds(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("0.0.0.0/0", "11.0.0.1"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(!holds("::/0", "11.0.0.1"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::1"));
    }
}
