//! `HTTP_GET` and `SSL_GET`: every url answers with an accepted status and body.
//!
//! The request is keepalived's: HTTP/1.0 unless `http_protocol` says otherwise,
//! `User-Agent: KeepAliveClient` (which real servers' log filters know), `Host:`
//! from `virtualhost` or else the target with its port, one connection per url.
//! Redirects are not followed: a 301 is a status like another. A body is read
//! to its end but no further than 1 MiB, which is also as far as a regex looks;
//! only for a digest it is read to its end. A body shorter than its
//! Content-Length passes, as with keepalived.

use std::error::Error as _;
use std::io;
use std::pin::pin;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use md5::{Digest as _, Md5};
use regex::bytes::Regex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::tcp::connect;
use super::tls::{self, TlsError};
use super::{Outcome, source::ConnectError};
use crate::config::{BodyRegex, Check, CheckUrl, HttpGet, HttpProtocol};
use crate::in_words::in_words;

/// Bytes of a body after which the rest is not waited for.
const LARGEST_BODY: usize = 1 << 20;

/// Bytes of an answer's header; a longer one fails the check.
const LARGEST_HEADER: usize = 16 << 10;

/// What an `HTTP_GET` needs beside its parameters, made once.
#[derive(Debug)]
pub struct Prepared {
    /// As many as there are urls.
    regexes: Vec<Option<Regex>>,
}

impl Prepared {
    /// # Errors
    /// A regex that is wrong; the configuration's are not.
    pub fn new(get: &HttpGet) -> Result<Self, regex::Error> {
        let compiled = |url: &CheckUrl| url.regex.as_ref().map(BodyRegex::compile).transpose();
        let regexes = get.urls.iter().map(compiled).collect::<Result<_, _>>()?;
        Ok(Self { regexes })
    }
}

/// Runs an `HTTP_GET` once: the urls in order, up to the first that fails.
pub async fn check(check: &Check, get: &HttpGet, prepared: &Prepared) -> Outcome {
    let name = check.kind.name();
    let mut passed = format!("{name} {}: no url to check", check.target);
    for (url, regex) in get.urls.iter().zip(&prepared.regexes) {
        let what = format!("{name} {} {}", check.target, url.path);
        match check_url(check, get, url, regex.as_ref()).await {
            Ok(status) => passed = format!("{what}: status {}", status.as_u16()),
            Err(Trouble::Connect(error)) => return error.into_outcome(&what),
            Err(trouble @ Trouble::Request(_)) => {
                return Outcome::Inconclusive(format!("{what}: {trouble}"));
            }
            Err(trouble) => return Outcome::Failed(format!("{what}: {trouble}")),
        }
    }
    Outcome::Passed(passed)
}

/// Why a url is not as it should be.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("cannot be asked for: {0}")]
    Request(hyper::http::Error),
    #[error("{0}")]
    Connect(ConnectError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("TLS: timed out after {0:?}")]
    TlsTimedOut(std::time::Duration),
    #[error("{}", explain(.0))]
    Http(hyper::Error),
    #[error("no complete answer: timed out after {0:?}")]
    TimedOut(std::time::Duration),
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
    url: &CheckUrl,
    regex: Option<&Regex>,
) -> Result<StatusCode, Trouble> {
    let patience = check.connect_timeout;
    let host = url.virtualhost.as_deref().or(get.virtualhost.as_deref());
    let request = request(check, get.protocol, url, host).map_err(Trouble::Request)?;
    let stream = connect(check).await.map_err(Trouble::Connect)?;
    let mut judge = Judge {
        url,
        regex,
        digest: url.digest.map(|_| Md5::new()),
        text: Vec::new(),
    };
    let answer = match get.tls {
        None => timeout(patience, exchange(stream, request, &mut judge)).await,
        Some(tls) => {
            let name = host.filter(|_| tls.enable_sni);
            let stream = timeout(patience, tls::handshake(stream, check.target.ip(), name)).await;
            let stream = stream.map_err(|_elapsed| Trouble::TlsTimedOut(patience))??;
            timeout(patience, exchange(stream, request, &mut judge)).await
        }
    };
    match answer {
        Ok(Ok(status)) => judge.verdict(status),
        Ok(Err(error)) => Err(Trouble::Http(error)),
        Err(_elapsed) => Err(Trouble::TimedOut(patience)),
    }
}

fn request(
    check: &Check,
    protocol: HttpProtocol,
    url: &CheckUrl,
    virtualhost: Option<&str>,
) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let uri = hyper::Uri::builder()
        .path_and_query(url.path.as_str())
        .build()?;
    let (version, close) = match protocol {
        HttpProtocol::Http10 => (Version::HTTP_10, false),
        HttpProtocol::Http10Close => (Version::HTTP_10, true),
        HttpProtocol::Http11 => (Version::HTTP_11, true),
    };
    let mut request = Request::get(uri)
        .version(version)
        .header(USER_AGENT, "KeepAliveClient");
    if close {
        request = request.header(CONNECTION, "close");
    }
    match virtualhost {
        Some(name) => request.header(HOST, name),
        None => request.header(HOST, check.target.to_string()),
    }
    .body(Empty::new())
}

/// Sends the request and reads the whole answer. The connection is driven here,
/// not by a task of its own, so that a cancelled check leaves nothing behind.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
    judge: &mut Judge<'_>,
) -> hyper::Result<StatusCode> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LARGEST_HEADER)
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut connection = pin!(connection);
    let mut answer = pin!(async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        judge.read(response).await?;
        Ok(status)
    });
    let mut connected = true;
    loop {
        tokio::select! {
            result = &mut answer => return result,
            // Its error reaches `answer` too, with more context.
            _ = &mut connection, if connected => connected = false,
        }
    }
}

/// Reads a body and says whether the answer is right.
struct Judge<'u> {
    url: &'u CheckUrl,
    regex: Option<&'u Regex>,
    digest: Option<Md5>,
    text: Vec<u8>,
}

impl Judge<'_> {
    async fn read(&mut self, response: Response<Incoming>) -> hyper::Result<()> {
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => {
                    let bytes = frame.data_ref().map_or(&[][..], |bytes| bytes);
                    length += bytes.len();
                    self.take(bytes);
                }
                Err(error) if ended_early(&error) => break,
                Err(error) => return Err(error),
            }
            if length >= LARGEST_BODY && self.digest.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        if self.regex.is_some() {
            let room = LARGEST_BODY.saturating_sub(self.text.len());
            self.text.extend(bytes.iter().take(room));
        }
    }

    fn verdict(self, status: StatusCode) -> Result<StatusCode, Trouble> {
        if !accepted(self.url, status) {
            return Err(Trouble::Status(status.as_u16(), expected(self.url)));
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

fn accepted(url: &CheckUrl, status: StatusCode) -> bool {
    let status = status.as_u16();
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

fn io_source(error: &hyper::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

fn ended_early(error: &hyper::Error) -> bool {
    error.is_incomplete_message()
        || io_source(error).is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof)
}

fn explain(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        format!("the answer's header is longer than {LARGEST_HEADER} bytes or has too many fields")
    } else if error.is_parse() {
        "the answer is not HTTP".into()
    } else if ended_early(error) {
        "connection closed before the answer".into()
    } else if let Some(error) = io_source(error) {
        in_words(error)
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests;
