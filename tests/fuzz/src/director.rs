//! A history for the director: frames, time passing, configurations changing.
//!
//! The input is a sequence of records. The first byte says what it is:
//!
//! ```text
//! 0..=127    a frame, of the length in the next byte (times two); odd: its IPv4 checksum is repaired
//! 128..=191  so many seconds pass
//! 192..=255  another snapshot is published
//! ```
//!
//! After each record every packet is accounted for, every connection too, and what leaves parses.

#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dataplane::conn::Timeouts;
use dataplane::counters::{DropReason, WorkerStatistics};
use dataplane::device::BURST;
use dataplane::director::{Director, DirectorOptions, Verdict};
use dataplane::flow::FlowHasher;
use dataplane::routes::{Egress, Routes};
use dataplane::service::{
    Address, ForwardingMethod, HashFlags, MacAddress, NextHop, PortIndex, Protocol, RealServer,
    SchedulerKind, ServerId, ServiceKey, ServiceOptions, TcpMidstream, Thresholds, Tunnel,
    VirtualServer, VirtualServerId,
};
use dataplane::snapshot::Snapshot;
use dataplane::wire;
use dataplane::xsk::umem::{FramePool, FrameSize, Umem};
use libfuzzer_sys::fuzz_target;

mod frame;

/// Few, so that the table is full soon.
const CONNECTIONS: u32 = 4;
const SERVERS: u32 = 3;

thread_local! {
    static MEMORY: RefCell<(Arc<Umem>, FramePool)> =
        RefCell::new(Umem::new(1, FrameSize::Bytes2048).expect("memory"));
}

fuzz_target!(|bytes: &[u8]| {
    MEMORY.with_borrow_mut(|(umem, pool)| history(bytes, umem, pool));
});

fn history(mut bytes: &[u8], umem: &Umem, pool: &mut FramePool) {
    let published = Arc::new(ArcSwap::from_pointee(snapshot(1)));
    let services = usize::try_from(SERVERS).expect("small") * 4;
    let statistics = [Arc::new(WorkerStatistics::new(services, 1))];
    let options = DirectorOptions {
        max_connections: CONNECTIONS,
        hasher: FlowHasher::fixed(),
        worker: 0,
        kernel: None,
    };
    let mut director = Director::new(options, Arc::clone(&published), &statistics);
    // Never freed by the worker: see `Published`.
    let mut snapshots = vec![published.load_full()];
    let mut now = 0;
    while let [operation, rest @ ..] = bytes {
        bytes = rest;
        match operation {
            0..=127 => {
                let (length, rest) = bytes.split_first().unwrap_or((&0, &[]));
                let length = (usize::from(*length) * 2).min(rest.len());
                let (data, rest) = rest.split_at(length);
                bytes = rest;
                one_frame(data, operation % 2 == 1, now, &mut director, umem, pool);
            }
            128..=191 => now += u64::from(operation - 127) * 1000,
            192..=255 => {
                let generation = u64::try_from(snapshots.len()).expect("small") + 1;
                let next = Arc::new(snapshot_of(generation, *operation));
                published.store(Arc::clone(&next));
                snapshots.push(next);
                director.adopt();
            }
        }
        while director.tick(now) {}
        accounts(&director);
    }
}

fn one_frame(
    data: &[u8],
    repair: bool,
    now: u64,
    director: &mut Director,
    umem: &Umem,
    pool: &mut FramePool,
) {
    let mut data = data.to_vec();
    if repair {
        frame::repair_ipv4_checksum(&mut data);
    }
    let mut frame = pool.take().expect("given back each time");
    umem.fill(&mut frame, &data).expect("at most 510 bytes");
    let mut burst = [frame];
    let mut verdicts = [Verdict::Drop(DropReason::NotIp); BURST];
    let egress = director.process(PortIndex(0), umem, &mut burst, now, &mut verdicts);
    let ([frame], verdict) = (burst, egress.map_or(verdicts[0], Verdict::Transmit));
    match verdict {
        Verdict::Transmit(_) => {
            let sent = wire::parse(umem.bytes(&frame));
            assert!(sent.is_ok(), "{sent:?}");
        }
        Verdict::Wait(_) | Verdict::Cut(_) => {
            director.dropped_after(verdict, DropReason::NextHopUnresolved, frame.len());
        }
        Verdict::Drop(_) => assert_eq!(umem.bytes(&frame), data, "a dropped frame is unchanged"),
        Verdict::HandOff(_) | Verdict::Offer => panic!("there is no other worker"),
    }
    pool.give(frame);
}

fn accounts(director: &Director) {
    let counters = director.counters();
    assert_eq!(
        counters.rx_packets,
        counters.tx_packets + counters.dropped() + counters.waiting
    );
    let gone =
        counters.connections_expired + counters.connections_evicted + counters.connections_reused;
    assert_eq!(counters.connections_created, gone + counters.connections);
    assert_eq!(counters.connections, u64::from(director.table().len()));
    assert!(director.table().len() <= CONNECTIONS);
}

fn snapshot(generation: u64) -> Snapshot {
    snapshot_of(generation, 0)
}

/// Virtual servers 192.168.1.100 and 2001:db8:1::100, TCP port 80 and UDP port 53, of the first SCTP port 7000 too. The bits of
/// `variant` change weights, health, next hops, the forwarding method, and what becomes of mid-stream segments.
fn snapshot_of(generation: u64, variant: u8) -> Snapshot {
    let v4 = Address::v4([192, 168, 1, 100]);
    let v6 = Address::from_octets([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let server_v4 = Address::v4([192, 168, 1, 101]);
    let server_v6 = Address::from_octets([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    let services = [
        (v4, 80, Protocol::Tcp, SchedulerKind::WeightedRoundRobin),
        (v4, 53, Protocol::Udp, SchedulerKind::RoundRobin),
        (v4, 7000, Protocol::Sctp, SchedulerKind::LeastConnection),
        (
            v6,
            80,
            Protocol::Tcp,
            SchedulerKind::WeightedLeastConnection,
        ),
        (
            v6,
            53,
            Protocol::Udp,
            SchedulerKind::SourceHash(HashFlags::NONE),
        ),
    ];
    let services: Vec<_> = (0..)
        .zip(services)
        .map(
            |(number, (address, port, protocol, scheduler))| VirtualServer {
                id: VirtualServerId(number),
                key: ServiceKey {
                    address,
                    port,
                    protocol,
                },
                scheduler,
                options: ServiceOptions::default(),
                real_servers: (0..SERVERS)
                    .map(|server| RealServer {
                        address: if address == v4 { server_v4 } else { server_v6 },
                        ..real_server(number * SERVERS + server, server, port, variant)
                    })
                    .collect(),
            },
        )
        .collect();
    let midstream = match variant & 3 {
        0 => TcpMidstream::Reset,
        1 => TcpMidstream::Drop,
        _ => TcpMidstream::Schedule,
    };
    let egress = Egress {
        index: 0,
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        mtu: 400, // frames of 510 bytes come
        v4: Some(v4),
        v6: Some(v6),
    };
    Snapshot::new(generation, Timeouts::default(), midstream, &services).with_routes(Routes::new(
        [],
        Vec::new(),
        vec![egress],
    ))
}

fn real_server(id: u32, place: u32, port: u16, variant: u8) -> RealServer {
    let changed = u32::from(variant >> 2 & 3) == place;
    let how = variant >> 4 & 3;
    RealServer {
        id: ServerId(id),
        address: Address::v4([192, 168, 1, 101]),
        port,
        method: match (variant >> 6, place) {
            (0, _) => ForwardingMethod::Direct,
            (1, _) => ForwardingMethod::Nat,
            (2, _) => ForwardingMethod::Tunnel(Tunnel::Ipip),
            (_, 0) => ForwardingMethod::Tunnel(Tunnel::Gre),
            (_, 1) => ForwardingMethod::Nat,
            (_, _) => ForwardingMethod::Tunnel(Tunnel::Gue { port: 6080 }),
        },
        weight: if changed && how == 1 { 0 } else { place + 1 },
        available: !(changed && how == 2),
        drained: changed && how == 1 && variant >> 6 & 1 == 1,
        next_hop: (!(changed && how == 3)).then_some(NextHop {
            port: PortIndex(0),
            destination: MacAddress([2, 0, 0, 0, 0, 9]),
            source: MacAddress([2, 0, 0, 0, 0, 1]),
        }),
        thresholds: Thresholds::default(),
    }
}
