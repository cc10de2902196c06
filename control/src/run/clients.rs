//! The servers of the control socket and of HTTP, on a thread of their own: what clients
//! want, such as a million connections in JSON, must not hold a timer of the
//! control loop up.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tracing::info;

use crate::api::query::Query;
use crate::api::server::Listener;
use crate::api::{http, server};
use crate::config;

/// Where the status page and the metrics are, and the way to have them elsewhere.
#[derive(Debug)]
pub(super) struct Page {
    listener: Option<http::Listener>,
    /// Told to the thread that serves it.
    elsewhere: mpsc::UnboundedSender<Option<http::Listener>>,
}

/// A page that is ready to be served.
#[derive(Debug)]
pub(super) struct NextPage {
    listener: Option<http::Listener>,
    served: Option<http::Listener>,
}

impl Page {
    /// Opens the port of the page, if there is to be one. What is returned with it is for
    /// [`Clients::serve`].
    ///
    /// # Errors
    /// The address or the token cannot be used.
    pub(super) fn open(appliance: &config::Appliance) -> anyhow::Result<(Self, Served)> {
        let (elsewhere, moves) = mpsc::unbounded_channel();
        let mut page = Self {
            listener: None,
            elsewhere,
        };
        let next = page.prepare(appliance)?;
        page.show(next);
        Ok((page, Served(moves)))
    }

    /// Makes what can fail of a page by a new configuration. The port that is in use stays open, if it is
    /// the same.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub(super) fn prepare(&self, appliance: &config::Appliance) -> anyhow::Result<NextPage> {
        let token_file = appliance.http_token_file.as_deref();
        let listener = match (appliance.http, &self.listener) {
            (None, _) => None,
            (Some(address), Some(listener)) if listener.address() == address => {
                Some(listener.with_token(token_file)?)
            }
            (Some(address), _) => Some(http::bind(address, token_file)?),
        };
        let served = listener.as_ref().map(http::Listener::try_clone);
        Ok(NextPage {
            served: served.transpose()?,
            listener,
        })
    }

    /// From now on the page is that one. Clients of another one before it are cut off.
    pub(super) fn show(&mut self, NextPage { listener, served }: NextPage) {
        if self.listener != listener {
            match &listener {
                Some(listener) => {
                    info!("status page and metrics at http://{}/", listener.address())
                }
                None => info!("no status page"),
            }
            // The thread may be gone already.
            drop(self.elsewhere.send(served));
        }
        self.listener = listener;
    }
}

/// The places where the page is, one after the other.
#[derive(Debug)]
pub(super) struct Served(mpsc::UnboundedReceiver<Option<http::Listener>>);

impl Served {
    /// Serves the page wherever it is.
    ///
    /// # Errors
    /// The port cannot be watched.
    async fn serve(mut self, queries: mpsc::Sender<Query>) -> io::Result<()> {
        let mut listener = None;
        loop {
            let page = async {
                match listener.take() {
                    Some(listener) => http::serve(listener, queries.clone()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = page => return ended,
                next = self.0.recv() => match next {
                    Some(next) => listener = next,
                    None => return Ok(()),
                },
            }
        }
    }
}

/// The thread, which ends when this is stopped or dropped.
#[derive(Debug)]
pub(super) struct Clients {
    stop: Option<oneshot::Sender<()>>,
    failed: oneshot::Receiver<io::Error>,
    thread: Option<JoinHandle<()>>,
}

impl Clients {
    /// What [`serve`](Self::serve) needs and may not get: to be made while the appliance may still refuse to start.
    ///
    /// # Errors
    /// There are too many open files.
    pub(super) fn runtime() -> anyhow::Result<Runtime> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot serve clients: raise LimitNOFILE= of the service, or ulimit -n")
    }

    /// Serves clients; what they ask comes by `queries`.
    pub(super) fn serve(
        runtime: Arc<Runtime>,
        listener: Listener,
        page: Served,
        queries: mpsc::Sender<Query>,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (report, failed) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    Err(error) = server::serve(listener, queries.clone()) => {
                        // The loop may be gone already.
                        drop(report.send(error));
                    }
                    Err(error) = page.serve(queries.clone()) => drop(report.send(error)),
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
