//! The server on the control socket, and what it shares with [`super::http`].
//!
//! Clients cannot delay the control loop: it is asked over a bounded channel
//! and never writes to a client. And they cannot use the machine up: at most
//! [`MAX_CLIENTS`] are served at a time, one request each; a request that
//! does not come, a header that does not end and an answer that is not read
//! each have a limit. More clients wait in the socket's backlog, until a place is free or one of those
//! who have theirs has not read for a while (`places`).
//!
//! Every answer that is not a success has the body `{"error": "…"}`, but for
//! requests that are no HTTP: those get a bare status and are closed.

mod places;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};

use self::places::Places;
use super::edit::{Edited, Edits};
use super::query::Query;
use super::{listing, view};
use crate::explain::Question;

pub use super::socket::{BindError, Listener, bind};

/// Clients served at a time.
pub const MAX_CLIENTS: usize = 128;
/// Listings of connections under way at a time: each occupies a worker.
const MAX_LISTINGS: usize = 4;
/// Longest header of a request, in bytes.
const MAX_HEADER: usize = 16 * 1024;
/// Batches of a listing that may wait for a slow client.
const LISTING_BATCHES: usize = 2;

/// How long the server waits, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For the whole header of a request. Local clients need milliseconds.
    header: Duration,
    /// For the control loop.
    answer: Duration,
    /// For the control loop to read, check and apply a configuration.
    reload: Duration,
    /// For everything: a client that does not read its answer is cut off.
    connection: Duration,
    /// For the same client, when others want its place.
    unread: Duration,
    /// Clients served at a time.
    clients: usize,
}

impl Limits {
    pub(super) const DEFAULT: Self = Self {
        header: Duration::from_secs(2),
        answer: Duration::from_secs(5),
        reload: Duration::from_secs(30),
        connection: Duration::from_secs(300),
        unread: Duration::from_secs(5),
        clients: MAX_CLIENTS,
    };
}

/// Serves clients until the future is dropped, which also ends every
/// connection and removes the socket.
///
/// # Errors
///
/// When the socket cannot be watched; clients cause none.
pub async fn serve(listener: Listener, queries: mpsc::Sender<Query>) -> io::Result<()> {
    serve_with(listener, queries, Limits::DEFAULT).await
}

/// Serves one client and no other: what the socket would have accepted.
pub async fn serve_client(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    queries: mpsc::Sender<Query>,
) {
    let limits = Limits::DEFAULT;
    client(stream, Api::new(queries, limits).router(), limits).await;
}

async fn serve_with(
    listener: Listener,
    queries: mpsc::Sender<Query>,
    limits: Limits,
) -> io::Result<()> {
    let socket = UnixListener::from_std(listener.socket.try_clone()?)?;
    let router = Api::new(queries, limits).router();
    let place = listener.path().display();
    accept_clients(socket, &place.to_string(), router, limits).await
}

/// Where clients come from.
pub(super) trait Accept {
    /// A client's connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// Serves who comes by `socket`, at `place`, until the future is dropped.
pub(super) async fn accept_clients(
    socket: impl Accept,
    place: &str,
    router: Router,
    limits: Limits,
) -> io::Result<()> {
    let mut places = Places::default();
    loop {
        let is_full = places.taken() >= limits.clients;
        let has_room = !is_full || places.can_make_room(limits.unread);
        tokio::select! {
            Some(ended) = places.next_end() => {
                if let Err(error) = ended {
                    warn!("a client of {place} ended badly: {error}");
                }
            }
            accepted = socket.next(), if has_room => match accepted {
                Ok(stream) => {
                    if is_full {
                        places.make_room(limits.unread);
                    }
                    places.seat(stream, |stream| client(stream, router.clone(), limits));
                }
                Err(error) => {
                    warn!("cannot accept a client on {place}: {error}");
                    // Out of file descriptors, mostly: they come back with
                    // time, and until then the log is not to be flooded.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            // By then patience with somebody may be at its end.
            () = tokio::time::sleep(limits.unread / 4), if !has_room => {}
        }
    }
}

/// One request of one client.
async fn client<S>(stream: S, router: Router, limits: Limits)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(MAX_HEADER)
        .keep_alive(false)
        // A client that is done sending, like `nc -N`, still gets its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(limits.connection, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a client: {error}"),
        Err(_) => debug!("a client did not read its answer"),
    }
}

/// What every handler needs.
#[derive(Clone)]
pub(super) struct Api {
    queries: mpsc::Sender<Query>,
    listings: Arc<Semaphore>,
    limits: Limits,
    started: Instant,
}

impl Api {
    pub(super) fn new(queries: mpsc::Sender<Query>, limits: Limits) -> Self {
        Self {
            queries,
            listings: Arc::new(Semaphore::new(MAX_LISTINGS)),
            limits,
            started: Instant::now(),
        }
    }

    /// The routes of the control socket.
    fn router(self) -> Router {
        common_routes()
            .route("/api/v1/config", answer(Query::Config))
            .with_state(self)
    }
}

/// The routes that the control socket and HTTP have alike.
pub(super) fn common_routes() -> Router<Api> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/api/v1/version", get(version))
        .route("/api/v1/services", answer(Query::Services))
        .route("/api/v1/connections", get(connections))
        .route("/api/v1/neighbors", answer(Query::Neighbors))
        .route("/api/v1/workers", answer(Query::Workers))
        .route("/api/v1/drops", answer(Query::Drops))
        .route("/api/v1/health", answer(Query::Health))
        .route("/api/v1/vrrp", answer(Query::Vrrp))
        .route("/api/v1/ipvs", answer(Query::Ipvs))
        .route(
            "/api/v1/explain/{protocol}/{client}/{virtual_server}",
            get(explain),
        )
        .route("/api/v1/edit", post(edit))
        .route("/api/v1/reload", post(reload))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
}

/// A route whose answer is what the control loop sends.
pub(super) fn answer<T>(
    query: impl Fn(oneshot::Sender<T>) -> Query + Clone + Send + Sync + 'static,
) -> axum::routing::MethodRouter<Api>
where
    T: Serialize + Send + 'static,
{
    get(async move |State(api): State<Api>| {
        let answer = api.ask(query, api.limits.answer).await;
        answer.map(Json)
    })
}

async fn healthz(State(api): State<Api>) -> Result<&'static str, Failure> {
    api.ask(Query::Ping, api.limits.answer).await?;
    Ok("ok\n")
}

async fn version(State(api): State<Api>) -> Json<view::Version> {
    Json(api.version())
}

async fn explain(
    State(api): State<Api>,
    uri: Uri,
    path: Result<Path<(String, SocketAddr, SocketAddr)>, PathRejection>,
) -> Result<Json<view::Explanation>, Failure> {
    let Path((protocol, client, virtual_server)) = path.map_err(|why| {
        Failure::BadRequest(format!(
            "{} is not PROTOCOL/CLIENT/VIRTUAL_SERVER, as tcp/198.51.100.7:40000/192.0.2.1:80: {}",
            uri.path(),
            why.body_text()
        ))
    })?;
    let question = Question::new(&protocol, client, virtual_server);
    let question = question.map_err(Failure::BadRequest)?;
    let query = |reply| Query::Explain(question, reply);
    api.ask(query, api.limits.reload).await.map(Json)
}

async fn reload(State(api): State<Api>) -> Result<Json<view::Reload>, Failure> {
    match api.ask(Query::Reload, api.limits.reload).await? {
        Ok(done) => Ok(Json(done)),
        Err(refused) => Err(Failure::Refused(refused)),
    }
}

async fn edit(State(api): State<Api>, request: Request) -> Result<Json<Edited>, Failure> {
    // A body that does not end would occupy its place among the clients.
    let edits = timeout(api.limits.answer, Json::<Edits>::from_request(request, &()));
    let Ok(edits) = edits.await else {
        let patience = api.limits.answer.as_secs_f64();
        let why = format!("the body of the request did not end within {patience} s");
        return Err(Failure::BadRequest(why));
    };
    let Json(edits) = edits.map_err(|why| Failure::BadRequest(why.body_text()))?;
    let query = |reply| Query::Edit(edits, reply);
    api.ask(query, api.limits.reload).await.map(Json)
}

async fn connections(State(api): State<Api>) -> Result<Response, Failure> {
    let listings = Arc::clone(&api.listings);
    let permit = listings
        .try_acquire_owned()
        .map_err(|_| Failure::TooManyListings)?;
    let patience = api.limits.answer;
    let (batches, mut answer) = mpsc::channel(LISTING_BATCHES);
    let first = timeout(patience, async {
        let sent = api.queries.send(Query::Connections(batches)).await;
        sent.map_err(|_| Failure::Stopping)?;
        answer.recv().await.ok_or(Failure::NoAnswer)
    });
    let first = first.await.map_err(|_| Failure::TimedOut(patience))??;
    let json = HeaderValue::from_static("application/json");
    let body = listing::body(first, answer, patience, permit);
    Ok(([(header::CONTENT_TYPE, json)], body).into_response())
}

async fn not_found(uri: Uri) -> Failure {
    Failure::NotFound(uri.path().to_owned())
}

async fn not_allowed(method: Method, uri: Uri) -> Failure {
    Failure::NotAllowed(method, uri.path().to_owned())
}

impl Api {
    fn version(&self) -> view::Version {
        view::Version {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
        }
    }

    /// Everything but the connections, for the status page and the metrics.
    pub(super) async fn state(&self) -> Result<view::State, Failure> {
        let patience = self.limits.answer;
        Ok(view::State {
            version: self.version(),
            services: self.ask(Query::Services, patience).await?,
            workers: self.ask(Query::Workers, patience).await?,
            drops: self.ask(Query::Drops, patience).await?,
            health: self.ask(Query::Health, patience).await?,
            vrrp: self.ask(Query::Vrrp, patience).await?,
        })
    }

    /// Asks the control loop; `patience` covers waiting for its attention.
    async fn ask<T>(
        &self,
        query: impl FnOnce(oneshot::Sender<T>) -> Query,
        patience: Duration,
    ) -> Result<T, Failure> {
        let (sender, answer) = oneshot::channel();
        let asked = timeout(patience, async {
            let sent = self.queries.send(query(sender)).await;
            sent.map_err(|_| Failure::Stopping)?;
            answer.await.map_err(|_| Failure::NoAnswer)
        });
        asked.await.map_err(|_| Failure::TimedOut(patience))?
    }
}

/// Every answer that is not a success.
#[derive(Debug)]
pub(super) enum Failure {
    NotFound(String),
    NotAllowed(Method, String),
    /// A change without the token; the reason.
    Forbidden(String),
    BadRequest(String),
    Refused(view::ReloadRefused),
    TooManyListings,
    Stopping,
    NoAnswer,
    TimedOut(Duration),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut diagnostics = Vec::new();
        let (status, error) = match self {
            Self::NotFound(path) => (
                StatusCode::NOT_FOUND,
                format!(
                    "there is no {path}: there are /healthz, /api/v1/{{edit,reload}} and \
                     /api/v1/{{services,connections,neighbors,workers,drops,health,vrrp,config,ipvs,version}}"
                ),
            ),
            Self::NotAllowed(method, path) => (
                StatusCode::METHOD_NOT_ALLOWED,
                format!(
                    "{path} does not take {method}: use POST for /api/v1/edit and /api/v1/reload, and GET for all else"
                ),
            ),
            Self::Forbidden(why) => (StatusCode::FORBIDDEN, why),
            Self::BadRequest(why) => (StatusCode::BAD_REQUEST, why),
            Self::Refused(refused) => {
                diagnostics = refused.diagnostics;
                (
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "the configuration was refused; nothing was changed".to_owned(),
                )
            }
            Self::TooManyListings => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{MAX_LISTINGS} listings of connections are under way already: try again"),
            ),
            Self::Stopping => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the appliance is stopping".to_owned(),
            ),
            Self::NoAnswer => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the control loop gave no answer: its log may say why".to_owned(),
            ),
            Self::TimedOut(patience) => (
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "the control loop did not answer within {} s: the appliance is overloaded or stuck",
                    patience.as_secs_f64()
                ),
            ),
        };
        (status, Json(view::Error { error, diagnostics })).into_response()
    }
}

#[cfg(test)]
mod tests;
