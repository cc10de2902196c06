//! How NAT answers clients that are neighbours: where their last request came from, whatever became of the interfaces and
//! routes since the first one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dataplane::conn::Timeouts;
use dataplane::counters::{DropReason, WorkerStatistics};
use dataplane::device::BURST;
use dataplane::director::{Director, DirectorOptions, Verdict};
use dataplane::flow::FlowHasher;
use dataplane::handoff::Arrival;
use dataplane::routes::{Egress, Prefix, Routes, Via};
use dataplane::service::{
    Address, ForwardingMethod, GatewayId, MacAddress, NextHop, PortIndex, Protocol, RealServer,
    SchedulerKind, ServerId, ServiceKey, ServiceOptions, TcpMidstream, Thresholds, VirtualServer,
    VirtualServerId,
};
use dataplane::snapshot::{Published, Snapshot};
use dataplane::xsk::umem::{Frame, FramePool, FrameSize, Umem};
use etherparse::PacketBuilder;

/// The number of the IP version, and the last byte of the address.
type End = (u8, u8);
const CLIENT: u8 = 7;
const VIP: u8 = 100;
const SERVER: u8 = 1;
const VERSIONS: [u8; 2] = [4, 6];

/// One is the servers'.
const SERVERS: PortIndex = PortIndex(0);
const A: PortIndex = PortIndex(1);
const B: PortIndex = PortIndex(2);
const LAST: PortIndex = PortIndex(3);
const GATEWAY: Via = Via::Gateway(GatewayId(0));

/// A director with interfaces, whose MAC addresses end in their numbers.
struct Bench {
    director: Director,
    umem: Arc<Umem>,
    pool: FramePool,
    published: Published,
}

impl Bench {
    fn new() -> Self {
        let (umem, pool) = Umem::new(256, FrameSize::Bytes2048).expect("memory");
        let published: Published = Arc::new(ArcSwap::from_pointee(snapshot(1)));
        let options = DirectorOptions {
            max_connections: 1000,
            hasher: FlowHasher::fixed(),
            worker: 0,
            kernel: None,
        };
        let statistics = [Arc::new(WorkerStatistics::new(16, 7))];
        Self {
            director: Director::new(options, Arc::clone(&published), &statistics),
            umem,
            pool,
            published,
        }
    }

    /// From now on clients are reached so, and these interfaces are there. The gateway is at `A`.
    fn route(&mut self, via: Via, ports: &[PortIndex]) {
        let before = self.published.load();
        let highest = ports.iter().map(|port| port.0).max().unwrap_or(0);
        let egress = (0..=highest).map(|number| {
            let is_there = ports.contains(&PortIndex(number));
            Egress {
                index: number.into(),
                mac: own(PortIndex(number)),
                mtu: if is_there { 1500 } else { 0 },
                v4: None,
                v6: None,
            }
        });
        let gateway = NextHop {
            port: A,
            destination: MacAddress([2, 0, 0, 0, 9, 9]),
            source: own(A),
        };
        let everything = [Address::from_octets([0; 16]), Address::v4([0; 4])];
        let routes = everything.map(|address| (Prefix::new(address, 0), via));
        let routes = Routes::new(routes, vec![Some(gateway)], egress.collect());
        let routes = routes.replacing(&before.routes);
        let next = snapshot(before.generation + 1).with_routes(routes);
        self.published.store(Arc::new(next));
        self.director.adopt();
        while self.director.tick(0) {}
    }

    /// What becomes of packets that came by these interfaces, as of one burst.
    fn burst(&mut self, packets: &[(PortIndex, Vec<u8>)]) -> Vec<Result<Hop, Verdict>> {
        let mut frames = Vec::new();
        for (_, packet) in packets {
            let mut frame = self.pool.take().expect("a free frame");
            self.umem.fill(&mut frame, packet).expect("fits");
            frames.push(frame);
        }
        let mut verdicts = [Verdict::Drop(DropReason::NotIp); BURST];
        let egress = if let [(ingress, _)] = packets {
            let (umem, frames) = (&self.umem, &mut frames[..]);
            self.director
                .process(*ingress, umem, frames, 0, &mut verdicts)
        } else {
            let arrivals = packets.iter().map(|(ingress, _)| Arrival {
                ingress: *ingress,
                asked: 1,
            });
            let arrivals: Vec<_> = arrivals.collect();
            let (umem, frames) = (&self.umem, &mut frames[..]);
            self.director
                .process_handed(&arrivals, umem, frames, 0, &mut verdicts)
        };
        let became = |(frame, verdict): (Frame, Verdict)| {
            let hop = hop(self.umem.bytes(&frame));
            self.pool.give(frame);
            match egress.map_or(verdict, Verdict::Transmit) {
                Verdict::Transmit(port) => Ok((port, hop.0, hop.1)),
                other @ (Verdict::Drop(_)
                | Verdict::Wait(_)
                | Verdict::Cut(_)
                | Verdict::HandOff(_)
                | Verdict::Offer) => Err(other),
            }
        };
        frames.into_iter().zip(verdicts).map(became).collect()
    }

    fn request(&mut self, version: u8, ingress: PortIndex, mac: u8) {
        let sent = self.burst(&[(ingress, request(version, mac, 1000))]);
        assert_eq!(sent[0].map(|hop| hop.0), Ok(SERVERS));
    }

    /// Where a reply leaves.
    fn reply(&mut self, version: u8) -> Result<Hop, Verdict> {
        self.burst(&[(SERVERS, reply(version, 1000))])[0]
    }
}

/// The interface, and the last bytes of the MAC addresses of destination and source.
type Hop = (PortIndex, [u8; 2], u8);

fn hop(frame: &[u8]) -> ([u8; 2], u8) {
    ([frame[4], frame[5]], frame[11])
}

/// To the client with this MAC address.
fn to(port: PortIndex, mac: u8) -> Result<Hop, Verdict> {
    Ok((port, [0, mac], own(port).0[5]))
}

fn own(port: PortIndex) -> MacAddress {
    let [last, _] = port.0.to_le_bytes();
    MacAddress([2, 0, 0, 0, 0, 0xd0 + last])
}

fn address((version, last): End) -> Address {
    match version {
        4 => Address::v4(v4(last)),
        _ => Address::from_octets(v6(last)),
    }
}

fn v4(last: u8) -> [u8; 4] {
    [10, 0, 0, last]
}

fn v6(last: u8) -> [u8; 16] {
    let mut octets = [0; 16];
    (octets[0], octets[15]) = (0xfd, last);
    octets
}

fn udp(version: u8, mac: u8, from: (u8, u16), to: (u8, u16)) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, mac], [2, 0, 0, 0, 0, 0xd1]);
    let builder = match version {
        4 => builder.ipv4(v4(from.0), v4(to.0), 64),
        _ => builder.ipv6(v6(from.0), v6(to.0), 64),
    };
    let builder = builder.udp(from.1, to.1);
    builder.write(&mut packet, b"hello").expect("a packet");
    packet
}

fn request(version: u8, mac: u8, port: u16) -> Vec<u8> {
    udp(version, mac, (CLIENT, port), (VIP, 53))
}

fn reply(version: u8, port: u16) -> Vec<u8> {
    udp(version, 1, (SERVER, 53), (CLIENT, port))
}

fn snapshot(generation: u64) -> Snapshot {
    let services = VERSIONS.map(|version| {
        let server = RealServer {
            id: ServerId(version.into()),
            address: address((version, SERVER)),
            port: 53,
            method: ForwardingMethod::Nat,
            weight: 1,
            available: true,
            drained: false,
            next_hop: Some(NextHop {
                port: SERVERS,
                destination: MacAddress([2, 0, 0, 0, 0, 1]),
                source: own(SERVERS),
            }),
            thresholds: Thresholds::default(),
        };
        VirtualServer {
            id: VirtualServerId(version.into()),
            key: ServiceKey {
                address: address((version, VIP)),
                port: 53,
                protocol: Protocol::Udp,
            },
            scheduler: SchedulerKind::RoundRobin,
            options: ServiceOptions::default(),
            real_servers: vec![server],
        }
    });
    let midstream = TcpMidstream::default();
    Snapshot::new(generation, Timeouts::default(), midstream, &services)
}

const UNRESOLVED: Result<Hop, Verdict> = Err(Verdict::Wait(DropReason::NextHopUnresolved));

#[test]
fn a_client_is_answered_by_the_port_that_its_last_request_came_by() {
    for version in VERSIONS {
        let mut bench = Bench::new();
        bench.route(Via::Link(A), &[SERVERS, A, B]);
        // Another port, another MAC address, both, and back.
        for (port, mac) in [(A, 0xc1), (B, 0xc1), (B, 0xc2), (A, 0xc1)] {
            bench.request(version, port, mac);
            assert_eq!(bench.reply(version), to(port, mac), "IPv{version}");
        }
        // Routes alone say nothing of where a neighbour is.
        bench.route(Via::Link(B), &[SERVERS, A, B]);
        assert_eq!(bench.reply(version), to(A, 0xc1));
        bench.request(version, B, 0xc1);
        assert_eq!(bench.reply(version), to(B, 0xc1));
    }
}

/// Frames that another worker handed over came by any interface.
#[test]
fn each_of_a_burst_came_by_its_own_port() {
    let mut bench = Bench::new();
    bench.route(Via::Link(A), &[SERVERS, A, B]);
    let clients = 1000..1020;
    for client in clients.clone() {
        bench.burst(&[(A, request(4, 0xc1, client))]);
    }
    let by = |client: u16| if client.is_multiple_of(3) { A } else { B };
    let both = clients.clone().flat_map(|client| {
        // A reply comes by that of the servers.
        let next = (by(client), request(4, 0xc1, client));
        [next, (SERVERS, reply(4, client))]
    });
    let sent = bench.burst(&both.collect::<Vec<_>>());
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    for client in clients {
        let left = bench.burst(&[(SERVERS, reply(4, client))])[0];
        assert_eq!(left, to(by(client), 0xc1), "{client}");
    }
}

#[test]
fn who_was_behind_a_gateway_stays_at_its_port_until_heard_of() {
    for version in VERSIONS {
        let mut bench = Bench::new();
        bench.route(GATEWAY, &[SERVERS, A, B]);
        bench.request(version, A, 9);
        let by_gateway = Ok((A, [9, 9], own(A).0[5]));
        assert_eq!(bench.reply(version), by_gateway);
        // The director has an address in the client's network now, elsewhere: the gateway is not there.
        bench.route(Via::Link(B), &[SERVERS, A, B]);
        assert_eq!(bench.reply(version), by_gateway);
        // Some clients go on by the gateway, others do not.
        bench.request(version, A, 9);
        assert_eq!(bench.reply(version), to(A, 9));
        bench.request(version, B, 0xc1);
        assert_eq!(bench.reply(version), to(B, 0xc1));
    }
}

/// An interface that was deleted, and made anew, has another number: the highest, or one between others is free.
#[test]
fn a_client_whose_port_is_gone_waits_until_it_is_heard_of() {
    for version in VERSIONS {
        for gone in [A, LAST] {
            let mut bench = Bench::new();
            bench.route(Via::Link(gone), &[SERVERS, A, B, LAST]);
            bench.request(version, gone, 0xc1);
            assert_eq!(bench.reply(version), to(gone, 0xc1));
            let left = [SERVERS, A, B, LAST].into_iter();
            let left: Vec<_> = left.filter(|port| *port != gone).collect();
            bench.route(Via::Link(B), &left);
            // Not too long for an interface that is not there.
            assert_eq!(bench.reply(version), UNRESOLVED, "IPv{version} {gone:?}");
            assert_eq!(bench.director.counters().icmp_sent, 0);
            bench.request(version, B, 0xc1);
            assert_eq!(bench.reply(version), to(B, 0xc1));
        }
    }
}
