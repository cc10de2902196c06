//! One run of a script: the process, its group, its output, its end.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::{Outcome, Prepared};
use crate::in_words::in_words;

/// What a script may do after SIGTERM before SIGKILL follows.
const GRACE: Duration = Duration::from_secs(1);

/// How long the output of an ended script is waited for: a process that it
/// left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// What concerns the appliance and its service manager only.
const NOT_FOR_SCRIPTS: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

pub(super) async fn run(script: &Prepared, timeout: Duration) -> Outcome {
    let output = || {
        if tracing::enabled!(tracing::Level::DEBUG) {
            Stdio::piped()
        } else {
            Stdio::null()
        }
    };
    let mut command = Command::new(&script.program);
    command
        .args(&script.arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .process_group(0)
        .kill_on_drop(true);
    for name in NOT_FOR_SCRIPTS {
        command.env_remove(name);
    }
    if let Some((uid, gid)) = script.identity {
        // The standard library drops root's supplementary groups with it.
        command.gid(gid).uid(uid);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            return Outcome::NotRun(format!(
                "{}: {}",
                script.program.display(),
                in_words(&error)
            ));
        }
    };
    let group = Group::of(&child);
    let outcome = wait(&mut child, script, timeout, &group).await;
    // Its end is known: what it started in the background may go on.
    if !matches!(outcome, Outcome::TimedOut) {
        group.let_go();
    }
    outcome
}

async fn wait(child: &mut Child, script: &Prepared, timeout: Duration, group: &Group) -> Outcome {
    let name = script.program.display().to_string();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut output = std::pin::pin!(async {
        tokio::join!(log(&name, stdout), log(&name, stderr));
    });
    let mut time_is_up = std::pin::pin!(tokio::time::sleep(timeout));
    let mut silent = false;
    loop {
        tokio::select! {
            ended = child.wait() => {
                if !silent {
                    let _ = tokio::time::timeout(LAST_WORDS, output).await;
                }
                return match ended {
                    Ok(status) => outcome(status),
                    Err(error) => Outcome::NotRun(format!("wait: {}", in_words(&error))),
                };
            }
            () = &mut time_is_up => break,
            () = &mut output, if !silent => silent = true,
        }
    }
    group.signal(Signal::TERM);
    let _ = tokio::time::timeout(GRACE, child.wait()).await;
    Outcome::TimedOut
}

fn outcome(status: ExitStatus) -> Outcome {
    match status.code() {
        Some(code) => Outcome::Exited(code),
        None => Outcome::Killed(status.signal().unwrap_or(0)),
    }
}

/// A script's processes. Dropped, whatever is left of them is killed.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // ESRCH: all of them have ended.
            let _ = kill_process_group(group, signal);
        }
    }

    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Logs what a script prints, line by line as far as it prints so.
async fn log(name: &str, pipe: Option<impl AsyncRead + Unpin>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        for line in String::from_utf8_lossy(&buffer[..length]).lines() {
            tracing::debug!("{name}: {line}");
        }
    }
}
