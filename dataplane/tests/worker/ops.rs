//! One-packet scheduling of a socket's datagrams that come in one burst, or before their server's next hop is known.

use dataplane::routes::{Egress, Routes};
use dataplane::service::Tunnel;

use super::*;

/// Most bytes of an IP packet on the way to real servers, outer header included.
const MTU: u16 = 400;

fn publish(bench: &mut Bench, servers: &[RealServer]) {
    bench.generation += 1;
    let service = VirtualServer {
        id: VirtualServerId(53),
        key: ServiceKey {
            address: Address::v4(VIP),
            port: 53,
            protocol: Protocol::Udp,
        },
        scheduler: SchedulerKind::RoundRobin,
        options: ServiceOptions {
            one_packet: true,
            ..ServiceOptions::default()
        },
        real_servers: servers.to_vec(),
    };
    let egress = Egress {
        index: 0,
        mac: MacAddress([2, 0, 0, 0, 0, 0xd1]),
        mtu: MTU,
        v4: Some(Address::v4([192, 0, 2, 1])),
        v6: None,
    };
    let snapshot = Snapshot::new(
        bench.generation,
        Timeouts::default(),
        TcpMidstream::Reset,
        &[service],
    );
    let routes = Routes::new([], Vec::new(), vec![egress]);
    bench
        .published
        .store(Arc::new(snapshot.with_routes(routes)));
}

fn tunnelled(number: u8) -> RealServer {
    RealServer {
        method: ForwardingMethod::Tunnel(Tunnel::Ipip),
        ..server(number)
    }
}

/// A datagram that has to be cut in two.
fn long(port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xc1], [2, 0, 0, 0, 0, 0xd1])
        .ipv4([10, 0, 0, 7], VIP, 64)
        .udp(port, 53)
        .write(&mut packet, &[7; 600])
        .expect("a packet");
    // It may be.
    packet[20] = 0;
    let (header, _) = etherparse::Ipv4Header::from_slice(&packet[14..34]).expect("a header");
    packet[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    packet
}

#[test]
fn a_datagram_that_is_cut_is_not_lost_when_others_follow() {
    let mut bench = Bench::new(100, &[]);
    publish(&mut bench, &[tunnelled(1), tunnelled(2)]);
    // The pieces are made when all of the burst is decided.
    let burst = [long(5), udp(5), long(5), udp(6), udp(5)];
    assert_eq!(bench.servers(&burst), [1, 1, 1, 1, 1, 2, 1]);
    // From then on every datagram is scheduled for itself again.
    bench.now += 1;
    assert_eq!(bench.servers(&[udp(5), udp(5), udp(5)]), [1, 2, 1]);
    for _ in 0..100 {
        bench.now += 1;
        assert_eq!(bench.servers(&[long(5), udp(5)]), [2, 2, 2]);
        bench.now += 1;
        assert_eq!(bench.servers(&[udp(5)]), [1]);
    }
    let counters = bench.counters();
    assert_eq!((counters.dropped(), counters.waiting), (0, 0));
    assert_eq!(bench.worker.connections().len(), 0);
}

#[test]
fn what_follows_a_datagram_that_waits_goes_where_that_goes() {
    let mut bench = Bench::new(100, &[]);
    publish(&mut bench, &[unresolved(1), unresolved(2)]);
    assert_eq!(bench.servers(&[udp(5), udp(5)]), []);
    bench.now += 500;
    publish(&mut bench, &[server(1), server(2)]);
    // It came before the two were tried again.
    assert_eq!(bench.servers(&[udp(5)]), [1, 1, 1]);
    bench.now += 499;
    assert_eq!(bench.servers(&[udp(5), udp(6)]), [1, 2]);
    // A frame that waited would have been given up.
    bench.now += 1;
    assert_eq!(bench.servers(&[udp(5), udp(5), udp(5)]), [1, 2, 1]);
    assert_eq!(bench.worker.connections().len(), 0);
}
