//! A listing of connections as a JSON array that is never in memory as a
//! whole: batches come from the control loop as fast as the client reads.

use std::time::Duration;
use std::{io, vec};

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::view::Connection;

/// Connections turned to JSON in one go, about 0.3 ms of work: the control
/// loop may share the thread.
const CHUNK: usize = 256;

/// What is still to be sent of a listing.
struct Listing {
    batches: mpsc::Receiver<Vec<Connection>>,
    current: vec::IntoIter<Connection>,
    /// What comes before the next connection.
    separator: &'static [u8],
    ended: bool,
    /// Longest wait for a batch.
    patience: Duration,
    /// Its share of the listings that may be under way.
    _permit: OwnedSemaphorePermit,
}

/// The body of the answer; `first` is the first batch. If the control loop
/// takes longer than `patience` for a batch the body breaks off, so that no
/// client takes a part for the whole.
pub(super) fn body(
    first: Vec<Connection>,
    batches: mpsc::Receiver<Vec<Connection>>,
    patience: Duration,
    permit: OwnedSemaphorePermit,
) -> Body {
    let listing = Listing {
        batches,
        current: first.into_iter(),
        separator: b"[",
        ended: false,
        patience,
        _permit: permit,
    };
    Body::from_stream(stream::unfold(listing, |mut listing| async {
        let chunk = listing.next().await?;
        tokio::task::yield_now().await;
        Some((chunk, listing))
    }))
}

impl Listing {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        while !self.ended {
            if !self.current.as_slice().is_empty() {
                return Some(self.chunk());
            }
            match timeout(self.patience, self.batches.recv()).await {
                Ok(Some(batch)) => self.current = batch.into_iter(),
                Ok(None) => {
                    self.ended = true;
                    let empty = self.separator == b"[";
                    let end: &[u8] = if empty { b"[]\n" } else { b"]\n" };
                    return Some(Ok(Bytes::from_static(end)));
                }
                Err(_) => {
                    self.ended = true;
                    return Some(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        None
    }

    fn chunk(&mut self) -> io::Result<Bytes> {
        let mut json = Vec::with_capacity(CHUNK * 200);
        for connection in self.current.by_ref().take(CHUNK) {
            json.extend_from_slice(self.separator);
            self.separator = b",\n";
            serde_json::to_writer(&mut json, &connection)?;
        }
        Ok(json.into())
    }
}
