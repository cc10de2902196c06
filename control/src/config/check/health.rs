//! Health checks, and how their parameters are inherited.
//!
//! As in keepalived.conf(5): "the virtual server setting is the default for
//! real servers, and the real server setting is the default for checkers".
//! Its defaults: delay_loop 60 s, connect_timeout 5 s, retry 1 (DNS_CHECK 3,
//! MISC_CHECK 0), delay_before_retry 3 s for HTTP_GET and SSL_GET, delay_loop
//! for DNS_CHECK, else 1 s, warmup as long as delay_loop, alpha off.

mod http;
mod kinds;
mod through_vip;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use dataplane::service::ForwardingMethod;

use super::super::raw::{Spec, Table};
use super::super::report::Report;
use super::super::{Check, CheckKind, CheckSource};
use super::interface::interface_name;

pub(super) use http::{HTTP_GET, SSL_GET, URL};
pub(super) use kinds::{
    DNS_CHECK, FILE_CHECK, MISC_CHECK, PING_CHECK, SMTP_CHECK, TCP_CHECK, UDP_CHECK,
};

/// Keys that a virtual server, a real server and a check have alike.
pub(super) static PARAMETERS: Spec = Spec {
    heading: "check parameters",
    keys: &[
        "delay_loop",
        "connect_timeout",
        "retry",
        "nb_get_retry",
        "fall",
        "rise",
        "delay_before_retry",
        "warmup",
        "alpha",
    ],
    shared: &[],
    unsupported: &["log_all_failures"],
};

/// What all checks have that send packets.
pub(in super::super) static CONNECTION: Spec = Spec {
    heading: "where a check connects",
    keys: &[
        "connect_ip",
        "connect_port",
        "bindto",
        "bind_port",
        "bind_if",
        "fwmark",
        "through_vip",
    ],
    shared: &[],
    unsupported: &[],
};

/// Keys of `CONNECTION` and of `PARAMETERS`.
static CONNECTION_AND_PARAMETERS: [&str; 16] = {
    let mut all = [""; 16];
    let (first, second) = (CONNECTION.keys, PARAMETERS.keys);
    assert!(first.len() + second.len() == all.len());
    let mut index = 0;
    while index < all.len() {
        all[index] = if index < first.len() {
            first[index]
        } else {
            second[index - first.len()]
        };
        index += 1;
    }
    all
};

const DAY: Duration = Duration::from_secs(86400);
const DELAY_LOOP: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;
const CONNECT_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(3600);
const DELAY: RangeInclusive<Duration> = Duration::ZERO..=DAY;
const RETRY: RangeInclusive<i64> = 0..=65535;
const IN_A_ROW: RangeInclusive<i64> = 1..=65536;
const PORT: RangeInclusive<i64> = 1..=65535;
const MARK: RangeInclusive<i64> = 0..=0xffff_ffff;

/// How often a `FILE_CHECK` reads its file; keepalived is told by inotify.
const FILE_LOOP: Duration = Duration::from_secs(1);

/// The parameters that are set so far, from the outermost section inwards.
#[derive(Clone, Debug, Default)]
pub(super) struct Inherited {
    delay_loop: Option<Duration>,
    connect_timeout: Option<Duration>,
    retry: Option<u32>,
    rise: Option<u32>,
    delay_before_retry: Option<Duration>,
    warmup: Option<Duration>,
    alpha: Option<bool>,
    virtualhost: Option<String>,
}

impl Inherited {
    /// These parameters with what `table` says in their place.
    pub(super) fn overridden_by(&self, table: &Table<'_>, report: &mut Report<'_>) -> Self {
        let mut time = |key, range| table.get_if_known(key).and_then(|v| v.time(range, report));
        let delay_loop = time("delay_loop", &DELAY_LOOP);
        let connect_timeout = time("connect_timeout", &CONNECT_TIMEOUT);
        let delay_before_retry = time("delay_before_retry", &DELAY);
        let warmup = time("warmup", &DELAY);
        let virtualhost = http::virtualhost(table, report);
        let alpha = table.get_if_known("alpha");
        let alpha = alpha.and_then(|v| v.boolean(report));
        let rise = table.get_if_known("rise");
        let rise = rise.and_then(|v| v.integer(&IN_A_ROW, report));
        Self {
            delay_loop: delay_loop.or(self.delay_loop),
            connect_timeout: connect_timeout.or(self.connect_timeout),
            retry: retry(table, report).or(self.retry),
            rise: rise.or(self.rise),
            delay_before_retry: delay_before_retry.or(self.delay_before_retry),
            warmup: warmup.or(self.warmup),
            alpha: alpha.or(self.alpha),
            virtualhost: virtualhost.or_else(|| self.virtualhost.clone()),
        }
    }

    fn delay_loop(&self) -> Duration {
        self.delay_loop.unwrap_or(Duration::from_secs(60))
    }

    fn check(&self, kind: CheckKind, endpoints: Endpoints) -> Check {
        let Endpoints {
            target,
            source,
            through_vip,
        } = endpoints;
        const SECOND: Duration = Duration::from_secs(1);
        let mut delay_loop = self.delay_loop();
        let (retry, delay_before_retry) = match kind {
            CheckKind::HttpGet(_) => (1, 3 * SECOND),
            CheckKind::DnsCheck(_) => (3, delay_loop),
            CheckKind::MiscCheck(_) => (0, SECOND),
            CheckKind::TcpCheck
            | CheckKind::UdpCheck(_)
            | CheckKind::SmtpCheck { .. }
            | CheckKind::PingCheck
            | CheckKind::FileCheck(_) => (1, SECOND),
        };
        let mut retry = self.retry.unwrap_or(retry);
        let mut rise = self.rise.unwrap_or(1);
        let mut warmup = self.warmup.unwrap_or(delay_loop);
        if matches!(kind, CheckKind::FileCheck(_)) {
            (delay_loop, retry, rise, warmup) = (FILE_LOOP, 0, 1, Duration::ZERO);
        }
        Check {
            kind,
            target,
            source,
            through_vip,
            connect_timeout: self.connect_timeout.unwrap_or(5 * SECOND),
            delay_loop,
            retry,
            rise,
            delay_before_retry: self.delay_before_retry.unwrap_or(delay_before_retry),
            warmup,
            alpha: self.alpha.unwrap_or(false),
        }
    }
}

/// Failures tolerated: `retry`, its older name, or `fall`, which is one more.
fn retry(table: &Table<'_>, report: &mut Report<'_>) -> Option<u32> {
    if ["retry", "nb_get_retry", "fall"]
        .iter()
        .all(|key| table.get_if_known(key).is_none())
    {
        return None;
    }
    let written = table.get_alias(&["retry", "nb_get_retry", "fall"], report)?;
    if table.get("fall").is_some() {
        let fall: u32 = written.integer(&IN_A_ROW, report)?;
        return Some(fall - 1);
    }
    written.integer(&RETRY, report)
}

/// Reads what one kind of check has of its own.
type Read = fn(&Table<'_>, &Inherited, &mut Report<'_>) -> Option<CheckKind>;

/// The kinds, in the order in which a server's checks are numbered.
static KINDS: [(&Spec, Read); 9] = [
    (&TCP_CHECK, |_, _, _| Some(CheckKind::TcpCheck)),
    (&HTTP_GET, http::http_get),
    (&SSL_GET, http::ssl_get),
    (&UDP_CHECK, kinds::udp),
    (&DNS_CHECK, kinds::dns),
    (&SMTP_CHECK, kinds::smtp),
    (&PING_CHECK, |_, _, _| Some(CheckKind::PingCheck)),
    (&MISC_CHECK, kinds::misc),
    (&FILE_CHECK, kinds::file),
];

/// What a real server serves, as far as it is not wrong.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) virtual_server: Option<SocketAddr>,
    /// It has more addresses than one.
    pub(super) is_group: bool,
    pub(super) lb_kind: Option<ForwardingMethod>,
}

/// Where a check connects to, and from.
struct Endpoints {
    target: SocketAddr,
    source: CheckSource,
    through_vip: bool,
}

/// The checks of a real server. `address` is the server's, `None` when it is
/// wrong: then the checks are only looked over.
pub(super) fn checks(
    server: &Table<'_>,
    address: Option<SocketAddr>,
    served: &Served,
    inherited: &Inherited,
    report: &mut Report<'_>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    for (spec, read) in &KINDS {
        let Some(value) = server.get(spec.heading) else {
            continue;
        };
        for entry in value.entries(example(spec.heading), report) {
            let table = Table::new(entry, value.place.clone(), spec, report);
            let parameters = inherited.overridden_by(&table, report);
            let kind = read(&table, &parameters, report);
            let endpoints = endpoints(&table, kind.as_ref(), (address, served), report);
            if let (Some(kind), Some(endpoints)) = (kind, endpoints) {
                checks.push(parameters.check(kind, endpoints));
            }
        }
    }
    checks
}

/// What could stand where a check is no table.
fn example(check: &str) -> &'static str {
    match check {
        "TCP_CHECK" => "TCP_CHECK = {}",
        "SMTP_CHECK" => "SMTP_CHECK = {}",
        "PING_CHECK" => "PING_CHECK = {}",
        "HTTP_GET" => r#"HTTP_GET = { url = { path = "/" } }"#,
        "SSL_GET" => r#"SSL_GET = { url = { path = "/" } }"#,
        _ => "{ key = value, … }",
    }
}

fn endpoints(
    table: &Table<'_>,
    kind: Option<&CheckKind>,
    (server, served): (Option<SocketAddr>, &Served),
    report: &mut Report<'_>,
) -> Option<Endpoints> {
    let through_vip = through_vip::through_vip(table, kind, served, report);
    let ip = table.get_if_known("connect_ip");
    let ip = ip.and_then(|v| v.check_not_link_local(v.host(report)?, report));
    let port = table.get_if_known("connect_port");
    let port = port.and_then(|v| v.integer::<u16>(&PORT, report));
    let bindto = table.get_if_known("bindto");
    let bind_port = table.get_if_known("bind_port");
    let bind_if = table.get_if_known("bind_if");
    let bind_if = bind_if.and_then(|v| interface_name(&v, report));
    let fwmark = table.get_if_known("fwmark");
    let source = CheckSource {
        bindto: bindto.as_ref().and_then(|v| v.host(report)),
        bind_port: bind_port.and_then(|v| v.integer(&PORT, report)),
        bind_if: bind_if.map(str::to_owned),
        fwmark: fwmark.and_then(|v| v.integer(&MARK, report)),
    };
    let server = match through_vip {
        true => served.virtual_server?,
        false => server?,
    };
    let target = SocketAddr::new(
        ip.unwrap_or_else(|| server.ip()),
        port.unwrap_or_else(|| server.port()),
    );
    if target.port() == 0 {
        // The real server stands for every port.
        table.report_absent("connect_port", "connect_port = 80", report);
        return None;
    }
    if let (Some(written), Some(bindto)) = (bindto, source.bindto)
        && bindto.is_ipv4() != target.is_ipv4()
    {
        written.reject(
            format_args!("the IP version of the check's target {target}"),
            "use an address of that version",
            report,
        );
    }
    Some(Endpoints {
        target,
        source,
        through_vip,
    })
}
