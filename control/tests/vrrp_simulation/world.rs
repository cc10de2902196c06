//! Directors, their network and their clock. Everything that happens comes
//! from one seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use control::vrrp::machine::{Garp, Machine, Output, Parameters, State};
use control::vrrp::packet::{Advert, Authentication, Version};

/// SplitMix64: small, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `limit` − 1.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap())).unwrap()
    }
}

/// What arrives: to whom, and the advertisement.
type Arrival = (usize, Advert, IpAddr);

struct Node {
    machine: Machine,
    address: IpAddr,
    parameters: Parameters,
    runs: bool,
    paused_until: Option<Instant>,
    /// What came during a pause.
    waiting: VecDeque<(Advert, IpAddr)>,
    /// Whether it has the addresses, by what it wanted done.
    holds: bool,
    /// Which part of the network it is in.
    part: u64,
}

pub(crate) struct World {
    nodes: Vec<Node>,
    begin: Instant,
    now: Instant,
    random: Random,
    /// By time, then in the order of sending.
    arrivals: BinaryHeap<Reverse<(Instant, u64)>>,
    in_flight: Vec<Option<Arrival>>,
    out: Vec<Output>,
    /// Per cent.
    pub(crate) loss: u64,
    pub(crate) duplicates: u64,
    pub(crate) longest_delay: Duration,
    /// Changes of state so far.
    pub(crate) changes: u64,
    became_master: u64,
}

impl World {
    /// Two to four directors, all started.
    pub(crate) fn new(random: &mut Random) -> Self {
        let begin = Instant::now();
        let version = [Version::V2, Version::V3][random.index(2)];
        let interval = match version {
            Version::V2 => Duration::from_secs(1 + random.below(3)),
            Version::V3 => Duration::from_millis(10 * (1 + random.below(200))),
        };
        let preempts = random.below(4) != 0;
        let same_interval = version == Version::V2 || random.below(4) != 0;
        let count = 2 + random.below(3);
        let nodes = (1..=count).map(|number| {
            let parameters = Parameters {
                version,
                // Few, so that some are equal.
                priority: [1, 50, 99, 100, 254, 255][random.index(6)],
                advert_int: if same_interval {
                    interval
                } else {
                    interval * u32::try_from(1 + random.below(3)).unwrap()
                },
                preempt: preempts || random.below(2) == 0,
                preempt_delay: interval * u32::try_from(random.below(3)).unwrap(),
                startup_delay: Duration::ZERO,
                lower_prio_advert: true,
                higher_prio_send_advert: random.below(4) == 0,
                garp: Garp::default(),
            };
            let address = IpAddr::from([10, 0, 0, u8::try_from(number).unwrap()]);
            Node {
                machine: Machine::new(parameters.clone()),
                address,
                parameters,
                runs: false,
                paused_until: None,
                waiting: VecDeque::new(),
                holds: false,
                part: 0,
            }
        });
        let mut world = Self {
            nodes: nodes.collect(),
            begin,
            now: begin,
            random: Random::new(random.next()),
            arrivals: BinaryHeap::new(),
            in_flight: Vec::new(),
            out: Vec::new(),
            loss: 0,
            duplicates: 0,
            longest_delay: Duration::ZERO,
            changes: 0,
            became_master: 0,
        };
        world.repair();
        world
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.begin
    }

    /// The longest advertisement interval.
    pub(crate) fn interval(&self) -> Duration {
        let intervals = self.nodes.iter().map(|node| node.parameters.advert_int);
        intervals.max().unwrap()
    }

    pub(crate) fn intervals(&self, number: u64) -> Duration {
        self.interval() * u32::try_from(number).unwrap()
    }

    pub(crate) fn equal_intervals(&self) -> bool {
        let all = self.nodes.iter();
        all.min_by_key(|node| node.parameters.advert_int)
            .is_some_and(|node| node.parameters.advert_int == self.interval())
    }

    /// Of a second in version 2, of the master's interval in version 3.
    pub(crate) fn longest_skew(&self) -> Duration {
        match self.nodes[0].parameters.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.interval(),
        }
    }

    /// Without this one, the best director's skew time is over before the others' begin to be, even if they
    /// heard the last advertisement at different times.
    pub(crate) fn has_clear_successor(&self, without: usize) -> bool {
        let nodes = self.nodes.iter().enumerate();
        let others = nodes.filter(|(place, _)| *place != without);
        let mut priorities: Vec<_> = others.map(|(_, node)| node.parameters.priority).collect();
        priorities.sort_unstable_by(|a, b| b.cmp(a));
        let between = match priorities[..] {
            [first, second, ..] => u32::from(first - second),
            [_] | [] => return true,
        };
        self.equal_intervals() && self.longest_skew() * between / 256 > 2 * self.longest_delay
    }

    /// Three intervals and a skew time: of an interval, or of a second.
    pub(crate) fn longest_master_down(&self) -> Duration {
        3 * self.interval() + self.interval().max(Duration::from_secs(1))
    }

    /// Somebody becomes master, and a better one takes over when it may.
    pub(crate) fn longest_election(&self) -> Duration {
        let delays = self.nodes.iter().map(|node| node.parameters.preempt_delay);
        2 * self.longest_master_down() + delays.max().unwrap() + 2 * self.interval()
    }

    pub(crate) fn all_preempt(&self) -> bool {
        self.nodes.iter().all(|node| node.parameters.preempt)
    }

    /// Whoever may be master: those of the highest priority.
    pub(crate) fn best(&self) -> Vec<usize> {
        let priority = |place: &usize| self.nodes[*place].parameters.priority;
        let highest = (0..self.nodes.len()).map(|place| priority(&place)).max();
        let places = 0..self.nodes.len();
        places
            .filter(|place| Some(priority(place)) == highest)
            .collect()
    }

    pub(crate) fn is_master(&self, place: usize) -> bool {
        self.nodes[place].runs && self.state(place) == State::Master
    }

    pub(crate) fn masters(&self) -> Vec<usize> {
        let places = 0..self.nodes.len();
        places.filter(|place| self.is_master(*place)).collect()
    }

    pub(crate) fn state(&self, place: usize) -> State {
        self.nodes[place].machine.state()
    }

    pub(crate) fn became_master(&self) -> u64 {
        self.became_master
    }

    pub(crate) fn released_master(&self, place: usize) -> u64 {
        self.nodes[place].machine.statistics().released_master
    }

    /// The members of each part that has any.
    pub(crate) fn parts(&self) -> Vec<Vec<usize>> {
        let mut numbers: Vec<_> = self.nodes.iter().map(|node| node.part).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let members = |part: &u64| {
            let places = 0..self.nodes.len();
            places
                .filter(|place| self.nodes[*place].part == *part)
                .collect()
        };
        numbers.iter().map(members).collect()
    }

    /// Nothing is lost, everybody runs and hears everybody within a tenth of
    /// an interval.
    pub(crate) fn repair(&mut self) {
        self.loss = 0;
        self.duplicates = 0;
        let intervals = self.nodes.iter().map(|node| node.parameters.advert_int);
        self.longest_delay = intervals.min().unwrap() / 10;
        self.unsplit();
        for place in 0..self.nodes.len() {
            self.resume(place);
            self.start(place);
        }
    }

    pub(crate) fn split(&mut self, bits: u64) {
        for (place, node) in self.nodes.iter_mut().enumerate() {
            node.part = bits >> place & 1;
        }
    }

    pub(crate) fn unsplit(&mut self) {
        self.split(0);
    }

    pub(crate) fn crash(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        node.runs = false;
        node.holds = false;
        node.paused_until = None;
        node.waiting.clear();
    }

    /// Begins anew, if it does not run or is stopping.
    pub(crate) fn start(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if node.runs && !node.machine.is_handing_over() && !node.machine.has_stopped() {
            return;
        }
        node.runs = true;
        node.holds = false;
        node.machine = Machine::new(node.parameters.clone());
        let address = Some(node.address);
        self.step(place, |machine, now, out| {
            machine.set_primary(address, now, out);
            machine.start(now, out);
        });
    }

    /// As SIGTERM does.
    pub(crate) fn stop(&mut self, place: usize) {
        if self.nodes[place].runs && self.nodes[place].paused_until.is_none() {
            self.step(place, Machine::stop);
        }
    }

    /// The process does nothing for a time: its timers wait, and its packets.
    pub(crate) fn pause(&mut self, place: usize, time: Duration) {
        let node = &mut self.nodes[place];
        if node.runs {
            node.paused_until = Some(self.now + time);
        }
    }

    /// What has come is seen before the timers, as `run` does it.
    fn resume(&mut self, place: usize) {
        if self.nodes[place].paused_until.take().is_none() {
            return;
        }
        while let Some((advert, source)) = self.nodes[place].waiting.pop_front() {
            self.step(place, |machine, now, out| {
                machine.advert(&advert, source, now, out);
            });
        }
        self.step(place, Machine::timeout);
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timers = self.nodes.iter().enumerate().filter_map(|(place, node)| {
                let due = match node.paused_until {
                    Some(until) => Some(until),
                    None => node.machine.deadline(),
                };
                due.filter(|_| node.runs).map(|due| (due, place))
            });
            let timer = timers.min();
            let arrival = self.arrivals.peek().map(|Reverse((due, _))| *due);
            let next = [timer.map(|(due, _)| due), arrival];
            let Some(next) = next.into_iter().flatten().min().filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                self.arrive();
            } else if let Some((_, place)) = timer {
                if self.nodes[place].paused_until.is_some() {
                    self.resume(place);
                } else {
                    self.step(place, Machine::timeout);
                }
            }
        }
        self.now = end;
    }

    /// Until nothing is under way.
    pub(crate) fn settle(&mut self) {
        while let Some(Reverse((due, _))) = self.arrivals.peek() {
            self.run_for(due.saturating_duration_since(self.now));
        }
    }

    fn arrive(&mut self) {
        let Some(Reverse((_, number))) = self.arrivals.pop() else {
            return;
        };
        let number = usize::try_from(number).unwrap();
        let Some((place, advert, source)) = self.in_flight[number].take() else {
            return;
        };
        let node = &mut self.nodes[place];
        if node.paused_until.is_some() {
            node.waiting.push_back((advert, source));
        } else if node.runs {
            self.step(place, |machine, now, out| {
                machine.advert(&advert, source, now, out);
            });
        }
    }

    /// Lets a machine do something, and does what it wants.
    fn step(&mut self, place: usize, step: impl FnOnce(&mut Machine, Instant, &mut Vec<Output>)) {
        let mut out = std::mem::take(&mut self.out);
        step(&mut self.nodes[place].machine, self.now, &mut out);
        for output in out.drain(..) {
            let node = &mut self.nodes[place];
            match output {
                Output::Send { priority } => self.send(place, priority),
                Output::AddAddresses => {
                    assert!(!node.holds, "{} takes twice", node.address);
                    node.holds = true;
                }
                Output::RemoveAddresses => {
                    assert!(node.holds, "{} gives up twice", node.address);
                    node.holds = false;
                }
                Output::Announce { repeat } => assert!(node.holds && repeat > 0),
                Output::Priority { .. } => {}
                Output::Changed { to, .. } => {
                    self.changes += 1;
                    self.became_master += u64::from(to == State::Master);
                }
            }
        }
        self.out = out;
        let node = &self.nodes[place];
        let is_master = node.machine.state() == State::Master;
        assert_eq!(
            node.holds, is_master,
            "{} holds the addresses",
            node.address
        );
    }

    fn send(&mut self, from: usize, priority: u8) {
        let Node {
            address,
            part,
            ref parameters,
            ..
        } = self.nodes[from];
        let advert = Advert {
            version: parameters.version,
            virtual_router_id: 51,
            priority,
            advert_int: parameters.advert_int,
            authentication: Authentication::None,
            addresses: Vec::new(),
        };
        for to in 0..self.nodes.len() {
            if to == from || self.nodes[to].part != part || !self.nodes[to].runs {
                continue;
            }
            let copies = 1 + u64::from(self.random.below(100) < self.duplicates);
            for _ in 0..copies {
                if self.random.below(100) < self.loss {
                    continue;
                }
                let longest = u64::try_from(self.longest_delay.as_micros()).unwrap();
                let delay = Duration::from_micros(self.random.below(longest + 1));
                let number = u64::try_from(self.in_flight.len()).unwrap();
                self.in_flight.push(Some((to, advert.clone(), address)));
                self.arrivals.push(Reverse((self.now + delay, number)));
            }
        }
    }
}

/// What a failed assertion shows.
impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at {:?}:", self.elapsed())?;
        for node in &self.nodes {
            let Parameters {
                version,
                priority,
                advert_int,
                preempt,
                preempt_delay,
                ..
            } = node.parameters;
            writeln!(
                f,
                "{} {:?} runs {} part {} {version:?} priority {priority} advert_int {advert_int:?} \
                 preempt {preempt} after {preempt_delay:?}",
                node.address,
                node.machine.state(),
                node.runs,
                node.part,
            )?;
        }
        Ok(())
    }
}
