//! `use_vmac` and `vmac_xmit_base`.

use super::super::super::Vmac;
use super::super::super::raw::Table;
use super::super::super::report::Report;
use super::super::interface::is_interface_name;
use super::instance::flag;
use crate::vrrp::packet::Peer;

/// `use_vmac` is true, or the name of the interface; keepalived's name is `vrrp.51`, and `vrrp6.51` of IPv6.
pub(super) fn vmac(
    table: &Table<'_>,
    router: Option<u8>,
    is_v4: bool,
    peers: &[Peer],
    report: &mut Report<'_>,
) -> Option<Vmac> {
    let value = table.get("use_vmac");
    let base = table.get("vmac_xmit_base");
    let xmit_base = flag(table, "vmac_xmit_base", !peers.is_empty(), report);
    let Some(value) = value.filter(|value| value.raw.as_bool() != Some(false)) else {
        if let Some(base) = base.filter(|_| xmit_base) {
            report.warning(base.at, &base.place, "it says nothing without use_vmac");
        }
        return None;
    };
    if let Some(base) = base.filter(|_| !xmit_base && !peers.is_empty()) {
        base.reject("true, with unicast_peer", "remove it", report);
    }
    let name = match value.raw.as_str() {
        Some(name) if is_interface_name(name) => name.to_owned(),
        Some(_) => {
            let remedy = "write one of at most 15 bytes, or true";
            value.reject("the name of the new interface", remedy, report);
            return None;
        }
        None => {
            value.boolean(report)?;
            let family = if is_v4 { "" } else { "6" };
            format!("vrrp{family}.{}", router?)
        }
    };
    Some(Vmac { name, xmit_base })
}
