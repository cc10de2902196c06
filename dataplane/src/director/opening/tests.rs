//! The straight way and the general one are the same to whoever looks at what comes of them.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::conn::{Timeouts, Way};
use crate::counters::{Counters, DropReason, WorkerStatistics};
use crate::device::BURST;
use crate::director::burst::FrameSet;
use crate::director::{Director, DirectorOptions, Verdict};
use crate::flow::{FlowHasher, FlowKey};
use crate::limits::WhenFull;
use crate::routes::{Egress, Prefix, Routes, Via};
use crate::service::{
    Address, ForwardingMethod, FullNat, GatewayId, HashFlags, MacAddress, NextHop, PortIndex,
    Protocol, RealServer, SchedulerKind, ServerId, ServiceKey, ServiceOptions, TcpMidstream,
    Thresholds, Tunnel, VirtualServer, VirtualServerId,
};
use crate::snapshot::Snapshot;
use crate::xsk::umem::{FramePool, FrameSize, Umem};

const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// So many workers share the ports of FULLNAT that each has 20 on an address.
const FEW_PORTS: usize = 64_512 / 20;
const MTU: u16 = 1400;

/// The virtual servers: address and port, protocol, and what they are found by. The first two have the same
/// real servers, so that NAT cannot tell some of their connections apart.
const SERVICES: [([u8; 4], u16, Protocol, SchedulerKind); 4] = [
    (
        [192, 168, 1, 100],
        53,
        Protocol::Udp,
        SchedulerKind::RoundRobin,
    ),
    (
        [192, 168, 1, 101],
        53,
        Protocol::Udp,
        SchedulerKind::WeightedLeastConnection,
    ),
    (
        [192, 168, 1, 100],
        80,
        Protocol::Tcp,
        SchedulerKind::SourceHash(HashFlags {
            port: false,
            fallback: false,
        }),
    ),
    // Every port.
    (
        [192, 168, 1, 102],
        0,
        Protocol::Udp,
        SchedulerKind::RoundRobin,
    ),
];

/// No connection is remembered so long, in milliseconds.
const FORGOTTEN: u64 = 400_000;

/// The packet of a client that may begin a connection.
#[derive(Clone, Copy, Debug)]
struct First {
    client: [u8; 4],
    port: u16,
    lives: u8,
    payload: u16,
}

impl First {
    fn packet(&self, service: usize) -> Vec<u8> {
        let (address, port, protocol, _) = SERVICES[service];
        let [.., last] = self.client;
        let step: PacketBuilderStep<IpHeaders> = PacketBuilder::ethernet2(
            [2, 0, 0, 0, 1, last],
            OWN.0,
        )
        .ipv4(self.client, address, self.lives);
        let payload = vec![7; self.payload.into()];
        let mut bytes = Vec::new();
        let port = match port {
            0 => 1000,
            port => port,
        };
        match protocol {
            Protocol::Tcp => {
                let step = step.tcp(self.port, port, 1, 1000).syn();
                step.write(&mut bytes, &payload)
            }
            Protocol::Udp | Protocol::Sctp => step.udp(self.port, port).write(&mut bytes, &payload),
        }
        .unwrap();
        bytes
    }
}

fn firsts() -> impl Strategy<Value = First> {
    let lives = prop_oneof![20 => Just(64_u8), 1 => Just(1)];
    let payload = prop_oneof![20 => Just(10), 1 => Just(MTU - 40)];
    // Two networks: one is behind a gateway. And local addresses.
    let client = prop_oneof![
        20 => (1..=2_u8, 1..=3_u8),
        1 => (Just(3_u8), 1..=2_u8),
    ];
    let client = client.prop_map(|(net, host)| [10, net, 0, host]);
    (client, 1..=60_u16, lives, payload).prop_map(|(client, port, lives, payload)| First {
        client,
        port,
        lives,
        payload,
    })
}

/// Bursts of packets for one virtual server each, and how long nothing comes after them, in milliseconds.
fn bursts() -> impl Strategy<Value = Vec<(usize, Vec<First>, u64)>> {
    let pause = prop_oneof![3 => 0..100_u64, 1 => Just(FORGOTTEN)];
    vec((0..SERVICES.len(), vec(firsts(), 1..=BURST), pause), 1..8)
}

fn snapshot(method: ForwardingMethod, is_straight: bool) -> Snapshot {
    let services = (0..).zip(SERVICES);
    let services: Vec<_> = services
        .map(|(id, (address, port, protocol, scheduler))| VirtualServer {
            id: VirtualServerId(id),
            key: ServiceKey {
                address: Address::v4(address),
                port,
                protocol,
            },
            scheduler,
            options: ServiceOptions {
                full_nat: FullNat {
                    local_addresses: vec![
                        Address::v4([10, 3, 0, 1]),
                        Address::from_octets([0xfd; 16]),
                        Address::v4([10, 3, 0, 2]),
                    ],
                    ..FullNat::default()
                },
                ..ServiceOptions::default()
            },
            real_servers: (0..3)
                .map(|number| real_server(3 * id + number, number, port, method))
                .collect(),
        })
        .collect();
    let egress = |mac| Egress {
        index: 0,
        mac,
        mtu: MTU,
        v4: Some(Address::v4([10, 3, 0, 9])),
        v6: None,
    };
    let gateway = NextHop {
        port: PortIndex(1),
        destination: MacAddress([2, 0, 0, 0, 0, 9]),
        source: OWN,
    };
    let behind = Prefix::new(Address::v4([10, 2, 0, 0]), 16);
    let routes = Routes::new(
        [(behind, Via::Gateway(GatewayId(0)))],
        vec![Some(gateway)],
        vec![egress(OWN), egress(OWN)],
    );
    let (timeouts, midstream) = (Timeouts::default(), TcpMidstream::default());
    let mut snapshot = Snapshot::new(1, timeouts, midstream, &services).with_routes(routes);
    assert!(snapshot.opens_straight, "{method:?}");
    snapshot.opens_straight = is_straight;
    snapshot
}

fn real_server(id: u32, number: u32, port: u16, method: ForwardingMethod) -> RealServer {
    let [.., last] = number.to_be_bytes();
    RealServer {
        id: ServerId(id),
        address: Address::v4([10, 4, 0, last]),
        port: if port == 53 { 5353 } else { port },
        method,
        weight: number + 1,
        // One is down.
        available: number != 2,
        drained: false,
        next_hop: Some(NextHop {
            port: PortIndex(u16::from(last)),
            destination: MacAddress([2, 0, 10, 4, 0, last]),
            source: OWN,
        }),
        thresholds: Thresholds::default(),
    }
}

/// A director, which goes one of the ways.
struct Side {
    director: Director,
    statistics: Arc<WorkerStatistics>,
    umem: Arc<Umem>,
    pool: FramePool,
}

impl Side {
    fn new(snapshot: Snapshot, max_connections: u32, workers: usize) -> Self {
        let (umem, pool) =
            Umem::new(2 * u32::try_from(BURST).unwrap(), FrameSize::Bytes2048).unwrap();
        let statistics = Arc::new(WorkerStatistics::new(16, 4));
        let all = vec![Arc::clone(&statistics); workers];
        let options = DirectorOptions {
            max_connections,
            hasher: FlowHasher::fixed(),
            worker: 0,
            kernel: None,
        };
        let published = Arc::new(ArcSwap::from_pointee(snapshot));
        Self {
            director: Director::new(options, published, &all),
            statistics,
            umem,
            pool,
        }
    }

    /// What becomes of the packets, and the packets.
    fn burst(&mut self, packets: &[Vec<u8>], now: u64) -> Vec<(Verdict, Vec<u8>)> {
        let fill = |packet: &Vec<u8>| {
            let mut frame = self.pool.take().unwrap();
            self.umem.fill(&mut frame, packet).unwrap();
            frame
        };
        let mut frames: Vec<_> = packets.iter().map(fill).collect();
        let mut verdicts = [Verdict::Drop(DropReason::NotIp); BURST];
        let (port, umem) = (PortIndex(0), &self.umem);
        let egress = (self.director).process(port, umem, &mut frames, now, &mut verdicts);
        let become_of = |(frame, verdict)| {
            let mut bytes = self.umem.bytes(&frame).to_vec();
            if bytes[23] == 4 {
                // IP in IP: what begins nothing gets a number, and a checksum, after what does.
                bytes[18..20].fill(0);
                bytes[24..26].fill(0);
            }
            self.pool.give(frame);
            (egress.map_or(verdict, Verdict::Transmit), bytes)
        };
        frames.into_iter().zip(verdicts).map(become_of).collect()
    }

    /// Connections with their reply halves, wherever in the table they are, statistics and counters.
    fn state(&self) -> (Vec<String>, Vec<String>, Counters) {
        let table = self.director.table();
        let connections = table.scan(0, usize::MAX).map(|(_, connection)| {
            let key = connection.key();
            let (entry, _) = table.find(table.place(&key), &key).unwrap();
            let reply = table.reply(entry);
            if let Some(reply) = reply {
                let place = table.place(&reply.key);
                assert_eq!(
                    table.find(place, &reply.key).map(|found| found.0),
                    Some(entry)
                );
            }
            let (server, state) = (connection.server(), connection.state());
            let idle = connection.idle(u64::MAX);
            let goes_on = (connection.sends_to(), connection.exchanges_with());
            format!("{key:?} {server:?} {state:?} {idle} {goes_on:?} {reply:?}")
        });
        let mut connections: Vec<_> = connections.collect();
        connections.sort_unstable();
        let servers = (0..12).map(|id| self.statistics.server(ServerId(id)).unwrap().totals());
        let services = (0..4).map(|id| {
            self.statistics
                .service(VirtualServerId(id))
                .unwrap()
                .totals()
        });
        let servers = servers.map(|totals| format!("{totals:?}"));
        let services = services.map(|totals| format!("{totals:?}"));
        let counters = self.director.counters().clone();
        (connections, servers.chain(services).collect(), counters)
    }
}

const METHODS: [ForwardingMethod; 4] = [
    ForwardingMethod::Direct,
    ForwardingMethod::Nat,
    ForwardingMethod::FullNat,
    ForwardingMethod::Tunnel(Tunnel::Ipip),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_ways_come_to_the_same(bursts in bursts()) {
        for method in METHODS {
            let side = |is_straight| Side::new(snapshot(method, is_straight), 1000, FEW_PORTS);
            let [mut straight, mut general] = [side(true), side(false)];
            let (mut now, mut seen, mut clients) = (0, HashSet::new(), HashSet::new());
            for (service, firsts, pause) in &bursts {
                // What begins nothing is decided last, so that there is none among them.
                let is_new = |first: &&First| seen.insert((*service, first.client, first.port));
                let firsts = firsts.iter().filter(is_new);
                // Nor of those without a hop left, which are not plain.
                let (firsts, over): (Vec<_>, Vec<_>) = firsts.partition(|first| first.lives > 1);
                clients.extend(over.iter().map(|first: &&First| (first.client, first.port)));
                // What conflicts with another connection is counted while those behind it in its burst are
                // scheduled, but not if each is decided by itself: to schedulers that look at it.
                let counts = SERVICES[*service].3 == SchedulerKind::WeightedLeastConnection;
                let is_single =
                    |first: &&First| clients.insert((first.client, first.port)) || !counts;
                let (firsts, rivals): (Vec<_>, Vec<_>) = firsts.into_iter().partition(is_single);
                let packets = |firsts: Vec<&First>| -> Vec<_> {
                    firsts.iter().map(|first| first.packet(*service)).collect()
                };
                let (packets, over, rivals) = (packets(firsts), packets(over), packets(rivals));
                let Some((first, others)) = packets.split_first() else {
                    continue;
                };
                let twice = [first.clone(), first.clone()];
                let sent = [&mut straight, &mut general]
                    .map(|side| [&twice, others, &over].map(|packets| side.burst(packets, now)));
                prop_assert_eq!(&sent[0], &sent[1], "{:?}", method);
                for rival in rivals {
                    let rival = [rival];
                    let sent = [&mut straight, &mut general].map(|side| side.burst(&rival, now));
                    prop_assert_eq!(&sent[0], &sent[1], "{:?}", method);
                }
                now += pause;
                if *pause == FORGOTTEN {
                    seen.clear();
                }
                for side in [&mut straight, &mut general] {
                    while side.director.tick(now) {}
                }
                prop_assert_eq!(straight.state(), general.state(), "{:?}", method);
            }
        }
    }
}

/// Many connections, so that buckets overflow, up to a full table and beyond.
#[test]
fn a_table_fills_up_the_same() {
    const ROOM: u32 = 600;
    for method in METHODS {
        for when_full in [WhenFull::EvictHalfOpen, WhenFull::DropNew] {
            let side = |is_straight| {
                Side::new(snapshot(method, is_straight).when_full(when_full), ROOM, 1)
            };
            let [mut straight, mut general] = [side(true), side(false)];
            // One by one: those that are evicted for a burst are so before it.
            for number in 0..ROOM + 100 {
                let [.., high, low] = number.to_be_bytes();
                let first = First {
                    client: [10, 1, high, low],
                    port: 999,
                    lives: 64,
                    payload: 0,
                };
                // Some of UDP, which are not evicted.
                let packets = [first.packet(if number % 8 == 0 { 0 } else { 2 })];
                let sent = [&mut straight, &mut general].map(|side| side.burst(&packets, 0));
                assert_eq!(sent[0], sent[1], "{method:?}");
            }
            for side in [&mut straight, &mut general] {
                side.director.tick(0);
            }
            assert_eq!(straight.state(), general.state(), "{method:?}");
            let (_, _, counters) = straight.state();
            assert_eq!(counters.connections, u64::from(ROOM), "{method:?}");
        }
    }
}

/// Where the replies' keys have no room, connections are made in vain: nothing of them is left, and none is evicted for
/// another.
#[test]
fn a_full_chain_leaves_no_trace() {
    let first = |host, port| First {
        client: [10, 1, 0, host],
        port,
        lives: 64,
        payload: 10,
    };
    let sides =
        [true, false].map(|way| Side::new(snapshot(ForwardingMethod::Nat, way), 300, FEW_PORTS));
    // By source hash, so that all of a client's have one server.
    let (udp, tcp) = (0, 2);
    let mut probe = Side::new(snapshot(ForwardingMethod::Nat, true), 300, FEW_PORTS);
    probe.burst(&[first(1, 1).packet(tcp)], 0);
    let table = probe.director.table();
    let (entry, _) = table.scan(0, usize::MAX).next().unwrap();
    let of_server = table.reply(entry).unwrap().key;
    let bucket = |key: FlowKey| table.place(&key).entropy();
    let request = |service: usize, first: First| {
        let (address, port, protocol, _) = SERVICES[service];
        let client = Address::v4(first.client);
        FlowKey::new(client, first.port, Address::v4(address), port, protocol)
    };
    let reply = |first: First| {
        let (server, client) = (of_server.source(), Address::v4(first.client));
        let port = of_server.source_port();
        FlowKey::new(server, port, client, first.port, Protocol::Tcp)
    };
    let full = bucket(of_server);
    let ports = || 2..60_000;
    let fill = ports().map(|port| first(2, port));
    let fill = fill.filter(|first| bucket(request(udp, *first)) == full);
    let fill: Vec<_> = fill.take(64).map(|first| first.packet(udp)).collect();
    let late = ports().map(|port| first(1, port));
    let late = late.filter(|late| bucket(reply(*late)) == full);
    let late = late.filter(|late| bucket(request(tcp, *late)) != full);
    let late: Vec<_> = late.take(6).map(|first| first.packet(tcp)).collect();
    assert_eq!((fill.len(), late.len()), (64, 6));
    let results = sides.map(|mut side| {
        let sent: Vec<_> = (fill.chunks(BURST).chain([&late[..]]))
            .map(|burst| side.burst(burst, 0))
            .collect();
        (sent, side.state())
    });
    assert_eq!(results[0], results[1]);
    let [_, (_, (_, _, counters))] = results;
    let full = DropReason::TableFull as usize;
    assert_eq!((counters.drops[full], counters.connections_evicted), (6, 0));
}

/// Of one whose replies' key has no room the port serves others again; the general way takes it another one.
#[test]
fn a_full_chain_gives_its_port_back() {
    const PORTS: usize = 64_512;
    let (udp, tcp) = (0, 2);
    let first = |host, port| First {
        client: [10, 1, 0, host],
        port,
        lives: 64,
        payload: 10,
    };
    let key = |service: usize, first: First| {
        let (address, port, protocol, _) = SERVICES[service];
        let client = Address::v4(first.client);
        FlowKey::new(client, first.port, Address::v4(address), port, protocol)
    };
    let late = first(1, 1);
    // A side on which `fill` and the late one were opened, and the key of the late one's replies.
    let side_with = |fill: &[First]| {
        let mut side = Side::new(snapshot(ForwardingMethod::FullNat, true), 3000, 1);
        let packets: Vec<_> = fill.iter().map(|first| first.packet(udp)).collect();
        side.burst(&packets, 0);
        assert_eq!(side.director.table().len(), 64);
        side.burst(&[late.packet(tcp)], 0);
        let table = side.director.table();
        let request = key(tcp, late);
        let (entry, _) = table.find(table.place(&request), &request).unwrap();
        let reply = table.reply(entry).unwrap().key;
        (side, reply)
    };
    let others: Vec<_> = (1..=64).map(|port| first(2, port)).collect();
    let (probe, wanted) = side_with(&others);
    let table = probe.director.table();
    let bucket = |key: FlowKey| table.place(&key).entropy();
    let clients = (2..=4).flat_map(|host| (1..60_000).map(move |port| first(host, port)));
    let fill = clients.filter(|first| bucket(key(udp, *first)) == bucket(wanted));
    let (mut side, reply) = side_with(&fill.take(64).collect::<Vec<_>>());
    assert_ne!(reply, wanted);
    while side.director.tick(FORGOTTEN) {}
    let ports = &mut side.director.flows.local_ports;
    let all = std::iter::from_fn(|| ports.allocate(VirtualServerId(0), true));
    assert_eq!(all.collect::<HashSet<_>>().len(), 2 * PORTS);
}

#[test]
fn the_last_of_others_are_those_of_the_highest_numbers() {
    let others = [1, 5, 6, 63].map(FrameSet::only);
    let all = others.into_iter().fold(FrameSet::NONE, FrameSet::with);
    let numbers = |count| all.last(count).numbers().collect::<Vec<_>>();
    assert_eq!(numbers(0), []);
    assert_eq!(numbers(2), [6, 63]);
    assert_eq!(numbers(4), [1, 5, 6, 63]);
    assert_eq!(numbers(9), [1, 5, 6, 63]);
}

/// Those that get no port take no room, so that nobody has to make some.
#[test]
fn without_ports_nobody_is_evicted() {
    const PORTS: u8 = 40;
    let first = |host| First {
        client: [10, 1, 0, host],
        port: 7,
        lives: 64,
        payload: 0,
    };
    let results = [true, false].map(|way| {
        let room = u32::from(PORTS) + 1;
        let mut side = Side::new(snapshot(ForwardingMethod::FullNat, way), room, FEW_PORTS);
        for host in 0..PORTS {
            side.burst(&[first(host).packet(2)], 0);
        }
        let late = [PORTS, PORTS + 1, PORTS + 2].map(|host| first(host).packet(2));
        let sent = side.burst(&late, 0);
        (sent, side.state())
    });
    assert_eq!(results[0], results[1]);
    let [(sent, (connections, _, counters)), _] = results;
    assert!(
        sent.iter()
            .all(|(verdict, _)| *verdict == Verdict::Drop(DropReason::NoLocalPort))
    );
    assert_eq!(
        (connections.len(), counters.connections_evicted),
        (PORTS.into(), 0)
    );
}

/// What the two ways share: a reply half says where replies leave.
#[test]
fn replies_leave_by_the_gateway_or_to_the_neighbour() {
    for (net, way) in [
        (
            1,
            Way::Neighbor {
                port: PortIndex(0),
                mac: MacAddress([2, 0, 0, 0, 1, 5]),
            },
        ),
        (2, Way::Gateway(GatewayId(0))),
    ] {
        let mut side = Side::new(snapshot(ForwardingMethod::Nat, true), 10, 1);
        let first = First {
            client: [10, net, 0, 5],
            port: 7,
            lives: 64,
            payload: 1,
        };
        side.burst(&[first.packet(0)], 0);
        let table = side.director.table();
        let (entry, _) = table.scan(0, 10).next().unwrap();
        assert_eq!(table.reply(entry).unwrap().way, way);
    }
}
