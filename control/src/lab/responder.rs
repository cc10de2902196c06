//! The built-in responder of a real server: it says who it is.
//!
//! A tiny HTTP/1.1 server on TCP and an echo on UDP. It is no web server: it
//! reads requests without bodies and answers every path alike, which is what
//! a client that counts real servers and an `HTTP_GET` check need. Port 443
//! gets no TLS either. Tunnels end here as well, if there are any.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use dataplane::bpf::decap::{self, Decapsulator, TunnelEnd};
use dataplane::service::Tunnel;
use dataplane::xsk::socket::BindMode;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::plan::{INTERFACE, Listen, Protocol};

/// A client that is silent for so long has gone.
const IDLE: Duration = Duration::from_secs(60);

/// Longest request line or header line.
const MAX_LINE: u64 = 8 * 1024;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// What one responder answers.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The real server's address, its name in every body.
    pub name: IpAddr,
    /// Paths with another status than 200.
    pub statuses: Vec<(String, u16)>,
}

/// A tunnel's end as the responder's command line has it: `ipip:10.0.0.1`, `gre:10.0.0.1`, `gue/6080:10.0.0.1`.
#[must_use]
pub fn argument(TunnelEnd { address, tunnel }: &TunnelEnd) -> String {
    match tunnel {
        Tunnel::Ipip => format!("ipip:{address}"),
        Tunnel::Gre => format!("gre:{address}"),
        Tunnel::Gue { port } => format!("gue/{port}:{address}"),
    }
}

/// Serves until the process is killed. Meanwhile tunnels end here that have these ends.
///
/// # Errors
///
/// A socket cannot be bound, or packets cannot be taken out of tunnels; none is served then.
pub async fn serve(
    answers: Answers,
    listen: &[Listen],
    tunnel_ends: &[TunnelEnd],
) -> anyhow::Result<()> {
    let answers = Arc::new(answers);
    let _decapsulator = decapsulate(tunnel_ends)?;
    let mut tasks = JoinSet::new();
    for one in listen {
        let failed = || {
            format!(
                "real server {}: cannot listen on {}",
                answers.name, one.address
            )
        };
        match one.protocol {
            Protocol::Tcp => {
                let listener = bind(one.address, Type::STREAM).and_then(|socket| {
                    socket.listen(BACKLOG)?;
                    TcpListener::from_std(socket.into())
                });
                tasks.spawn(accept(listener.with_context(failed)?, Arc::clone(&answers)));
            }
            Protocol::Udp => {
                let socket = bind(one.address, Type::DGRAM);
                let socket = socket.and_then(|socket| UdpSocket::from_std(socket.into()));
                tasks.spawn(echo(socket.with_context(failed)?, answers.name));
            }
        }
    }
    // The lab waits for this line.
    println!("ready");
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// From now on packets come out of these tunnels, as on a real server by `appliance realserver up`; until the result is
/// dropped.
fn decapsulate(ends: &[TunnelEnd]) -> anyhow::Result<Option<Decapsulator>> {
    if ends.is_empty() {
        return Ok(None);
    }
    let index = if_nametoindex(INTERFACE).with_context(|| format!("no interface {INTERFACE}"))?;
    Ok(Some(decap::attach(index, INTERFACE, BindMode::Auto, ends)?))
}

fn bind(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    // A responder that returns finds connections of its former life.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

async fn accept(listener: TcpListener, answers: Arc<Answers>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let answers = Arc::clone(&answers);
                // What goes wrong with one client is that client's to notice.
                tokio::spawn(async move { connection(stream, &answers).await });
            }
            // The client gave up before, or file descriptors ran out for now.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Answers requests until the client closes or asks for it.
async fn connection(stream: TcpStream, answers: &Answers) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = timeout(IDLE, request(&mut stream)).await?? {
        stream.write_all(&answers.to(&request)).await?;
        if request.close {
            break;
        }
    }
    stream.shutdown().await
}

/// What matters of a request.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    path: String,
    is_head: bool,
    close: bool,
}

/// Reads one request up to its empty line; `None` when the client closed.
async fn request(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<Request>> {
    let Some(first) = line(stream).await? else {
        return Ok(None);
    };
    let mut words = first.split_ascii_whitespace();
    let is_head = words.next() == Some("HEAD");
    let path = words.next().unwrap_or("/").to_string();
    let mut close = words.next() != Some("HTTP/1.1");
    while let Some(header) = line(stream).await? {
        if header.is_empty() {
            return Ok(Some(Request {
                path,
                is_head,
                close,
            }));
        }
        let lower = header.to_ascii_lowercase();
        if let Some(options) = lower.strip_prefix("connection:") {
            close = match options.trim() {
                "close" => true,
                "keep-alive" => false,
                _ => close,
            };
        }
    }
    Ok(None)
}

/// One line without its end; `None` at the end of the stream.
async fn line(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<String>> {
    use tokio::io::AsyncReadExt as _;
    let mut bytes = Vec::new();
    let mut limited = stream.take(MAX_LINE);
    limited.read_until(b'\n', &mut bytes).await?;
    if bytes.pop() != Some(b'\n') {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

impl Answers {
    fn to(&self, request: &Request) -> Vec<u8> {
        let path = request.path.split('?').next().unwrap_or_default();
        let mut unusual = self.statuses.iter();
        let status = unusual.find(|(known, _)| known == path);
        let status = status.map_or(200, |(_, status)| *status);
        // These have no body (RFC 9110 §15.2, §15.3.5, §15.4.5).
        let bodiless = status < 200 || status == 204 || status == 304;
        let body = if bodiless {
            String::new()
        } else {
            format!("{}\n", self.name)
        };
        let length = if bodiless {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let connection = if request.close { "close" } else { "keep-alive" };
        let body = if request.is_head { "" } else { &body };
        format!(
            "HTTP/1.1 {status} Lab\r\nContent-Type: text/plain\r\n{length}\
             Connection: {connection}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// Sends every datagram back with the server's name before it.
async fn echo(socket: UdpSocket, name: IpAddr) {
    let mut datagram = vec![0; usize::from(u16::MAX)];
    loop {
        // An error is a client's ICMP message about an earlier answer.
        let Ok((length, client)) = socket.recv_from(&mut datagram).await else {
            continue;
        };
        let mut answer = format!("{name} ").into_bytes();
        answer.extend_from_slice(&datagram[..length]);
        let _ = socket.send_to(&answer, client).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers {
            name: "10.0.0.2".parse().unwrap(),
            statuses: vec![("/gone".into(), 410), ("/empty".into(), 204)],
        }
    }

    /// Sends `input` to a responder and returns all that it answers.
    async fn exchange(input: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(accept(listener, Arc::new(answers())));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(input.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut output = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut output)
            .await
            .unwrap();
        server.abort();
        output
    }

    #[tokio::test]
    async fn it_names_itself_and_keeps_the_connection() {
        let output = exchange("GET / HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\n").await;
        assert_eq!(output.matches("HTTP/1.1 200 ").count(), 2, "{output}");
        assert_eq!(output.matches("\r\n\r\n10.0.0.2\n").count(), 2, "{output}");
        assert!(output.contains("Connection: keep-alive"), "{output}");
    }

    #[tokio::test]
    async fn it_closes_when_asked() {
        let twice = "GET / HTTP/1.1\r\nConnection: close\r\n\r\n".repeat(2);
        let output = exchange(&twice).await;
        assert_eq!(output.matches("HTTP/1.1 200 ").count(), 1, "{output}");
        let old = exchange("GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(old.matches("HTTP/1.1 200 ").count(), 1, "{old}");
    }

    #[tokio::test]
    async fn unusual_statuses_and_methods() {
        let gone = exchange("GET /gone?a=1 HTTP/1.1\r\n\r\n").await;
        assert!(gone.starts_with("HTTP/1.1 410 "), "{gone}");
        let empty = exchange("GET /empty HTTP/1.1\r\n\r\n").await;
        assert!(
            empty.ends_with("\r\n\r\n") && !empty.contains("Content-Length"),
            "{empty}"
        );
        let head = exchange("HEAD / HTTP/1.1\r\n\r\n").await;
        assert!(
            head.contains("Content-Length: 9") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
    }

    #[tokio::test]
    async fn half_a_request_is_no_request() {
        assert_eq!(exchange("GET / HTTP/1.1\r\nHost: x").await, "");
        assert_eq!(exchange(&"x".repeat(10_000)).await, "");
    }

    #[tokio::test]
    async fn datagrams_come_back_with_the_name() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let task = tokio::spawn(echo(server, answers().name));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"hello", address).await.unwrap();
        let mut buffer = [0; 64];
        let length = client.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"10.0.0.2 hello");
        task.abort();
    }
}
