//! What instances and groups track: `[[track_file]]`, `[[vrrp_track_process]]`, and the lists that
//! name them, scripts and interfaces.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::super::super::raw::{Spec, Table, Value};
use super::super::super::report::Report;
use super::super::super::{
    InitFile, ParameterMatch, TrackFile, TrackProcess, Tracked, Tracks, VrrpScript,
};
use super::super::interface::is_interface_name;
use super::super::scripts::command;
use super::{WEIGHT, sections_of, unique_name, words};

pub(in super::super) static FILE: Spec = Spec {
    heading: "[[track_file]]",
    keys: &["name", "file", "weight", "init_file"],
    shared: &[],
    unsupported: &[],
};

pub(in super::super) static PROCESS: Spec = Spec {
    heading: "[[vrrp_track_process]]",
    keys: &[
        "name",
        "process",
        "param_match",
        "weight",
        "quorum",
        "quorum_max",
        "delay",
        "fork_delay",
        "terminate_delay",
        "full_command",
    ],
    shared: &[],
    unsupported: &[],
};

const FILE_WEIGHT: RangeInclusive<i64> = -(i32::MAX as i64)..=i32::MAX as i64;
const FILE_VALUE: RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;
/// The weight with which a file or process of the list counts; ±254 are keepalived's.
const WIDER: RangeInclusive<i64> = -254..=254;
const PROCESSES: RangeInclusive<i64> = 0..=65535;
const DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

pub(in super::super) fn files(root: &Table<'_>, report: &mut Report<'_>) -> Vec<TrackFile> {
    let mut files = Vec::new();
    let mut names = BTreeMap::new();
    let sections = root.sections("track_file", report);
    for (index, entry) in sections.into_iter().enumerate() {
        let place = entry.label("track_file", "name", index);
        let table = Table::new(entry, place, &FILE, report);
        let name = unique_name(&table, &mut names, "load", report);
        let file = table.require("file", r#"file = "/run/load""#, report);
        let file = file.and_then(|v| absolute(&v, report));
        let weight = own_weight(&table, &FILE_WEIGHT, report);
        let init_file = table.get("init_file").and_then(|v| init_file(&v, report));
        if let (Some(name), Some(file)) = (name, file) {
            files.push(TrackFile {
                name: name.to_owned(),
                file: file.into(),
                weight: weight.unwrap_or(1),
                init_file,
            });
        }
    }
    files
}

fn absolute<'d>(value: &Value<'d>, report: &mut Report<'_>) -> Option<&'d str> {
    let path = value.text(report)?;
    if !path.starts_with('/') {
        value.reject("a path from the root", "begin it with /", report);
        return None;
    }
    Some(path)
}

/// `true`, a number, or `"[NUMBER] [overwrite]"`.
fn init_file(value: &Value<'_>, report: &mut Report<'_>) -> Option<InitFile> {
    let mut init = InitFile {
        value: 0,
        overwrite: false,
    };
    if let Some(wanted) = value.raw.as_bool() {
        return wanted.then_some(init);
    }
    let Some(text) = value.raw.as_str() else {
        init.value = value.integer(&FILE_VALUE, report)?;
        return Some(init);
    };
    for word in text.split_whitespace() {
        match (word, word.parse()) {
            (_, Ok(number)) => init.value = number,
            ("overwrite", Err(_)) => init.overwrite = true,
            (_, Err(_)) => {
                let expected = "a number, and overwrite if an old one is to go";
                value.reject(expected, r#"write it so: "0 overwrite""#, report);
                return None;
            }
        }
    }
    Some(init)
}

pub(in super::super) fn processes(root: &Table<'_>, report: &mut Report<'_>) -> Vec<TrackProcess> {
    let mut processes = Vec::new();
    let mut names = BTreeMap::new();
    let sections = root.sections("vrrp_track_process", report);
    for (index, entry) in sections.into_iter().enumerate() {
        let place = entry.label("vrrp_track_process", "name", index);
        let table = Table::new(entry, place, &PROCESS, report);
        let name = unique_name(&table, &mut names, "nginx", report);
        let process = table.require("process", r#"process = "nginx""#, report);
        let process = process.and_then(|v| command(&v, report));
        let kinds = [
            ("initial", ParameterMatch::Initial),
            ("partial", ParameterMatch::Partial),
        ];
        let param_match = table.get("param_match");
        let param_match = param_match.and_then(|v| v.choice(&kinds, &[], report));
        let weight = own_weight(&table, &WIDER, report);
        let quorum = table.get("quorum");
        let quorum = quorum.and_then(|v| v.integer(&PROCESSES, report));
        let quorum_max = table.get("quorum_max");
        let quorum_max_at = quorum_max.clone();
        let quorum_max = quorum_max.and_then(|v| v.integer::<u32>(&PROCESSES, report));
        let mut delay = |key| table.get(key).and_then(|v| v.time(&DELAY, report));
        let both = delay("delay").unwrap_or_default();
        let fork_delay = delay("fork_delay").unwrap_or(both);
        let terminate_delay = delay("terminate_delay").unwrap_or(both);
        let full_command = table.get("full_command");
        let full_command = full_command.and_then(|v| v.boolean(report));
        // `quorum_max = 0`: none may run, so that none has to.
        let quorum = match (quorum, quorum_max) {
            (None, Some(0)) => 0,
            (quorum, _) => quorum.unwrap_or(1),
        };
        if let (Some(most), Some(value)) = (quorum_max, quorum_max_at)
            && most < quorum
        {
            value.reject(
                format_args!("at least the quorum, {quorum}"),
                "raise it",
                report,
            );
        }
        if let (Some(name), Some(process)) = (name, process) {
            processes.push(TrackProcess {
                name: name.to_owned(),
                process,
                param_match,
                weight: weight.unwrap_or(1),
                quorum,
                quorum_max,
                fork_delay,
                terminate_delay,
                full_command: full_command.unwrap_or(false),
            });
        }
    }
    processes
}

/// The weight of what is tracked: a number, or text such as `"-20 reverse"`, which [`Known`] remembers.
pub(super) fn own_weight<T: TryFrom<i64>>(
    table: &Table<'_>,
    range: &RangeInclusive<i64>,
    report: &mut Report<'_>,
) -> Option<T> {
    let value = table.get("weight")?;
    let Some(number) = reversed(value.raw) else {
        return value.integer(range, report);
    };
    let number = number.filter(|number| range.contains(number));
    let weight = number.and_then(|number| T::try_from(number).ok());
    if weight.is_none() {
        let expected = format!("{} to {} before reverse", range.start(), range.end());
        value.reject(expected, "correct the number", report);
    }
    weight
}

/// The number before `reverse`, if that is there.
fn reversed(weight: &DeValue<'_>) -> Option<Option<i64>> {
    let number = weight.as_str()?.strip_suffix(" reverse")?;
    Some(number.trim().parse().ok())
}

/// What may be tracked: the names, and the weights of those that count reversed.
pub(super) struct Known<'d> {
    scripts: BTreeMap<&'d str, Option<i64>>,
    files: BTreeMap<&'d str, Option<i64>>,
    processes: BTreeMap<&'d str, Option<i64>>,
}

impl<'d> Known<'d> {
    pub(super) fn of(root: &Table<'d>) -> Self {
        let of = |section| {
            let sections = sections_of(root, section).filter_map(|section| {
                let name = section.get("name")?.get_ref().as_str()?;
                let weight = section.get("weight");
                let reversed = weight.and_then(|weight| reversed(weight.get_ref()));
                Some((name, reversed.flatten()))
            });
            sections.collect()
        };
        Self {
            scripts: of("vrrp_script"),
            files: of("track_file"),
            processes: of("vrrp_track_process"),
        }
    }
}

/// What an instance on the interface `own` tracks, or a group.
pub(super) fn tracks(
    table: &Table<'_>,
    known: &Known<'_>,
    own: Option<&str>,
    report: &mut Report<'_>,
) -> Tracks {
    let mut named =
        |key, section, known, weight| track_named(table, key, section, known, weight, report);
    let script = named("track_script", "vrrp_script", &known.scripts, &WEIGHT);
    let file = named("track_file", "track_file", &known.files, &WIDER);
    let process = named(
        "track_process",
        "vrrp_track_process",
        &known.processes,
        &WIDER,
    );
    Tracks {
        script,
        interface: track_interface(table, own, report),
        file,
        process,
    }
}

fn track_named(
    table: &Table<'_>,
    key: &'static str,
    section: &str,
    known: &BTreeMap<&str, Option<i64>>,
    weights: &RangeInclusive<i64>,
    report: &mut Report<'_>,
) -> Vec<Tracked> {
    let mut all: Vec<Tracked> = Vec::new();
    let list = table.get(key).and_then(|v| v.list(report));
    for element in list.unwrap_or_default() {
        // A name may have spaces in it, so a name as a whole comes first.
        let text = element.raw.as_str().unwrap_or_default();
        let whole = known.contains_key(text).then_some(text);
        let tracked = match whole {
            Some(name) => Some(Tracked {
                name: name.to_owned(),
                weight: None,
                reverse: false,
            }),
            None => words::tracked(&element, weights, report),
        };
        let Some(mut tracked) = tracked else {
            continue;
        };
        match known.get(tracked.name.as_str()) {
            Some(Some(weight)) if tracked.weight.is_none() => {
                tracked.weight = i16::try_from(*weight).ok();
                tracked.reverse = true;
                if !tracked
                    .weight
                    .is_some_and(|weight| weights.contains(&weight.into()))
                {
                    let expected = format!("a weight of {} to {}", weights.start(), weights.end());
                    element.reject(expected, "write it after the name", report);
                }
            }
            // Unless it says noreverse.
            Some(Some(_)) if !text.ends_with("reverse") => tracked.reverse = true,
            Some(_) => {}
            None => {
                let what = format_args!("the name of a [[{section}]]").to_string();
                let kind = section.rsplit('_').next().unwrap_or(section);
                report.absent(
                    element.at,
                    &element.place,
                    format_args!("{:?}", tracked.name),
                    what,
                    format_args!("add the {kind}, or correct the name"),
                );
            }
        }
        push_new(&mut all, tracked, &element, report);
    }
    all
}

/// As in keepalived, the first one of each name counts.
fn push_new(all: &mut Vec<Tracked>, tracked: Tracked, at: &Value<'_>, report: &mut Report<'_>) {
    if all.iter().any(|known| known.name == tracked.name) {
        let message = format!("{} again: ignoring it", tracked.name);
        report.warning(at.at, &at.place, message);
    } else {
        all.push(tracked);
    }
}

/// Takes away what moves one member of a sync group and not the others: weighted scripts and files go,
/// interfaces and files of weight 1, the default, become faults. keepalived's `vrrp_complete_instance`
/// does so, and leaves processes as they are. Returns what was taken away.
pub(super) fn ignore_weights(
    tracks: &mut Tracks,
    scripts: &[VrrpScript],
    files: &[TrackFile],
) -> Vec<String> {
    let mut ignored = Vec::new();
    for tracked in &mut tracks.interface {
        if tracked.weight.is_some_and(|weight| weight != 0) {
            ignored.push(format!("{} tracked interface weight", tracked.name));
            tracked.weight = Some(0);
        }
    }
    tracks.script.retain(|tracked| {
        let script = scripts.iter().find(|script| script.name == tracked.name);
        let own = script.map_or(0, |script| script.weight);
        let is_kept = tracked.weight.unwrap_or(own) == 0;
        if !is_kept {
            ignored.push(format!("tracked script {} with weights", tracked.name));
        }
        is_kept
    });
    tracks.file.retain_mut(|tracked| {
        let file = files.iter().find(|file| file.name == tracked.name);
        let own = file.map_or(1, |file| file.weight);
        match tracked.weight.map_or(own, i32::from) {
            0 => return true,
            1 => {
                ignored.push(format!("weight from tracked file {}", tracked.name));
                tracked.weight = Some(0);
                return true;
            }
            weight => {
                let name = &tracked.name;
                ignored.push(format!("tracked file {name} with weight {weight}"));
            }
        }
        false
    });
    ignored
}

fn track_interface(table: &Table<'_>, own: Option<&str>, report: &mut Report<'_>) -> Vec<Tracked> {
    let mut all = Vec::new();
    let list = table.get("track_interface").and_then(|v| v.list(report));
    for element in list.unwrap_or_default() {
        let Some(tracked) = words::tracked(&element, &WEIGHT, report) else {
            continue;
        };
        if !is_interface_name(&tracked.name) {
            let remedy = r#"write one, such as "eth1" or "eth1 weight -20""#;
            element.reject("the name of an interface", remedy, report);
        }
        if own == Some(tracked.name.as_str()) {
            let message = format!("ignoring {}: it is the instance's own", tracked.name);
            report.warning(element.at, &element.place, message);
        } else {
            push_new(&mut all, tracked, &element, report);
        }
    }
    all
}
