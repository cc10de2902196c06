//! `10.1.0.0/16 via 192.168.1.254 dev eth0 src 192.168.1.100 metric 10`

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use dataplane::bpf::Prefix;
use serde::{Deserialize, Serialize};

use super::words::{Words, option};
use super::{Expected, MAIN_TABLE};

const OPTIONS: &str =
    "via, dev, src, table, metric, scope, onlink and no_track after the destination";
const SCOPES: [(&str, u8); 4] = [("global", 0), ("site", 200), ("link", 253), ("host", 254)];

/// The kernel's number of a scope, as `ip` names them.
#[must_use]
pub fn scope_of(name: &str) -> Option<u8> {
    let known = SCOPES.iter().find(|(known, _)| *known == name);
    known.map(|(_, scope)| *scope)
}

/// The name of such a number.
#[must_use]
pub fn scope_name(scope: u8) -> Option<&'static str> {
    let known = SCOPES.iter().find(|(_, known)| *known == scope);
    known.map(|(name, _)| *name)
}

/// What becomes of packets that take the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    Unicast,
    Blackhole,
    Unreachable,
    Prohibit,
}

const KINDS: [(&str, RouteKind); 4] = [
    ("unicast", RouteKind::Unicast),
    ("blackhole", RouteKind::Blackhole),
    ("unreachable", RouteKind::Unreachable),
    ("prohibit", RouteKind::Prohibit),
];

/// A route of the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct VirtualRoute {
    pub kind: RouteKind,
    pub destination: Prefix,
    pub via: Option<IpAddr>,
    /// `None`: the kernel looks for the gateway; a route without gateway has one.
    pub dev: Option<String>,
    /// Source address of this host's own packets.
    pub src: Option<IpAddr>,
    pub table: u32,
    /// The lower is preferred; `None`: the kernel's default.
    pub metric: Option<u32>,
    /// IPv4 only, as `rtm_scope`; `None`: link without a gateway, else global.
    pub scope: Option<u8>,
    /// The gateway is on the link though no address of it says so.
    pub onlink: bool,
    /// `dev` may be down without a fault of the instance.
    pub no_track: bool,
}

impl VirtualRoute {
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.destination.address().is_ipv4()
    }

    /// Whether it leads to the next hop.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        self.kind == RouteKind::Unicast
    }

    fn check(&self) -> Result<(), Expected> {
        let addresses = [self.via, self.src].into_iter().flatten();
        let is_ipv4 = self.is_ipv4();
        if addresses.clone().any(|other| other.is_ipv4() != is_ipv4) {
            return Err(Expected("addresses of one IP version".to_owned()));
        }
        let has_way = self.via.is_some() || self.dev.is_some() || self.onlink;
        if !self.is_unicast() && has_way {
            let what = "neither via nor dev in a route that leads nowhere";
            return Err(Expected(what.to_owned()));
        }
        if self.onlink && (self.via.is_none() || self.dev.is_none()) {
            return Err(Expected("via and dev beside onlink".to_owned()));
        }
        Ok(())
    }
}

impl FromStr for VirtualRoute {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let mut words = Words::of(text);
        let mut kind = RouteKind::Unicast;
        // `default` is of the IP version of the addresses beside it.
        let (mut destination, mut is_default) = (None, false);
        let (mut via, mut dev, mut src) = (None, None, None);
        let (mut table, mut metric, mut scope) = (MAIN_TABLE, None, None);
        let (mut onlink, mut no_track) = (false, false);
        while let Some(word) = words.next() {
            let known = KINDS.iter().find(|(name, _)| *name == word);
            let is_known = destination.is_none() && !is_default;
            match word {
                _ if is_known && known.is_some() => kind = known.map_or(kind, |(_, kind)| *kind),
                "to" if is_known => {}
                "via" | "gw" => via = Some(words.after(word, "an IP address")?),
                "dev" | "oif" => dev = Some(words.interface(word)?),
                "src" => src = Some(words.after(word, "an IP address")?),
                "table" => table = words.table(word)?,
                "metric" | "preference" | "priority" => {
                    metric = Some(words.after(word, "a number")?);
                }
                "scope" => {
                    let known = scope_of(words.next().unwrap_or_default());
                    let expected = || Expected("global, site, link or host after scope".to_owned());
                    scope = Some(known.ok_or_else(expected)?);
                }
                "onlink" => onlink = true,
                "no_track" => no_track = true,
                "default" if is_known => is_default = true,
                _ if is_known => destination = Some(Words::prefix(word)?),
                _ => return Err(Expected(format!("{OPTIONS}, not {word:?}"))),
            }
        }
        if is_default {
            let any = match via.or(src) {
                Some(IpAddr::V6(_)) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
                Some(IpAddr::V4(_)) | None => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            };
            destination = Some(Words::prefix(&format!("{any}/0"))?);
        }
        let expected = || Expected("a destination, such as 10.1.0.0/16 or default".to_owned());
        let route = Self {
            kind,
            destination: destination.ok_or_else(expected)?,
            via,
            dev,
            src,
            table,
            metric,
            scope,
            onlink,
            no_track,
        };
        route.check()?;
        Ok(route)
    }
}

impl fmt::Display for VirtualRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = KINDS.iter().find(|(_, kind)| *kind == self.kind);
        if let Some((name, _)) = kind.filter(|_| !self.is_unicast()) {
            write!(f, "{name} ")?;
        }
        write!(f, "{}", self.destination)?;
        option(f, "via", self.via)?;
        option(f, "dev", self.dev.as_ref())?;
        option(f, "src", self.src)?;
        option(f, "table", (self.table != MAIN_TABLE).then_some(self.table))?;
        option(f, "metric", self.metric)?;
        option(f, "scope", self.scope.and_then(scope_name))?;
        f.write_str(if self.onlink { " onlink" } else { "" })?;
        f.write_str(if self.no_track { " no_track" } else { "" })
    }
}

impl From<VirtualRoute> for String {
    fn from(route: VirtualRoute) -> Self {
        route.to_string()
    }
}

impl TryFrom<String> for VirtualRoute {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        text.parse()
    }
}
