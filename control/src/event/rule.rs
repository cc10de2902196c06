//! How a steering rule is written in a file of actions:
//! `{"virtual_server":"TCP 192.168.1.100:80"}`.

use std::net::IpAddr;

use dataplane::bpf::{Prefix, Rule};
use dataplane::service::{Address, ServiceKey};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(remote = "Rule", rename_all = "snake_case")]
pub(super) enum RuleText {
    LocalAddress(#[serde(with = "ip")] Address),
    Allow(#[serde(with = "text")] Prefix),
    Deny(#[serde(with = "text")] Prefix),
    VirtualServer(#[serde(with = "text")] ServiceKey),
    PoolAddress(#[serde(with = "ip")] Address),
    RefusedAddress(#[serde(with = "ip")] Address),
    TunnelServer {
        #[serde(with = "ip")]
        address: Address,
        gue_port: Option<u16>,
    },
    RealServer(#[serde(with = "text")] ServiceKey),
}

/// As the type displays itself.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'d, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'d>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// As an IPv4 or IPv6 address.
mod ip {
    use serde::{Deserializer, Serializer};

    use super::{Address, Deserialize, IpAddr, Serialize};

    pub(super) fn serialize<S: Serializer>(
        address: &Address,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        IpAddr::from(*address).serialize(serializer)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        deserializer: D,
    ) -> Result<Address, D::Error> {
        IpAddr::deserialize(deserializer).map(Address::from)
    }
}
