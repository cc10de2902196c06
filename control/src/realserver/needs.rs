//! What the virtual servers of a file need on a real server.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use dataplane::bpf::decap::TunnelEnd;
use dataplane::service::ForwardingMethod;

use crate::config::{Config, VirtualServer};

/// What one host needs, for all the virtual servers that it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Which of the file's real servers the host is.
    pub servers: BTreeSet<IpAddr>,
    /// Virtual addresses that arrive here as they are, by DR or TUN.
    pub virtuals: BTreeSet<IpAddr>,
    /// Ranges of such addresses.
    pub ranges: BTreeSet<String>,
    /// What comes out of tunnels that end here.
    pub tunnelled: Vec<Tunnelled>,
    /// The real server's own addresses that NAT sends to: the replies have to
    /// go back through the director.
    pub translated: BTreeSet<IpAddr>,
    /// Addresses that a director of this file is known to have.
    pub directors: BTreeSet<IpAddr>,
}

/// Packets of one IP version in one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tunnelled {
    pub end: TunnelEnd,
    pub inner_is_v4: bool,
}

impl fmt::Display for Tunnelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = if self.inner_is_v4 { "IPv4" } else { "IPv6" };
        write!(f, "{version} in {}", self.end)
    }
}

/// None of the file's real servers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotHere {
    #[error("the file has no real_server")]
    NoServers,
    #[error(
        "no address of this host is a real_server of the file, which has {}: \
         say which one this is by --address", list(.0)
    )]
    NotFound(BTreeSet<IpAddr>),
    #[error("--address {address}: no real_server of the file, which has {}", list(.servers))]
    Unknown {
        address: IpAddr,
        servers: BTreeSet<IpAddr>,
    },
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    texts.join(", ")
}

impl Needs {
    /// What a host needs that has the addresses `own`. If there are any,
    /// `named` are its real servers, whatever addresses it has; otherwise those
    /// with one of its own addresses.
    ///
    /// # Errors
    ///
    /// [`NotHere`] when it is none of them.
    pub(crate) fn of(
        config: &Config,
        own: &BTreeSet<IpAddr>,
        named: &[IpAddr],
    ) -> Result<Self, NotHere> {
        let pairs = || {
            let virtuals = config.virtual_servers.iter();
            virtuals.flat_map(|virt| virt.all_servers().map(move |real| (virt, real)))
        };
        // Every host has 127.0.0.1: it is the director's.
        let all: BTreeSet<IpAddr> = pairs()
            .map(|(_, real)| real.address.ip())
            .filter(|address| !address.is_loopback())
            .collect();
        if all.is_empty() {
            return Err(NotHere::NoServers);
        }
        if let Some(&address) = named.iter().find(|address| !all.contains(address)) {
            return Err(NotHere::Unknown {
                address,
                servers: all,
            });
        }
        let servers: BTreeSet<IpAddr> = if named.is_empty() {
            all.intersection(own).copied().collect()
        } else {
            named.iter().copied().collect()
        };
        if servers.is_empty() {
            return Err(NotHere::NotFound(all));
        }
        let mut needs = Self {
            servers,
            directors: directors(config),
            ..Self::default()
        };
        for (virt, real) in pairs() {
            let address = real.address.ip();
            if needs.servers.contains(&address) {
                needs.add(virt, address, real.lb_kind);
            }
        }
        Ok(needs)
    }

    fn add(&mut self, virt: &VirtualServer, real: IpAddr, method: ForwardingMethod) {
        match method {
            ForwardingMethod::Direct => self.receive(virt),
            ForwardingMethod::Tunnel(tunnel) => {
                self.receive(virt);
                let one = Tunnelled {
                    end: TunnelEnd {
                        address: real,
                        tunnel,
                    },
                    inner_is_v4: virt.key.address.is_v4(),
                };
                if !self.tunnelled.contains(&one) {
                    self.tunnelled.push(one);
                }
            }
            ForwardingMethod::Nat => {
                self.translated.insert(real);
            }
            // Replies go to the director's address by themselves.
            ForwardingMethod::FullNat => {}
        }
    }

    fn receive(&mut self, virt: &VirtualServer) {
        self.virtuals.extend(virt.addresses());
        let matches = virt.options.matches.iter();
        let ranges = matches.filter(|one| one.only_address().is_none());
        self.ranges.extend(ranges.map(ToString::to_string));
    }

    /// True if IPv4 packets to a virtual address arrive here.
    #[must_use]
    pub(crate) fn receives_v4(&self) -> bool {
        self.virtuals.iter().any(IpAddr::is_ipv4)
    }
}

fn directors(config: &Config) -> BTreeSet<IpAddr> {
    let instances = config.vrrp_instances.iter();
    let held = instances.flat_map(|instance| {
        let excluded = &instance.virtual_ipaddress_excluded;
        instance.virtual_ipaddress.iter().chain(excluded)
    });
    let virtuals = config.virtual_servers.iter();
    held.map(|one| one.address)
        .chain(virtuals.flat_map(VirtualServer::addresses))
        .collect()
}
