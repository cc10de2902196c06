//! `SMTP_CHECK`: a mail server greets, takes a HELO and a QUIT (RFC 5321).

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Outcome;
use super::tcp::connect;
use crate::config::Check;
use crate::in_words::in_words;

/// keepalived's.
const DEFAULT_HELO_NAME: &str = "smtpchecker.keepalived.org";

/// Bytes of one answer; a longer one is a failure.
const LONGEST_ANSWER: usize = 8192;

/// Why the session went wrong.
#[derive(Debug, thiserror::Error)]
enum Trouble {
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

/// Runs an `SMTP_CHECK` once. Every answer has `connect_timeout`.
pub async fn check(check: &Check, helo_name: Option<&str>) -> Outcome {
    let what = format!("SMTP_CHECK {}", check.target);
    let stream = match connect(check).await {
        Ok(stream) => stream,
        Err(error) => return error.into_outcome(&what),
    };
    match session(check, stream, helo_name.unwrap_or(DEFAULT_HELO_NAME)).await {
        Ok(()) => Outcome::Passed(format!("{what}: ready")),
        Err(trouble) => Outcome::Failed(format!("{what}: {trouble}")),
    }
}

async fn session(check: &Check, mut stream: TcpStream, helo_name: &str) -> Result<(), Trouble> {
    let mut expect = async |command: String, step: &'static str, code: &'static str| {
        let exchange = exchange(&mut stream, &command, step, code);
        let done = timeout(check.connect_timeout, exchange).await;
        done.unwrap_or(Err(Trouble::TimedOut(step)))
    };
    expect(String::new(), "greeting", "220").await?;
    expect(format!("HELO {helo_name}\r\n"), "HELO", "250").await?;
    expect("QUIT\r\n".into(), "QUIT", "221").await
}

/// Sends a command, if there is one, and reads an answer with this code.
async fn exchange(
    stream: &mut TcpStream,
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
    if answer.starts_with(code.as_bytes()) {
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
