//! Advertisements on the wire: VRRPv2 (RFC 3768, with the passwords of RFC
//! 2338) and VRRPv3 (RFC 9568), over IPv4 and IPv6.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |Version| Type  | Virtual Rtr ID|   Priority    |IP Addr Count  |
//! |   Auth Type   |   Adver Int   |          Checksum             |  VRRPv2: seconds
//! |(rsvd) |     Max Adver Int     |          Checksum             |  VRRPv3: hundredths
//! |                        IP Address(es)                         |
//! |             Authentication Data, 8 bytes, VRRPv2 only         |
//! ```
//!
//! [`Advert::parse`] checks what can be checked without a configuration;
//! [`Expected::check`] what an instance wants. Nothing here sends or receives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dataplane::wire::checksum::Sum;
use serde::{Deserialize, Serialize};

use super::ah::Sealed;

/// The IP protocol number of VRRP.
pub const PROTOCOL: u8 = 112;
/// Where VRRP over IPv4 is sent to (RFC 9568 §5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Where VRRP over IPv6 is sent to (RFC 9568 §5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// TTL or hop limit of every multicast advertisement: one that was routed has
/// less, so nobody beyond the link can forge one.
pub const TTL: u8 = 255;
/// Longest advertisement interval of VRRPv3: twelve bits of hundredths.
pub const MAX_ADVERT_INT_V3: Duration = Duration::from_millis(40_950);
/// Priority of a director that gives up being master.
pub const PRIORITY_STOP: u8 = 0;
/// Priority of the owner of the addresses.
pub const PRIORITY_OWNER: u8 = 255;

const HEADER: usize = 8;
const PASSWORD: usize = 8;
const ADVERTISEMENT: u8 = 1;
const AUTH_NONE: u8 = 0;
const AUTH_PASS: u8 = 1;
const AUTH_AH: u8 = 2;

/// Which VRRP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4 only, whole seconds.
    V2,
    V3,
}

impl Version {
    /// As in the packet.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// What authenticates a VRRPv2 advertisement; VRRPv3 has none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    None,
    /// In clear text, padded with zeros.
    Password([u8; PASSWORD]),
    /// By an IP authentication header, made with this password; see [`ah`](super::ah).
    Ah([u8; PASSWORD]),
    /// As the packet has it: 2 is said beside an authentication header.
    Other(u8),
}

impl Authentication {
    /// The password of a configuration: its first eight bytes count.
    #[must_use]
    pub fn password(text: &str) -> Self {
        Self::Password(eight_bytes(text))
    }

    /// The same, for authentication headers.
    #[must_use]
    pub fn ah(text: &str) -> Self {
        Self::Ah(eight_bytes(text))
    }

    /// In words, without the password.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "no authentication",
            Self::Password(_) => "PASS",
            Self::Ah(_) | Self::Other(AUTH_AH) => "AH",
            Self::Other(_) => "an unknown type",
        }
    }
}

fn eight_bytes(text: &str) -> [u8; PASSWORD] {
    let mut bytes = [0; PASSWORD];
    for (place, byte) in bytes.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    bytes
}

/// Without the password: this type ends up in logs.
impl std::fmt::Debug for Authentication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    pub version: Version,
    /// 1 to 255
    pub virtual_router_id: u8,
    /// [`PRIORITY_STOP`] to [`PRIORITY_OWNER`]
    pub priority: u8,
    /// Rounded to what the version can carry: seconds or hundredths.
    pub advert_int: Duration,
    pub authentication: Authentication,
    /// All of the IP version that carries them, at most 255.
    pub addresses: Vec<IpAddr>,
}

/// A packet of protocol 112 as it was received, perhaps inside an authentication header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Without the IP header.
    pub message: Vec<u8>,
    /// The authentication header that was before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ah: Option<Sealed>,
}

/// Why an advertisement is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it ends after {found} of {expected} bytes")]
    Truncated { found: usize, expected: usize },
    #[error("it is of VRRP version {found}, not {expected}")]
    Version { found: u8, expected: u8 },
    #[error("it is of type {0}, and there is only type 1")]
    Type(u8),
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its TTL is {found}, not {expected}: it was routed, or the sender is no VRRP router")]
    Ttl { found: u8, expected: &'static str },
    #[error("its authentication is {found:?}, ours is {expected:?}")]
    AuthType {
        found: Authentication,
        expected: Authentication,
    },
    #[error("its password is not ours")]
    Password,
    #[error("it has no authentication header")]
    NoHeader,
    #[error("its authentication header is not made with our password, or the packet was changed")]
    Integrity,
    #[error("its sequence number is {found}, and {last} was used before: it is an old one again")]
    Replayed { found: u32, last: u32 },
    #[error("its advert_int is {found:?}, ours is {expected:?}")]
    AdvertInt { found: Duration, expected: Duration },
    #[error("the sender is not one of unicast_peer")]
    NotAPeer,
    #[error("its source address is ours")]
    OwnAddress,
}

impl Refusal {
    /// The name of its counter.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::Version { .. } => "version",
            Self::Type(_) => "type",
            Self::Checksum => "checksum",
            Self::Ttl { .. } => "ttl",
            Self::AuthType { .. } => "auth_type",
            Self::Password => "password",
            Self::NoHeader => "no_header",
            Self::Integrity => "integrity",
            Self::Replayed { .. } => "replayed",
            Self::AdvertInt { .. } => "advert_int",
            Self::NotAPeer => "not_a_peer",
            Self::OwnAddress => "own_address",
        }
    }
}

impl Advert {
    /// Reads a message. A VRRPv3 checksum over IPv4 may leave the
    /// pseudo-header out, as old keepalived does.
    ///
    /// # Errors
    /// Too short, of another type or version, or damaged.
    pub fn parse(datagram: &Datagram) -> Result<Self, Refusal> {
        let message = datagram.message.as_slice();
        let found = message.len();
        let Some((header, rest)) = message.split_first_chunk::<HEADER>() else {
            let expected = HEADER;
            return Err(Refusal::Truncated { found, expected });
        };
        let [kind, virtual_router_id, priority, count, high, low, ..] = *header;
        let is_v4 = datagram.source.is_ipv4();
        let version = match (kind >> 4, is_v4) {
            (2, true) => Version::V2,
            (3, _) => Version::V3,
            (found, _) => return Err(Refusal::Version { found, expected: 3 }),
        };
        if kind & 0x0f != ADVERTISEMENT {
            return Err(Refusal::Type(kind & 0x0f));
        }
        let length = usize::from(count) * if is_v4 { 4 } else { 16 };
        let data = if version == Version::V2 { PASSWORD } else { 0 };
        if rest.len() < length + data {
            let expected = HEADER + length + data;
            return Err(Refusal::Truncated { found, expected });
        }
        let valid = |sum: Sum| sum.bytes(message).fold() == 0xffff;
        let with_pseudo_header = || valid(pseudo_header(datagram, found));
        let checked = match (version, is_v4) {
            (Version::V2, _) => valid(Sum::ZERO),
            (Version::V3, true) => with_pseudo_header() || valid(Sum::ZERO),
            (Version::V3, false) => with_pseudo_header(),
        };
        if !checked {
            return Err(Refusal::Checksum);
        }
        let (addresses, rest) = rest.split_at(length);
        let (advert_int, authentication) = match version {
            Version::V2 => {
                let authentication = match (high, rest.first_chunk()) {
                    (AUTH_NONE, _) => Authentication::None,
                    (AUTH_PASS, Some(password)) => Authentication::Password(*password),
                    (other, _) => Authentication::Other(other),
                };
                (Duration::from_secs(low.into()), authentication)
            }
            Version::V3 => {
                let hundredths = u16::from_be_bytes([high & 0x0f, low]);
                let advert_int = Duration::from_millis(10 * u64::from(hundredths));
                (advert_int, Authentication::None)
            }
        };
        Ok(Self {
            version,
            virtual_router_id,
            priority,
            advert_int,
            authentication,
            addresses: read_addresses(addresses, is_v4),
        })
    }

    /// The message as it is sent from `source` to `destination`. Addresses of
    /// the other IP version are left out, and so is what exceeds 255.
    #[must_use]
    pub fn emit(&self, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let fitting = |address: &&IpAddr| address.is_ipv4() == source.is_ipv4();
        let addresses = self.addresses.iter().filter(fitting).take(255);
        let count = u8::try_from(addresses.clone().count()).unwrap_or(u8::MAX);
        let [high, low] = match self.version {
            Version::V2 => {
                let kind = match self.authentication {
                    Authentication::None => AUTH_NONE,
                    Authentication::Password(_) => AUTH_PASS,
                    Authentication::Ah(_) => AUTH_AH,
                    Authentication::Other(other) => other,
                };
                let seconds = self.advert_int.as_secs();
                [kind, u8::try_from(seconds).unwrap_or(u8::MAX)]
            }
            Version::V3 => {
                let hundredths = self.advert_int.min(MAX_ADVERT_INT_V3).as_millis() / 10;
                u16::try_from(hundredths).unwrap_or(0x0fff).to_be_bytes()
            }
        };
        let kind = self.version.number() << 4 | ADVERTISEMENT;
        let mut message = vec![
            kind,
            self.virtual_router_id,
            self.priority,
            count,
            high,
            low,
            0,
            0,
        ];
        for address in addresses {
            match address {
                IpAddr::V4(address) => message.extend(address.octets()),
                IpAddr::V6(address) => message.extend(address.octets()),
            }
        }
        if self.version == Version::V2 {
            let data = match self.authentication {
                Authentication::Password(password) => password,
                Authentication::None | Authentication::Ah(_) | Authentication::Other(_) => {
                    [0; PASSWORD]
                }
            };
            message.extend(data);
        }
        let mut datagram = Datagram {
            source,
            destination,
            ttl: TTL,
            message,
            ah: None,
        };
        let sum = match self.version {
            Version::V2 => Sum::ZERO,
            Version::V3 => pseudo_header(&datagram, datagram.message.len()),
        };
        let checksum = sum.bytes(&datagram.message).checksum();
        datagram.message[6..8].copy_from_slice(&checksum.to_be_bytes());
        datagram.message
    }
}

fn pseudo_header(datagram: &Datagram, length: usize) -> Sum {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let (source, destination) = (datagram.source.into(), datagram.destination.into());
    Sum::ZERO.pseudo_header(source, destination, PROTOCOL, length)
}

fn read_addresses(bytes: &[u8], is_v4: bool) -> Vec<IpAddr> {
    if is_v4 {
        let (addresses, _) = bytes.as_chunks::<4>();
        addresses.iter().map(|octets| (*octets).into()).collect()
    } else {
        let (addresses, _) = bytes.as_chunks::<16>();
        addresses.iter().map(|octets| (*octets).into()).collect()
    }
}

/// Another director of a unicast instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    /// What is accepted from it; a routed packet has less than it was sent with.
    pub min_ttl: u8,
    pub max_ttl: u8,
}

/// What an instance follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub version: Version,
    /// VRRPv2 only: others must have the same interval.
    pub advert_int: Duration,
    pub authentication: Authentication,
    /// Empty: multicast.
    pub peers: Vec<Peer>,
    /// What the others should have in their advertisements.
    pub addresses: Vec<IpAddr>,
}

impl Expected {
    /// Whether the instance may follow an advertisement of its virtual router.
    ///
    /// # Errors
    /// RFC 9568 §7.1, RFC 2338 §7.1: what must be discarded.
    pub fn check(&self, advert: &Advert, datagram: &Datagram) -> Result<(), Refusal> {
        if advert.version != self.version {
            return Err(Refusal::Version {
                found: advert.version.number(),
                expected: self.version.number(),
            });
        }
        self.check_sender(datagram)?;
        match (advert.authentication, self.authentication) {
            (Authentication::Other(AUTH_AH), Authentication::Ah(key)) => {
                let sealed = datagram.ah.as_ref().ok_or(Refusal::NoHeader)?;
                if !sealed.is_by(&key) {
                    return Err(Refusal::Integrity);
                }
            }
            (found, expected) if found == expected => {}
            (Authentication::Password(_), Authentication::Password(_)) => {
                return Err(Refusal::Password);
            }
            (found, expected) => return Err(Refusal::AuthType { found, expected }),
        }
        if self.version == Version::V2 && advert.advert_int != self.advert_int {
            return Err(Refusal::AdvertInt {
                found: advert.advert_int,
                expected: self.advert_int,
            });
        }
        Ok(())
    }

    fn check_sender(&self, datagram: &Datagram) -> Result<(), Refusal> {
        let found = datagram.ttl;
        if self.peers.is_empty() {
            let expected = "255";
            return (found == TTL)
                .then_some(())
                .ok_or(Refusal::Ttl { found, expected });
        }
        let mut peers = self.peers.iter();
        let Some(peer) = peers.find(|peer| peer.address == datagram.source) else {
            return Err(Refusal::NotAPeer);
        };
        let expected = "what unicast_peer says";
        (peer.min_ttl..=peer.max_ttl)
            .contains(&found)
            .then_some(())
            .ok_or(Refusal::Ttl { found, expected })
    }

    /// True if the advertisement names the addresses that this instance has.
    /// A difference is a mistake in one of the files, but no reason to have
    /// two masters.
    #[must_use]
    pub fn same_addresses(&self, advert: &Advert) -> bool {
        let sorted = |addresses: &[IpAddr]| {
            let mut addresses = addresses.to_vec();
            addresses.sort_unstable();
            addresses
        };
        sorted(&self.addresses) == sorted(&advert.addresses)
    }
}

#[cfg(test)]
mod tests;
