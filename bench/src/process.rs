//! Programs of a measurement.
//!
//! Each runs in a session of its own whose autogroup has the highest weight, and at nice −20: beside other
//! work a plain `nice` does nothing when autogroups are on, because the scheduler shares the CPU between
//! groups first.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to say that it is ready, or to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Process {
    /// Starts `program` in `namespace`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(namespace: &str, program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = prioritized();
        command.args(["ip", "netns", "exec", namespace]);
        Self::spawn(command, program, arguments)
    }

    fn spawn(mut command: Command, program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let name = program
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let mut child = command
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdin = child.stdin.take();
        let out = lines(child.stdout.take().context("no stdout")?);
        let err = lines(child.stderr.take().context("no stderr")?);
        Ok(Self {
            name,
            child,
            stdin,
            out,
            err,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it has said on stderr so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.err.try_iter().collect::<Vec<_>>().join("; ")
    }

    /// Waits for a line on stderr that contains `ready`.
    ///
    /// # Errors
    /// The program ended or was silent; the error has what it said.
    pub fn wait_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.err.recv_timeout(left) {
                Ok(line) if line.contains("ready") => return Ok(()),
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "{} was not ready in {PATIENCE:?}: {}",
                        self.name,
                        said.join("; ")
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} ended: {}", self.name, said.join("; "))
                }
            }
        }
    }

    /// Writes an empty line to the program and returns the line that it answers with.
    ///
    /// # Errors
    /// The program ended or did not answer.
    pub fn ask(&mut self) -> anyhow::Result<String> {
        let stdin = self.stdin.as_mut().context("stdin is closed")?;
        writeln!(stdin).with_context(|| format!("{} ended", self.name))?;
        self.out
            .recv_timeout(PATIENCE)
            .with_context(|| format!("{} does not answer", self.name))
    }

    /// Waits until the program ends by itself; returns its last line on stdout.
    ///
    /// # Errors
    /// It failed, or does not end.
    pub fn finish(self, within: Duration) -> anyhow::Result<String> {
        self.end(within, |status| status.success())
    }

    fn end(
        mut self,
        within: Duration,
        is_well: impl Fn(ExitStatus) -> bool,
    ) -> anyhow::Result<String> {
        self.stdin = None;
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if !is_well(status) {
                    let said: Vec<String> = self.err.iter().collect();
                    bail!("{} failed ({status}): {}", self.name, said.join("; "));
                }
                return Ok(self.out.iter().last().unwrap_or_default());
            }
            if Instant::now() > deadline {
                bail!("{} did not end in {within:?}", self.name);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the program with SIGTERM; returns its last line on stdout.
    ///
    /// # Errors
    /// It failed, or does not end.
    pub fn stop(self) -> anyhow::Result<String> {
        kill_process(self.id(), Signal::TERM)
            .with_context(|| format!("cannot end {}", self.name))?;
        // HAProxy passes the signal on to itself.
        self.end(PATIENCE, |status| {
            status.success() || status.signal() == Some(Signal::TERM.as_raw())
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `program` on this host with the same priority until it ends; returns its last lines on
/// stdout and all of stderr.
///
/// # Errors
/// It cannot be started or fails.
pub fn run(program: &Path, arguments: &[&str]) -> anyhow::Result<(String, String)> {
    let output = prioritized()
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            program.display(),
            output.status,
            err.trim()
        );
    }
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), err))
}

/// `setsid` starts no second process here, so that the child is the program itself: a child of ours leads no process group.
fn prioritized() -> Command {
    let mut command = Command::new("setsid");
    command.args([
        "sh",
        "-c",
        "echo -20 > /proc/self/autogroup 2>/dev/null; exec nice -n -20 \"$@\"",
        "sh",
    ]);
    command
}

/// The lines of a stream, as they come.
fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
