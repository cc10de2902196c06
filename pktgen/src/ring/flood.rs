//! A flood of SYNs among the packets of established connections: what do these keep?
//!
//! Each SYN is of a flow that sends nothing else, so that connections stay half open until the table is full, and
//! each new one takes the place of the oldest. What is measured is the steady state that follows. Packets come in
//! one queue, so that what the worker cannot do in time would be lost to both alike; what the flood takes is the
//! worker's time.

use std::time::Duration;

use dataplane::conn::State;

use super::{BATCH, Plan, Ring, RingError, clock_cost, drops, instructions, measured, unmeasured};

/// Connections that there is room for besides those of the flows: what the flood fills first.
const ROOM: u32 = 1 << 16;
/// Flows of the flood, which come again after that: more than fit, so that each has been evicted.
const SYNS: u32 = 1 << 18;
/// Packets measured, unless the plan says how many.
const PACKETS: u64 = 1 << 20;

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Of the worker's time, for each packet, whatever it is.
    pub ns_per_packet: f64,
    /// `None` on a machine without a counter.
    pub instructions_per_packet: Option<f64>,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    /// Packets of established connections, all of which were forwarded, as those of the flood.
    pub packets: u64,
    pub syns: u64,
    /// Of the established connections alone.
    pub calm: Share,
    /// Of both.
    pub flooded: Share,
    /// Half-open connections evicted for new ones.
    pub evicted: u64,
}

/// Establishes the flows of `plan` (TCP), and sends their packets, of each hundred of which `percent` are SYNs of the
/// flood instead.
///
/// # Errors
/// As [`run`](super::run); an established connection was lost; or it was stopped before the flood was measured.
pub fn run(plan: &Plan, percent: u8) -> Result<Flooded, RingError> {
    let mut ring = Ring::with_room(plan, SYNS, ROOM)?;
    ring.warm_up(plan)?;
    let packets = plan.packets.unwrap_or(PACKETS);
    let mut flood = Flood {
        ring,
        next: 0,
        syns: 0,
        hundredths: 0,
    };
    let (calm, _, _) = flood.measure(plan, packets, 0)?;
    // Until the table is full.
    flood.send(
        plan,
        u64::from(ROOM) * 100 / u64::from(percent.max(1)) + 1,
        percent,
    );
    let evicted = flood.evicted();
    let (flooded, packets, syns) = flood.measure(plan, packets, percent)?;
    flood.check(plan)?;
    Ok(Flooded {
        packets,
        syns,
        calm,
        flooded,
        evicted: flood.evicted() - evicted,
    })
}

struct Flood {
    ring: Ring,
    /// The flood's next flow.
    next: u32,
    syns: u64,
    /// Of a SYN that is due.
    hundredths: u16,
}

impl Flood {
    /// Sends so many packets, unless it is stopped; the others are how many were of established connections, and
    /// how many SYNs.
    fn measure(
        &mut self,
        plan: &Plan,
        packets: u64,
        percent: u8,
    ) -> Result<(Share, u64, u64), RingError> {
        let clock = clock_cost();
        let mut counter = instructions();
        let mut spent = Duration::ZERO;
        let (mut left, syns) = (packets, self.syns);
        while left > 0 && !plan.is_stopped() {
            let batch = self.fill(left, percent);
            spent += self.ring.deliver(|worker, now, sent| {
                // An error shows as a count of zero, which is left out below.
                let _ = counter.as_mut().map(|counter| counter.enable());
                let start = std::time::Instant::now();
                measured(worker, now, sent);
                let spent = start.elapsed();
                let _ = counter.as_mut().map(|counter| counter.disable());
                spent.saturating_sub(clock)
            });
            left -= batch;
        }
        let packets = packets - left;
        if packets == 0 {
            return Err(RingError::Interrupted);
        }
        let counted = counter.and_then(|mut counter| counter.read().ok());
        let counted = counted.filter(|&count| count > 0);
        let share = Share {
            ns_per_packet: spent.as_nanos() as f64 / packets as f64,
            instructions_per_packet: counted.map(|count| count as f64 / packets as f64),
        };
        let syns = self.syns - syns;
        Ok((share, packets - syns, syns))
    }

    /// The same without looking.
    fn send(&mut self, plan: &Plan, packets: u64, percent: u8) {
        let mut left = packets;
        while left > 0 && !plan.is_stopped() {
            left -= self.fill(left, percent);
            self.ring.deliver(|worker, now, sent| {
                let start = std::time::Instant::now();
                unmeasured(worker, now, sent);
                start.elapsed()
            });
        }
    }

    /// Fills a batch, or what is left; returns how many.
    fn fill(&mut self, left: u64, percent: u8) -> u64 {
        let batch = BATCH.min(usize::try_from(left).unwrap_or(BATCH));
        for _ in 0..batch {
            self.hundredths += u16::from(percent);
            if self.hundredths >= 100 {
                self.hundredths -= 100;
                let flow = self.ring.window.size + self.next;
                self.next = (self.next + 1) % SYNS;
                self.syns += 1;
                self.ring.put(flow, 0);
            } else if let Some((flow, round)) = self.ring.window.order.next() {
                self.ring.put(flow, round);
            }
        }
        batch as u64
    }

    fn evicted(&self) -> u64 {
        self.ring.worker.counters().connections_evicted
    }

    /// Sees that every packet was forwarded and every established connection is there.
    fn check(&self, plan: &Plan) -> Result<(), RingError> {
        let table = self.ring.worker.connections();
        let all = table.scan(0, table.capacity());
        let established = all.filter(|(_, connection)| connection.state() == State::Established);
        let connections = established.count();
        if connections != plan.flows as usize {
            return Err(RingError::Lost {
                flows: plan.flows,
                connections,
            });
        }
        let counters = self.ring.worker.counters();
        if counters.tx_packets == self.ring.packets {
            return Ok(());
        }
        Err(RingError::NotForwarded {
            sent: self.ring.packets,
            forwarded: counters.tx_packets,
            drops: drops(counters),
        })
    }
}
