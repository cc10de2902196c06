//! Reading a configuration file from disk.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use super::check::{Checked, parse_after};
use super::diagnostic::{Diagnostic, Diagnostics, Position, Severity};
use super::keepalived::{self, Mode};
use super::lines::Lines;
use super::pieces::Known;

/// The longest file that is read, in bytes: far beyond what people or programs write.
const MOST_BYTES: u64 = 64 << 20;

/// The syntax of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Toml,
    /// keepalived.conf(5)
    Keepalived {
        /// What conditional lines (`@ID`) are compared with; `None`: the first
        /// part of the host's name.
        config_id: Option<String>,
    },
}

impl Format {
    /// The format that a file's name tells: `*.toml` is TOML, every other name
    /// is keepalived's.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("toml") => Self::Toml,
            Some(_) | None => Self::Keepalived { config_id: None },
        }
    }
}

/// Reads and checks a file whose name tells its format.
///
/// # Errors
///
/// Every problem of the file; one when it cannot be read.
pub fn load(path: &Path) -> Result<Checked, Diagnostics> {
    load_as(path, &Format::of(path))
}

/// Reads and checks a file in a given format.
///
/// # Errors
///
/// Every problem of the file; one when it cannot be read.
pub fn load_as(path: &Path, format: &Format) -> Result<Checked, Diagnostics> {
    let bytes = read(path).map_err(|message| whole_file(path, message))?;
    parse_as(bytes, path, format, None)
}

/// The same for an appliance that runs, sparing what is known from an earlier state of the file. A pipe is refused:
/// the appliance would wait for whoever writes it.
///
/// # Errors
///
/// As [`load_as`].
pub fn load_after(
    path: &Path,
    format: &Format,
    known: Option<&Known>,
) -> Result<Checked, Diagnostics> {
    let bytes = regular(path).and_then(|()| read(path));
    let bytes = bytes.map_err(|message| whole_file(path, message))?;
    parse_as(bytes, path, format, known)
}

fn parse_as(
    bytes: Vec<u8>,
    path: &Path,
    format: &Format,
    known: Option<&Known>,
) -> Result<Checked, Diagnostics> {
    match format {
        Format::Keepalived { config_id } => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            keepalived::parse(text, path, config_id.as_deref(), Mode::Use)
        }
        Format::Toml => {
            let text = utf8(bytes).map_err(|(position, message)| about(path, position, message))?;
            parse_after(&text, path, known)
        }
    }
}

/// Reads and checks a keepalived.conf, leaving out what this version does not
/// support: each is among the warnings, as [`Severity::Unmapped`].
///
/// # Errors
///
/// Every problem of the file; one when it cannot be read.
pub fn import_keepalived(path: &Path, config_id: Option<&str>) -> Result<Checked, Diagnostics> {
    import_keepalived_text(read_text(path)?, path, config_id)
}

/// The same for a file whose text was read already.
pub(crate) fn import_keepalived_text(
    text: String,
    path: &Path,
    config_id: Option<&str>,
) -> Result<Checked, Diagnostics> {
    keepalived::parse(text, path, config_id, Mode::Import)
}

/// The text of a file that need not be UTF-8 throughout.
pub(crate) fn read_text(path: &Path) -> Result<String, Diagnostics> {
    let bytes = read(path).map_err(|message| whole_file(path, message))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Checks a configuration in keepalived's syntax that includes nothing.
/// `path` only names it in diagnostics.
///
/// # Errors
///
/// Every problem of the text.
pub fn parse_keepalived(text: &str, path: &Path) -> Result<Checked, Diagnostics> {
    keepalived::parse_alone(text, path)
}

fn whole_file(path: &Path, message: String) -> Diagnostics {
    about(path, None, message)
}

fn about(path: &Path, position: Option<Position>, message: String) -> Diagnostics {
    Diagnostics::new(vec![Diagnostic {
        severity: Severity::Error,
        file: path.to_owned(),
        position,
        place: String::new(),
        message,
    }])
}

/// The text, or where it is none.
fn utf8(bytes: Vec<u8>) -> Result<String, (Option<Position>, String)> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[at];
        let before = String::from_utf8_lossy(&error.as_bytes()[..at]);
        let position = Lines::new(&before).position(at);
        let message =
            format!("found the byte {byte:#04x}, expected UTF-8 text: save the file as UTF-8");
        (Some(position), message)
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            return Err("found a directory, expected a file: name a file in it".into());
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err("found no such file, expected a configuration: check the path".into());
        }
        Err(error) => return Err(format!("cannot read the file ({error})")),
    }
    read_bounded(path).map_err(|error| format!("cannot read the file ({error})"))
}

/// Refuses what is there and no regular file, whose reading may never end.
fn regular(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => {
            Err("found a pipe or a device, expected a regular file".into())
        }
        _ => Ok(()),
    }
}

/// All of a file that is no longer than a configuration may be.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        let message = format!("it is longer than {} MiB", MOST_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &Path) -> String {
        load_after(path, &Format::Toml, None)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_running_appliance_waits_for_no_pipe() {
        let said = message(Path::new("/dev/zero"));
        assert!(said.contains("expected a regular file"), "{said}");
    }

    #[test]
    fn no_file_is_read_that_is_far_too_long() {
        let path = std::env::temp_dir().join(format!("appliance-long-{}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        file.set_len(MOST_BYTES + 1).unwrap();
        let said = message(&path);
        fs::remove_file(&path).unwrap();
        assert!(said.contains("it is longer than 64 MiB"), "{said}");
    }
}
