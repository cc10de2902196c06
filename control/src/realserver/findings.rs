//! What is right and what is wrong on a real server.

use std::fmt;
use std::net::IpAddr;

use dataplane::service::Tunnel;

use super::{Host, Needs, Record, Tunnelled};
use crate::netlink::{HostLink, Route};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What is the case.
    pub what: String,
    /// What to do about it; `None`: it is as it has to be.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(what: String) -> Self {
        Self { what, remedy: None }
    }

    fn wrong(what: String, remedy: String) -> Self {
        Self {
            what,
            remedy: Some(remedy),
        }
    }

    /// True if there is something to do.
    #[must_use]
    pub(crate) fn is_wrong(&self) -> bool {
        self.remedy.is_some()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remedy {
            None => write!(f, "ok     {}", self.what),
            Some(remedy) => write!(f, "wrong  {}: {remedy}", self.what),
        }
    }
}

/// True if no ARP request for an address of another link is answered
/// (`arp_ignore` in Documentation/networking/ip-sysctl.rst).
pub(super) fn is_silent(arp_ignore: u32) -> bool {
    matches!(arp_ignore, 1 | 2 | 8)
}

/// `arp_announce`: never with an address of another link.
pub(super) const OWN_ADDRESS_ONLY: u32 = 2;

/// Everything that `needs` names, and how it is on `host`. `gateways` are more
/// addresses of directors; `record` tells of decapsulators.
#[must_use]
pub(crate) fn findings(
    needs: &Needs,
    host: &Host,
    record: &Record,
    gateways: &[IpAddr],
) -> Vec<Finding> {
    let mut found: Vec<Finding> = needs
        .virtuals
        .iter()
        .map(|address| virtual_address(host, *address))
        .collect();
    found.extend(needs.ranges.iter().map(|range| {
        Finding::ok(format!(
            "{range} is not looked at: make the range local by `ip route add local PREFIX dev lo`"
        ))
    }));
    if needs.receives_v4() {
        let arrivals = host.arrivals(&needs.servers);
        if arrivals.is_empty() {
            found.push(Finding::wrong(
                "no interface has the real server's address".to_owned(),
                "add it, or name another by --address".to_owned(),
            ));
        }
        for link in arrivals {
            found.extend(arp(host, link));
            found.push(reverse_path(host, link));
        }
    }
    for one in &needs.tunnelled {
        found.extend(tunnel(host, record, *one));
    }
    let translated = needs.translated.iter();
    found.extend(translated.map(|server| gateway(needs, host, gateways, *server)));
    found
}

fn virtual_address(host: &Host, address: IpAddr) -> Finding {
    let length = if address.is_ipv4() { 32 } else { 128 };
    let mut holders = host.holders(address).peekable();
    if holders.peek().is_none() {
        return Finding::wrong(
            format!("{address} is not on this host, which drops packets to it"),
            format!("ip address add {address}/{length} dev lo"),
        );
    }
    for (link, held) in holders {
        let name = &link.name;
        // A link without a cable answers nobody.
        if !link.loopback && link.kind.as_deref() != Some("dummy") {
            let asked = if address.is_ipv4() {
                "ARP"
            } else {
                "neighbour solicitations"
            };
            return Finding::wrong(
                format!("{address} is on {name}, which answers {asked} for it"),
                format!(
                    "move it to lo: ip address del {address}/{held} dev {name} && \
                     ip address add {address}/{length} dev lo"
                ),
            );
        }
        if held != length {
            return Finding::wrong(
                format!("{address}/{held} on {name} makes the whole subnet local"),
                format!(
                    "ip address add {address}/{length} dev {name} && \
                     ip address del {address}/{held} dev {name}"
                ),
            );
        }
    }
    Finding::ok(format!("{address} is on this host and on no network"))
}

fn arp(host: &Host, link: &HostLink) -> [Finding; 2] {
    let name = &link.name;
    let ignore = host.effective(name, "arp_ignore");
    let announce = host.effective(name, "arp_announce");
    let answered = if is_silent(ignore) {
        Finding::ok(format!("{name} answers no ARP for other links' addresses"))
    } else {
        Finding::wrong(
            format!(
                "{name} answers ARP for virtual addresses, so that clients may pass the director \
                 by: arp_ignore is {ignore}"
            ),
            "sysctl -w net.ipv4.conf.all.arp_ignore=1".to_owned(),
        )
    };
    let announced = if announce == OWN_ADDRESS_ONLY {
        Finding::ok(format!("{name} asks by ARP with its own address only"))
    } else {
        Finding::wrong(
            format!(
                "{name} tells neighbours, when it asks by ARP, that virtual addresses are here: \
                 arp_announce is {announce}"
            ),
            "sysctl -w net.ipv4.conf.all.arp_announce=2".to_owned(),
        )
    };
    [answered, announced]
}

fn reverse_path(host: &Host, link: &HostLink) -> Finding {
    let name = &link.name;
    if host.filters_clients(link) {
        Finding::wrong(
            format!(
                "{name} drops packets of clients: rp_filter is strict, and no default route \
                 leaves by {name}"
            ),
            format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2"),
        )
    } else {
        Finding::ok(format!("{name} takes packets of clients (rp_filter)"))
    }
}

/// The kind of the kernel's tunnel device that takes these packets out.
fn kind(one: Tunnelled) -> &'static str {
    match (one.end.tunnel, one.end.address.is_ipv4(), one.inner_is_v4) {
        (Tunnel::Ipip | Tunnel::Gue { .. }, true, true) => "ipip",
        (Tunnel::Ipip | Tunnel::Gue { .. }, true, false) => "sit",
        (Tunnel::Ipip | Tunnel::Gue { .. }, false, _) => "ip6tnl",
        (Tunnel::Gre, true, _) => "gre",
        (Tunnel::Gre, false, _) => "ip6gre",
    }
}

/// The kernel's own device for tunnelled packets, if it has all that it takes.
pub(super) fn device(host: &Host, one: Tunnelled) -> Option<&HostLink> {
    let port_is_open = match one.end.tunnel {
        Tunnel::Gue { port } => host.udp_ports.contains(&port),
        Tunnel::Ipip | Tunnel::Gre => true,
    };
    let mut links = host.links.iter();
    links.find(|link| link.up && port_is_open && link.kind.as_deref() == Some(kind(one)))
}

fn tunnel(host: &Host, record: &Record, one: Tunnelled) -> Vec<Finding> {
    let attached = |made: &&super::record::Decapsulator| {
        let mut links = host.links.iter();
        made.is_kept()
            && made.ends.contains(&one.end.to_string())
            && links.any(|link| link.index == made.index && link.name == made.interface && link.xdp)
    };
    if let Some(made) = record.decapsulators.iter().find(attached) {
        let name = &made.interface;
        return vec![Finding::ok(format!("{one}: the decapsulator on {name}"))];
    }
    // Attached by somebody else, as in a lab.
    if let Some(link) = host.decapsulator(&one.end) {
        let name = &link.name;
        return vec![Finding::ok(format!("{one}: the decapsulator on {name}"))];
    }
    let Some(device) = device(host, one) else {
        return vec![Finding::wrong(
            format!("{one}: nothing here takes packets out of this tunnel"),
            "appliance realserver up, or a tunnel device of the kernel".to_owned(),
        )];
    };
    let name = &device.name;
    let mut found = vec![Finding::ok(format!("{one}: the kernel's device {name}"))];
    // No route leads back by a tunnel device.
    if one.inner_is_v4 && host.effective(name, "rp_filter") == 1 {
        found.push(Finding::wrong(
            format!("{name} drops packets of clients: rp_filter is strict"),
            format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2"),
        ));
    }
    found
}

fn gateway(needs: &Needs, host: &Host, gateways: &[IpAddr], server: IpAddr) -> Finding {
    let found = match host.replies.get(&server) {
        Some(Route::Forward(hop)) => hop.gateway,
        Some(Route::Local | Route::Unreachable) | None => None,
    };
    let remedy = "replies of NAT have to pass the director: ip route replace default via DIRECTOR, \
                  or say --gateway if it is one";
    match found {
        None => Finding::wrong(
            format!("replies of {server} to clients elsewhere leave by no gateway"),
            remedy.to_owned(),
        ),
        Some(gateway) if needs.directors.contains(&gateway) || gateways.contains(&gateway) => {
            Finding::ok(format!(
                "replies of {server} pass the director at {gateway}"
            ))
        }
        Some(gateway) => Finding::wrong(
            format!("replies of {server} leave by {gateway}, which is no director of the file"),
            remedy.to_owned(),
        ),
    }
}
