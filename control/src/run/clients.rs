//! The servers of the control socket and of HTTP, on a thread of their own: what clients
//! want, such as a million connections in JSON, must not hold a timer of the
//! control loop up.

use std::io;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use tokio::sync::{mpsc, oneshot};

use crate::api::query::Query;
use crate::api::server::Listener;
use crate::api::{http, server};

/// The thread, which ends when this is stopped or dropped.
#[derive(Debug)]
pub(super) struct Clients {
    stop: Option<oneshot::Sender<()>>,
    failed: oneshot::Receiver<io::Error>,
    thread: Option<JoinHandle<()>>,
}

impl Clients {
    /// Serves clients; what they ask comes by `queries`.
    pub(super) fn serve(
        listener: Listener,
        http: Option<http::Listener>,
        queries: mpsc::Sender<Query>,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (report, failed) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let serve = move || {
            runtime.block_on(async {
                let page = async {
                    match http {
                        Some(listener) => http::serve(listener, queries.clone()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    Err(error) = server::serve(listener, queries.clone()) => {
                        // The loop may be gone already.
                        drop(report.send(error));
                    }
                    Err(error) = page => drop(report.send(error)),
                    // Also when the other end was dropped.
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("clients".into());
        let thread = thread.spawn(serve).context("cannot start a thread")?;
        Ok(Self {
            stop: Some(stop),
            failed,
            thread: Some(thread),
        })
    }

    /// Why clients cannot be served any more; nothing, as long as they can.
    pub(super) async fn failure(&mut self) -> anyhow::Error {
        match (&mut self.failed).await {
            Ok(error) => anyhow!(error).context("the server of clients failed"),
            Err(_) => anyhow!("the thread of the control socket ended, which is a bug"),
        }
    }

    /// Ends every connection and removes the socket.
    pub(super) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say, and a panic in it has been reported.
            drop(thread.join());
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop();
    }
}
