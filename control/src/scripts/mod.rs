//! Runs what the configuration names: `MISC_CHECK`, `notify_*`, `quorum_*`,
//! `vrrp_script`.
//!
//! As in keepalived: a script is a program with arguments, not a line for a
//! shell (only one that begins with `<`, as `</dev/tcp/…`, is given to
//! `/bin/sh`); it runs as its own user, else as `script_user`, else as
//! `keepalived_script` if there is such a user, else as the appliance's own;
//! it inherits the environment, and finds a program without `/` by `PATH`.
//!
//! Invariants: a script has a process group of its own, which is killed as a
//! whole when its time is up (SIGTERM, then SIGKILL) and when nobody waits for
//! it any more; it holds no descriptor of the appliance. What it prints is
//! discarded unless the log level is debug.
//!
//! Not done here: when to run a script, how many at a time, and what its exit
//! status means. A check runs one at a time and must not wait for others: they
//! may hang, and it would find nothing out.

mod running;
pub mod security;
pub mod words;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use std::{env, fmt, fs, io};

use nix::unistd;
use serde::{Deserialize, Serialize};

use crate::in_words::in_words;

/// Who runs scripts that do not say, if there is such a user.
const CUSTOMARY_USER: &str = "keepalived_script";

/// Where programs are looked for when the appliance has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command and who runs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Script {
    /// The program and its arguments; at least one word.
    pub words: Vec<String>,
    /// `None`: as the [`Policy`] says.
    pub user: Option<ScriptUser>,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

/// `USER [GROUP]`; without a group the user's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ScriptUser {
    pub user: String,
    pub group: Option<String>,
}

/// What `[global_defs]` says about scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `script_user`: of scripts without one.
    pub user: Option<ScriptUser>,
    /// `enable_script_security`: do not run as root what others can change.
    pub security: bool,
}

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ended with this status.
    Exited(i32),
    /// Something else killed it, with this signal.
    Killed(i32),
    /// Its time was up; it was killed.
    TimedOut,
    /// It could not be run, and why: says nothing about what it would find.
    NotRun(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::NotRun(why) => write!(f, "not run: {why}"),
        }
    }
}

/// Runs scripts. Clones are the same runner.
#[derive(Clone, Debug)]
pub struct Runner {
    policy: Arc<RwLock<Policy>>,
}

/// A script that may be run, with what the kernel needs for it.
#[derive(Debug)]
struct Prepared {
    program: PathBuf,
    arguments: Vec<String>,
    /// User and group, unless they are the appliance's own.
    identity: Option<(u32, u32)>,
}

/// Why a script cannot be run.
#[derive(Debug, thiserror::Error)]
enum CannotRun {
    #[error("it names no program")]
    Empty,
    #[error("no program {0} in PATH: write its whole path")]
    NotFound(String),
    #[error("{}: {}", .0.display(), in_words(.1))]
    Unreadable(PathBuf, io::Error),
    #[error("{} is not an executable file: chmod +x it", .0.display())]
    NotExecutable(PathBuf),
    #[error("no user {0}")]
    NoUser(String),
    #[error("no group {0}")]
    NoGroup(String),
    #[error("cannot look up user {0}: {1}")]
    LookUp(String, nix::errno::Errno),
    #[error("enable_script_security: {0}")]
    Unsafe(#[from] security::Unsafe),
}

impl Runner {
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: Arc::new(RwLock::new(policy)),
        }
    }

    /// Replaces the policy; scripts that run already are not affected.
    pub fn set_policy(&self, policy: Policy) {
        let guard = self.policy.write();
        *guard.unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Runs a script with more arguments than its own to its end, for at most
    /// `timeout`.
    ///
    /// Cancelling this kills the script.
    pub async fn run(&self, script: &Script, arguments: &[&str], timeout: Duration) -> Outcome {
        match self.prepare(script, arguments) {
            Ok(prepared) => running::run(&prepared, timeout).await,
            Err(why) => Outcome::NotRun(why.to_string()),
        }
    }

    /// Says what keeps a script from being run, if anything does: for a
    /// complaint at start rather than when it is needed.
    ///
    /// # Errors
    /// Why, in words: what is wrong and what to do.
    pub fn check(&self, script: &Script) -> Result<(), String> {
        match self.prepare(script, &[]) {
            Ok(_) => Ok(()),
            Err(why) => Err(why.to_string()),
        }
    }

    /// User and group of a file that scripts read, by the same rules as theirs;
    /// `None`: the appliance's own.
    ///
    /// # Errors
    /// Why, in words: there is no such user or group.
    pub fn owner(&self, wanted: Option<&ScriptUser>) -> Result<Option<(u32, u32)>, String> {
        let guard = self.policy.read();
        let policy = guard.unwrap_or_else(PoisonError::into_inner);
        let owner = identity(wanted.or(policy.user.as_ref()));
        owner.map_err(|why| why.to_string())
    }

    fn prepare(&self, script: &Script, more: &[&str]) -> Result<Prepared, CannotRun> {
        let guard = self.policy.read();
        let policy = guard.unwrap_or_else(PoisonError::into_inner).clone();
        let identity = identity(script.user.as_ref().or(policy.user.as_ref()))?;
        let first = script.words.first().ok_or(CannotRun::Empty)?;
        let mut arguments: Vec<String> = more.iter().map(|&text| text.to_owned()).collect();
        if first.starts_with('<') {
            // Whether a file or a socket can be opened: only a shell can ask.
            let line = script.words.join(" ");
            arguments.splice(0..0, ["-c".to_owned(), line, "sh".to_owned()]);
            return Ok(Prepared {
                program: "/bin/sh".into(),
                arguments,
                identity,
            });
        }
        let program = find(first)?;
        let runs_as_root = match identity {
            Some((uid, _)) => uid == 0,
            None => unistd::geteuid().is_root(),
        };
        if policy.security && runs_as_root {
            security::safe_as_root(&program)?;
        }
        arguments.splice(0..0, script.words.iter().skip(1).cloned());
        Ok(Prepared {
            program,
            arguments,
            identity,
        })
    }
}

/// The ids to run as; `None`: the appliance's own.
fn identity(wanted: Option<&ScriptUser>) -> Result<Option<(u32, u32)>, CannotRun> {
    let look_up = |name: &str| {
        let user = unistd::User::from_name(name);
        user.map_err(|error| CannotRun::LookUp(name.to_owned(), error))
    };
    let (user, group) = match wanted {
        Some(wanted) => {
            let user = look_up(&wanted.user)?;
            let user = user.ok_or_else(|| CannotRun::NoUser(wanted.user.clone()))?;
            (user, wanted.group.as_deref())
        }
        None => match look_up(CUSTOMARY_USER) {
            Ok(Some(user)) => (user, None),
            Ok(None) | Err(_) => return Ok(None),
        },
    };
    let gid = match group {
        Some(name) => {
            let group = unistd::Group::from_name(name)
                .map_err(|error| CannotRun::LookUp(name.to_owned(), error))?;
            group
                .ok_or_else(|| CannotRun::NoGroup(name.to_owned()))?
                .gid
        }
        None => user.gid,
    };
    let own = (unistd::geteuid(), unistd::getegid());
    let same = (user.uid, gid) == own;
    Ok((!same).then_some((user.uid.as_raw(), gid.as_raw())))
}

/// The file of a program: as written when it has a `/`, else found by `PATH`.
fn find(name: &str) -> Result<PathBuf, CannotRun> {
    let is_executable = |path: &Path| {
        fs::metadata(path).map(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        let path = PathBuf::from(name);
        let path = std::path::absolute(&path).unwrap_or(path);
        return match is_executable(&path) {
            Ok(true) => Ok(path),
            Ok(false) => Err(CannotRun::NotExecutable(path)),
            Err(error) => Err(CannotRun::Unreadable(path, error)),
        };
    }
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_absolute() && is_executable(candidate).unwrap_or(false))
        .ok_or_else(|| CannotRun::NotFound(name.to_owned()))
}

#[cfg(test)]
mod tests;
