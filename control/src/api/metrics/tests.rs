//! A strict reader of Prometheus's text format, and what it finds in the metrics.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::counters::DropReason;

use super::*;
use crate::api::example;

/// Samples by series, and each family's kind.
#[derive(Debug, Default)]
struct Read {
    samples: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
}

/// Reads what must be of one form only: HELP, TYPE, then all samples of the family, no series twice.
fn read(text: &str) -> Read {
    let mut read = Read::default();
    let (mut help, mut family) = (String::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, sentence) = rest.split_once(' ').unwrap();
            assert!(!sentence.is_empty() && is_name(name), "{line}");
            help = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, help, "TYPE without its HELP");
            let is_new = read
                .kinds
                .insert(name.to_owned(), kind.to_owned())
                .is_none();
            assert!(is_new, "{name} comes twice");
            family = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let suffixes: &[&str] = match &*read.kinds[&family] {
                "histogram" => &["_bucket", "_sum", "_count"],
                "counter" | "gauge" => &[""],
                other => panic!("{family} is of kind {other}"),
            };
            let belongs = |suffix: &&str| name.strip_suffix(*suffix) == Some(&family);
            assert!(suffixes.iter().any(belongs), "{line} in {family}");
            check_labels(&series[name.len()..]);
            let value = value.parse().unwrap();
            let is_new = read.samples.insert(series.to_owned(), value).is_none();
            assert!(is_new, "{series} comes twice");
        }
    }
    read
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// `{a="b",c="d"}`, or nothing.
fn check_labels(labels: &str) {
    let Some(rest) = labels.strip_prefix('{') else {
        assert_eq!(labels, "");
        return;
    };
    let mut rest = rest.strip_suffix('}').unwrap();
    let mut names = BTreeSet::new();
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(is_name(name) && names.insert(name), "{labels}");
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.unwrap();
        assert!(end > 0, "an empty label: {labels}");
        rest = &value[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[test]
fn everything_that_is_counted_is_a_metric() {
    let mut state = example::state();
    state.drops = DropReason::ALL
        .iter()
        .map(|reason| crate::api::view::Drop {
            reason: reason.name().into(),
            description: reason.description().into(),
            packets_total: 1,
        })
        .collect();
    let read = read(&render(&state));
    for name in Counters::NAMES {
        let found = ["", "_total"].map(|end| format!("appliance_{name}{end}{{worker=\"1\"}}"));
        assert!(
            found.iter().any(|series| read.samples.contains_key(series)),
            "{name}"
        );
    }
    for reason in DropReason::ALL {
        let series = format!(
            "appliance_dropped_packets_total{{reason=\"{}\"}}",
            reason.name()
        );
        assert_eq!(read.samples[&series], 1.0);
    }
    for (name, kind) in &read.kinds {
        let is_counter = kind == "counter";
        assert_eq!(name.ends_with("_total"), is_counter, "{name} is a {kind}");
        let with = |suffix: &str| format!("{name}{suffix}{{");
        let has_samples = read.samples.keys().any(|series| {
            series == name
                || [with(""), with("_bucket")]
                    .iter()
                    .any(|s| series.starts_with(s))
        });
        assert!(has_samples, "{name} has no sample in the example");
    }
}

#[test]
fn values_of_the_example() {
    let read = read(&render(&example::state()));
    let server =
        r#"protocol="TCP",virtual_server="192.168.1.100:80",real_server="192.168.1.102:80""#;
    for (series, value) in [
        (
            r#"appliance_rx_packets_total{worker="0"}"#.to_owned(),
            1_234_567.0,
        ),
        (r#"appliance_connections{worker="0"}"#.to_owned(), 1241.0),
        (
            r#"appliance_vrrp_state{instance="VI_2",state="BACKUP"}"#.to_owned(),
            1.0,
        ),
        (
            r#"appliance_vrrp_state{instance="VI_2",state="MASTER"}"#.to_owned(),
            0.0,
        ),
        (
            r#"appliance_vrrp_refused_packets_total{reason="virtual_router_id"}"#.to_owned(),
            3.0,
        ),
        (
            r#"appliance_timer_slip_seconds_bucket{le="0.025"}"#.to_owned(),
            3725.0,
        ),
        (
            r#"appliance_timer_slip_seconds_bucket{le="+Inf"}"#.to_owned(),
            3725.0,
        ),
        ("appliance_timer_slip_seconds_sum".to_owned(), 4.2),
        (
            r#"appliance_steering_packets_total{interface="eth0",action="denied"}"#.to_owned(),
            5.0,
        ),
        (format!("appliance_real_server_up{{{server}}}"), 0.0),
        // Being checked for the first time.
        (
            format!(
                "appliance_real_server_up{{{}}}",
                server.replace("102", "103")
            ),
            1.0,
        ),
        (
            format!(
                r#"appliance_health_check_failures{{{server},number="0",check="HTTP_GET",target="192.168.1.102:8080"}}"#
            ),
            4.0,
        ),
    ] {
        assert_eq!(read.samples.get(&series), Some(&value), "{series}");
    }
}

#[test]
fn equal_names_and_several_checks_make_no_series_twice() {
    let mut state = example::state();
    let servers = &mut state.services[0].real_servers;
    servers.push(servers[0].clone());
    state.health.insert(1, state.health[0].clone());
    state.vrrp.instances[0].name = "a\"b\\c\nd".to_owned();
    let read = read(&render(&state));
    let series = r#"appliance_vrrp_priority{instance="a\"b\\c\nd"}"#;
    assert_eq!(read.samples[series], 100.0);
}

/// `docs/http.md` explains every metric, and no other.
#[test]
fn every_metric_is_explained() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/http.md");
    let document = std::fs::read_to_string(path).unwrap();
    let mut explained: BTreeSet<String> = document
        .split('`')
        .filter(|word| word.starts_with("appliance_") && is_name(word))
        .map(str::to_owned)
        .collect();
    let per_worker = Counters::NAMES.iter().flat_map(|name| {
        [
            format!("appliance_{name}"),
            format!("appliance_{name}_total"),
        ]
    });
    explained.extend(per_worker.clone());
    let written: BTreeSet<String> = read(&render(&example::state())).kinds.into_keys().collect();
    let missing: Vec<_> = written.difference(&explained).collect();
    assert!(
        missing.is_empty(),
        "docs/http.md does not explain {missing:?}"
    );
    let per_worker: BTreeSet<_> = per_worker.collect();
    let unknown = explained
        .difference(&written)
        .filter(|name| !per_worker.contains(*name));
    let unknown: Vec<_> = unknown.collect();
    assert!(
        unknown.is_empty(),
        "docs/http.md explains {unknown:?}, which is no metric"
    );
}
