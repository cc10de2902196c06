//! Work inside a network namespace, by threads that move into it.
//!
//! A thread's network namespace is its own (setns(2)), so nothing here
//! changes the rest of the process, and no helper program is needed.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where iproute2 binds the names of namespaces.
pub const DIRECTORY: &str = "/run/netns";

/// The file that stands for a named namespace.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Moves the calling thread, and nothing else, into a namespace for good.
///
/// # Errors
///
/// No namespace of that name, or no right to enter it.
pub fn enter(name: &str) -> anyhow::Result<()> {
    let path = path(name);
    let failed = || format!("cannot enter the network namespace {name}");
    let file = File::open(path).with_context(failed)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(io::Error::from)
        .with_context(failed)
}

/// Runs `work` on a thread of its own inside a namespace and waits for it.
///
/// # Errors
///
/// Those of [`enter`] and of `work`.
pub fn within<T, F>(name: &str, work: F) -> anyhow::Result<T>
where
    F: FnOnce() -> anyhow::Result<T> + Send,
    T: Send,
{
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            enter(name)?;
            work()
        });
        // A panic in there was reported by its thread; it ends the lab here.
        let ended = inside.join();
        ended.map_err(|_| anyhow!("a thread panicked in the network namespace {name}"))?
    })
}
