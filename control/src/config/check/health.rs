//! `TCP_CHECK` and `HTTP_GET`, and how their parameters are inherited.
//!
//! As in keepalived.conf(5): "the virtual server setting is the default for
//! real servers, and the real server setting is the default for checkers".
//! Its defaults: delay_loop 60 s, connect_timeout 5 s, retry 1,
//! delay_before_retry 3 s for HTTP_GET and 1 s for TCP_CHECK, warmup as long as
//! delay_loop, alpha off, status_code 200-299.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::raw::{Spec, Table, Value};
use super::super::report::Report;
use super::super::{Check, CheckKind, CheckUrl};

/// Keys that a virtual server, a real server and a check have alike.
pub(super) static PARAMETERS: Spec = Spec {
    heading: "check parameters",
    keys: &[
        "delay_loop",
        "connect_timeout",
        "retry",
        "nb_get_retry",
        "delay_before_retry",
        "warmup",
        "alpha",
    ],
    shared: &[],
    unsupported: &[],
};

pub(super) static TCP_CHECK: Spec = Spec {
    heading: "TCP_CHECK",
    keys: &["connect_ip", "connect_port", "bindto"],
    shared: PARAMETERS.keys,
    unsupported: &["bind_if", "bind_port", "fwmark", "log_all_failures"],
};

pub(super) static HTTP_GET: Spec = Spec {
    heading: "HTTP_GET",
    keys: &["url", "virtualhost", "connect_ip", "connect_port", "bindto"],
    shared: PARAMETERS.keys,
    unsupported: &[
        "bind_if",
        "bind_port",
        "enable_sni",
        "fast_recovery",
        "fwmark",
        "http_protocol",
        "log_all_failures",
    ],
};

pub(super) static URL: Spec = Spec {
    heading: "url",
    keys: &["path", "status_code", "virtualhost"],
    shared: &[],
    unsupported: &[
        "digest",
        "regex",
        "regex_max_offset",
        "regex_min_offset",
        "regex_no_match",
        "regex_options",
        "regex_stack",
    ],
};

const DAY: Duration = Duration::from_secs(86400);
const DELAY_LOOP: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;
const CONNECT_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(3600);
const DELAY: RangeInclusive<Duration> = Duration::ZERO..=DAY;
const RETRY: RangeInclusive<i64> = 0..=65535;
const PORT: RangeInclusive<i64> = 1..=65535;
/// What a status line can carry (RFC 9110 §15).
const STATUS: RangeInclusive<u16> = 100..=599;

/// The parameters that are set so far, from the outermost section inwards.
#[derive(Clone, Debug, Default)]
pub(super) struct Inherited {
    delay_loop: Option<Duration>,
    connect_timeout: Option<Duration>,
    retry: Option<u32>,
    delay_before_retry: Option<Duration>,
    warmup: Option<Duration>,
    alpha: Option<bool>,
    virtualhost: Option<String>,
}

impl Inherited {
    /// These parameters with what `table` says in their place.
    pub(super) fn overridden_by(&self, table: &Table<'_>, report: &mut Report<'_>) -> Self {
        let mut time = |key, range| table.get(key).and_then(|v| v.time(range, report));
        let delay_loop = time("delay_loop", &DELAY_LOOP);
        let connect_timeout = time("connect_timeout", &CONNECT_TIMEOUT);
        let delay_before_retry = time("delay_before_retry", &DELAY);
        let warmup = time("warmup", &DELAY);
        let retry = table.get_alias(&["retry", "nb_get_retry"], report);
        let retry = retry.and_then(|v| v.integer(&RETRY, report));
        let alpha = table.get("alpha").and_then(|v| v.boolean(report));
        let virtualhost = virtualhost(table, report);
        Self {
            delay_loop: delay_loop.or(self.delay_loop),
            connect_timeout: connect_timeout.or(self.connect_timeout),
            retry: retry.or(self.retry),
            delay_before_retry: delay_before_retry.or(self.delay_before_retry),
            warmup: warmup.or(self.warmup),
            alpha: alpha.or(self.alpha),
            virtualhost: virtualhost.or_else(|| self.virtualhost.clone()),
        }
    }

    fn check(&self, kind: CheckKind, target: SocketAddr, bindto: Option<IpAddr>) -> Check {
        let delay_loop = self.delay_loop.unwrap_or(Duration::from_secs(60));
        let delay_before_retry = match kind {
            CheckKind::TcpCheck => Duration::from_secs(1),
            CheckKind::HttpGet { .. } => Duration::from_secs(3),
        };
        Check {
            kind,
            target,
            bindto,
            connect_timeout: self.connect_timeout.unwrap_or(Duration::from_secs(5)),
            delay_loop,
            retry: self.retry.unwrap_or(1),
            delay_before_retry: self.delay_before_retry.unwrap_or(delay_before_retry),
            warmup: self.warmup.unwrap_or(delay_loop),
            alpha: self.alpha.unwrap_or(false),
        }
    }
}

/// The checks of a real server, `TCP_CHECK`s first. `address` is the server's,
/// `None` when it is wrong: then the checks are only looked over.
pub(super) fn checks(
    server: &Table<'_>,
    address: Option<SocketAddr>,
    inherited: &Inherited,
    report: &mut Report<'_>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(value) = server.get("TCP_CHECK") {
        for entry in value.entries(report) {
            let table = Table::new(entry, value.place.clone(), &TCP_CHECK, report);
            let parameters = inherited.overridden_by(&table, report);
            if let Some((target, bindto)) = endpoints(&table, address, report) {
                checks.push(parameters.check(CheckKind::TcpCheck, target, bindto));
            }
        }
    }
    if let Some(value) = server.get("HTTP_GET") {
        for entry in value.entries(report) {
            let table = Table::new(entry, value.place.clone(), &HTTP_GET, report);
            let parameters = inherited.overridden_by(&table, report);
            let kind = CheckKind::HttpGet {
                urls: urls(&table, report),
                virtualhost: parameters.virtualhost.clone(),
            };
            if let Some((target, bindto)) = endpoints(&table, address, report) {
                checks.push(parameters.check(kind, target, bindto));
            }
        }
    }
    checks
}

/// Where a check connects to, and from.
fn endpoints(
    table: &Table<'_>,
    server: Option<SocketAddr>,
    report: &mut Report<'_>,
) -> Option<(SocketAddr, Option<IpAddr>)> {
    let ip = table.get("connect_ip").and_then(|v| v.host(report));
    let port = table.get("connect_port");
    let port = port.and_then(|v| v.integer::<u16>(&PORT, report));
    let bindto = table.get("bindto");
    let source = bindto.as_ref().and_then(|v| v.host(report));
    let server = server?;
    let target = SocketAddr::new(
        ip.unwrap_or_else(|| server.ip()),
        port.unwrap_or_else(|| server.port()),
    );
    if let (Some(bindto), Some(source)) = (bindto, source)
        && source.is_ipv4() != target.is_ipv4()
    {
        bindto.reject(
            format_args!("the IP version of the check's target {target}"),
            "use an address of that version",
            report,
        );
    }
    Some((target, source))
}

fn virtualhost(table: &Table<'_>, report: &mut Report<'_>) -> Option<String> {
    let value = table.get_if_known("virtualhost")?;
    let text = value.text(report)?;
    if text.contains(char::is_whitespace) {
        value.reject("a host name", "remove the space", report);
        return None;
    }
    Some(text.to_owned())
}

fn urls(table: &Table<'_>, report: &mut Report<'_>) -> Vec<CheckUrl> {
    let Some(value) = table.require("url", r#"url = [{ path = "/" }]"#, report) else {
        return Vec::new();
    };
    let mut urls = Vec::new();
    for entry in value.entries(report) {
        let table = Table::new(entry, value.place.clone(), &URL, report);
        let path = table.require("path", r#"path = "/""#, report);
        let path = path.and_then(|v| url_path(&v, report));
        let status_code = match table.get("status_code") {
            Some(value) => status_codes(&value, report),
            None => vec![(200, 299)],
        };
        let virtualhost = virtualhost(&table, report);
        if let Some(path) = path {
            urls.push(CheckUrl {
                path: path.to_owned(),
                status_code,
                virtualhost,
            });
        }
    }
    urls
}

fn url_path<'d>(value: &Value<'d>, report: &mut Report<'_>) -> Option<&'d str> {
    let text = value.text(report)?;
    if !text.starts_with('/') || text.contains(|c: char| !c.is_ascii_graphic()) {
        value.reject(
            "a path that starts with \"/\", in ASCII and without space",
            "begin it with \"/\", encode the rest as %XX",
            report,
        );
        return None;
    }
    Some(text)
}

/// A number, text such as `"200-299 404"`, or a list of both.
fn status_codes(value: &Value<'_>, report: &mut Report<'_>) -> Vec<(u16, u16)> {
    let elements = if value.raw.is_array() {
        value.list(report).unwrap_or_default()
    } else {
        vec![value.clone()]
    };
    let mut ranges = Vec::new();
    for element in elements {
        match ranges_of(&element) {
            Some(found) => ranges.extend(found),
            None => element.reject(
                "status codes of 100 to 599",
                r#"write 200, "200-299" or a list of them"#,
                report,
            ),
        }
    }
    ranges
}

fn ranges_of(value: &Value<'_>) -> Option<Vec<(u16, u16)>> {
    let code = |text: &str| text.parse().ok().filter(|code| STATUS.contains(code));
    if let Some(number) = value.raw.as_integer() {
        let code = code(number.as_str()).filter(|_| number.radix() == 10)?;
        return Some(vec![(code, code)]);
    }
    let words = value.raw.as_str()?.split_whitespace();
    let ranges = words.map(|word| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (first, last) = (code(first)?, code(last)?);
        (first <= last).then_some((first, last))
    });
    let ranges = ranges.collect::<Option<Vec<_>>>()?;
    (!ranges.is_empty()).then_some(ranges)
}
