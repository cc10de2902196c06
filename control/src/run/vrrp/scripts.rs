//! Runs `vrrp_script`s for as long as they are tracked, and has the other tracked things looked at.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::warn;

use super::super::Appliance;
use super::tracks::Tracks;
use crate::config::{Config, Notify, VrrpScript};
use crate::event::{Event, VrrpEvent};
use crate::scripts::{Outcome, Runner};
use crate::vrrp::script::Verdict;

/// Everything that runs.
#[derive(Debug)]
pub(in super::super) struct Scripts {
    runner: Runner,
    events: mpsc::Sender<Event>,
    tracked: BTreeMap<String, Tracked>,
    tracks: Tracks,
}

/// A script that is run again and again until this is dropped.
#[derive(Debug)]
struct Tracked {
    config: VrrpScript,
    /// Cancelled with this, and the script with it.
    _task: JoinSet<()>,
}

impl Scripts {
    pub(in super::super) fn new(runner: Runner, events: mpsc::Sender<Event>) -> Self {
        Self {
            runner,
            tracks: Tracks::new(events.clone()),
            events,
            tracked: BTreeMap::new(),
        }
    }

    /// Runs what `config` tracks and nothing else. What did not change goes on.
    fn take_up(&mut self, config: &Config) {
        let is_tracked = |script: &&VrrpScript| {
            let mut tracks = config.tracks().flat_map(|tracks| &tracks.script);
            tracks.any(|tracked| tracked.name == script.name)
        };
        let mut before = std::mem::take(&mut self.tracked);
        for script in config.vrrp_scripts.iter().filter(is_tracked) {
            let known = before.remove(&script.name);
            let kept = known.filter(|known| known.config == *script);
            let tracked = kept.unwrap_or_else(|| self.track(script.clone()));
            self.tracked.insert(script.name.clone(), tracked);
        }
        self.tracks.take_up(config);
        self.complain(config);
    }

    fn track(&self, config: VrrpScript) -> Tracked {
        let mut task = JoinSet::new();
        let (runner, events) = (self.runner.clone(), self.events.clone());
        task.spawn(track(runner, config.clone(), events));
        Tracked {
            config,
            _task: task,
        }
    }

    /// Says at once what will not run.
    fn complain(&self, config: &Config) {
        let tracked = self.tracked.values().map(|tracked| {
            let script = &tracked.config;
            (format!("vrrp_script {}", script.name), &script.script)
        });
        let of_instances = config.vrrp_instances.iter().map(|instance| {
            let place = format!("vrrp_instance {}", instance.name);
            (place, &instance.notify)
        });
        let of_groups = config.vrrp_sync_groups.iter().map(|group| {
            let place = format!("vrrp_sync_group {}", group.name);
            (place, &group.notify)
        });
        let told = of_instances.chain(of_groups).flat_map(|(place, notify)| {
            let Notify {
                master,
                backup,
                fault,
                stop,
                any,
                smtp_alert: _,
            } = notify;
            let all = [master, backup, fault, stop, any].into_iter().flatten();
            all.map(move |script| (place.clone(), script))
        });
        for (place, script) in tracked.chain(told) {
            if let Err(why) = self.runner.check(script) {
                warn!("{place}: the script {script} will not run: {why}");
            }
        }
    }

    /// Runs nothing any more.
    pub(in super::super) fn stop(&mut self) {
        self.tracked.clear();
    }
}

/// Runs a script until it is cancelled, and says what changes.
async fn track(runner: Runner, config: VrrpScript, events: mpsc::Sender<Event>) {
    let VrrpScript {
        name,
        script,
        interval,
        timeout,
        rise,
        fall,
        ..
    } = config;
    let mut verdict = Verdict::new(rise, fall);
    loop {
        let outcome = runner.run(&script, &[], timeout).await;
        // Also one that cannot be run: nobody knows whether all is well.
        let success = outcome == Outcome::Exited(0);
        if let Some(succeeds) = verdict.result(success) {
            let name = name.clone();
            let reason = outcome.to_string();
            let event = VrrpEvent::Script {
                name,
                succeeds,
                reason,
            };
            if events.send(Event::Vrrp(event)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(interval).await;
    }
}

impl Appliance {
    /// Runs what the configuration tracks now.
    pub(in super::super) fn take_up_scripts(&mut self) {
        self.scripts.take_up(self.controller.config());
    }
}
