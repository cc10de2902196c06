//! `appliance run`: the control thread's loop around the controller.
//!
//! One tokio runtime on one thread. Everything that happens comes in here:
//! events of the kernel and of the health checks, questions of clients,
//! signals, the tick of every second; the controller says what is to be done,
//! and `effects.rs` does it.

mod change;
mod clients;
mod company;
mod descriptors;
mod effects;
mod explain;
mod interfaces;
mod ipvs;
mod leaving;
mod notifier;
mod pace;
mod queries;
mod realtime;
mod reload;
mod start;
mod systemd;
mod threads;
mod vrrp;
mod workers;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use dataplane::snapshot::{Published, Snapshot};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info};

use crate::announce::{Announcement, Announcer};
use crate::api;
use crate::api::query::Query;
use crate::config::{Config, Format, Known};
use crate::controller::{Controller, ESTIMATE_EVERY};
use crate::event::{Event, NetworkEvent};
use crate::health::Checker;
use crate::netlink::{Monitor, Requests};
use crate::scripts::Runner;

use self::clients::{Clients, Page};
use self::company::Company;
pub(crate) use self::interfaces::{LINK_HEADERS, is_above_others};
use self::leaving::Used;
use self::notifier::Notifier;
use self::pace::Pace;
use self::threads::Cpus;
use self::vrrp::{Quieted, Scripts, Slip, Sockets, until};
use self::workers::Workers;

/// Events that may wait to be handled.
const EVENTS: usize = 4096;
/// Events handled in a row before clients and signals get a turn.
const EVENTS_IN_A_ROW: usize = 512;
/// How long the first next hops are waited for before traffic is taken anyway.
const RESOLVE_AT_START: Duration = Duration::from_secs(1);

/// What `run` was asked to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The file and its syntax; `None`: started empty.
    pub file: Option<(PathBuf, Format)>,
    /// What the file says.
    pub config: Config,
    /// As of [`Checked`](crate::config::Checked).
    pub text: Option<Arc<str>>,
    /// Where the control socket is.
    pub socket: PathBuf,
}

/// Everything that runs, and the hands that do what the controller wants.
struct Appliance {
    file: Option<(PathBuf, Format)>,
    /// Where the control socket is, whatever the file says.
    socket: PathBuf,
    /// What the next reload begins with.
    known: Option<Known>,
    controller: Controller,
    published: Published,
    /// Snapshots that a worker may still work with.
    retained: VecDeque<Arc<Snapshot>>,
    /// When the next snapshot is due.
    snapshot_pace: Pace,
    /// Of questions for routes.
    route_pace: Pace,
    cpus: Cpus,
    page: Page,
    workers: Workers,
    /// Which local addresses they use, if they were asked.
    used: Option<Used>,
    requests: Requests,
    /// Held for other appliances to see.
    _company: Company,
    checker: Checker,
    runner: Runner,
    notifier: Notifier,
    announcer: Arc<Announcer>,
    /// Announcements under way.
    announcing: JoinSet<()>,
    to_announce: Vec<Announcement>,
    vrrp: Sockets,
    /// How late the timers of VRRP ran.
    slip: Slip,
    scripts: Scripts,
    /// Interfaces below macvlans of VRRP.
    quieted: Quieted,
    /// Announcements under way for each `vrrp_instance`.
    announcing_instances: BTreeMap<String, AbortHandle>,
    /// Seconds since the start, as ticks.
    ticks: u32,
    /// The service manager restarts what does not say that it is alive.
    is_watched: bool,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting, or from going on; nothing is left behind.
pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    // Before this thread is pinned: afterwards it sees its own CPU only.
    let cpus = Cpus::of_this_process()?;
    cpus.keep_off(&cpus.for_workers(&options.config.appliance.cores)?);
    if !options.config.vrrp_instances.is_empty() {
        realtime::take_precedence();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // To be dropped here: a runtime may not be, within another.
    let of_clients = Arc::new(Clients::runtime()?);
    runtime.block_on(main(options, cpus, &of_clients))
}

async fn main(options: Options, cpus: Cpus, of_clients: &Arc<Runtime>) -> anyhow::Result<()> {
    let listener = api::server::bind(&options.socket)?;
    let (page, served) = Page::open(&options.config.appliance)?;
    let mut signals = Signals::new()?;
    let (sender, mut events) = mpsc::channel(EVENTS);
    let _monitor =
        Monitor::start(sender.clone()).context("cannot follow the kernel's network tables")?;
    let started = tokio::select! {
        started = start::start(options, cpus, page, &mut events, sender) => started,
        signal = signals.stop() => {
            info!("{signal}: stopping");
            return Ok(());
        }
    };
    let mut appliance = started?;
    let (queries, mut questions) = mpsc::channel(64);
    let mut clients = None;
    // From here on it has something to give back, whatever it ends with.
    let result = match start::take_traffic(&mut appliance, &mut events, &mut signals).await {
        Some(signal) => {
            info!("{signal}: stopping");
            Ok(())
        }
        None => match Clients::serve(Arc::clone(of_clients), listener, served, queries) {
            Ok(serving) => {
                let clients = clients.insert(serving);
                tokio::select! {
                    result = appliance.serve(&mut events, &mut questions, &mut signals) => result,
                    failed = clients.failure() => Err(failed),
                }
            }
            Err(error) => Err(error),
        },
    };
    appliance.stop(clients).await;
    result
}

/// The signals that are listened to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Appliance {
    async fn serve(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        questions: &mut mpsc::Receiver<Query>,
        signals: &mut Signals,
    ) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.is_watched = systemd::watchdog().is_some();
        loop {
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else { bail!("the event channel is closed") };
                    self.handle(event).await;
                    for _ in 1..EVENTS_IN_A_ROW {
                        if self.is_vrrp_due() { break }
                        let Ok(event) = events.try_recv() else { break };
                        self.handle(event).await;
                    }
                }
                (index, datagram) = self.vrrp.receive() => self.datagram(index, datagram).await,
                () = until(self.controller.router().deadline()) => self.vrrp_timer().await,
                () = until(self.controller.drain_deadline()) => {
                    self.handle(Event::Tick).await;
                    // Who waits for it may stop the server next.
                    self.settle();
                }
                Some(query) = questions.recv() => self.answer(query).await,
                _ = tick.tick() => self.tick().await?,
                _ = signals.hangup.recv() => self.reload_on_signal().await,
                _ = signals.terminate.recv() => { info!("SIGTERM: stopping"); return Ok(()) }
                _ = signals.interrupt.recv() => { info!("SIGINT: stopping"); return Ok(()) }
                () = until(self.snapshot_pace.due()) => {}
                () = until(self.route_pace.due()) => {}
            }
            self.ask_for_routes_in_time().await;
            self.settle_in_time();
        }
    }

    async fn handle(&mut self, event: Event) {
        if matches!(event, Event::Network(NetworkEvent::RoutesChanged)) {
            self.route_pace.want();
            return;
        }
        let is_network = matches!(
            event,
            Event::Network(NetworkEvent::Link { .. } | NetworkEvent::LinkGone { .. })
        );
        let actions = self.controller.handle(event, Instant::now());
        if is_network {
            self.listen_to_vrrp();
        }
        self.carry_out(actions).await;
    }

    /// After events that may have said that routes changed.
    async fn ask_for_routes_in_time(&mut self) {
        let begin = Instant::now();
        if self.route_pace.due().is_some_and(|due| due <= begin) {
            let changed = Event::Network(NetworkEvent::RoutesChanged);
            let actions = self.controller.handle(changed, begin);
            self.carry_out(actions).await;
            self.route_pace.done(begin, Instant::now());
        }
    }

    async fn tick(&mut self) -> anyhow::Result<()> {
        self.handle(Event::Tick).await;
        if !self.workers.all_run() {
            bail!(
                "a worker ended unexpectedly, which is a bug: stopping, so that the service manager can restart it"
            );
        }
        if self.is_watched {
            systemd::alive();
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(ESTIMATE_EVERY) {
            self.measure();
            self.controller.estimate();
        }
        let oldest = self.workers.oldest_generation();
        let workers = &self.workers;
        let actions = self
            .controller
            .observe(Instant::now(), |id| workers.totals(id));
        self.carry_out(actions).await;
        let actions = self.controller.observe_refusals(
            Instant::now(),
            |id| self.workers.service_totals(id),
            self.workers.counters(),
        );
        self.carry_out(actions).await;
        self.free_what_is_unused(oldest).await;
        while self
            .retained
            .front()
            .is_some_and(|snapshot| snapshot.generation < oldest)
        {
            self.retained.pop_front();
        }
        while self.announcing.try_join_next().is_some() {}
        // Those that could not be opened are tried again.
        self.listen_to_vrrp();
        self.notifier.tidy_up();
        Ok(())
    }

    /// After a command: publishes what it changed, and sends the announcements that came together.
    fn settle(&mut self) {
        if self.snapshot_pace.is_wanted() {
            self.publish();
        }
        self.send_announcements();
    }

    /// After events that nobody waits for: the same, but not too many snapshots.
    fn settle_in_time(&mut self) {
        if self
            .snapshot_pace
            .due()
            .is_some_and(|due| due <= Instant::now())
        {
            self.publish();
        }
        self.send_announcements();
    }

    fn publish(&mut self) {
        let begin = Instant::now();
        let snapshot = Arc::new(self.controller.snapshot(&self.published.load()));
        debug!("snapshot {} published", snapshot.generation);
        self.retained.push_back(Arc::clone(&snapshot));
        self.published.store(snapshot);
        self.snapshot_pace.done(begin, Instant::now());
    }

    /// Gives back what was taken: the addresses first, so that no new traffic
    /// comes, then, by the drop of the workers, sockets and programs.
    ///
    /// Another director takes over first, if there is one: until then this one
    /// serves. Nothing that may take a while comes before it is told.
    async fn stop(mut self, clients: Option<Clients>) {
        systemd::stopping();
        self.stop_vrrp().await;
        drop(clients);
        self.announcing.shutdown().await;
        let actions = self.controller.stop();
        self.carry_out(actions).await;
        self.scripts.stop();
        self.notifier.finish().await;
    }
}

/// An empty place for snapshots.
fn unpublished() -> Published {
    Arc::new(ArcSwap::from_pointee(Snapshot::empty()))
}
