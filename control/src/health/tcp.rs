//! `TCP_CHECK`: the real server accepts a TCP connection.

use std::time::Duration;

use socket2::Type;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Outcome;
use super::source::{self, ConnectError};
use crate::config::Check;

/// Runs a `TCP_CHECK` once.
pub async fn check(check: &Check) -> Outcome {
    let what = format!("TCP_CHECK {}", check.target);
    match connect(check).await {
        Ok(_closed_by_drop) => Outcome::Passed(format!("{what}: connected")),
        Err(error) => error.into_outcome(&what),
    }
}

/// Connects to the check's target from its source within `connect_timeout`.
///
/// The socket is set to close by a reset (`SO_LINGER` 0): a director that
/// closes thousands of checks a second in good order keeps every one of them in
/// TIME_WAIT for a minute, and takes as many local ports.
pub(super) async fn connect(check: &Check) -> Result<TcpStream, ConnectError> {
    let socket = source::socket(check, Type::STREAM, None)?;
    socket
        .set_linger(Some(Duration::ZERO))
        .map_err(ConnectError::local("SO_LINGER"))?;
    let socket = TcpSocket::from_std_stream(socket.into());
    match timeout(check.connect_timeout, socket.connect(check.target)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(ConnectError::of(error)),
        Err(_elapsed) => Err(ConnectError::TimedOut(check.connect_timeout)),
    }
}
