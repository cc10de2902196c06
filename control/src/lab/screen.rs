//! What the user sees: lines that stay, and on a terminal a block below them
//! that changes. Elsewhere (a pipe, a file) there are no escape codes and the
//! block is not shown.

use std::io::{self, IsTerminal, Write};

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
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        if !self.is_terminal {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        self.clear(&mut out)?;
        for line in lines {
            writeln!(out, "{line}")?;
        }
        self.drawn = lines.len();
        out.flush()
    }

    /// Shows `line` for good; the block is gone.
    ///
    /// # Errors
    ///
    /// Standard output is closed.
    pub fn say(&mut self, line: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        self.clear(&mut out)?;
        writeln!(out, "{line}")?;
        out.flush()
    }

    /// Back to where the block began, and clear from there.
    fn clear(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.drawn > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.drawn)?;
            self.drawn = 0;
        }
        Ok(())
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}
