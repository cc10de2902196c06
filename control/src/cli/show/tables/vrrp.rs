//! `show vrrp`.

use std::io::{self, Write};

use super::NONE;
use crate::api::view::{TimerSlip, Vrrp, VrrpInstance};
use crate::cli::table::Align::{Left, Right};
use crate::cli::table::Table;

/// One line an instance, then what was refused and how late the timers ran.
pub(in super::super) fn vrrp(out: &mut dyn Write, vrrp: &Vrrp) -> io::Result<()> {
    let Vrrp {
        instances,
        refused,
        timer_slip,
    } = vrrp;
    if instances.is_empty() {
        return writeln!(out, "no vrrp_instance");
    }
    let mut table = Table::new([
        ("Instance", Left),
        ("State", Left),
        ("For", Right),
        ("Priority", Right),
        ("Interface", Left),
        ("Router", Right),
        ("Master", Left),
        ("Sent", Right),
        ("Received", Right),
        ("Refused", Right),
        ("Late", Right),
        ("Addresses", Left),
    ]);
    for instance in instances {
        let refused = instance.refused.iter().map(|refused| refused.total);
        table.push([
            instance.name.clone(),
            instance.state.to_string(),
            format!("{} s", instance.since_seconds),
            priority(instance),
            instance.interface.clone(),
            format!("v{} {}", instance.version, instance.virtual_router_id),
            master(instance),
            instance.adverts_sent_total.to_string(),
            instance.adverts_received_total.to_string(),
            refused.sum::<u64>().to_string(),
            instance.late_adverts_total.to_string(),
            instance.addresses.join(" "),
        ]);
    }
    table.write(out)?;
    let of_instances = instances.iter().flat_map(|instance| {
        let named = instance.refused.iter();
        named.map(move |refused| (instance.name.as_str(), refused))
    });
    let of_none = refused.iter().map(|refused| ("no instance", refused));
    for (name, refused) in of_instances.chain(of_none) {
        let last = refused
            .last
            .map_or_else(|| NONE.to_owned(), |last| last.to_string());
        writeln!(
            out,
            "refused: {name}: {} × {}, last of {last}",
            refused.total, refused.reason
        )?;
    }
    for instance in instances {
        for fault in &instance.faults {
            writeln!(out, "fault: {}: {fault}", instance.name)?;
        }
    }
    let TimerSlip {
        timers_total,
        p50_microseconds,
        p99_microseconds,
        max_microseconds,
        sum_microseconds: _,
        buckets: _,
    } = timer_slip;
    writeln!(
        out,
        "timers late by: median {p50_microseconds} µs, 99 % within {p99_microseconds} µs, \
         all {timers_total} within {max_microseconds} µs"
    )
}

fn priority(instance: &VrrpInstance) -> String {
    if instance.priority == instance.configured_priority {
        instance.priority.to_string()
    } else {
        format!("{} of {}", instance.priority, instance.configured_priority)
    }
}

fn master(instance: &VrrpInstance) -> String {
    match (instance.master, instance.master_priority) {
        (Some(address), Some(priority)) => format!("{address} ({priority})"),
        _ => NONE.to_owned(),
    }
}
