//! One FIFO and its lines.
//!
//! It is open for reading as well as writing, as in keepalived: lines stay in
//! it (64 KiB of them) while its reader is not there or starts anew.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use tracing::{info, warn};

/// An open FIFO. One that was made here is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Fifo {
    path: PathBuf,
    file: OwnedFd,
    is_ours: bool,
    /// Lines that nobody will read, since one was written for the last time.
    dropped: u64,
}

impl Fifo {
    /// Makes the FIFO if it is not there, and opens it. `owner`: user and group that
    /// a new one is given to.
    ///
    /// # Errors
    /// It can be neither made nor opened, or something else has this name.
    pub(super) fn open(path: &Path, owner: Option<(u32, u32)>) -> io::Result<Self> {
        let made = rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR);
        let is_ours = match made {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        if kind != FileType::Fifo {
            return Err(io::Error::other(
                "something else than a FIFO has this name: remove it, or choose another",
            ));
        }
        // From here on it is removed if something fails.
        let fifo = Self {
            path: path.to_owned(),
            file,
            is_ours,
            dropped: 0,
        };
        if let Some((user, group)) = owner.filter(|_| is_ours) {
            let ids = (Uid::from_raw(user), Gid::from_raw(group));
            rustix::fs::fchown(&fifo.file, Some(ids.0), Some(ids.1))?;
        }
        Ok(fifo)
    }

    /// Writes a line, or drops it when there is no room, which is said once.
    pub(super) fn write(&mut self, line: &str) {
        let path = self.path.display();
        // A line of up to 4096 bytes is written as a whole or not at all (pipe(7)).
        match rustix::io::write(&self.file, format!("{line}\n").as_bytes()) {
            Ok(_) if self.dropped == 0 => {}
            Ok(_) => {
                info!(
                    "FIFO {path} is read again; {} lines were dropped",
                    self.dropped
                );
                self.dropped = 0;
            }
            Err(error) => {
                if self.dropped == 0 {
                    let why = match error {
                        Errno::AGAIN => "it is full, nobody reads it".to_owned(),
                        error => crate::in_words::in_words(&error.into()),
                    };
                    warn!("FIFO {path}: {why}: lines are dropped");
                }
                self.dropped += 1;
            }
        }
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        if self.is_ours {
            // It may have been removed already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn lines_wait_for_their_reader() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let mut fifo = Fifo::open(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode(), 0o10600);
        fifo.write("one");
        let mut reader = BufReader::new(fs::File::open(&path).unwrap());
        fifo.write("two");
        drop(fifo);
        assert!(!path.exists(), "it is removed");
        let mut lines = String::new();
        while reader.read_line(&mut lines).unwrap() > 0 {}
        assert_eq!(lines, "one\ntwo\n", "and then the end");
    }

    #[test]
    fn without_a_reader_lines_are_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let mut fifo = Fifo::open(&path, None).unwrap();
        let line = "x".repeat(999);
        for _ in 0..100 {
            fifo.write(&line);
        }
        // 16 pages of 4096 bytes, each of four whole lines.
        assert!((30..50).contains(&fifo.dropped), "{}", fifo.dropped);
        let mut reader = BufReader::new(fs::File::open(&path).unwrap());
        for _ in 0..50 {
            let mut read = String::new();
            reader.read_line(&mut read).unwrap();
            assert_eq!(read.trim_end(), line);
        }
        fifo.write("again");
        assert_eq!(fifo.dropped, 0);
    }

    #[test]
    fn what_is_there_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let made = rustix::fs::mkfifoat(CWD, &path, Mode::RWXU);
        made.unwrap();
        drop(Fifo::open(&path, Some((1, 1))).unwrap());
        let kept = fs::metadata(&path).unwrap();
        assert_ne!(kept.uid(), 1, "its owner too");
        let file = directory.path().join("file");
        fs::write(&file, "mine").unwrap();
        let error = Fifo::open(&file, None).unwrap_err();
        assert!(error.to_string().contains("something else"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        Fifo::open(&link, None).unwrap_err();
        Fifo::open(&directory.path().join("no/such"), None).unwrap_err();
    }
}
