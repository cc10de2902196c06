//! The status page, the metrics and the API over TCP, for people and monitoring: `http` of the
//! configuration.
//!
//! Whoever reaches the port may look: there is no password, hence none in the configuration that it
//! shows either. Changes need the bearer token of `http_token_file`; without that key there are none.
//! Clients can do no more harm than those of the control socket ([`super::server`]), which has its own
//! limits: however many come here, `appliance show` is served.

use std::fs::File;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::sync::mpsc;

use super::query::Query;
use super::server::{Api, Failure, Limits, accept_clients, answer, common_routes};
use super::{exposition, metrics, page};
use crate::in_words::in_words;

/// A token that can be guessed is none.
const SHORTEST_TOKEN: usize = 16;
/// Longest token file, in bytes.
const LONGEST_TOKEN: u64 = 4096;

/// Why there is no status page.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "cannot listen on {address} (appliance.http): {}: choose another address or port, or stop what \
         uses it (ss -ltnp)",
        in_words(.source)
    )]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("appliance.http_token_file: {0}")]
    Token(#[from] TokenError),
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot read {}: {}", .path.display(), in_words(.source))]
    Read { path: PathBuf, source: io::Error },
    #[error("{} has mode {mode:04o}, others can read it: chmod o= {}", .path.display(), .path.display())]
    Public { path: PathBuf, mode: u32 },
    #[error(
        "{} has {found} characters, expected {SHORTEST_TOKEN} or more: openssl rand -hex 32 > {}",
        .path.display(), .path.display()
    )]
    Short { path: PathBuf, found: usize },
}

/// A listening port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    token_file: Option<PathBuf>,
}

impl Listener {
    /// Where clients find it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same port once more.
    ///
    /// # Errors
    ///
    /// Too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            address: self.address,
            token_file: self.token_file.clone(),
        })
    }

    /// The same port with another token.
    ///
    /// # Errors
    ///
    /// Too many open files, and when the token cannot be used.
    pub fn with_token(&self, token_file: Option<&Path>) -> Result<Self, BindError> {
        check_token(token_file)?;
        let clone = self.try_clone();
        let clone = clone.map_err(|source| BindError::Listen {
            address: self.address,
            source,
        })?;
        Ok(Self {
            token_file: token_file.map(Path::to_owned),
            ..clone
        })
    }
}

impl PartialEq for Listener {
    /// True if clients cannot tell one from the other.
    fn eq(&self, other: &Self) -> bool {
        (self.address, &self.token_file) == (other.address, &other.token_file)
    }
}

fn check_token(token_file: Option<&Path>) -> Result<(), TokenError> {
    token_file.map_or(Ok(()), |path| token(path).map(drop))
}

/// Opens the port, and looks whether the token can be read.
///
/// # Errors
///
/// When the system refuses the address, and when the token cannot be used.
pub fn bind(address: SocketAddr, token_file: Option<&Path>) -> Result<Listener, BindError> {
    let listen = || {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    let (socket, address) = listen().map_err(|source| BindError::Listen { address, source })?;
    check_token(token_file)?;
    Ok(Listener {
        socket,
        address,
        token_file: token_file.map(Path::to_owned),
    })
}

/// Serves clients until the future is dropped, which also ends every connection.
///
/// # Errors
///
/// When the port cannot be watched; clients cause none.
pub async fn serve(listener: Listener, queries: mpsc::Sender<Query>) -> io::Result<()> {
    let Listener {
        socket,
        address,
        token_file,
    } = listener;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let router = router(Api::new(queries, Limits::DEFAULT), token_file);
    accept_clients(socket, &address.to_string(), router, Limits::DEFAULT).await
}

fn router(api: Api, token_file: Option<PathBuf>) -> Router {
    let token_file: Arc<Option<PathBuf>> = Arc::new(token_file);
    common_routes()
        .route("/", get(status_page))
        .route("/metrics", get(prometheus))
        .route("/api/v1/config", answer(Query::PublicConfig))
        .with_state(api)
        .layer(middleware::from_fn_with_state(token_file, guard))
}

async fn status_page(State(api): State<Api>) -> Result<impl IntoResponse, Failure> {
    let headers: [(HeaderName, &str); 3] = [
        // The page needs nothing from anywhere, so nothing is allowed.
        (
            header::CONTENT_SECURITY_POLICY,
            page::CONTENT_SECURITY_POLICY,
        ),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Ok((headers, Html(page::render(&api.state().await?))))
}

async fn prometheus(State(api): State<Api>) -> Result<impl IntoResponse, Failure> {
    let content_type = HeaderValue::from_static(exposition::CONTENT_TYPE);
    let text = metrics::render(&api.state().await?);
    Ok(([(header::CONTENT_TYPE, content_type)], text))
}

/// Lets requests that change nothing through, and others with the token.
async fn guard(
    State(token_file): State<Arc<Option<PathBuf>>>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refuse = |why: String| Err(Failure::Forbidden(why));
        let Some(path) = token_file.as_deref() else {
            let why =
                "changes are made by the control socket: appliance.http_token_file is not set";
            return refuse(why.to_owned());
        };
        // Read anew, so that it can be changed without a restart.
        let expected = match token(path) {
            Ok(token) => token,
            Err(error) => return refuse(error.to_string()),
        };
        let authorization = request.headers().get(header::AUTHORIZATION);
        let found = authorization.and_then(|value| value.to_str().ok());
        // RFC 9110, 11.1: the name of a scheme has no case.
        let found = found.and_then(|value| value.split_once(' '));
        let found = found.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"));
        let found = found.map(|(_, token)| token);
        if !found.is_some_and(|found| equal(found.as_bytes(), expected.as_bytes())) {
            let why = "changes need the header \"Authorization: Bearer TOKEN\" with the content of \
                       appliance.http_token_file";
            return refuse(why.to_owned());
        }
    }
    Ok(next.run(request).await)
}

/// Reads a token.
fn token(path: &Path) -> Result<String, TokenError> {
    let read = || {
        let file = File::open(path)?;
        let mode = file.metadata()?.mode() & 0o7777;
        let mut text = String::new();
        file.take(LONGEST_TOKEN).read_to_string(&mut text)?;
        Ok((mode, text))
    };
    let (mode, text) = read().map_err(|source| TokenError::Read {
        path: path.to_owned(),
        source,
    })?;
    let path = || path.to_owned();
    if mode & 0o007 != 0 {
        return Err(TokenError::Public { path: path(), mode });
    }
    let text = text.trim();
    if text.len() < SHORTEST_TOKEN {
        let found = text.len();
        return Err(TokenError::Short {
            path: path(),
            found,
        });
    }
    Ok(text.to_owned())
}

/// In a time that tells nothing about where the two differ.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && differences == 0
}

#[cfg(test)]
mod tests;
