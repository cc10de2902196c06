//! `[[vrrp_script]]`, `[[vrrp_instance]]` and `[[vrrp_sync_group]]`:
//! keepalived's keys, with its defaults and ranges (keepalived.conf(5), "VRRP
//! CONFIGURATION").

mod address;
mod defaults;
mod instance;
mod routing;
mod strict;
mod track;
mod vmac;
mod words;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

pub(super) use defaults::defaults;
pub(super) use instance::{AUTHENTICATION, INSTANCE, instances};
pub(super) use track::{
    FILE as TRACK_FILE, PROCESS as TRACK_PROCESS, files as track_files,
    processes as track_processes,
};

use super::super::raw::{Spec, Table};
use super::super::report::{Dialect, Report};
use super::super::{Notify, TrackFile, VrrpInstance, VrrpScript, VrrpSyncGroup};
use super::scripts::{command, script, script_user};
use crate::scripts::Script;

pub(super) static SCRIPT: Spec = Spec {
    heading: "[[vrrp_script]]",
    keys: &[
        "name",
        "script",
        "interval",
        "timeout",
        "weight",
        "rise",
        "fall",
        "user",
        "init_fail",
    ],
    shared: &[],
    unsupported: &[],
};

pub(super) static SYNC_GROUP: Spec = Spec {
    heading: "[[vrrp_sync_group]]",
    keys: &[
        "name",
        "group",
        "track_script",
        "track_interface",
        "track_file",
        "track_process",
        "notify_master",
        "notify_backup",
        "notify_fault",
        "notify_stop",
        "notify",
        "smtp_alert",
        "sync_group_tracking_weight",
    ],
    shared: &[],
    unsupported: &["global_tracking"],
};

/// keepalived's limit of `rise` and `fall`.
const IN_A_ROW: RangeInclusive<i64> = 1..=i32::MAX as i64;
const SCRIPT_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(86400);
const WEIGHT: RangeInclusive<i64> = -253..=253;

pub(super) fn scripts(root: &Table<'_>, report: &mut Report<'_>) -> Vec<VrrpScript> {
    let mut scripts = Vec::new();
    let mut names = BTreeMap::new();
    let sections = root.sections("vrrp_script", report);
    for (index, entry) in sections.into_iter().enumerate() {
        let place = entry.label("vrrp_script", "name", index);
        let table = Table::new(entry, place, &SCRIPT, report);
        let name = unique_name(&table, &mut names, "chk_nginx", report);
        let script = table.require("script", r#"script = "/etc/keepalived/check.sh""#, report);
        let words = script.and_then(|v| command(&v, report));
        let user = table.get("user").and_then(|v| script_user(&v, report));
        let mut time = |key| {
            let value = table.get(key);
            value.and_then(|v| v.time(&SCRIPT_INTERVAL, report))
        };
        let interval = time("interval").unwrap_or(Duration::from_secs(1));
        let timeout = time("timeout");
        let mut count = |key| table.get(key).and_then(|v| v.integer(&IN_A_ROW, report));
        let (rise, fall) = (count("rise"), count("fall"));
        let weight = track::own_weight(&table, &WEIGHT, report);
        let init_fail = table.get("init_fail").and_then(|v| v.boolean(report));
        if let (Some(name), Some(words)) = (name, words) {
            scripts.push(VrrpScript {
                name: name.to_owned(),
                script: Script { words, user },
                interval,
                timeout: timeout.unwrap_or(interval),
                rise: rise.unwrap_or(1),
                fall: fall.unwrap_or(1),
                init_fail: init_fail.unwrap_or(false),
                weight: weight.unwrap_or(0),
            });
        }
    }
    scripts
}

/// The scripts that are told of a change of state.
fn notify(table: &Table<'_>, report: &mut Report<'_>) -> Notify {
    let mut told = |key| table.get(key).and_then(|v| script(&v, report));
    Notify {
        master: told("notify_master"),
        backup: told("notify_backup"),
        fault: told("notify_fault"),
        stop: told("notify_stop"),
        any: told("notify"),
        smtp_alert: table.get("smtp_alert").and_then(|v| v.boolean(report)),
    }
}

/// The groups; `instances` are those that may be members. What they track may not count in a group.
pub(super) fn sync_groups(
    root: &Table<'_>,
    instances: &mut [VrrpInstance],
    scripts: &[VrrpScript],
    files: &[TrackFile],
    report: &mut Report<'_>,
) -> Vec<VrrpSyncGroup> {
    let mut groups = Vec::new();
    let (mut names, mut members) = (BTreeMap::new(), BTreeMap::new());
    let known = names_of(root, "vrrp_instance");
    let tracked = track::Known::of(root);
    let sections = root.sections("vrrp_sync_group", report);
    for (index, entry) in sections.into_iter().enumerate() {
        let place = entry.label("vrrp_sync_group", "name", index);
        let table = Table::new(entry, place, &SYNC_GROUP, report);
        let name = unique_name(&table, &mut names, "VG_1", report);
        let group = table.require("group", r#"group = ["VI_1", "VI_2"]"#, report);
        let mut group_members = Vec::new();
        for member in group.and_then(|v| v.list(report)).unwrap_or_default() {
            let Some(text) = member.text(report) else {
                continue;
            };
            if !known.contains(&text) {
                report.absent(
                    member.at,
                    &member.place,
                    format_args!("{text:?}"),
                    "the name of a [[vrrp_instance]]",
                    "add the instance, or correct the name",
                );
            }
            if let Some(first) = members.insert(text, member.at) {
                let expected = format!("each instance once, it is on {}", report.line(first));
                member.reject(expected, "remove one of them", report);
            }
            group_members.push(text.to_owned());
        }
        let owners = instances.iter().filter(|i| i.priority == u8::MAX);
        let owners = owners.filter(|i| group_members.contains(&i.name)).count();
        if owners != 0 && owners != group_members.len() {
            report.warning(
                table.at,
                &table.place,
                "some of its instances have priority 255 and some have not: they will not agree",
            );
        }
        let weights_count = table.get("sync_group_tracking_weight");
        let weights_count = weights_count.and_then(|v| v.boolean(report));
        if !weights_count.unwrap_or_else(|| report.dialect() == Dialect::Toml) {
            let is_member = |instance: &&mut VrrpInstance| group_members.contains(&instance.name);
            for instance in instances.iter_mut().filter(is_member) {
                let ignored = track::ignore_weights(&mut instance.tracks, scripts, files);
                for what in ignored {
                    let message = format!("{}: ignoring {what} due to SYNC group", instance.name);
                    report.warning(table.at, &table.place, message);
                }
            }
        }
        if let Some(name) = name {
            groups.push(VrrpSyncGroup {
                name: name.to_owned(),
                group: group_members,
                tracks: track::tracks(&table, &tracked, None, report),
                notify: notify(&table, report),
            });
        }
    }
    groups
}

/// Every name of a kind of section, also of one with mistakes in it.
fn names_of<'d>(root: &Table<'d>, section: &'static str) -> Vec<&'d str> {
    let names = sections_of(root, section);
    let names = names.filter_map(|section| section.get("name")?.get_ref().as_str());
    names.collect()
}

/// Every section of a kind that is an element of a list, as it is written.
fn sections_of<'d>(
    root: &Table<'d>,
    section: &'static str,
) -> impl Iterator<Item = &'d DeValue<'d>> {
    let sections = root.get(section).and_then(|v| v.raw.as_array());
    let sections = sections.into_iter().flat_map(|array| array.iter());
    sections.map(Spanned::get_ref)
}

fn unique_name<'d>(
    table: &Table<'d>,
    names: &mut BTreeMap<&'d str, usize>,
    example: &str,
    report: &mut Report<'_>,
) -> Option<&'d str> {
    let name = table.require("name", &format!("name = {example:?}"), report)?;
    let text = name.text(report)?;
    if let Some(first) = names.insert(text, name.at) {
        let expected = format!("another name, this one is on {}", report.line(first));
        name.reject(expected, "rename one of them", report);
    }
    Some(text)
}
