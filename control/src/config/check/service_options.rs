//! What a virtual server matches, persistence, and one-packet scheduling.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use dataplane::matching::Match;
use dataplane::persistence::Persistence;
use dataplane::service::{Protocol, Thresholds};

use super::super::raw::{Table, Value};
use super::super::report::Report;

const PERSISTENCE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(31 * 24 * 3600);
const THRESHOLD: RangeInclusive<i64> = 0..=65535;

/// The elements of `match`; `None` when there is none, or one is wrong.
pub(super) fn matches(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<Match>> {
    let mut matches: Vec<Match> = Vec::new();
    let mut is_right = true;
    for element in value.list(report)? {
        let parsed = element.text(report).map(str::parse::<Match>);
        match parsed {
            Some(Ok(written)) if first_is_v4(&matches).is_some_and(|v4| v4 != is_v4(&written)) => {
                element.reject(
                    "the IP version of the first one",
                    "write another virtual server",
                    report,
                );
            }
            Some(Ok(written)) => {
                let (first, _) = written.begins_with();
                if element.check_not_link_local(first.into(), report).is_some() {
                    matches.push(written);
                    continue;
                }
            }
            Some(Err(wrong)) => element.reject(wrong, "write it so", report),
            None => {}
        }
        is_right = false;
    }
    is_right.then_some(matches)
}

fn is_v4(written: &Match) -> bool {
    written.begins_with().0.is_v4()
}

fn first_is_v4(matches: &[Match]) -> Option<bool> {
    matches.first().map(is_v4)
}

/// What a group is known by.
pub(super) fn identity(matches: &[Match]) -> Option<SocketAddr> {
    let (address, port) = matches.first()?.identity();
    Some(SocketAddr::new(address.into(), port))
}

/// `address`: that of the virtual server, if it is known.
pub(super) fn persistence(
    table: &Table<'_>,
    address: Option<SocketAddr>,
    report: &mut Report<'_>,
) -> Option<Persistence> {
    let granularity = table.get("persistence_granularity");
    let written = granularity
        .as_ref()
        .and_then(|value| prefix_length(value, address?.is_ipv4(), report));
    let Some(timeout) = table.get("persistence_timeout") else {
        if let Some(value) = granularity {
            value.reject(
                "it beside persistence_timeout only",
                "add that, or remove this",
                report,
            );
        }
        return None;
    };
    let whole = if address?.is_ipv4() { 32 } else { 128 };
    Some(Persistence {
        timeout: timeout.time(&PERSISTENCE, report)?,
        granularity: written.unwrap_or(whole),
    })
}

/// A netmask, as keepalived has it for IPv4, or the length of a prefix.
pub(super) fn prefix_length(value: &Value<'_>, is_v4: bool, report: &mut Report<'_>) -> Option<u8> {
    let longest = if is_v4 { 32 } else { 128 };
    let Some(text) = value.raw.as_str() else {
        let expected = if is_v4 {
            r#"a netmask such as "255.255.255.0", or 0 to 32"#
        } else {
            "a prefix length of 0 to 128"
        };
        return value.integer_of(&(0..=longest), expected, report);
    };
    let mask = text.parse::<Ipv4Addr>().ok().map(u32::from);
    let contiguous = mask.filter(|mask| mask.count_ones() == mask.leading_ones());
    match contiguous {
        Some(mask) if is_v4 => u8::try_from(mask.leading_ones()).ok(),
        Some(_) | None => {
            let [expected, remedy] = if is_v4 {
                [
                    r#"a netmask such as "255.255.255.0", or 0 to 32"#,
                    "write ones before zeros",
                ]
            } else {
                ["a prefix length of 0 to 128", "write a number, such as 64"]
            };
            value.reject(expected, remedy, report);
            None
        }
    }
}

pub(super) fn one_packet(
    table: &Table<'_>,
    protocol: Option<Protocol>,
    report: &mut Report<'_>,
) -> bool {
    let Some(value) = table.get("ops") else {
        return false;
    };
    let wanted = value.boolean(report).unwrap_or(false);
    if wanted && protocol.is_some_and(|protocol| protocol != Protocol::Udp) {
        let message = "it has no effect: one-packet scheduling is for UDP; remove it";
        report.warning(value.at, &value.place, message);
    }
    wanted && protocol == Some(Protocol::Udp)
}

/// `uthreshold` and `lthreshold` of a real server.
pub(super) fn thresholds(table: &Table<'_>, report: &mut Report<'_>) -> Thresholds {
    let mut read = |key| {
        let value = table.get(key)?;
        Some((value.integer::<u32>(&THRESHOLD, report), value))
    };
    let upper = match read("uthreshold") {
        Some((number, _)) => number,
        None => Some(0),
    };
    let lower = read("lthreshold");
    if let (Some(upper), Some((Some(number), value))) = (upper, &lower)
        && *number > upper
    {
        value.reject(
            format_args!("at most uthreshold, {upper}"),
            "lower it, or raise uthreshold",
            report,
        );
    }
    let upper = upper.unwrap_or(0);
    let lower = lower.and_then(|(number, _)| number);
    Thresholds {
        upper,
        lower: lower.unwrap_or(0),
    }
}

/// True if `ip` is one that packets of the virtual server go to.
pub(super) fn is_destination(matches: &[Match], ip: IpAddr) -> bool {
    matches.iter().any(|written| written.holds(ip.into()))
}
