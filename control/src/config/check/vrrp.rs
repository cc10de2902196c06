//! `[[vrrp_script]]` and `[[vrrp_instance]]`: keepalived's keys, checked in
//! full, so that a file need not change when VRRP comes. Until then each
//! section gets a warning that says what is not done.
//!
//! Defaults and ranges are those of keepalived.conf(5), "VRRP CONFIGURATION".

mod address;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::raw::{Entry, Spec, Table, Value};
use super::super::report::Report;
use super::super::{Authentication, VirtualAddress, VrrpInstance, VrrpScript, VrrpState};
use super::interface::interface_name;

pub(super) static SCRIPT: Spec = Spec {
    heading: "[[vrrp_script]]",
    keys: &["name", "script", "interval", "weight"],
    shared: &[],
    unsupported: &["timeout", "rise", "fall", "user", "init_fail"],
};

pub(super) static INSTANCE: Spec = Spec {
    heading: "[[vrrp_instance]]",
    keys: &[
        "name",
        "state",
        "interface",
        "virtual_router_id",
        "priority",
        "advert_int",
        "authentication",
        "virtual_ipaddress",
        "track_script",
    ],
    shared: &[],
    unsupported: &[
        "accept",
        "debug",
        "dont_track_primary",
        "garp_master_delay",
        "garp_master_refresh",
        "garp_master_refresh_repeat",
        "garp_master_repeat",
        "mcast_src_ip",
        "nopreempt",
        "notify",
        "notify_backup",
        "notify_fault",
        "notify_master",
        "notify_stop",
        "preempt_delay",
        "smtp_alert",
        "track_file",
        "track_interface",
        "track_process",
        "unicast_peer",
        "unicast_src_ip",
        "use_vmac",
        "version",
        "virtual_ipaddress_excluded",
        "virtual_routes",
        "virtual_rules",
        "vmac_xmit_base",
    ],
};

pub(super) static AUTHENTICATION: Spec = Spec {
    heading: "authentication",
    keys: &["auth_type", "auth_pass"],
    shared: &[],
    unsupported: &[],
};

const SCRIPT_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(86400);
const SCRIPT_WEIGHT: RangeInclusive<i64> = -253..=253;
/// VRRPv2 counts whole seconds to 255; VRRPv3 hundredths to 40.95 s.
const ADVERT_INT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(255);
const ONE_BYTE: RangeInclusive<i64> = 1..=255;
const DEFAULT_PRIORITY: u8 = 100;
/// VRRPv2's field for the password has eight bytes (RFC 2338 §5.3.10).
const PASSWORD_BYTES: usize = 8;

pub(super) fn scripts(root: &Table<'_>, report: &mut Report<'_>) -> Vec<VrrpScript> {
    let mut scripts = Vec::new();
    let mut names = BTreeMap::new();
    let sections = root.sections("vrrp_script", report);
    for (index, entry) in sections.into_iter().enumerate() {
        let place = entry.label("vrrp_script", "name", index);
        let table = Table::new(entry, place, &SCRIPT, report);
        report.warning(
            table.at,
            &table.place,
            "this version has no VRRP: the script is never run",
        );
        let name = unique_name(&table, &mut names, report);
        let script = table.require("script", r#"script = "/etc/keepalived/check.sh""#, report);
        let script = script.and_then(|v| v.text(report));
        let interval = table.get("interval");
        let interval = interval.and_then(|v| v.time(&SCRIPT_INTERVAL, report));
        let weight = table.get("weight");
        let weight = weight.and_then(|v| v.integer(&SCRIPT_WEIGHT, report));
        if let (Some(name), Some(script)) = (name, script) {
            scripts.push(VrrpScript {
                name: name.to_owned(),
                script: script.to_owned(),
                interval: interval.unwrap_or(Duration::from_secs(1)),
                weight: weight.unwrap_or(0),
            });
        }
    }
    scripts
}

/// What may occur once over all instances, with where it did.
#[derive(Default)]
struct Seen<'d> {
    names: BTreeMap<&'d str, usize>,
    addresses: BTreeMap<IpAddr, usize>,
    /// By interface, identifier and whether the addresses are IPv6.
    routers: BTreeMap<(&'d str, u8, bool), usize>,
}

/// The instances; the document's scripts tell which may be tracked.
pub(super) fn instances(root: &Table<'_>, report: &mut Report<'_>) -> Vec<VrrpInstance> {
    let scripts = script_names(root);
    let mut seen = Seen::default();
    let sections = root.sections("vrrp_instance", report).into_iter();
    let instances = sections.enumerate().filter_map(|(index, entry)| {
        let place = entry.label("vrrp_instance", "name", index);
        let table = Table::new(entry, place, &INSTANCE, report);
        instance(&table, &scripts, &mut seen, report)
    });
    instances.collect()
}

/// Every name of a script, also of one with mistakes in it.
fn script_names<'d>(root: &Table<'d>) -> Vec<&'d str> {
    let sections = root.get("vrrp_script").and_then(|v| v.raw.as_array());
    let names = sections.into_iter().flat_map(|array| array.iter());
    let names = names.filter_map(|section| section.get_ref().get("name")?.get_ref().as_str());
    names.collect()
}

fn instance<'d>(
    table: &Table<'d>,
    scripts: &[&str],
    seen: &mut Seen<'d>,
    report: &mut Report<'_>,
) -> Option<VrrpInstance> {
    report.warning(
        table.at,
        &table.place,
        "this version has no VRRP: the addresses are held unconditionally, run one director only",
    );
    let name = unique_name(table, &mut seen.names, report);
    let states = [("MASTER", VrrpState::Master), ("BACKUP", VrrpState::Backup)];
    let state = table.get("state");
    let state = state.and_then(|v| v.choice(&states, &[], report));
    let interface = table.require("interface", r#"interface = "eth0""#, report);
    let interface = interface.and_then(|v| interface_name(&v, report));
    let router = table.require("virtual_router_id", "virtual_router_id = 51", report);
    let router_at = router.as_ref().map_or(table.at, |v| v.at);
    let router = router.and_then(|v| v.integer(&ONE_BYTE, report));
    let priority = table.get("priority");
    let priority = priority.and_then(|v| v.integer(&ONE_BYTE, report));
    let advert_int = table.get("advert_int");
    let advert_int = advert_int.and_then(|v| v.time(&ADVERT_INT, report));
    let authentication = table.get("authentication");
    let authentication = authentication.and_then(|v| authenticate(&v, report));
    let addresses = addresses(table, &mut seen.addresses, report);
    let track_script = table.get("track_script");
    let track_script = track_script.map(|v| tracked(&v, scripts, report));

    let (name, interface, router) = (name?, interface?, router?);
    let is_v6 = addresses.first().map(|a| a.address.is_ipv6());
    if let Some(is_v6) = is_v6
        && let Some(first) = seen.routers.insert((interface, router, is_v6), router_at)
    {
        report.error(
            router_at,
            &table.place,
            format_args!("virtual_router_id {router} on {interface} again"),
            format_args!("it once per interface, it is on {}", report.line(first)),
            "choose another",
        );
    }
    Some(VrrpInstance {
        name: name.to_owned(),
        state: state.unwrap_or(VrrpState::Backup),
        interface: interface.to_owned(),
        virtual_router_id: router,
        priority: priority.unwrap_or(DEFAULT_PRIORITY),
        advert_int: advert_int.unwrap_or(Duration::from_secs(1)),
        authentication,
        virtual_ipaddress: addresses,
        track_script: track_script.unwrap_or_default(),
    })
}

fn unique_name<'d>(
    table: &Table<'d>,
    names: &mut BTreeMap<&'d str, usize>,
    report: &mut Report<'_>,
) -> Option<&'d str> {
    let name = table.require("name", r#"name = "VI_1""#, report)?;
    let text = name.text(report)?;
    if let Some(first) = names.insert(text, name.at) {
        let expected = format!("another name, this one is on {}", report.line(first));
        name.reject(expected, "rename one of them", report);
    }
    Some(text)
}

fn authenticate(value: &Value<'_>, report: &mut Report<'_>) -> Option<Authentication> {
    let Some(entries) = value.raw.as_table() else {
        value.reject(
            "a table",
            r#"write { auth_type = "PASS", auth_pass = "secret" }"#,
            report,
        );
        return None;
    };
    let entry = Entry {
        entries,
        at: value.at,
    };
    let table = Table::new(entry, value.place.clone(), &AUTHENTICATION, report);
    if let Some(kind) = table.require("auth_type", r#"auth_type = "PASS""#, report) {
        kind.choice(&[("PASS", ())], &["AH"], report);
    }
    let password = table.require("auth_pass", r#"auth_pass = "secret""#, report)?;
    let auth_pass = password.text(report)?.to_owned();
    if auth_pass.len() > PASSWORD_BYTES {
        report.warning(
            password.at,
            &password.place,
            "VRRP carries the first 8 bytes of a password: shorten it",
        );
    }
    Some(Authentication { auth_pass })
}

fn tracked(value: &Value<'_>, scripts: &[&str], report: &mut Report<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for element in value.list(report).unwrap_or_default() {
        let Some(name) = element.text(report) else {
            continue;
        };
        if !scripts.contains(&name) {
            report.absent(
                element.at,
                &element.place,
                format_args!("{name:?}"),
                "the name of a [[vrrp_script]]",
                "add the script, or correct the name",
            );
        }
        names.push(name.to_owned());
    }
    names
}

fn addresses(
    table: &Table<'_>,
    seen: &mut BTreeMap<IpAddr, usize>,
    report: &mut Report<'_>,
) -> Vec<VirtualAddress> {
    let example = r#"virtual_ipaddress = ["192.168.1.100/24"]"#;
    let Some(value) = table.require("virtual_ipaddress", example, report) else {
        return Vec::new();
    };
    let mut addresses: Vec<VirtualAddress> = Vec::new();
    for element in value.list(report).unwrap_or_default() {
        let Some(address) = address::virtual_address(&element, report) else {
            continue;
        };
        if let Some(first) = seen.insert(address.address, element.at) {
            let expected = format!("each address once, it is on {}", report.line(first));
            element.reject(expected, "remove one of them", report);
        }
        let family = addresses.first().map(|first| first.address.is_ipv4());
        if family.is_some_and(|is_v4| is_v4 != address.address.is_ipv4()) {
            element.reject(
                "the IP version of the instance's first address",
                "use one instance for IPv4 and one for IPv6",
                report,
            );
        }
        addresses.push(address);
    }
    addresses
}
