//! May this file be run as root? `enable_script_security`.
//!
//! A script that somebody else can change must not run as root: neither the
//! file nor any directory or link on the way to it may be replaced by anybody
//! but root. A directory with the sticky bit (`/tmp`) passes, because in it
//! only the owner of an entry can replace it, and that owner is looked at next.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use crate::in_words::in_words;

/// Why a script is not safe to run as root.
#[derive(Debug, thiserror::Error)]
pub enum Unsafe {
    #[error("{} belongs to user {uid}, not to root: run it as that user (script_user) or chown it", .path.display())]
    Owner { path: PathBuf, uid: u32 },
    #[error("{} can be written by others than root (mode {mode:04o}): run it as another user (script_user) or chmod go-w it", .path.display())]
    Writable { path: PathBuf, mode: u32 },
    #[error("{}: {}", .path.display(), in_words(.error))]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}: too many symbolic links", .path.display())]
    Links { path: PathBuf },
}

/// Symbolic links followed, as many as the kernel does.
const MOST_LINKS: usize = 40;

/// Checks an absolute path, every directory and every link on the way.
///
/// # Errors
/// The first component that somebody other than root could replace.
pub fn safe_as_root(script: &Path) -> Result<(), Unsafe> {
    let mut links = 0;
    let mut here = PathBuf::from("/");
    let mut rest: VecDeque<_> = names(script);
    check(&here)?;
    while let Some(name) = rest.pop_front() {
        if name.as_os_str() == ".." {
            here.pop();
            continue;
        }
        let path = here.join(&name);
        let is_link = check(&path)?;
        if !is_link {
            here = path;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Unsafe::Links {
                path: script.to_owned(),
            });
        }
        let target = fs::read_link(&path).map_err(|error| Unsafe::Unreadable {
            path: path.clone(),
            error,
        })?;
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        let mut further = names(&target);
        further.append(&mut rest);
        rest = further;
    }
    Ok(())
}

fn names(path: &Path) -> VecDeque<PathBuf> {
    let named = |component: Component<'_>| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(named).collect()
}

/// Whether the path itself is a symbolic link.
fn check(path: &Path) -> Result<bool, Unsafe> {
    const STICKY: u32 = 0o1000;
    let owned = || path.to_owned();
    let metadata = fs::symlink_metadata(path).map_err(|error| Unsafe::Unreadable {
        path: owned(),
        error,
    })?;
    if metadata.uid() != 0 {
        return Err(Unsafe::Owner {
            path: owned(),
            uid: metadata.uid(),
        });
    }
    // The mode of a link means nothing.
    if metadata.is_symlink() {
        return Ok(true);
    }
    let mode = metadata.mode();
    let by_group = mode & 0o020 != 0 && metadata.gid() != 0;
    let by_others = mode & 0o002 != 0;
    let sticky = metadata.is_dir() && mode & STICKY != 0;
    if (by_group || by_others) && !sticky {
        return Err(Unsafe::Writable {
            path: owned(),
            mode: mode & 0o7777,
        });
    }
    Ok(false)
}
