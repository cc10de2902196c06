//! Writing to stdout.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;

use super::Failure;

/// Writes a command's result to stdout. A reader that went away, as in
/// `appliance check --print … | head`, has what it wanted: that is a success.
///
/// # Errors
///
/// Exit status 1 when stdout cannot be written, such as on a full disk.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("cannot write to stdout")?),
    }
}
