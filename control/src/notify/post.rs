//! Mails on their way: one after the other, in the background.
//!
//! Invariant: nobody waits for a mail server. [`MOST_WAITING`] mails wait for
//! their turn; more are dropped, and that is said.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Message;
use super::letter::letter;
use crate::config::Mail;
use crate::in_words::in_words;
use crate::smtp::{Dialogue, Trouble};

/// Mails that wait for their turn.
const MOST_WAITING: usize = 256;

/// What is waiting at the end may take this long together.
const PATIENCE_AT_END: Duration = Duration::from_secs(5);

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
enum NotSent {
    #[error("cannot connect: {}", in_words(.0))]
    Connect(std::io::Error),
    #[error("cannot connect: timed out")]
    TimedOut,
    #[error(transparent)]
    Dialogue(#[from] Trouble),
}

/// A mail and where it goes.
#[derive(Debug)]
struct Posted {
    message: Message,
    router_id: Arc<str>,
    mail: Arc<Mail>,
    at: SystemTime,
}

/// Takes mails and has them sent.
#[derive(Debug, Default)]
pub(crate) struct Post {
    address: Option<(Arc<Mail>, Arc<str>)>,
    /// There once the first mail is; without it all mails are delivered.
    carrier: Option<Carrier>,
    is_full: bool,
}

#[derive(Debug)]
struct Carrier {
    queue: mpsc::Sender<Posted>,
    task: JoinSet<()>,
}

impl Carrier {
    fn start() -> Self {
        let (queue, mut waiting) = mpsc::channel::<Posted>(MOST_WAITING);
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Some(posted) = waiting.recv().await {
                deliver(&posted).await;
            }
        });
        Self { queue, task }
    }
}

impl Post {
    /// From now on mails go there; `router_id` is in their subjects, without
    /// one the name of this host.
    pub(crate) fn take_up(&mut self, mail: Option<&Mail>, router_id: Option<&str>) {
        self.address = mail.map(|mail| {
            let router_id = router_id.map_or_else(host_name, str::to_owned);
            (Arc::new(mail.clone()), router_id.into())
        });
    }

    /// Has a mail sent, if any are to be. Within a runtime.
    pub(crate) fn send(&mut self, message: Message) {
        let Some((mail, router_id)) = &self.address else {
            return;
        };
        let posted = Posted {
            message,
            router_id: Arc::clone(router_id),
            mail: Arc::clone(mail),
            at: SystemTime::now(),
        };
        let carrier = self.carrier.get_or_insert_with(Carrier::start);
        match carrier.queue.try_send(posted) {
            Ok(()) => self.is_full = false,
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) if self.is_full => {}
            Err(TrySendError::Full(posted) | TrySendError::Closed(posted)) => {
                self.is_full = true;
                warn!(
                    "{MOST_WAITING} mails wait for {}: more are dropped",
                    posted.mail.server
                );
            }
        }
    }

    /// Sends what is still waiting, within limits.
    pub(crate) async fn finish(&mut self) {
        let Some(Carrier { queue, mut task }) = self.carrier.take() else {
            return;
        };
        drop(queue);
        let all = async { while task.join_next().await.is_some() {} };
        if timeout(PATIENCE_AT_END, all).await.is_err() {
            warn!("mails still wait after {PATIENCE_AT_END:?}: they are dropped");
        }
    }
}

async fn deliver(posted: &Posted) {
    let subject = &posted.message.subject;
    let server = &posted.mail.server;
    match session(posted).await {
        Ok(refused) => {
            for (address, why) in refused {
                warn!("mail {subject:?} by {server}: {address} is refused: {why}");
            }
            info!("mail {subject:?} was taken by {server}");
        }
        Err(why) => warn!("mail {subject:?} is lost: {server}: {why}"),
    }
}

/// Hands a mail to its server; these recipients the server does not take.
async fn session(posted: &Posted) -> Result<Vec<(&str, Trouble)>, NotSent> {
    let mail = &posted.mail;
    let to = (mail.server.host.as_str(), mail.server.port);
    let connected = timeout(mail.connect_timeout, TcpStream::connect(to)).await;
    let stream = connected.map_err(|_elapsed| NotSent::TimedOut)?;
    let mut server = Dialogue::new(stream.map_err(NotSent::Connect)?, mail.connect_timeout);
    server.expect("", "greeting", "220").await?;
    let helo = mail.helo_name.clone().unwrap_or_else(host_name);
    let helo = format!("HELO {helo}\r\n");
    server.expect(&helo, "HELO", "250").await?;
    let from = mail.from.clone();
    let from = from.unwrap_or_else(|| format!("keepalived@{}", host_name()));
    let command = format!("MAIL FROM:<{from}>\r\n");
    server.expect(&command, "MAIL FROM", "250").await?;
    let mut refused = Vec::new();
    for address in &mail.to {
        let command = format!("RCPT TO:<{address}>\r\n");
        // 251: it forwards the mail (RFC 5321 §4.2.3), 252: it tries to.
        match server.expect(&command, "RCPT TO", "25x").await {
            Ok(()) => {}
            Err(why @ Trouble::Code(..)) => refused.push((address.as_str(), why)),
            Err(why) => return Err(why.into()),
        }
    }
    if refused.len() == mail.to.len()
        && let Some((_, why)) = refused.pop()
    {
        return Err(why.into());
    }
    server.expect("DATA\r\n", "DATA", "354").await?;
    let letter = letter(
        &posted.message,
        &posted.router_id,
        &from,
        &mail.to,
        posted.at,
    );
    server.expect(&letter, "the mail", "250").await?;
    // The mail is theirs, however the rest goes.
    let _ = server.expect("QUIT\r\n", "QUIT", "221").await;
    Ok(refused)
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.chars().filter(char::is_ascii_graphic).collect();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests;
