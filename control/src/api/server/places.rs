//! Who is served, and who has to make room.
//!
//! A client that does not read its answer occupies a place. It may take its time, as somebody does who
//! pages through a listing. But when all places are taken and somebody else comes, whoever has not read
//! for longest, and for longer than patience lasts, is cut off.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// The clients that are being served.
#[derive(Debug, Default)]
pub(super) struct Places {
    clients: JoinSet<()>,
    answers: BTreeMap<Id, (AbortHandle, Unread)>,
}

impl Places {
    /// Those who are served, without those who were cut off.
    pub(super) fn taken(&self) -> usize {
        self.answers.len()
    }

    /// Serves one more, over what `serve` is given.
    pub(super) fn seat<S, F>(&mut self, stream: S, serve: impl FnOnce(Watched<S>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let unread = Unread::default();
        let watched = Watched {
            stream,
            unread: unread.clone(),
        };
        let client = self.clients.spawn(serve(watched));
        self.answers.insert(client.id(), (client, unread));
    }

    /// Waits until one has been served; `None`: there is none. An error: it ended badly.
    pub(super) async fn next_end(&mut self) -> Option<Result<(), JoinError>> {
        let ended = self.clients.join_next_with_id().await?;
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.answers.remove(&id);
        Some(match ended {
            Err(error) if !error.is_cancelled() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        })
    }

    /// Whether [`Self::make_room`] would cut somebody off.
    pub(super) fn can_make_room(&self, patience: Duration) -> bool {
        self.deafest(patience).is_some()
    }

    /// Cuts off who has not read for longest, if that is longer than `patience`.
    pub(super) fn make_room(&mut self, patience: Duration) {
        if let Some(id) = self.deafest(patience)
            && let Some((client, _)) = self.answers.remove(&id)
        {
            client.abort();
        }
    }

    fn deafest(&self, patience: Duration) -> Option<Id> {
        let now = Instant::now();
        let answers = self.answers.iter();
        let deaf = answers.filter_map(|(id, (_, unread))| Some((unread.since()?, *id)));
        let (since, id) = deaf.min_by_key(|(since, _)| *since)?;
        (now.saturating_duration_since(since) > patience).then_some(id)
    }
}

/// Since when an answer waits for its reader.
#[derive(Clone, Debug, Default)]
struct Unread(Arc<Mutex<Option<Instant>>>);

impl Unread {
    fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<T>(&self, written: &Poll<T>) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match written {
            Poll::Ready(_) => *since = None,
            Poll::Pending => {
                since.get_or_insert_with(Instant::now);
            }
        }
    }
}

/// A stream that notes when it cannot be written to.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    unread: Unread,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, room)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unread.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.unread.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
