//! Sockets as a check's `bindto`, `bind_port`, `bind_if` and `fwmark` want them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::Outcome;
use super::vip::{self, NoWay, Through};
use crate::config::{Check, CheckSource};
use crate::in_words::in_words;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("connect: timed out after {0:?}")]
    TimedOut(Duration),
    #[error("connect: {}", in_words(.0))]
    Refused(#[source] io::Error),
    #[error("{0}")]
    NoWay(NoWay),
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
            Self::TimedOut(_) | Self::Refused(_) | Self::NoWay(NoWay::NextHop) => {
                Outcome::Failed(reason)
            }
            Self::NoWay(NoWay::Server | NoWay::ThisHost | NoWay::Source) | Self::Local { .. } => {
                Outcome::Inconclusive(reason)
            }
        }
    }

    pub(super) fn local(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Local { doing, error }
    }

    /// An error of connect(2) or send(2).
    pub(super) fn of(error: io::Error) -> Self {
        if is_local(&error) {
            Self::Local {
                doing: "cannot connect".into(),
                error,
            }
        } else {
            Self::Refused(error)
        }
    }
}

/// Errors that come from this host: no local port or memory left, or nothing that could be sent.
fn is_local(error: &io::Error) -> bool {
    use rustix::io::Errno;
    if error.kind() == io::ErrorKind::InvalidInput {
        return true;
    }
    [
        Errno::ADDRNOTAVAIL,
        Errno::ADDRINUSE,
        Errno::AGAIN,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::PERM,
    ]
    .into_iter()
    .any(|local| error.raw_os_error() == Some(local.raw_os_error()))
}

/// A non-blocking socket for the check, bound to its source and not connected.
pub(super) fn socket(
    check: &Check,
    kind: Type,
    protocol: Option<Protocol>,
) -> Result<Socket, ConnectError> {
    let domain = Domain::for_address(check.target);
    let socket = Socket::new(domain, kind.nonblocking(), protocol)
        .map_err(ConnectError::local("no socket for the check"))?;
    let CheckSource {
        bindto,
        bind_port,
        bind_if,
        fwmark,
    } = &check.source;
    if let Some(interface) = bind_if {
        socket
            .bind_device(Some(interface.as_bytes()))
            .map_err(ConnectError::local(format!("cannot bind to {interface}")))?;
    }
    if let Some(mark) = fwmark {
        socket
            .set_mark(*mark)
            .map_err(ConnectError::local(format!("cannot set the fwmark {mark}")))?;
    }
    if bindto.is_none() && bind_port.is_none() {
        return Ok(socket);
    }
    let any: IpAddr = if check.target.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let source = SocketAddr::new(bindto.unwrap_or(any), bind_port.unwrap_or(0));
    if bind_port.is_some() {
        // The last try's connection may linger.
        socket
            .set_reuse_address(true)
            .map_err(ConnectError::local("SO_REUSEADDR"))?;
    }
    let shown = match bind_port {
        Some(_) => source.to_string(),
        None => source.ip().to_string(),
    };
    socket
        .bind(&source.into())
        .map_err(ConnectError::local(format!("cannot bind to {shown}")))?;
    Ok(socket)
}

/// Exchanges datagrams with a check's target.
#[derive(Debug)]
pub(super) enum Datagrams {
    Kernel(UdpSocket),
    Vip(Box<vip::Datagrams>),
}

/// The means to exchange datagrams with the check's target and nobody else: errors are those of that
/// host and port. By the kernel's way, or `through` the virtual server's.
pub(super) async fn datagrams(
    check: &Check,
    through: Option<&Through>,
) -> Result<Datagrams, ConnectError> {
    let Some(through) = through else {
        let socket = socket(check, Type::DGRAM, None)?;
        socket
            .connect(&check.target.into())
            .map_err(ConnectError::of)?;
        let socket = UdpSocket::from_std(socket.into()).map_err(ConnectError::local("epoll"))?;
        return Ok(Datagrams::Kernel(socket));
    };
    let path = through.path(check.target.ip(), check.connect_timeout).await;
    let path = path.map_err(ConnectError::NoWay)?;
    through
        .datagrams(path, check.source.bindto, check.target)
        .map(|datagrams| Datagrams::Vip(Box::new(datagrams)))
        .map_err(ConnectError::local("no local port for the check"))
}

/// Sends at once: a new socket has room, and tokio would first wait until the kernel says so.
async fn send(socket: &UdpSocket, payload: &[u8]) -> io::Result<()> {
    match SockRef::from(socket).send(payload) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            socket.send(payload).await.map(drop)
        }
        sent => sent.map(drop),
    }
}

impl Datagrams {
    pub(super) async fn send(&self, payload: &[u8]) -> io::Result<()> {
        match self {
            Self::Kernel(socket) => send(socket, payload).await,
            Self::Vip(datagrams) => datagrams.send(payload),
        }
    }

    /// Waits for a datagram; what there is no room for is cut off.
    pub(super) async fn receive(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Kernel(socket) => socket.recv(room).await,
            Self::Vip(datagrams) => datagrams.receive(room).await,
        }
    }
}
