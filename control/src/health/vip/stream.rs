//! The connection as a stream of bytes.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::super::random;
use super::endpoint::{Endpoint, Progress};
use super::packets::Inbox;
use super::way::Path;

/// A TCP connection, reset when it is dropped.
pub(in super::super) struct Stream {
    endpoint: Endpoint,
    path: Path,
    inbox: Inbox,
    timer: Pin<Box<Sleep>>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

impl Stream {
    pub(super) fn begin(inbox: Inbox, path: Path, target: SocketAddr) -> io::Result<Self> {
        let seed = u64::from(random()) << 32 | u64::from(random());
        let endpoint = Endpoint::connect(inbox.local, target, path.mtu, seed, Instant::now())?;
        Ok(Self {
            endpoint,
            path,
            inbox,
            timer: Box::pin(sleep(Duration::ZERO)),
        })
    }

    /// Waits until the handshake is done.
    ///
    /// # Errors
    /// The target refuses.
    pub(in super::super) async fn connected(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| {
            self.drive(context);
            match self.endpoint.progress() {
                Progress::Connecting => Poll::Pending,
                Progress::Connected => Poll::Ready(Ok(())),
                Progress::Closed => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            }
        })
        .await
    }

    /// Takes what came in, sends what is due, and has the task woken when there is more to do.
    fn drive(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some(packet)) = self.inbox.packets.poll_recv(context) {
            self.endpoint.receive(packet);
        }
        self.send();
        if let Some(wait) = self.endpoint.next(Instant::now()) {
            let due = tokio::time::Instant::now() + wait;
            self.timer.as_mut().reset(due);
            if self.timer.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
    }

    fn send(&mut self) {
        for packet in self.endpoint.advance(Instant::now()) {
            if let Some(frame) = self.path.frame(&packet) {
                self.inbox.shared.send(self.path.interface, &frame);
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.endpoint.abort();
        self.send();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.drive(context);
        match self.endpoint.read(room.initialize_unfilled()) {
            None => Poll::Pending,
            Some(Err(error)) => Poll::Ready(Err(error)),
            Some(Ok(length)) => {
                room.advance(length);
                // There is room for more, which the other end has to know.
                self.send();
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.drive(context);
        match self.endpoint.write(bytes) {
            None => Poll::Pending,
            Some(written) => {
                self.send();
                Poll::Ready(written)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
