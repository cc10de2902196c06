//! A worker over in-memory rings: what only shows over several bursts, with
//! snapshots changing in between. No frame is ever lost, and
//! rx = tx + Σ drops + waiting after every turn.

use std::sync::{Arc, mpsc};

use arc_swap::ArcSwap;
use dataplane::conn::{State, Timeouts};
use dataplane::counters::{Counters, DropReason, WorkerStatistics};
use dataplane::device::ring::{RingDevice, RingPeer, pair};
use dataplane::director::{Director, DirectorOptions};
use dataplane::flow::FlowHasher;
use dataplane::service::{
    Address, ForwardingMethod, MacAddress, NextHop, PortIndex, Protocol, RealServer, SchedulerKind,
    ServerId, ServiceKey, ServiceOptions, TcpMidstream, Thresholds, VirtualServer, VirtualServerId,
};
use dataplane::snapshot::{Published, Snapshot};
use dataplane::worker::{Port, Request, Worker};
use dataplane::xsk::umem::{Frame, FramePool, FrameSize, Umem};
use etherparse::PacketBuilder;

const VIP: [u8; 4] = [192, 168, 1, 100];
const FRAMES: u32 = 1024;

/// A worker, the other end of its rings, and the frames that are with us.
struct Bench {
    worker: Worker<RingDevice>,
    peer: RingPeer,
    umem: Arc<Umem>,
    ours: Vec<Frame>,
    published: Published,
    statistics: Arc<WorkerStatistics>,
    requests: mpsc::Sender<Request<RingDevice>>,
    generation: u64,
    now: u64,
}

impl Bench {
    fn new(max_connections: u32, servers: &[RealServer]) -> Self {
        Self::beside(max_connections, servers, SchedulerKind::RoundRobin, None)
    }

    /// With another worker's statistics, if given.
    fn beside(
        max_connections: u32,
        servers: &[RealServer],
        scheduler: SchedulerKind,
        other: Option<Arc<WorkerStatistics>>,
    ) -> Self {
        let options = options(max_connections);
        Self::build(options, servers, scheduler, other)
    }

    fn build(
        options: DirectorOptions,
        servers: &[RealServer],
        scheduler: SchedulerKind,
        other: Option<Arc<WorkerStatistics>>,
    ) -> Self {
        let (umem, mut pool) = Umem::new(FRAMES, FrameSize::Bytes2048).expect("memory");
        // Half of the frames stay with the worker's pool, half are sent to it.
        let ours: Vec<Frame> = (0..FRAMES / 2).filter_map(|_| pool.take()).collect();
        let (device, peer) = pair(FRAMES as usize);
        let published: Published = Arc::new(ArcSwap::from_pointee(snapshot(1, scheduler, servers)));
        let statistics = Arc::new(WorkerStatistics::new(16, 1));
        let all: Vec<_> = [Some(Arc::clone(&statistics)), other]
            .into_iter()
            .flatten()
            .collect();
        let director = Director::new(options, Arc::clone(&published), &all);
        let (requests, receiver) = mpsc::channel();
        let ports = vec![Port {
            index: PortIndex(0),
            device,
        }];
        let worker = Worker::new(ports, Arc::clone(&umem), pool, director, receiver);
        Self {
            worker,
            peer,
            umem,
            ours,
            published,
            statistics,
            requests,
            generation: 1,
            now: 0,
        }
    }

    fn publish(&mut self, servers: &[RealServer]) {
        self.generation += 1;
        let snapshot = snapshot(self.generation, SchedulerKind::RoundRobin, servers);
        self.published.store(Arc::new(snapshot));
    }

    /// Sends packets in one burst and returns what was transmitted within
    /// this turn, as (destination MAC's last byte, frame).
    fn turn(&mut self, packets: &[Vec<u8>]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        for packet in packets {
            let mut frame = self.ours.pop().expect("a free frame");
            self.umem.fill(&mut frame, packet).expect("fits");
            frames.push(frame);
        }
        assert_eq!(self.peer.send(&mut frames), packets.len());
        self.worker.turn(self.now);
        let mut sent = Vec::new();
        while self.peer.receive(&mut frames) > 0 {}
        for frame in frames.drain(..) {
            let bytes = self.umem.bytes(&frame).to_vec();
            sent.push((bytes[5], bytes));
            self.ours.push(frame);
        }
        while self.peer.recycled(&mut self.ours) > 0 {}
        let counters = self.worker.counters();
        assert_eq!(
            counters.rx_packets + counters.fragments_made,
            counters.tx_packets + counters.dropped() + counters.waiting,
            "{counters:?}"
        );
        sent
    }

    /// Servers that the packets went to, in order.
    fn servers(&mut self, packets: &[Vec<u8>]) -> Vec<u8> {
        self.turn(packets)
            .into_iter()
            .map(|(server, _)| server)
            .collect()
    }

    fn counters(&self) -> Counters {
        self.worker.counters().clone()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.worker.counters().drops[reason as usize]
    }

    fn connections(&mut self) -> Vec<State> {
        let (sender, receiver) = mpsc::channel();
        self.requests
            .send(Request::Connections(sender))
            .expect("the worker");
        let mut states = Vec::new();
        loop {
            self.turn(&[]);
            match receiver.try_recv() {
                Ok(records) => states.extend(records.iter().map(|record| record.state)),
                Err(mpsc::TryRecvError::Empty) => {}
                Err(mpsc::TryRecvError::Disconnected) => return states,
            }
        }
    }
}

fn options(max_connections: u32) -> DirectorOptions {
    DirectorOptions {
        max_connections,
        hasher: FlowHasher::fixed(),
        worker: 0,
        kernel: None,
    }
}

fn snapshot(generation: u64, scheduler: SchedulerKind, servers: &[RealServer]) -> Snapshot {
    let services =
        [(80, Protocol::Tcp), (53, Protocol::Udp)].map(|(port, protocol)| VirtualServer {
            id: VirtualServerId(u32::from(port)),
            key: ServiceKey {
                address: Address::v4(VIP),
                port,
                protocol,
            },
            scheduler,
            options: ServiceOptions::default(),
            real_servers: servers.to_vec(),
        });
    Snapshot::new(
        generation,
        Timeouts::default(),
        TcpMidstream::Reset,
        &services,
    )
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

fn down(number: u8) -> RealServer {
    RealServer {
        available: false,
        weight: 0,
        ..server(number)
    }
}

fn unresolved(number: u8) -> RealServer {
    RealServer {
        next_hop: None,
        ..server(number)
    }
}

fn tcp(port: u16, flags: &str) -> Vec<u8> {
    let mut builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xc1], [2, 0, 0, 0, 0, 0xd1])
        .ipv4([10, 0, 0, 7], VIP, 64)
        .tcp(port, 80, 1000, 500);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(77),
            'F' => builder.fin(),
            'R' => builder.rst(),
            other => panic!("flag {other}"),
        };
    }
    let mut packet = Vec::new();
    builder.write(&mut packet, b"hello").expect("a packet");
    packet
}

fn udp(port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xc1], [2, 0, 0, 0, 0, 0xd1])
        .ipv4([10, 0, 0, 7], VIP, 64)
        .udp(port, 53)
        .write(&mut packet, b"query")
        .expect("a packet");
    packet
}

#[test]
fn a_connection_begun_in_a_burst_is_known_to_the_rest_of_it() {
    let mut bench = Bench::new(100, &[server(1), server(2)]);
    let burst = [
        tcp(1, "S"),
        tcp(1, "A"),
        tcp(2, "S"),
        tcp(1, "A"),
        tcp(2, "A"),
    ];
    assert_eq!(bench.servers(&burst), [1, 1, 2, 1, 2]);
    assert_eq!(bench.counters().connections, 2);
    assert_eq!(bench.connections(), [State::Established; 2]);
}

#[test]
fn a_listing_goes_on_at_every_turn() {
    let mut bench = Bench::new(10_000, &[server(1)]);
    let (sender, receiver) = mpsc::channel();
    bench
        .requests
        .send(Request::Connections(sender))
        .expect("the worker");
    let mut parts = 0;
    loop {
        bench.turn(&[]);
        match receiver.try_recv() {
            Ok(part) => assert!(part.is_empty()),
            Err(mpsc::TryRecvError::Empty) => panic!("nothing at turn {parts}"),
            Err(mpsc::TryRecvError::Disconnected) => break,
        }
        parts += 1;
    }
    assert!(parts > 1, "{parts}");
}

#[test]
fn weight_0_keeps_what_it_has() {
    let mut bench = Bench::new(100, &[server(1), server(2)]);
    assert_eq!(bench.servers(&[tcp(1, "S"), udp(1)]), [1, 1]);
    let drained = RealServer {
        weight: 0,
        ..server(1)
    };
    bench.publish(&[drained, server(2)]);
    assert_eq!(
        bench.servers(&[tcp(1, "A"), udp(1), tcp(2, "S"), tcp(3, "S"), udp(2)]),
        [1, 1, 2, 2, 2]
    );
}

#[test]
fn a_server_that_is_down_gets_nothing_and_what_begins_anew_moves() {
    let mut bench = Bench::new(100, &[server(1), server(2)]);
    assert_eq!(
        bench.servers(&[tcp(1, "S"), tcp(1, "A"), udp(1)]),
        [1, 1, 1]
    );
    bench.publish(&[down(1), server(2)]);
    assert_eq!(
        bench.servers(&[tcp(1, "A")]),
        [],
        "under way: waits for the server's return"
    );
    assert_eq!(bench.dropped(DropReason::ServerUnavailable), 1);
    assert_eq!(bench.servers(&[udp(1)]), [2], "a UDP flow moves at once");
    bench.publish(&[server(1), server(2)]);
    assert_eq!(
        bench.servers(&[tcp(1, "A"), udp(1)]),
        [1, 2],
        "the connection goes on"
    );
    bench.publish(&[down(1), server(2)]);
    assert_eq!(
        bench.servers(&[tcp(1, "S"), tcp(1, "A")]),
        [2, 2],
        "a SYN begins anew"
    );
    assert_eq!(bench.counters().connections_reused, 2);
}

#[test]
fn a_removed_server_is_as_good_as_down() {
    let mut bench = Bench::new(100, &[server(1)]);
    assert_eq!(bench.servers(&[tcp(1, "S"), tcp(1, "A")]), [1, 1]);
    bench.publish(&[server(2)]);
    assert_eq!(bench.servers(&[tcp(1, "A"), tcp(1, "S")]), [2]);
    bench.publish(&[]);
    assert_eq!(bench.servers(&[tcp(5, "S")]), [0xc1], "the client is told");
    assert_eq!(bench.counters().icmp_sent, 1);
}

#[test]
fn packets_wait_for_the_next_hop_and_are_sent_in_order() {
    let mut bench = Bench::new(100, &[unresolved(1)]);
    assert_eq!(bench.servers(&[tcp(1, "S"), tcp(2, "S")]), []);
    assert_eq!(bench.counters().waiting, 2);
    bench.now += 900;
    bench.publish(&[server(1)]);
    let sent = bench.turn(&[]);
    let ports: Vec<u8> = sent.iter().map(|(_, frame)| frame[35]).collect();
    assert_eq!(ports, [1, 2]);
    assert_eq!(bench.counters().waiting, 0);
}

#[test]
fn packets_that_wait_too_long_or_are_too_many_are_dropped() {
    let mut bench = Bench::new(1000, &[unresolved(1)]);
    for burst in 0..6_u16 {
        let packets: Vec<_> = (0..50)
            .map(|number| tcp(burst * 50 + number + 1, "S"))
            .collect();
        bench.turn(&packets);
    }
    assert_eq!(bench.counters().waiting, 256);
    assert_eq!(bench.dropped(DropReason::NextHopUnresolved), 300 - 256);
    bench.now += 1001;
    bench.turn(&[]);
    assert_eq!(bench.counters().waiting, 0);
    assert_eq!(bench.dropped(DropReason::NextHopUnresolved), 300);
    assert_eq!(
        bench.ours.len(),
        (FRAMES / 2) as usize,
        "every frame came back"
    );
}

#[test]
fn a_fragment_whose_first_never_came_is_the_kernels_if_there_is_a_way() {
    let mut packet = udp(5);
    // Flags and offset: 8 bytes into the datagram.
    packet[20..22].copy_from_slice(&[0, 1]);
    let checksum = etherparse::Ipv4Header::from_slice(&packet[14..34])
        .unwrap()
        .0
        .calc_header_checksum();
    packet[24..26].copy_from_slice(&checksum.to_be_bytes());
    // The same ring stands for the way back: it is seen what leaves.
    for (kernel, given_back) in [(None, 0), (Some(PortIndex(0)), 1)] {
        let options = DirectorOptions {
            kernel,
            ..options(100)
        };
        let mut bench = Bench::build(options, &[server(1)], SchedulerKind::RoundRobin, None);
        assert_eq!(bench.turn(std::slice::from_ref(&packet)), []);
        bench.now += 99;
        assert_eq!(bench.turn(&[]), []);
        assert_eq!(bench.counters().waiting, 1);
        bench.now += 1;
        let sent: Vec<_> = bench
            .turn(&[])
            .into_iter()
            .map(|(_, frame)| frame)
            .collect();
        assert_eq!(sent, vec![packet.clone(); given_back]);
        assert_eq!(bench.counters().returned_to_kernel, given_back as u64);
        assert_eq!(bench.dropped(DropReason::Fragment), 1 - given_back as u64);
        assert_eq!(bench.counters().waiting, 0);
        let free = bench.ours.len() + bench.worker.pool().len();
        assert_eq!(free, FRAMES as usize, "every frame is there once");
    }
}

#[test]
fn a_flood_of_syns_evicts_half_open_connections_only() {
    let mut bench = Bench::new(50, &[server(1)]);
    for port in 1..=25 {
        bench.turn(&[tcp(port, "S"), tcp(port, "A")]);
    }
    for port in 1000..2000 {
        assert_eq!(bench.servers(&[tcp(port, "S")]), [1]);
    }
    assert_eq!(bench.counters().connections, 50);
    assert_eq!(bench.counters().connections_evicted, 1000 - 25);
    for port in 1..=25 {
        assert_eq!(
            bench.servers(&[tcp(port, "A")]),
            [1],
            "established ones survive"
        );
    }
    assert_eq!(bench.counters().resets_sent, 0);
}

#[test]
fn a_table_full_of_established_connections_refuses_new_ones() {
    let mut bench = Bench::new(10, &[server(1)]);
    for port in 1..=10 {
        bench.turn(&[tcp(port, "S"), tcp(port, "A")]);
    }
    assert_eq!(bench.servers(&[tcp(99, "S"), tcp(5, "A")]), [1]);
    assert_eq!(bench.dropped(DropReason::TableFull), 1);
}

#[test]
fn a_midstream_segment_is_reset_towards_its_sender() {
    let mut bench = Bench::new(10, &[server(1)]);
    let sent = bench.turn(&[tcp(7, "A")]);
    let (_, reply) = &sent[0];
    let packet = etherparse::SlicedPacket::from_ethernet(reply).expect("a packet");
    let Some(etherparse::TransportSlice::Tcp(reset)) = packet.transport else {
        panic!("no TCP")
    };
    assert!(reset.rst() && !reset.ack());
    assert_eq!((reset.source_port(), reset.destination_port()), (80, 7));
    assert_eq!(reset.sequence_number(), 77);
    assert_eq!(reply[..12], [2, 0, 0, 0, 0, 0xc1, 2, 0, 0, 0, 0, 0xd1]);
    assert_eq!(bench.servers(&[tcp(7, "R")]), [], "a RST is not answered");
    assert_eq!(bench.dropped(DropReason::TcpMidstream), 1);
}

#[test]
fn gauges_of_a_server_follow_its_connections_to_the_end() {
    let mut bench = Bench::new(100, &[server(1)]);
    let totals = |bench: &Bench| {
        let totals = bench
            .statistics
            .server(ServerId(1))
            .expect("in range")
            .totals();
        (totals.active, totals.inactive, totals.connections)
    };
    bench.turn(&[tcp(1, "S"), udp(1)]);
    assert_eq!(totals(&bench), (1, 1, 2));
    bench.turn(&[tcp(1, "A")]);
    assert_eq!(totals(&bench), (1, 1, 2));
    bench.turn(&[tcp(1, "FA")]);
    assert_eq!(totals(&bench), (0, 2, 2));
    for _ in 0..40 {
        bench.now += 10_000;
        bench.turn(&[]);
    }
    assert_eq!(totals(&bench), (0, 0, 2));
    assert_eq!(bench.counters().connections_expired, 2);
}

#[test]
fn wlc_counts_the_connections_of_other_workers() {
    let mut elsewhere = Bench::beside(100, &[server(1)], SchedulerKind::RoundRobin, None);
    // The other worker's statistics come from a real worker, on server 1.
    elsewhere.turn(&[tcp(1, "S"), tcp(1, "A")]);
    let mut bench = Bench::beside(
        100,
        &[server(1), server(2)],
        SchedulerKind::WeightedLeastConnection,
        Some(Arc::clone(&elsewhere.statistics)),
    );
    bench.now = 100;
    bench.turn(&[]);
    assert_eq!(
        bench.servers(&[tcp(2, "S")]),
        [2],
        "server 1 has a connection on the other worker"
    );
}

#[test]
fn a_full_transmit_ring_drops_and_counts() {
    let mut bench = Bench::new(1000, &[server(1)]);
    // Nobody takes what is sent: the ring of 1024 is never full with 512
    // frames, so a worker without egress stands in for one.
    let nowhere = RealServer {
        next_hop: server(1).next_hop.map(|hop| NextHop {
            port: PortIndex(9),
            ..hop
        }),
        ..server(1)
    };
    bench.publish(&[nowhere]);
    assert_eq!(bench.servers(&[tcp(1, "S")]), []);
    assert_eq!(bench.dropped(DropReason::TxRingFull), 1);
    assert_eq!(bench.counters().tx_packets, 0);
    assert_eq!(bench.counters().tx_bytes, 0);
}

/// The worker's pool is never mixed up with another's.
#[test]
fn devices_come_and_go_while_the_worker_runs() {
    let mut bench = Bench::new(16, &[server(1)]);
    let (device, mut aside) = pair(FRAMES as usize);
    let mut arrive_aside = |bench: &mut Bench, port| {
        let mut frame = bench.ours.pop().expect("a free frame");
        bench.umem.fill(&mut frame, &tcp(port, "S")).expect("fits");
        assert_eq!(aside.send(&mut vec![frame]), 1);
        bench.servers(&[])
    };
    let (served, answer) = mpsc::channel();
    let ports = vec![Port {
        index: PortIndex(1),
        device,
    }];
    let ask = |bench: &mut Bench, request| {
        bench.requests.send(request).expect("the worker");
        bench.turn(&[]);
    };
    ask(&mut bench, Request::Add(ports, served));
    assert_eq!(answer.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    // What comes by the new device leaves by the old one.
    assert_eq!(arrive_aside(&mut bench, 1000), [1]);

    let (reply, gone) = mpsc::channel();
    ask(&mut bench, Request::Remove(PortIndex(0), reply));
    let ports = gone.try_recv().expect("the device");
    assert_eq!(arrive_aside(&mut bench, 1001), [0; 0]);
    assert_eq!(bench.dropped(DropReason::TxRingFull), 1);

    let (served, _answer) = mpsc::channel();
    ask(&mut bench, Request::Add(ports, served));
    assert_eq!(arrive_aside(&mut bench, 1002), [1]);
    assert_eq!(bench.servers(&[tcp(1003, "S")]), [1]);
}

#[test]
fn frames_are_conserved() {
    let mut bench = Bench::new(100, &[server(1), unresolved(2)]);
    for port in 1..200 {
        bench.turn(&[tcp(port, "S"), udp(port), tcp(port, "A"), vec![0; 20]]);
        bench.now += 20;
    }
    bench.now += 2000;
    bench.turn(&[]);
    bench.turn(&[]);
    let pool: &FramePool = bench.worker.pool();
    assert_eq!(bench.ours.len() + pool.len(), FRAMES as usize);
}

#[path = "worker/ops.rs"]
mod ops;
