//! `[[interface]]`, and what a name of an interface looks like.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::super::raw::{Spec, Table, Value};
use super::super::report::Report;
use super::super::{Interface, Queues, XdpMode};
use super::appliance::numbers;

pub(super) static INTERFACE: Spec = Spec {
    heading: "[[interface]]",
    keys: &["name", "queues", "mode"],
    shared: &[],
    unsupported: &[],
};

/// Linux allows a device no more receive queues than this.
const QUEUES: RangeInclusive<i64> = 0..=4095;
/// `IFNAMSIZ` without the terminating zero.
const LONGEST_NAME: usize = 15;

pub(super) fn interfaces(root: &Table<'_>, report: &mut Report<'_>) -> Vec<Interface> {
    let mut interfaces = Vec::new();
    let mut seen = BTreeMap::new();
    let sections = root.sections("interface", report);
    for (index, entry) in sections.into_iter().enumerate() {
        let place = entry.label("interface", "name", index);
        let table = Table::new(entry, place, &INTERFACE, report);
        let name = table.require("name", r#"name = "eth0""#, report);
        let queues = table.get("queues").and_then(|v| queues(&v, report));
        let mode = table.get("mode").and_then(|v| mode(&v, report));
        let Some(name) = name else { continue };
        let Some(text) = interface_name(&name, report) else {
            continue;
        };
        if let Some(first) = seen.insert(text, name.at) {
            let expected = format!("each interface once, it is on {}", report.line(first));
            name.reject(expected, "remove one of them", report);
        }
        interfaces.push(Interface {
            name: text.to_owned(),
            queues: queues.unwrap_or(Queues::All),
            mode: mode.unwrap_or(XdpMode::Auto),
        });
    }
    interfaces
}

fn queues(value: &Value<'_>, report: &mut Report<'_>) -> Option<Queues> {
    if value.raw.is_array() {
        return Some(Queues::List(numbers(value, &QUEUES, report)?));
    }
    if value.raw.as_str() != Some("all") {
        value.reject(
            r#""all" or a list of queue numbers"#,
            "write one, such as [0, 1]",
            report,
        );
        return None;
    }
    Some(Queues::All)
}

fn mode(value: &Value<'_>, report: &mut Report<'_>) -> Option<XdpMode> {
    let known = [
        ("auto", XdpMode::Auto),
        ("zero-copy", XdpMode::ZeroCopy),
        ("copy", XdpMode::Copy),
        ("generic", XdpMode::Generic),
    ];
    value.choice(&known, &[], report)
}

/// A name that the kernel allows (`dev_valid_name`).
pub(super) fn interface_name<'d>(value: &Value<'d>, report: &mut Report<'_>) -> Option<&'d str> {
    let text = value.text(report)?;
    if !is_interface_name(text) {
        value.reject(
            r#"a name of 1 to 15 bytes without space, ":" and "/""#,
            "see `ip link` for the names",
            report,
        );
        return None;
    }
    Some(text)
}

pub(super) fn is_interface_name(text: &str) -> bool {
    let is_forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/');
    (1..=LONGEST_NAME).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text.contains(is_forbidden)
}
