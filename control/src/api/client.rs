//! The client side of the control socket, for commands: it looks blocking
//! and brings its own small runtime.

use std::fmt;
use std::io::{self, BufReader, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Buf, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use super::edit::{Edit, Edited, Edits};
use super::view;
use crate::in_words::in_words;

/// For an answer to begin, and then for each part of it: longer than the
/// server waits for its control loop, so that the server's own words arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the answer to a reload or an edit.
const RELOAD_PATIENCE: Duration = Duration::from_secs(40);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no appliance answers at {}: start it with \"appliance run\", or name its socket with --socket",
        .0.display()
    )]
    NoAppliance(PathBuf),
    #[error(
        "no permission to use {}: run this as the user that runs the appliance, usually root",
        .0.display()
    )]
    PermissionDenied(PathBuf),
    #[error(
        "the appliance at {} did not answer within {} s: it is overloaded, stopped or stuck",
        .path.display(), .patience.as_secs_f64()
    )]
    TimedOut { path: PathBuf, patience: Duration },
    #[error(
        "the appliance at {} broke off its answer: it was stopped, or the answer was read too slowly",
        .0.display()
    )]
    BrokenOff(PathBuf),
    /// In the appliance's own words.
    #[error("{0}")]
    Answer(String),
    #[error(
        "what answers at {} is no appliance, or one of another version: {problem}",
        .path.display()
    )]
    Unintelligible { path: PathBuf, problem: String },
    #[error("cannot talk to the appliance at {}: {}", .path.display(), in_words(.source))]
    System { path: PathBuf, source: io::Error },
}

/// Talks to one appliance, over a connection for each request.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    runtime: Runtime,
    patience: Duration,
}

impl Client {
    /// For the appliance with this control socket, which is not looked at yet.
    ///
    /// # Errors
    ///
    /// When the system gives no event queue.
    pub fn new(path: &Path) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Ok(Self {
            path: path.to_owned(),
            runtime: runtime.map_err(|source| ClientError::System {
                path: path.to_owned(),
                source,
            })?,
            patience: PATIENCE,
        })
    }

    /// Gives up after this long without a sign of the appliance.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// `GET /api/v1/{what}`, whole.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, what: &str) -> Result<T, ClientError> {
        self.parse(self.read(what)?)
    }

    /// `GET /api/v1/{what}`, an array, one element at a time.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`], and whatever `each` returns, which ends it.
    pub fn for_each<T, E>(&self, what: &str, each: impl FnMut(T) -> Result<(), E>) -> Result<(), E>
    where
        T: DeserializeOwned,
        E: From<ClientError>,
    {
        let body = BufReader::new(self.read(what)?);
        let mut elements = Elements {
            each,
            failed: None,
            element: PhantomData,
        };
        let parsed = serde_json::Deserializer::from_reader(body).deserialize_seq(&mut elements);
        match (elements.failed, parsed) {
            (Some(failed), _) => Err(failed),
            (None, parsed) => parsed.map_err(|error| self.unparsable(error).into()),
        }
    }

    /// `GET /api/v1/{what}`, the JSON as it comes.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn read(&self, what: &str) -> Result<Body<'_>, ClientError> {
        let answer = self.request(Method::GET, what, Bytes::new(), self.patience)?;
        if answer.status().is_success() {
            Ok(self.body(answer))
        } else {
            Err(ClientError::Answer(self.error(answer)?.error))
        }
    }

    /// `POST /api/v1/reload`; that the configuration is refused is no error
    /// of the client.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn reload(&self) -> Result<Result<view::Reload, view::ReloadRefused>, ClientError> {
        let patience = self.patience.max(RELOAD_PATIENCE);
        let answer = self.request(Method::POST, "reload", Bytes::new(), patience)?;
        if answer.status().is_success() {
            return self.parse(self.body(answer)).map(Ok);
        }
        let refused = answer.status() == StatusCode::UNPROCESSABLE_ENTITY;
        let view::Error { error, diagnostics } = self.error(answer)?;
        if refused {
            Ok(Err(view::ReloadRefused { diagnostics }))
        } else {
            Err(ClientError::Answer(error))
        }
    }

    /// `POST /api/v1/edit`; that an edit is refused is no error of the client.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn edit(&self, edits: Vec<Edit>) -> Result<Edited, ClientError> {
        let body = serde_json::to_vec(&Edits { edits });
        let body = body.map_err(|error| self.unintelligible(error))?;
        let patience = self.patience.max(RELOAD_PATIENCE);
        let answer = self.request(Method::POST, "edit", body.into(), patience)?;
        if answer.status().is_success() {
            return self.parse(self.body(answer));
        }
        Err(ClientError::Answer(self.error(answer)?.error))
    }

    /// Sends a request and waits for the head of its answer.
    fn request(
        &self,
        method: Method,
        what: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let answer = async {
            let stream = self.connect().await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| self.broken(&error))?;
            // Its errors reach us through the request or the body.
            tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(format!("/api/v1/{what}"))
                .header(hyper::header::HOST, "appliance")
                .header(hyper::header::CONTENT_TYPE, "application/json")
                .body(Full::new(body))
                .map_err(|error| self.unintelligible(error))?;
            let answer = sender.send_request(request).await;
            answer.map_err(|error| self.broken(&error))
        };
        let answer = self
            .runtime
            .block_on(async { timeout(patience, answer).await });
        answer.map_err(|_| self.timed_out(patience))?
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, WouldBlock};
        loop {
            let error = match UnixStream::connect(&self.path).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let is = |kind| error.kind() == kind;
            let path = self.path.clone();
            if is(WouldBlock) {
                // Too many clients wait already (unix(7), EAGAIN).
                sleep(Duration::from_millis(20)).await;
            } else if is(NotFound) || is(ConnectionRefused) {
                return Err(ClientError::NoAppliance(path));
            } else if is(PermissionDenied) {
                return Err(ClientError::PermissionDenied(path));
            } else {
                return Err(ClientError::System {
                    path,
                    source: error,
                });
            }
        }
    }

    fn body(&self, answer: Response<Incoming>) -> Body<'_> {
        Body {
            client: self,
            incoming: answer.into_body(),
            unread: Bytes::new(),
        }
    }

    fn parse<T: DeserializeOwned>(&self, body: Body<'_>) -> Result<T, ClientError> {
        serde_json::from_reader(BufReader::new(body)).map_err(|error| self.unparsable(error))
    }

    /// The body of an answer that is not a success.
    fn error(&self, answer: Response<Incoming>) -> Result<view::Error, ClientError> {
        let status = answer.status();
        self.parse(self.body(answer)).map_err(|error| {
            if matches!(error, ClientError::Unintelligible { .. }) {
                // Not our JSON: the status says more than the parser.
                self.unintelligible(status)
            } else {
                error
            }
        })
    }

    fn timed_out(&self, patience: Duration) -> ClientError {
        ClientError::TimedOut {
            path: self.path.clone(),
            patience,
        }
    }

    fn broken(&self, error: &hyper::Error) -> ClientError {
        if error.is_parse() {
            self.unintelligible(error)
        } else {
            ClientError::BrokenOff(self.path.clone())
        }
    }

    fn unintelligible(&self, problem: impl ToString) -> ClientError {
        ClientError::Unintelligible {
            path: self.path.clone(),
            problem: problem.to_string(),
        }
    }

    /// What reading and parsing a [`Body`] came to.
    fn unparsable(&self, error: serde_json::Error) -> ClientError {
        if error.is_io() {
            self.unreadable(error.into())
        } else {
            self.unintelligible(error)
        }
    }

    /// The [`ClientError`] inside an error of reading a [`Body`].
    fn unreadable(&self, error: io::Error) -> ClientError {
        match error.downcast() {
            Ok(error) => error,
            Err(source) => ClientError::System {
                path: self.path.clone(),
                source,
            },
        }
    }
}

/// An answer's body. Its errors carry a [`ClientError`].
#[derive(Debug)]
pub struct Body<'a> {
    client: &'a Client,
    incoming: Incoming,
    unread: Bytes,
}

impl Body<'_> {
    /// The next part; empty at the end.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn part(&mut self) -> Result<Bytes, ClientError> {
        while self.unread.is_empty() {
            let patience = self.client.patience;
            let frame = async { timeout(patience, self.incoming.frame()).await };
            let frame = self.client.runtime.block_on(frame);
            match frame.map_err(|_| self.client.timed_out(patience))? {
                Some(Ok(frame)) => self.unread = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(self.client.broken(&error)),
                None => break,
            }
        }
        Ok(std::mem::take(&mut self.unread))
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.unread = self.part().map_err(io::Error::other)?;
        let length = self.unread.len().min(buffer.len());
        self.unread.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Hands the elements of an array over as they come.
struct Elements<F, T, E> {
    each: F,
    failed: Option<E>,
    element: PhantomData<T>,
}

impl<'de, F, T, E> Visitor<'de> for &mut Elements<F, T, E>
where
    F: FnMut(T) -> Result<(), E>,
    T: DeserializeOwned,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element()? {
            if let Err(error) = (self.each)(element) {
                self.failed = Some(error);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
