//! `[appliance]` and `[appliance.timeouts]`: what keepalived has no word for.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use dataplane::bpf::{BadPrefix, Prefix};
use dataplane::conn::{Association, Timeouts};
use dataplane::limits::WhenFull;
use dataplane::service::{Protocol, TcpMidstream};
use dataplane::snapshot::Expiry;

use super::super::raw::{Spec, Table, Value};
use super::super::report::Report;
use super::super::{Appliance, Idle, VirtualServer};
use super::subsection;

pub(super) static APPLIANCE: Spec = Spec {
    heading: "[appliance]",
    keys: &[
        "control_socket",
        "http",
        "http_token_file",
        "max_connections",
        "tcp_midstream",
        "expire_nodest_conn",
        "expire_quiescent_template",
        "table_full",
        "cores",
        "workers",
        "idle",
        "deny",
        "allow",
        "timeouts",
    ],
    shared: &[],
    unsupported: &[],
};

pub(super) static TIMEOUTS: Spec = Spec {
    heading: "[appliance.timeouts]",
    keys: &[
        "tcp",
        "tcpfin",
        "udp",
        "established",
        "syn_sent",
        "syn_recv",
        "fin_wait",
        "time_wait",
        "close",
        "close_wait",
        "last_ack",
        "listen",
        "synack",
        "sctp_init1",
        "sctp_init",
        "sctp_cookie_sent",
        "sctp_cookie_replied",
        "sctp_cookie_wait",
        "sctp_cookie",
        "sctp_cookie_echoed",
        "sctp_established",
        "sctp_shutdown_sent",
        "sctp_shutdown_received",
        "sctp_shutdown_ack_sent",
        "sctp_rejected",
        "sctp_closed",
    ],
    shared: &[],
    unsupported: &[],
};

const MAX_CONNECTIONS: RangeInclusive<i64> = 1..=1 << 27;
const DEFAULT_MAX_CONNECTIONS: u32 = 1 << 20;
/// `sockaddr_un.sun_path` without the terminating zero, see unix(7).
const LONGEST_SOCKET_PATH: usize = 107;
/// The kernel's affinity masks are asked for with room for 1024 CPUs.
const CORES: RangeInclusive<i64> = 0..=1023;
const WORKERS: RangeInclusive<i64> = 1..=1024;

impl Default for Appliance {
    fn default() -> Self {
        Self {
            control_socket: PathBuf::from("/run/appliance.sock"),
            http: None,
            http_token_file: None,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            tcp_midstream: TcpMidstream::default(),
            cores: Vec::new(),
            workers: None,
            idle: Idle::Adaptive,
            deny: Vec::new(),
            allow: Vec::new(),
            expiry: Expiry::default(),
            when_full: WhenFull::default(),
            timeouts: Timeouts::default(),
        }
    }
}

pub(super) fn appliance(
    root: &Table<'_>,
    virtual_servers: &[VirtualServer],
    report: &mut Report<'_>,
) -> Appliance {
    let mut appliance = Appliance::default();
    let Some(table) = subsection(root, "appliance", &APPLIANCE, report) else {
        return appliance;
    };
    if let Some(value) = table.get("control_socket") {
        set(&mut appliance.control_socket, socket_path(&value, report));
    }
    if let Some(value) = table.get("http") {
        appliance.http = http(&value, virtual_servers, report);
    }
    if let Some(value) = table.get("http_token_file") {
        let file = file_path(&value, "/etc/appliance/http_token", report);
        if table.get("http").is_none() {
            let remedy = r#"add http, such as "127.0.0.1:9180", or remove it"#;
            value.reject("http beside it", remedy, report);
        }
        appliance.http_token_file = file;
    }
    if let Some(value) = table.get("max_connections") {
        let expected = format!(
            "1 to {} (about 90 bytes of memory each)",
            MAX_CONNECTIONS.end()
        );
        let number = value.integer_of(&MAX_CONNECTIONS, &expected, report);
        set(&mut appliance.max_connections, number);
    }
    if let Some(value) = table.get("tcp_midstream") {
        let known = [
            ("reset", TcpMidstream::Reset),
            ("drop", TcpMidstream::Drop),
            ("schedule", TcpMidstream::Schedule),
        ];
        set(
            &mut appliance.tcp_midstream,
            value.choice(&known, &[], report),
        );
    }
    let Expiry {
        nodest_conn,
        quiescent_template,
    } = &mut appliance.expiry;
    for (target, key) in [
        (nodest_conn, "expire_nodest_conn"),
        (quiescent_template, "expire_quiescent_template"),
    ] {
        if let Some(value) = table.get(key) {
            set(target, value.boolean(report));
        }
    }
    if let Some(value) = table.get("table_full") {
        let known = [
            ("evict-half-open", WhenFull::EvictHalfOpen),
            ("drop-new", WhenFull::DropNew),
        ];
        set(&mut appliance.when_full, value.choice(&known, &[], report));
    }
    if let Some(value) = table.get("cores") {
        set(&mut appliance.cores, numbers(&value, &CORES, report));
    }
    if let Some(value) = table.get("workers") {
        appliance.workers = workers(&value, &appliance.cores, report);
    }
    if let Some(value) = table.get("idle") {
        let known = [
            ("adaptive", Idle::Adaptive),
            ("busy", Idle::Busy),
            ("interrupt", Idle::Interrupt),
        ];
        set(&mut appliance.idle, value.choice(&known, &[], report));
    }
    let allow = table.get("allow");
    let allow = allow.map_or_else(Vec::new, |value| prefixes(&value, report));
    let deny = table.get("deny");
    let deny = deny.map_or_else(Vec::new, |value| prefixes(&value, report));
    refuse_contradictions(&deny, &allow, virtual_servers, report);
    appliance.deny = deny.into_iter().map(|(_, prefix)| prefix).collect();
    appliance.allow = allow.into_iter().map(|(_, prefix)| prefix).collect();
    if let Some(timeouts) = subsection(&table, "timeouts", &TIMEOUTS, report) {
        read_timeouts(&timeouts, &mut appliance.timeouts, report);
    }
    appliance
}

/// Replaces a default by what was written, if that could be used.
fn set<T>(target: &mut T, written: Option<T>) {
    if let Some(written) = written {
        *target = written;
    }
}

fn socket_path(value: &Value<'_>, report: &mut Report<'_>) -> Option<PathBuf> {
    let path = file_path(value, "/run/appliance.sock", report)?;
    if path.as_os_str().len() > LONGEST_SOCKET_PATH {
        let expected = format!("at most {LONGEST_SOCKET_PATH} bytes, the system's limit");
        value.reject(expected, "shorten it", report);
        return None;
    }
    Some(path)
}

fn file_path(value: &Value<'_>, example: &str, report: &mut Report<'_>) -> Option<PathBuf> {
    let text = value.text(report)?;
    if !text.starts_with('/') || text.ends_with('/') {
        value.reject(
            "an absolute path of a file",
            format_args!("write one, such as {example:?}"),
            report,
        );
        return None;
    }
    Some(PathBuf::from(text))
}

/// Where the status page is. Packets of a virtual server never reach a socket of this host.
fn http(
    value: &Value<'_>,
    virtual_servers: &[VirtualServer],
    report: &mut Report<'_>,
) -> Option<SocketAddr> {
    let address = value.text(report)?.parse::<SocketAddr>().ok();
    let Some(address) = address.filter(|address| address.port() != 0) else {
        value.reject(
            "an address and a port",
            r#"write both, such as "127.0.0.1:9180" or "[::1]:9180""#,
            report,
        );
        return None;
    };
    let taken =
        |server: &&VirtualServer| server.protocol() == Protocol::Tcp && server.address() == address;
    if virtual_servers.iter().any(|server| taken(&server)) {
        value.reject("no virtual server's address", "choose another port", report);
        return None;
    }
    Some(address)
}

/// How many workers there are: each core runs one at least.
fn workers(value: &Value<'_>, cores: &[usize], report: &mut Report<'_>) -> Option<u32> {
    let number = value.integer(&WORKERS, report)?;
    if (number as usize) < cores.len() {
        let expected = format!("as many as there are cores, {}, or more", cores.len());
        value.reject(expected, "raise it, or list fewer cores", report);
        return None;
    }
    Some(number)
}

/// A list of different numbers.
pub(super) fn numbers<T: TryFrom<i64> + Ord + Copy>(
    value: &Value<'_>,
    range: &RangeInclusive<i64>,
    report: &mut Report<'_>,
) -> Option<Vec<T>> {
    let mut seen = BTreeSet::new();
    let mut numbers = Vec::new();
    for element in value.list(report)? {
        let Some(number) = element.integer(range, report) else {
            continue;
        };
        if !seen.insert(number) {
            element.reject("each number once", "remove one of them", report);
        }
        numbers.push(number);
    }
    Some(numbers)
}

/// A list of different prefixes, with where they stand.
fn prefixes<'d>(value: &Value<'d>, report: &mut Report<'_>) -> Vec<(Value<'d>, Prefix)> {
    let mut seen = BTreeSet::new();
    let mut prefixes = Vec::new();
    for element in value.list(report).unwrap_or_default() {
        let Some(text) = element.text(report) else {
            continue;
        };
        let expected = "an IPv4 or IPv6 prefix";
        match text.parse::<Prefix>() {
            Ok(prefix) => {
                if !seen.insert(prefix) {
                    element.reject("each prefix once", "remove one of them", report);
                }
                prefixes.push((element, prefix));
            }
            Err(BadPrefix::Syntax) => element.reject(
                expected,
                r#"write one, such as "192.0.2.0/24" or "2001:db8::/32""#,
                report,
            ),
            Err(BadPrefix::TooLong { longest }) => {
                let expected = format!("a prefix length of 0 to {longest}");
                element.reject(expected, "lower it", report);
            }
            Err(BadPrefix::HostBits(prefix)) => element.reject(
                "no bits beyond the prefix length",
                format_args!("write {prefix}, or raise the length"),
                report,
            ),
            Err(BadPrefix::Mapped) => element.reject(
                expected,
                "write an IPv4 address in its own notation",
                report,
            ),
        }
    }
    prefixes
}

/// A prefix that is both, and one that would cut the director off from a real server: the answers to
/// its checks would be dropped, and those of NAT.
fn refuse_contradictions(
    deny: &[(Value<'_>, Prefix)],
    allow: &[(Value<'_>, Prefix)],
    virtual_servers: &[VirtualServer],
    report: &mut Report<'_>,
) {
    let servers = virtual_servers.iter().flat_map(|s| &s.real_servers);
    let servers: BTreeSet<IpAddr> = servers.map(|server| server.address.ip()).collect();
    for (element, denied) in deny {
        if allow.iter().any(|(_, allowed)| allowed == denied) {
            element.reject("no prefix of allow", "remove it from one of them", report);
            continue;
        }
        let decides = |address: &&IpAddr| {
            let longer = |(_, other): &(Value<'_>, Prefix)| {
                other.holds(**address) && other.length() > denied.length()
            };
            denied.holds(**address) && !deny.iter().chain(allow).any(longer)
        };
        if let Some(server) = servers.iter().find(decides) {
            element.reject(
                format_args!("no prefix that holds the real server {server}"),
                format_args!("narrow it, or add allow = [\"{}\"]", Prefix::host(*server)),
                report,
            );
        }
    }
}

/// Fractions of a second serve tests; what IPVS has is whole seconds.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Timeouts::MAX;

fn read_timeouts(table: &Table<'_>, timeouts: &mut Timeouts, report: &mut Report<'_>) {
    let Timeouts {
        established,
        syn_sent,
        syn_recv,
        fin_wait,
        time_wait,
        close,
        close_wait,
        last_ack,
        listen,
        synack,
        udp,
        sctp,
    } = timeouts;
    let states: [(&mut Duration, &[&'static str]); 11] = [
        (established, &["established", "tcp"]),
        (syn_sent, &["syn_sent"]),
        (syn_recv, &["syn_recv"]),
        (fin_wait, &["fin_wait", "tcpfin"]),
        (time_wait, &["time_wait"]),
        (close, &["close"]),
        (close_wait, &["close_wait"]),
        (last_ack, &["last_ack"]),
        (listen, &["listen"]),
        (synack, &["synack"]),
        (udp, &["udp"]),
    ];
    for (timeout, names) in states {
        if let Some(value) = table.get_alias(names, report) {
            set(timeout, value.time(&TIMEOUT, report));
        }
    }
    for ((_, name, _), timeout) in Association::ALL.into_iter().zip(sctp) {
        if let Some(value) = table.get(name) {
            set(timeout, value.time(&TIMEOUT, report));
        }
    }
}
