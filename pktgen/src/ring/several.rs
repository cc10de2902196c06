//! Several workers at once, compared with one: what does it cost that they are several?
//!
//! Each has its thread, its own generator and its own flows. With NAT half of the packets are answers, made of
//! the requests that were forwarded, and each arrives at the worker after the one whose
//! connection it is of: that is the worst a network card can do.
//!
//! What is compared is the time that the processor spends in a worker for each packet, so that it
//! does not matter what else runs on the machine, but for the caches. The threads run freely, and wait for each
//! other only when one is far ahead: its answers would fill the ring.
//!
//! ```text
//!   generator ─► worker 0 ─► requests, turned round ─► generator ─► worker 1 ─► translates them, or hands them to 0
//! ```
//!
//! What the workers share is half full, as it is with half of `max_connections`: the directory has room for all but one
//! connection in 7000, whose answers are handed over.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use arc_swap::ArcSwap;
use dataplane::counters::WorkerStatistics;
use dataplane::device::ring::{RingDevice, RingPeer, pair};
use dataplane::director::{Director, DirectorOptions};
use dataplane::flow::FlowHasher;
use dataplane::handoff::{self, Handoff};
use dataplane::service::{MAX_SERVERS, PortIndex, Protocol};
use dataplane::worker::{Port, Worker};
use dataplane::xsk::umem::{Frame, FramePool, FrameSize, Umem};
use perf_event::events::Hardware;
use perf_event::{Builder, Counter};
use rustix::time::{ClockId, clock_gettime};

use super::{BATCH, FRAMES, Mode, OWN_MAC, Plan, RingError, drops, layout, snapshot};
use crate::cpu;
use crate::flows::{Flows, Order, Prefix};
use crate::frame::Template;

/// Times that one worker and several are measured by turns.
const ROUNDS: usize = 5;
/// Packets for each worker and round, unless the plan says how many.
const PACKETS: u64 = 1 << 20;
/// Answers that may be on their way from one worker to another, before one waits: with those of a batch
/// less than half of what the ring holds, which is for what the directory had no room for.
const AHEAD: u64 = 256;
/// Batches without answers in the beginning: so far may one worker be ahead of another.
const LEAD: u64 = 4;

/// What one round measured, of one worker's share.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Nanoseconds of its processor per packet.
    pub ns_per_packet: f64,
    /// Of user space, without the generator; `None` on a machine without a counter.
    pub instructions_per_packet: Option<f64>,
}

/// What was measured, the means over the workers, round by round.
#[derive(Clone, Debug)]
pub struct Compared {
    pub workers: u16,
    /// By each worker, in each round.
    pub packets: u64,
    /// Of one worker alone, and of each of several.
    pub rounds: Vec<(Share, Share)>,
}

impl Compared {
    /// How much more the several do than one, by round, ascending.
    #[must_use]
    pub fn speedups(&self) -> Vec<f64> {
        let speedup = |(alone, each): &(Share, Share)| {
            f64::from(self.workers) * alone.ns_per_packet / each.ns_per_packet
        };
        let mut all: Vec<f64> = self.rounds.iter().map(speedup).collect();
        all.sort_by(f64::total_cmp);
        all
    }
}

/// Compares `workers` workers with one, each with the flows of `plan`; they are bound to the CPUs
/// from 0 on, if there are as many. When it is stopped, the rounds until then are the result.
///
/// # Errors
/// As [`run`](super::run); or there are no threads or eventfds to be had.
pub fn compare(plan: &Plan, workers: u16) -> Result<Compared, RingError> {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let round = (measure(plan, 1)?, measure(plan, workers)?);
        if plan.is_stopped() {
            break;
        }
        rounds.push(round);
    }
    if rounds.is_empty() {
        return Err(RingError::Interrupted);
    }
    Ok(Compared {
        workers,
        packets: plan.packets.unwrap_or(PACKETS),
        rounds,
    })
}

/// What the workers' threads share.
struct Meeting {
    /// Answers that are to arrive at each of them.
    mail: Vec<Mutex<Vec<Vec<u8>>>>,
    /// What each has handed over, and got.
    given: Vec<AtomicU64>,
    taken: Vec<AtomicU64>,
    /// Who has sent all.
    done: AtomicUsize,
    /// Nobody sends any more, nor waits for what others send.
    stop: Arc<AtomicBool>,
}

impl Meeting {
    fn new(workers: usize, stop: Arc<AtomicBool>) -> Self {
        let counts = || (0..workers).map(|_| AtomicU64::new(0)).collect();
        Self {
            mail: (0..workers).map(|_| Mutex::default()).collect(),
            given: counts(),
            taken: counts(),
            done: AtomicUsize::new(0),
            stop,
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn measure(plan: &Plan, workers: u16) -> Result<Share, RingError> {
    let lanes = lanes(plan, workers)?;
    let meeting = Meeting::new(lanes.len(), Arc::clone(&plan.stop));
    let shares: Vec<(Share, Lane)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (lanes.into_iter())
            .map(|lane| scope.spawn(|| lane.run(plan, &meeting)))
            .collect();
        let shares = threads.into_iter().map(|thread| {
            // A panic goes on here.
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        shares.collect()
    });
    check(&shares)?;
    let mean = |values: Option<Vec<f64>>| {
        values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
    };
    let ns = shares.iter().map(|(share, _)| Some(share.ns_per_packet));
    let instructions = shares
        .iter()
        .map(|(share, _)| share.instructions_per_packet);
    Ok(Share {
        ns_per_packet: mean(ns.collect()).unwrap_or(0.0),
        instructions_per_packet: mean(instructions.collect()),
    })
}

/// Sees that every packet was forwarded, by whichever worker.
fn check(shares: &[(Share, Lane)]) -> Result<(), RingError> {
    let lanes = shares.iter().map(|(_, lane)| lane);
    let sent: u64 = lanes.clone().map(|lane| lane.sent).sum();
    let forwarded = lanes.clone().map(|lane| lane.worker.counters().tx_packets);
    let forwarded: u64 = forwarded.sum();
    if sent == forwarded {
        return Ok(());
    }
    let dropped = lanes.map(|lane| drops(lane.worker.counters()));
    let dropped: Vec<String> = dropped.filter(|drops| !drops.is_empty()).collect();
    Err(RingError::NotForwarded {
        sent,
        forwarded,
        drops: dropped.join(", "),
    })
}

/// One worker, and the generator that feeds it.
struct Lane {
    number: usize,
    worker: Worker<RingDevice>,
    peer: RingPeer,
    umem: Arc<Umem>,
    free: Vec<Frame>,
    sending: Vec<Frame>,
    flows: Flows,
    order: Order,
    template: Template,
    is_tcp: bool,
    answered: bool,
    sent: u64,
    /// Time and instructions spent in the worker.
    spent: Duration,
    instructions: Option<Counter>,
    /// How often that was looked at, each of which takes time as well.
    looks: u64,
}

fn lanes(plan: &Plan, workers: u16) -> Result<Vec<Lane>, RingError> {
    let published = Arc::new(ArcSwap::from_pointee(snapshot(
        plan,
        &layout(plan.protocol),
    )));
    let statistics: Vec<_> = (0..workers)
        .map(|_| Arc::new(WorkerStatistics::new(MAX_SERVERS, 1)))
        .collect();
    // What one is ahead of another is in frames of the one.
    let memory = || {
        Umem::new(
            6 * FRAMES + handoff::frames(workers.into()),
            FrameSize::Bytes2048,
        )
    };
    let memory: Vec<_> = (0..workers).map(|_| memory()).collect::<Result<_, _>>()?;
    let umems: Vec<_> = memory.iter().map(|(umem, _)| Arc::clone(umem)).collect();
    let connections = plan.flows.saturating_mul(2 * u32::from(workers));
    let mut ends = handoff::connect(&umems, connections)?.into_iter();
    let lanes = (0..).zip(memory).map(|(number, memory)| {
        let options = DirectorOptions {
            max_connections: plan.flows,
            hasher: FlowHasher::fixed(),
            worker: number,
            kernel: None,
        };
        let director = Director::new(options, Arc::clone(&published), &statistics);
        Lane::new(plan, number, memory, director, ends.next())
    });
    lanes.collect()
}

impl Lane {
    fn new(
        plan: &Plan,
        number: u32,
        (umem, mut pool): (Arc<Umem>, FramePool),
        director: Director,
        handoff: Option<Handoff>,
    ) -> Result<Self, RingError> {
        let layout = layout(plan.protocol);
        // Clients of its own.
        let sources: Prefix = format!("10.{}.0.0/16", number % 256).parse()?;
        let flows = Flows::new(sources, plan.flows)?;
        let template = Template::new(layout, &flows, layout.shortest())?;
        let free = (0..FRAMES).filter_map(|_| pool.take()).collect();
        let (device, peer) = pair(2 * FRAMES as usize);
        let index = PortIndex(0);
        let (_, no_requests) = mpsc::channel();
        let ports = vec![Port { index, device }];
        let mut worker = Worker::new(ports, Arc::clone(&umem), pool, director, no_requests);
        if let Some(handoff) = handoff {
            worker = worker.with_handoff(handoff);
        }
        Ok(Self {
            number: number as usize,
            worker,
            peer,
            umem,
            free,
            sending: Vec::with_capacity(BATCH),
            order: flows.order(),
            flows,
            template,
            is_tcp: plan.protocol == Protocol::Tcp,
            answered: plan.mode == Mode::Nat,
            sent: 0,
            spent: Duration::ZERO,
            instructions: None,
            looks: 0,
        })
    }

    fn run(mut self, plan: &Plan, meeting: &Meeting) -> (Share, Self) {
        // One that may go where it likes measures the same, less steadily.
        let _ = cpu::pin_nth(self.number);
        // Every flow twice, and with its answers: TCP's are established then.
        let packets = u64::from(plan.flows) * if self.answered { 4 } else { 2 };
        self.batches(packets.div_ceil(BATCH as u64) + 2, meeting);
        self.instructions = Builder::new(Hardware::INSTRUCTIONS).build().ok();
        (self.spent, self.looks) = (Duration::ZERO, 0);
        let before = self.sent;
        let packets = plan.packets.unwrap_or(PACKETS);
        self.batches(packets.div_ceil(BATCH as u64), meeting);
        let packets = (self.sent - before) as f64;
        let clocks = clock_cost().as_nanos() as f64 * self.looks as f64;
        let counter = self.instructions.as_mut();
        let counted = counter.and_then(|counter| counter.read().ok());
        let share = Share {
            ns_per_packet: (self.spent.as_nanos() as f64 - clocks) / packets,
            instructions_per_packet: counted
                .filter(|counted| *counted > 0)
                .map(|counted| counted as f64 / packets),
        };
        // What the others still hand over.
        meeting.done.fetch_add(1, Ordering::AcqRel);
        while meeting.done.load(Ordering::Acquire) < meeting.mail.len() || self.is_due(meeting) {
            self.take_over(meeting);
        }
        (share, self)
    }

    /// So many, unless it is stopped.
    fn batches(&mut self, count: u64, meeting: &Meeting) {
        for _ in 0..count {
            if meeting.is_stopped() {
                break;
            }
            self.batch(meeting);
        }
    }

    /// Fills, directs and takes back [`BATCH`] frames.
    fn batch(&mut self, meeting: &Meeting) {
        self.fill(meeting);
        self.sent += self.peer.send(&mut self.sending) as u64;
        let all = self.sent;
        self.timed(|worker| {
            while worker.counters().rx_packets < all {
                worker.turn(0);
            }
        });
        self.take_back(meeting);
        // Answers come from the worker before this one, and go back to it.
        let workers = meeting.mail.len();
        let previous = (self.number + workers - 1) % workers;
        let given = self.worker.counters().handed_off_tx;
        while given > meeting.taken[previous].load(Ordering::Acquire) + AHEAD {
            self.take_over(meeting);
        }
    }

    /// True if there is something on the way to this worker.
    fn is_due(&self, meeting: &Meeting) -> bool {
        let next = (self.number + 1) % meeting.mail.len();
        let given = meeting.given[next].load(Ordering::Acquire);
        self.worker.counters().handed_off_rx < given
    }

    /// Takes what there is, or lets others run.
    fn take_over(&mut self, meeting: &Meeting) {
        if self.is_due(meeting) {
            self.timed(|worker| while worker.turn(0) > 0 {});
            self.take_back(meeting);
        } else {
            std::thread::yield_now();
        }
    }

    fn take_back(&mut self, meeting: &Meeting) {
        let counters = self.worker.counters();
        meeting.given[self.number].store(counters.handed_off_tx, Ordering::Release);
        meeting.taken[self.number].store(counters.handed_off_rx, Ordering::Release);
        let first = self.free.len();
        while self.peer.receive(&mut self.free) > 0 {}
        if self.answered {
            self.answer(first, meeting);
        }
        while self.peer.recycled(&mut self.free) > 0 {}
    }

    fn timed(&mut self, work: impl FnOnce(&mut Worker<RingDevice>)) {
        // An error shows as a count of zero.
        let counter = &mut self.instructions;
        let _ = counter.as_mut().map(Counter::enable);
        let start = processor_time();
        work(&mut self.worker);
        self.spent += processor_time() - start;
        self.looks += 1;
        let _ = counter.as_mut().map(Counter::disable);
    }

    /// Half of the frames are answers, but in the beginning; the others are requests.
    fn fill(&mut self, meeting: &Meeting) {
        let wanted = match self.answered && self.sent >= LEAD * BATCH as u64 {
            true => BATCH / 2,
            false => 0,
        };
        let mut answers = self.answers(meeting, wanted).into_iter();
        let mut packet = vec![0; self.template.length()];
        for _ in 0..BATCH {
            let Some(mut frame) = self.free.pop() else {
                break;
            };
            if let Some(answer) = answers.next() {
                packet = answer;
            } else {
                let Some((flow, round)) = self.order.next() else {
                    break;
                };
                self.template
                    .write(&self.flows, flow, round, self.sent, &mut packet);
            }
            let filled = self.umem.fill(&mut frame, &packet);
            debug_assert!(filled.is_ok());
            self.sending.push(frame);
        }
    }

    /// So many answers to requests of the worker before this one; fewer when that may have stopped.
    fn answers(&mut self, meeting: &Meeting, wanted: usize) -> Vec<Vec<u8>> {
        loop {
            let mut mail = lock(&meeting.mail[self.number]);
            if let Some(rest) = mail.len().checked_sub(wanted) {
                return mail.split_off(rest);
            }
            if meeting.is_stopped() {
                return std::mem::take(&mut *mail);
            }
            drop(mail);
            self.take_over(meeting);
        }
    }

    /// Turns the requests round that are in the frames from `first` on.
    fn answer(&self, first: usize, meeting: &Meeting) {
        let next = (self.number + 1) % meeting.mail.len();
        let mut mail = lock(&meeting.mail[next]);
        for frame in &self.free[first..] {
            let request = self.umem.bytes(frame);
            // An answer goes back to where its request came from.
            if request[..6] != layout(Protocol::Udp).source_mac.0 {
                mail.push(turned_round(request, self.is_tcp));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a real server answers: source and destination change places, which leaves checksums as they are.
fn turned_round(request: &[u8], is_tcp: bool) -> Vec<u8> {
    let mut answer = request.to_vec();
    answer[..6].copy_from_slice(&OWN_MAC.0);
    answer[6..12].copy_from_slice(&request[..6]);
    answer[26..30].copy_from_slice(&request[30..34]);
    answer[30..34].copy_from_slice(&request[26..30]);
    answer[34..36].copy_from_slice(&request[36..38]);
    answer[36..38].copy_from_slice(&request[34..36]);
    if is_tcp {
        // Its checksum is not looked at.
        answer[47] |= 0x10; // ACK
    }
    answer
}

/// Time that the processor spent in this thread.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// What two looks at that clock cost: the median of many.
fn clock_cost() -> Duration {
    let mut costs: Vec<Duration> = (0..1001)
        .map(|_| {
            let start = processor_time();
            processor_time() - start
        })
        .collect();
    costs.sort_unstable();
    costs[costs.len() / 2]
}
