//! Virtual servers, and what belongs to them.

use std::net::SocketAddr;

use control::config::{Quorum, RealServer, VirtualServer};
use dataplane::limits::{Limits, Rate, SourceLimits, SynProxy};
use dataplane::matching::Match;
use dataplane::persistence::Persistence;
use dataplane::service::{
    ClientAddress, ForwardingMethod, FullNat, HashFlags, Protocol, SchedulerKind, ServiceKey,
    ServiceOptions, Tunnel,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::health::{quorum, real_server};
use super::notifications::alert;
use super::{host, time};

pub(super) fn method() -> impl Strategy<Value = ForwardingMethod> {
    let tunnels = [Tunnel::Ipip, Tunnel::Gre, Tunnel::Gue { port: 6080 }];
    let mut methods = vec![
        ForwardingMethod::Direct,
        ForwardingMethod::Nat,
        ForwardingMethod::FullNat,
    ];
    methods.extend(tunnels.map(ForwardingMethod::Tunnel));
    select(methods)
}

fn virtual_server() -> impl Strategy<Value = VirtualServer> {
    let key = (
        any::<bool>(),
        1_u32..1 << 20,
        1_u16..,
        select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]),
        method(),
    );
    key.prop_flat_map(|(is_v4, number, port, protocol, lb_kind)| {
        // Above every virtual server's number: none is its own real server.
        let hosts = btree_set((1_u32 << 20)..1 << 21, 0..4);
        let is_tcp = protocol == Protocol::Tcp;
        let real_servers = hosts.prop_flat_map(move |hosts| {
            let server = |host_number| {
                real_server(
                    SocketAddr::new(host(is_v4, host_number), port),
                    lb_kind,
                    is_tcp,
                )
            };
            hosts.into_iter().map(server).collect::<Vec<_>>()
        });
        let schedulers = SchedulerKind::NAMES.map(|(_, kind)| kind).to_vec();
        let flags = (any::<bool>(), any::<bool>())
            .prop_map(|(port, fallback)| HashFlags { port, fallback });
        let scheduler = (select(schedulers), flags.clone(), flags)
            .prop_map(|(kind, sh, mh)| kind.with_flags(sh, mh));
        let sorry = SocketAddr::new(host(is_v4, 1 << 21), port);
        (
            real_servers,
            scheduler,
            quorum(sorry, lb_kind),
            (any::<bool>(), alert()),
            options(is_v4, protocol),
        )
            .prop_map(
                move |(real_servers, scheduler, mut quorum, (omega, smtp_alert), mut options)| {
                    reduce(&mut quorum, &real_servers);
                    let servers = real_servers.iter().chain(&quorum.sorry_server);
                    let fits = is_tcp
                        && options.full_nat.client_address != ClientAddress::Proxy
                        && servers
                            .clone()
                            .all(|server| server.lb_kind.rewrites_replies());
                    options.syn_proxy = options.syn_proxy.filter(|_| fits);
                    let mut methods = servers.map(|server| server.lb_kind).chain([lb_kind]);
                    let options = if methods.any(|method| method == ForwardingMethod::FullNat) {
                        ServiceOptions {
                            one_packet: false,
                            ..options
                        }
                    } else {
                        ServiceOptions {
                            full_nat: FullNat::default(),
                            ..options
                        }
                    };
                    VirtualServer {
                        key: ServiceKey {
                            address: host(is_v4, number).into(),
                            port,
                            protocol,
                        },
                        scheduler,
                        lb_kind,
                        options,
                        real_servers,
                        quorum,
                        omega,
                        smtp_alert,
                    }
                },
            )
    })
}

/// To what the real servers weigh.
fn reduce(quorum: &mut Quorum, real_servers: &[RealServer]) {
    let all: u32 = real_servers.iter().map(|server| server.weight).sum();
    if !real_servers.is_empty() {
        quorum.quorum = quorum.quorum.min(all.max(1));
        quorum.hysteresis = quorum.hysteresis.min(quorum.quorum - 1);
    }
}

fn full_nat(is_v4: bool, protocol: Protocol) -> impl Strategy<Value = FullNat> {
    let addresses = btree_set((1_u32 << 22)..1 << 23, 1..4);
    let ways = match protocol {
        Protocol::Tcp => ClientAddress::NAMES.map(|(_, way)| way).to_vec(),
        Protocol::Udp => vec![ClientAddress::None, ClientAddress::Proxy],
        Protocol::Sctp => vec![ClientAddress::None],
    };
    (addresses, select(ways)).prop_map(move |(addresses, client_address)| {
        let addresses = addresses.into_iter();
        FullNat {
            local_addresses: addresses.map(|number| host(is_v4, number).into()).collect(),
            client_address,
        }
    })
}

fn options(is_v4: bool, protocol: Protocol) -> impl Strategy<Value = ServiceOptions> {
    let longest = if is_v4 { 32_u8 } else { 128 };
    let persistence = (time(), 0..=longest).prop_map(|(timeout, granularity)| Persistence {
        timeout,
        granularity,
    });
    let limits = limits(longest);
    let syn_proxy = prop_oneof![
        Just(SynProxy::Always),
        (1_u32..=1 << 27).prop_map(|half_open| SynProxy::UnderAttack { half_open }),
    ];
    let syn_proxy = option::of(syn_proxy);
    let options = (
        option::of(persistence),
        any::<bool>(),
        full_nat(is_v4, protocol),
        limits,
        syn_proxy,
    );
    options.prop_map(
        move |(persistence, one_packet, full_nat, limits, syn_proxy)| ServiceOptions {
            persistence,
            one_packet: one_packet && protocol == Protocol::Udp,
            full_nat,
            matches: Vec::new(),
            limits,
            syn_proxy,
        },
    )
}

fn limits(longest: u8) -> impl Strategy<Value = Limits> {
    let pair = || {
        let rate = (1_u32..=10_000_000, 1_u32..=10_000_000)
            .prop_map(|(per_second, burst)| Rate { per_second, burst });
        (option::of(1_u32..=1 << 27), option::of(rate))
    };
    (pair(), pair(), 0..=longest).prop_map(|((max_connections, rate), source, granularity)| {
        Limits {
            max_connections,
            rate,
            source: (source != (None, None)).then_some(SourceLimits {
                max_connections: source.0,
                rate: source.1,
                granularity,
            }),
        }
    })
}

/// What is known by `match` instead of an address, here by several.
fn with_matches(server: VirtualServer, first: &str) -> VirtualServer {
    let more = [
        "198.18.0.1-198.18.0.9:80-90",
        "198.18.1.1:0 from 10.0.0.0/8",
    ];
    let matches: Vec<Match> = [first, more[0], more[1]]
        .map(|text| text.parse().unwrap())
        .to_vec();
    let (address, port) = matches[0].identity();
    VirtualServer {
        key: ServiceKey {
            address,
            port,
            ..server.key
        },
        options: ServiceOptions {
            matches,
            ..server.options
        },
        ..server
    }
}

pub(super) fn virtual_servers() -> impl Strategy<Value = Vec<VirtualServer>> {
    let some = (vec(virtual_server(), 0..4), any::<bool>());
    some.prop_map(|(mut servers, first_is_group)| {
        if let Some(first) = servers.first_mut()
            && first_is_group
            && first.address().is_ipv4()
        {
            *first = with_matches(first.clone(), "198.18.2.0/24:8080");
        }
        servers.sort_by_key(|s| s.key);
        servers.dedup_by_key(|s| s.key);
        servers
    })
}
