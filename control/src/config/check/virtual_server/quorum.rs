//! `quorum`, what belongs to it, and `sorry_server`.

use std::ops::RangeInclusive;

use dataplane::service::{ForwardingMethod, Thresholds};

use super::super::super::raw::{Table, Value};
use super::super::super::report::{Dialect, Report};
use super::super::super::{Quorum, RealServer};
use super::super::scripts::script;
use super::{DEFAULT_WEIGHT, Defaults, fits_method, socket_address};

/// The weight of 65536 real servers fits.
const QUORUM: RangeInclusive<i64> = 1..=4_294_901_760;
const HYSTERESIS: RangeInclusive<i64> = 0..=4_294_901_760;

pub(super) fn quorum(
    table: &Table<'_>,
    defaults: &Defaults,
    real_servers: &[RealServer],
    report: &mut Report<'_>,
) -> Quorum {
    let (quorum, hysteresis) = needed(table, real_servers, report);
    let mut notify = |key| table.get(key).and_then(|v| script(&v, report));
    let (up, down) = (notify("quorum_up"), notify("quorum_down"));
    Quorum {
        quorum,
        hysteresis,
        up,
        down,
        sorry_server: sorry_server(table, defaults, real_servers, report),
    }
}

/// The quorum and its hysteresis. With more than the real servers weigh together
/// the sorry server would have everything for ever: keepalived lowers it, too.
fn needed(table: &Table<'_>, real_servers: &[RealServer], report: &mut Report<'_>) -> (u32, u32) {
    let quorum_value = table.get("quorum");
    let quorum = quorum_value.as_ref();
    let quorum = quorum.and_then(|v| v.integer(&QUORUM, report));
    let written: u32 = quorum.unwrap_or(1);
    let hysteresis_value = table.get("hysteresis");
    let hysteresis = hysteresis_value.as_ref();
    let hysteresis = hysteresis.and_then(|v| v.integer(&HYSTERESIS, report));
    let hysteresis: u32 = hysteresis.unwrap_or(0);
    if let (Some(value), Dialect::Toml) = (&hysteresis_value, report.dialect())
        && hysteresis >= written
    {
        value.reject(
            format_args!("less than the quorum, {written}"),
            "lower it, or raise quorum",
            report,
        );
        return (written, 0);
    }
    if real_servers.is_empty() {
        return (written, hysteresis.min(written - 1));
    }
    let all: u32 = real_servers.iter().map(|server| server.weight).sum();
    // Servers that all have weight 0 are drained: they have no quorum.
    let quorum = written.min(all.max(1));
    let reduced = hysteresis.min(quorum - 1);
    if let (Some(value), true) = (&quorum_value, quorum < written) {
        let message = format!(
            "the real servers' weights add up to {all}: as in keepalived the quorum is {quorum}, not {written}"
        );
        report.warning(value.at, &value.place, message);
    }
    let Some(value) = hysteresis_value else {
        return (quorum, 0);
    };
    let gained = quorum.saturating_add(reduced);
    if reduced < hysteresis {
        let message = format!(
            "the quorum is {quorum}: as in keepalived the hysteresis is {reduced}, not {hysteresis}"
        );
        report.warning(value.at, &value.place, message);
    }
    if all < gained {
        let message = format!(
            "the real servers' weights add up to {all}: a quorum of {gained} is never reached"
        );
        report.warning(value.at, &value.place, message);
    }
    (quorum, reduced)
}

fn sorry_server(
    table: &Table<'_>,
    defaults: &Defaults,
    real_servers: &[RealServer],
    report: &mut Report<'_>,
) -> Option<RealServer> {
    let inhibit = table.get("sorry_server_inhibit");
    let method = table.get("sorry_server_lvs_method");
    let Some(written) = table.get("sorry_server") else {
        for value in [inhibit, method].into_iter().flatten() {
            value.reject(
                "it beside sorry_server only",
                "add sorry_server, or remove it",
                report,
            );
        }
        return None;
    };
    let inhibit = inhibit.and_then(|v| v.boolean(report));
    let lb_kind = lb_kind(method.as_ref(), defaults, report);
    let address = socket_address(&written, defaults.is_every_port(), report)?;
    if real_servers.iter().any(|server| server.address == address) {
        written.reject(
            "an address that is none of the real servers'",
            "use another server, or another port of it",
            report,
        );
    }
    let (service, lb_kind) = (defaults.service?, lb_kind?);
    fits_method(
        &written,
        address,
        service,
        &defaults.matches,
        lb_kind,
        report,
    );
    Some(RealServer {
        address,
        lb_kind,
        weight: DEFAULT_WEIGHT,
        inhibit_on_failure: inhibit.unwrap_or(false),
        thresholds: Thresholds::default(),
        checks: Vec::new(),
        passive: None,
        notify_up: None,
        notify_down: None,
        smtp_alert: None,
    })
}

/// `sorry_server_lvs_method`; a tunnel is of the virtual server's type.
fn lb_kind(
    written: Option<&Value<'_>>,
    defaults: &Defaults,
    report: &mut Report<'_>,
) -> Option<ForwardingMethod> {
    let Some(value) = written else {
        return defaults.lb_kind;
    };
    let method = value.choice(&ForwardingMethod::NAMES, &[], report)?;
    match (method, defaults.lb_kind) {
        (ForwardingMethod::Tunnel(_), Some(tunnel @ ForwardingMethod::Tunnel(_))) => Some(tunnel),
        (method, _) => Some(method),
    }
}
