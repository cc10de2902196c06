//! One trial: `pktgen sink` and `pktgen tx` as processes, each where its end of the network is.
//!
//! They are the commands that users run, so whoever doubts a number can repeat it by hand.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use dataplane::service::Protocol;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use crate::report::{Received, Sent};
use crate::units::Rate;
use crate::verify::Mode;

/// How long packets may be under way after the last was sent. RFC 2544 §23 waits 2 s, for networks
/// of its time.
const DRAIN: Duration = Duration::from_millis(300);
/// A sink whose tester was killed ends so long after its trial.
const GRACE: Duration = Duration::from_secs(60);

/// An end of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `None`: this process's own network namespace.
    pub namespace: Option<String>,
    pub interface: String,
}

/// What is sent where, and what is expected to come.
#[derive(Clone, Debug)]
pub struct Tester {
    /// This program.
    pub program: PathBuf,
    pub send: Place,
    pub receive: Place,
    pub destination: SocketAddr,
    /// Of the director; `None`: asked of the kernel.
    pub destination_mac: Option<String>,
    /// Prefix of the sources; `None`: the interface's own address.
    pub sources: Option<String>,
    pub protocol: Protocol,
    /// `dr`, `nat`, `fullnat` or `tun`.
    pub mode: Mode,
    /// `SERVER=WEIGHT` each.
    pub servers: Vec<String>,
    /// CPU for both processes.
    pub core: Option<usize>,
    /// Set by a signal: the trial ends early.
    pub stop: Arc<AtomicBool>,
}

/// What one trial sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub flows: u32,
    /// Frame length in bytes without the frame check sequence.
    pub length: usize,
    pub rate: Rate,
    pub duration: Duration,
}

impl Tester {
    /// Sends `load` and only counts what comes, which costs the machine least.
    ///
    /// # Errors
    /// A process fails, or a signal came.
    pub fn count(&self, load: Load) -> anyhow::Result<(Sent, Received)> {
        self.trial(load, &["--count".to_owned()])
    }

    /// Sends `load` and looks at every packet.
    ///
    /// # Errors
    /// A process fails, or a signal came.
    pub fn verify(&self, load: Load) -> anyhow::Result<(Sent, Received)> {
        let mut options = vec!["--mode".to_owned(), self.mode.to_string()];
        for server in &self.servers {
            options.extend(["--server".to_owned(), server.clone()]);
        }
        self.trial(load, &options)
    }

    fn trial(&self, load: Load, options: &[String]) -> anyhow::Result<(Sent, Received)> {
        let seconds = |duration: Duration| format!("{:.3}s", duration.as_secs_f64());
        let mut arguments = vec![
            "sink".to_owned(),
            "--json".to_owned(),
            "--interface".to_owned(),
            self.receive.interface.clone(),
            "--duration".to_owned(),
            seconds(load.duration + GRACE),
        ];
        arguments.extend(options.iter().cloned());
        let mut sink = Running::start("pktgen sink", self.command(&self.receive, &arguments))?;
        sink.ready()?;

        let mut arguments = vec![
            "tx".to_owned(),
            "--json".to_owned(),
            "--interface".to_owned(),
            self.send.interface.clone(),
            "--dst".to_owned(),
            self.destination.to_string(),
            "--protocol".to_owned(),
            self.protocol.to_string().to_lowercase(),
            "--flows".to_owned(),
            load.flows.to_string(),
            "--size".to_owned(),
            load.length.to_string(),
            "--rate".to_owned(),
            load.rate.to_string(),
            "--duration".to_owned(),
            seconds(load.duration),
        ];
        for (option, value) in [
            ("--dst-mac", &self.destination_mac),
            ("--src", &self.sources),
        ] {
            if let Some(value) = value {
                arguments.extend([option.to_owned(), value.clone()]);
            }
        }
        let mut tx = Running::start("pktgen tx", self.command(&self.send, &arguments))?;
        while tx.is_running()? {
            if self.stop.load(Ordering::Relaxed) {
                bail!(Interrupted);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let sent = tx.result()?;
        std::thread::sleep(DRAIN);
        sink.signal(Signal::INT);
        let received = sink.result()?;
        if self.stop.load(Ordering::Relaxed) {
            bail!(Interrupted);
        }
        Ok((sent, received))
    }

    fn command(&self, place: &Place, arguments: &[String]) -> Command {
        let mut command = match &place.namespace {
            // Not only setns(2): it also mounts the /sys that shows the namespace's interfaces.
            Some(namespace) => {
                let mut command = Command::new("ip");
                command
                    .args(["netns", "exec", namespace])
                    .arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(arguments);
        if let Some(core) = self.core {
            command.args(["--core", &core.to_string()]);
        }
        command
    }
}

/// A signal came in the middle of a trial.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// A process; killed when dropped.
#[derive(Debug)]
struct Running {
    what: &'static str,
    child: Child,
}

impl Running {
    fn start(what: &'static str, mut command: Command) -> anyhow::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C at the terminal is this process's alone to handle.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        Ok(Self { what, child })
    }

    /// Waits for the line `ready`.
    fn ready(&mut self) -> anyhow::Result<()> {
        let mut said = String::new();
        let errors = self.child.stderr.as_mut().context("no stderr")?;
        let mut lines = BufReader::new(errors);
        while lines.read_line(&mut said)? > 0 {
            if said.ends_with("ready\n") {
                return Ok(());
            }
        }
        bail!("{}", self.complaint(&said));
    }

    fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Fails if it has ended already.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for the end and reads what it printed.
    fn result<T: DeserializeOwned>(mut self) -> anyhow::Result<T> {
        let (mut out, mut said) = (String::new(), String::new());
        if let Some(stdout) = &mut self.child.stdout {
            stdout.read_to_string(&mut out)?;
        }
        if let Some(stderr) = &mut self.child.stderr {
            stderr.read_to_string(&mut said)?;
        }
        if !self.child.wait()?.success() {
            bail!("{}", self.complaint(&said));
        }
        serde_json::from_str(&out).with_context(|| format!("the report of {}", self.what))
    }

    fn complaint(&self, said: &str) -> String {
        let said = said.trim().trim_start_matches("pktgen: ");
        format!("{}: {said}", self.what)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Of one that has ended and been waited for, both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
