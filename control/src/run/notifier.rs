//! Scripts, FIFOs and people that are told about changes.

use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::{CheckKind, Config};
use crate::notify::{Fifos, Message, Notice, Post};
use crate::scripts::{Outcome, Runner, Script};

/// What a script that is told something may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What scripts that run at the end of the appliance may take together.
const PATIENCE_AT_END: Duration = Duration::from_secs(5);

/// Runs scripts, writes to FIFOs and sends mails without anybody waiting for them.
#[derive(Debug)]
pub(super) struct Notifier {
    runner: Runner,
    fifos: Fifos,
    post: Post,
    running: JoinSet<()>,
}

impl Notifier {
    pub(super) fn new(runner: Runner) -> Self {
        Self {
            fifos: Fifos::new(runner.clone()),
            post: Post::default(),
            runner,
            running: JoinSet::new(),
        }
    }

    pub(super) fn run(&mut self, script: Script, arguments: Vec<String>, cause: String) {
        let runner = self.runner.clone();
        self.running.spawn(async move {
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
    }

    /// Closes the FIFOs, sends what is to be sent, and lets those that run come to an end, within limits.
    pub(super) async fn finish(&mut self) {
        tokio::join!(self.fifos.finish(), self.post.finish());
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE_AT_END, all).await.is_err() {
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
