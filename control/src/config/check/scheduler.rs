//! `lb_algo` and the flags of schedulers.

use dataplane::service::{HashFlags, SchedulerKind};

use super::super::raw::Table;
use super::super::report::Report;

/// Keys of `[[virtual_server]]` that are read here.
const FLAGS: [&str; 4] = ["sh-port", "sh-fallback", "mh-port", "mh-fallback"];

/// The scheduler with its flags; `wlc` if none is written, as in keepalived.
pub(super) fn scheduler(table: &Table<'_>, report: &mut Report<'_>) -> SchedulerKind {
    let written = table.get_alias(&["lb_algo", "lvs_sched"], report);
    let chosen = written.and_then(|v| v.choice(&SchedulerKind::NAMES, &[], report));
    let kind = chosen.unwrap_or(SchedulerKind::WeightedLeastConnection);
    let [sh_port, sh_fallback, mh_port, mh_fallback] = FLAGS.map(|name| {
        let value = table.get(name)?;
        let set = value.boolean(report)?;
        let algorithm = &name[..2];
        if set && kind.to_string() != algorithm {
            let message =
                format!("it has no effect: the scheduler is {kind}, not {algorithm}; remove it");
            report.warning(value.at, &value.place, message);
        }
        Some(set)
    });
    let flags = |port: Option<bool>, fallback: Option<bool>| HashFlags {
        port: port.unwrap_or(false),
        fallback: fallback.unwrap_or(false),
    };
    kind.with_flags(flags(sh_port, sh_fallback), flags(mh_port, mh_fallback))
}
