//! Persistence, thresholds, limits and the end of connections with their servers: what
//! only shows when real servers change, or with several workers.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dataplane::conn::Timeouts;
use dataplane::counters::{DropReason, WorkerStatistics};
use dataplane::device::BURST;
use dataplane::director::{Director, DirectorOptions, Verdict};
use dataplane::flow::FlowHasher;
use dataplane::limits::{Limits, Rate, SourceLimits};
use dataplane::persistence::Persistence;
use dataplane::service::{
    Address, ForwardingMethod, MacAddress, NextHop, PortIndex, Protocol, RealServer, SchedulerKind,
    ServerId, ServiceKey, ServiceOptions, TcpMidstream, Thresholds, VirtualServer, VirtualServerId,
};
use dataplane::snapshot::{Expiry, Published, Snapshot};
use dataplane::xsk::umem::{Frame, FramePool, FrameSize, Umem};
use etherparse::PacketBuilder;

const VIP: [u8; 4] = [192, 168, 1, 100];

/// Directors of two workers, without devices.
struct Bench {
    directors: Vec<Director>,
    umem: Arc<Umem>,
    frame: Frame,
    _pool: FramePool,
    published: Published,
    statistics: [Arc<WorkerStatistics>; 2],
    options: ServiceOptions,
    expiry: Expiry,
    /// In milliseconds.
    now: u64,
}

impl Bench {
    fn new(options: ServiceOptions, expiry: Expiry, servers: &[RealServer]) -> Self {
        let (umem, mut pool) = Umem::new(8, FrameSize::Bytes2048).expect("memory");
        let frame = pool.take().expect("a frame");
        let published = Arc::new(ArcSwap::from_pointee(Snapshot::empty()));
        let statistics = [0, 1].map(|_| Arc::new(WorkerStatistics::new(16, 1)));
        let director = |worker| {
            let options = DirectorOptions {
                max_connections: 100,
                hasher: FlowHasher::fixed(),
                worker,
                kernel: None,
            };
            Director::new(options, Arc::clone(&published), &statistics)
        };
        let mut bench = Self {
            directors: [0, 1].map(director).into(),
            umem,
            frame,
            _pool: pool,
            published,
            statistics: statistics.clone(),
            options,
            expiry,
            now: 0,
        };
        bench.publish(servers);
        bench
    }

    fn publish(&mut self, servers: &[RealServer]) {
        let before = self.published.load();
        let virtual_server = VirtualServer {
            id: VirtualServerId(0),
            key: ServiceKey {
                address: Address::v4(VIP),
                port: 80,
                protocol: Protocol::Tcp,
            },
            scheduler: SchedulerKind::RoundRobin,
            options: self.options.clone(),
            real_servers: servers.to_vec(),
        };
        let snapshot = Snapshot::replacing(
            &before,
            before.generation + 1,
            Timeouts::default(),
            TcpMidstream::Reset,
            &[virtual_server],
        );
        self.published
            .store(Arc::new(snapshot.with_expiry(self.expiry)));
    }

    /// The server that a worker sends a segment of 10.0.0.CLIENT to.
    fn on(&mut self, worker: usize, client: u8, port: u16, flags: &str) -> Result<u8, Verdict> {
        let director = &mut self.directors[worker];
        director.adopt();
        let packet = segment(client, port, flags);
        self.umem.fill(&mut self.frame, &packet).expect("fits");
        let mut verdict = [Verdict::Drop(DropReason::NotIp); BURST];
        let frames = std::slice::from_mut(&mut self.frame);
        let egress = director.process(PortIndex(0), &self.umem, frames, self.now, &mut verdict);
        while director.tick(self.now) {}
        let [.., server] = self.umem.bytes(&self.frame)[..6] else {
            unreachable!("a frame has addresses")
        };
        match egress.map_or(verdict[0], Verdict::Transmit) {
            Verdict::Transmit(_) => Ok(server),
            other @ (Verdict::Drop(_)
            | Verdict::Wait(_)
            | Verdict::Cut(_)
            | Verdict::HandOff(_)
            | Verdict::Offer) => Err(other),
        }
    }

    fn to(&mut self, client: u8, port: u16, flags: &str) -> Result<u8, Verdict> {
        self.on(0, client, port, flags)
    }

    fn seconds(&mut self, seconds: u64) {
        self.now += seconds * 1000;
    }
}

/// The MAC address that a reset is sent to: the client's.
const CLIENT: u8 = 0xc1;

fn segment(client: u8, port: u16, flags: &str) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, CLIENT], [2, 0, 0, 0, 0, 0xd1])
        .ipv4([10, 0, 0, client], VIP, 64)
        .tcp(port, 80, 1000, 500);
    let builder = match flags {
        "S" => builder.syn(),
        "A" => builder.ack(77),
        "R" => builder.rst(),
        other => panic!("flags {other}"),
    };
    let mut packet = Vec::new();
    builder.write(&mut packet, b"").expect("a packet");
    packet
}

fn server(number: u8) -> RealServer {
    RealServer {
        id: ServerId(number.into()),
        address: Address::v4([192, 168, 1, number]),
        port: 80,
        method: ForwardingMethod::Direct,
        weight: 1,
        available: true,
        drained: false,
        next_hop: Some(NextHop {
            port: PortIndex(0),
            destination: MacAddress([2, 0, 0, 0, 0, number]),
            source: MacAddress([2, 0, 0, 0, 0, 0xd1]),
        }),
        thresholds: Thresholds::default(),
    }
}

fn quiescent(number: u8) -> RealServer {
    RealServer {
        weight: 0,
        ..server(number)
    }
}

fn drained(number: u8) -> RealServer {
    RealServer {
        drained: true,
        ..quiescent(number)
    }
}

fn down(number: u8) -> RealServer {
    RealServer {
        available: false,
        ..quiescent(number)
    }
}

fn persistent() -> ServiceOptions {
    ServiceOptions {
        persistence: Some(Persistence {
            timeout: Duration::from_secs(50),
            granularity: 32,
        }),
        ..ServiceOptions::default()
    }
}

const UNAVAILABLE: Result<u8, Verdict> = Err(Verdict::Drop(DropReason::ServerUnavailable));

#[test]
fn persistence_leads_to_a_server_of_weight_0_unless_told_otherwise() {
    for quiescent_template in [false, true] {
        let expiry = Expiry {
            quiescent_template,
            ..Expiry::default()
        };
        let mut bench = Bench::new(persistent(), expiry, &[server(1), server(2)]);
        assert_eq!(bench.to(7, 1, "S"), Ok(1));
        bench.publish(&[quiescent(1), server(2)]);
        let next = if quiescent_template { 2 } else { 1 };
        assert_eq!(bench.to(7, 2, "S"), Ok(next));
        assert_eq!(bench.to(7, 1, "A"), Ok(1), "what it has stays");
        assert_eq!(bench.to(7, 3, "S"), Ok(next));
        assert_eq!(bench.to(8, 1, "S"), Ok(2), "who is new goes elsewhere");
        bench.publish(&[server(1), server(2)]);
        assert_eq!(bench.to(7, 4, "S"), Ok(next), "the template was replaced");
    }
}

#[test]
fn persistence_gives_up_a_server_that_is_down_removed_or_drained() {
    for rest in [
        vec![down(1), server(2)],
        vec![server(2)],
        vec![drained(1), server(2)],
    ] {
        let mut bench = Bench::new(persistent(), Expiry::default(), &[server(1), server(2)]);
        assert_eq!(bench.to(7, 1, "S"), Ok(1));
        bench.publish(&rest);
        assert_eq!(bench.to(7, 2, "S"), Ok(2));
        bench.publish(&[server(1), server(2)]);
        assert_eq!(bench.to(7, 3, "S"), Ok(2), "it stays where it went");
    }
}

#[test]
fn workers_share_what_is_persistent() {
    let mut bench = Bench::new(persistent(), Expiry::default(), &[server(1), server(2)]);
    // Each worker by itself would begin at another server.
    assert_eq!(bench.on(0, 7, 1, "S"), Ok(1));
    assert_eq!(bench.on(1, 7, 2, "S"), Ok(1));
    assert_eq!(bench.on(1, 8, 1, "S"), Ok(2));
    assert_eq!(bench.on(0, 8, 2, "S"), Ok(2));
}

/// The connections that each template counts.
fn counted(bench: &Bench) -> Vec<u32> {
    let mut connections = Vec::new();
    let templates = &bench.published.load().templates;
    templates.for_each(bench.now, |template| connections.push(template.connections));
    connections
}

#[test]
fn a_template_goes_when_its_server_was_removed_meanwhile() {
    let servers = [server(1), server(2)];
    let mut bench = Bench::new(persistent(), Expiry::default(), &servers);
    assert_eq!(bench.to(7, 1, "S"), Ok(1));
    bench.publish(&servers[1..]);
    for _ in 0..200 {
        bench.seconds(1);
        let now = bench.now;
        let directors = bench.directors.iter_mut();
        directors.for_each(|director| {
            director.adopt();
            while director.tick(now) {}
        });
    }
    bench.publish(&servers);
    assert_eq!(counted(&bench), [0_u32; 0]);
}

#[test]
fn a_template_goes_when_its_connections_have_gone() {
    let mut bench = Bench::new(persistent(), Expiry::default(), &[server(1), server(2)]);
    assert_eq!(bench.to(7, 1, "S"), Ok(1));
    assert_eq!(bench.to(7, 1, "A"), Ok(1));
    // On the other worker, half open: 60 s.
    assert_eq!(bench.on(1, 7, 2, "S"), Ok(1));
    assert_eq!(counted(&bench), [2]);
    for _ in 0..100 {
        bench.seconds(1);
        let now = bench.now;
        bench
            .directors
            .iter_mut()
            .for_each(|director| while director.tick(now) {});
    }
    assert_eq!(
        counted(&bench),
        [1],
        "the established one is left, after the timeout"
    );
    assert_eq!(bench.to(7, 1, "R"), Ok(1));
    for _ in 0..80 {
        bench.seconds(1);
        let now = bench.now;
        bench
            .directors
            .iter_mut()
            .for_each(|director| while director.tick(now) {});
    }
    assert_eq!(counted(&bench), []);
}

#[test]
fn a_connection_without_a_server_waits_or_ends() {
    for nodest_conn in [false, true] {
        let expiry = Expiry {
            nodest_conn,
            ..Expiry::default()
        };
        let mut bench = Bench::new(ServiceOptions::default(), expiry, &[server(1), server(2)]);
        assert_eq!(bench.to(7, 1, "S"), Ok(1));
        assert_eq!(bench.to(7, 1, "A"), Ok(1));
        bench.publish(&[down(1), server(2)]);
        if !nodest_conn {
            assert_eq!(bench.to(7, 1, "A"), UNAVAILABLE);
            bench.publish(&[server(1), server(2)]);
            assert_eq!(bench.to(7, 1, "A"), Ok(1), "its server is back");
            continue;
        }
        assert_eq!(
            bench.to(7, 1, "A"),
            Ok(CLIENT),
            "its client is told by a reset"
        );
        let counters = bench.directors[0].counters();
        assert_eq!((counters.resets_sent, counters.connections_expired), (1, 1));
        bench.publish(&[server(1), server(2)]);
        assert_eq!(bench.to(7, 1, "A"), Ok(CLIENT), "it is over for good");
        assert_eq!(bench.to(7, 1, "S"), Ok(2));
    }
}

/// As `ip_vs_in` does with `expire_nodest_conn`, so that a client does not repeat its SYN to a server that is out by
/// `inhibit_on_failure`.
#[test]
fn who_begins_again_leaves_a_server_of_weight_0() {
    for nodest_conn in [false, true] {
        for out in [quiescent(1), drained(1)] {
            let expiry = Expiry {
                nodest_conn,
                ..Expiry::default()
            };
            let servers = [server(1), server(2)];
            let mut bench = Bench::new(ServiceOptions::default(), expiry, &servers);
            assert_eq!(bench.to(7, 1, "S"), Ok(1));
            assert_eq!(bench.to(8, 1, "S"), Ok(2));
            assert_eq!(bench.to(9, 1, "S"), Ok(1));
            assert_eq!(bench.to(9, 1, "A"), Ok(1));
            bench.publish(&[out, server(2)]);
            let next = if nodest_conn { 2 } else { 1 };
            assert_eq!(bench.to(7, 1, "S"), Ok(next));
            assert_eq!(bench.to(7, 1, "A"), Ok(next));
            assert_eq!(bench.to(9, 1, "A"), Ok(1), "what is under way stays");
            let reused = bench.directors[0].counters().connections_reused;
            assert_eq!(reused, u64::from(nodest_conn));
        }
    }
}

fn by(method: ForwardingMethod, number: u8) -> RealServer {
    RealServer {
        method,
        ..server(number)
    }
}

/// To its old connections a server that is reached otherwise now is gone, where what they are cannot go that way: DR
/// would give the packets for a distant server to a router, which sends them back.
#[test]
fn what_was_not_translated_does_not_go_where_all_is() {
    use ForwardingMethod::{Direct, FullNat, Nat};
    for (before, after) in [
        (Direct, Nat),
        (Direct, FullNat),
        (Nat, Direct),
        (Nat, FullNat),
    ] {
        for nodest_conn in [false, true] {
            let expiry = Expiry {
                nodest_conn,
                ..Expiry::default()
            };
            let servers = [by(before, 1), server(2)];
            let mut bench = Bench::new(ServiceOptions::default(), expiry, &servers);
            for port in [1, 3] {
                assert_eq!(bench.to(7, port, "S"), Ok(1));
                assert_eq!(bench.to(7, port, "A"), Ok(1));
                assert_eq!(bench.to(8, port, "S"), Ok(2));
            }
            let changed = RealServer {
                weight: 0,
                ..by(after, 1)
            };
            bench.publish(&[changed, server(2)]);
            if after == FullNat && before == Nat {
                assert_eq!(bench.to(7, 1, "A"), Ok(1), "by the ends that it has");
                continue;
            }
            let refused = if nodest_conn { Ok(CLIENT) } else { UNAVAILABLE };
            assert_eq!(bench.to(7, 1, "A"), refused, "{before:?} to {after:?}");
            assert_eq!(bench.to(7, 3, "S"), Ok(2), "it begins anew");
            bench.publish(&servers);
            let found = if nodest_conn { Ok(CLIENT) } else { Ok(1) };
            assert_eq!(bench.to(7, 1, "A"), found, "as it was");
        }
    }
}

/// The threshold counts the connections of all workers, as far as they are
/// known: a hundred times a second.
#[test]
fn a_threshold_is_for_all_workers() {
    let limited = RealServer {
        thresholds: Thresholds { upper: 3, lower: 0 },
        ..server(1)
    };
    let servers = [limited, server(2)];
    let mut bench = Bench::new(ServiceOptions::default(), Expiry::default(), &servers);
    let chosen: Vec<_> = (0..6).map(|port| bench.on(0, 7, port, "S")).collect();
    assert_eq!(chosen, [1, 2, 1, 2, 1, 2].map(Ok));
    assert_eq!(bench.on(0, 7, 7, "S"), Ok(2), "three are enough");
    bench.seconds(1);
    bench.on(1, 8, 1, "S").expect("somebody");
    bench.seconds(1);
    for port in 2..6 {
        assert_eq!(bench.on(1, 8, port, "S"), Ok(2), "also on the other worker");
    }
}

const TOO_MANY: Result<u8, Verdict> = Err(Verdict::Drop(DropReason::MaxConnections));
const TOO_MANY_OF_SOURCE: Result<u8, Verdict> =
    Err(Verdict::Drop(DropReason::SourceMaxConnections));

fn limited(max_connections: u32, of_source: u32) -> ServiceOptions {
    ServiceOptions {
        limits: Limits {
            max_connections: Some(max_connections),
            source: Some(SourceLimits {
                max_connections: Some(of_source),
                rate: None,
                granularity: 32,
            }),
            rate: Some(Rate {
                per_second: 1000,
                burst: 50,
            }),
        },
        ..ServiceOptions::default()
    }
}

#[test]
fn limits_are_for_all_workers() {
    let mut bench = Bench::new(limited(5, 3), Expiry::default(), &[server(1)]);
    assert_eq!(bench.on(0, 7, 1, "S"), Ok(1));
    assert_eq!(bench.on(1, 7, 2, "S"), Ok(1));
    assert_eq!(bench.on(0, 7, 3, "S"), Ok(1));
    for worker in [0, 1] {
        assert_eq!(bench.on(worker, 7, 4, "S"), TOO_MANY_OF_SOURCE);
        assert_eq!(
            bench.on(worker, 7, 3, "A"),
            if worker == 0 { Ok(1) } else { Ok(CLIENT) }
        );
    }
    // What the other worker has is known after a millisecond.
    assert_eq!(bench.on(1, 8, 1, "S"), Ok(1));
    bench.now += 1;
    assert_eq!(bench.on(1, 8, 2, "S"), Ok(1));
    bench.now += 1;
    assert_eq!(bench.on(0, 9, 1, "S"), TOO_MANY);
    assert_eq!(bench.on(1, 9, 1, "S"), TOO_MANY);
    assert_eq!(bench.on(1, 8, 1, "A"), Ok(1), "what it has stays");

    // The half-open ones go after a minute.
    bench.seconds(100);
    let now = bench.now;
    let tick = |director: &mut Director| while director.tick(now) {};
    bench.directors.iter_mut().for_each(tick);
    for port in 4..6 {
        assert_eq!(bench.on(1, 7, port, "S"), Ok(1));
    }
    assert_eq!(bench.on(1, 7, 6, "S"), TOO_MANY_OF_SOURCE);
}

/// A server that is removed leaves its connections, which count until they are over and no longer; so do
/// those of other limits than now.
#[test]
fn limits_forget_nothing_and_remember_nothing_too_long() {
    let mut bench = Bench::new(limited(100, 2), Expiry::default(), &[server(1), server(2)]);
    assert_eq!(bench.to(7, 1, "S"), Ok(1));
    assert_eq!(bench.to(7, 2, "S"), Ok(2));
    bench.publish(&[server(1)]);
    assert_eq!(bench.to(7, 3, "S"), TOO_MANY_OF_SOURCE);
    // A reset ends it on the server that is left; the other's has its timeout.
    bench.seconds(100);
    while bench.directors[0].tick(bench.now) {}
    let count = |bench: &Bench| {
        let own = bench.statistics[0].service(VirtualServerId(0));
        own.expect("there is room").totals()
    };
    assert_eq!(count(&bench).connections, 0);
    assert_eq!(count(&bench).refused, [0, 0, 1, 0]);
    assert_eq!(bench.to(7, 4, "S"), Ok(1));
    assert_eq!(bench.to(7, 5, "S"), Ok(1));
    assert_eq!((count(&bench).connections, count(&bench).half_open), (2, 2));

    // Without limits for a while nothing is counted, so nothing of before may be left.
    bench.options.limits.source = None;
    bench.publish(&[server(1)]);
    assert_eq!(bench.to(7, 6, "S"), Ok(1));
    bench.seconds(100);
    while bench.directors[0].tick(bench.now) {}
    bench.options = limited(100, 2);
    bench.publish(&[server(1)]);
    assert_eq!(bench.to(7, 7, "S"), Ok(1));
    assert_eq!(bench.to(7, 8, "S"), Ok(1));
    assert_eq!(bench.to(7, 9, "S"), TOO_MANY_OF_SOURCE);
}

/// A connection that cannot be made is not counted.
#[test]
fn limits_count_nothing_that_is_refused() {
    let mut bench = Bench::new(limited(100, 1), Expiry::default(), &[quiescent(1)]);
    for port in 0..3 {
        let refused = bench.to(7, port, "S");
        assert_eq!(refused, Ok(CLIENT), "no real server: told by an ICMP error");
    }
    bench.publish(&[server(1)]);
    assert_eq!(bench.to(7, 9, "S"), Ok(1));
}

/// The table has room for a hundred: of a flood of half-open connections the oldest make room, and of
/// those that are established none is lost.
#[test]
fn a_flood_of_syns_costs_no_established_connection() {
    let mut bench = Bench::new(ServiceOptions::default(), Expiry::default(), &[server(1)]);
    for port in 0..60 {
        assert_eq!(bench.to(7, port, "S"), Ok(1));
        assert_eq!(bench.to(7, port, "A"), Ok(1));
    }
    for port in 0..10_000 {
        bench.now += u64::from(port % 10 == 0);
        assert_eq!(bench.to(66, port, "S"), Ok(1), "each is taken");
    }
    let counters = bench.directors[0].counters();
    assert_eq!(counters.connections_evicted, 10_000 - 40);
    assert_eq!(counters.dropped(), 0);
    for port in 0..60 {
        assert_eq!(bench.to(7, port, "A"), Ok(1));
    }
    assert_eq!(bench.directors[0].counters().resets_sent, 0);
}
