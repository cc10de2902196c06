//! A client's dialogue with a mail server (RFC 5321): commands and answers.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::in_words::in_words;

/// Bytes of one answer; a longer one is a failure.
const LONGEST_ANSWER: usize = 8192;

/// Why a dialogue went wrong, and at which step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{0}: timed out")]
    TimedOut(&'static str),
    #[error("{step}: {}", in_words(.error))]
    Io {
        step: &'static str,
        error: io::Error,
    },
    #[error("{0}: connection closed")]
    Closed(&'static str),
    #[error("{0}: not an SMTP answer")]
    NotSmtp(&'static str),
    #[error("{0}: answered {1:?}, expected {2}")]
    Code(&'static str, String, &'static str),
}

/// A connection to a mail server.
#[derive(Debug)]
pub(crate) struct Dialogue<S> {
    stream: S,
    /// For every command with its answer.
    patience: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Dialogue<S> {
    pub(crate) const fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience }
    }

    /// Sends a command, if there is one, and reads an answer with this code: `25x` is any that begins
    /// with 25, and an empty one any answer at all.
    ///
    /// # Errors
    /// Any other answer, none in time, or no connection any more.
    pub(crate) async fn expect(
        &mut self,
        command: &str,
        step: &'static str,
        code: &'static str,
    ) -> Result<(), Trouble> {
        let exchange = exchange(&mut self.stream, command, step, code);
        let done = timeout(self.patience, exchange).await;
        done.unwrap_or(Err(Trouble::TimedOut(step)))
    }
}

async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    command: &str,
    step: &'static str,
    code: &'static str,
) -> Result<(), Trouble> {
    let failed = |error| Trouble::Io { step, error };
    stream.write_all(command.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::with_capacity(256);
    while !is_complete(&answer) {
        if answer.len() > LONGEST_ANSWER {
            return Err(Trouble::NotSmtp(step));
        }
        if stream.read_buf(&mut answer).await.map_err(failed)? == 0 {
            return Err(Trouble::Closed(step));
        }
    }
    if answer.starts_with(code.trim_end_matches('x').as_bytes()) {
        return Ok(());
    }
    if !answer.iter().take(3).all(u8::is_ascii_digit) {
        return Err(Trouble::NotSmtp(step));
    }
    let answer = String::from_utf8_lossy(&answer);
    let line: String = answer
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(80)
        .collect();
    Err(Trouble::Code(step, line, code))
}

/// Whether the last line is there, `250 …` after any number of `250-…`
/// (RFC 5321 §4.2.1); a line in no such form ends an answer too.
fn is_complete(answer: &[u8]) -> bool {
    let Some(lines) = answer.strip_suffix(b"\n") else {
        return false;
    };
    let last = lines.rsplit(|&byte| byte == b'\n').next();
    last.is_some_and(|line| line.get(3) != Some(&b'-'))
}
