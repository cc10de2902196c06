//! `TCP_CHECK`: the real server accepts a TCP connection.

use std::time::Duration;

use socket2::Type;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Outcome;
use super::source::{self, ConnectError};
use crate::config::Check;

/// Who speaks first on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// The check: what it says completes the handshake, one packet less for every try.
    Client,
    /// The server, if anybody.
    Server,
}

/// Runs a `TCP_CHECK` once.
pub async fn check(check: &Check) -> Outcome {
    let what = || format!("TCP_CHECK {}", check.target);
    match connect(check, First::Server).await {
        Ok(_closed_by_drop) => Outcome::Passed(format!("{}: connected", what())),
        Err(error) => error.into_outcome(&what()),
    }
}

/// Connects to the check's target from its source within `connect_timeout`.
///
/// The socket is set to close by a reset (`SO_LINGER` 0): a director that
/// closes thousands of checks a second in good order keeps every one of them in
/// TIME_WAIT for a minute, and takes as many local ports.
pub(super) async fn connect(check: &Check, first: First) -> Result<TcpStream, ConnectError> {
    let socket = source::socket(check, Type::STREAM, None)?;
    socket
        .set_linger(Some(Duration::ZERO))
        .map_err(ConnectError::local("SO_LINGER"))?;
    if first == First::Client {
        socket
            .set_tcp_quickack(false)
            .map_err(ConnectError::local("TCP_QUICKACK"))?;
    }
    let socket = TcpSocket::from_std_stream(socket.into());
    match timeout(check.connect_timeout, socket.connect(check.target)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(ConnectError::of(error)),
        Err(_elapsed) => Err(ConnectError::TimedOut(check.connect_timeout)),
    }
}
