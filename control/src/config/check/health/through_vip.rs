//! `through_vip`: what it needs, and what it has no use for.

use dataplane::service::ForwardingMethod;

use super::super::super::raw::Table;
use super::super::super::report::Report;
use super::Served;
use crate::config::CheckKind;

/// Whether the check goes to the virtual server's address.
pub(super) fn through_vip(
    table: &Table<'_>,
    kind: Option<&CheckKind>,
    served: &Served,
    report: &mut Report<'_>,
) -> bool {
    let Some(written) = table.get_if_known("through_vip") else {
        return false;
    };
    if written.boolean(report) != Some(true) {
        return false;
    }
    match kind {
        Some(
            CheckKind::TcpCheck
            | CheckKind::HttpGet(_)
            | CheckKind::SmtpCheck { .. }
            | CheckKind::UdpCheck(_)
            | CheckKind::DnsCheck(_),
        )
        | None => {}
        Some(CheckKind::PingCheck | CheckKind::MiscCheck(_) | CheckKind::FileCheck(_)) => {
            let expected =
                "it in TCP_CHECK, HTTP_GET, SSL_GET, SMTP_CHECK, UDP_CHECK and DNS_CHECK only";
            written.reject(expected, "remove it, or use one of those", report);
            return false;
        }
    }
    match served.lb_kind {
        Some(ForwardingMethod::Direct | ForwardingMethod::Tunnel(_)) | None => {}
        Some(ForwardingMethod::Nat | ForwardingMethod::FullNat) => {
            written.reject(
                "it with lb_kind DR or TUN only",
                "remove it: packets of clients reach this server at its own address, as every check does",
                report,
            );
            return false;
        }
    }
    if served.is_group && table.get("connect_ip").is_none() {
        let example = "connect_ip = \"192.168.1.100\", an address of the virtual server";
        table.report_absent("connect_ip", example, report);
    }
    for key in ["bind_port", "bind_if", "fwmark"] {
        if let Some(value) = table.get_if_known(key) {
            value.reject(
                "no such thing beside through_vip, which takes the way of clients' packets",
                "remove it",
                report,
            );
        }
    }
    true
}
