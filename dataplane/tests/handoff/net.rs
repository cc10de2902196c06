//! Several workers over in-memory rings, and packets for them.

use std::sync::Arc;
use std::sync::mpsc;

use arc_swap::ArcSwap;
use dataplane::conn::Timeouts;
use dataplane::counters::{Counters, WorkerStatistics};
use dataplane::device::ring::{RingDevice, RingPeer, pair};
use dataplane::director::{Director, DirectorOptions};
use dataplane::flow::FlowHasher;
use dataplane::handoff;
use dataplane::service::{
    Address, ForwardingMethod, FullNat, MacAddress, NextHop, PortIndex, Protocol, RealServer,
    SchedulerKind, ServerId, ServiceKey, ServiceOptions, TcpMidstream, Thresholds, VirtualServer,
    VirtualServerId,
};
use dataplane::snapshot::Snapshot;
use dataplane::worker::{Port, Worker};
use dataplane::xsk::umem::{Frame, FrameSize, Umem};
use etherparse::{Ipv4Header, PacketBuilder};

pub(crate) const VIP: [u8; 4] = [192, 168, 1, 100];
pub(crate) const SERVER: [u8; 4] = [192, 168, 2, 1];
/// Of FULLNAT.
pub(crate) const LOCAL: [u8; 4] = [192, 168, 2, 201];
pub(crate) const CLIENT: [u8; 4] = [10, 0, 0, 7];
pub(crate) const WIRE: PortIndex = PortIndex(0);
/// The way back to the kernel: a ring as well, so that it is seen what goes there.
pub(crate) const KERNEL: PortIndex = PortIndex(1);
pub(crate) const FRAMES: u32 = 4096;

/// One worker's network: the other ends of its rings and the frames that are with us.
pub(crate) struct Net {
    pub(crate) wire: RingPeer,
    pub(crate) kernel: RingPeer,
    pub(crate) umem: Arc<Umem>,
    pub(crate) ours: Vec<Frame>,
}

impl Net {
    pub(crate) fn send(&mut self, packet: &[u8]) {
        let mut frame = self.ours.pop().expect("a free frame");
        self.umem.fill(&mut frame, packet).expect("fits");
        assert_eq!(
            self.wire.send(&mut vec![frame]),
            1,
            "the ring is long enough"
        );
    }

    pub(crate) fn received(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while self.wire.receive(&mut frames) > 0 {}
        self.take(frames)
    }

    pub(crate) fn given_to_kernel(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while self.kernel.receive(&mut frames) > 0 {}
        self.take(frames)
    }

    fn take(&mut self, mut frames: Vec<Frame>) -> Vec<Vec<u8>> {
        let packets = frames.iter().map(|frame| self.umem.bytes(frame).to_vec());
        let packets = packets.collect();
        self.ours.append(&mut frames);
        while self.wire.recycled(&mut self.ours) > 0 {}
        packets
    }
}

/// Workers that share a snapshot and hand over to each other.
pub(crate) fn workers(number: u32, max_connections: u32) -> (Vec<Worker<RingDevice>>, Vec<Net>) {
    let published = Arc::new(ArcSwap::from_pointee(snapshot(1, &services())));
    let statistics = statistics(number as usize);
    workers_of(&published, &statistics, number, max_connections)
}

pub(crate) fn statistics(workers: usize) -> Vec<Arc<WorkerStatistics>> {
    (0..workers)
        .map(|_| Arc::new(WorkerStatistics::new(16, 2)))
        .collect()
}

/// The same with this snapshot; `statistics` has those of all of them, and of as many more as they believe to
/// be.
pub(crate) fn workers_of(
    published: &Arc<ArcSwap<Snapshot>>,
    statistics: &[Arc<WorkerStatistics>],
    number: u32,
    max_connections: u32,
) -> (Vec<Worker<RingDevice>>, Vec<Net>) {
    let memory: Vec<_> = (0..number)
        .map(|_| Umem::new(FRAMES, FrameSize::Bytes2048).expect("memory"))
        .collect();
    let umems: Vec<_> = memory.iter().map(|(umem, _)| Arc::clone(umem)).collect();
    let ends = handoff::connect(&umems, number * max_connections).expect("eventfds");
    let both = (0..)
        .zip(memory)
        .zip(ends)
        .map(|((worker, (umem, mut pool)), end)| {
            let ours = (0..FRAMES / 2).filter_map(|_| pool.take()).collect();
            let [wire, kernel] = [WIRE, KERNEL].map(|index| {
                let (device, peer) = pair(FRAMES as usize);
                (Port { index, device }, peer)
            });
            let options = DirectorOptions {
                max_connections,
                hasher: FlowHasher::fixed(),
                worker,
                kernel: Some(KERNEL),
            };
            let director = Director::new(options, Arc::clone(published), statistics);
            let ports = vec![wire.0, kernel.0];
            let (_, requests) = mpsc::channel();
            let worker = Worker::new(ports, Arc::clone(&umem), pool, director, requests);
            let net = Net {
                wire: wire.1,
                kernel: kernel.1,
                umem,
                ours,
            };
            (worker.with_handoff(end), net)
        });
    both.unzip()
}

pub(crate) fn snapshot(generation: u64, services: &[VirtualServer]) -> Snapshot {
    Snapshot::new(
        generation,
        Timeouts::default(),
        TcpMidstream::Reset,
        services,
    )
}

/// TCP port 80 and UDP port 53 of the VIP, one real server with NAT.
pub(crate) fn services() -> Vec<VirtualServer> {
    vec![
        service(0, Protocol::Tcp, 80, 80),
        service(1, Protocol::Udp, 53, 53),
    ]
}

/// A port of the VIP, one real server with NAT; either with this id.
pub(crate) fn service(id: u32, protocol: Protocol, port: u16, server_port: u16) -> VirtualServer {
    let server = RealServer {
        id: ServerId(id),
        address: Address::v4(SERVER),
        port: server_port,
        method: ForwardingMethod::Nat,
        weight: 1,
        available: true,
        drained: false,
        next_hop: Some(NextHop {
            port: WIRE,
            destination: MacAddress([2, 0, 0, 0, 0, 1]),
            source: MacAddress([2, 0, 0, 0, 0, 0xd1]),
        }),
        thresholds: Thresholds::default(),
    };
    VirtualServer {
        id: VirtualServerId(id),
        key: ServiceKey {
            address: Address::v4(VIP),
            port,
            protocol,
        },
        scheduler: SchedulerKind::RoundRobin,
        options: ServiceOptions::default(),
        real_servers: vec![server],
    }
}

/// The same with FULLNAT.
pub(crate) fn full_nat(mut service: VirtualServer) -> VirtualServer {
    service.options.full_nat = FullNat {
        local_addresses: vec![Address::v4(LOCAL)],
        ..FullNat::default()
    };
    for server in &mut service.real_servers {
        server.method = ForwardingMethod::FullNat;
    }
    service
}

pub(crate) fn ethernet(
    source: [u8; 4],
    destination: [u8; 4],
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let (from, to) = ([2, 0, 0, 0, 0, 0xc1], [2, 0, 0, 0, 0, 0xd1]);
    PacketBuilder::ethernet2(from, to).ipv4(source, destination, 64)
}

pub(crate) fn syn(client: [u8; 4], port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = ethernet(client, VIP).tcp(port, 80, 1000, 500).syn();
    builder.write(&mut packet, b"").expect("a packet");
    packet
}

/// What a client says once the connection is there.
pub(crate) fn ack(client: [u8; 4], port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = ethernet(client, VIP).tcp(port, 80, 1001, 500).ack(2);
    builder.write(&mut packet, b"GET").expect("a packet");
    packet
}

/// What the server does; its last packet with a FIN.
pub(crate) fn data(client: [u8; 4], port: u16, is_last: bool) -> Vec<u8> {
    let mut packet = Vec::new();
    let mut builder = ethernet(SERVER, client).tcp(80, port, 2, 500).ack(1004);
    if is_last {
        builder = builder.fin();
    }
    builder.write(&mut packet, b"page").expect("a packet");
    packet
}

pub(crate) fn syn_ack(client: [u8; 4], port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = ethernet(SERVER, client)
        .tcp(80, port, 1, 500)
        .syn()
        .ack(1001);
    builder.write(&mut packet, b"").expect("a packet");
    packet
}

pub(crate) fn udp(source: ([u8; 4], u16), destination: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = ethernet(source.0, destination.0).udp(source.1, destination.1);
    builder.write(&mut packet, payload).expect("a packet");
    packet
}

/// Cuts a packet in two fragments, the first with `first` bytes of payload.
pub(crate) fn cut(packet: &[u8], first: usize) -> [Vec<u8>; 2] {
    let payload = &packet[34..];
    let fragment = |offset: usize, more: bool, payload: &[u8]| {
        let mut header = Ipv4Header::from_slice(&packet[14..]).expect("a header").0;
        header.dont_fragment = false;
        header.identification = 77;
        header.more_fragments = more;
        let units = u16::try_from(offset / 8).expect("short");
        header.fragment_offset = units.try_into().expect("short");
        header.set_payload_len(payload.len()).expect("short");
        header.header_checksum = header.calc_header_checksum();
        [&packet[..14], &header.to_bytes()[..], payload].concat()
    };
    [
        fragment(0, true, &payload[..first]),
        fragment(first, false, &payload[first..]),
    ]
}

pub(crate) fn source(packet: &[u8]) -> ([u8; 4], u16) {
    let address = packet[26..30].try_into().expect("four bytes");
    (address, u16::from_be_bytes([packet[34], packet[35]]))
}

pub(crate) fn destination(packet: &[u8]) -> ([u8; 4], u16) {
    let address = packet[30..34].try_into().expect("four bytes");
    (address, u16::from_be_bytes([packet[36], packet[37]]))
}

/// What holds for all workers together; `on_the_way` are between two of them.
pub(crate) fn assert_sums(workers: &[Worker<RingDevice>], on_the_way: u64) {
    let sum = |value: fn(&Counters) -> u64| -> u64 {
        workers.iter().map(|worker| value(worker.counters())).sum()
    };
    let given = sum(|counters| counters.handed_off_tx);
    assert_eq!(given - sum(|counters| counters.handed_off_rx), on_the_way);
    assert_eq!(
        sum(|counters| counters.rx_packets + counters.fragments_made),
        sum(|counters| counters.tx_packets + counters.dropped() + counters.waiting) + on_the_way
    );
    for counters in workers.iter().map(Worker::counters) {
        assert_eq!(
            counters.rx_packets + counters.handed_off_rx + counters.fragments_made,
            counters.tx_packets + counters.handed_off_tx + counters.dropped() + counters.waiting
        );
    }
}

pub(crate) fn turn(workers: &mut [Worker<RingDevice>], now: u64) {
    // Asked in turn: as many turns until all are done.
    for _ in 0..=workers.len() {
        for worker in workers.iter_mut() {
            worker.turn(now);
        }
    }
    assert_sums(workers, 0);
}
