//! `virtual_routes` and `virtual_rules`, in the words of `ip route` and `ip rule`.

use std::str::FromStr;

use super::super::super::raw::{Table, Value};
use super::super::super::report::Report;
use crate::routing::{Expected, VirtualRoute, VirtualRule};

/// The routes; one that leads to a neighbour does so by the instance's `interface`.
pub(super) fn routes(
    table: &Table<'_>,
    interface: Option<&str>,
    report: &mut Report<'_>,
) -> Vec<VirtualRoute> {
    let mut routes = list::<VirtualRoute>(table, "virtual_routes", report);
    for route in &mut routes {
        if route.is_unicast() && route.via.is_none() && route.dev.is_none() {
            route.dev = interface.map(str::to_owned);
        }
    }
    routes
}

pub(super) fn rules(table: &Table<'_>, report: &mut Report<'_>) -> Vec<VirtualRule> {
    list(table, "virtual_rules", report)
}

fn list<T: FromStr<Err = Expected> + PartialEq>(
    table: &Table<'_>,
    key: &'static str,
    report: &mut Report<'_>,
) -> Vec<T> {
    let mut all: Vec<T> = Vec::new();
    let list = table.get(key).and_then(|v| v.list(report));
    for element in list.unwrap_or_default() {
        let Some(one) = read(&element, report) else {
            continue;
        };
        if all.contains(&one) {
            element.reject("each of them once", "remove one of them", report);
        }
        all.push(one);
    }
    all
}

fn read<T: FromStr<Err = Expected>>(value: &Value<'_>, report: &mut Report<'_>) -> Option<T> {
    let parsed = value.text(report)?.parse();
    if let Err(expected) = &parsed {
        value.reject(expected, "correct it as ip(8) would have it", report);
    }
    parsed.ok()
}
