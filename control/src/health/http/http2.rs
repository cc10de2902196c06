//! One url over HTTP/2 (RFC 9113): within TLS agreed on by ALPN, else with prior knowledge.

use std::pin::pin;

use futures_util::FutureExt as _;
use h2::client::{SendRequest, handshake};
use hyper::Request;
use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::Sink as _;
use super::{Judge, Trouble};

/// What is asked for ALPN, and has to be agreed on.
pub(super) const ALPN: &[u8] = b"h2";

/// Asks for a path of a host, by `http` or `https`.
///
/// # Errors
/// They make no URI.
pub(super) fn request(
    scheme: &str,
    host: &str,
    path: &str,
) -> Result<Request<()>, hyper::http::Error> {
    Request::get(format!("{scheme}://{host}{path}"))
        .header("user-agent", super::USER_AGENT)
        .body(())
}

/// Sends the request and reads the whole answer, or as much of it as is wanted.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<()>,
    judge: &mut Judge<'_>,
) -> Result<u16, Trouble> {
    let (sender, connection) = handshake(stream).await.map_err(Trouble::Http2)?;
    let mut connection = pin!(connection);
    let mut answer = pin!(read(sender, request, judge));
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match answer.now_or_never() {
            // What came before the end.
            Some(answer) => answer,
            None => Err(ended.map_or_else(Trouble::Http2, |()| Trouble::Closed)),
        },
    }
}

async fn read(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    judge: &mut Judge<'_>,
) -> Result<u16, Trouble> {
    let mut sender = sender.ready().await.map_err(Trouble::Http2)?;
    let (answer, _) = sender.send_request(request, true).map_err(Trouble::Http2)?;
    let answer = answer.await.map_err(Trouble::Http2)?;
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(Trouble::Http2)?;
        judge.take(&piece);
        if judge.has_enough() {
            break;
        }
        let window = body.flow_control();
        window
            .release_capacity(piece.len())
            .map_err(Trouble::Http2)?;
    }
    Ok(status)
}
