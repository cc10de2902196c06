//! Random and mutated packets through a worker over in-memory rings, for every forwarding method:
//! nothing panics, rx = tx + Σ drops (+ waiting, and fragments made), and every frame comes back.
//!
//! The packets are those that arrive in the conformance cases, changed a little, or a lot, or not at
//! all. Each run sends the same ones. `STORM_PACKETS` says how many, over all methods:
//!
//! ```text
//! STORM_PACKETS=10000000 cargo test --release -p dataplane --test storm -- --nocapture
//! ```

use std::path::Path;
use std::sync::{Arc, mpsc};

use arc_swap::ArcSwap;
use dataplane::conn::Timeouts;
use dataplane::counters::{Counters, DropReason, WorkerStatistics};
use dataplane::device::BURST;
use dataplane::device::pcap::CaptureReader;
use dataplane::device::ring::{RingDevice, RingPeer, pair};
use dataplane::director::{Director, DirectorOptions};
use dataplane::flow::FlowHasher;
use dataplane::routes::{Egress, Routes};
use dataplane::service::{
    Address, ForwardingMethod, FullNat, MacAddress, NextHop, PortIndex, Protocol, RealServer,
    SchedulerKind, ServerId, ServiceKey, ServiceOptions, TcpMidstream, Thresholds, Tunnel,
    VirtualServer, VirtualServerId,
};
use dataplane::snapshot::Snapshot;
use dataplane::worker::{Port, Worker};
use dataplane::xsk::umem::{Frame, FrameSize, Umem};

/// What is quick enough for every run of the tests.
const PACKETS: u64 = 300_000;
const FRAMES: u32 = 1024;
/// Bytes of the longest frame that is sent.
const LONGEST: usize = 3500;

const METHODS: [ForwardingMethod; 6] = [
    ForwardingMethod::Direct,
    ForwardingMethod::Nat,
    ForwardingMethod::FullNat,
    ForwardingMethod::Tunnel(Tunnel::Ipip),
    ForwardingMethod::Tunnel(Tunnel::Gre),
    ForwardingMethod::Tunnel(Tunnel::Gue { port: 6080 }),
];

/// xorshift64*: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("64 bits");
        usize::try_from((self.next() >> 16) % end).expect("64 bits")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// The frames that arrive in the conformance cases.
fn arriving() -> Vec<Vec<u8>> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance");
    let mut captures: Vec<_> = std::fs::read_dir(cases)
        .expect("the cases")
        .map(|case| case.expect("a case").path().join("in.pcap"))
        .filter(|capture| capture.exists())
        .collect();
    captures.sort();
    let mut frames = Vec::new();
    for capture in captures {
        let mut capture = CaptureReader::open(capture).expect("a capture");
        while let Some(packet) = capture.next_packet().expect("a packet") {
            frames.push(packet.data.into_owned());
        }
    }
    frames
}

/// A frame as it came, with a few bytes changed, cut, longer, or of random bytes behind the link
/// header. Of half of those that changed the IPv4 checksum is right again: what is behind it is seen.
fn mutate(frame: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frame = frame[..frame.len().min(LONGEST)].to_vec();
    match random.below(8) {
        0 => return frame,
        1..=4 => {
            for _ in 0..=random.below(4) {
                // Most of what matters is in the first hundred bytes.
                let at = random.below(frame.len().clamp(1, 100));
                if let Some(byte) = frame.get_mut(at) {
                    *byte = match random.below(3) {
                        0 => *byte ^ 1 << random.below(8),
                        1 => [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                        _ => random.byte(),
                    };
                }
            }
        }
        5 => frame.truncate(random.below(frame.len() + 1)),
        6 => frame.resize(
            (frame.len() + random.below(200)).min(LONGEST),
            random.byte(),
        ),
        _ => {
            let length = 14 + random.below(200);
            frame.resize(length.max(frame.len()), 0);
            frame.truncate(length);
            frame[14..].fill_with(|| random.byte());
            if random.below(2) == 0 && length > 14 {
                frame[14] = [0x45, 0x60][random.below(2)];
            }
        }
    }
    if random.below(2) == 0 {
        repair(&mut frame);
    }
    frame
}

/// Makes the checksum of an untagged IPv4 header right.
fn repair(frame: &mut [u8]) {
    let Some(ip) = frame.get_mut(14..34) else {
        return;
    };
    ip[10..12].fill(0);
    let words = ip.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let [.., high, low] = (!((sum & 0xffff) + (sum >> 16))).to_be_bytes();
    ip[10..12].copy_from_slice(&[high, low]);
}

/// The virtual servers of the cases: TCP 80, UDP 53 and SCTP 7000 over IPv4 and IPv6.
fn snapshot(generation: u64, method: ForwardingMethod) -> Snapshot {
    let v4 = Address::v4([192, 168, 1, 100]);
    let v6 = Address::from_octets([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let keys = [
        (80, Protocol::Tcp, 8080),
        (53, Protocol::Udp, 5353),
        (7000, Protocol::Sctp, 7001),
    ];
    let keys = [v4, v6].map(|address| keys.map(|key| (address, key)));
    let services: Vec<_> = (0..)
        .zip(keys.as_flattened())
        .map(
            |(number, &(address, (port, protocol, mapped)))| VirtualServer {
                id: VirtualServerId(number),
                key: ServiceKey {
                    address,
                    port,
                    protocol,
                },
                scheduler: SchedulerKind::WeightedLeastConnection,
                options: ServiceOptions {
                    full_nat: FullNat {
                        local_addresses: vec![local(address)],
                        ..FullNat::default()
                    },
                    ..ServiceOptions::default()
                },
                real_servers: (1..=2)
                    .map(|server| real_server(number * 2 + server, address, mapped, method))
                    .collect(),
            },
        )
        .collect();
    // Small enough for answers of "too big" and for fragments.
    let egress = Egress {
        index: 0,
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        mtu: 1400,
        v4: Some(local(v4)),
        v6: Some(local(v6)),
    };
    Snapshot::new(
        generation,
        Timeouts::default(),
        TcpMidstream::Schedule,
        &services,
    )
    .with_routes(Routes::new([], Vec::new(), vec![egress]))
}

/// An address of the director, of the family of `like`.
fn local(like: Address) -> Address {
    match like.is_v4() {
        true => Address::v4([192, 0, 2, 1]),
        false => Address::from_octets([0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    }
}

/// One of the cases' real servers, with the port of most cases of NAT.
fn real_server(id: u32, like: Address, port: u16, method: ForwardingMethod) -> RealServer {
    let [.., number] = id.to_be_bytes();
    RealServer {
        id: ServerId(id),
        address: match like.is_v4() {
            true => Address::v4([10, 1, 0, 2 - number % 2]),
            false => local(like).network(112),
        },
        port,
        method,
        weight: 1,
        available: true,
        drained: false,
        next_hop: Some(NextHop {
            port: PortIndex(0),
            destination: MacAddress([2, 0, 0, 0, 0, number]),
            source: MacAddress([2, 0, 0, 0, 0, 1]),
        }),
        thresholds: Thresholds::default(),
    }
}

/// A worker of one method and the other end of its ring.
struct Storm {
    worker: Worker<RingDevice>,
    peer: RingPeer,
    umem: Arc<Umem>,
    ours: Vec<Frame>,
    now: u64,
}

impl Storm {
    fn new(method: ForwardingMethod) -> Self {
        let (umem, mut pool) = Umem::new(FRAMES, FrameSize::Bytes4096).expect("memory");
        let ours = (0..FRAMES / 2).filter_map(|_| pool.take()).collect();
        let (device, peer) = pair(FRAMES as usize);
        let published = Arc::new(ArcSwap::from_pointee(snapshot(1, method)));
        let statistics = [Arc::new(WorkerStatistics::new(16, 1))];
        let options = DirectorOptions {
            // Few, so that the table is full now and then.
            max_connections: 1000,
            hasher: FlowHasher::fixed(),
            worker: 0,
            kernel: None,
        };
        let director = Director::new(options, published, &statistics);
        let (_, requests) = mpsc::channel();
        let ports = vec![Port {
            index: PortIndex(0),
            device,
        }];
        let worker = Worker::new(ports, Arc::clone(&umem), pool, director, requests);
        Self {
            worker,
            peer,
            umem,
            ours,
            now: 0,
        }
    }

    fn turn(&mut self, packets: &[Vec<u8>]) {
        let mut frames = Vec::with_capacity(packets.len());
        for packet in packets {
            let mut frame = self.ours.pop().expect("a frame lost: none is left");
            self.umem.fill(&mut frame, packet).expect("it fits");
            frames.push(frame);
        }
        assert_eq!(self.peer.send(&mut frames), packets.len());
        self.worker.turn(self.now);
        self.take_back();
        let counters = self.worker.counters();
        assert_eq!(
            counters.rx_packets + counters.fragments_made,
            counters.tx_packets + counters.dropped() + counters.waiting,
            "{counters:?}"
        );
    }

    fn take_back(&mut self) {
        let mut sent = Vec::new();
        while self.peer.receive(&mut sent) > 0 {}
        self.ours.append(&mut sent);
        while self.peer.recycled(&mut self.ours) > 0 {}
    }

    /// Sends so many; nothing waits any more in the end, and every frame is back.
    fn rage(mut self, packets: u64, seeds: &[Vec<u8>], random: &mut Random) -> Counters {
        let mut left = packets;
        while left > 0 {
            let burst = usize::try_from(left).map_or(BURST, |left| left.min(BURST));
            let start = random.below(seeds.len());
            let neighbours = seeds.iter().cycle().skip(start).take(burst);
            let frames: Vec<_> = neighbours.map(|seed| mutate(seed, random)).collect();
            self.turn(&frames);
            // Connections end, so that the table does not stay full, and frames that wait give up.
            self.now += [1, 10, 2000][random.below(3)];
            left -= u64::try_from(burst).expect("64 bits");
        }
        for _ in 0..100 {
            self.now += 2000;
            self.turn(&[]);
        }
        let counters = self.worker.counters().clone();
        assert_eq!((counters.rx_packets, counters.waiting), (packets, 0));
        // What is sent comes back to us, and so does what was dropped; of the worker's own, fragments are made.
        let frames = self.ours.len() + self.worker.pool().len();
        assert_eq!(frames, FRAMES as usize, "frames that came back");
        counters
    }
}

#[test]
fn nothing_panics_and_nothing_is_lost() {
    let packets = match std::env::var("STORM_PACKETS") {
        Ok(written) => written.parse().expect("STORM_PACKETS: a number"),
        Err(_) => PACKETS,
    };
    let seeds = arriving();
    assert!(seeds.len() > 500, "only {} seeds", seeds.len());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let each = packets.div_ceil(METHODS.len() as u64);
    for method in METHODS {
        let counters = Storm::new(method).rage(each, &seeds, &mut random);
        // A storm that hits nothing proves nothing.
        assert!(counters.tx_packets > each / 20, "{method:?}: {counters:?}");
        let reasons = DropReason::ALL.iter();
        let seen = reasons.filter(|reason| counters.drops[**reason as usize] > 0);
        assert!(seen.count() >= 15, "{method:?}: {counters:?}");
        println!(
            "{method:?}: {each} packets, {} sent, {} dropped, {} fragments made, {} connections",
            counters.tx_packets,
            counters.dropped(),
            counters.fragments_made,
            counters.connections_created,
        );
    }
}
