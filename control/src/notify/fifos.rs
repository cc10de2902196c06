//! The FIFOs of a configuration, and the scripts that read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{error, warn};

use super::Notice;
use super::fifo::Fifo;
use crate::config::{self, Notifications};
use crate::in_words::in_words;
use crate::scripts::{Runner, Script};

/// From the end of a script that reads a FIFO to its next start.
const PAUSE: Duration = Duration::from_secs(1);

/// What a script may take that has read the end of its FIFO.
const PATIENCE_AT_END: Duration = Duration::from_secs(1);

/// All FIFOs that are open.
#[derive(Debug)]
pub(crate) struct Fifos {
    runner: Runner,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    config: config::Fifo,
    is_for: For,
    fifo: Fifo,
    reader: Reader,
}

/// What a FIFO is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    All,
    Vrrp,
    Servers,
}

impl For {
    fn wants(self, notice: &Notice) -> bool {
        match self {
            Self::All => true,
            Self::Vrrp => notice.is_vrrp(),
            Self::Servers => !notice.is_vrrp(),
        }
    }
}

impl Fifos {
    #[must_use]
    pub(crate) fn new(runner: Runner) -> Self {
        Self {
            runner,
            open: Vec::new(),
        }
    }

    /// Opens what `wanted` has and is not open, and closes what it has not.
    /// What cannot be opened is said, and opened at the next try.
    ///
    /// Within a runtime: a FIFO may have a script to read it.
    pub(crate) fn take_up(&mut self, wanted: &Notifications) {
        let Notifications {
            fifo,
            vrrp_fifo,
            lvs_fifo,
            mail: _,
        } = wanted;
        let wanted = [
            (For::All, fifo),
            (For::Vrrp, vrrp_fifo),
            (For::Servers, lvs_fifo),
        ];
        let is_wanted = |open: &Open| wanted.contains(&(open.is_for, &Some(open.config.clone())));
        self.open.retain(is_wanted);
        for (is_for, config) in wanted {
            let is_open = self.open.iter().any(|open| open.is_for == is_for);
            let Some(config) = config.as_ref().filter(|_| !is_open) else {
                continue;
            };
            let path = config.path.display();
            let opened = self.runner.owner(config.owner.as_ref());
            let opened = opened.and_then(|owner| {
                let fifo = Fifo::open(&config.path, owner);
                fifo.map_err(|error| in_words(&error))
            });
            match opened {
                Ok(fifo) => self.open.push(Open {
                    config: config.clone(),
                    is_for,
                    fifo,
                    reader: Reader::start(config, &self.runner),
                }),
                Err(why) => error!("FIFO {path}: {why}: nothing is written to it"),
            }
        }
    }

    /// Writes a notice to those FIFOs that it is for.
    pub(crate) fn tell(&mut self, notice: &Notice) {
        for open in &mut self.open {
            if open.is_for.wants(notice) {
                open.fifo.write(&notice.to_string());
            }
        }
    }

    /// Closes all; scripts that read to the end have a moment for that.
    pub(crate) async fn finish(&mut self) {
        let readers: Vec<_> = self
            .open
            .drain(..)
            .map(|Open { fifo, reader, .. }| {
                reader.is_closing.store(true, Ordering::Relaxed);
                drop(fifo);
                reader
            })
            .collect();
        let all = async {
            for mut reader in readers {
                while reader.running.join_next().await.is_some() {}
            }
        };
        // Those that are late are killed.
        let _ = tokio::time::timeout(PATIENCE_AT_END, all).await;
    }
}

/// The script that reads a FIFO, if it has one. Killed when this is dropped.
#[derive(Debug)]
struct Reader {
    running: JoinSet<()>,
    /// Its end is no reason to start it again.
    is_closing: Arc<AtomicBool>,
}

impl Reader {
    fn start(config: &config::Fifo, runner: &Runner) -> Self {
        let is_closing = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        if let Some(script) = config.script.clone() {
            let path = config.path.to_string_lossy().into_owned();
            running.spawn(read(script, path, runner.clone(), Arc::clone(&is_closing)));
        }
        Self {
            running,
            is_closing,
        }
    }
}

/// Runs a script for ever.
async fn read(script: Script, path: String, runner: Runner, is_closing: Arc<AtomicBool>) {
    loop {
        let outcome = runner.run(&script, &[&path], Duration::MAX).await;
        if is_closing.load(Ordering::Relaxed) {
            return;
        }
        warn!("FIFO {path}: its script {script} ended, {outcome}; it is started again");
        tokio::time::sleep(PAUSE).await;
    }
}
