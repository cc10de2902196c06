//! Reading a configuration file from disk.

use std::fs;
use std::path::Path;

use super::check::{Checked, parse};
use super::diagnostic::{Diagnostic, Diagnostics, Severity};

/// The syntax of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Toml,
    /// keepalived.conf(5): recognised and refused by this version.
    Keepalived,
}

impl Format {
    /// The format that a file's name tells: `*.toml` is TOML, every other name
    /// is keepalived's.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("toml") => Self::Toml,
            Some(_) | None => Self::Keepalived,
        }
    }
}

/// Reads and checks a file whose name tells its format.
///
/// # Errors
///
/// Every problem of the file; one when it cannot be read.
pub fn load(path: &Path) -> Result<Checked, Diagnostics> {
    load_as(path, Format::of(path))
}

/// Reads and checks a file in a given format.
///
/// # Errors
///
/// Every problem of the file; one when it cannot be read.
pub fn load_as(path: &Path, format: Format) -> Result<Checked, Diagnostics> {
    let whole_file = |message: String| {
        Diagnostics::new(vec![Diagnostic {
            severity: Severity::Error,
            file: path.to_owned(),
            position: None,
            place: String::new(),
            message,
        }])
    };
    let bytes = read(path).map_err(whole_file)?;
    match format {
        Format::Toml => {}
        Format::Keepalived => {
            return Err(whole_file(
                "found a file in keepalived.conf syntax (by its name or --format), this version \
                 reads TOML only: rewrite it, or say --format toml if it is TOML"
                    .into(),
            ));
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => parse(&text, path),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..at]
                .iter()
                .filter(|b| **b == b'\n')
                .count();
            let byte = error.as_bytes()[at];
            Err(whole_file(format!(
                "found the byte {byte:#04x} on line {line}, expected UTF-8 text: save the file as UTF-8"
            )))
        }
    }
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
    fs::read(path).map_err(|error| format!("cannot read the file ({error})"))
}
