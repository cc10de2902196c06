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
    // Whether it was run at all, once that is known.
    let mut has_run = None;
    loop {
        let outcome = runner.run(&script, &[], timeout).await;
        let (name, reason) = (name.clone(), outcome.to_string());
        let event = if matches!(outcome, Outcome::NotRun(_)) && has_run != Some(true) {
            let is_news = has_run.replace(false).is_none();
            is_news.then_some(VrrpEvent::ScriptNotRun { name, reason })
        } else {
            has_run = Some(true);
            // One that could be run and cannot any more fails: nobody knows whether all is well.
            let verdict = verdict.result(outcome == Outcome::Exited(0));
            verdict.map(|succeeds| VrrpEvent::Script {
                name,
                succeeds,
                reason,
            })
        };
        if let Some(event) = event
            && events.send(Event::Vrrp(event)).await.is_err()
        {
            return;
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::scripts::{Policy, Script};

    #[tokio::test]
    async fn a_script_counts_once_it_can_be_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("check");
        let config = VrrpScript {
            name: "chk".to_owned(),
            script: Script {
                words: vec![path.to_str().unwrap().to_owned()],
                user: None,
            },
            interval: Duration::from_millis(1),
            timeout: Duration::from_secs(10),
            rise: 1,
            fall: 1,
            init_fail: false,
            weight: 0,
        };
        let (sender, mut events) = mpsc::channel(1);
        let runner = Runner::new(Policy::default());
        let _task = tokio::spawn(track(runner, config, sender));
        let mut next = async || match events.recv().await {
            Some(Event::Vrrp(VrrpEvent::Script { succeeds, .. })) => Some(succeeds),
            Some(Event::Vrrp(VrrpEvent::ScriptNotRun { .. })) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await, None, "there is no such file");
        put(&path, "#!/bin/sh\n");
        assert_eq!(next().await, Some(true));
        fs::remove_file(&path).unwrap();
        assert_eq!(next().await, Some(false), "it was there");
    }

    /// A script that is there all at once, and not open for writing any more.
    fn put(path: &Path, text: &str) {
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, path).unwrap();
    }
}
