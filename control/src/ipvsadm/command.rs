//! What a command line asks for, after it was found to be valid.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

/// A transport protocol that ipvsadm knows; the order is that of listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As the control socket names it; what has no name here has TCP's ports.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "UDP" => Self::Udp,
            "SCTP" => Self::Sctp,
            _ => Self::Tcp,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// What a virtual server is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceName {
    Address {
        protocol: Protocol,
        /// Port 0: every port.
        address: SocketAddr,
    },
    /// A mark that the firewall puts on packets, above 0.
    Firewall { mark: u32, ipv6: bool },
}

impl ServiceName {
    pub(super) fn is_ipv6(&self) -> bool {
        match self {
            Self::Address { address, .. } => address.is_ipv6(),
            Self::Firewall { ipv6, .. } => *ipv6,
        }
    }
}

/// Which clients a persistent virtual server takes for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Netmask {
    /// 255.255.255.255: each its own.
    Ipv4(Ipv4Addr),
    /// Prefix length, 1..=128.
    Ipv6(u8),
}

impl Netmask {
    /// Every client for itself.
    #[must_use]
    pub(crate) const fn host(ipv6: bool) -> Self {
        if ipv6 {
            Self::Ipv6(128)
        } else {
            Self::Ipv4(Ipv4Addr::BROADCAST)
        }
    }

    /// The mask of so many leading ones, 0..=32.
    #[must_use]
    pub(crate) fn of_ipv4(length: u8) -> Self {
        let zeros = 32_u32.saturating_sub(length.into());
        Self::Ipv4(u32::MAX.checked_shl(zeros).unwrap_or(0).into())
    }

    /// True if every client is for itself: listings leave that out.
    #[must_use]
    pub(crate) fn is_host(&self) -> bool {
        *self == Self::host(matches!(self, Self::Ipv6(_)))
    }
}

impl fmt::Display for Netmask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(mask) => mask.fmt(f),
            Self::Ipv6(length) => length.fmt(f),
        }
    }
}

/// The three flags whose meaning is the scheduler's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SchedulerFlags(pub [bool; 3]);

/// What `flag-1` … are called for a scheduler that gives them names.
const NAMED_FLAGS: [(&str, [&str; 2]); 2] = [
    ("sh", ["sh-fallback", "sh-port"]),
    ("mh", ["mh-fallback", "mh-port"]),
];

/// For schedulers that give them none.
const UNNAMED_FLAGS: [&str; 3] = ["flag-1", "flag-2", "flag-3"];

impl SchedulerFlags {
    /// Adds the flag of this name.
    ///
    /// # Errors
    /// No scheduler has it, or another one than `scheduler`.
    pub(super) fn add(&mut self, name: &str, scheduler: &str) -> Result<(), FlagError> {
        if let Some(place) = UNNAMED_FLAGS.iter().position(|known| *known == name) {
            self.0[place] = true;
            return Ok(());
        }
        for (owner, flags) in NAMED_FLAGS {
            if let Some(place) = flags.iter().position(|known| *known == name) {
                if owner != scheduler {
                    return Err(FlagError::Incompatible);
                }
                self.0[place] = true;
                return Ok(());
            }
        }
        Err(FlagError::Unknown)
    }

    /// The flags of these names; those that no scheduler has are left out.
    #[must_use]
    pub(crate) fn of_names<'n>(scheduler: &str, names: impl Iterator<Item = &'n str>) -> Self {
        let mut flags = Self::default();
        for name in names {
            // What is not known cannot be shown.
            let _ = flags.add(name, scheduler);
        }
        flags
    }

    /// As `-b` takes them, separated by commas; empty: none is set.
    #[must_use]
    pub(crate) fn names(&self, scheduler: &str) -> String {
        // A scheduler that gives two flags names knows no third.
        let own = NAMED_FLAGS.iter().find(|(owner, _)| *owner == scheduler);
        let names = own.map_or(&UNNAMED_FLAGS[..], |(_, names)| names);
        let set = names.iter().zip(self.0).filter(|(_, set)| *set);
        set.map(|(name, _)| *name).collect::<Vec<_>>().join(",")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagError {
    Unknown,
    Incompatible,
}

/// A virtual server as `-A` and `-E` have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceSpec {
    pub name: ServiceName,
    pub scheduler: String,
    pub flags: SchedulerFlags,
    /// Seconds, 1..=2678400.
    pub persistent: Option<u32>,
    pub netmask: Netmask,
    pub one_packet: bool,
    /// `--pe`.
    pub engine: Option<String>,
}

/// What tunnelled packets are wrapped in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TunnelType {
    #[default]
    Ipip,
    Gue {
        port: u16,
    },
    Gre,
}

impl fmt::Display for TunnelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipip => "ipip",
            Self::Gue { .. } => "gue",
            Self::Gre => "gre",
        })
    }
}

/// What `--tun-nocsum`, `--tun-csum` and `--tun-remcsum` ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TunnelChecksum {
    #[default]
    None,
    Checksum,
    Remote,
}

/// A forwarding method by ipvsadm's options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Method {
    /// `-g`
    #[default]
    Gatewaying,
    /// `-m`
    Masquerading,
    /// `-i`
    Tunnel(TunnelType, TunnelChecksum),
}

/// A real server as `-a` and `-e` have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerSpec {
    pub address: SocketAddr,
    pub method: Method,
    /// 0..=2147483647
    pub weight: u32,
    /// 0: none.
    pub upper_threshold: u32,
    pub lower_threshold: u32,
}

/// What `-L` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum What {
    #[default]
    Services,
    Statistics,
    Rates,
    Thresholds,
    PersistentConnections,
    Tunnels,
    Connections {
        /// With `--persistent-conn`: columns for what persistence engines keep.
        engine_data: bool,
    },
    Timeouts,
    Daemons,
}

/// `-L` with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List {
    /// `None`: all.
    pub service: Option<ServiceName>,
    pub what: What,
    pub numeric: bool,
    pub exact: bool,
    pub sorted: bool,
}

/// Seconds; 0 keeps what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetTimeouts {
    pub tcp: u32,
    pub tcp_fin: u32,
    pub udp: u32,
}

/// A valid command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Version,
    List(List),
    Save { numeric: bool },
    Restore,
    Clear,
    Zero(Option<ServiceName>),
    SetTimeouts(SetTimeouts),
    AddService(ServiceSpec),
    EditService(ServiceSpec),
    DeleteService(ServiceName),
    AddServer(ServiceName, ServerSpec),
    EditServer(ServiceName, ServerSpec),
    DeleteServer(ServiceName, SocketAddr),
    StartDaemon,
    StopDaemon,
}
