//! The client: real requests from inside its namespace.
//!
//! One thread lives in the client's namespace and makes every request on a
//! connection (TCP) or a socket (UDP) of its own, so that the director
//! schedules each anew.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::namespace;
use super::plan::Protocol;

/// A request without an answer for so long has failed. Longer than the first
/// retransmission of a SYN (1 s, RFC 6298 §2), so that one lost packet is no
/// failure.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// More than any answer of the built-in responder.
const MAX_ANSWER: u64 = 64 * 1024;

/// Short names of what goes wrong most.
const REASONS: [(io::ErrorKind, &str); 4] = [
    (io::ErrorKind::ConnectionRefused, "refused"),
    (io::ErrorKind::ConnectionReset, "reset"),
    (io::ErrorKind::HostUnreachable, "host unreachable"),
    (io::ErrorKind::NetworkUnreachable, "network unreachable"),
];

/// A request that has been answered or has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub started: Instant,
    /// Which real server said its name, or why none did, in a few words.
    pub outcome: Result<IpAddr, String>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub protocol: Protocol,
    pub address: SocketAddr,
}

type Order = (Target, oneshot::Sender<Answer>);

/// The thread in the client's namespace; it ends when this is dropped.
#[derive(Debug)]
pub struct Client {
    orders: mpsc::UnboundedSender<Order>,
}

impl Client {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered.
    pub fn start(namespace: String) -> anyhow::Result<Self> {
        let (orders, received) = mpsc::unbounded_channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        thread::Builder::new()
            .name("client".into())
            .spawn(move || {
                let runtime = namespace::enter(&namespace).and_then(|()| {
                    let mut builder = tokio::runtime::Builder::new_current_thread();
                    Ok(builder.enable_all().build()?)
                });
                match runtime {
                    Ok(runtime) => {
                        let _ = ready.send(Ok(()));
                        runtime.block_on(carry_out(received));
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })
            .context("cannot start the client's thread")?;
        is_ready.recv().context("the client's thread died")??;
        Ok(Self { orders })
    }

    /// Makes one request; it runs whether or not the future is polled.
    pub fn request(&self, target: Target) -> impl Future<Output = anyhow::Result<Answer>> + use<> {
        let (answer, answered) = oneshot::channel();
        let sent = self.orders.send((target, answer));
        async move {
            sent.ok().context("the client's thread ended")?;
            answered.await.context("the client's thread ended")
        }
    }
}

async fn carry_out(mut orders: mpsc::UnboundedReceiver<Order>) {
    while let Some((target, answer)) = orders.recv().await {
        tokio::spawn(async move {
            let started = Instant::now();
            let request = async {
                match target.protocol {
                    Protocol::Tcp => over_tcp(target.address).await,
                    Protocol::Udp => over_udp(target.address).await,
                }
            };
            let outcome = match timeout(PATIENCE, request).await {
                Ok(Ok(answer)) => named(&answer),
                Ok(Err(error)) => Err(reason(&error)),
                Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
            };
            // Nobody may be waiting any more.
            let _ = answer.send(Answer { started, outcome });
        });
    }
}

async fn over_tcp(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Ok(match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => body.to_string(),
        _ => String::new(),
    })
}

async fn over_udp(address: SocketAddr) -> io::Result<String> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    socket.send(b"who is there?").await?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// The name that an answer begins with.
fn named(answer: &str) -> Result<IpAddr, String> {
    let first = answer.split_whitespace().next().unwrap_or_default();
    let unknown = |_| "an answer that names no real server".to_string();
    first.parse().map_err(unknown)
}

fn reason(error: &io::Error) -> String {
    let mut known = REASONS.iter();
    known
        .find(|(kind, _)| *kind == error.kind())
        .map_or_else(|| error.to_string(), |(_, short)| (*short).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_name_a_real_server_or_nobody() {
        let server: IpAddr = "2001:db8::7".parse().unwrap();
        assert_eq!(named("2001:db8::7\n"), Ok(server));
        assert_eq!(named("2001:db8::7 who is there?"), Ok(server));
        assert!(named("").is_err());
        assert!(named("nginx").is_err());
    }
}
