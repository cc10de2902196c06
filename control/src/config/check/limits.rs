//! `max_connections`, `new_connections_per_second` and what is the same for each source of clients.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use dataplane::limits::{Limits, Rate, SourceLimits};

use super::super::raw::Table;
use super::super::report::Report;
use super::service_options::prefix_length;

/// The keys of a virtual server that are read here.
const KEYS: [&str; 7] = [
    "max_connections",
    "new_connections_per_second",
    "new_connections_burst",
    "source_max_connections",
    "source_new_connections_per_second",
    "source_new_connections_burst",
    "source_granularity",
];

/// What the whole table may hold at most.
const CONNECTIONS: RangeInclusive<i64> = 1..=1 << 27;
const RATE: RangeInclusive<i64> = 1..=10_000_000;
/// Hosts are given whole networks of IPv6, from which they take addresses as they like (RFC 8981).
const GRANULARITY_V6: u8 = 64;

/// `address`: that of the virtual server, if it is known.
pub(super) fn limits(
    table: &Table<'_>,
    address: Option<SocketAddr>,
    report: &mut Report<'_>,
) -> Limits {
    let [
        connections,
        per_second,
        burst,
        source_connections,
        source_per_second,
        source_burst,
        _,
    ] = KEYS;
    Limits {
        max_connections: count(table, connections, report),
        rate: rate(table, per_second, burst, report),
        source: source(
            table,
            address,
            count(table, source_connections, report),
            rate(table, source_per_second, source_burst, report),
            report,
        ),
    }
}

fn count(table: &Table<'_>, key: &'static str, report: &mut Report<'_>) -> Option<u32> {
    let expected = format!(
        "{} to {} (without it there is no limit)",
        CONNECTIONS.start(),
        CONNECTIONS.end()
    );
    table.get(key)?.integer_of(&CONNECTIONS, &expected, report)
}

fn rate(
    table: &Table<'_>,
    per_second: &'static str,
    burst: &'static str,
    report: &mut Report<'_>,
) -> Option<Rate> {
    let written = table.get(burst);
    let read = written.as_ref().map(|value| value.integer(&RATE, report));
    let Some(value) = table.get(per_second) else {
        if let Some(value) = written {
            value.reject(
                format_args!("it beside {per_second} only"),
                "add that, or remove this",
                report,
            );
        }
        return None;
    };
    let per_second = value.integer(&RATE, report)?;
    Some(Rate {
        per_second,
        burst: read.unwrap_or(Some(per_second))?,
    })
}

fn source(
    table: &Table<'_>,
    address: Option<SocketAddr>,
    max_connections: Option<u32>,
    rate: Option<Rate>,
    report: &mut Report<'_>,
) -> Option<SourceLimits> {
    let [.., limit, rate_key, _, granularity] = KEYS;
    let written = table.get(granularity);
    let read = written
        .as_ref()
        .and_then(|value| prefix_length(value, address?.is_ipv4(), report));
    if let Some(value) = written
        && [limit, rate_key].iter().all(|key| table.get(key).is_none())
    {
        value.reject(
            format_args!("it beside {limit} or {rate_key} only"),
            "add one of them, or remove this",
            report,
        );
    }
    (max_connections.is_some() || rate.is_some()).then_some(())?;
    let whole = match address?.is_ipv4() {
        true => 32,
        false => GRANULARITY_V6,
    };
    Some(SourceLimits {
        max_connections,
        rate,
        granularity: read.unwrap_or(whole),
    })
}
