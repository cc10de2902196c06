//! The directors that run in a lab: started, watched, killed, asked.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::network::Network;
use super::plan::{Director, Plan};
use super::process::Process;
use super::{Directory, Options};
use crate::api::client::Client;
use crate::api::view;

/// How often a director is looked at while something is awaited of it.
const POLL: Duration = Duration::from_millis(20);

/// All directors of a lab. Shared by the script that kills them and the watch
/// over those that have no reason to stop.
#[derive(Debug)]
pub struct Directors<'a> {
    plan: &'a Plan,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// `None`: killed by the script.
    running: RefCell<Vec<Option<Process>>>,
}

impl<'a> Directors<'a> {
    /// Starts all of them; they are not ready yet.
    pub(super) fn start(
        plan: &'a Plan,
        options: &Options,
        network: &Network,
        directory: &Directory,
    ) -> anyhow::Result<Self> {
        let directors = Self {
            plan,
            program: options.program.clone(),
            arguments: options.run_arguments.clone(),
            running: RefCell::default(),
        };
        for director in &plan.directors {
            let process = directors.process(director, network, directory)?;
            directors.running.borrow_mut().push(Some(process));
        }
        Ok(directors)
    }

    fn process(
        &self,
        director: &Director,
        network: &Network,
        directory: &Directory,
    ) -> anyhow::Result<Process> {
        let name = &director.name;
        let mut arguments = vec![OsString::from("run")];
        match &director.file {
            None => arguments.extend(self.arguments.iter().cloned()),
            Some(text) => {
                let path = directory.0.join(format!("{name}.toml"));
                let written = fs::write(&path, text);
                written.with_context(|| format!("cannot write {}", path.display()))?;
                arguments.push(path.into());
            }
        }
        arguments.extend(["--socket".into(), directory.socket(name).into()]);
        Process::start(
            format!("the director {}", addresses(director)),
            &self.program,
            &network.namespace(name),
            &arguments,
            directory.0.join(format!("{name}.log")),
        )
    }

    /// What they run, and the responders, too.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Waits until all of them are ready.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        for process in self.running.get_mut().iter_mut().flatten() {
            process.ready().await?;
        }
        Ok(())
    }

    /// Kills one.
    pub(super) fn kill(&self, number: usize) {
        let process = self.running.borrow_mut()[number].take();
        if let Some(process) = process {
            process.kill();
        }
    }

    /// Starts one that was killed, and waits until it is ready.
    pub(super) async fn restart(
        &self,
        number: usize,
        network: &Network,
        directory: &Directory,
    ) -> anyhow::Result<()> {
        let mut process = self.process(&self.plan.directors[number], network, directory)?;
        process.ready().await?;
        self.running.borrow_mut()[number] = Some(process);
        Ok(())
    }

    /// Returns when one has stopped that was not killed by the script.
    pub(super) async fn died(&self) -> anyhow::Error {
        loop {
            for process in self.running.borrow_mut().iter_mut().flatten() {
                if let Some(error) = process.has_died() {
                    return error;
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The director that is master of every instance.
    pub(super) async fn master(&self, directory: &Directory) -> anyhow::Result<Option<usize>> {
        for (number, director) in self.plan.directors.iter().enumerate() {
            if self.running.borrow()[number].is_none() {
                continue;
            }
            let socket = directory.socket(&director.name);
            // The API's client blocks.
            let asked = tokio::task::spawn_blocking(move || {
                Client::new(&socket)?.get::<view::Vrrp>("vrrp")
            });
            let vrrp = asked.await??;
            if vrrp.instances.iter().all(|one| one.state == "MASTER") {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Waits for the first to be master, which has the highest priority; after
    /// `patience` it is whoever is. On a busy machine the second can be quicker,
    /// for a moment.
    pub(super) async fn wait_for_master(
        &self,
        directory: &Directory,
        patience: Duration,
    ) -> anyhow::Result<Option<usize>> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let master = self.master(directory).await?;
            if master == Some(0) || tokio::time::Instant::now() >= deadline {
                return Ok(master);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The end of each log, for a person.
    pub(super) fn log_ends(&self) -> String {
        let running = self.running.borrow();
        let ends = running.iter().flatten().map(Process::log_end);
        ends.collect::<Vec<_>>().join("\n")
    }

    /// Lets them run on when this value is gone.
    pub(super) fn keep(self) {
        let running = self.running.into_inner().into_iter();
        running.flatten().for_each(Process::keep);
    }
}

/// A director's addresses, for a person.
pub(super) fn addresses(director: &Director) -> String {
    let addresses = director.addresses.iter();
    let texts: Vec<String> = addresses.map(ToString::to_string).collect();
    texts.join(", ")
}
