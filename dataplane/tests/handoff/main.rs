//! Several workers with NAT, over in-memory rings: what belongs to a connection of the one arrives at the
//! other.

mod net;
mod replies;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::counters::DropReason;
use dataplane::device::ring::RingDevice;
use dataplane::handoff;
use dataplane::worker::Worker;

use net::*;

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

/// A card gives fragments to a worker by their addresses alone.
#[test]
fn fragments_of_a_request_follow_its_connection() {
    for late_first in [false, true] {
        let (mut workers, mut nets) = workers(3, 100);
        nets[1].send(&udp((CLIENT, 5353), (VIP, 53), b"query"));
        nets[1].send(&syn(CLIENT, 1111));
        turn(&mut workers, 0);
        nets[1].received();
        let mut segment = Vec::new();
        let builder = ethernet(CLIENT, VIP).tcp(1111, 80, 1001, 500).ack(2);
        builder.write(&mut segment, &[7; 100]).expect("a packet");
        let mut fragments = [
            cut(&udp((CLIENT, 5353), (VIP, 53), &[7; 100]), 48),
            cut(&segment, 48),
        ]
        .concat();
        if late_first {
            fragments.reverse();
        }
        for fragment in &fragments {
            nets[2].send(fragment);
            turn(&mut workers, 1);
        }
        let sent = nets[1].received();
        assert_eq!(sent.len(), 4, "late first: {late_first}");
        assert!(sent.iter().all(|packet| destination(packet).0 == SERVER));
        let created = workers.iter().map(|own| own.counters().connections_created);
        assert_eq!(created.collect::<Vec<_>>(), [0, 2, 0]);
    }
}

/// Where nobody has the connection, the worker that the card chose begins it.
#[test]
fn fragments_that_begin_a_connection_find_one_worker() {
    let (mut workers, mut nets) = workers(3, 100);
    for _ in 0..2 {
        for fragment in cut(&udp((CLIENT, 5353), (VIP, 53), &[7; 100]), 48) {
            nets[2].send(&fragment);
            turn(&mut workers, 1);
        }
    }
    assert_eq!(nets[2].received().len(), 4);
    let created = workers.iter().map(|own| own.counters().connections_created);
    assert_eq!(created.collect::<Vec<_>>(), [0, 0, 1]);
    let handed = workers.iter().map(|own| own.counters().handed_off_tx);
    assert_eq!(handed.sum::<u64>(), 3, "the first fragment, once round");
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

/// Tells threads to end when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every answer arrives at the other worker, while both run; then both are stopped in the midst of it. Odd
/// connections are TCP's, whose SYN-ACKs their own worker has to see; even ones UDP's.
#[test]
fn two_running_workers_lose_nothing() {
    const CONNECTIONS: u32 = 100_000;
    /// Requests and replies on their way.
    const WINDOW: usize = 768;
    let client = |number: u32| {
        let [_, high, low, rest] = (number / 4).to_be_bytes();
        let port = 1000 + u16::from(rest) * 4 + u16::try_from(number % 4).expect("small");
        ([10, 1, high, low], port)
    };
    let number_of = |(address, port): ([u8; 4], u16)| {
        let (number, port) = (
            u32::from(Ipv4Addr::from(address)) & 0xffff,
            u32::from(port - 1000),
        );
        number * 1024 + port
    };
    let is_tcp = |number: u32| number % 2 == 1;
    let owner_of = |number: u32| number as usize / 2 % 2;
    let request = |number| match (client(number), is_tcp(number)) {
        ((address, port), true) => syn(address, port),
        (client, false) => udp(client, (VIP, 53), b"query"),
    };
    let reply = |number| match (client(number), is_tcp(number)) {
        ((address, port), true) => syn_ack(address, port),
        (client, false) => udp((SERVER, 53), client, b"an answer"),
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
        // A failure below ends them, too.
        let stopping = Stop(&stop);
        while missing > 0 {
            while window < WINDOW && asked < CONNECTIONS {
                nets[owner_of(asked)].send(&request(asked));
                asked += 1;
                window += 1;
            }
            for leaves in [0, 1] {
                for packet in nets[leaves].received() {
                    if source(&packet).0 != VIP {
                        let number = number_of(source(&packet));
                        nets[1 - owner_of(number)].send(&reply(number));
                        continue;
                    }
                    let number = number_of(destination(&packet));
                    let is_own = owner_of(number) == leaves;
                    assert!(is_own || !is_tcp(number), "its own queue");
                    assert!(!std::mem::replace(&mut answered[number as usize], true));
                    missing -= 1;
                    window -= 1;
                }
            }
            std::thread::yield_now();
        }
        for number in 0..400 {
            nets[1 - owner_of(number)].send(&reply(number));
        }
        drop(stopping);
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
        assert!(counters.handed_off_rx >= u64::from(CONNECTIONS / 4));
        // The directory has no room for one in 7000.
        assert!(counters.replies_for_others >= u64::from(CONNECTIONS / 4) * 99 / 100);
    }
}
