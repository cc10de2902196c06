//! The pinned thread: receive, direct, transmit, tick.
//!
//! A worker owns its devices, its umem and its director; it shares nothing
//! with other threads but the published snapshot (read), the templates and sources in it (written, behind short locks), its statistics
//! (written), a queue of requests that is looked at between bursts, and, if there are other workers, what is
//! handed over between them.

mod requests;
mod thread;

pub use requests::Request;
pub use thread::{Idle, clock, run};

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use crate::conn::{ConnectionTable, State};
use crate::counters::{Counters, DropReason};
use crate::device::{BURST, Device};
use crate::director::{Director, Verdict};
use crate::flow::FlowKey;
use crate::handoff::{Arrival, Handoff, WorkerIndex};
use crate::service::{PortIndex, ServerId};
use crate::xsk::umem::{Frame, FramePool, Umem};

/// Most frames that wait, for a MAC address, a first fragment or a server's answer to the SYN proxy.
const WAITING: usize = 256;
/// Most fragments that a packet is cut into: of a frame of 4096 bytes, into 68 bytes and more.
pub(crate) const MOST_PIECES: usize = 96;
/// How long a frame waits for a MAC address, in milliseconds.
const WAITING_TIME: u64 = 1000;
/// How long a later fragment waits for its datagram's first one, in milliseconds: much longer than
/// a network reorders packets, and shorter than anybody takes to ask again, because the
/// kernel may have had the first one from the beginning.
const FRAGMENT_TIME: u64 = 100;
/// How often the devices are asked what they counted, in milliseconds.
const DEVICE_STATISTICS_INTERVAL: u64 = 1000;

/// A connection as it is listed.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionRecord {
    pub key: FlowKey,
    pub server: ServerId,
    pub state: State,
    /// Its replies are translated: it began with NAT or FULLNAT.
    pub is_translated: bool,
    /// Since its last packet.
    pub idle: Duration,
}

/// Asks a worker for its connections; it sends them in several parts and
/// then drops the sender.
pub type ListConnections = Sender<Vec<ConnectionRecord>>;

/// A device and the interface it belongs to.
#[derive(Debug)]
pub struct Port<D> {
    pub index: PortIndex,
    pub device: D,
}

/// One worker.
#[derive(Debug)]
pub struct Worker<D> {
    ports: Vec<Port<D>>,
    /// The device that frames for an interface leave by, by `PortIndex`.
    egress: Vec<Option<usize>>,
    umem: Arc<Umem>,
    pool: FramePool,
    director: Director,
    /// To and from the other workers, if there are any.
    handoff: Option<Handoff>,
    burst: Vec<Frame>,
    /// Where the frames of a burst that was handed over came from.
    arrivals: Vec<Arrival>,
    verdicts: [Verdict; BURST],
    waiting: VecDeque<Waiting>,
    /// The fragments of a packet that is being cut; empty between packets.
    pieces: Vec<Frame>,
    requests: Receiver<Request<D>>,
    /// Listings that were asked for.
    listings: VecDeque<ListConnections>,
    listing: Option<(ListConnections, usize)>,
    /// Timers are due that the last turn had no time for.
    behind: bool,
    /// When the devices are asked next what they counted.
    device_statistics_due: u64,
    /// When the last turn was.
    last_turn: u64,
}

/// A frame that is tried again.
#[derive(Debug)]
struct Waiting {
    frame: Frame,
    arrival: Arrival,
    /// What it waits for, and why it is dropped at the deadline.
    reason: DropReason,
    deadline: u64,
}

impl<D: Device> Worker<D> {
    /// A worker over `ports`, all of whose frames are of `umem`.
    #[must_use]
    pub fn new(
        ports: Vec<Port<D>>,
        umem: Arc<Umem>,
        pool: FramePool,
        director: Director,
        requests: Receiver<Request<D>>,
    ) -> Self {
        Self {
            egress: requests::egress(&ports),
            ports,
            umem,
            pool,
            director,
            handoff: None,
            burst: Vec::with_capacity(BURST),
            arrivals: Vec::with_capacity(BURST),
            verdicts: [Verdict::Drop(DropReason::NotIp); BURST],
            waiting: VecDeque::with_capacity(WAITING),
            pieces: Vec::with_capacity(MOST_PIECES),
            requests,
            listings: VecDeque::new(),
            listing: None,
            behind: false,
            device_statistics_due: 0,
            last_turn: 0,
        }
    }

    /// The same with other workers, to which it hands what is of their connections.
    #[must_use]
    pub fn with_handoff(mut self, handoff: Handoff) -> Self {
        self.director.set_owners(handoff.owners().clone());
        Self {
            handoff: Some(handoff),
            ..self
        }
    }

    /// One turn of the loop; returns how many frames were received, by its devices and from other
    /// workers. `now` is in milliseconds since the start and never goes back.
    pub fn turn(&mut self, now: u64) -> usize {
        let adopted = self.director.adopt();
        let mut received = 0;
        for port in 0..self.ports.len() {
            received += self.burst(port, now);
        }
        if self.handoff.as_ref().is_some_and(Handoff::has_frames) {
            received += self.take_over(now);
        }
        let news = self.director.has_news() | adopted;
        let waited = !self.waiting.is_empty();
        if waited {
            self.retry_waiting(news, now);
        }
        if let Some(handoff) = &mut self.handoff {
            handoff.flush(&mut self.pool);
        }
        for port in &mut self.ports {
            if received > 0 || waited || port.device.has_outstanding() {
                port.device.flush(&mut self.pool);
            }
        }
        let is_later = now != self.last_turn;
        self.last_turn = now;
        // What is due in a millisecond is so at its first turn.
        if is_later || self.behind {
            self.behind = self.director.expire(now);
        }
        // While bursts are full, counters may be a millisecond old, and requests wait as long.
        if is_later || received < BURST || self.listing.is_some() {
            self.director.publish();
            self.answer_requests(now);
        }
        if now >= self.device_statistics_due {
            self.publish_device_statistics(now);
        }
        received
    }

    #[cold]
    fn publish_device_statistics(&mut self, now: u64) {
        self.device_statistics_due = now + DEVICE_STATISTICS_INTERVAL;
        for (number, port) in self.ports.iter().enumerate() {
            self.director
                .statistics()
                .publish_device(number, &port.device.statistics());
        }
    }

    /// Lets time pass without packets: every timer due until `now` is handled.
    pub fn pass_time(&mut self, now: u64) {
        while self.director.tick(now) {}
    }

    fn burst(&mut self, port: usize, now: u64) -> usize {
        let Port { index, device } = &mut self.ports[port];
        let ingress = *index;
        let received = device.receive(&mut self.burst);
        if received == 0 {
            return 0;
        }
        let egress = self.director.process(
            ingress,
            &self.umem,
            &mut self.burst,
            now,
            &mut self.verdicts,
        );
        self.carry_out_burst(received, egress, &[Arrival::by(ingress)], now);
        received
    }

    /// Takes what other workers handed over.
    #[inline(never)]
    fn take_over(&mut self, now: u64) -> usize {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let workers = self
            .handoff
            .as_ref()
            .map_or(0, |handoff| handoff.owners().workers);
        let mut all = 0;
        for from in (0..workers).map(WorkerIndex) {
            let Some(handoff) = &mut self.handoff else {
                break;
            };
            let (pool, burst) = (&mut self.pool, &mut self.burst);
            let received = handoff.receive(from, &self.umem, pool, burst, &mut arrivals);
            if received > 0 {
                let verdicts = &mut self.verdicts;
                let egress = self
                    .director
                    .process_handed(&arrivals, &self.umem, burst, now, verdicts);
                self.carry_out_burst(received, egress, &arrivals, now);
                arrivals.clear();
                all += received;
            }
        }
        self.arrivals = arrivals;
        all
    }

    /// Carries out what was decided of a burst of `received` frames: all of them leave by `egress`, or
    /// each has its verdict.
    #[inline(always)]
    fn carry_out_burst(
        &mut self,
        received: usize,
        egress: Option<PortIndex>,
        arrivals: &[Arrival],
        now: u64,
    ) {
        if let Some(egress) = egress {
            if let Some(device) = self.device(egress) {
                self.ports[device].device.transmit_burst(&mut self.burst);
            }
            if self.burst.is_empty() {
                return;
            }
            // What the ring has no room for goes the way of other frames.
            self.verdicts[..received].fill(Verdict::Transmit(egress));
        }
        self.carry_out_rest(received, arrivals, now);
    }

    /// The device that frames for an interface leave by.
    #[inline(always)]
    fn device(&self, egress: PortIndex) -> Option<usize> {
        self.egress.get(usize::from(egress.0)).copied().flatten()
    }

    /// Carries out the last verdicts of `received` ones: those of the frames that are left.
    #[inline(never)]
    fn carry_out_rest(&mut self, received: usize, arrivals: &[Arrival], now: u64) {
        let mut burst = std::mem::take(&mut self.burst);
        let verdicts = self.verdicts;
        let rest = received - burst.len();
        for (frame, number) in burst.drain(..).zip(rest..) {
            let arrival = *arrivals.get(number).unwrap_or(&arrivals[0]);
            self.carry_out(frame, arrival, verdicts[number], now);
        }
        self.burst = burst;
    }

    #[inline(always)]
    fn carry_out(&mut self, frame: Frame, arrival: Arrival, verdict: Verdict, now: u64) {
        match verdict {
            Verdict::Transmit(port) => {
                let length = frame.len();
                let unsent = match self.device(port) {
                    Some(device) => self.ports[device].device.transmit(frame).err(),
                    None => Some(frame),
                };
                if let Some(frame) = unsent {
                    self.director
                        .dropped_after(verdict, DropReason::TxRingFull, length);
                    self.pool.give(frame);
                }
            }
            Verdict::Drop(_) => self.pool.give(frame),
            Verdict::Wait(reason) => {
                if self.waiting.len() < WAITING {
                    let time = match reason == DropReason::Fragment {
                        true => FRAGMENT_TIME,
                        false => WAITING_TIME,
                    };
                    self.waiting.push_back(Waiting {
                        frame,
                        arrival,
                        reason,
                        deadline: now + time,
                    });
                } else {
                    self.director.dropped_after(verdict, reason, frame.len());
                    self.pool.give(frame);
                }
            }
            Verdict::Cut(mtu) => self.cut(frame, arrival, mtu, now),
            Verdict::HandOff(to) => {
                let length = frame.len();
                let unsent = match &mut self.handoff {
                    Some(handoff) => handoff.send(to, frame, arrival.ingress).err(),
                    None => Some(frame),
                };
                if let Some(frame) = unsent {
                    self.not_handed_off(frame, verdict, length);
                }
            }
            Verdict::Offer => {
                let length = frame.len();
                let unsent = match &mut self.handoff {
                    Some(handoff) => handoff.offer(frame, arrival).err(),
                    None => Some(frame),
                };
                if let Some(frame) = unsent {
                    self.not_handed_off(frame, verdict, length);
                }
            }
        }
    }

    #[cold]
    fn not_handed_off(&mut self, frame: Frame, verdict: Verdict, length: usize) {
        self.director
            .dropped_after(verdict, DropReason::HandoffRingFull, length);
        self.pool.give(frame);
    }

    /// Cuts a packet that is longer than its way allows, and sends the pieces as fragments that
    /// arrived.
    #[cold]
    fn cut(&mut self, frame: Frame, arrival: Arrival, mtu: u16, now: u64) {
        let mut pieces = std::mem::take(&mut self.pieces);
        let cut = self
            .director
            .cut(&self.umem, &frame, mtu, &mut self.pool, &mut pieces);
        let length = frame.len();
        self.pool.give(frame);
        if let Err(reason) = cut {
            self.director
                .dropped_after(Verdict::Cut(mtu), reason, length);
        }
        for mut piece in pieces.drain(..) {
            let verdict = self.director.retry(arrival, &self.umem, &mut piece, now);
            match verdict {
                // The first fragment has a way, or none of them does.
                Verdict::Wait(reason) => {
                    let length = piece.len();
                    self.director.dropped_after(verdict, reason, length);
                    self.pool.give(piece);
                }
                Verdict::Cut(_) => {
                    let length = piece.len();
                    self.director
                        .dropped_after(verdict, DropReason::TooBig, length);
                    self.pool.give(piece);
                }
                Verdict::Transmit(_) | Verdict::Drop(_) | Verdict::HandOff(_) | Verdict::Offer => {
                    self.carry_out(piece, arrival, verdict, now);
                }
            }
        }
        self.pieces = pieces;
    }

    /// Sends what waited, if its way may be known by now, and gives up on
    /// what waited too long.
    #[cold]
    fn retry_waiting(&mut self, news: bool, now: u64) {
        for _ in 0..self.waiting.len() {
            let Some(mut waiting) = self.waiting.pop_front() else {
                return;
            };
            let unresolved = Verdict::Wait(waiting.reason);
            if news {
                let arrival = waiting.arrival;
                let verdict = self
                    .director
                    .retry(arrival, &self.umem, &mut waiting.frame, now);
                if verdict != unresolved {
                    self.carry_out(waiting.frame, arrival, verdict, now);
                    continue;
                }
            }
            if waiting.deadline <= now {
                let verdict = self.director.give_up(&waiting.frame, waiting.reason);
                self.carry_out(waiting.frame, waiting.arrival, verdict, now);
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }

    /// There is work that no packet announces.
    fn has_more_to_do(&self) -> bool {
        let mut devices = self.ports.iter().map(|port| &port.device);
        self.behind || devices.any(Device::has_outstanding)
    }

    /// Somebody waits for a list of connections.
    fn is_listing(&self) -> bool {
        self.listing.is_some() || !self.listings.is_empty()
    }

    /// The counters, up to this moment.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        self.director.counters()
    }

    /// The worker's connections.
    #[must_use]
    pub fn connections(&self) -> &ConnectionTable {
        self.director.table()
    }

    /// The worker's free frames.
    #[must_use]
    pub fn pool(&self) -> &FramePool {
        &self.pool
    }

    /// The devices, for those who drive the worker by [`turn`](Self::turn).
    #[must_use]
    pub fn ports(&self) -> &[Port<D>] {
        &self.ports
    }

    /// Ends the worker and gives its devices back.
    #[must_use]
    pub fn into_ports(self) -> Vec<Port<D>> {
        self.ports
    }
}
