//! `track_file`: a number in a file, which somebody else writes.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use crate::config::TrackFile;

/// Bytes that are read: more than any number has.
const MOST: u64 = 64;

/// The text of a short file.
///
/// # Errors
/// There is none, it cannot be read, or it is no regular file.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    // A pipe would keep the reader for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

/// The number in the file; of a file that is not there: 0.
///
/// # Errors
/// It cannot be read, or has something else in it.
pub(crate) fn number(path: &Path) -> io::Result<i32> {
    let text = match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        read => read?,
    };
    let text = text.trim();
    text.parse()
        .map_err(|_| io::Error::other(format!("{text:?} is no number")))
}

/// Writes what `init_file` says.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn initialize(file: &TrackFile) -> io::Result<()> {
    let Some(initial) = file.init_file else {
        return Ok(());
    };
    let path = &file.file;
    if initial.overwrite || !fs::exists(path)? {
        fs::write(path, format!("{}\n", initial.value))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InitFile;

    #[test]
    fn numbers_in_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        assert_eq!(number(&path).unwrap(), 0, "no file");
        for (text, expected) in [("7\n", 7), (" -12 ", -12), ("0", 0)] {
            fs::write(&path, text).unwrap();
            assert_eq!(number(&path).unwrap(), expected);
        }
        for text in ["", "x", "1 2", "99999999999"] {
            fs::write(&path, text).unwrap();
            let error = number(&path).unwrap_err().to_string();
            assert!(error.contains("is no number"), "{error}");
        }
        assert!(number(directory.path()).is_err(), "a directory");
    }

    #[test]
    fn the_first_number_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        let mut file = TrackFile {
            name: "f".into(),
            file: path.clone(),
            weight: 1,
            init_file: None,
        };
        initialize(&file).unwrap();
        assert!(!path.exists());
        let mut initial = InitFile {
            value: 3,
            overwrite: false,
        };
        for (value, overwrite, expected) in [(3, false, 3), (4, false, 3), (5, true, 5)] {
            (initial.value, initial.overwrite) = (value, overwrite);
            file.init_file = Some(initial);
            initialize(&file).unwrap();
            assert_eq!(number(&path).unwrap(), expected);
        }
    }
}
