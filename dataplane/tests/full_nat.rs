//! FULLNAT over the life of connections: local ports are used up, given back and never lost, and broken packets do
//! no harm.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dataplane::conn::Timeouts;
use dataplane::counters::{DropReason, WorkerStatistics};
use dataplane::device::BURST;
use dataplane::director::{Director, DirectorOptions, Verdict};
use dataplane::flow::FlowHasher;
use dataplane::routes::{Egress, Routes};
use dataplane::service::{
    Address, ClientAddress, ForwardingMethod, FullNat, MacAddress, NextHop, PortIndex, Protocol,
    RealServer, SchedulerKind, ServerId, ServiceKey, ServiceOptions, TcpMidstream, Thresholds,
    VirtualServer, VirtualServerId,
};
use dataplane::snapshot::Snapshot;
use dataplane::wire;
use dataplane::xsk::umem::{FramePool, FrameSize, Umem};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

const VIP: [u8; 4] = [192, 168, 1, 100];
/// So many share the ports that each has four.
const WORKERS: usize = 64_512 / 4;
const UDP_TIMEOUT: u64 = 300_000;

struct Bench {
    director: Director,
    umem: Arc<Umem>,
    pool: FramePool,
    now: u64,
}

impl Bench {
    fn new(max_connections: u32) -> Self {
        let service = service();
        let snapshot = Snapshot::new(1, Timeouts::default(), TcpMidstream::default(), &[service]);
        Self::of(max_connections, snapshot)
    }

    fn of(max_connections: u32, snapshot: Snapshot) -> Self {
        let (umem, pool) = Umem::new(8, FrameSize::Bytes2048).expect("memory");
        let options = DirectorOptions {
            max_connections,
            hasher: FlowHasher::fixed(),
            worker: 0,
            kernel: None,
        };
        let own = Arc::new(WorkerStatistics::new(4, 1));
        let statistics = vec![own; WORKERS];
        let published = Arc::new(ArcSwap::from_pointee(snapshot));
        Self {
            director: Director::new(options, published, &statistics),
            umem,
            pool,
            now: 0,
        }
    }

    /// A datagram of a new client; returns the port that the real server sees, or why it was dropped.
    fn request(&mut self, client_port: u16) -> Result<u16, DropReason> {
        let mut frame = self.pool.take().expect("a free frame");
        let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1])
            .ipv4([10, 0, 0, 7], VIP, 64)
            .udp(client_port, 53);
        let mut bytes = Vec::new();
        packet.write(&mut bytes, b"?").expect("a packet");
        self.umem.fill(&mut frame, &bytes).expect("fits");
        let mut frames = [frame];
        let mut verdicts = [Verdict::Wait(DropReason::NotIp); BURST];
        let umem = Arc::clone(&self.umem);
        let egress =
            self.director
                .process(PortIndex(0), &umem, &mut frames, self.now, &mut verdicts);
        let [frame] = frames;
        let port = match SlicedPacket::from_ethernet(umem.bytes(&frame))
            .expect("still a packet")
            .transport
        {
            Some(TransportSlice::Udp(udp)) => udp.source_port(),
            other => panic!("{other:?}"),
        };
        self.pool.give(frame);
        match egress.map_or(verdicts[0], Verdict::Transmit) {
            Verdict::Transmit(_) => Ok(port),
            Verdict::Drop(reason) => Err(reason),
            verdict @ (Verdict::Wait(_)
            | Verdict::Cut(_)
            | Verdict::HandOff(_)
            | Verdict::Offer) => panic!("{verdict:?}"),
        }
    }

    /// Until all connections are forgotten.
    fn pass(&mut self) {
        self.now += UDP_TIMEOUT + 10_000;
        while self.director.tick(self.now) {}
        assert_eq!(self.director.counters().connections, 0);
    }
}

fn service() -> VirtualServer {
    let server = RealServer {
        id: ServerId(0),
        address: Address::v4([10, 1, 0, 1]),
        port: 53,
        method: ForwardingMethod::FullNat,
        weight: 1,
        available: true,
        drained: false,
        next_hop: Some(NextHop {
            port: PortIndex(0),
            destination: MacAddress([2, 0, 10, 1, 0, 1]),
            source: MacAddress([2, 0, 0, 0, 0, 1]),
        }),
        thresholds: Thresholds::default(),
    };
    VirtualServer {
        id: VirtualServerId(0),
        key: ServiceKey {
            address: Address::v4(VIP),
            port: 53,
            protocol: Protocol::Udp,
        },
        scheduler: SchedulerKind::RoundRobin,
        options: ServiceOptions {
            full_nat: FullNat {
                local_addresses: vec![Address::v4([10, 1, 0, 201])],
                ..FullNat::default()
            },
            ..ServiceOptions::default()
        },
        real_servers: vec![server],
    }
}

#[test]
fn without_a_free_port_new_clients_are_dropped_and_known_ones_served() {
    let mut bench = Bench::new(100);
    let ports: Vec<_> = (1..=4).map(|client| bench.request(client)).collect();
    assert_eq!(ports, [Ok(1024), Ok(1025), Ok(1026), Ok(1027)]);
    for client in 5..15 {
        assert_eq!(bench.request(client), Err(DropReason::NoLocalPort));
    }
    assert_eq!(bench.request(2), Ok(1025));
    bench.pass();
    // The one that was free the longest comes first.
    let mut again: Vec<_> = (20..24).map(|client| bench.request(client)).collect();
    assert_eq!(bench.request(24), Err(DropReason::NoLocalPort));
    again.sort_by_key(|port| port.ok());
    assert_eq!(again, ports);
    let counters = bench.director.counters();
    assert_eq!(counters.drops[DropReason::NoLocalPort as usize], 11);
}

#[test]
fn a_connection_that_finds_no_room_costs_no_port() {
    let mut bench = Bench::new(1);
    for round in 0..4_u16 {
        let first = round * 100 + 1;
        assert!(bench.request(first).is_ok(), "round {round}");
        for client in first + 1..first + 20 {
            assert_eq!(bench.request(client), Err(DropReason::TableFull));
        }
        bench.pass();
    }
}

/// Virtual servers of both IP versions and protocols, whose servers are told who the client is in every way, or
/// have the other IP version.
fn everything() -> Snapshot {
    let v6 =
        |last| Address::from_octets([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    let (v4_server, v6_server) = (Address::v4([10, 1, 0, 1]), v6(101));
    let ways = [
        (
            Address::v4(VIP),
            80,
            Protocol::Tcp,
            v4_server,
            ClientAddress::Toa,
        ),
        (
            Address::v4(VIP),
            81,
            Protocol::Tcp,
            v4_server,
            ClientAddress::Proxy,
        ),
        (
            Address::v4(VIP),
            82,
            Protocol::Tcp,
            v6_server,
            ClientAddress::Toa,
        ),
        (
            Address::v4(VIP),
            53,
            Protocol::Udp,
            v4_server,
            ClientAddress::Proxy,
        ),
        (
            Address::v4(VIP),
            54,
            Protocol::Udp,
            v6_server,
            ClientAddress::None,
        ),
        (v6(100), 80, Protocol::Tcp, v6_server, ClientAddress::Proxy),
        (v6(100), 81, Protocol::Tcp, v4_server, ClientAddress::Proxy),
        (v6(100), 53, Protocol::Udp, v4_server, ClientAddress::None),
    ];
    let services = (0..)
        .zip(ways)
        .map(|(id, (address, port, protocol, server, way))| {
            let mut service = service();
            service.id = VirtualServerId(id);
            service.key = ServiceKey {
                address,
                port,
                protocol,
            };
            service.options.full_nat = FullNat {
                local_addresses: vec![Address::v4([10, 1, 0, 201]), v6(201)],
                client_address: way,
            };
            for real in &mut service.real_servers {
                real.id = ServerId(id);
                real.address = server;
                real.port = port;
            }
            service
        });
    let services: Vec<_> = services.collect();
    let egress = Egress {
        index: 0,
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        mtu: 400,
        v4: None,
        v6: None,
    };
    Snapshot::new(1, Timeouts::default(), TcpMidstream::default(), &services)
        .with_routes(Routes::new([], Vec::new(), vec![egress]))
}

/// Packets as clients and real servers send them, before anything is broken.
fn packet(random: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let v6 = |last| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
    let (is_v4, is_request) = (random(2) == 0, random(2) == 0);
    let ip = match (is_v4, is_request) {
        (true, true) => link.ipv4([10, 0, 0, 7], VIP, 64),
        (true, false) => link.ipv4([10, 1, 0, 1], [10, 1, 0, 201], 64),
        (false, true) => link.ipv6(v6(7), v6(100), 64),
        (false, false) => link.ipv6(v6(101), v6(201), 64),
    };
    let service = [80, 81, 82, 53, 54][random(5)];
    let other = 1024 + u16::try_from(random(8)).expect("small");
    let (source, destination) = match is_request {
        true => (other, service),
        false => (service, other),
    };
    let payload = vec![7; [0, 1, 30, 300, 420][random(5)]];
    let mut bytes = Vec::new();
    if service < 80 {
        let udp = ip.udp(source, destination);
        udp.write(&mut bytes, &payload).expect("a datagram");
        return bytes;
    }
    let number = u32::try_from(random(3)).expect("small");
    let tcp = ip.tcp(source, destination, number, 1000);
    let tcp = match (random(4), is_request) {
        (0, true) => tcp.syn(),
        (0, false) => tcp.syn().ack(number + 1),
        (1, _) => tcp.fin().ack(number + 30),
        (_, _) => tcp.ack(number + 1),
    };
    tcp.write(&mut bytes, &payload).expect("a segment");
    bytes
}

/// An IPv4 header's checksum would give nearly everything away.
fn repair(bytes: &mut [u8]) {
    if bytes.len() < 34 || bytes[14] >> 4 != 4 {
        return;
    }
    bytes[24..26].fill(0);
    let words = bytes[14..34].chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16));
    bytes[24..26].copy_from_slice(&checksum.to_be_bytes()[2..]);
}

#[test]
fn broken_packets_are_accounted_for_and_what_leaves_is_not_broken() {
    let mut bench = Bench::of(200, everything());
    let mut state = 1_u64;
    let mut random = |below: usize| {
        // Numerical Recipes' generator: the same packets in every run.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut sent = 0;
    for number in 0..60_000_u64 {
        let mut bytes = packet(&mut random);
        for _ in 0..[0, 0, 1, 3][random(4)] {
            let at = 14 + random(bytes.len() - 14);
            bytes[at] = random(256).to_le_bytes()[0];
        }
        if random(8) == 0 {
            bytes.truncate(14 + random(bytes.len() - 14));
        }
        repair(&mut bytes);
        let mut frame = bench.pool.take().unwrap();
        bench.umem.fill(&mut frame, &bytes).unwrap();
        let (mut frames, mut verdicts) = ([frame], [Verdict::Wait(DropReason::NotIp); BURST]);
        let umem = Arc::clone(&bench.umem);
        bench.now += number % 3;
        let egress =
            bench
                .director
                .process(PortIndex(0), &umem, &mut frames, bench.now, &mut verdicts);
        let ([frame], verdict) = (frames, egress.map_or(verdicts[0], Verdict::Transmit));
        match verdict {
            Verdict::Transmit(_) => {
                sent += 1;
                let left = wire::parse(umem.bytes(&frame));
                assert!(left.is_ok(), "{number}: {left:?} of {bytes:02x?}");
            }
            Verdict::Drop(_) => assert_eq!(umem.bytes(&frame), bytes, "{number}: dropped"),
            Verdict::Wait(_) | Verdict::Cut(_) => {
                let reason = DropReason::NextHopUnresolved;
                bench.director.dropped_after(verdict, reason, frame.len());
            }
            Verdict::HandOff(_) | Verdict::Offer => panic!("{verdict:?}"),
        }
        bench.pool.give(frame);
        while bench.director.tick(bench.now) {}
        let counters = bench.director.counters();
        let ended = counters.tx_packets + counters.dropped() + counters.waiting;
        assert_eq!(counters.rx_packets, ended, "{number}");
    }
    assert!(sent > 10_000, "{sent} were forwarded");
}
