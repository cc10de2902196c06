//! One virtual router on one director: the state machine of RFC 9568 §6.4,
//! with what keepalived adds to it.
//!
//! ```text
//!              start                      master down, or owner
//!   INIT ───────────────► BACKUP ──────────────────────────────► MASTER
//!     ▲                    │  ▲ ◄──────────────────────────────── │  │
//!     │               fault│  │ no fault      higher priority     │  │
//!     │                    ▼  │                                   │  │
//!     │                    FAULT ◄────────────────────────────────┘  │
//!     └───────────── stop: another master, or nobody within skew time ┘
//! ```
//!
//! Sans-I/O: every function takes the time and appends what is to be done.
//! [`Machine::deadline`] says when [`Machine::timeout`] is to be called.
//!
//! Invariants: the addresses are held in [`State::Master`] and in no other
//! state; a master that stops keeps answering until another has taken over.
//!
//! Not here: what is in a packet (`packet`), which instances belong together
//! (`router`).

mod parts;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use parts::{Fault, Garp, Output, Parameters, State, Statistics};

use super::packet::{Advert, PRIORITY_OWNER, PRIORITY_STOP, Version};

/// Answers to a lower priority's advertisement come at most this many times in
/// an interval: whoever floods us is not answered with a flood.
const ASSERTIONS_PER_INTERVAL: u32 = 10;

/// The virtual router.
#[derive(Clone, Debug)]
pub struct Machine {
    parameters: Parameters,
    state: State,
    since: Option<Instant>,
    /// Breaks ties between equal priorities.
    primary: Option<IpAddr>,
    /// Sum of the weights of what is tracked.
    weight: i32,
    faults: BTreeSet<Fault>,
    /// The interval of the master that is followed (VRRPv3).
    master_advert_int: Duration,
    /// Whom the last followed advertisement came from.
    master: Option<(IpAddr, u8)>,
    /// It is in a sync group, and becomes master when the group does.
    in_group: bool,
    /// BACKUP in a group: there is no better master than this one.
    wants_master: bool,
    timers: Timers,
    statistics: Statistics,
}

#[derive(Clone, Copy, Debug, Default)]
struct Timers {
    /// INIT: when to take part.
    start: Option<Instant>,
    /// BACKUP: Master_Down_Timer.
    master_down: Option<Instant>,
    /// BACKUP: until when a master of lower priority is left alone.
    preempt: Option<Instant>,
    /// MASTER: Adver_Timer.
    advert: Option<Instant>,
    /// MASTER: the second burst after becoming master.
    announce: Option<Instant>,
    refresh: Option<Instant>,
    /// MASTER: the second burst after a lower priority's advertisement.
    lower_prio: Option<Instant>,
    /// MASTER: the next answer to a lower priority's advertisement may be sent.
    assert: Option<Instant>,
    /// MASTER that stops: until when another is waited for.
    hand_over: Option<Instant>,
}

impl Machine {
    /// In [`State::Init`]. Faults may be set before [`start`](Self::start).
    #[must_use]
    pub fn new(parameters: Parameters) -> Self {
        Self {
            master_advert_int: parameters.advert_int,
            parameters,
            state: State::Init,
            since: None,
            primary: None,
            weight: 0,
            faults: BTreeSet::new(),
            master: None,
            in_group: false,
            wants_master: false,
            timers: Timers::default(),
            statistics: Statistics::default(),
        }
    }

    /// Takes part from now on, or after the startup delay.
    pub fn start(&mut self, now: Instant, out: &mut Vec<Output>) {
        let delay = self.parameters.startup_delay;
        if delay.is_zero() {
            self.enter(now, "started", out);
        } else {
            self.timers.start = Some(now + delay);
        }
    }

    /// Gives up for good. A master says so and goes on answering until another
    /// has taken over, for a skew time at most.
    pub fn stop(&mut self, now: Instant, out: &mut Vec<Output>) {
        match self.state {
            State::Master if self.timers.hand_over.is_none() => {
                self.send_stop(out);
                self.timers = Timers {
                    hand_over: Some(now + self.longest_skew()),
                    ..Timers::default()
                };
            }
            State::Master | State::Init => self.timers.start = None,
            State::Backup | State::Fault => self.change(State::Init, now, "stopped", out),
        }
    }

    /// Gives up at once: the instance is removed.
    pub fn abandon(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.state == State::Master && self.timers.hand_over.is_none() {
            self.send_stop(out);
        }
        self.timers = Timers::default();
        self.change(State::Init, now, "removed", out);
    }

    /// Takes other parameters up, in whatever state it is. The next
    /// advertisement has them.
    pub fn set_parameters(&mut self, parameters: Parameters, now: Instant, out: &mut Vec<Output>) {
        self.parameters = parameters;
        let interval = self.parameters.advert_int;
        // Only a master of version 3 says its own interval; in version 2 it is everybody's.
        let is_learned = self.parameters.version == Version::V3 && self.master.is_some();
        if !is_learned && self.master_advert_int != interval {
            self.master_advert_int = interval;
            if self.timers.master_down.is_some() {
                self.timers.master_down = Some(now + self.master_down_interval());
            }
        }
        // The others wait for the shorter time already.
        if self.timers.advert.is_some_and(|due| due > now + interval) {
            self.send_advert(now, out);
        }
    }

    /// True if nothing is left to be done, in [`State::Init`].
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.state == State::Init && self.timers.start.is_none()
    }

    /// Takes note of an advertisement that has been checked.
    pub fn advert(&mut self, advert: &Advert, source: IpAddr, now: Instant, out: &mut Vec<Output>) {
        self.statistics.adverts_received += 1;
        if advert.priority == PRIORITY_STOP {
            self.statistics.priority_zero_received += 1;
        }
        match self.state {
            State::Init | State::Fault => {}
            State::Backup => self.advert_in_backup(advert, source, now),
            State::Master => self.advert_in_master(advert, source, now, out),
        }
    }

    /// RFC 9568 §6.4.2, (450) to (485).
    fn advert_in_backup(&mut self, advert: &Advert, source: IpAddr, now: Instant) {
        if advert.priority == PRIORITY_STOP {
            // The RFC does not ask who says so. But the successor's first advertisement may be faster
            // than the last one of the master, which then would make another master beside it.
            if self.master.is_none_or(|(master, _)| master == source) {
                self.master = None;
                self.timers.master_down = Some(now + self.skew());
            }
            return;
        }
        let is_lower = advert.priority < self.priority();
        if is_lower && self.preempts(now) {
            return;
        }
        if !is_lower {
            self.timers.preempt = None;
        }
        self.follow(advert, source, now);
    }

    /// Whether a master of lower priority is not tolerated now.
    fn preempts(&mut self, now: Instant) -> bool {
        let Parameters {
            preempt,
            preempt_delay,
            priority,
            ..
        } = self.parameters;
        let until = *self.timers.preempt.get_or_insert(now + preempt_delay);
        priority == PRIORITY_OWNER || preempt && now >= until
    }

    fn follow(&mut self, advert: &Advert, source: IpAddr, now: Instant) {
        self.wants_master = false;
        if self.parameters.version == Version::V3 && !advert.advert_int.is_zero() {
            self.master_advert_int = advert.advert_int;
        }
        self.master = Some((source, advert.priority));
        self.timers.master_down = Some(now + self.master_down_interval());
    }

    /// RFC 9568 §6.4.3, (700) to (760).
    fn advert_in_master(
        &mut self,
        advert: &Advert,
        source: IpAddr,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        if self.timers.hand_over.is_some() {
            if advert.priority != PRIORITY_STOP {
                self.change(State::Init, now, &format!("{source} has taken over"), out);
            }
            return;
        }
        if advert.priority == PRIORITY_STOP {
            self.send_advert(now, out);
            return;
        }
        let ours = (self.priority(), self.primary);
        if (advert.priority, Some(source)) > ours {
            if self.parameters.higher_prio_send_advert {
                self.send_advert(now, out);
            }
            let why = format!(
                "{source} has priority {}, ours is {}",
                advert.priority, ours.0
            );
            self.change(State::Backup, now, &why, out);
            self.follow(advert, source, now);
            return;
        }
        if self.parameters.lower_prio_advert
            && self.timers.assert.is_none_or(|earliest| now >= earliest)
        {
            self.timers.assert = Some(now + self.parameters.advert_int / ASSERTIONS_PER_INTERVAL);
            self.send_advert(now, out);
        }
        let Garp {
            lower_prio_delay,
            lower_prio_repeat,
            ..
        } = self.parameters.garp;
        // Whoever sent it has announced the addresses as well.
        if self.timers.lower_prio.is_none() && lower_prio_repeat > 0 {
            let repeat = lower_prio_repeat;
            out.push(Output::Announce { repeat });
            self.timers.lower_prio = Some(now + lower_prio_delay.max(Duration::from_secs(1)));
        }
    }

    /// When [`timeout`](Self::timeout) is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let Timers {
            start,
            master_down,
            preempt: _,
            advert,
            announce,
            refresh,
            lower_prio,
            assert: _,
            hand_over,
        } = self.timers;
        let due = [
            start,
            master_down,
            advert,
            announce,
            refresh,
            lower_prio,
            hand_over,
        ];
        due.into_iter().flatten().min()
    }

    /// Does what is due; harmless when nothing is.
    pub fn timeout(&mut self, now: Instant, out: &mut Vec<Output>) {
        let is_due = |timer: Option<Instant>| timer.is_some_and(|due| due <= now);
        if is_due(self.timers.start) {
            self.timers.start = None;
            self.enter(now, "the startup delay is over", out);
        }
        if is_due(self.timers.master_down) {
            let why = match self.master {
                Some((address, _)) => format!("no advertisement of {address} any more"),
                None => "no advertisement of a higher priority".to_owned(),
            };
            if self.in_group {
                self.want_master(now);
            } else {
                self.become_master(now, &why, out);
            }
        }
        if is_due(self.timers.hand_over) {
            self.change(State::Init, now, "stopped, nobody has taken over", out);
        }
        if let Some(due) = self.timers.advert.filter(|due| *due <= now) {
            if now - due > self.parameters.advert_int / 2 {
                self.statistics.late_adverts += 1;
            }
            self.send_advert(now, out);
        }
        let garp = self.parameters.garp;
        if is_due(self.timers.announce) {
            self.timers.announce = None;
            let repeat = garp.master_repeat;
            out.push(Output::Announce { repeat });
        }
        if is_due(self.timers.refresh) {
            self.timers.refresh = Some(now + garp.master_refresh);
            let repeat = garp.master_refresh_repeat;
            out.push(Output::Announce { repeat });
        }
        if is_due(self.timers.lower_prio) {
            self.timers.lower_prio = None;
            if !garp.lower_prio_delay.is_zero() {
                let repeat = garp.lower_prio_repeat;
                out.push(Output::Announce { repeat });
            }
        }
    }

    /// The address that advertisements are sent from; `None`: there is none.
    pub fn set_primary(&mut self, primary: Option<IpAddr>, now: Instant, out: &mut Vec<Output>) {
        self.primary = primary;
        self.set_fault(Fault::NoAddress, primary.is_none(), now, out);
    }

    /// Sum of the weights of everything tracked.
    pub fn set_weight(&mut self, weight: i32, out: &mut Vec<Output>) {
        let before = self.priority();
        self.weight = weight;
        let (state, priority) = (self.state, self.priority());
        if priority != before && matches!(state, State::Backup | State::Master) {
            out.push(Output::Priority { state, priority });
        }
    }

    /// Something makes the instance unfit, or does so no more.
    pub fn set_fault(&mut self, fault: Fault, present: bool, now: Instant, out: &mut Vec<Output>) {
        if present {
            let why = fault.to_string();
            self.faults.insert(fault);
            if matches!(self.state, State::Backup | State::Master) {
                if self.state == State::Master && self.timers.hand_over.is_none() {
                    self.send_stop(out);
                }
                let to = match self.timers.hand_over {
                    Some(_) => State::Init,
                    None => State::Fault,
                };
                self.change(to, now, &why, out);
            }
        } else if self.faults.remove(&fault) && self.faults.is_empty() && self.state == State::Fault
        {
            self.enter(now, "the fault is over", out);
        }
    }

    /// What keeps the instance from being master.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }

    /// Whether it is in a sync group: then it waits for
    /// [`follow_to_master`](Self::follow_to_master) when it wants to be master.
    pub fn set_in_group(&mut self, in_group: bool) {
        self.in_group = in_group;
    }

    /// True if it is master, or would be without its group.
    #[must_use]
    pub fn wants_master(&self) -> bool {
        self.state == State::Master || self.wants_master
    }

    /// True while it is backup of another master.
    #[must_use]
    pub fn follows_master(&self) -> bool {
        self.state == State::Backup && self.master.is_some()
    }

    /// All members of the sync group want to be master.
    pub fn follow_to_master(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.state == State::Backup {
            self.become_master(now, "its vrrp_sync_group is master", out);
        }
    }

    /// Another member of the sync group became backup.
    pub fn follow_to_backup(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.state == State::Master && self.timers.hand_over.is_none() {
            self.send_stop(out);
            self.change(State::Backup, now, "its vrrp_sync_group is backup", out);
            self.timers.master_down = Some(now + self.master_down_interval());
        }
    }

    /// From INIT or FAULT to BACKUP, or to MASTER for the owner (RFC 9568
    /// §6.4.1), unless there is a fault.
    fn enter(&mut self, now: Instant, why: &str, out: &mut Vec<Output>) {
        if let Some(fault) = self.faults.first() {
            let why = fault.to_string();
            self.change(State::Fault, now, &why, out);
            return;
        }
        let is_owner = self.parameters.priority == PRIORITY_OWNER;
        if is_owner && !self.in_group {
            self.become_master(now, "owner of the addresses", out);
            return;
        }
        self.change(State::Backup, now, why, out);
        self.master_advert_int = self.parameters.advert_int;
        self.timers.master_down = Some(now + self.master_down_interval());
        if is_owner {
            self.want_master(now);
        }
    }

    /// The others of the group may not want to yet. Until they do, a better master may come.
    fn want_master(&mut self, now: Instant) {
        self.wants_master = true;
        self.master = None;
        self.timers.master_down = Some(now + self.master_down_interval());
    }

    /// What clients wait for comes first, scripts and mails last.
    fn become_master(&mut self, now: Instant, why: &str, out: &mut Vec<Output>) {
        let from = self.enter_state(State::Master, now);
        self.send_advert(now, out);
        out.push(Output::AddAddresses);
        let Garp {
            master_delay,
            master_repeat,
            master_refresh,
            ..
        } = self.parameters.garp;
        if master_repeat > 0 {
            let repeat = master_repeat;
            out.push(Output::Announce { repeat });
            self.timers.announce = (!master_delay.is_zero()).then(|| now + master_delay);
        }
        self.timers.refresh = (!master_refresh.is_zero()).then(|| now + master_refresh);
        out.push(Output::Changed {
            from,
            to: State::Master,
            why: why.to_owned(),
        });
    }

    /// To a state without the addresses. Leaves every timer unset.
    fn change(&mut self, to: State, now: Instant, why: &str, out: &mut Vec<Output>) {
        let from = self.enter_state(to, now);
        if from == to {
            return;
        }
        if from == State::Master {
            out.push(Output::RemoveAddresses);
        }
        let why = why.to_owned();
        out.push(Output::Changed { from, to, why });
    }

    /// Leaves every timer unset; returns the state before.
    fn enter_state(&mut self, to: State, now: Instant) -> State {
        let from = std::mem::replace(&mut self.state, to);
        self.timers = Timers::default();
        self.master = None;
        self.wants_master = false;
        if from != to {
            self.since = Some(now);
            self.statistics.became_master += u64::from(to == State::Master);
            self.statistics.released_master += u64::from(from == State::Master);
        }
        from
    }

    /// Sends an advertisement; the next is due an interval later.
    fn send_advert(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.statistics.adverts_sent += 1;
        self.timers.advert = Some(now + self.parameters.advert_int);
        let priority = self.priority();
        out.push(Output::Send { priority });
    }

    fn send_stop(&mut self, out: &mut Vec<Output>) {
        self.statistics.adverts_sent += 1;
        self.statistics.priority_zero_sent += 1;
        let priority = PRIORITY_STOP;
        out.push(Output::Send { priority });
    }

    /// The priority with the weights of what is tracked, 1 to 254 unless owner.
    #[must_use]
    pub fn priority(&self) -> u8 {
        let base = self.parameters.priority;
        if base == PRIORITY_OWNER {
            return base;
        }
        let sum = i32::from(base).saturating_add(self.weight);
        u8::try_from(sum.clamp(1, 254)).unwrap_or(base)
    }

    /// Skew_Time: the lower the priority, the longer the others are waited for.
    fn skew(&self) -> Duration {
        self.interval_of_skew() * (256 - u32::from(self.priority())) / 256
    }

    /// More than any other director's skew time.
    fn longest_skew(&self) -> Duration {
        self.interval_of_skew()
    }

    fn interval_of_skew(&self) -> Duration {
        match self.parameters.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.master_advert_int,
        }
    }

    /// How long a master may be silent: at most 3 × 40.95 s + 40.95 s.
    #[must_use]
    pub fn master_down_interval(&self) -> Duration {
        3 * self.master_advert_int + self.skew()
    }

    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// When the state was entered; `None` before the start.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Address and priority of the master that is followed.
    #[must_use]
    pub fn master(&self) -> Option<(IpAddr, u8)> {
        self.master
    }

    #[must_use]
    pub fn primary(&self) -> Option<IpAddr> {
        self.primary
    }

    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// True while the stopping master waits for another.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.timers.hand_over.is_some()
    }
}

#[cfg(test)]
mod tests;
