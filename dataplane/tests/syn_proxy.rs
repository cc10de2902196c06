//! The SYN proxy when real servers go: what only shows when they change while a connection is opened.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dataplane::conn::Timeouts;
use dataplane::counters::{DropReason, WorkerStatistics};
use dataplane::device::BURST;
use dataplane::director::{Director, DirectorOptions, Verdict};
use dataplane::flow::FlowHasher;
use dataplane::limits::SynProxy;
use dataplane::service::{
    Address, ForwardingMethod, MacAddress, NextHop, PortIndex, Protocol, RealServer, SchedulerKind,
    ServerId, ServiceKey, ServiceOptions, TcpMidstream, Thresholds, VirtualServer, VirtualServerId,
};
use dataplane::snapshot::{Expiry, Published, Snapshot};
use dataplane::xsk::umem::{Frame, FramePool, FrameSize, Umem};
use etherparse::{PacketBuilder, SlicedPacket, TcpSlice, TransportSlice};

const VIP: [u8; 4] = [192, 168, 1, 100];
const CLIENT: [u8; 4] = [10, 0, 0, 7];

struct Bench {
    director: Director,
    umem: Arc<Umem>,
    frame: Frame,
    _pool: FramePool,
    published: Published,
    expiry: Expiry,
    /// In milliseconds.
    now: u64,
}

impl Bench {
    fn new(nodest_conn: bool, servers: &[RealServer]) -> Self {
        let (umem, mut pool) = Umem::new(8, FrameSize::Bytes2048).expect("memory");
        let frame = pool.take().expect("a frame");
        let published: Published = Arc::new(ArcSwap::from_pointee(Snapshot::empty()));
        let options = DirectorOptions {
            max_connections: 100,
            hasher: FlowHasher::fixed(),
            worker: 0,
            kernel: None,
        };
        let statistics = [Arc::new(WorkerStatistics::new(16, 1))];
        let mut bench = Self {
            director: Director::new(options, Arc::clone(&published), &statistics),
            umem,
            frame,
            _pool: pool,
            published,
            expiry: Expiry {
                nodest_conn,
                ..Expiry::default()
            },
            now: 0,
        };
        bench.publish(servers);
        bench
    }

    fn publish(&mut self, servers: &[RealServer]) {
        let before = self.published.load();
        let service = VirtualServer {
            id: VirtualServerId(0),
            key: ServiceKey {
                address: Address::v4(VIP),
                port: 80,
                protocol: Protocol::Tcp,
            },
            scheduler: SchedulerKind::RoundRobin,
            options: ServiceOptions {
                syn_proxy: Some(SynProxy::Always),
                ..ServiceOptions::default()
            },
            real_servers: servers.to_vec(),
        };
        let snapshot = Snapshot::replacing(
            &before,
            before.generation + 1,
            Timeouts::default(),
            TcpMidstream::Reset,
            &[service],
        );
        self.published
            .store(Arc::new(snapshot.with_expiry(self.expiry)));
        self.director.adopt();
    }

    /// What becomes of a segment: whom it goes to, and the segment.
    fn arrive(&mut self, packet: &[u8]) -> Result<Left, Verdict> {
        self.umem.fill(&mut self.frame, packet).expect("fits");
        let mut verdict = [Verdict::Drop(DropReason::NotIp); BURST];
        let (umem, frames) = (&self.umem, std::slice::from_mut(&mut self.frame));
        let egress = (self.director).process(PortIndex(0), umem, frames, self.now, &mut verdict);
        while self.director.tick(self.now) {}
        match egress.map_or(verdict[0], Verdict::Transmit) {
            Verdict::Transmit(_) => Ok(Left::of(self.umem.bytes(&self.frame))),
            other @ (Verdict::Drop(_)
            | Verdict::Wait(_)
            | Verdict::Cut(_)
            | Verdict::HandOff(_)
            | Verdict::Offer) => Err(other),
        }
    }

    fn client(&mut self, flags: &str, acknowledgment: u32) -> Result<Left, Verdict> {
        let sequence = if flags == "S" { 1000 } else { 1001 };
        self.arrive(&segment(
            (CLIENT, 40_001),
            (VIP, 80),
            flags,
            sequence,
            acknowledgment,
        ))
    }

    /// A client's handshake: the number that its ACK has.
    fn handshake(&mut self) -> u32 {
        let answer = self.client("S", 0).expect("an answer");
        assert_eq!((answer.to, answer.flags), (CLIENT, "SA"));
        answer.sequence.wrapping_add(1)
    }

    fn seconds(&mut self, seconds: u64) {
        self.now += seconds * 1000;
    }
}

/// A segment that left.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    to: [u8; 4],
    flags: &'static str,
    sequence: u32,
}

impl Left {
    fn of(packet: &[u8]) -> Self {
        let sliced = SlicedPacket::from_ethernet(packet).expect("a packet");
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
            panic!("no segment: {packet:?}");
        };
        Self {
            to: packet[30..34].try_into().expect("four bytes"),
            flags: flags(&tcp),
            sequence: tcp.sequence_number(),
        }
    }
}

fn flags(tcp: &TcpSlice<'_>) -> &'static str {
    match (tcp.syn(), tcp.ack(), tcp.rst()) {
        (true, false, false) => "S",
        (true, true, false) => "SA",
        (false, true, false) => "A",
        (false, _, true) => "R",
        other => panic!("flags {other:?}"),
    }
}

fn segment(
    from: ([u8; 4], u16),
    to: ([u8; 4], u16),
    flags: &str,
    sequence: u32,
    acknowledgment: u32,
) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xc1], [2, 0, 0, 0, 0, 0xd1])
        .ipv4(from.0, to.0, 64)
        .tcp(from.1, to.1, sequence, 500);
    let builder = match flags {
        "S" => builder.syn(),
        "SA" => builder.syn().ack(acknowledgment),
        "A" => builder.ack(acknowledgment),
        "R" => builder.rst(),
        other => panic!("flags {other}"),
    };
    builder.write(&mut packet, b"").expect("a packet");
    packet
}

fn address(number: u8) -> [u8; 4] {
    [192, 168, 1, number]
}

fn server(number: u8) -> RealServer {
    RealServer {
        id: ServerId(number.into()),
        address: Address::v4(address(number)),
        port: 80,
        method: ForwardingMethod::Nat,
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

fn asked(number: u8) -> Left {
    Left {
        to: address(number),
        flags: "S",
        sequence: 1000,
    }
}

/// To the client it is established: it will never send another SYN that could lead it elsewhere.
#[test]
fn a_client_whose_silent_server_goes_is_served_by_another_one() {
    for nodest_conn in [false, true] {
        for rest in [vec![down(1), server(2)], vec![server(2)]] {
            let mut bench = Bench::new(nodest_conn, &[server(1), server(2)]);
            let number = bench.handshake();
            assert_eq!(bench.client("A", number), Ok(asked(1)));
            bench.seconds(1);
            assert_eq!(bench.client("A", number), Ok(asked(1)), "it may answer yet");
            bench.seconds(1);
            bench.publish(&rest);
            assert_eq!(bench.client("A", number), Ok(asked(2)));
            let counters = bench.director.counters();
            assert_eq!((counters.connections, counters.connections_reused), (1, 1));
            // It is that one's connection now.
            let answer = segment((address(2), 80), (CLIENT, 40_001), "SA", 5000, 1001);
            let ack = bench.arrive(&answer).expect("an ACK");
            assert_eq!((ack.to, ack.flags), (address(2), "A"));
            let more = bench.client("A", number).expect("sent");
            assert_eq!((more.to, more.flags), (address(2), "A"));
        }
    }
}

#[test]
fn a_client_whose_server_went_too_long_ago_is_told() {
    let mut bench = Bench::new(true, &[server(1), server(2)]);
    let number = bench.handshake();
    // Its repetitions keep the connection, not the number.
    for _ in 0..20 {
        assert_eq!(bench.client("A", number), Ok(asked(1)));
        bench.seconds(30);
    }
    bench.publish(&[down(1), server(2)]);
    let answer = bench.client("A", number).expect("an answer");
    assert_eq!((answer.to, answer.flags), (CLIENT, "R"));
    assert_eq!(bench.director.counters().connections, 0);
}

#[test]
fn a_client_that_begins_anew_or_gives_up_leaves_nothing() {
    for (flags, expected) in [("S", Some("SA")), ("R", None)] {
        let mut bench = Bench::new(false, &[server(1), server(2)]);
        let number = bench.handshake();
        assert_eq!(bench.client("A", number), Ok(asked(1)));
        bench.publish(&[down(1), server(2)]);
        let left = bench.client(flags, 0).ok().map(|left| left.flags);
        assert_eq!(left, expected);
        assert_eq!(bench.director.counters().connections, 0);
    }
}
