//! `[[vrrp_instance]]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::super::raw::{Spec, Table, Value};
use super::super::super::report::Report;
use super::super::super::{AuthType, Authentication, VirtualAddress, VrrpInstance, VrrpState};
use super::super::interface::interface_name;
use super::defaults::{DELAY, Defaults, REPEAT, at_least_one};
use super::strict::Strict;
use super::{address, notify, routing, track, unique_name, vmac, words};
use crate::vrrp::machine::Garp;
use crate::vrrp::packet::{MAX_ADVERT_INT_V3, PRIORITY_OWNER, Peer, TTL, Version};

pub(in super::super) static INSTANCE: Spec = Spec {
    heading: "[[vrrp_instance]]",
    keys: &[
        "name",
        "state",
        "interface",
        "use_vmac",
        "vmac_xmit_base",
        "version",
        "virtual_router_id",
        "priority",
        "advert_int",
        "authentication",
        "virtual_ipaddress",
        "virtual_ipaddress_excluded",
        "virtual_routes",
        "virtual_rules",
        "accept",
        "no_accept",
        "strict_mode",
        "nopreempt",
        "preempt_delay",
        "dont_track_primary",
        "mcast_src_ip",
        "unicast_src_ip",
        "unicast_peer",
        "unicast_ttl",
        "garp_master_delay",
        "garp_master_repeat",
        "garp_master_refresh",
        "garp_master_refresh_repeat",
        "garp_lower_prio_delay",
        "garp_lower_prio_repeat",
        "lower_prio_no_advert",
        "higher_prio_send_advert",
        "track_script",
        "track_interface",
        "track_file",
        "track_process",
        "notify_master",
        "notify_backup",
        "notify_fault",
        "notify_stop",
        "notify",
        "notify_priority_changes",
        "smtp_alert",
    ],
    shared: &[],
    unsupported: &["debug"],
};

pub(in super::super) static AUTHENTICATION: Spec = Spec {
    heading: "authentication",
    keys: &["auth_type", "auth_pass"],
    shared: &[],
    unsupported: &[],
};

/// VRRPv2 counts whole seconds to 255; VRRPv3 hundredths to 40.95 s.
const ADVERT_INT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(255);
const PREEMPT_DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1000);
const ONE_BYTE: RangeInclusive<i64> = 1..=255;
const DEFAULT_PRIORITY: u8 = 100;
/// VRRPv2's field for the password has eight bytes (RFC 2338 §5.3.10).
const PASSWORD_BYTES: usize = 8;

/// What may occur once over all instances, with where it did.
#[derive(Default)]
struct Seen<'d> {
    names: BTreeMap<&'d str, usize>,
    addresses: BTreeMap<IpAddr, usize>,
    /// By interface, identifier and whether the addresses are IPv6.
    routers: BTreeMap<(&'d str, u8, bool), usize>,
}

/// The instances; the document tells what may be tracked.
pub(in super::super) fn instances(
    root: &Table<'_>,
    defaults: &Defaults,
    report: &mut Report<'_>,
) -> Vec<VrrpInstance> {
    let known = track::Known::of(root);
    let mut seen = Seen::default();
    let sections = root.sections("vrrp_instance", report).into_iter();
    let instances = sections.enumerate().filter_map(|(index, entry)| {
        let place = entry.label("vrrp_instance", "name", index);
        let table = Table::new(entry, place, &INSTANCE, report);
        instance(&table, &known, defaults, &mut seen, report)
    });
    instances.collect()
}

fn instance<'d>(
    table: &Table<'d>,
    known: &track::Known<'_>,
    defaults: &Defaults,
    seen: &mut Seen<'d>,
    report: &mut Report<'_>,
) -> Option<VrrpInstance> {
    let name = unique_name(table, &mut seen.names, "VI_1", report);
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
    let example = r#"virtual_ipaddress = ["192.168.1.100/24"]"#;
    let addresses = table.require("virtual_ipaddress", example, report);
    let addresses = addresses.map(|v| addresses_of_one_family(&v, &mut seen.addresses, report));
    let addresses = addresses.unwrap_or_default();
    let is_v4 = addresses.first().is_none_or(|a| a.address.is_ipv4());
    let excluded = table.get("virtual_ipaddress_excluded");
    let excluded = excluded.map(|v| virtual_addresses(&v, &mut seen.addresses, report));
    let version = spoken_version(table, is_v4, defaults, report);
    let advert_int = advert_int(table, version, report);
    let authentication = authentication(table, version, report);
    let priority = priority.unwrap_or_else(|| default_priority(table, state, report));
    let (nopreempt, preempt_delay) = preemption(table, state, priority, report);
    let source = |key, report: &mut Report<'_>| {
        let value = table.get(key)?;
        let address = value.host(report)?;
        same_family(&value, address, is_v4, report)
    };
    let mcast_src_ip = source("mcast_src_ip", report);
    let unicast_src_ip = source("unicast_src_ip", report);
    let unicast_peer = peers(table, is_v4, report);
    let unicast_ttl = unicast_ttl(table, &unicast_peer, report);
    let tracks = track::tracks(table, known, interface, report);

    let virtual_routes = routing::routes(table, interface, report);
    let virtual_rules = routing::rules(table, report);

    let strict = Strict::of(table, defaults, report);
    let no_accept = strict.no_accept(priority, version, report);
    let authentication = strict.authentication(authentication, report);
    let preempt_delay = strict.preempt_delay(preempt_delay, report);
    strict.check(&addresses, &unicast_peer, report);
    let mut vmac = vmac::vmac(table, router, is_v4, &unicast_peer, report);
    strict.check_vmac(vmac.as_mut(), report);

    let (name, interface, router) = (name?, interface?, router?);
    if !addresses.is_empty()
        && let Some(first) = seen.routers.insert((interface, router, !is_v4), router_at)
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
        vmac,
        version,
        virtual_router_id: router,
        priority,
        advert_int,
        authentication,
        virtual_ipaddress: addresses,
        virtual_ipaddress_excluded: excluded.unwrap_or_default(),
        virtual_routes,
        virtual_rules,
        no_accept,
        strict_mode: strict.is_on(),
        nopreempt,
        preempt_delay,
        dont_track_primary: flag(table, "dont_track_primary", false, report),
        mcast_src_ip,
        unicast_src_ip,
        unicast_peer,
        unicast_ttl,
        garp: garp(table, &defaults.garp, report),
        lower_prio_no_advert: strict.lower_prio_no_advert(defaults, report),
        higher_prio_send_advert: strict.higher_prio_send_advert(defaults, report),
        tracks,
        notify: notify(table, report),
        notify_priority_changes: flag(
            table,
            "notify_priority_changes",
            defaults.notify_priority_changes,
            report,
        ),
    })
}

pub(super) fn flag(
    table: &Table<'_>,
    key: &'static str,
    default: bool,
    report: &mut Report<'_>,
) -> bool {
    let value = table.get(key).and_then(|v| v.boolean(report));
    value.unwrap_or(default)
}

pub(super) fn version(value: &Value<'_>, report: &mut Report<'_>) -> Option<Version> {
    match value.integer_of::<u8>(&(2..=3), "2 or 3", report)? {
        2 => Some(Version::V2),
        _ => Some(Version::V3),
    }
}

/// IPv6 is VRRPv3's, so nobody has to say it.
fn spoken_version(
    table: &Table<'_>,
    is_v4: bool,
    defaults: &Defaults,
    report: &mut Report<'_>,
) -> Version {
    let value = table.get("version");
    let written = value.as_ref().and_then(|v| version(v, report));
    match (written, is_v4, value) {
        (Some(Version::V2), false, Some(value)) => {
            value.reject("3 for IPv6 addresses", "write 3, or remove it", report);
            Version::V3
        }
        (_, false, _) => Version::V3,
        (written, true, _) => written.or(defaults.version).unwrap_or(Version::V2),
    }
}

fn advert_int(table: &Table<'_>, version: Version, report: &mut Report<'_>) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(1);
    let Some(value) = table.get("advert_int") else {
        return DEFAULT;
    };
    let Some(time) = value.time(&ADVERT_INT, report) else {
        return DEFAULT;
    };
    match version {
        Version::V2 if time.subsec_nanos() != 0 => {
            let remedy = "round it, or write version = 3 here and on every other director";
            value.reject("whole seconds with VRRP version 2", remedy, report);
        }
        Version::V3 if time > MAX_ADVERT_INT_V3 => {
            value.reject("at most 40.95 s with VRRP version 3", "lower it", report);
        }
        Version::V3 if !time.subsec_nanos().is_multiple_of(10_000_000) => {
            value.reject(
                "hundredths of a second with VRRP version 3",
                "round it",
                report,
            );
        }
        Version::V2 | Version::V3 => {}
    }
    time
}

fn authentication(
    table: &Table<'_>,
    version: Version,
    report: &mut Report<'_>,
) -> Option<Authentication> {
    let value = table.get("authentication")?;
    let authentication = authenticate(&value, report)?;
    if version == Version::V3 {
        report.warning(
            value.at,
            &value.place,
            "VRRP version 3 has no authentication: the password is not used",
        );
        return None;
    }
    Some(authentication)
}

fn authenticate(value: &Value<'_>, report: &mut Report<'_>) -> Option<Authentication> {
    let Some(entry) = value.entry() else {
        value.reject(
            "a table",
            r#"write { auth_type = "PASS", auth_pass = "secret" }"#,
            report,
        );
        return None;
    };
    let table = Table::new(entry, value.place.clone(), &AUTHENTICATION, report);
    let kinds = [("PASS", AuthType::Pass), ("AH", AuthType::Ah)];
    let kind = table.require("auth_type", r#"auth_type = "PASS""#, report);
    let kind = kind.and_then(|v| v.choice(&kinds, &[], report));
    let password = table.require("auth_pass", r#"auth_pass = "secret""#, report)?;
    let auth_pass = password.text(report)?.to_owned();
    if auth_pass.len() > PASSWORD_BYTES {
        report.warning(
            password.at,
            &password.place,
            "VRRP carries the first 8 bytes of a password: shorten it",
        );
    }
    let kind = kind?;
    Some(Authentication { kind, auth_pass })
}

/// keepalived derives it from the state.
fn default_priority(table: &Table<'_>, state: Option<VrrpState>, report: &mut Report<'_>) -> u8 {
    if state != Some(VrrpState::Master) {
        return DEFAULT_PRIORITY;
    }
    report.warning(
        table.at,
        &table.place,
        "state MASTER without priority: it is 255, that of the owner of the addresses",
    );
    PRIORITY_OWNER
}

/// Whether a master of lower priority is left alone, and for how long. As in keepalived, who begins as
/// master does not.
fn preemption(
    table: &Table<'_>,
    state: Option<VrrpState>,
    priority: u8,
    report: &mut Report<'_>,
) -> (bool, Duration) {
    let nopreempt = table.get("nopreempt");
    let nopreempt_is_on = flag(table, "nopreempt", false, report);
    let delay = table.get("preempt_delay");
    let time = delay.as_ref().and_then(|v| v.time(&PREEMPT_DELAY, report));
    let time = time.unwrap_or_default();
    let reason = match (state, priority) {
        (Some(VrrpState::Master), _) => "initial state MASTER",
        (_, PRIORITY_OWNER) => "priority 255",
        (_, _) => return (nopreempt_is_on, time),
    };
    let mut clear = |value: Option<Value<'_>>, what| {
        if let Some(value) = value {
            let message = format!("{what} will not work with {reason} - clearing");
            report.warning(value.at, &value.place, message);
        }
    };
    clear(nopreempt.filter(|_| nopreempt_is_on), "nopreempt");
    clear(delay.filter(|_| !time.is_zero()), "preempt delay");
    (false, Duration::ZERO)
}

fn garp(table: &Table<'_>, defaults: &Garp, report: &mut Report<'_>) -> Garp {
    let mut time = |key| table.get(key).and_then(|v| v.time(&DELAY, report));
    let master_delay = time("garp_master_delay");
    let master_refresh = time("garp_master_refresh");
    let lower_prio_delay = time("garp_lower_prio_delay").or(master_delay);
    let master_repeat = at_least_one(table, "garp_master_repeat", report);
    let master_refresh_repeat = at_least_one(table, "garp_master_refresh_repeat", report);
    let lower_prio_repeat = table.get("garp_lower_prio_repeat");
    let lower_prio_repeat = lower_prio_repeat.and_then(|v| v.integer(&REPEAT, report));
    let lower_prio_repeat = lower_prio_repeat.or(master_repeat);
    Garp {
        master_delay: master_delay.unwrap_or(defaults.master_delay),
        master_repeat: master_repeat.unwrap_or(defaults.master_repeat),
        master_refresh: master_refresh.unwrap_or(defaults.master_refresh),
        master_refresh_repeat: master_refresh_repeat.unwrap_or(defaults.master_refresh_repeat),
        lower_prio_delay: lower_prio_delay.unwrap_or(defaults.lower_prio_delay),
        lower_prio_repeat: lower_prio_repeat.unwrap_or(defaults.lower_prio_repeat),
    }
}

fn same_family(
    value: &Value<'_>,
    address: IpAddr,
    is_v4: bool,
    report: &mut Report<'_>,
) -> Option<IpAddr> {
    if address.is_ipv4() != is_v4 {
        let version = if is_v4 { "IPv4" } else { "IPv6" };
        let expected = format!("an {version} address, as in virtual_ipaddress");
        value.reject(expected, "correct it", report);
        return None;
    }
    Some(address)
}

fn peers(table: &Table<'_>, is_v4: bool, report: &mut Report<'_>) -> Vec<Peer> {
    let list = table.get("unicast_peer").and_then(|v| v.list(report));
    let mut peers: Vec<Peer> = Vec::new();
    for value in list.unwrap_or_default() {
        let Some(peer) = words::peer(&value, report) else {
            continue;
        };
        if same_family(&value, peer.address, is_v4, report).is_none() {
            continue;
        }
        if peers.iter().any(|known| known.address == peer.address) {
            value.reject("each peer once", "remove one of them", report);
        }
        peers.push(peer);
    }
    peers
}

fn unicast_ttl(table: &Table<'_>, peers: &[Peer], report: &mut Report<'_>) -> u8 {
    let Some(value) = table.get("unicast_ttl") else {
        return TTL;
    };
    if peers.is_empty() && table.get("unicast_peer").is_none() {
        report.warning(
            value.at,
            &value.place,
            "it says nothing without unicast_peer",
        );
    }
    value.integer(&ONE_BYTE, report).unwrap_or(TTL)
}

fn virtual_addresses(
    value: &Value<'_>,
    seen: &mut BTreeMap<IpAddr, usize>,
    report: &mut Report<'_>,
) -> Vec<VirtualAddress> {
    let mut addresses: Vec<VirtualAddress> = Vec::new();
    for element in value.list(report).unwrap_or_default() {
        let Some(address) = address::virtual_address(&element, report) else {
            continue;
        };
        if let Some(first) = seen.insert(address.address, element.at) {
            let expected = format!("each address once, it is on {}", report.line(first));
            element.reject(expected, "remove one of them", report);
        }
        addresses.push(address);
    }
    addresses
}

fn addresses_of_one_family(
    value: &Value<'_>,
    seen: &mut BTreeMap<IpAddr, usize>,
    report: &mut Report<'_>,
) -> Vec<VirtualAddress> {
    let addresses = virtual_addresses(value, seen, report);
    let is_v4 = addresses.first().is_none_or(|a| a.address.is_ipv4());
    let stranger = addresses.iter().find(|a| a.address.is_ipv4() != is_v4);
    if let Some(stranger) = stranger {
        report.error(
            seen.get(&stranger.address).copied().unwrap_or(value.at),
            &value.place,
            format_args!("{}", stranger.address),
            "the IP version of the instance's first address",
            "use one instance for IPv4 and one for IPv6, or virtual_ipaddress_excluded",
        );
    }
    addresses
}
