//! `SMTP_CHECK`: a mail server greets, takes a HELO and a QUIT (RFC 5321).

use super::tcp::{First, Stream, connect};
use super::vip::Through;
use super::{Finding, Outcome, what};
use crate::config::Check;
use crate::smtp::{Dialogue, Trouble};

/// keepalived's.
const DEFAULT_HELO_NAME: &str = "smtpchecker.keepalived.org";

/// Runs an `SMTP_CHECK` once. Every answer has `connect_timeout`.
pub(super) async fn check(
    check: &Check,
    helo_name: Option<&str>,
    through: Option<&Through>,
) -> Outcome {
    let what = what(check);
    let stream = match connect(check, First::Server, through).await {
        Ok(stream) => stream,
        Err(error) => return error.into_outcome(&what),
    };
    match session(check, stream, helo_name.unwrap_or(DEFAULT_HELO_NAME)).await {
        Ok(()) => Outcome::Passed(Finding::Said(format!("{what}: ready"))),
        Err(trouble) => Outcome::Failed(format!("{what}: {trouble}")),
    }
}

async fn session(check: &Check, stream: Stream, helo_name: &str) -> Result<(), Trouble> {
    let mut server = Dialogue::new(stream, check.connect_timeout);
    server.expect("", "greeting", "220").await?;
    let helo = format!("HELO {helo_name}\r\n");
    server.expect(&helo, "HELO", "250").await?;
    // As keepalived: what it says at the end is of no interest.
    server.expect("QUIT\r\n", "QUIT", "").await
}
