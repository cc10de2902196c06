//! Scripts, FIFOs and people that are told about changes.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::{CheckKind, Config};
use crate::notify::{Fifos, Message, Notice, Post};
use crate::scripts::{Outcome, Runner, Script};

/// What a script that is told something may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What scripts that run at the end of the appliance may take together.
const PATIENCE_AT_END: Duration = Duration::from_secs(5);

/// Scripts that are told something at the same time: when a thousand servers fail together, the machine is
/// busy enough.
const MOST_AT_ONCE: usize = 64;

/// Runs scripts, writes to FIFOs and sends mails without anybody waiting for them.
#[derive(Debug)]
pub(super) struct Notifier {
    runner: Runner,
    fifos: Fifos,
    post: Post,
    running: JoinSet<()>,
    /// One turn for each that scripts are about: what is told last was the last to happen.
    turns: BTreeMap<String, Arc<Semaphore>>,
    /// Of all scripts together.
    room: Arc<Semaphore>,
}

impl Notifier {
    pub(super) fn new(runner: Runner) -> Self {
        Self {
            fifos: Fifos::new(runner.clone()),
            post: Post::default(),
            runner,
            running: JoinSet::new(),
            turns: BTreeMap::new(),
            room: Arc::new(Semaphore::new(MOST_AT_ONCE)),
        }
    }

    /// Runs a script after those that are about the same. One that hangs keeps the others waiting until it
    /// is killed.
    pub(super) fn run(
        &mut self,
        about: String,
        script: Script,
        arguments: Vec<String>,
        cause: String,
    ) {
        let (runner, room) = (self.runner.clone(), Arc::clone(&self.room));
        let turn = self.turns.entry(about);
        let turn = Arc::clone(turn.or_insert_with(|| Arc::new(Semaphore::new(1))));
        self.running.spawn(async move {
            // An error: it is closed, and nobody waits any more.
            let _turn = turn.acquire().await;
            let _room = room.acquire().await;
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            match runner.run(&script, &arguments, PATIENCE).await {
                Outcome::Exited(0) => info!("{cause}: {script} was told"),
                ended @ (Outcome::Exited(_)
                | Outcome::Killed(_)
                | Outcome::TimedOut
                | Outcome::NotRun(_)) => warn!("{cause}: {script}: {ended}"),
            }
        });
    }

    /// Opens the FIFOs of a configuration, closes others, and sends mails where it says.
    pub(super) fn take_up(&mut self, config: &Config) {
        let notifications = &config.notifications;
        self.fifos.take_up(notifications);
        let router_id = config.router_id.as_deref();
        self.post.take_up(notifications.mail.as_ref(), router_id);
    }

    pub(super) fn tell(&mut self, notice: &Notice) {
        self.fifos.tell(notice);
    }

    pub(super) fn mail(&mut self, message: Message) {
        self.post.send(message);
    }

    /// Forgets those that have ended.
    pub(super) fn tidy_up(&mut self) {
        while self.running.try_join_next().is_some() {}
        self.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
    }

    /// Closes the FIFOs, sends what is to be sent, and lets those that run come to an end, within limits:
    /// half of the time in turn, then all that are left at once.
    pub(super) async fn finish(&mut self) {
        tokio::join!(self.fifos.finish(), self.post.finish());
        let mut all = pin!(async { while self.running.join_next().await.is_some() {} });
        if timeout(PATIENCE_AT_END / 2, &mut all).await.is_ok() {
            return;
        }
        self.turns.values().for_each(|turn| turn.close());
        if timeout(PATIENCE_AT_END / 2, all).await.is_err() {
            warn!("scripts still run after {PATIENCE_AT_END:?}: they are killed");
        }
    }
}

/// Says at once which scripts will not run, rather than when they are needed.
pub(super) fn complain(runner: &Runner, config: &Config) {
    for fifo in config.notifications.fifos() {
        if let Some(script) = &fifo.script
            && let Err(why) = runner.check(script)
        {
            let path = fifo.path.display();
            warn!("FIFO {path}: the script {script} will not run: {why}");
        }
    }
    for service in &config.virtual_servers {
        let quorum = [&service.quorum.up, &service.quorum.down];
        let servers = service.real_servers.iter().flat_map(|server| {
            let checks = server.checks.iter().filter_map(|check| match &check.kind {
                CheckKind::MiscCheck(misc) => Some(&misc.script),
                CheckKind::TcpCheck
                | CheckKind::HttpGet(_)
                | CheckKind::UdpCheck(_)
                | CheckKind::DnsCheck(_)
                | CheckKind::SmtpCheck { .. }
                | CheckKind::PingCheck
                | CheckKind::FileCheck(_) => None,
            });
            let notify = [&server.notify_up, &server.notify_down];
            checks.chain(notify.into_iter().flatten())
        });
        for script in quorum.into_iter().flatten().chain(servers) {
            if let Err(why) = runner.check(script) {
                warn!(
                    "virtual_server {}: the script {script} will not run: {why}",
                    service.key
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::scripts::Policy;

    fn shell(line: &str) -> Script {
        Script {
            words: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
            user: None,
        }
    }

    /// Runs lines, each about something, to the end; what they wrote into `told`.
    async fn run(told: &Path, lines: &[(&str, &str)]) -> String {
        let mut notifier = Notifier::new(Runner::new(Policy::default()));
        for (about, line) in lines {
            let line = format!("({line}) >>{}", told.display());
            notifier.run((*about).to_owned(), shell(&line), Vec::new(), String::new());
        }
        notifier.finish().await;
        assert!(notifier.running.is_empty());
        notifier.tidy_up();
        assert!(notifier.turns.is_empty());
        fs::read_to_string(told).unwrap().replace('\n', " ")
    }

    #[tokio::test]
    async fn scripts_about_the_same_run_in_turn() {
        let directory = tempfile::tempdir().unwrap();
        let told = directory.path().join("told");
        let lines = [
            ("instance VI_1", "sleep 0.3; echo STOP"),
            ("instance VI_1", "sleep 0.1; echo BACKUP"),
            ("instance VI_1", "echo MASTER"),
            ("instance VI_2", "echo other"),
        ];
        assert_eq!(run(&told, &lines).await, "other STOP BACKUP MASTER ");
    }

    #[tokio::test]
    async fn so_many_at_once_and_checks_wait_for_none() {
        let runner = Runner::new(Policy::default());
        let mut notifier = Notifier::new(runner.clone());
        let directory = tempfile::tempdir().unwrap();
        for number in 0..=MOST_AT_ONCE {
            let file = directory.path().join(number.to_string());
            let line = format!("echo >{}; exec sleep 60", file.display());
            notifier.run(number.to_string(), shell(&line), Vec::new(), String::new());
        }
        let running = || fs::read_dir(directory.path()).unwrap().count();
        while running() < MOST_AT_ONCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let check = shell("true");
        let check = runner.run(&check, &[], PATIENCE);
        let ended = timeout(Duration::from_secs(10), check).await;
        assert_eq!(ended, Ok(Outcome::Exited(0)));
        assert_eq!(running(), MOST_AT_ONCE);
    }

    #[tokio::test]
    async fn at_the_end_a_script_that_hangs_keeps_nobody_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let told = directory.path().join("told");
        let lines = [
            ("instance VI_1", "exec sleep 4"),
            ("instance VI_1", "echo STOP"),
        ];
        let begin = std::time::Instant::now();
        assert_eq!(run(&told, &lines).await, "STOP ");
        assert!(begin.elapsed() < PATIENCE_AT_END + Duration::from_secs(1));
    }
}
