//! `TCP_CHECK`: the real server accepts a TCP connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::source::{self, ConnectError};
use super::vip::{self, Through};
use super::{Finding, Outcome, what};
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
pub(super) async fn check(check: &Check, through: Option<&Through>) -> Outcome {
    match connect(check, First::Server, through).await {
        Ok(_closed_by_drop) => Outcome::Passed(Finding::Connected),
        Err(error) => error.into_outcome(&what(check)),
    }
}

/// A connection to a check's target.
#[derive(Debug)]
pub(super) enum Stream {
    Kernel(TcpStream),
    Vip(Box<vip::Stream>),
}

/// Connects to the check's target from its source within `connect_timeout`, by the kernel's way or
/// `through` the virtual server's.
pub(super) async fn connect(
    check: &Check,
    first: First,
    through: Option<&Through>,
) -> Result<Stream, ConnectError> {
    match through {
        None => by_kernel(check, first).await.map(Stream::Kernel),
        Some(through) => by_vip(check, through).await.map(Stream::Vip),
    }
}

async fn by_vip(check: &Check, through: &Through) -> Result<Box<vip::Stream>, ConnectError> {
    let path = through.path(check.target.ip(), check.connect_timeout);
    let path = path.await.map_err(ConnectError::NoWay)?;
    let mut stream = through
        .connect(path, check.source.bindto, check.target)
        .map(Box::new)
        .map_err(ConnectError::local("no local port for the check"))?;
    match timeout(check.connect_timeout, stream.connected()).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(error)) => Err(ConnectError::Refused(error)),
        Err(_elapsed) => Err(ConnectError::TimedOut(check.connect_timeout)),
    }
}

/// The socket is set to close by a reset (`SO_LINGER` 0): a director that
/// closes thousands of checks a second in good order keeps every one of them in
/// TIME_WAIT for a minute, and takes as many local ports.
async fn by_kernel(check: &Check, first: First) -> Result<TcpStream, ConnectError> {
    let socket = source::socket(check, Type::STREAM, None)?;
    socket
        .set_linger(Some(Duration::ZERO))
        .map_err(ConnectError::local("SO_LINGER"))?;
    if first == First::Client {
        socket
            .set_tcp_quickack(false)
            .map_err(ConnectError::local("TCP_QUICKACK"))?;
    }
    match timeout(check.connect_timeout, connected(socket, check.target)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(ConnectError::of(error)),
        Err(_elapsed) => Err(ConnectError::TimedOut(check.connect_timeout)),
    }
}

/// As tokio's `TcpSocket::connect`, but the kernel is asked how it went only where it says that it
/// went wrong.
async fn connected(socket: Socket, target: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            return Err(error);
        }
        Ok(()) | Err(_) => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    if stream.ready(Interest::WRITABLE).await?.is_write_closed()
        && let Some(error) = stream.take_error()?
    {
        return Err(error);
    }
    Ok(stream)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_read(context, room),
            Self::Vip(stream) => Pin::new(stream).poll_read(context, room),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Vip(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_flush(context),
            Self::Vip(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Vip(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
