//! `HTTP_GET` and `SSL_GET`: every url answers with an accepted status and body.
//!
//! The request is keepalived's: HTTP/1.0 unless `http_protocol` says otherwise (HTTP/2: the `http2` module),
//! `User-Agent: KeepAliveClient` (which real servers' log filters know), `Host:`
//! from `virtualhost` or else the target with its port, one connection per url.
//! Redirects are not followed: a 301 is a status like another. A body is read
//! to its end but no further than 1 MiB, which is also as far as a regex looks;
//! only for a digest it is read to its end. A body shorter than its
//! Content-Length passes, as with keepalived.

mod answer;
mod http2;

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use hyper::Request;
use md5::{Digest as _, Md5};
use regex::bytes::Regex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use self::answer::{Answer, Malformed, Sink};
use super::source::ConnectError;
use super::tcp::{self, First};
use super::tls::{self, TlsError};
use super::vip::Through;
use super::{Finding, Outcome};
use crate::config::{BodyRegex, Check, CheckUrl, HttpGet, HttpProtocol};
use crate::in_words::in_words;

/// As keepalived says it, which real servers' log filters know.
const USER_AGENT: &str = "KeepAliveClient";

/// Bytes of a body after which the rest is not waited for.
const LARGEST_BODY: usize = 1 << 20;

/// Bytes that are read at once.
const PIECE: usize = 16 << 10;

/// What an `HTTP_GET` needs beside its parameters, made once.
#[derive(Debug)]
pub struct Prepared {
    /// As many as there are urls.
    urls: Vec<PreparedUrl>,
}

#[derive(Debug)]
struct PreparedUrl {
    asked: Asked,
    regex: Option<Regex>,
}

/// A request.
#[derive(Debug)]
enum Asked {
    /// HTTP/1: all of it, with the empty line at its end.
    Text(String),
    Http2(Request<()>),
}

impl Prepared {
    /// # Errors
    /// A regex or a path that is wrong; the configuration's are not.
    pub fn new(check: &Check, get: &HttpGet) -> Result<Self, String> {
        let urls = get.urls.iter().map(|url| {
            let regex = url.regex.as_ref().map(BodyRegex::compile).transpose();
            Ok(PreparedUrl {
                asked: request(check, get, url)?,
                regex: regex.map_err(|error| error.to_string())?,
            })
        });
        Ok(Self {
            urls: urls.collect::<Result<_, String>>()?,
        })
    }
}

/// Runs an `HTTP_GET` once: the urls in order, up to the first that fails.
pub(super) async fn check(
    check: &Check,
    get: &HttpGet,
    prepared: &Prepared,
    through: Option<&Through>,
) -> Outcome {
    let name = check.kind.name();
    let mut last = None;
    for (url, prepared) in get.urls.iter().zip(&prepared.urls) {
        let what = || format!("{name} {} {}", check.target, url.path);
        match check_url(check, get, (url, prepared), through).await {
            Ok(status) => last = Some(status),
            Err(Trouble::Connect(error)) => return error.into_outcome(&what()),
            Err(trouble) => return Outcome::Failed(format!("{}: {trouble}", what())),
        }
    }
    Outcome::Passed(match last {
        Some(status) => Finding::Status(status),
        None => Finding::Said(format!("{name} {}: no url to check", check.target)),
    })
}

/// Why a url is not as it should be.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Connect(ConnectError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("TLS: timed out after {0:?}")]
    TlsTimedOut(Duration),
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("HTTP/2: {0}")]
    Http2(h2::Error),
    #[error("connection closed before the answer")]
    Closed,
    #[error("{}", in_words(.0))]
    Io(io::Error),
    #[error("no complete answer: timed out after {0:?}")]
    TimedOut(Duration),
    #[error("status {0}, expected {1}")]
    Status(u16, String),
    #[error("the body's digest is {0}, expected {1}")]
    Digest(String, String),
    #[error("the body does not match the regex {0:?}")]
    NoMatch(String),
    #[error("the body matches the regex {0:?}")]
    Match(String),
}

async fn check_url(
    check: &Check,
    get: &HttpGet,
    (url, prepared): (&CheckUrl, &PreparedUrl),
    through: Option<&Through>,
) -> Result<u16, Trouble> {
    let patience = check.connect_timeout;
    let stream = tcp::connect(check, First::Client, through).await;
    let stream = stream.map_err(Trouble::Connect)?;
    let mut judge = Judge {
        url,
        regex: prepared.regex.as_ref(),
        digest: url.digest.map(|_| Md5::new()),
        text: Vec::new(),
        length: 0,
    };
    let answer = match get.tls {
        None => timeout(patience, ask(stream, &prepared.asked, &mut judge)).await,
        Some(tls) => {
            let name = host(get, url).filter(|_| tls.enable_sni);
            let alpn = match prepared.asked {
                Asked::Text(_) => None,
                Asked::Http2(_) => Some(http2::ALPN),
            };
            let stream = tls::handshake(stream, check.target.ip(), name, alpn);
            let stream = timeout(patience, stream).await;
            let stream = stream.map_err(|_elapsed| Trouble::TlsTimedOut(patience))??;
            timeout(patience, ask(stream, &prepared.asked, &mut judge)).await
        }
    };
    judge.verdict(answer.map_err(|_elapsed| Trouble::TimedOut(patience))??)
}

fn host<'c>(get: &'c HttpGet, url: &'c CheckUrl) -> Option<&'c str> {
    url.virtualhost.as_deref().or(get.virtualhost.as_deref())
}

fn request(check: &Check, get: &HttpGet, url: &CheckUrl) -> Result<Asked, String> {
    let path = &url.path;
    let target = check.target.to_string();
    let host = host(get, url).unwrap_or(&target);
    if !path
        .bytes()
        .chain(host.bytes())
        .all(|byte| byte.is_ascii_graphic())
    {
        return Err(format!("{path:?} cannot be asked for of {host:?}"));
    }
    let (version, close) = match get.protocol {
        HttpProtocol::Http10 => ("1.0", ""),
        HttpProtocol::Http10Close => ("1.0", "Connection: close\r\n"),
        HttpProtocol::Http11 => ("1.1", "Connection: close\r\n"),
        HttpProtocol::Http2 => {
            let scheme = if get.tls.is_some() { "https" } else { "http" };
            let request = http2::request(scheme, host, path);
            return request.map(Asked::Http2).map_err(|why| {
                format!("{path:?} cannot be asked for of {host:?} with HTTP/2: {why}")
            });
        }
    };
    Ok(Asked::Text(format!(
        "GET {path} HTTP/{version}\r\nUser-Agent: {USER_AGENT}\r\n{close}Host: {host}\r\n\r\n"
    )))
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    asked: &Asked,
    judge: &mut Judge<'_>,
) -> Result<u16, Trouble> {
    match asked {
        Asked::Text(request) => exchange(stream, request.as_bytes(), judge).await,
        // On the heap: its state is far larger, and every check would have room for it.
        Asked::Http2(request) => Box::pin(http2::exchange(stream, request.clone(), judge)).await,
    }
}

/// Sends the request and reads the whole answer, or as much of it as is wanted.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
    judge: &mut Judge<'_>,
) -> Result<u16, Trouble> {
    stream.write_all(request).await.map_err(Trouble::Io)?;
    stream.flush().await.map_err(Trouble::Io)?;
    let mut answer = Answer::new();
    loop {
        let has_ended = match feed(&mut stream, &mut answer, judge).await {
            Ok(has_ended) => has_ended,
            // TLS without a goodbye.
            Err(Trouble::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => true,
            Err(trouble) => return Err(trouble),
        };
        match answer.status() {
            Some(status) if has_ended => return Ok(status),
            None if has_ended => return Err(Trouble::Closed),
            Some(_) | None => {}
        }
    }
}

/// Reads once. True when it was the last time.
///
/// The room for it is on the stack of one poll: in the future, all the checks that wait would have
/// their own.
async fn feed(
    stream: &mut (impl AsyncRead + Unpin),
    answer: &mut Answer,
    judge: &mut Judge<'_>,
) -> Result<bool, Trouble> {
    poll_fn(|context| {
        let mut room = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut piece)).map_err(Trouble::Io)?;
        let is_closed = piece.filled().is_empty();
        let is_whole = answer.feed(piece.filled(), judge)?;
        Poll::Ready(Ok(is_closed || is_whole || judge.has_enough()))
    })
    .await
}

/// Reads a body and says whether the answer is right.
struct Judge<'u> {
    url: &'u CheckUrl,
    regex: Option<&'u Regex>,
    digest: Option<Md5>,
    text: Vec<u8>,
    /// Bytes of the body so far.
    length: usize,
}

impl Sink for Judge<'_> {
    fn take(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        if self.regex.is_some() {
            let room = LARGEST_BODY.saturating_sub(self.text.len());
            self.text.extend(bytes.iter().take(room));
        }
    }
}

impl Judge<'_> {
    fn has_enough(&self) -> bool {
        self.length >= LARGEST_BODY && self.digest.is_none()
    }

    fn verdict(self, status: u16) -> Result<u16, Trouble> {
        if !accepted(self.url, status) {
            return Err(Trouble::Status(status, expected(self.url)));
        }
        if let (Some(digest), Some(wanted)) = (self.digest, self.url.digest) {
            let found: [u8; 16] = digest.finalize().into();
            if found != wanted {
                let [found, wanted] =
                    [found, wanted].map(|d| format!("{:032x}", u128::from_be_bytes(d)));
                return Err(Trouble::Digest(found, wanted));
            }
        }
        if let (Some(regex), Some(wanted)) = (self.regex, &self.url.regex) {
            let found = regex
                .find_at(&self.text, wanted.min_offset.min(self.text.len()))
                .is_some_and(|m| wanted.max_offset.is_none_or(|last| m.start() <= last));
            if found == wanted.no_match {
                let pattern = wanted.pattern.clone();
                return Err(if found {
                    Trouble::Match(pattern)
                } else {
                    Trouble::NoMatch(pattern)
                });
            }
        }
        Ok(status)
    }
}

fn accepted(url: &CheckUrl, status: u16) -> bool {
    url.status_code
        .iter()
        .any(|&(low, high)| (low..=high).contains(&status))
}

/// The accepted status codes as users write them: `200-299, 404`.
fn expected(url: &CheckUrl) -> String {
    let ranges: Vec<String> = url
        .status_code
        .iter()
        .map(|&(low, high)| {
            if low == high {
                low.to_string()
            } else {
                format!("{low}-{high}")
            }
        })
        .collect();
    ranges.join(", ")
}

#[cfg(test)]
mod tests;
