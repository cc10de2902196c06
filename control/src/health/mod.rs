//! Health checks: is a real server fit to get new connections?
//!
//! One task per check, all on the control thread. [`dampener`] decides when to
//! try and what a row of results means; a [`Probe`] does a single try, in the
//! module of its kind. Only changes become [`Event`]s; the rest can be read by
//! [`Checker::status`].
//!
//! Invariants: a check has at most one try running, so at most one socket; a
//! stopped check's task is cancelled with whatever it was doing, scripts
//! included. Checks go to the real server's own address and take the kernel's ordinary
//! path also where the director holds the VIP; those with `through_vip` are made past the
//! kernel (the `vip` module).
//!
//! Not done here: combining the checks of one real server, weights, logging of
//! changes. That is the controller's.

pub mod dampener;
pub mod dns;
pub mod file;
pub mod http;
pub mod misc;
pub mod ping;
pub mod smtp;
mod source;
pub mod tcp;
mod tls;
pub mod udp;
mod vip;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::dampener::Dampener;
pub use self::vip::Way;
use self::vip::{Packets, Through};
use crate::config::{Check, CheckKind};
use crate::event::{CheckId, Event, WeightChange};
use crate::in_words::in_words;
use crate::scripts::Runner;

/// What one try found, with the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed(String),
    /// Passed, with something to say about the real server's weight.
    Weighed(WeightChange, String),
    Failed(String),
    /// The try could not be made for a reason on this host.
    Inconclusive(String),
}

/// A check that can be tried: with what is made once and not for every try.
#[derive(Debug)]
pub struct Probe {
    check: Check,
    http: Result<http::Prepared, String>,
    runner: Runner,
    through: Option<Through>,
}

impl Probe {
    /// `runner` is for checks that run a script.
    #[must_use]
    pub fn new(check: Check, runner: Runner) -> Self {
        let http = match &check.kind {
            CheckKind::HttpGet(get) => http::Prepared::new(&check, get),
            CheckKind::TcpCheck
            | CheckKind::UdpCheck(_)
            | CheckKind::DnsCheck(_)
            | CheckKind::SmtpCheck { .. }
            | CheckKind::PingCheck
            | CheckKind::MiscCheck(_)
            | CheckKind::FileCheck(_) => Err("not an HTTP check".into()),
        };
        Self {
            check,
            http,
            runner,
            through: None,
        }
    }

    /// Makes one try; it ends within `connect_timeout` for each connection and
    /// for each answer, a script's within its own.
    pub async fn try_once(&self) -> Outcome {
        let (check, through) = (&self.check, self.through.as_ref());
        if check.through_vip && through.is_none() {
            return Outcome::Inconclusive("through_vip: there is no way to virtual servers".into());
        }
        match &check.kind {
            CheckKind::TcpCheck => tcp::check(check, through).await,
            CheckKind::HttpGet(get) => match &self.http {
                Ok(prepared) => http::check(check, get, prepared, through).await,
                Err(why) => Outcome::Inconclusive(why.clone()),
            },
            CheckKind::UdpCheck(udp) => udp::check(check, udp, through).await,
            CheckKind::DnsCheck(dns) => dns::check(check, dns, through).await,
            CheckKind::SmtpCheck { helo_name } => {
                smtp::check(check, helo_name.as_deref(), through).await
            }
            CheckKind::PingCheck => ping::check(check).await,
            CheckKind::MiscCheck(misc) => misc::check(&self.runner, misc).await,
            CheckKind::FileCheck(file) => file::check(file).await,
        }
    }
}

/// How the last try of a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LastResult {
    NotTried,
    Passed,
    Failed,
    Inconclusive,
}

/// A check as `show health` lists it. Durations are relative to the moment of asking.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    pub healthy: bool,
    pub last_result: LastResult,
    /// Of the last try, in words.
    pub reason: String,
    /// Failures in a row.
    pub failures: u32,
    /// Tries since the check was started.
    pub tries: u64,
    /// Since the last change of `healthy`, or since the start.
    pub unchanged_for: Duration,
    /// Until the next try; zero while one is running.
    pub next_in: Duration,
}

/// Runs checks and reports their changes.
#[derive(Debug)]
pub struct Checker {
    events: mpsc::Sender<Event>,
    runner: Runner,
    running: BTreeMap<CheckId, Running>,
    /// For checks with `through_vip`; opened for the first.
    packets: Option<Arc<Packets>>,
}

#[derive(Debug)]
struct Running {
    check: Check,
    record: watch::Receiver<Record>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a task lets others read.
#[derive(Clone, Debug)]
struct Record {
    healthy: bool,
    last_result: LastResult,
    reason: String,
    failures: u32,
    tries: u64,
    changed: Instant,
    next: Instant,
}

impl Record {
    fn status(&self, now: Instant) -> Status {
        Status {
            healthy: self.healthy,
            last_result: self.last_result,
            reason: self.reason.clone(),
            failures: self.failures,
            tries: self.tries,
            unchanged_for: now.saturating_duration_since(self.changed),
            next_in: self.next.saturating_duration_since(now),
        }
    }
}

impl Checker {
    /// Changes are sent to `events`; a full channel holds the checks up rather
    /// than lose one.
    #[must_use]
    pub fn new(events: mpsc::Sender<Event>, runner: Runner) -> Self {
        Self {
            events,
            runner,
            running: BTreeMap::new(),
            packets: None,
        }
    }

    /// Starts a check and returns whether it counts as healthy from the start.
    ///
    /// The same check again goes on undisturbed. With other parameters it is
    /// started anew, but what was known about the real server stays true until
    /// a try says otherwise.
    ///
    /// Must be called within a tokio runtime.
    pub fn start(&mut self, id: CheckId, check: Check) -> bool {
        self.start_by(id, check, None)
    }

    /// The same; `way` is that to the real server, for checks with `through_vip`.
    pub fn start_by(&mut self, id: CheckId, check: Check, way: Option<Way>) -> bool {
        let now = Instant::now();
        let random = random();
        let dampener = match self.running.get(&id) {
            Some(running) if running.check == check => return running.record.borrow().healthy,
            Some(running) => Dampener::resume(&check, running.record.borrow().healthy, now, random),
            None => Dampener::new(&check, now, random),
        };
        let healthy = dampener.healthy();
        let (sender, record) = watch::channel(Record {
            healthy,
            last_result: LastResult::NotTried,
            reason: "not tried yet".into(),
            failures: 0,
            tries: 0,
            changed: now,
            next: dampener.next(),
        });
        let mut probe = Probe::new(check.clone(), self.runner.clone());
        probe.through = way.and_then(|way| Some(Through::new(way, self.packets()?)));
        let task = Task {
            id: id.clone(),
            probe,
            weight: None,
            dampener,
            record: sender,
            events: self.events.clone(),
        };
        let task = tokio::spawn(task.run());
        self.running.insert(
            id,
            Running {
                check,
                record,
                task,
            },
        );
        healthy
    }

    fn packets(&mut self) -> Option<Arc<Packets>> {
        if self.packets.is_none() {
            match Packets::open() {
                Ok(packets) => self.packets = Some(Arc::new(packets)),
                Err(error) => tracing::warn!(
                    "checks with through_vip cannot run: no packet socket: {}",
                    in_words(&error)
                ),
            }
        }
        self.packets.clone()
    }

    /// Stops a check; false when there is none of that name. A change that was
    /// sent before may still be on its way to the receiver of the events.
    pub fn stop(&mut self, id: &CheckId) -> bool {
        self.running.remove(id).is_some()
    }

    /// The running checks, in order.
    pub fn ids(&self) -> impl Iterator<Item = &CheckId> {
        self.running.keys()
    }

    /// Every running check and how it stands.
    pub fn status(&self) -> impl Iterator<Item = (&CheckId, Status)> {
        let now = Instant::now();
        let running = self.running.iter();
        running.map(move |(id, running)| (id, running.record.borrow().status(now)))
    }

    /// How one check stands; `None` when it does not run.
    #[must_use]
    pub fn status_of(&self, id: &CheckId) -> Option<Status> {
        let running = self.running.get(id)?;
        Some(running.record.borrow().status(Instant::now()))
    }

    /// Whether a check runs and a try of it has ended.
    #[must_use]
    pub fn has_tried(&self, id: &CheckId) -> bool {
        let running = self.running.get(id);
        running.is_some_and(|running| running.record.borrow().last_result != LastResult::NotTried)
    }
}

struct Task {
    id: CheckId,
    probe: Probe,
    /// As last reported.
    weight: Option<WeightChange>,
    dampener: Dampener,
    record: watch::Sender<Record>,
    events: mpsc::Sender<Event>,
}

impl Task {
    async fn run(mut self) {
        loop {
            tokio::time::sleep_until(self.dampener.next().into()).await;
            let outcome = self.probe.try_once().await;
            if let Some(event) = self.account(outcome)
                && self.events.send(event).await.is_err()
            {
                // Nobody listens any more: the appliance is stopping.
                return;
            }
        }
    }

    fn account(&mut self, outcome: Outcome) -> Option<Event> {
        let now = Instant::now();
        let weight = match &outcome {
            Outcome::Passed(_) => None,
            Outcome::Weighed(weight, _) => Some(*weight),
            Outcome::Failed(_) | Outcome::Inconclusive(_) => self.weight,
        };
        let weighs_otherwise = weight != self.weight;
        self.weight = weight;
        let (change, last_result, reason) = match outcome {
            Outcome::Passed(reason) | Outcome::Weighed(_, reason) => {
                (self.dampener.passed(now), LastResult::Passed, reason)
            }
            Outcome::Failed(reason) => (self.dampener.failed(now), LastResult::Failed, reason),
            Outcome::Inconclusive(reason) => {
                self.dampener.inconclusive(now);
                (None, LastResult::Inconclusive, reason)
            }
        };
        let before = self.record.borrow().last_result;
        match last_result {
            LastResult::Failed => tracing::debug!(
                virtual_server = self.id.virtual_server,
                failures = self.dampener.failures(),
                "{reason}"
            ),
            LastResult::Inconclusive if before != last_result => tracing::warn!(
                virtual_server = self.id.virtual_server,
                "health check could not run, {} stays {}: {reason}",
                self.id.real_server,
                if self.dampener.healthy() {
                    "up"
                } else {
                    "down"
                },
            ),
            LastResult::Inconclusive | LastResult::Passed | LastResult::NotTried => {}
        }
        let event = (change.is_some() || weighs_otherwise).then(|| Event::Health {
            id: self.id.clone(),
            healthy: self.dampener.healthy(),
            reason: reason.clone(),
            weight,
        });
        self.record.send_modify(|record| {
            record.healthy = self.dampener.healthy();
            record.last_result = last_result;
            record.reason = reason;
            record.failures = self.dampener.failures();
            record.tries += 1;
            record.next = self.dampener.next();
            if change.is_some() {
                record.changed = now;
            }
        });
        event
    }
}

/// A random number, for spreading work in time; the standard library's hasher
/// keys are random and need no crate.
fn random() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(()).to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests;
