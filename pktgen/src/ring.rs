//! The data plane alone, measured in this process: no root, no interface, no system call.
//!
//! ```text
//!   generator ──ring──► Worker over RingDevice ──ring──► sink          one thread
//!               not timed |        timed        | not timed
//! ```
//!
//! The generator fills a batch of frames and puts them on the ring; then the worker turns until it
//! has taken them all, and only that is timed, by two looks at the clock per `BATCH` frames, whose
//! own cost is measured and subtracted. The worker is the one that serves AF_XDP sockets, with its
//! connection table, snapshot and counters; what is missing is the kernel.
//!
//! Time, for the worker, is the time spent in it: connections age, and new flows arrive, as if it did
//! nothing else.
//!
//! All of the timed part is below [`measured`], so that an instruction counter can be
//! limited to it: `valgrind --tool=callgrind --toggle-collect='*ring::measured*' pktgen ring …`.

pub mod churn;
pub mod flood;
pub mod several;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dataplane::conn::Timeouts;
use dataplane::counters::{Counters, DropReason, WorkerStatistics};
use dataplane::device::BURST;
use dataplane::device::ring::{RingDevice, RingPeer, pair};
use dataplane::director::{Director, DirectorOptions};
use dataplane::flow::FlowHasher;
use dataplane::ports;
use dataplane::routes::{Egress, Routes};
use dataplane::service::{
    Address, ForwardingMethod, FullNat, MAX_SERVERS, MacAddress, NextHop, PortIndex, Protocol,
    RealServer, SchedulerKind, ServerId, ServiceKey, ServiceOptions, TcpMidstream, Thresholds,
    Tunnel, VirtualServer, VirtualServerId,
};
use dataplane::snapshot::Snapshot;
use dataplane::worker::{Port, Worker};
use dataplane::xsk::umem::{Frame, FrameSize, Umem};
use perf_event::events::Hardware;
use perf_event::{Builder, Counter};

use crate::flows::{Flows, FlowsError, Order, Prefix};
use crate::frame::{FrameError, Layout, Template};

/// Frames filled, directed and taken back at a time: four bursts.
const BATCH: usize = 4 * BURST;
/// Frames in the whole run; like a small NIC ring, so that packet data stays in the second-level cache.
const FRAMES: u32 = 512;
/// Packets per slice; the result is the median over slices.
const SLICE: u64 = 1 << 16;
/// Real servers of the virtual server.
const SERVERS: u32 = 4;
/// Ethernet address of the data plane's one interface.
const OWN_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
/// Packets counted with the instruction counter.
const COUNTED: u64 = 1 << 18;

/// How the data plane forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Direct routing: the Ethernet addresses are rewritten.
    Dr,
    /// Addresses and ports are rewritten. Only requests are generated.
    Nat,
    /// IP in IP.
    Tun,
    /// The source address is rewritten, too. Only requests are generated.
    FullNat,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Flows in use at any time, each a connection.
    pub flows: u32,
    pub mode: Mode,
    pub protocol: Protocol,
    pub scheduler: SchedulerKind,
    /// Flows that replace an older one, per second of the worker's time.
    pub new_flows_per_second: u32,
    /// How long to measure, in the worker's time.
    pub duration: Duration,
    /// Measure this many packets instead.
    pub packets: Option<u64>,
    /// Set by a signal: what was measured until then is the result.
    pub stop: Arc<AtomicBool>,
}

impl Plan {
    /// Looked at between batches: a timed part has nothing in it but the worker.
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Packets timed.
    pub packets: u64,
    /// Nanoseconds per packet by slice, ascending.
    pub slices: Vec<f64>,
    /// Of user space, without generator and sink; `None` on a machine without a counter.
    pub instructions_per_packet: Option<f64>,
    /// Connections at the end.
    pub connections: u64,
}

impl Measured {
    /// The median slice, nanoseconds per packet.
    #[must_use]
    pub fn ns_per_packet(&self) -> f64 {
        self.slices
            .get(self.slices.len() / 2)
            .copied()
            .unwrap_or(0.0)
    }
}

/// Runs `plan`: every flow is established first, then it is measured.
///
/// # Errors
/// The flows cannot be had, memory is short, the data plane did not forward every packet, or it was stopped
/// before the first: then there is nothing to measure.
pub fn run(plan: &Plan) -> Result<Measured, RingError> {
    let mut ring = Ring::new(plan)?;
    ring.warm_up(plan)?;
    let clock = clock_cost();
    let mut slices = Vec::new();
    let mut packets = 0;
    let most = plan.packets.unwrap_or(u64::MAX);
    let start = ring.worker_time;
    let is_over = |ring: &Ring| {
        plan.is_stopped() || plan.packets.is_none() && ring.worker_time - start >= plan.duration
    };
    while packets < most && !is_over(&ring) {
        let slice = SLICE.min(most - packets);
        let mut spent = Duration::ZERO;
        let mut done = 0;
        while done < slice && (done == 0 || !is_over(&ring)) {
            let batch = BATCH.min(usize::try_from(slice - done).unwrap_or(BATCH));
            spent += ring.batch(batch, measured).saturating_sub(clock);
            done += batch as u64;
        }
        slices.push(spent.as_nanos() as f64 / done as f64);
        packets += done;
    }
    if slices.is_empty() {
        return Err(RingError::Interrupted);
    }
    slices.sort_by(f64::total_cmp);
    ring.check_new_flows()?;
    let instructions_per_packet = ring.count_instructions();
    let connections = ring.check()?;
    Ok(Measured {
        packets,
        slices,
        instructions_per_packet,
        connections,
    })
}

/// The timed part: turns until `expected` frames were taken.
#[inline(never)]
pub fn measured(worker: &mut Worker<RingDevice>, now: u64, expected: usize) {
    turn(worker, now, expected);
}

/// The same, for what is not to be counted.
#[inline(never)]
fn unmeasured(worker: &mut Worker<RingDevice>, now: u64, expected: usize) {
    // Without a difference the linker may make one function of the two.
    turn(worker, now, std::hint::black_box(expected));
}

#[inline(always)]
fn turn(worker: &mut Worker<RingDevice>, now: u64, expected: usize) {
    let mut taken = 0;
    while taken < expected {
        taken += worker.turn(now);
    }
}

/// A counter of instructions, where the machine has one.
fn instructions() -> Option<Counter> {
    Builder::new(Hardware::INSTRUCTIONS).build().ok()
}

/// What two looks at the clock cost: the median of many.
fn clock_cost() -> Duration {
    let mut costs: Vec<Duration> = (0..1001).map(|_| Instant::now().elapsed()).collect();
    costs.sort_unstable();
    costs[costs.len() / 2]
}

/// The flows in use: a window that moves when new flows come.
#[derive(Debug)]
struct Window {
    order: Order,
    size: u32,
    /// Flows that were replaced so far; the next to go is in place `replaced % size`.
    replaced: u32,
}

impl Window {
    /// The flow that is in `place` now: of `place`, `place + size`, `place + 2 * size`, …
    fn flow(&self, place: u32) -> u32 {
        let generation = self.replaced / self.size + u32::from(place < self.replaced % self.size);
        place + self.size * generation
    }

    /// Replaces the oldest flow; returns the new one.
    fn replace(&mut self) -> u32 {
        let place = self.replaced % self.size;
        self.replaced += 1;
        self.flow(place)
    }
}

struct Ring {
    worker: Worker<RingDevice>,
    peer: RingPeer,
    umem: Arc<Umem>,
    free: Vec<Frame>,
    sending: Vec<Frame>,
    flows: Flows,
    template: Template,
    window: Window,
    new_flows_per_second: f64,
    /// Replaced flows at most: as many as there are sources and table entries for.
    most_replaced: u32,
    packets: u64,
    /// Time spent in the worker: its clock.
    worker_time: Duration,
    /// When every flow was established.
    warm_at: Duration,
}

impl Ring {
    fn new(plan: &Plan) -> Result<Self, RingError> {
        let most_replaced = most_replaced(plan);
        Self::with_room(plan, most_replaced, most_replaced)
    }

    /// With so many flows more than those in use at a time, and room for so many more connections.
    fn with_room(plan: &Plan, more_flows: u32, room: u32) -> Result<Self, RingError> {
        let layout = layout(plan.protocol);
        let sources: Prefix = "10.0.0.0/16".parse()?;
        let more = |than: u32| plan.flows.checked_add(than).ok_or(RingError::TooManyNew);
        let capacity = more(room)?;
        let flows = Flows::new(sources, more(more_flows)?)?;
        let template = Template::new(layout, &flows, layout.shortest())?;

        let (umem, mut pool) = Umem::new(FRAMES, FrameSize::Bytes2048)?;
        let free: Vec<Frame> = std::iter::from_fn(|| pool.take()).collect();
        let (device, peer) = pair(FRAMES as usize);
        let published = Arc::new(ArcSwap::from_pointee(snapshot(plan, &layout)));
        let options = DirectorOptions {
            max_connections: capacity,
            // The same every time, so that runs and instruction counts can be compared.
            hasher: FlowHasher::fixed(),
            worker: 0,
            kernel: None,
        };
        let statistics = [Arc::new(WorkerStatistics::new(MAX_SERVERS, 1))];
        let director = Director::new(options, published, &statistics);
        let port = Port {
            index: PortIndex(0),
            device,
        };
        let (_, no_requests) = mpsc::channel();
        Ok(Self {
            worker: Worker::new(vec![port], Arc::clone(&umem), pool, director, no_requests),
            peer,
            umem,
            free,
            sending: Vec::with_capacity(BATCH),
            flows,
            template,
            window: Window {
                order: Flows::new(sources, plan.flows)?.order(),
                size: plan.flows,
                replaced: 0,
            },
            new_flows_per_second: f64::from(plan.new_flows_per_second),
            most_replaced: most_replaced(plan),
            packets: 0,
            worker_time: Duration::ZERO,
            warm_at: Duration::ZERO,
        })
    }

    /// Sends each flow's first packet and, for TCP, the one that establishes it.
    fn warm_up(&mut self, plan: &Plan) -> Result<(), RingError> {
        for _ in 0..2 {
            let mut left = self.window.size as usize;
            while left > 0 {
                if plan.is_stopped() {
                    return Err(RingError::Interrupted);
                }
                let batch = BATCH.min(left);
                self.batch(batch, unmeasured);
                left -= batch;
            }
        }
        self.warm_at = self.worker_time;
        Ok(())
    }

    /// Fills, directs and takes back `count` frames, at most [`BATCH`]; returns how long directing
    /// took.
    fn batch(
        &mut self,
        count: usize,
        direct: impl FnOnce(&mut Worker<RingDevice>, u64, usize),
    ) -> Duration {
        self.fill(count);
        self.deliver(|worker, now, sent| {
            let start = Instant::now();
            direct(worker, now, sent);
            start.elapsed()
        })
    }

    /// Directs and takes back what was filled; `direct` says how long it took.
    fn deliver(
        &mut self,
        direct: impl FnOnce(&mut Worker<RingDevice>, u64, usize) -> Duration,
    ) -> Duration {
        let sent = self.peer.send(&mut self.sending);
        let now = u64::try_from(self.worker_time.as_millis()).unwrap_or(u64::MAX);
        let spent = direct(&mut self.worker, now, sent);
        self.worker_time += spent;
        self.packets += sent as u64;
        while self.peer.receive(&mut self.free) + self.peer.recycled(&mut self.free) > 0 {}
        spent
    }

    fn fill(&mut self, count: usize) {
        let due = self.new_flows_due();
        for _ in 0..count {
            let (flow, round) = if f64::from(self.window.replaced) < due
                && self.window.replaced < self.most_replaced
            {
                (self.window.replace(), 0)
            } else {
                let Some((place, round)) = self.window.order.next() else {
                    break;
                };
                (self.window.flow(place), round)
            };
            if !self.put(flow, round) {
                break;
            }
        }
    }

    /// Puts one packet where it will be sent; false if no frame is free.
    fn put(&mut self, flow: u32, round: u32) -> bool {
        let Some(mut frame) = self.free.pop() else {
            return false;
        };
        let mut packet = [0; 128];
        let packet = &mut packet[..self.template.length()];
        self.template
            .write(&self.flows, flow, round, self.packets, packet);
        // A frame holds 1700 bytes, a packet has at most 80.
        let filled = self.umem.fill(&mut frame, packet);
        debug_assert!(filled.is_ok());
        self.sending.push(frame);
        true
    }

    /// New flows that should have come by now.
    fn new_flows_due(&self) -> f64 {
        (self.worker_time - self.warm_at).as_secs_f64() * self.new_flows_per_second
    }

    /// Instructions per packet of some more batches, by the processor's counter.
    fn count_instructions(&mut self) -> Option<f64> {
        let mut counter = instructions()?;
        let mut packets = 0;
        while packets < COUNTED {
            self.batch(BATCH, |worker, now, expected| {
                // An error shows as a count of zero, which is refused below.
                let _ = counter.enable();
                unmeasured(worker, now, expected);
                let _ = counter.disable();
            });
            packets += BATCH as u64;
        }
        let counted = counter.read().ok().filter(|&count| count > 0)?;
        Some(counted as f64 / packets as f64)
    }

    /// Sees that new flows came as fast as they should.
    fn check_new_flows(&self) -> Result<(), RingError> {
        if self.new_flows_due() > f64::from(self.most_replaced) + 1.0 {
            return Err(RingError::TooManyNew);
        }
        Ok(())
    }

    /// Sees that every packet was forwarded; returns the connections.
    fn check(&self) -> Result<u64, RingError> {
        let counters = self.worker.counters();
        if counters.tx_packets == self.packets {
            return Ok(counters.connections);
        }
        Err(RingError::NotForwarded {
            sent: self.packets,
            forwarded: counters.tx_packets,
            drops: drops(counters),
        })
    }
}

fn layout(protocol: Protocol) -> Layout {
    Layout {
        source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        destination_mac: OWN_MAC,
        destination: (Ipv4Addr::new(192, 0, 2, 1), 80).into(),
        protocol,
    }
}

/// One virtual server and [`SERVERS`] real servers, all resolved.
fn snapshot(plan: &Plan, layout: &Layout) -> Snapshot {
    let method = match plan.mode {
        Mode::Dr => ForwardingMethod::Direct,
        Mode::Nat => ForwardingMethod::Nat,
        Mode::Tun => ForwardingMethod::Tunnel(Tunnel::Ipip),
        Mode::FullNat => ForwardingMethod::FullNat,
    };
    let full_nat = FullNat {
        local_addresses: match plan.mode {
            Mode::FullNat => local_addresses(plan),
            Mode::Dr | Mode::Nat | Mode::Tun => Vec::new(),
        },
        ..FullNat::default()
    };
    let egress = Egress {
        index: 0,
        mac: OWN_MAC,
        mtu: 1500,
        v4: Some(Address::v4([192, 0, 2, 2])),
        v6: None,
    };
    let real_servers = (0..SERVERS).zip(1..).map(|(id, last)| RealServer {
        id: ServerId(id),
        address: Address::v4([198, 51, 100, last]),
        port: layout.destination.port(),
        method,
        weight: 1,
        available: true,
        next_hop: Some(NextHop {
            port: PortIndex(0),
            destination: MacAddress([2, 0, 198, 51, 100, last]),
            source: OWN_MAC,
        }),
        thresholds: Thresholds::default(),
        drained: false,
    });
    let virtual_server = VirtualServer {
        id: VirtualServerId(0),
        key: ServiceKey {
            address: layout.destination.ip().into(),
            port: layout.destination.port(),
            protocol: plan.protocol,
        },
        scheduler: plan.scheduler,
        options: ServiceOptions {
            full_nat,
            ..ServiceOptions::default()
        },
        real_servers: real_servers.collect(),
    };
    Snapshot::new(
        1,
        Timeouts::default(),
        TcpMidstream::default(),
        &[virtual_server],
    )
    .with_routes(Routes::new([], Vec::new(), vec![egress]))
}

/// As many as all flows take ports of, those that are replaced included, also when workers, up to eight,
/// share the ports.
fn local_addresses(plan: &Plan) -> Vec<Address> {
    let flows = plan.flows.saturating_add(most_replaced(plan));
    let addresses = (0..=flows / (ports::COUNT / 8)).map(|number| {
        let [_, _, high, low] = number.to_be_bytes();
        Address::v4([100, 64, high, low])
    });
    addresses.collect()
}

/// Room for new flows: for the time of the measurement, or for its packets at a microsecond each,
/// and a second more for the slice that goes beyond it.
fn most_replaced(plan: &Plan) -> u32 {
    let seconds = match plan.packets {
        Some(packets) => packets as f64 / 1e6,
        None => plan.duration.as_secs_f64(),
    };
    let new = f64::from(plan.new_flows_per_second) * (seconds + 1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is refused when the sum with the flows overflows"
    )]
    let new = new.ceil() as u32;
    new
}

fn drops(counters: &Counters) -> String {
    let drops = DropReason::ALL.iter().zip(counters.drops);
    let drops = drops.filter(|(_, count)| *count > 0);
    let drops: Vec<String> = drops
        .map(|(reason, count)| format!("{count} {}", reason.name()))
        .collect();
    drops.join(", ")
}

/// The data plane could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error(transparent)]
    Flows(#[from] FlowsError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("cannot map memory for packets")]
    Memory(#[from] std::io::Error),
    #[error(
        "more new flows than there are source addresses, or than expected for this many packets: lower --new-flows-per-second"
    )]
    TooManyNew,
    #[error(
        "of {sent} packets {forwarded} were forwarded (dropped: {drops}): what was measured is not forwarding"
    )]
    NotForwarded {
        sent: u64,
        forwarded: u64,
        drops: String,
    },
    #[error(
        "of {wanted} flows {connections} became connections (dropped: {drops}): what was measured is not making them"
    )]
    NotConnected {
        wanted: u64,
        connections: u64,
        drops: String,
    },
    #[error("of {flows} established connections {connections} are left after the flood")]
    Lost { flows: u32, connections: usize },
    #[error("{connections} connections do not time out: what was measured is not ending them")]
    NotEnded { connections: u64 },
    #[error("interrupted before the first result")]
    Interrupted,
}

#[cfg(test)]
mod tests;
