//! Whether a new connection is taken, before a real server is chosen for it: the SYN proxy and limits, in
//! the order in which a packet meets them (`dataplane/src/director/flows.rs`).

use dataplane::limits::{Limits, RefusedBy, SourceLimits, SourceRefusal, SynProxy};
use dataplane::service::{Address, Protocol, TcpMidstream};
use dataplane::snapshot::{Service, Snapshot};

use super::{Known, Question};
use crate::api::view::Explanation;

/// What a SYN does, and what any other packet of no connection.
pub(super) fn opens(
    answer: &mut Explanation,
    question: &Question,
    service: &Service,
    snapshot: &Snapshot,
    known: &Known,
) {
    if question.protocol != Protocol::Tcp {
        return;
    }
    let midstream = match snapshot.tcp_midstream {
        TcpMidstream::Reset => "answered with a reset",
        TcpMidstream::Drop => "dropped (tcp_midstream)",
        TcpMidstream::Schedule => "scheduled like a SYN (tcp_midstream)",
    };
    let proxied = "answered by the director itself and opens no connection (syn_proxy): the client's ACK to that \
                   answer opens one, and goes to the real server as a SYN";
    let others = format!("any other packet would be {midstream}");
    let line = match (service.syn_proxy, known.totals) {
        (None, _) => format!("a SYN opens one; {others}"),
        (Some(SynProxy::Always), _) => format!("a SYN is {proxied}; {others}"),
        (Some(SynProxy::UnderAttack { half_open: most }), None) => format!(
            "a SYN opens one; but from {most} half-open connections on it is {proxied}; {others}"
        ),
        (Some(SynProxy::UnderAttack { half_open: most }), Some(totals)) => {
            let half_open = totals.half_open;
            let least = if totals.under_attack { most / 2 } else { most };
            if half_open >= least {
                format!(
                    "there are {half_open} half-open connections, so that a SYN is {proxied}; {others}"
                )
            } else {
                format!(
                    "a SYN opens one, for there are {half_open} half-open connections and the SYN proxy begins \
                     at {least}; {others}"
                )
            }
        }
    };
    answer.why.push(line);
}

/// Says what limits leave of a new connection; true if they allow none now.
pub(super) fn refuses(
    answer: &mut Explanation,
    client: Address,
    service: &Service,
    snapshot: &Snapshot,
    known: &Known,
) -> bool {
    let limits = &service.limits;
    if *limits == Limits::default() {
        return false;
    }
    let Some(totals) = known.totals else {
        answer.why.push(format!(
            "limits apply, and how much of them is used up only a running appliance knows: {}",
            in_words(limits)
        ));
        return false;
    };
    let refused = refused_by(limits, totals.connections, client, service, snapshot, known);
    answer.why.push(match refused {
        Some(by) => format!(
            "limits allow no new connection now ({}): the packet is dropped as {}",
            used_up(by, limits, totals.connections),
            by.reason().name()
        ),
        None => format!("limits allow a new connection now: {}", in_words(limits)),
    });
    refused.is_some()
}

/// As `Flows::admitted` of the data plane, but that nothing is counted.
fn refused_by(
    limits: &Limits,
    connections: u32,
    client: Address,
    service: &Service,
    snapshot: &Snapshot,
    known: &Known,
) -> Option<RefusedBy> {
    if limits
        .max_connections
        .is_some_and(|most| connections >= most)
    {
        return Some(RefusedBy::Connections);
    }
    let of_source = limits.source.and_then(|source| {
        let key = source.key(service.id, client);
        snapshot.sources.refuses(&key, &source, known.now)
    });
    match of_source {
        Some(SourceRefusal::Connections) => return Some(RefusedBy::SourceConnections),
        Some(SourceRefusal::Rate) => return Some(RefusedBy::SourceRate),
        None => {}
    }
    let rate = limits.rate.as_ref();
    let is_empty = rate.is_some_and(|rate| service.bucket.is_empty(rate, known.now));
    is_empty.then_some(RefusedBy::Rate)
}

fn used_up(by: RefusedBy, limits: &Limits, connections: u32) -> String {
    match by {
        RefusedBy::Connections => format!(
            "the virtual server has {connections} connections, and max_connections is {}",
            limits.max_connections.unwrap_or_default()
        ),
        RefusedBy::Rate => "more were begun than the virtual server's rate allows".to_owned(),
        RefusedBy::SourceConnections => "the client's source has as many as it may".to_owned(),
        RefusedBy::SourceRate => "the client's source began more than its rate allows".to_owned(),
    }
}

/// By their names in the configuration.
fn in_words(limits: &Limits) -> String {
    let Limits {
        max_connections,
        rate,
        source,
    } = limits;
    let rate_of = |rate: dataplane::limits::Rate| rate.per_second;
    let (of_source, source_rate) = match source {
        Some(SourceLimits {
            max_connections,
            rate,
            granularity: _,
        }) => (*max_connections, rate.map(rate_of)),
        None => (None, None),
    };
    let words = [
        ("max_connections", *max_connections),
        ("new_connections_per_second", rate.map(rate_of)),
        ("source_max_connections", of_source),
        ("source_new_connections_per_second", source_rate),
    ];
    let words = words.into_iter().filter_map(|(name, most)| {
        let most = most?;
        Some(format!("{name} {most}"))
    });
    words.collect::<Vec<_>>().join(", ")
}
