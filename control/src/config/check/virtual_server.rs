//! `[[virtual_server]]` and its real servers.
//!
//! Keys and defaults are those of keepalived.conf(5), "Virtual server(s)".
//! Unlike there, `lb_kind` has to be written: keepalived's default is NAT,
//! and neither that nor a silent DR need be what was meant.

mod full_nat;
mod passive;
mod quorum;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use dataplane::matching::Match;
use dataplane::service::{ForwardingMethod, Protocol, ServiceKey, ServiceOptions, Tunnel};

use super::super::pieces::{Piece, Pieces};
use super::super::place::Place;
use super::super::raw::{Entry, Spec, Table, Value};
use super::super::report::Report;
use super::super::{RealServer, VirtualServer};
use super::health::{self, Inherited};
use super::limits;
use super::scheduler::scheduler;
use super::scripts::script;
use super::service_options;
use super::syn_proxy::syn_proxy;

pub(super) static VIRTUAL_SERVER: Spec = Spec {
    heading: "[[virtual_server]]",
    keys: &[
        "address",
        "match",
        "protocol",
        "lb_algo",
        "lvs_sched",
        "sh-port",
        "sh-fallback",
        "mh-port",
        "mh-fallback",
        "lb_kind",
        "lvs_method",
        "tun_type",
        "tun_port",
        "local_addresses",
        "client_address",
        "persistence_timeout",
        "persistence_granularity",
        "ops",
        "max_connections",
        "new_connections_per_second",
        "new_connections_burst",
        "source_max_connections",
        "source_new_connections_per_second",
        "source_new_connections_burst",
        "source_granularity",
        "syn_proxy",
        "syn_proxy_threshold",
        "weight",
        "inhibit_on_failure",
        "virtualhost",
        "max_fails",
        "fail_timeout",
        "quorum",
        "hysteresis",
        "quorum_up",
        "quorum_down",
        "omega",
        "smtp_alert",
        "sorry_server",
        "sorry_server_inhibit",
        "sorry_server_lvs_method",
        "real_server",
    ],
    shared: health::PARAMETERS.keys,
    unsupported: &[
        "flag-1",
        "flag-2",
        "flag-3",
        "ha_suspend",
        "ip_family",
        "persistence_engine",
        "snmp_name",
    ],
};

pub(super) static REAL_SERVER: Spec = Spec {
    heading: "[[virtual_server.real_server]]",
    keys: &[
        "address",
        "lb_kind",
        "lvs_method",
        "tun_type",
        "tun_port",
        "weight",
        "uthreshold",
        "lthreshold",
        "inhibit_on_failure",
        "virtualhost",
        "max_fails",
        "fail_timeout",
        "notify_up",
        "notify_down",
        "smtp_alert",
        "TCP_CHECK",
        "HTTP_GET",
        "SSL_GET",
        "UDP_CHECK",
        "DNS_CHECK",
        "SMTP_CHECK",
        "PING_CHECK",
        "MISC_CHECK",
        "FILE_CHECK",
    ],
    shared: health::PARAMETERS.keys,
    unsupported: &["BFD_CHECK", "snmp_name"],
};

const PORT: RangeInclusive<i64> = 1..=65535;
const WEIGHT: RangeInclusive<i64> = 0..=65535;
/// Of a virtual server, for its real servers: as in keepalived not 0.
const DEFAULT_WEIGHTS: RangeInclusive<i64> = 1..=65535;
const DEFAULT_WEIGHT: u32 = 1;

/// Those of the document, or those of `pieces` that it has the headers of.
pub(super) fn virtual_servers(
    root: &Table<'_>,
    pieces: &mut Pieces<'_>,
    report: &mut Report<'_>,
) -> Vec<VirtualServer> {
    let mut seen = BTreeMap::new();
    let mut local_addresses = Vec::new();
    let mut servers = Vec::new();
    let sections = root.sections("virtual_server", report).into_iter();
    for (index, entry) in sections.enumerate() {
        if let Some(known) = pieces.known(index)
            && known.options.full_nat.local_addresses.is_empty()
            && !seen.contains_key(&known.key)
        {
            seen.insert(known.key, entry.at);
            servers.push(known.clone());
            continue;
        }
        let mut read = |entry: Entry<'_>| {
            let place = entry.label("virtual_server", "address", index);
            let table = Table::new(entry, place, &VIRTUAL_SERVER, report);
            virtual_server(&table, &mut seen, &mut local_addresses, report)
        };
        if pieces.has(index) {
            let piece = pieces.read(index);
            servers.extend(piece.as_ref().and_then(Piece::entry).and_then(read));
        } else {
            servers.extend(read(entry));
        }
    }
    full_nat::check_others(&local_addresses, &servers, report);
    servers
}

fn virtual_server(
    table: &Table<'_>,
    seen: &mut BTreeMap<ServiceKey, usize>,
    local_addresses: &mut full_nat::Written,
    report: &mut Report<'_>,
) -> Option<VirtualServer> {
    let (written, matches) = destination(table, report);
    let address = match &matches {
        Some(matches) => service_options::identity(matches),
        None => written.as_ref().and_then(|v| virtual_address(v, report)),
    };
    let protocol = match table.get("protocol") {
        Some(value) => value.choice(&Protocol::NAMES, &[], report),
        None => Some(Protocol::Tcp),
    };
    let scheduler = scheduler(table, report);
    let lb_kind = forwarding_method(table, None, report);
    if ["lb_kind", "lvs_method"]
        .iter()
        .all(|key| table.get(key).is_none())
    {
        table.report_absent("lb_kind", r#"lb_kind = "DR""#, report);
    }
    let (full_nat, written_locals) = full_nat::read(table, protocol, report);
    local_addresses.extend(written_locals);
    let mut options = ServiceOptions {
        full_nat,
        persistence: service_options::persistence(table, address, report),
        one_packet: service_options::one_packet(table, protocol, report),
        matches: matches.unwrap_or_default(),
        limits: limits::limits(table, address, report),
        syn_proxy: None,
    };
    let defaults = Defaults {
        service: address,
        matches: options.matches.clone(),
        lb_kind,
        protocol,
        weight: weight(table, &DEFAULT_WEIGHTS, report),
        inhibit_on_failure: inhibit_on_failure(table, report),
        passive: passive::Inherited::default().overridden_by(table, report),
        checks: Inherited::default().overridden_by(table, report),
    };
    let real_servers = real_servers(table, &defaults, report);
    let quorum = quorum::quorum(table, &defaults, &real_servers, report);
    full_nat::fits(
        table,
        &options.full_nat,
        options.one_packet,
        lb_kind,
        real_servers.iter().chain(&quorum.sorry_server),
        report,
    );
    let servers = real_servers.iter().chain(&quorum.sorry_server);
    let client_address = options.full_nat.client_address;
    options.syn_proxy = syn_proxy(table, protocol, client_address, servers, report);
    let omega = table.get("omega").and_then(|v| v.boolean(report));
    let smtp_alert = table.get("smtp_alert").and_then(|v| v.boolean(report));
    let (written, address, protocol) = (written?, address?, protocol?);
    let key = ServiceKey {
        address: address.ip().into(),
        port: address.port(),
        protocol,
    };
    if let Some(first) = seen.insert(key, written.at) {
        let line = report.line(first);
        if options.matches.is_empty() {
            let expected = format!("each {protocol} address once, it is on {line}");
            written.reject(expected, "merge the two or change one", report);
        } else {
            let expected = format!("a first element of its own, {key} is on {line}");
            written.reject(expected, "write another element first", report);
        }
    }
    Some(VirtualServer {
        key,
        scheduler,
        lb_kind: lb_kind?,
        options,
        real_servers,
        quorum,
        omega: omega.unwrap_or(false),
        smtp_alert,
    })
}

/// What a virtual server hands down to its real servers.
struct Defaults {
    /// `None`: not known because it is wrong.
    service: Option<SocketAddr>,
    /// More that it matches; empty: nothing.
    matches: Vec<Match>,
    lb_kind: Option<ForwardingMethod>,
    protocol: Option<Protocol>,
    weight: Option<u32>,
    inhibit_on_failure: Option<bool>,
    passive: passive::Inherited,
    checks: Inherited,
}

impl Defaults {
    /// Packets of more than one port come, or may come: those of real servers
    /// are then for checks only, or what NAT maps all ports to.
    fn is_every_port(&self) -> bool {
        !self.matches.is_empty() || self.service.is_none_or(|service| service.port() == 0)
    }
}

fn real_servers(
    parent: &Table<'_>,
    defaults: &Defaults,
    report: &mut Report<'_>,
) -> Vec<RealServer> {
    if parent.get("real_server").is_none() {
        report.absent_warning(
            parent.at,
            &parent.place,
            "no real_server: every packet to it will be dropped",
        );
    }
    let mut seen = BTreeMap::new();
    let sections = parent.sections("real_server", report).into_iter();
    let servers = sections.enumerate().filter_map(|(index, entry)| {
        let place = entry.label_in(&parent.place, "real_server", "address", index);
        real_server(entry, place, defaults, &mut seen, report)
    });
    servers.collect()
}

fn real_server<'d>(
    entry: Entry<'d>,
    place: Place<'d>,
    defaults: &Defaults,
    seen: &mut BTreeMap<SocketAddr, usize>,
    report: &mut Report<'_>,
) -> Option<RealServer> {
    let table = Table::new(entry, place, &REAL_SERVER, report);
    let written = table.require("address", r#"address = "192.168.1.101:80""#, report);
    let address = written
        .as_ref()
        .and_then(|v| socket_address(v, defaults.is_every_port(), report));
    let weight = weight(&table, &WEIGHT, report).or(defaults.weight);
    let thresholds = service_options::thresholds(&table, report);
    let inhibit = inhibit_on_failure(&table, report).or(defaults.inhibit_on_failure);
    let inherited = defaults.checks.overridden_by(&table, report);
    let passive = defaults.passive.overridden_by(&table, report);
    let passive = passive.checked(&table, defaults.protocol, report);
    let mut notify = |key| table.get(key).and_then(|v| script(&v, report));
    let (notify_up, notify_down) = (notify("notify_up"), notify("notify_down"));
    let smtp_alert = table.get("smtp_alert").and_then(|v| v.boolean(report));
    let lb_kind = forwarding_method(&table, defaults.lb_kind, report);
    let served = health::Served {
        virtual_server: defaults.service,
        is_group: !defaults.matches.is_empty(),
        lb_kind,
    };
    let checks = health::checks(&table, address, &served, &inherited, report);
    let (written, address) = (written?, address?);
    if let (Some(service), Some(lb_kind)) = (defaults.service, lb_kind) {
        fits_method(
            &written,
            address,
            service,
            &defaults.matches,
            lb_kind,
            report,
        );
    }
    if let Some(first) = seen.insert(address, written.at) {
        let expected = format!("each real server once, it is on {}", report.line(first));
        written.reject(expected, "remove one, or add their weights", report);
    }
    Some(RealServer {
        address,
        lb_kind: lb_kind?,
        weight: weight.unwrap_or(DEFAULT_WEIGHT),
        inhibit_on_failure: inhibit.unwrap_or(false),
        thresholds,
        checks,
        passive,
        notify_up,
        notify_down,
        smtp_alert,
    })
}

/// `lb_kind` with what belongs to it; `None` when none is written and none `inherited`.
fn forwarding_method(
    table: &Table<'_>,
    inherited: Option<ForwardingMethod>,
    report: &mut Report<'_>,
) -> Option<ForwardingMethod> {
    let written = table.get_alias(&["lb_kind", "lvs_method"], report);
    let method = match &written {
        Some(value) => value.choice(&ForwardingMethod::NAMES, &[], report)?,
        None => inherited?,
    };
    let port = table
        .get("tun_port")
        .map(|value| (value.integer(&PORT, report), value));
    let tunnels = [
        ("ipip", Tunnel::Ipip),
        ("gre", Tunnel::Gre),
        ("gue", Tunnel::Gue { port: 0 }),
    ];
    let tunnel = table
        .get("tun_type")
        .map(|value| (value.choice(&tunnels, &[], report), value));
    let ForwardingMethod::Tunnel(inherited) = method else {
        let unused = [port.map(|(_, value)| value), tunnel.map(|(_, value)| value)];
        for value in unused.into_iter().flatten() {
            value.reject(r#"it with lb_kind = "TUN" only"#, "remove it", report);
        }
        return Some(method);
    };
    let tunnel = match tunnel {
        Some((tunnel, _)) => tunnel?,
        None => inherited,
    };
    Some(ForwardingMethod::Tunnel(match (tunnel, port) {
        (Tunnel::Gue { .. }, Some((port, _))) => Tunnel::Gue { port: port? },
        (Tunnel::Gue { port: 0 }, None) => {
            table.report_absent(
                "tun_port",
                "tun_port = 6080, the real servers' GUE port",
                report,
            );
            return None;
        }
        (Tunnel::Ipip | Tunnel::Gre, Some((_, value))) => {
            value.reject(r#"it with tun_type = "gue" only"#, "remove it", report);
            return None;
        }
        (tunnel, None) => tunnel,
    }))
}

/// DR changes nothing above Ethernet: the packet reaches the real server with
/// the virtual server's address, IP version and port. NAT keeps the IP version, TUN the port.
fn fits_method(
    written: &Value<'_>,
    address: SocketAddr,
    service: SocketAddr,
    matches: &[Match],
    method: ForwardingMethod,
    report: &mut Report<'_>,
) {
    // The port is then for health checks only, or what NAT maps all ports to.
    let every_port = service.port() == 0 || !matches.is_empty();
    let mixed = matches!(
        method,
        ForwardingMethod::Tunnel(_) | ForwardingMethod::FullNat
    );
    if address.is_ipv4() != service.is_ipv4() && !mixed {
        let version = if service.is_ipv4() { "IPv4" } else { "IPv6" };
        written.reject(
            format_args!("an {version} address, as its virtual server has ({method})"),
            format_args!("use the server's {version} address"),
            report,
        );
    } else if address.ip().is_loopback() && method != ForwardingMethod::Direct {
        written.reject(
            format_args!("an address of another host ({method} does not reach this one)"),
            "write that, or forward to it by DR",
            report,
        );
    } else if address.ip() == service.ip() || service_options::is_destination(matches, address.ip())
    {
        written.reject(
            "an address other than the virtual server's",
            "use the address that is the server's own",
            report,
        );
    } else if address.port() != service.port() && !every_port && !method.rewrites_replies() {
        let port = service.port();
        written.reject(
            format_args!("port {port}, the virtual server's ({method} does not change ports)"),
            format_args!("use {}", SocketAddr::new(address.ip(), port)),
            report,
        );
    }
}

fn weight(table: &Table<'_>, range: &RangeInclusive<i64>, report: &mut Report<'_>) -> Option<u32> {
    table.get("weight")?.integer(range, report)
}

fn inhibit_on_failure(table: &Table<'_>, report: &mut Report<'_>) -> Option<bool> {
    table.get("inhibit_on_failure")?.boolean(report)
}

/// `address`, or what is in `match`: one of them, and where it is written.
fn destination<'d>(
    table: &Table<'d>,
    report: &mut Report<'_>,
) -> (Option<Value<'d>>, Option<Vec<Match>>) {
    let Some(group) = table.get("match") else {
        let example = r#"address = "192.168.1.100:80""#;
        return (table.require("address", example, report), None);
    };
    if let Some(address) = table.get("address") {
        address.reject(
            "either address or match",
            "remove one; an address is also a match",
            report,
        );
    }
    let matches = service_options::matches(&group, report);
    (Some(group), Some(matches.unwrap_or_default()))
}

/// A virtual server's.
fn virtual_address(value: &Value<'_>, report: &mut Report<'_>) -> Option<SocketAddr> {
    let address = socket_address(value, true, report)?;
    if address.ip().is_loopback() {
        value.reject(
            "an address that other hosts can reach",
            "write one, packets to a loopback address never leave a host",
            report,
        );
        return None;
    }
    Some(address)
}

/// `192.168.1.100:80` or `[2001:db8::1]:80`.
/// Port 0, every port, only where it makes sense.
fn socket_address(
    value: &Value<'_>,
    every_port: bool,
    report: &mut Report<'_>,
) -> Option<SocketAddr> {
    let text = value.text(report)?;
    let expected = r#"ADDRESS:PORT, such as "192.168.1.100:80" or "[2001:db8::1]:80""#;
    let Ok(address) = text.parse::<SocketAddr>() else {
        value.reject(expected, address_remedy(text), report);
        return None;
    };
    value.check_not_link_local(address.ip(), report)?;
    if let SocketAddr::V6(v6) = address
        && v6.scope_id() != 0
    {
        value.reject(
            "an address without a scope",
            "remove the \"%\" and what follows it",
            report,
        );
        return None;
    }
    if address.port() == 0 && !every_port {
        value.reject("a port of 1 to 65535", "write the server's port", report);
        return None;
    }
    value.check_host(address.ip(), report)?;
    Some(address)
}

/// What a user has to do to an address that is written in another common way.
fn address_remedy(text: &str) -> String {
    let with_port = text.rsplit_once(':').filter(|(address, port)| {
        address.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if let Some((address, port)) = with_port {
        return format!("write \"[{address}]:{port}\"");
    }
    let bare = text.trim_matches(['[', ']']).parse::<IpAddr>();
    if let Ok(address) = bare {
        return format!(
            "add the port, as in {:?}",
            SocketAddr::new(address, 80).to_string()
        );
    }
    // keepalived separates the two by a space.
    if let Some((address, port)) = text.trim().split_once(char::is_whitespace)
        && let (Ok(address), Ok(port)) = (address.parse(), port.trim().parse())
    {
        return format!("write {:?}", SocketAddr::new(address, port).to_string());
    }
    match text.rsplit_once(':') {
        Some((address, port)) if address.parse::<IpAddr>().is_ok() && !port.is_empty() => {
            "write a port of 1 to 65535".to_owned()
        }
        Some(_) | None => "write it so".to_owned(),
    }
}
