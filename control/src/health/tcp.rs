//! `TCP_CHECK`: the real server accepts a TCP connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Outcome;
use crate::config::Check;
use crate::in_words::in_words;

/// Runs a `TCP_CHECK` once.
pub async fn check(check: &Check) -> Outcome {
    let what = format!("TCP_CHECK {}", check.target);
    match connect(check).await {
        Ok(_closed_by_drop) => Outcome::Passed(format!("{what}: connected")),
        Err(error) => error.into_outcome(&what),
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("connect: timed out after {0:?}")]
    TimedOut(Duration),
    #[error("connect: {}", in_words(.0))]
    Refused(#[source] io::Error),
    /// The director's own trouble: says nothing about the real server.
    #[error("{doing}: {}", in_words(.error))]
    Local {
        doing: String,
        #[source]
        error: io::Error,
    },
}

impl ConnectError {
    pub(super) fn into_outcome(self, what: &str) -> Outcome {
        let reason = format!("{what}: {self}");
        match self {
            Self::TimedOut(_) | Self::Refused(_) => Outcome::Failed(reason),
            Self::Local { .. } => Outcome::Inconclusive(reason),
        }
    }

    fn local(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Local { doing, error }
    }
}

/// Connects to the check's target from its `bindto` within `connect_timeout`.
///
/// The socket is set to close by a reset (`SO_LINGER` 0): a director that
/// closes thousands of checks a second in good order keeps every one of them in
/// TIME_WAIT for a minute, and takes as many local ports.
pub(super) async fn connect(check: &Check) -> Result<TcpStream, ConnectError> {
    let socket = match check.target {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
    .map_err(ConnectError::local("no socket for the check"))?;
    SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .map_err(ConnectError::local("SO_LINGER"))?;
    if let Some(source) = check.bindto {
        socket
            .bind(SocketAddr::new(source, 0))
            .map_err(ConnectError::local(format!("cannot bind to {source}")))?;
    }
    match timeout(check.connect_timeout, socket.connect(check.target)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if is_local(&error) => Err(ConnectError::Local {
            doing: "cannot connect".into(),
            error,
        }),
        Ok(Err(error)) => Err(ConnectError::Refused(error)),
        Err(_elapsed) => Err(ConnectError::TimedOut(check.connect_timeout)),
    }
}

/// Errors of connect(2) that come from this host: no local port or memory left.
fn is_local(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
        Errno::NOBUFS,
        Errno::NOMEM,
    ]
    .into_iter()
    .any(|local| error.raw_os_error() == Some(local.raw_os_error()))
}
