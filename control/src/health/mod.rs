//! Health checks: is a real server fit to get new connections?
//!
//! One task per check, all on the control thread. [`dampener`] decides when to
//! try and what a row of results means; a [`Probe`] does a single try, in the
//! module of its kind. Only a task's first verdict and changes become [`Event`]s; the rest can
//! be read by [`Checker::status_of`].
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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
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
    Passed(Finding),
    /// Passed, with something to say about the real server's weight.
    Weighed(WeightChange, String),
    Failed(String),
    /// The try could not be made for a reason on this host.
    Inconclusive(String),
}

/// What a try that passed found. Ten thousand a second do and nobody asks, so that it is put into
/// words only for those who do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    Connected,
    Answered,
    NotRefused,
    /// Of the last url.
    Status(u16),
    /// All of it, in words.
    Said(String),
}

impl Finding {
    /// With the name of the `check`.
    #[must_use]
    pub fn in_words(&self, check: &Check) -> String {
        let found = match self {
            Self::Connected => "connected",
            Self::Answered => "answered",
            Self::NotRefused => "not refused",
            Self::Status(status) => return format!("{}: status {status}", what(check)),
            Self::Said(reason) => return reason.clone(),
        };
        format!("{}: {found}", what(check))
    }
}

impl Outcome {
    fn in_words(&self, check: &Check) -> String {
        match self {
            Self::Passed(finding) => finding.in_words(check),
            Self::Weighed(_, reason) | Self::Failed(reason) | Self::Inconclusive(reason) => {
                reason.clone()
            }
        }
    }
}

/// What reasons begin with: the check's kind, and what it asks of whom.
fn what(check: &Check) -> String {
    let (name, target) = (check.kind.name(), check.target);
    match &check.kind {
        CheckKind::HttpGet(get) => match get.urls.last() {
            Some(url) => format!("{name} {target} {}", url.path),
            None => format!("{name} {target}"),
        },
        CheckKind::DnsCheck(dns) => {
            format!("{name} {target} {} {}", dns.record_type.name(), dns.name)
        }
        CheckKind::PingCheck => format!("{name} {}", target.ip()),
        CheckKind::TcpCheck
        | CheckKind::UdpCheck(_)
        | CheckKind::SmtpCheck { .. }
        | CheckKind::MiscCheck(_)
        | CheckKind::FileCheck(_) => format!("{name} {target}"),
    }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastResult {
    NotTried,
    Passed,
    Failed,
    Inconclusive,
}

/// A check as `show health` lists it. Durations are relative to the moment of asking.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub healthy: bool,
    pub last_result: LastResult,
    /// Of the last try, in words.
    pub reason: String,
    /// Failures in a row.
    pub failures: u32,
    /// Since the last change of `healthy`, or since the start.
    pub unchanged_for: Duration,
}

/// Runs checks and reports their first verdicts and changes.
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
    record: Shared,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a task lets others read.
#[derive(Debug)]
struct Record {
    healthy: bool,
    /// Of the last try; `None` before the first.
    outcome: Option<Outcome>,
    failures: u32,
    changed: Instant,
}

#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Record>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Record> {
        // Nothing panics while it has the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn last_result(&self) -> LastResult {
        match self.outcome {
            None => LastResult::NotTried,
            Some(Outcome::Passed(_) | Outcome::Weighed(..)) => LastResult::Passed,
            Some(Outcome::Failed(_)) => LastResult::Failed,
            Some(Outcome::Inconclusive(_)) => LastResult::Inconclusive,
        }
    }

    /// `check` is the one whose record it is.
    fn status(&self, check: &Check, now: Instant) -> Status {
        let reason = match &self.outcome {
            None => "not tried yet".into(),
            Some(outcome) => outcome.in_words(check),
        };
        Status {
            healthy: self.healthy,
            last_result: self.last_result(),
            reason,
            failures: self.failures,
            unchanged_for: now.saturating_duration_since(self.changed),
        }
    }
}

impl Checker {
    /// They are sent to `events`; a full channel holds the checks up rather
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

    /// Where results are sent, for others who find something out.
    #[must_use]
    pub fn events(&self) -> mpsc::Sender<Event> {
        self.events.clone()
    }

    /// Starts a check and returns whether it counts as healthy from the start.
    ///
    /// The same check again goes on undisturbed. With other parameters it is
    /// started anew, but what was known about the real server stays true until
    /// a try says otherwise.
    ///
    /// `way` is that to the real server, for checks with `through_vip`. Must be called within a tokio runtime.
    pub fn start(&mut self, id: CheckId, check: Check, way: Option<Way>) -> bool {
        let now = Instant::now();
        let random = random();
        let dampener = match self.running.get(&id) {
            Some(running) if running.check == check => return running.record.lock().healthy,
            Some(running) => Dampener::resume(&check, running.record.lock().healthy, now, random),
            None => Dampener::new(&check, now, random),
        };
        let healthy = dampener.healthy();
        let record = Shared(Arc::new(Mutex::new(Record {
            healthy,
            outcome: None,
            failures: 0,
            changed: now,
        })));
        let mut probe = Probe::new(check.clone(), self.runner.clone());
        probe.through = way.and_then(|way| Some(Through::new(way, self.packets()?)));
        let task = Task {
            id: id.clone(),
            probe,
            weight: None,
            reported: false,
            dampener,
            record: record.clone(),
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

    /// How one check stands; `None` when it does not run.
    #[must_use]
    pub fn status_of(&self, id: &CheckId) -> Option<Status> {
        let running = self.running.get(id)?;
        let record = running.record.lock();
        Some(record.status(&running.check, Instant::now()))
    }

    /// Whether a check runs and a try of it has ended.
    #[must_use]
    pub fn has_tried(&self, id: &CheckId) -> bool {
        let running = self.running.get(id);
        running.is_some_and(|running| running.record.lock().outcome.is_some())
    }
}

struct Task {
    id: CheckId,
    probe: Probe,
    /// As last reported.
    weight: Option<WeightChange>,
    /// A verdict was: the first is also if it changes nothing. So whatever a former task of the
    /// same id reported late, or could not report any more, is put right.
    reported: bool,
    dampener: Dampener,
    record: Shared,
    events: mpsc::Sender<Event>,
}

impl Task {
    async fn run(mut self) {
        loop {
            tokio::time::sleep_until(self.dampener.next().into()).await;
            self.dampener.begin(Instant::now());
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
        let change = match &outcome {
            Outcome::Passed(_) | Outcome::Weighed(..) => self.dampener.passed(now),
            Outcome::Failed(_) => self.dampener.failed(now),
            Outcome::Inconclusive(_) => {
                self.dampener.inconclusive(now);
                None
            }
        };
        let is_verdict = match &outcome {
            Outcome::Passed(_) | Outcome::Weighed(..) => self.dampener.healthy(),
            Outcome::Failed(_) => !self.dampener.healthy(),
            Outcome::Inconclusive(_) => false,
        };
        let is_first = is_verdict && !self.reported;
        self.reported |= is_verdict;
        let event = (change.is_some() || weighs_otherwise || is_first).then(|| Event::Health {
            id: self.id.clone(),
            healthy: self.dampener.healthy(),
            reason: outcome.in_words(&self.probe.check),
            weight,
        });
        let mut record = self.record.lock();
        match &outcome {
            Outcome::Failed(reason) => tracing::debug!(
                virtual_server = self.id.virtual_server,
                failures = self.dampener.failures(),
                "{reason}"
            ),
            Outcome::Inconclusive(reason) if record.last_result() != LastResult::Inconclusive => {
                tracing::warn!(
                    virtual_server = self.id.virtual_server,
                    "health check could not run, {} stays {}: {reason}",
                    self.id.real_server,
                    if self.dampener.healthy() {
                        "up"
                    } else {
                        "down"
                    },
                );
            }
            Outcome::Inconclusive(_) | Outcome::Passed(_) | Outcome::Weighed(..) => {}
        }
        record.healthy = self.dampener.healthy();
        record.outcome = Some(outcome);
        record.failures = self.dampener.failures();
        if change.is_some() {
            record.changed = now;
        }
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
