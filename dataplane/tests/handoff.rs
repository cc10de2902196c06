//! Two workers with NAT, over in-memory rings: what belongs to a connection of the one arrives at the
//! other.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use arc_swap::ArcSwap;
use dataplane::conn::Timeouts;
use dataplane::counters::{Counters, DropReason, WorkerStatistics};
use dataplane::device::ring::{RingDevice, RingPeer, pair};
use dataplane::director::{Director, DirectorOptions};
use dataplane::flow::FlowHasher;
use dataplane::handoff;
use dataplane::service::{
    Address, ForwardingMethod, MacAddress, NextHop, PortIndex, Protocol, RealServer, SchedulerKind,
    ServerId, ServiceKey, ServiceOptions, TcpMidstream, Thresholds, VirtualServer, VirtualServerId,
};
use dataplane::snapshot::Snapshot;
use dataplane::worker::{Port, Worker};
use dataplane::xsk::umem::{Frame, FrameSize, Umem};
use etherparse::{Ipv4Header, PacketBuilder};

const VIP: [u8; 4] = [192, 168, 1, 100];
const SERVER: [u8; 4] = [192, 168, 2, 1];
const CLIENT: [u8; 4] = [10, 0, 0, 7];
const WIRE: PortIndex = PortIndex(0);
/// The way back to the kernel: a ring as well, so that it is seen what goes there.
const KERNEL: PortIndex = PortIndex(1);
const FRAMES: u32 = 4096;

/// One worker's network: the other ends of its rings and the frames that are with us.
struct Net {
    wire: RingPeer,
    kernel: RingPeer,
    umem: Arc<Umem>,
    ours: Vec<Frame>,
}

impl Net {
    fn send(&mut self, packet: &[u8]) {
        let mut frame = self.ours.pop().expect("a free frame");
        self.umem.fill(&mut frame, packet).expect("fits");
        assert_eq!(
            self.wire.send(&mut vec![frame]),
            1,
            "the ring is long enough"
        );
    }

    fn received(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while self.wire.receive(&mut frames) > 0 {}
        self.take(frames)
    }

    fn given_to_kernel(&mut self) -> Vec<Vec<u8>> {
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
fn workers(number: u32, max_connections: u32) -> (Vec<Worker<RingDevice>>, Vec<Net>) {
    let published = Arc::new(ArcSwap::from_pointee(snapshot()));
    let statistics: Vec<_> = (0..number)
        .map(|_| Arc::new(WorkerStatistics::new(16, 2)))
        .collect();
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
            let director = Director::new(options, Arc::clone(&published), &statistics);
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

/// TCP port 80 and UDP port 53 of the VIP, one real server with NAT.
fn snapshot() -> Snapshot {
    let server = |id, port| RealServer {
        id: ServerId(id),
        address: Address::v4(SERVER),
        port,
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
    let service = |(id, port, protocol)| VirtualServer {
        id: VirtualServerId(id),
        key: ServiceKey {
            address: Address::v4(VIP),
            port,
            protocol,
        },
        scheduler: SchedulerKind::RoundRobin,
        options: ServiceOptions::default(),
        real_servers: vec![server(id, port)],
    };
    let services = [(0, 80, Protocol::Tcp), (1, 53, Protocol::Udp)].map(service);
    Snapshot::new(1, Timeouts::default(), TcpMidstream::Reset, &services)
}

fn ethernet(
    source: [u8; 4],
    destination: [u8; 4],
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let (from, to) = ([2, 0, 0, 0, 0, 0xc1], [2, 0, 0, 0, 0, 0xd1]);
    PacketBuilder::ethernet2(from, to).ipv4(source, destination, 64)
}

fn syn(client: [u8; 4], port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = ethernet(client, VIP).tcp(port, 80, 1000, 500).syn();
    builder.write(&mut packet, b"").expect("a packet");
    packet
}

fn syn_ack(client: [u8; 4], port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = ethernet(SERVER, client)
        .tcp(80, port, 1, 500)
        .syn()
        .ack(1001);
    builder.write(&mut packet, b"").expect("a packet");
    packet
}

fn udp(source: ([u8; 4], u16), destination: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = ethernet(source.0, destination.0).udp(source.1, destination.1);
    builder.write(&mut packet, payload).expect("a packet");
    packet
}

/// Cuts a packet in two fragments, the first with `first` bytes of payload.
fn cut(packet: &[u8], first: usize) -> [Vec<u8>; 2] {
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

fn source(packet: &[u8]) -> ([u8; 4], u16) {
    let address = packet[26..30].try_into().expect("four bytes");
    (address, u16::from_be_bytes([packet[34], packet[35]]))
}

fn destination(packet: &[u8]) -> ([u8; 4], u16) {
    let address = packet[30..34].try_into().expect("four bytes");
    (address, u16::from_be_bytes([packet[36], packet[37]]))
}

/// What holds for all workers together; `on_the_way` are between two of them.
fn assert_sums(workers: &[Worker<RingDevice>], on_the_way: u64) {
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

fn turn(workers: &mut [Worker<RingDevice>], now: u64) {
    // Asked in turn: as many turns until all are done.
    for _ in 0..=workers.len() {
        for worker in workers.iter_mut() {
            worker.turn(now);
        }
    }
    assert_sums(workers, 0);
}

#[test]
fn a_reply_at_another_worker_reaches_its_client() {
    let (mut workers, mut nets) = workers(3, 100);
    nets[0].send(&syn(CLIENT, 1111));
    turn(&mut workers, 0);
    let request = nets[0].received();
    assert_eq!(destination(&request[0]), (SERVER, 80));
    for arrives in [1, 2, 0] {
        nets[arrives].send(&syn_ack(CLIENT, 1111));
        turn(&mut workers, 1);
        let reply = nets[0].received();
        assert_eq!(reply.len(), 1);
        assert_eq!(source(&reply[0]), (VIP, 80));
        assert_eq!(destination(&reply[0]), (CLIENT, 1111));
    }
    let counters = workers[0].counters();
    assert_eq!((counters.rx_packets, counters.handed_off_rx), (2, 2));
    for worker in &workers[1..] {
        let counters = worker.counters();
        assert_eq!(
            (counters.rx_packets, counters.handed_off_tx),
            (1, 1),
            "directly"
        );
        assert_eq!(counters.connections_created, 0);
    }
}

#[test]
fn what_is_nobodys_goes_to_the_kernel_when_all_were_asked() {
    let (mut workers, mut nets) = workers(3, 100);
    nets[1].send(&syn_ack(CLIENT, 9));
    turn(&mut workers, 0);
    assert_eq!(nets[0].given_to_kernel(), [syn_ack(CLIENT, 9)], "unchanged");
    let asked = workers.iter().map(|worker| worker.counters().handed_off_rx);
    assert_eq!(asked.collect::<Vec<_>>(), [1, 0, 1]);
    assert_eq!(workers[0].counters().returned_to_kernel, 1);
}

#[test]
fn an_ended_connection_is_listed_no_more() {
    let (mut workers, mut nets) = workers(2, 100);
    nets[0].send(&syn(CLIENT, 5));
    turn(&mut workers, 0);
    nets[0].received();
    let mut now = 0;
    while workers[0].counters().connections > 0 {
        now += 1000;
        workers[0].pass_time(now);
    }
    nets[1].send(&syn_ack(CLIENT, 5));
    turn(&mut workers, now);
    assert_eq!(nets[0].given_to_kernel().len(), 1);
    assert_eq!(
        workers[1].counters().handed_off_tx,
        1,
        "offered once, to worker 0"
    );
    assert_eq!(workers[0].counters().handed_off_tx, 0);
}

#[test]
fn fragments_of_a_reply_follow_the_first_one() {
    let answer = udp((SERVER, 53), (CLIENT, 5353), &[7; 100]);
    for late_first in [false, true] {
        let (mut workers, mut nets) = workers(2, 100);
        nets[0].send(&udp((CLIENT, 5353), (VIP, 53), b"query"));
        turn(&mut workers, 0);
        nets[0].received();
        let mut fragments = cut(&answer, 48);
        if late_first {
            fragments.reverse();
        }
        for fragment in &fragments {
            nets[1].send(fragment);
            turn(&mut workers, 1);
        }
        let sent = nets[0].received();
        assert_eq!(sent.len(), 2, "late first: {late_first}");
        for fragment in &sent {
            assert_eq!(source(fragment).0, VIP);
            assert_eq!(destination(fragment).0, CLIENT);
        }
        assert_eq!(workers[1].counters().handed_off_tx, 2);
    }
}

#[test]
fn icmp_errors_find_their_connection_from_either_side() {
    let (mut workers, mut nets) = workers(2, 100);
    nets[0].send(&syn(CLIENT, 1111));
    turn(&mut workers, 0);
    let request = nets[0].received().remove(0);
    let error = |router, destination, about: &[u8]| {
        let unreachable = etherparse::Icmpv4Type::DestinationUnreachable(
            etherparse::icmpv4::DestUnreachableHeader::Host,
        );
        let mut packet = Vec::new();
        let builder = ethernet(router, destination).icmpv4(unreachable);
        builder.write(&mut packet, &about[14..]).expect("a packet");
        packet
    };
    // A router behind us cannot reach the real server: about the request, as we sent it.
    nets[1].send(&error([192, 168, 2, 254], CLIENT, &request));
    turn(&mut workers, 1);
    let told = nets[0].received();
    assert_eq!(destination(&told[0]).0, CLIENT);
    assert_eq!(source(&told[0]).0, VIP, "the client knows no other");
    // A router near the client cannot reach it: about the reply, as the client would have got it.
    nets[1].send(&syn_ack(CLIENT, 1111));
    turn(&mut workers, 2);
    let reply = nets[0].received().remove(0);
    nets[1].send(&error([10, 0, 0, 254], VIP, &reply));
    turn(&mut workers, 3);
    let told = nets[0].received();
    assert_eq!(destination(&told[0]).0, SERVER);
    assert_eq!(
        nets[0].given_to_kernel().len() + nets[1].given_to_kernel().len(),
        0
    );
}

#[test]
fn too_many_on_their_way_are_dropped_and_counted() {
    let (mut workers, mut nets) = workers(2, 100);
    nets[0].send(&syn(CLIENT, 1111));
    workers[0].turn(0);
    nets[0].received();
    let room = u64::from(handoff::frames(2));
    for _ in 0..room + 10 {
        nets[1].send(&syn_ack(CLIENT, 1111));
    }
    // Worker 0 does not move.
    while workers[1].turn(1) > 0 {}
    assert_eq!(
        workers[1].counters().drops[DropReason::HandoffRingFull as usize],
        10
    );
    assert_sums(&workers, room);
    while workers[0].turn(2) > 0 {}
    assert_eq!(nets[0].received().len() as u64, room);
    // Worker 1 gets its frames back, and with them pays those that it was sent.
    workers[1].turn(3);
    workers[1].turn(3);
    nets[1].received();
    let frames = [0, 1].map(|number| nets[number].ours.len() + workers[number].pool().len());
    assert_eq!(frames, [FRAMES as usize; 2]);
}

/// Every answer arrives at the other worker, while both run; then both are stopped in the midst of it.
#[test]
fn two_running_workers_lose_nothing() {
    const CONNECTIONS: u32 = 100_000;
    /// Requests and replies on their way.
    const WINDOW: usize = 768;
    let client = |number: u32| {
        let [_, high, low, rest] = (number / 2).to_be_bytes();
        (
            [10, 1, high, low],
            1000 + u16::from(rest) * 2 + u16::from(number % 2 == 1),
        )
    };
    let (workers, mut nets) = workers(2, CONNECTIONS);
    let stop = AtomicBool::new(false);
    let run = |mut worker: Worker<RingDevice>| {
        while !stop.load(Ordering::Relaxed) {
            if worker.turn(0) == 0 {
                std::thread::yield_now();
            }
        }
        worker
    };
    let (mut asked, mut answered) = (0, vec![false; CONNECTIONS as usize]);
    let mut missing = CONNECTIONS;
    let mut window = 0;
    let workers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (workers.into_iter())
            .map(|worker| scope.spawn(|| run(worker)))
            .collect();
        while missing > 0 {
            while window < WINDOW && asked < CONNECTIONS {
                let (address, port) = client(asked);
                nets[asked as usize % 2].send(&syn(address, port));
                asked += 1;
                window += 1;
            }
            for owner in [0, 1] {
                for packet in nets[owner].received() {
                    let (address, port) = match source(&packet) {
                        (VIP, 80) => destination(&packet),
                        _ => {
                            let (address, port) = source(&packet);
                            nets[1 - owner].send(&syn_ack(address, port));
                            continue;
                        }
                    };
                    let number = u32::from(Ipv4Addr::from(address)) & 0xffff;
                    let number = (number * 256 + u32::from((port - 1000) / 2)) * 2
                        + u32::from(port % 2 == 1);
                    assert_eq!(number as usize % 2, owner, "leaves by its own queue");
                    assert!(!std::mem::replace(&mut answered[number as usize], true));
                    missing -= 1;
                    window -= 1;
                }
            }
            std::thread::yield_now();
        }
        for number in 0..400 {
            let (address, port) = client(number);
            nets[1 - number as usize % 2].send(&syn_ack(address, port));
        }
        stop.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    let counters = workers.iter().map(Worker::counters);
    let on_the_way: i64 = counters
        .map(|counters| counters.handed_off_tx.cast_signed() - counters.handed_off_rx.cast_signed())
        .sum();
    assert_sums(
        &workers,
        u64::try_from(on_the_way).expect("none out of nowhere"),
    );
    for counters in workers.iter().map(Worker::counters) {
        assert_eq!(counters.dropped() + counters.returned_to_kernel, 0);
        assert_eq!(counters.connections, u64::from(CONNECTIONS / 2));
        assert!(counters.handed_off_rx >= u64::from(CONNECTIONS / 2));
    }
}
