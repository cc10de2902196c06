//! An appliance as tests of the server, the client and the tables see it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::edit::{EditError, Edited, Edits};
use super::ipvs::{Ipvs, Timeouts};
use super::query::Query;
use super::view::{
    AttachMode, Config, Connection, Drop, Explanation, Health, HealthCheck, Neighbor, NextHop,
    RealServer, Reload, Service, SlipBucket, State, Steering, TimerSlip, Traffic, Version, Vrrp,
    VrrpInstance, VrrpRefused, WayBack, Worker, WorkerInterface,
};

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn next_hop(last: u8) -> Option<NextHop> {
    Some(NextHop {
        interface: "eth0".to_owned(),
        mac: format!("02:00:00:00:00:{last:02x}"),
    })
}

fn counters() -> BTreeMap<String, u64> {
    let values = [
        ("rx_packets", 1_234_567),
        ("rx_bytes", 987_654_321),
        ("tx_packets", 1_234_543),
        ("tx_bytes", 987_650_000),
        ("handed_off_rx", 198),
        ("handed_off_tx", 200),
        ("waiting", 2),
        ("connections_created", 4_242),
        ("connections_expired", 3_000),
        ("connections_evicted", 1),
        ("connections_reused", 17),
        ("connections", 1_241),
        ("resets_sent", 5),
        ("icmp_sent", 8),
        ("fragments_made", 2),
        ("returned_to_kernel", 6),
    ];
    values.map(|(name, value)| (name.to_owned(), value)).into()
}

pub(crate) fn services() -> Vec<Service> {
    let server = |address: &str, weight, health, traffic| RealServer {
        forwarding_method: "DR".into(),
        address: self::address(address),
        weight,
        configured_weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        health,
        drained: false,
        given_up: false,
        reason: None,
        traffic,
        next_hop: next_hop(1),
    };
    let busy = Traffic {
        active_connections: 1204,
        inactive_connections: 37,
        connections_total: 48_211,
        packets_total: 1_234_567,
        bytes_total: 1_650_000_000,
        ..Traffic::default()
    };
    let down = RealServer {
        reason: Some("connection refused".to_owned()),
        ..server("192.168.1.102:80", 0, Health::Down, Traffic::default())
    };
    let unreachable = RealServer {
        next_hop: None,
        ..server("192.168.1.103:80", 2, Health::Checking, Traffic::default())
    };
    let unreachable = RealServer {
        configured_weight: 2,
        ..unreachable
    };
    let quiet = Traffic {
        packets_total: 9_999,
        bytes_total: 640_000,
        ..Traffic::default()
    };
    vec![
        Service {
            protocol: "TCP".into(),
            address: address("192.168.1.100:80"),
            matches: Vec::new(),
            scheduler: "wrr".into(),
            scheduler_flags: Vec::new(),
            persistence: None,
            one_packet: false,
            limits: super::view::Limits {
                max_connections: Some(10_000),
                source_new_connections_per_second: Some(50),
                source_new_connections_burst: Some(100),
                source_granularity: Some(32),
                syn_proxy: "under-attack".into(),
                syn_proxy_threshold: Some(1024),
                under_attack: true,
                half_open_connections: 1300,
                refused_total: [("source_new_connection_rate".to_owned(), 1234)].into(),
                ..super::view::Limits::default()
            },
            forwarding_method: "DR".into(),
            traffic: busy,
            real_servers: vec![
                server("192.168.1.101:80", 1, Health::Up, busy),
                down,
                unreachable,
            ],
        },
        Service {
            protocol: "UDP".into(),
            address: address("[2001:db8::100]:53"),
            matches: Vec::new(),
            scheduler: "rr".into(),
            scheduler_flags: Vec::new(),
            persistence: None,
            one_packet: false,
            limits: super::view::Limits {
                syn_proxy: "off".into(),
                ..super::view::Limits::default()
            },
            forwarding_method: "DR".into(),
            traffic: quiet,
            real_servers: vec![server("[2001:db8::a:101]:53", 1, Health::Unchecked, quiet)],
        },
        Service {
            protocol: "TCP".into(),
            address: address("192.168.1.100:443"),
            matches: Vec::new(),
            scheduler: "mh".into(),
            scheduler_flags: vec!["mh-fallback".into(), "mh-port".into()],
            persistence: Some(super::view::Persistence {
                timeout_seconds: 50,
                granularity: 24,
            }),
            one_packet: false,
            limits: super::view::Limits {
                syn_proxy: "off".into(),
                ..super::view::Limits::default()
            },
            forwarding_method: "DR".into(),
            traffic: Traffic::default(),
            real_servers: vec![],
        },
    ]
}

pub(crate) fn connection(number: u32) -> Connection {
    let port = 1024 + u16::try_from(number % 60_000).unwrap();
    Connection {
        protocol: "TCP".into(),
        client: SocketAddr::new([10, 0, 0, 7].into(), port),
        virtual_server: address("192.168.1.100:80"),
        real_server: address("192.168.1.101:80"),
        state: "ESTABLISHED".into(),
        expires_seconds: 899,
        worker: Some(0),
    }
}

pub(crate) fn connections() -> Vec<Connection> {
    vec![
        connection(40_000),
        Connection {
            state: "SYN_RECV".into(),
            expires_seconds: 59,
            worker: Some(1),
            ..connection(1)
        },
        Connection {
            protocol: "UDP".into(),
            client: address("[2001:db8::ffff:7]:5353"),
            virtual_server: address("[2001:db8::100]:53"),
            real_server: address("[2001:db8::a:101]:53"),
            state: "UDP".into(),
            expires_seconds: 7384,
            worker: Some(0),
        },
    ]
}

pub(crate) fn neighbors() -> Vec<Neighbor> {
    let address = |text: &str| text.parse().unwrap();
    vec![
        Neighbor {
            real_server: address("192.168.1.101"),
            via: None,
            interface: Some("eth0".to_owned()),
            mac: Some("02:00:00:00:00:01".to_owned()),
            state: "resolved".into(),
        },
        Neighbor {
            real_server: address("10.9.0.3"),
            via: Some(address("192.168.1.254")),
            interface: Some("eth0".to_owned()),
            mac: None,
            state: "unresolved".into(),
        },
        Neighbor {
            real_server: address("2001:db8:1::3"),
            via: None,
            interface: None,
            mac: None,
            state: "no route".into(),
        },
    ]
}

pub(crate) fn workers() -> Vec<Worker> {
    let interface = |interface: &str, queue, mode, zero_copy| WorkerInterface {
        interface: interface.to_owned(),
        queue,
        mode,
        zero_copy,
        rx_dropped: 0,
        rx_ring_full: 3,
        rx_fill_ring_empty: 0,
        tx_invalid: 0,
        tx_dropped: 0,
        kernel_invalid: 0,
        steering: match interface {
            "eth0" => Steering {
                steered: 1_234_567,
                passed: 890,
                no_socket: 0,
                not_for_us: 34,
                denied: 5,
            },
            _ => Steering::default(),
        },
    };
    vec![
        Worker {
            worker: 0,
            core: 1,
            snapshot_generation: 7,
            counters: counters(),
            dropped_packets: 22,
            interfaces: vec![
                interface("eth0", 0, AttachMode::Native, true),
                interface("eth1", 0, AttachMode::Generic, false),
            ],
            way_back: Some(WayBack {
                interface: "appliance0".to_owned(),
                tx_invalid: 0,
                tx_dropped: 1,
            }),
        },
        Worker {
            worker: 1,
            core: 2,
            snapshot_generation: 7,
            interfaces: vec![interface("eth0", 1, AttachMode::Native, true)],
            ..Worker::default()
        },
    ]
}

pub(crate) fn drops() -> Vec<Drop> {
    let drop = |reason: &'static str, packets_total, description: &'static str| Drop {
        reason: reason.into(),
        description: description.into(),
        packets_total,
    };
    vec![
        drop(
            "truncated",
            0,
            "The frame ends before the headers that it announces.",
        ),
        drop(
            "no_real_server",
            1_000_020,
            "The virtual server has no real server that takes new connections.",
        ),
        drop(
            "table_full",
            2,
            "The connection table is full of connections that may not be evicted.",
        ),
    ]
}

pub(crate) fn vrrp() -> Vrrp {
    let master = VrrpInstance {
        name: "VI_1".to_owned(),
        state: "MASTER".into(),
        since_seconds: 3725,
        faults: vec![],
        interface: "eth0".to_owned(),
        version: 2,
        virtual_router_id: 51,
        priority: 100,
        configured_priority: 100,
        advert_int_milliseconds: 1000,
        sync_group: None,
        source: Some([192, 168, 1, 1].into()),
        master: None,
        master_priority: None,
        addresses: vec!["192.168.1.100/24".to_owned()],
        adverts_sent_total: 3725,
        adverts_received_total: 2,
        became_master_total: 1,
        released_master_total: 0,
        priority_zero_sent_total: 0,
        priority_zero_received_total: 1,
        late_adverts_total: 0,
        refused: vec![VrrpRefused {
            reason: "password".into(),
            total: 17,
            last: Some([192, 168, 1, 9].into()),
        }],
    };
    let backup = VrrpInstance {
        name: "VI_2".to_owned(),
        state: "BACKUP".into(),
        version: 3,
        virtual_router_id: 52,
        priority: 80,
        advert_int_milliseconds: 100,
        master: Some([192, 168, 1, 2].into()),
        master_priority: Some(101),
        addresses: vec!["192.168.1.101/32".to_owned(), "10.0.0.1/24".to_owned()],
        refused: vec![],
        ..master.clone()
    };
    let fault = VrrpInstance {
        name: "VI_3".to_owned(),
        state: "FAULT".into(),
        faults: vec!["the interface is down".to_owned()],
        addresses: vec!["192.168.2.100/24".to_owned()],
        refused: vec![],
        ..master.clone()
    };
    Vrrp {
        instances: vec![master, backup, fault],
        refused: vec![VrrpRefused {
            reason: "virtual_router_id".into(),
            total: 3,
            last: Some([192, 168, 1, 7].into()),
        }],
        timer_slip: TimerSlip {
            timers_total: 3725,
            sum_microseconds: 4_200_000,
            buckets: vec![
                SlipBucket {
                    le_microseconds: 1_000,
                    timers_total: 3_000,
                },
                SlipBucket {
                    le_microseconds: 25_000,
                    timers_total: 3_725,
                },
            ],
            p50_microseconds: 1100,
            p99_microseconds: 1300,
            max_microseconds: 5200,
        },
    }
}

pub(crate) fn health() -> Vec<HealthCheck> {
    let check =
        |real_server: &str, check: &'static str, state, last_result: Option<&str>| HealthCheck {
            protocol: "TCP".into(),
            virtual_server: address("192.168.1.100:80"),
            real_server: address(real_server),
            check: check.into(),
            target: address(real_server),
            state,
            last_result: last_result.map(str::to_owned),
            since_seconds: 11_533,
            failures: 0,
        };
    let down = HealthCheck {
        since_seconds: 8,
        failures: 4,
        target: address("192.168.1.102:8080"),
        ..check(
            "192.168.1.102:80",
            "HTTP_GET",
            Health::Down,
            Some("/health_check: status 503, expected 200"),
        )
    };
    vec![
        check(
            "192.168.1.101:80",
            "TCP_CHECK",
            Health::Up,
            Some("connected"),
        ),
        down,
        check("192.168.1.103:80", "TCP_CHECK", Health::Checking, None),
    ]
}

/// All of it, as the status page and the metrics see it.
pub(crate) fn state() -> State {
    State {
        version: Version {
            version: "1.2.3".into(),
            pid: 4711,
            uptime_seconds: 93_784,
        },
        services: services(),
        workers: workers(),
        drops: drops(),
        health: health(),
        vrrp: vrrp(),
    }
}

pub(crate) fn config() -> Config {
    Config {
        toml: "[appliance]\ncontrol_socket = \"/run/appliance.sock\"\n".to_owned(),
    }
}

pub(crate) fn public_config() -> Config {
    Config {
        toml: "[appliance]\n".to_owned(),
    }
}

pub(crate) fn reload() -> Reload {
    Reload {
        changes: vec!["+ TCP 192.168.1.100:80 -> 192.168.1.104:80 weight 1".to_owned()],
        warnings: vec![
            "lb.toml:3:1: warning: virtual_server TCP 192.168.1.100:80: has no real server"
                .to_owned(),
        ],
        generation: 8,
    }
}

pub(crate) fn ipvs() -> Ipvs {
    Ipvs {
        timeouts: Timeouts {
            tcp: 900,
            tcpfin: 120,
            udp: 300,
        },
        virtual_servers: vec![],
    }
}

/// The first edit is carried out, the others name no virtual server.
pub(crate) fn edited(edits: &Edits) -> Edited {
    let results = (0..edits.edits.len()).map(|place| match place {
        0 => None,
        _ => Some(EditError::NoSuchService),
    });
    Edited {
        results: results.collect(),
        generation: 8,
    }
}

/// Answers everything; a million connections it would send in batches.
pub(crate) fn answer(query: Query) {
    match query {
        Query::Ping(reply) => drop(reply.send(())),
        Query::Services(reply) => drop(reply.send(services())),
        Query::Connections(reply) => drop(reply.try_send(connections())),
        Query::Neighbors(reply) => drop(reply.send(neighbors())),
        Query::Workers(reply) => drop(reply.send(workers())),
        Query::Drops(reply) => drop(reply.send(drops())),
        Query::Health(reply) => drop(reply.send(health())),
        Query::Vrrp(reply) => drop(reply.send(vrrp())),
        Query::Config(reply) => drop(reply.send(config())),
        Query::PublicConfig(reply) => drop(reply.send(public_config())),
        Query::Explain(_, reply) => drop(reply.send(Explanation::default())),
        Query::Ipvs(reply) => drop(reply.send(ipvs())),
        Query::Edit(edits, reply) => drop(reply.send(edited(&edits))),
        Query::Reload(reply) => drop(reply.send(Ok(reload()))),
    }
}
