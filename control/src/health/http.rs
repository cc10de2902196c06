//! `HTTP_GET`: every url answers with an accepted status.
//!
//! The request is keepalived's: HTTP/1.0, `User-Agent: KeepAliveClient` (which
//! real servers' log filters know), `Host:` from `virtualhost` or else the
//! target with its port, one connection per url. Redirects are not followed: a
//! 301 is a status like another. A body is read to its end but no further than
//! 1 MiB, and only its arrival is judged; a body shorter than its
//! Content-Length passes, as with keepalived.

use std::error::Error as _;
use std::io;
use std::pin::pin;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::Outcome;
use super::tcp::connect;
use crate::config::{Check, CheckUrl};
use crate::in_words::in_words;

/// Bytes of a body after which the rest is not waited for.
const LARGEST_BODY: usize = 1 << 20;

/// Bytes of an answer's header; a longer one fails the check.
const LARGEST_HEADER: usize = 16 << 10;

/// Runs an `HTTP_GET` once: the urls in order, up to the first that fails.
pub async fn check(check: &Check, urls: &[CheckUrl], virtualhost: Option<&str>) -> Outcome {
    let mut passed = format!("HTTP_GET {}: no url to check", check.target);
    for url in urls {
        match check_url(check, url, virtualhost).await {
            Outcome::Passed(reason) => passed = reason,
            other @ (Outcome::Failed(_) | Outcome::Inconclusive(_)) => return other,
        }
    }
    Outcome::Passed(passed)
}

async fn check_url(check: &Check, url: &CheckUrl, virtualhost: Option<&str>) -> Outcome {
    let what = format!("HTTP_GET {} {}", check.target, url.path);
    let host = url.virtualhost.as_deref().or(virtualhost);
    let request = match request(check, url, host) {
        Ok(request) => request,
        Err(error) => {
            return Outcome::Inconclusive(format!("{what}: cannot be asked for: {error}"));
        }
    };
    let stream = match connect(check).await {
        Ok(stream) => stream,
        Err(error) => return error.into_outcome(&what),
    };
    let exchange = exchange(TokioIo::new(stream), request);
    match timeout(check.connect_timeout, exchange).await {
        Ok(Ok(status)) if accepted(url, status) => {
            Outcome::Passed(format!("{what}: status {}", status.as_u16()))
        }
        Ok(Ok(status)) => Outcome::Failed(format!(
            "{what}: status {}, expected {}",
            status.as_u16(),
            expected(url)
        )),
        Ok(Err(error)) => Outcome::Failed(format!("{what}: {}", explain(&error))),
        Err(_elapsed) => Outcome::Failed(format!(
            "{what}: no complete answer: timed out after {:?}",
            check.connect_timeout
        )),
    }
}

fn request(
    check: &Check,
    url: &CheckUrl,
    virtualhost: Option<&str>,
) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let uri = hyper::Uri::builder()
        .path_and_query(url.path.as_str())
        .build()?;
    let request = Request::get(uri)
        .version(Version::HTTP_10)
        .header(USER_AGENT, "KeepAliveClient");
    match virtualhost {
        Some(name) => request.header(HOST, name),
        None => request.header(HOST, check.target.to_string()),
    }
    .body(Empty::new())
}

/// Sends the request and reads the whole answer. The connection is driven here,
/// not by a task of its own, so that a cancelled check leaves nothing behind.
async fn exchange(
    stream: TokioIo<tokio::net::TcpStream>,
    request: Request<Empty<Bytes>>,
) -> hyper::Result<StatusCode> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LARGEST_HEADER)
        .title_case_headers(true)
        .handshake(stream)
        .await?;
    let mut connection = pin!(connection);
    let mut answer = pin!(async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        drain(response).await?;
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

async fn drain(response: Response<Incoming>) -> hyper::Result<()> {
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => length += frame.data_ref().map_or(0, Bytes::len),
            Err(error) if ended_early(&error) => break,
            Err(error) => return Err(error),
        }
        if length >= LARGEST_BODY {
            break;
        }
    }
    Ok(())
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
