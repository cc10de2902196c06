//! Replies of one worker's connections, translated by another one, which received them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dataplane::counters::{DropReason, ServerTotals, WorkerStatistics};
use dataplane::device::ring::RingDevice;
use dataplane::limits::SynProxy;
use dataplane::routes::{Egress, Prefix, Routes, Via};
use dataplane::service::{
    Address, GatewayId, MacAddress, NextHop, Protocol, ServerId, VirtualServer,
};
use dataplane::snapshot::Snapshot;
use dataplane::worker::Worker;

use super::net::*;

const UDP_TIMEOUT: u64 = 300_000;

/// Worker 0, which gets the requests, and worker 1, which gets the replies.
struct Bench {
    workers: Vec<Worker<RingDevice>>,
    nets: Vec<Net>,
    published: Arc<ArcSwap<Snapshot>>,
    statistics: Vec<Arc<WorkerStatistics>>,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        Self::of(&services(), 2)
    }

    /// They believe to be so many workers.
    fn of(services: &[VirtualServer], believed: usize) -> Self {
        let published = Arc::new(ArcSwap::from_pointee(snapshot(1, services)));
        let mut statistics = statistics(2);
        statistics.resize(believed, Arc::clone(&statistics[1]));
        let (workers, nets) = workers_of(&published, &statistics, 2, 1000);
        Self {
            workers,
            nets,
            published,
            statistics,
            now: 0,
        }
    }

    /// A packet arrives at worker 0; what leaves by either.
    fn request(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.arrive(0, packet)
    }

    /// A packet arrives at worker 1.
    fn reply(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.arrive(1, packet)
    }

    fn arrive(&mut self, worker: usize, packet: &[u8]) -> Vec<Vec<u8>> {
        self.nets[worker].send(packet);
        turn(&mut self.workers, self.now);
        self.nets.iter_mut().flat_map(Net::received).collect()
    }

    /// A millisecond later both have done what they had to.
    fn turn(&mut self) {
        self.now += 1;
        turn(&mut self.workers, self.now);
    }

    /// Time passes for both, and timers run.
    fn pass(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        for worker in &mut self.workers {
            worker.pass_time(self.now);
        }
    }

    fn connections(&self) -> u64 {
        self.workers[0].counters().connections
    }

    /// Translated by worker 1 for worker 0, and handed over by it.
    fn translated_and_handed(&self) -> (u64, u64) {
        let counters = self.workers[1].counters();
        (counters.replies_for_others, counters.handed_off_tx)
    }

    /// What both counted for a real server.
    fn totals(&self, server: u32) -> [ServerTotals; 2] {
        [0, 1].map(|worker| {
            let server = self.statistics[worker].server(ServerId(server));
            server.expect("an id in range").totals()
        })
    }

    /// Gives the workers another configuration.
    fn publish(&self, services: &[VirtualServer]) {
        let generation = self.published.load().generation + 1;
        self.published
            .store(Arc::new(snapshot(generation, services)));
    }

    /// From now on clients are reached so, or not at all; of gateway `n` the MAC address ends in `n`.
    fn route(&self, via: Option<Via>) {
        let before = self.published.load();
        let everything = Prefix::new(Address::v4([0; 4]), 0);
        let own = MacAddress([2, 0, 0, 0, 0, 0xd1]);
        let gateways = (0..2).map(|last| {
            Some(NextHop {
                port: WIRE,
                destination: MacAddress([2, 0, 0, 0, 9, last]),
                source: own,
            })
        });
        let egress = Egress {
            index: 1,
            mac: own,
            mtu: 1500,
            v4: None,
            v6: None,
        };
        let routes = via.map(|via| (everything, via));
        let routes = Routes::new(routes, gateways.collect(), vec![egress; 2]);
        let next = snapshot(before.generation + 1, &services());
        let next = next.with_routes(routes.replacing(&before.routes));
        self.published.store(Arc::new(next));
    }
}

fn query(port: u16) -> Vec<u8> {
    udp((CLIENT, port), (VIP, 53), b"query")
}

fn answer(port: u16) -> Vec<u8> {
    udp((SERVER, 53), (CLIENT, port), b"an answer")
}

#[test]
fn a_plain_reply_leaves_as_its_connections_worker_would_send_it() {
    let mut bench = Bench::new();
    bench.request(&query(5353));
    let by_owner = bench.arrive(0, &answer(5353));
    assert_eq!(source(&by_owner[0]), (VIP, 53));
    assert_eq!(destination(&by_owner[0]), (CLIENT, 5353));
    assert_eq!(bench.reply(&answer(5353)), by_owner);
    assert_eq!(bench.translated_and_handed(), (1, 0));
    // Counted by whoever sent it, in the sum as ever.
    let length = (answer(5353).len() - 14) as u64;
    let counted = bench.totals(1);
    assert_eq!(counted.map(|totals| totals.reply_packets), [1, 1]);
    assert_eq!(counted.map(|totals| totals.reply_bytes), [length; 2]);
    assert_eq!(counted.map(|totals| totals.packets), [1, 0]);
    let counters = bench.workers[1].counters();
    assert_eq!((counters.tx_packets, counters.dropped()), (1, 0));
    assert_eq!(counters.rx_bytes, counters.tx_bytes);
}

#[test]
fn what_begins_or_ends_a_connection_reaches_its_worker() {
    let mut bench = Bench::new();
    let port = 1111;
    bench.request(&syn(CLIENT, port));
    bench.reply(&syn_ack(CLIENT, port));
    assert_eq!(bench.translated_and_handed(), (0, 1));
    // Before the client's ACK there is no established connection to be shared.
    bench.reply(&data(CLIENT, port, false));
    assert_eq!(bench.translated_and_handed(), (0, 2));
    bench.request(&ack(CLIENT, port));
    assert_eq!(bench.totals(0)[0].active, 1);
    assert_eq!(bench.reply(&data(CLIENT, port, false)).len(), 1);
    assert_eq!(bench.translated_and_handed(), (1, 2));
    bench.reply(&data(CLIENT, port, true));
    assert_eq!(bench.translated_and_handed(), (1, 3));
    assert_eq!(bench.totals(0)[0].active, 0, "it saw the FIN");
    assert_eq!(bench.reply(&data(CLIENT, port, false)).len(), 1);
    assert_eq!(bench.translated_and_handed(), (2, 3));
    // The client's port is used again: not established, not shared.
    bench.request(&syn(CLIENT, port));
    assert_eq!(bench.workers[0].counters().connections_reused, 1);
    bench.reply(&data(CLIENT, port, false));
    assert_eq!(bench.translated_and_handed(), (2, 4));
}

#[test]
fn replies_at_another_worker_keep_a_connection() {
    let mut bench = Bench::new();
    bench.request(&query(5353));
    for _ in 0..10 {
        bench.pass(UDP_TIMEOUT - 1000);
        assert_eq!(bench.reply(&answer(5353)).len(), 1);
        assert_eq!(bench.connections(), 1);
    }
    assert_eq!(bench.translated_and_handed(), (10, 0));
    bench.pass(UDP_TIMEOUT - 1000);
    assert_eq!(bench.connections(), 1, "not before its time");
    // And a slot of the timer wheel.
    bench.pass(1000 + 512);
    assert_eq!(bench.connections(), 0);
    assert_eq!(bench.workers[0].counters().connections_expired, 1);
}

#[test]
fn nothing_is_translated_for_a_connection_that_ended() {
    let mut bench = Bench::new();
    bench.request(&query(5353));
    bench.reply(&answer(5353));
    bench.pass(UDP_TIMEOUT + 1000);
    assert_eq!(bench.connections(), 0);
    assert_eq!(bench.reply(&answer(5353)), [[]; 0]);
    assert_eq!(
        bench.nets[0].given_to_kernel(),
        [answer(5353)],
        "as it came"
    );
    assert_eq!(bench.translated_and_handed().0, 1);
}

/// The same packet, of another connection from one moment to the next.
#[test]
fn a_clients_port_that_serves_another_virtual_server_is_answered_as_that() {
    let mut both = services();
    both.push(service(2, Protocol::Udp, 5300, 53));
    let mut bench = Bench::of(&both, 2);
    for round in 0..3 {
        for (port, other) in [(53, 5300), (5300, 53)] {
            bench.request(&udp((CLIENT, 9), (VIP, port), b"query"));
            let sent = bench.reply(&answer(9));
            assert_eq!(source(&sent[0]), (VIP, port), "round {round}");
            // While it lasts the other one is refused: nobody could tell their replies apart.
            let refused = bench.request(&udp((CLIENT, 9), (VIP, other), b"query"));
            assert_eq!(refused, [[]; 0]);
            let sent = bench.reply(&answer(9));
            assert_eq!(source(&sent[0]), (VIP, port), "round {round}");
            bench.pass(UDP_TIMEOUT + 1000);
        }
    }
    assert_eq!(bench.translated_and_handed(), (12, 0));
}

/// As on one worker: their replies could not be told apart, wherever they arrive.
#[test]
fn a_clients_port_serves_one_virtual_server_on_all_workers() {
    // Found by the straight way of new connections, or by the general one.
    for syn_proxy in [None, Some(SynProxy::Always)] {
        let mut both = services();
        both.push(service(2, Protocol::Udp, 5300, 53));
        for service in &mut both {
            service.options.syn_proxy = syn_proxy;
        }
        let mut bench = Bench::of(&both, 2);
        let query = |port| udp((CLIENT, 9), (VIP, port), b"query");
        let conflicts = |bench: &Bench| {
            [0, 1].map(|worker: usize| {
                let drops = bench.workers[worker].counters().drops;
                drops[DropReason::TranslationConflict as usize]
            })
        };
        assert_eq!(bench.arrive(0, &query(53)).len(), 1);
        assert_eq!(bench.arrive(1, &query(5300)), [[]; 0]);
        assert_eq!(conflicts(&bench), [0, 1]);
        assert_eq!(bench.workers[1].counters().connections, 0);
        for worker in [0, 1] {
            let sent = bench.arrive(worker, &answer(9));
            assert_eq!(source(&sent[0]), (VIP, 53));
        }
        assert_eq!(bench.arrive(0, &query(53)).len(), 1);
        // Another client is not in its way.
        let other = udp((CLIENT, 10), (VIP, 5300), b"query");
        assert_eq!(bench.arrive(1, &other).len(), 1);
        // Nor is it itself, when the card brings it here from now on.
        assert_eq!(bench.arrive(1, &query(53)).len(), 1);
        let sent = bench.arrive(1, &answer(9));
        assert_eq!(source(&sent[0]), (VIP, 53));
        bench.pass(UDP_TIMEOUT + 1000);
        assert_eq!(bench.arrive(1, &query(5300)).len(), 1);
        assert_eq!(bench.arrive(0, &query(53)), [[]; 0]);
        assert_eq!(conflicts(&bench), [1, 1]);
        let sent = bench.arrive(0, &answer(9));
        assert_eq!(source(&sent[0]), (VIP, 5300));
    }
}

/// One of the four local ports that a worker has here serves one client after the other.
#[test]
fn a_local_port_of_fullnat_that_is_used_again_is_the_new_clients() {
    let mut bench = Bench::of(&[full_nat(service(1, Protocol::Udp, 53, 53))], 64_512 / 4);
    let mut used = Vec::new();
    for client in 1..=12 {
        let address = [10, 0, 0, client];
        let request = bench.request(&udp((address, 1000), (VIP, 53), b"query"));
        let local = source(&request[0]);
        assert_eq!(local.0, LOCAL);
        let answer = udp((SERVER, 53), local, b"an answer");
        let sent = bench.reply(&answer);
        assert_eq!(destination(&sent[0]), (address, 1000));
        assert_eq!(source(&sent[0]), (VIP, 53));
        used.push(local.1);
        bench.pass(UDP_TIMEOUT + 1000);
        assert_eq!(bench.reply(&answer), [[]; 0], "nobody's now");
    }
    assert_eq!(used[..4], used[8..], "ports came round");
    assert_eq!(bench.translated_and_handed().0, 12);
}

#[test]
fn a_client_that_moves_is_answered_at_its_new_address() {
    let mut bench = Bench::new();
    let mut query = query(5353);
    for last in [0xc1, 0xc2, 0xc1] {
        query[11] = last; // of the source's MAC address
        assert_eq!(bench.request(&query).len(), 1);
        let sent = bench.reply(&answer(5353));
        assert_eq!(sent[0][..6], [2, 0, 0, 0, 0, last]);
    }
    assert_eq!(bench.translated_and_handed(), (3, 0));
    assert_eq!(bench.connections(), 1);
}

#[test]
fn a_reply_at_its_last_hop_reaches_who_says_so_to_its_sender() {
    let mut bench = Bench::new();
    bench.request(&query(5353));
    let mut answer = Vec::new();
    let mac = [2, 0, 0, 0, 0, 0xd1];
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], mac)
        .ipv4(SERVER, CLIENT, 1)
        .udp(53, 5353);
    builder.write(&mut answer, b"far").expect("a packet");
    let told = bench.reply(&answer);
    assert_eq!(destination(&told[0]).0, SERVER);
    assert_eq!(bench.workers[0].counters().icmp_sent, 1);
    assert_eq!(bench.translated_and_handed(), (0, 1));
}

#[test]
fn connections_that_end_with_one_packet_are_not_shared() {
    let mut services = services();
    services[1].options.one_packet = true;
    let mut bench = Bench::of(&services, 2);
    assert_eq!(bench.request(&query(5353)).len(), 1);
    assert_eq!(bench.connections(), 0);
    bench.reply(&answer(5353));
    assert_eq!(bench.translated_and_handed().0, 0);
}

#[test]
fn replies_of_a_server_that_was_removed_still_reach_their_clients() {
    let mut bench = Bench::new();
    bench.request(&query(5353));
    bench.publish(&services()[..1]);
    assert_eq!(bench.reply(&answer(5353)).len(), 1);
    assert_eq!(bench.translated_and_handed(), (1, 0));
    assert_eq!(bench.totals(1)[1].reply_packets, 1);
}

#[test]
fn a_burst_of_all_kinds_is_told_apart() {
    let mut bench = Bench::new();
    bench.request(&query(1));
    bench.request(&syn(CLIENT, 2));
    // Of worker 1 itself.
    bench.arrive(1, &query(3));
    let kinds = [
        answer(1),
        syn_ack(CLIENT, 2),
        answer(3),
        query(4),
        answer(9),
    ];
    for _ in 0..4 {
        for packet in &kinds {
            bench.nets[1].send(packet);
        }
    }
    turn(&mut bench.workers, bench.now);
    assert_eq!(bench.translated_and_handed(), (4, 8));
    // The SYN-ACKs, and what is nobody's.
    assert_eq!(bench.workers[0].counters().handed_off_rx, 8);
    assert_eq!(bench.nets[0].given_to_kernel().len(), 4);
    let sent = [0, 1].map(|worker| bench.nets[worker].received());
    let to = |packets: &[Vec<u8>], port| {
        let of = packets
            .iter()
            .filter(|packet| destination(packet).1 == port);
        of.count()
    };
    assert_eq!(to(&sent[0], 2), 4);
    assert_eq!([1, 3, 53].map(|port| to(&sent[1], port)), [4; 3]);
    assert_eq!(sent.map(|packets| packets.len()), [4, 12]);
    let counters = bench.workers[1].counters();
    // Its first request besides; headers stay as long as they were.
    let lengths = |packets: &[Vec<u8>]| packets.iter().map(Vec::len).sum::<usize>() as u64;
    let left = [answer(1), answer(3), query(4)];
    assert_eq!(counters.tx_bytes, 4 * lengths(&left) + lengths(&[query(3)]));
}

/// As with LVS, where the kernel looks up every reply's route: connections that began before go the new way as well.
#[test]
fn replies_leave_by_the_way_that_routes_lead_by_now() {
    let gateway = |id| Some(Via::Gateway(GatewayId(id)));
    let mut bench = Bench::new();
    bench.route(gateway(0));
    // More than are looked at in a turn.
    let ports = 5000..5400;
    for port in ports.clone() {
        bench.request(&query(port));
    }
    let left_to = |bench: &mut Bench, worker: usize, port| {
        let sent = bench.arrive(worker, &answer(port));
        sent.first().map(|packet| packet[4..6].to_vec())
    };
    for (via, mac) in [
        (gateway(0), [9, 0]),
        (gateway(1), [9, 1]),
        // Nothing better is known.
        (None, [9, 1]),
        (gateway(0), [9, 0]),
        // Until it speaks, a neighbour is sought where it was last.
        (Some(Via::Link(WIRE)), [9, 0]),
    ] {
        bench.route(via);
        bench.turn();
        for port in ports.clone() {
            for worker in [0, 1] {
                let left = left_to(&mut bench, worker, port);
                assert_eq!(left, Some(mac.to_vec()), "{via:?}");
            }
        }
    }
    bench.request(&query(5000));
    for worker in [0, 1] {
        assert_eq!(left_to(&mut bench, worker, 5000), Some(vec![0, 0xc1]));
    }
    // A connection's time goes on where it was.
    bench.pass(UDP_TIMEOUT - 10);
    bench.route(gateway(1));
    bench.turn();
    bench.pass(10_000);
    assert_eq!(bench.connections(), 0);
}
