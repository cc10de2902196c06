//! FULLNAT's local ports over the life of connections: used up, given back, never lost.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dataplane::conn::Timeouts;
use dataplane::counters::{DropReason, WorkerStatistics};
use dataplane::director::{Director, DirectorOptions, Verdict};
use dataplane::flow::FlowHasher;
use dataplane::service::{
    Address, ForwardingMethod, FullNat, MacAddress, NextHop, PortIndex, Protocol, RealServer,
    SchedulerKind, ServerId, ServiceKey, ServiceOptions, TcpMidstream, Thresholds, VirtualServer,
    VirtualServerId,
};
use dataplane::snapshot::Snapshot;
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
        let (umem, pool) = Umem::new(8, FrameSize::Bytes2048).expect("memory");
        let options = DirectorOptions {
            max_connections,
            hasher: FlowHasher::fixed(),
            worker: 0,
            kernel: None,
        };
        let own = Arc::new(WorkerStatistics::new(4, 1));
        let statistics = vec![own; WORKERS];
        let published = Arc::new(ArcSwap::from_pointee(snapshot()));
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
        let mut verdicts = [Verdict::Wait(DropReason::NotIp)];
        let umem = Arc::clone(&self.umem);
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
        match verdicts[0] {
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

fn snapshot() -> Snapshot {
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
    let service = VirtualServer {
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
    };
    Snapshot::new(1, Timeouts::default(), TcpMidstream::default(), &[service])
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
