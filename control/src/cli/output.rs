//! Writing to stdout.

use std::io::{self, BufWriter, ErrorKind, Write};

use anyhow::Context;

use super::Failure;

/// Writes a command's result to stdout. A reader that went away, as in
/// `appliance check --print … | head`, has what it wanted: that is a success.
///
/// # Errors
///
/// Exit status 1 when stdout cannot be written, such as on a full disk.
pub fn print(text: &str) -> Result<(), Failure> {
    print_with(|stdout| Ok(stdout.write_all(text.as_bytes())?))
}

/// [`print()`] for what is too long to be a string: `write` gets stdout,
/// buffered.
///
/// # Errors
///
/// Exit status 1 when stdout cannot be written, and when `write` fails.
pub fn print_with(write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> Result<(), Failure> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    let written = write(&mut stdout);
    // What was written is shown even when the rest failed.
    let flushed = stdout.flush().map_err(anyhow::Error::from);
    match written.and(flushed) {
        Err(error) => match error.downcast_ref::<io::Error>() {
            Some(broken) if broken.kind() == ErrorKind::BrokenPipe => Ok(()),
            Some(_) => Err(error).context("cannot write to stdout")?,
            None => Err(error)?,
        },
        Ok(()) => Ok(()),
    }
}
