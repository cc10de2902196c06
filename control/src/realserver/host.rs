//! What a host has, read once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use dataplane::bpf::decap::{self, TunnelEnd};

use super::Tunnelled;
use crate::netlink::{DefaultRoute, HostLink, Requests, Route};

/// The settings that matter, of `net/ipv4/conf/LINK`.
const SETTINGS: [&str; 3] = ["arp_ignore", "arp_announce", "rp_filter"];

/// Links, routes and settings of the calling thread's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    pub links: Vec<HostLink>,
    pub default_routes: Vec<DefaultRoute>,
    /// Where replies to clients elsewhere go, by the address that sends them.
    pub replies: BTreeMap<IpAddr, Route>,
    /// By link, `all` included, and name. A link without IPv4 has none.
    pub settings: BTreeMap<(String, &'static str), u32>,
    /// Tunnels that end at a link by the decapsulator, whoever attached it, by the link's index.
    pub decapsulated: BTreeMap<u32, Vec<TunnelEnd>>,
    /// Local ports of UDP sockets; the kernel's GUE receiver has one.
    pub udp_ports: BTreeSet<u16>,
}

/// Addresses that nobody has (RFC 5737, RFC 6666): replies to them go as those to any client that no route
/// names.
const SOME_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const SOME_CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1));

/// The file of an IPv4 setting of a link, or of `all`.
pub(super) fn setting_path(link: &str, name: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv4/conf").join(link).join(name)
}

impl Host {
    /// Reads everything.
    ///
    /// # Errors
    ///
    /// The kernel does not answer, or `/proc` is not there.
    pub(crate) async fn look(requests: &Requests) -> anyhow::Result<Self> {
        let links = requests.host_links().await?;
        let default_routes = requests.default_routes().await?;
        let mut settings = BTreeMap::new();
        for link in links.iter().map(|link| link.name.as_str()).chain(["all"]) {
            for name in SETTINGS {
                let read = fs::read_to_string(setting_path(link, name));
                if let Some(value) = read.ok().and_then(|text| text.trim().parse().ok()) {
                    settings.insert((link.to_owned(), name), value);
                }
            }
        }
        let mut udp_ports = BTreeSet::new();
        for table in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
            match fs::read_to_string(table) {
                Ok(text) => udp_ports.extend(text.lines().filter_map(local_port)),
                // A kernel without IPv6.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("cannot read {table}")),
            }
        }
        Ok(Self {
            links,
            default_routes,
            replies: BTreeMap::new(),
            settings,
            decapsulated: BTreeMap::new(),
            udp_ports,
        })
    }

    /// Asks where replies of some of the host's addresses go, by all its rules and tables.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub(crate) async fn look_at_replies(
        &mut self,
        requests: &Requests,
        servers: &BTreeSet<IpAddr>,
    ) -> anyhow::Result<()> {
        for server in servers {
            let client = if server.is_ipv4() {
                SOME_CLIENT
            } else {
                SOME_CLIENT6
            };
            let route = requests.route_from(*server, client).await?;
            self.replies.insert(*server, route);
        }
        Ok(())
    }

    /// Looks into the XDP programs of links for these ends of tunnels. One that it may not look into counts
    /// as somebody else's.
    pub(crate) fn look_at_tunnels(&mut self, tunnelled: &[Tunnelled]) {
        if tunnelled.is_empty() {
            return;
        }
        let ends: Vec<TunnelEnd> = tunnelled.iter().map(|one| one.end).collect();
        for link in &self.links {
            let found = (link.xdp_program).map(|program| decap::ends_of_program(program, &ends));
            if let Some(Ok(found)) = found {
                self.decapsulated.insert(link.index, found);
            }
        }
    }

    /// The link whose decapsulator takes packets out of a tunnel.
    #[must_use]
    pub(crate) fn decapsulator(&self, end: &TunnelEnd) -> Option<&HostLink> {
        let mut links = self.links.iter();
        links.find(|link| {
            let ends = self.decapsulated.get(&link.index);
            ends.is_some_and(|ends| ends.contains(end))
        })
    }

    /// Every address of the host.
    #[must_use]
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        let links = self.links.iter();
        links
            .flat_map(|link| &link.addresses)
            .map(|(address, _)| *address)
            .collect()
    }

    /// The links that hold an address, with the prefix length there.
    pub(crate) fn holders(&self, address: IpAddr) -> impl Iterator<Item = (&HostLink, u8)> {
        self.links.iter().flat_map(move |link| {
            let held = link.addresses.iter().filter(move |held| held.0 == address);
            held.map(move |(_, length)| (link, *length))
        })
    }

    /// The links by which packets for any of `servers` arrive.
    #[must_use]
    pub(crate) fn arrivals(&self, servers: &BTreeSet<IpAddr>) -> Vec<&HostLink> {
        let holds = |link: &&HostLink| {
            let mut held = link.addresses.iter();
            !link.loopback && held.any(|(address, _)| servers.contains(address))
        };
        self.links.iter().filter(holds).collect()
    }

    /// A setting's value; 0 where there is none.
    #[must_use]
    pub(crate) fn setting(&self, link: &str, name: &'static str) -> u32 {
        let found = self.settings.get(&(link.to_owned(), name));
        found.copied().unwrap_or(0)
    }

    /// The value that counts on a link: the higher of its own and that of `all`
    /// (`IN_DEV_MAXCONF` in `include/linux/inetdevice.h`).
    #[must_use]
    pub(crate) fn effective(&self, link: &str, name: &'static str) -> u32 {
        self.setting(link, name).max(self.setting("all", name))
    }

    /// True if a reverse path filter there drops packets of clients: it is
    /// strict, and no default route leads back.
    #[must_use]
    pub(crate) fn filters_clients(&self, link: &HostLink) -> bool {
        let leads_back = |route: &DefaultRoute| route.is_v4 && route.index == link.index;
        self.effective(&link.name, "rp_filter") == 1 && !self.default_routes.iter().any(leads_back)
    }
}

/// The port in the second column of a line of `/proc/net/udp`, in hexadecimal.
fn local_port(line: &str) -> Option<u16> {
    let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::local_port;

    #[test]
    fn ports_of_the_udp_table() {
        let header = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when";
        assert_eq!(local_port(header), None);
        assert_eq!(
            local_port("  12: 00000000:15B3 00000000:0000 07"),
            Some(5555)
        );
    }
}
