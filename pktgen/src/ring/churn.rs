//! Nothing but new connections: the table goes from empty to all flows of the plan, a connection by each packet,
//! and back to empty when all of them have timed out at once; again and again.
//!
//! Every burst is measured by itself, with its time and its instructions: the longest one is what
//! packets behind it wait for. Of the two, times have what else the machine does in them; instructions have not.
//!
//! What makes connections is below [`measured`], what ends them below [`drained`], for instruction
//! counters.

use std::time::{Duration, Instant};

use dataplane::device::BURST;
use dataplane::device::ring::RingDevice;
use dataplane::worker::Worker;
use hdrhistogram::Histogram;
use perf_event::Counter;

use super::{Measured, Plan, Ring, RingError, SLICE, clock_cost, drops, instructions, measured};

/// Longer than any connection stays without packets: by the timeouts of the snapshot.
const TIMEOUT: Duration = Duration::from_secs(1000);
/// Turns without an end of a connection, after which there will be none: as long as the worker needs to
/// go over all slots of its timers, and far longer.
const IDLE_TURNS: u32 = 1000;
/// What a burst takes at most, in nanoseconds or instructions; more counts as this.
const MOST: u64 = 10_u64.pow(11);

/// What was measured.
#[derive(Clone, Debug)]
pub struct Churned {
    /// Of the packets, each of which made a connection.
    pub made: Measured,
    /// Allocated for connections, by each that there is room for.
    pub bytes_per_connection: f64,
    /// Bursts of new connections.
    pub fill: Bursts,
    /// Bursts without packets, while connections end.
    pub drain: Bursts,
}

/// The bursts of one phase.
#[derive(Clone, Debug)]
pub struct Bursts {
    /// Connections made or ended.
    pub connections: u64,
    /// Of each burst.
    pub nanoseconds: Histogram<u64>,
    /// In user space; `None` on a machine without a counter.
    pub instructions: Option<Histogram<u64>>,
}

impl Bursts {
    fn new(counter: Option<&Counter>) -> Self {
        let histogram = || {
            Histogram::new_with_max(MOST, 3)
                .unwrap_or_else(|_| unreachable!("the bounds are valid"))
        };
        Self {
            connections: 0,
            nanoseconds: histogram(),
            instructions: counter.map(|_| histogram()),
        }
    }

    /// The mean for each connection, in nanoseconds.
    #[must_use]
    pub fn nanoseconds_per_connection(&self) -> f64 {
        per(&self.nanoseconds, self.connections)
    }

    /// The mean for each connection; `None` where they are not counted.
    #[must_use]
    pub fn instructions_per_connection(&self) -> Option<f64> {
        let all = self.instructions.as_ref()?;
        Some(per(all, self.connections))
    }
}

fn per(all: &Histogram<u64>, connections: u64) -> f64 {
    match connections {
        0 => 0.0,
        some => all.mean() * all.len() as f64 / some as f64,
    }
}

/// Fills and drains the table until the duration or packets of `plan` are over, at least once unless it is stopped.
///
/// # Errors
/// As [`run`](super::run); or connections were not made or do not end.
pub fn run(plan: &Plan) -> Result<Churned, RingError> {
    let mut churn = Churn::new(plan)?;
    let most = plan.packets.unwrap_or(u64::MAX);
    let start = Instant::now();
    loop {
        churn.fill(plan)?;
        churn.drain(plan)?;
        let is_over = match plan.packets {
            Some(_) => churn.filled.connections >= most,
            None => start.elapsed() >= plan.duration,
        };
        if is_over || plan.is_stopped() {
            return Ok(churn.result());
        }
    }
}

struct Churn {
    ring: Ring,
    clock: Duration,
    counter: Option<Counter>,
    slices: Vec<f64>,
    filled: Bursts,
    drained: Bursts,
}

impl Churn {
    fn new(plan: &Plan) -> Result<Self, RingError> {
        let counter = instructions();
        Ok(Self {
            ring: Ring::new(plan)?,
            clock: clock_cost(),
            slices: Vec::new(),
            filled: Bursts::new(counter.as_ref()),
            drained: Bursts::new(counter.as_ref()),
            counter,
        })
    }

    /// From no connection to all of the plan's.
    fn fill(&mut self, plan: &Plan) -> Result<(), RingError> {
        let (mut spent, mut done) = (Duration::ZERO, 0);
        let flows = u64::from(plan.flows);
        // Fewer if it is stopped.
        let mut wanted = flows;
        for number in 1..=flows {
            let Some((flow, _)) = self.ring.window.order.next() else {
                break;
            };
            // Always the flow's first packet: for TCP, a SYN.
            self.ring.put(flow, 0);
            if self.ring.sending.len() < BURST && number < flows {
                continue;
            }
            if plan.is_stopped() {
                wanted = number;
            }
            done += self.ring.sending.len() as u64;
            spent += self.burst(measured, |churn| &mut churn.filled);
            if done >= SLICE || number == wanted {
                self.slices.push(spent.as_nanos() as f64 / done as f64);
                (spent, done) = (Duration::ZERO, 0);
            }
            if number == wanted {
                break;
            }
        }
        self.filled.connections += wanted;
        // A worker whose bursts are full publishes its counters when there is time.
        self.ring.deliver(|worker, now, _| {
            worker.turn(now);
            Duration::ZERO
        });
        let connections = self.connections();
        if connections == wanted {
            return Ok(());
        }
        Err(RingError::NotConnected {
            wanted,
            connections,
            drops: drops(self.ring.worker.counters()),
        })
    }

    /// All connections time out at once; the worker may not do all that at once.
    fn drain(&mut self, plan: &Plan) -> Result<(), RingError> {
        self.ring.worker_time += TIMEOUT;
        let (mut left, mut idle) = (self.connections(), 0);
        while left > 0 && !plan.is_stopped() {
            self.burst(drained, |churn| &mut churn.drained);
            let before = std::mem::replace(&mut left, self.connections());
            self.drained.connections += before.saturating_sub(left);
            idle = if left < before { 0 } else { idle + 1 };
            if idle > IDLE_TURNS {
                return Err(RingError::NotEnded { connections: left });
            }
        }
        Ok(())
    }

    /// One burst, measured; returns how long it took.
    fn burst(
        &mut self,
        direct: impl FnOnce(&mut Worker<RingDevice>, u64, usize),
        phase: impl FnOnce(&mut Self) -> &mut Bursts,
    ) -> Duration {
        let Self {
            ring,
            clock,
            counter,
            ..
        } = self;
        let before = counter.as_mut().and_then(|counter| counter.read().ok());
        let spent = ring.deliver(|worker, now, sent| {
            // An error shows as a count of zero, which is left out below.
            let _ = counter.as_mut().map(Counter::enable);
            let start = Instant::now();
            direct(worker, now, sent);
            let spent = start.elapsed();
            let _ = counter.as_mut().map(Counter::disable);
            spent.saturating_sub(*clock)
        });
        let after = counter.as_mut().and_then(|counter| counter.read().ok());
        let bursts = phase(self);
        let nanoseconds = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        bursts.nanoseconds.saturating_record(nanoseconds);
        if let (Some(all), Some(before), Some(after)) = (&mut bursts.instructions, before, after)
            && after > before
        {
            all.saturating_record(after - before);
        }
        spent
    }

    fn connections(&self) -> u64 {
        self.ring.worker.counters().connections
    }

    fn result(mut self) -> Churned {
        self.slices.sort_by(f64::total_cmp);
        let table = self.ring.worker.connections();
        Churned {
            made: Measured {
                packets: self.filled.connections,
                slices: self.slices,
                instructions_per_packet: self.filled.instructions_per_connection(),
                connections: self.filled.connections,
            },
            bytes_per_connection: table.memory() as f64 / table.capacity() as f64,
            fill: self.filled,
            drain: self.drained,
        }
    }
}

/// One turn without packets.
#[inline(never)]
pub fn drained(worker: &mut Worker<RingDevice>, now: u64, _: usize) {
    worker.turn(std::hint::black_box(now));
}
