//! The keys of `[global_defs]` about being told of changes.

use std::path::Path;

use super::super::raw::{Table, Value};
use super::super::report::Report;
use super::super::{Fifo, Notifications};
use super::scripts::script;
use crate::scripts::ScriptUser;

/// The keys of each FIFO: its own, and that of the script that reads it.
const FIFOS: [(&str, &str); 3] = [
    ("notify_fifo", "notify_fifo_script"),
    ("vrrp_notify_fifo", "vrrp_notify_fifo_script"),
    ("lvs_notify_fifo", "lvs_notify_fifo_script"),
];

pub(super) fn notifications(table: &Table<'_>, report: &mut Report<'_>) -> Notifications {
    let mut seen = Vec::new();
    let [fifo, vrrp_fifo, lvs_fifo] = FIFOS.map(|keys| {
        let known = fifo(table, keys, report)?;
        let (value, fifo) = known;
        if seen.contains(&fifo.path) {
            value.reject(
                "another path than that of the other FIFOs",
                "choose another, or use notify_fifo for both",
                report,
            );
        }
        seen.push(fifo.path.clone());
        Some(fifo)
    });
    Notifications {
        fifo,
        vrrp_fifo,
        lvs_fifo,
    }
}

fn fifo<'d>(
    table: &Table<'d>,
    (key, script_key): (&'static str, &'static str),
    report: &mut Report<'_>,
) -> Option<(Value<'d>, Fifo)> {
    let reader = table.get(script_key);
    let script = reader.as_ref().and_then(|value| script(value, report));
    let Some(value) = table.get(key) else {
        if let Some(reader) = reader {
            report.error(
                reader.at,
                &table.place,
                format_args!("{script_key} without {key}"),
                "both or neither",
                format_args!("add {key} = \"/run/appliance/notify.fifo\""),
            );
        }
        return None;
    };
    let text = value.text(report)?;
    let mut words = text.split_whitespace();
    let (path, user, group, more) = (words.next(), words.next(), words.next(), words.next());
    let path = path.map(Path::new).filter(|path| path.is_absolute());
    let Some(path) = path.filter(|path| path.file_name().is_some() && more.is_none()) else {
        value.reject(
            "an absolute path, perhaps a user and a group",
            r#"write them so: "/run/appliance/notify.fifo" or "/run/appliance/notify.fifo USER GROUP""#,
            report,
        );
        return None;
    };
    let owner = user.map(|user| ScriptUser {
        user: user.to_owned(),
        group: group.map(str::to_owned),
    });
    let path = path.to_owned();
    Some((
        value,
        Fifo {
            path,
            owner,
            script,
        },
    ))
}
