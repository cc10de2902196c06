//! `syn_proxy` and its threshold.

use std::ops::RangeInclusive;

use dataplane::limits::SynProxy;
use dataplane::service::{ClientAddress, ForwardingMethod, Protocol};

use super::super::RealServer;
use super::super::raw::{Table, Value};
use super::super::report::Report;

const HALF_OPEN: RangeInclusive<i64> = 1..=1 << 27;
/// Linux's `tcp_max_syn_backlog` on hosts with some memory.
const DEFAULT_HALF_OPEN: u32 = 1024;

/// `servers` are all that the virtual server has.
pub(super) fn syn_proxy<'a>(
    table: &Table<'_>,
    protocol: Option<Protocol>,
    client_address: ClientAddress,
    servers: impl Iterator<Item = &'a RealServer>,
    report: &mut Report<'_>,
) -> Option<SynProxy> {
    let threshold = table.get("syn_proxy_threshold");
    let half_open = threshold
        .as_ref()
        .map(|value| value.integer(&HALF_OPEN, report));
    let written = table.get("syn_proxy");
    let known = [
        ("off", None),
        ("always", Some(SynProxy::Always)),
        ("under-attack", Some(SynProxy::UnderAttack { half_open: 0 })),
    ];
    let chosen = match &written {
        Some(value) => value.choice(&known, &[], report)?,
        None => None,
    };
    if let Some(value) = &threshold
        && !matches!(chosen, Some(SynProxy::UnderAttack { .. }))
    {
        value.reject(
            r#"it with syn_proxy = "under-attack" only"#,
            "write that, or remove this",
            report,
        );
    }
    let (value, chosen) = (written?, chosen?);
    fits(&value, protocol, servers, report);
    if client_address == ClientAddress::Proxy {
        value.reject(
            r#"it without client_address = "proxy": a server that speaks first would wait for the header, and its client for the server"#,
            r#"remove one, or write client_address = "toa""#,
            report,
        );
    }
    Some(match chosen {
        SynProxy::Always => SynProxy::Always,
        SynProxy::UnderAttack { .. } => SynProxy::UnderAttack {
            half_open: half_open.unwrap_or(Some(DEFAULT_HALF_OPEN))?,
        },
    })
}

/// The director answers in the real server's place, which is why that one's packets have to pass.
fn fits<'a>(
    value: &Value<'_>,
    protocol: Option<Protocol>,
    mut servers: impl Iterator<Item = &'a RealServer>,
    report: &mut Report<'_>,
) {
    if protocol.is_some_and(|protocol| protocol != Protocol::Tcp) {
        value.reject(
            "it for TCP only: no other protocol begins with a SYN",
            "remove it",
            report,
        );
    }
    let passes_by = |server: &&RealServer| !server.lb_kind.rewrites_replies();
    if let Some(RealServer {
        address, lb_kind, ..
    }) = servers.find(passes_by)
    {
        let nat = ForwardingMethod::Nat;
        value.reject(
            format_args!(
                "real servers with {nat} or {} only: the way back of {address} ({lb_kind}) does not pass the \
                 director, which has to change the sequence numbers of both directions",
                ForwardingMethod::FullNat
            ),
            "change lb_kind, or remove syn_proxy",
            report,
        );
    }
}
