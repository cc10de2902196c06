//! The programs inside the lab: the director and the responders.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a program may take to stop by itself.
const GRACE: Duration = Duration::from_secs(5);

/// How long the director may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How often a program is looked at while something is awaited of it.
const POLL: Duration = Duration::from_millis(20);

/// Lines of a log that are shown when something went wrong.
const SHOWN_LINES: usize = 20;

/// A running program with its children; both end when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Option<Child>,
    what: String,
    log: PathBuf,
}

impl Process {
    /// Starts `program`, an `appliance`, with `arguments` in a namespace; what
    /// it writes goes to `log`.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start<S: AsRef<std::ffi::OsStr>>(
        what: String,
        program: &Path,
        namespace: &str,
        arguments: &[S],
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        let failed = || format!("cannot start {what}");
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().with_context(failed)?;
        // `ip netns exec`, and not only setns(2): it also mounts the /sys that
        // shows the namespace's interfaces.
        let child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // A Ctrl-C at the terminal is the lab's alone to handle.
            .process_group(0)
            .spawn()
            .with_context(failed)?;
        Ok(Self {
            child: Some(child),
            what,
            log,
        })
    }

    /// Waits until the program has written the line `ready`.
    ///
    /// # Errors
    ///
    /// It stops first, or takes too long; with the end of its log.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while !read(&self.log).lines().any(|line| line == "ready") {
            if let Some(status) = self.stopped()? {
                bail!(
                    "{}",
                    self.complaint(&format!("stopped at its start: {status}"))
                );
            }
            if Instant::now() > deadline {
                let seconds = READY_WITHIN.as_secs();
                let late = format!("is not ready after {seconds} s");
                bail!("{}", self.complaint(&late));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Something if the program has stopped, which it should not.
    pub fn has_died(&mut self) -> Option<anyhow::Error> {
        match self.stopped() {
            Ok(Some(status)) => {
                let complaint = self.complaint(&format!("stopped: {status}"));
                Some(anyhow::Error::msg(complaint))
            }
            Ok(None) => None,
            Err(error) => Some(error.into()),
        }
    }

    /// `what happened` and the end of the program's log.
    #[must_use]
    pub fn complaint(&self, happened: &str) -> String {
        format!("{} {happened}; {}", self.what, self.log_end())
    }

    /// The end of the program's log, for a person.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = read(&self.log);
        let lines: Vec<&str> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        match shown.len() {
            0 => format!("{} wrote nothing", self.what),
            _ => format!(
                "the end of what {} wrote:\n  {}",
                self.what,
                shown.join("\n  ")
            ),
        }
    }

    /// Ends it at once, without a chance to say goodbye.
    pub fn kill(mut self) {
        if let Some(child) = self.child.take() {
            end(child, Signal::KILL);
        }
    }

    /// Lets it run on when this value is gone.
    pub fn keep(mut self) {
        self.child = None;
    }

    fn stopped(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.as_mut().map_or(Ok(None), Child::try_wait)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            end(child, Signal::TERM);
        }
    }
}

/// Sends a signal to a process group and waits; after [`GRACE`] it is killed.
fn end(mut child: Child, signal: Signal) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let send = |signal| {
        // Fails if all of it has ended already.
        group.map(|group| kill_process_group(group, signal))
    };
    send(signal);
    let deadline = Instant::now() + GRACE;
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            send(Signal::KILL);
            let _ = child.wait();
            return;
        }
        sleep(Duration::from_millis(5));
    }
}

/// A log so far; one that cannot be read is empty.
fn read(path: &Path) -> String {
    fs::read(path).map_or_else(
        |_| String::new(),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}
