//! The Unix socket that the server listens on: created so that nobody but
//! its owner can ever connect, and so that two appliances never share it.
//!
//! Only a socket on which nobody listens is replaced, as a killed process
//! leaves one behind. Anything else at the path is an error.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock, open};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_to, connect, listen,
    socket_with,
};

use crate::in_words::in_words;

/// Connections that may wait to be accepted; the kernel caps it at
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long to wait for another appliance that starts at the same moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "another appliance{} answers at {}: stop it, or choose another socket with --socket",
        .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
        .path.display()
    )]
    Answered { path: PathBuf, pid: Option<i32> },
    #[error(
        "{} exists and is not a control socket: remove it, or choose another path with --socket",
        .0.display()
    )]
    Occupied(PathBuf),
    #[error(
        "cannot create the control socket {}: the directory {} does not exist: create it, or choose another path with --socket",
        .path.display(), .directory.display()
    )]
    NoDirectory { path: PathBuf, directory: PathBuf },
    #[error(
        "the path of the control socket is longer than the 107 bytes that Linux allows: choose a shorter one with --socket ({})",
        .0.display()
    )]
    PathTooLong(PathBuf),
    #[error(
        "cannot create the control socket {}: {}: choose a path that this user may create with --socket",
        .path.display(), in_words(.source)
    )]
    System { path: PathBuf, source: io::Error },
}

/// A listening control socket. Dropping it removes the file, if it is still
/// this socket's.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Listener {
    /// Where clients find it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // Nobody is left to tell, and a stale socket is no harm.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Creates the control socket at `path`, mode 0600, in place of a stale one.
///
/// # Errors
///
/// When somebody answers at `path`, when what is there is no socket, and when
/// the system refuses.
pub fn bind(path: &Path) -> Result<Listener, BindError> {
    let system = |errno: Errno| BindError::System {
        path: path.to_owned(),
        source: errno.into(),
    };
    let address = SocketAddrUnix::new(path).map_err(|_| BindError::PathTooLong(path.to_owned()))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let _lock = lock(directory);
    let socket = stream_socket().map_err(system)?;
    // A socket's file takes the mode of its inode in sockfs (unix_bind_bsd in
    // the kernel's net/unix/af_unix.c), so it is never anything but 0600. The
    // umask, which belongs to the whole process, stays as it is.
    fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(system)?;
    match bind_to(&socket, &address) {
        Err(Errno::ADDRINUSE) => {
            remove_stale(path, &address)?;
            bind_to(&socket, &address).map_err(system)?;
        }
        Err(Errno::NOENT) => {
            return Err(BindError::NoDirectory {
                path: path.to_owned(),
                directory: directory.to_owned(),
            });
        }
        bound => bound.map_err(system)?,
    }
    listen(&socket, BACKLOG).map_err(system)?;
    let file = identity(path).map_err(|source| BindError::System {
        path: path.to_owned(),
        source,
    })?;
    Ok(Listener {
        socket: socket.into(),
        path: path.to_owned(),
        file,
    })
}

/// Removes the socket at `path` if nobody listens on it.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), BindError> {
    let occupied = || BindError::Occupied(path.to_owned());
    let system = |source| BindError::System {
        path: path.to_owned(),
        source,
    };
    // A link to a socket is not followed: it is somebody's intention.
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(occupied()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(error)),
    }
    let probe = stream_socket().map_err(|errno| system(errno.into()))?;
    let answered = |pid| {
        Err(BindError::Answered {
            path: path.to_owned(),
            pid,
        })
    };
    match connect(&probe, address) {
        // The kernel reports the process that called listen().
        Ok(()) => answered(
            socket_peercred(&probe)
                .ok()
                .map(|peer| peer.pid.as_raw_nonzero().get()),
        ),
        // It has more clients waiting than it may have.
        Err(Errno::AGAIN) => answered(None),
        Err(Errno::CONNREFUSED) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(system(error)),
            _ => Ok(()),
        },
        // A datagram socket, such as /dev/log.
        Err(Errno::PROTOTYPE) => Err(occupied()),
        Err(errno) => Err(system(errno.into())),
    }
}

/// Keeps another appliance that starts now from removing our new socket as
/// the stale one that both saw. Advisory: a directory that cannot be locked
/// in time, which any user may bring about, does not keep us from starting.
fn lock(directory: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(directory, flags, Mode::empty()).ok()?;
    let started = Instant::now();
    while flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
        if started.elapsed() > LOCK_PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(directory)
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("appliance.sock");
        (directory, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn only_the_owner_may_connect_and_nothing_is_left() {
        let (_directory, path) = place();
        let listener = bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(fs::symlink_metadata(&path).is_err());
    }

    #[test]
    fn mode_is_right_before_the_socket_listens() {
        // What bind() relies on, without the rest of it.
        let (_directory, path) = place();
        let socket = stream_socket().unwrap();
        fchmod(&socket, Mode::RUSR | Mode::WUSR).unwrap();
        bind_to(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn stale_socket_is_replaced() {
        let (_directory, path) = place();
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _listener = bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn live_socket_is_left_alone_and_its_owner_named() {
        let (_directory, path) = place();
        let _alive = bind(&path).unwrap();
        let error = bind(&path).unwrap_err().to_string();
        let expected = format!(
            "another appliance (pid {}) answers at {}: stop it, or choose another socket with --socket",
            std::process::id(),
            path.display()
        );
        assert_eq!(error, expected);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn live_socket_with_a_full_backlog_is_left_alone() {
        let (_directory, path) = place();
        let busy = stream_socket().unwrap();
        let address = SocketAddrUnix::new(&path).unwrap();
        bind_to(&busy, &address).unwrap();
        listen(&busy, 0).unwrap();
        let waiting = stream_socket().unwrap();
        connect(&waiting, &address).unwrap();
        let error = bind(&path).unwrap_err();
        assert!(
            matches!(error, BindError::Answered { pid: None, .. }),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_control_socket_is_never_removed() {
        let (directory, path) = place();
        let occupied = |path: &Path| {
            let error = bind(path).unwrap_err();
            assert!(matches!(error, BindError::Occupied(_)), "{error}");
            assert!(fs::symlink_metadata(path).is_ok());
        };
        fs::write(&path, "precious").unwrap();
        occupied(&path);
        let stale = directory.path().join("stale.sock");
        drop(UnixListener::bind(&stale).unwrap());
        let link = directory.path().join("link");
        symlink(&stale, &link).unwrap();
        occupied(&link);
        assert!(stale.exists());
        let datagram = directory.path().join("log");
        let _log = UnixDatagram::bind(&datagram).unwrap();
        occupied(&datagram);
        let dangling = directory.path().join("dangling");
        symlink(directory.path().join("nowhere"), &dangling).unwrap();
        occupied(&dangling);
    }

    #[test]
    fn successor_keeps_its_socket_when_the_old_one_is_dropped() {
        let (_directory, path) = place();
        let old = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _new = bind(&path).unwrap();
        drop(old);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn of_many_that_start_at_once_exactly_one_wins() {
        let (_directory, path) = place();
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let bound: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| bind(&path))).collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert_eq!(bound.iter().filter(|b| b.is_ok()).count(), 1, "{bound:?}");
            UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn impossible_paths_are_explained() {
        let (directory, _) = place();
        let missing = directory.path().join("missing/appliance.sock");
        let error = bind(&missing).unwrap_err().to_string();
        assert!(error.contains("does not exist: create it"), "{error}");
        let long = directory.path().join("x".repeat(120));
        assert!(matches!(bind(&long), Err(BindError::PathTooLong(_))));
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = bind(&file.join("appliance.sock")).unwrap_err().to_string();
        assert!(
            error.contains("appliance.sock: not a directory: choose"),
            "{error}"
        );
    }
}
