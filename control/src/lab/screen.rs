//! What the user sees: lines that stay, and on a terminal a block below them
//! that changes. Elsewhere (a pipe, a file) there are no escape codes and the
//! block is not shown.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;

/// Standard output.
#[derive(Debug)]
pub struct Screen {
    is_terminal: bool,
    /// Lines of the block below the cursor's home.
    drawn: usize,
}

impl Screen {
    #[must_use]
    pub fn new() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
            drawn: 0,
        }
    }

    /// Shows `lines` in place of the block.
    ///
    /// # Errors
    ///
    /// Standard output is closed.
    pub fn draw(&mut self, lines: &[String]) -> anyhow::Result<()> {
        if !self.is_terminal {
            return Ok(());
        }
        let above = self.drawn;
        self.drawn = lines.len();
        write(above, lines)
    }

    /// Shows `line` for good; the block is gone.
    ///
    /// # Errors
    ///
    /// Standard output is closed.
    pub fn say(&mut self, line: &str) -> anyhow::Result<()> {
        let above = std::mem::take(&mut self.drawn);
        write(above, &[line])
    }
}

/// Writes lines in place of the `above` last ones.
fn write(above: usize, lines: &[impl AsRef<str>]) -> anyhow::Result<()> {
    let mut text = String::new();
    if above > 0 {
        // Up to where the block began, and clear from there.
        text += &format!("\x1b[{above}A\x1b[J");
    }
    for line in lines {
        text += line.as_ref();
        text.push('\n');
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}
