//! The keys of `[global_defs]` that begin with `vrrp_`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::super::VrrpDefaults;
use super::super::super::raw::Table;
use super::super::super::report::Report;
use crate::vrrp::machine::Garp;
use crate::vrrp::packet::Version;

pub(super) const DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86400);
pub(super) const REPEAT: RangeInclusive<i64> = 0..=1000;
const GARP_INTERVAL: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1);

/// What instances have unless they say otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Defaults {
    pub(in super::super) vrrp: VrrpDefaults,
    pub(super) version: Option<Version>,
    pub(super) garp: Garp,
    pub(super) lower_prio_no_advert: bool,
    pub(super) higher_prio_send_advert: bool,
    pub(super) notify_priority_changes: bool,
    pub(super) strict: bool,
}

pub(in super::super) fn defaults(table: &Table<'_>, report: &mut Report<'_>) -> Defaults {
    let mut time = |key, range, default| {
        let value = table.get(key).and_then(|v| v.time(range, report));
        value.unwrap_or(default)
    };
    let vrrp = VrrpDefaults::default();
    let startup_delay = time("vrrp_startup_delay", &DELAY, vrrp.startup_delay);
    let garp_interval = time("vrrp_garp_interval", &GARP_INTERVAL, vrrp.garp_interval);
    let standard = Garp::default();
    let master_delay = time("vrrp_garp_master_delay", &DELAY, standard.master_delay);
    let master_refresh = time("vrrp_garp_master_refresh", &DELAY, standard.master_refresh);
    let lower_prio_delay = time("vrrp_garp_lower_prio_delay", &DELAY, master_delay);
    let master_repeat = at_least_one(table, "vrrp_garp_master_repeat", report);
    let master_repeat = master_repeat.unwrap_or(standard.master_repeat);
    let refresh_repeat = at_least_one(table, "vrrp_garp_master_refresh_repeat", report);
    let master_refresh_repeat = refresh_repeat.unwrap_or(standard.master_refresh_repeat);
    let lower_prio_repeat = table.get("vrrp_garp_lower_prio_repeat");
    let lower_prio_repeat = lower_prio_repeat.and_then(|v| v.integer(&REPEAT, report));
    let lower_prio_repeat = lower_prio_repeat.unwrap_or(master_repeat);
    let version = table.get("vrrp_version");
    let mut flag = |key| {
        let value = table.get(key).and_then(|v| v.boolean(report));
        value.unwrap_or(false)
    };
    Defaults {
        vrrp: VrrpDefaults {
            startup_delay,
            garp_interval,
        },
        garp: Garp {
            master_delay,
            master_repeat,
            master_refresh,
            master_refresh_repeat,
            lower_prio_delay,
            lower_prio_repeat,
        },
        lower_prio_no_advert: flag("vrrp_lower_prio_no_advert"),
        higher_prio_send_advert: flag("vrrp_higher_prio_send_advert"),
        notify_priority_changes: flag("vrrp_notify_priority_changes"),
        strict: flag("vrrp_strict"),
        version: version.and_then(|v| super::instance::version(&v, report)),
    }
}

/// A number of announcements. Without any, neighbours would go on sending to the last master.
pub(super) fn at_least_one(
    table: &Table<'_>,
    key: &'static str,
    report: &mut Report<'_>,
) -> Option<u32> {
    let value = table.get(key)?;
    let count: u32 = value.integer(&REPEAT, report)?;
    if count == 0 {
        let message = "must be greater than 0, setting to 1";
        report.warning(value.at, &value.place, message);
    }
    Some(count.max(1))
}
