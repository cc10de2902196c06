//! The server and the client against a fake control loop, over a real socket;
//! then hostile clients.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test answers one query its own way and the others truthfully"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::api::client::{Client, ClientError};
use crate::api::example::{self, answer as truthful};

const SHORT: Limits = Limits {
    header: Duration::from_millis(200),
    answer: Duration::from_millis(300),
    reload: Duration::from_millis(300),
    connection: Duration::from_secs(2),
    unread: Duration::from_millis(200),
    clients: MAX_CLIENTS,
};

/// A server whose control loop answers by `answer`; both share a thread, as
/// they may in the appliance, for as long as the value lives.
struct Appliance {
    _directory: tempfile::TempDir,
    path: PathBuf,
    thread: Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

impl Appliance {
    fn start(limits: Limits, answer: impl FnMut(Query) + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(8);
        Self::run(limits, sender, control_loop(receiver, answer))
    }

    fn run(
        limits: Limits,
        queries: mpsc::Sender<Query>,
        control_loop: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("appliance.sock");
        let listener = bind(&path).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    ended = serve_with(listener, queries, limits) => ended.unwrap(),
                    () = async { control_loop.await; std::future::pending().await } => {}
                }
            });
        });
        Self {
            _directory: directory,
            path,
            thread: Some((stop, thread)),
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.path).unwrap()
    }

    fn stop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            // It is not there to be told when it panicked.
            let _ = stop.send(());
            thread.join().expect("the server does not panic");
        }
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop();
        }
    }
}

async fn control_loop(mut queries: mpsc::Receiver<Query>, mut answer: impl FnMut(Query)) {
    while let Some(query) = queries.recv().await {
        answer(query);
    }
}

/// Sends bytes as they are; what comes back until the server closes.
fn raw(path: &Path, request: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A server that closes on garbage may do so while there is more to read.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn error_of(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn every_view_arrives_as_it_was_sent() {
    let appliance = Appliance::start(Limits::DEFAULT, truthful);
    let client = appliance.client();
    assert_eq!(
        client.get::<Vec<view::Service>>("services").unwrap(),
        example::services()
    );
    assert_eq!(
        client.get::<Vec<view::Neighbor>>("neighbors").unwrap(),
        example::neighbors()
    );
    assert_eq!(
        client.get::<Vec<view::Worker>>("workers").unwrap(),
        example::workers()
    );
    assert_eq!(
        client.get::<Vec<view::Drop>>("drops").unwrap(),
        example::drops()
    );
    assert_eq!(
        client.get::<Vec<view::HealthCheck>>("health").unwrap(),
        example::health()
    );
    assert_eq!(client.get::<view::Vrrp>("vrrp").unwrap(), example::vrrp());
    assert_eq!(
        client.get::<view::Config>("config").unwrap(),
        example::config()
    );
    assert_eq!(client.reload().unwrap(), Ok(example::reload()));
    let version = client.get::<view::Version>("version").unwrap();
    assert_eq!(
        (version.pid, &*version.version),
        (std::process::id(), env!("CARGO_PKG_VERSION"))
    );
    let mut connections = Vec::new();
    client
        .for_each("connections", |c: view::Connection| {
            connections.push(c);
            Ok::<_, ClientError>(())
        })
        .unwrap();
    assert_eq!(connections, example::connections());
}

/// The contract with scripts, word for word.
#[test]
fn json_of_services_and_connections() {
    let appliance = Appliance::start(Limits::DEFAULT, truthful);
    let services: Value = appliance.client().get("services").unwrap();
    assert_eq!(
        services[0]["real_servers"][1],
        json!({
            "address": "192.168.1.102:80", "weight": 0, "configured_weight": 1,
            "upper_threshold": 0, "lower_threshold": 0,
            "health": "down", "drained": false, "given_up": false, "reason": "connection refused",
            "active_connections": 0, "inactive_connections": 0, "connections_total": 0,
            "forwarding_method": "DR", "packets_total": 0, "bytes_total": 0,
            "reply_packets_total": 0, "reply_bytes_total": 0,
            "next_hop": {"interface": "eth0", "mac": "02:00:00:00:00:01"},
        })
    );
    assert_eq!(services[0]["real_servers"][2]["next_hop"], Value::Null);
    let mut service = services[1].clone();
    service
        .as_object_mut()
        .unwrap()
        .remove("real_servers")
        .unwrap();
    assert_eq!(
        service,
        json!({
            "protocol": "UDP", "address": "[2001:db8::100]:53", "scheduler": "rr",
            "matches": [], "scheduler_flags": [], "persistence": null, "one_packet": false,
            "limits": {
                "max_connections": null, "new_connections_per_second": null, "new_connections_burst": null,
                "source_max_connections": null, "source_new_connections_per_second": null,
                "source_new_connections_burst": null, "source_granularity": null, "syn_proxy": "off", "syn_proxy_threshold": null,
                "under_attack": false, "half_open_connections": 0, "refused_total": {},
            },
            "forwarding_method": "DR", "active_connections": 0, "inactive_connections": 0,
            "connections_total": 0, "packets_total": 9999, "bytes_total": 640_000,
            "reply_packets_total": 0, "reply_bytes_total": 0,
        })
    );
    let connections: Value = appliance.client().get("connections").unwrap();
    assert_eq!(
        connections[1],
        json!({
            "protocol": "TCP", "client": "10.0.0.7:1025", "virtual_server": "192.168.1.100:80",
            "real_server": "192.168.1.101:80", "state": "SYN_RECV", "expires_seconds": 59, "worker": 1,
        })
    );
}

#[test]
fn plain_http_clients_are_served() {
    let appliance = Appliance::start(Limits::DEFAULT, truthful);
    let answer = raw(&appliance.path, "GET /healthz HTTP/1.0\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.0 200") && answer.ends_with("ok\n"),
        "{answer}"
    );
    // `printf … | nc -N -U`: done sending before the answer comes.
    let mut stream = std::os::unix::net::UnixStream::connect(&appliance.path).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
}

#[test]
fn wrong_requests_get_a_json_error() {
    let appliance = Appliance::start(Limits::DEFAULT, truthful);
    for (request, status, expected) in [
        (
            "GET /api/v1/backends HTTP/1.0",
            "404",
            "there is no /api/v1/backends: ",
        ),
        (
            "GET /api/v1/reload HTTP/1.0",
            "405",
            "/api/v1/reload does not take GET: ",
        ),
        (
            "POST /api/v1/services HTTP/1.0",
            "405",
            "/api/v1/services does not take POST: ",
        ),
        (
            "GET /api/v1/explain/tcp/192.0.2.9:1/1920.:.2.180 HTTP/1.0",
            "400",
            "/api/v1/explain/tcp/192.0.2.9:1/1920.:.2.180 is not PROTOCOL/CLIENT/VIRTUAL_SERVER",
        ),
    ] {
        let answer = raw(&appliance.path, &format!("{request}\r\n\r\n"));
        assert!(
            answer.starts_with(&format!("HTTP/1.0 {status}")),
            "{answer}"
        );
        let error = error_of(&answer);
        assert!(
            error["error"].as_str().unwrap().starts_with(expected),
            "{error}"
        );
    }
}

#[test]
fn refused_reload_brings_every_diagnostic() {
    let refused = view::ReloadRefused {
        diagnostics: vec!["a.toml:1:1: x".to_owned(), "a.toml:2:1: y".to_owned()],
    };
    let answer = refused.clone();
    let appliance = Appliance::start(Limits::DEFAULT, move |query| match query {
        Query::Reload(reply) => drop(reply.send(Err(answer.clone()))),
        query => truthful(query),
    });
    assert_eq!(appliance.client().reload().unwrap(), Err(refused));
    let answer = raw(&appliance.path, "POST /api/v1/reload HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 422"), "{answer}");
    assert_eq!(
        error_of(&answer),
        json!({
            "error": "the configuration was refused; nothing was changed",
            "diagnostics": ["a.toml:1:1: x", "a.toml:2:1: y"],
        })
    );
}

#[test]
fn silent_control_loop_is_reported() {
    let mut kept = Vec::new();
    let appliance = Appliance::start(SHORT, move |query| kept.push(query));
    for what in ["services", "connections"] {
        let error = appliance
            .client()
            .get::<Value>(what)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("did not answer within 0.3 s"),
            "{what}: {error}"
        );
    }
    let answer = raw(&appliance.path, "GET /healthz HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 504"), "{answer}");
    let refusing = Appliance::start(SHORT, drop);
    for what in ["services", "connections"] {
        let error = refusing
            .client()
            .get::<Value>(what)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "the control loop gave no answer: its log may say why"
        );
    }
}

#[test]
fn ended_control_loop_is_reported() {
    let (queries, _) = mpsc::channel(1);
    let mut appliance = Appliance::run(SHORT, queries, async {});
    for what in ["services", "connections"] {
        let error = appliance.client().get::<Value>(what).unwrap_err();
        assert_eq!(error.to_string(), "the appliance is stopping");
    }
    appliance.stop();
    assert!(!appliance.path.exists(), "the socket goes with the server");
    let error = appliance.client().get::<Value>("services").unwrap_err();
    assert!(matches!(error, ClientError::NoAppliance(_)), "{error}");
}

/// Sends `batches` batches of 1000 connections, as fast as they are taken.
fn listing(batches: u32) -> impl FnMut(Query) {
    move |query| match query {
        Query::Connections(reply) => {
            tokio::spawn(async move {
                for batch in 0..batches {
                    let batch = (0..1000).map(|i| example::connection(batch * 1000 + i));
                    if reply.send(batch.collect()).await.is_err() {
                        return;
                    }
                }
            });
        }
        query => truthful(query),
    }
}

#[test]
fn long_listing_arrives_in_batches() {
    let appliance = Appliance::start(Limits::DEFAULT, listing(50));
    let mut expected = 0;
    let counted = appliance
        .client()
        .for_each("connections", |connection: view::Connection| {
            assert_eq!(connection, example::connection(expected));
            expected += 1;
            Ok::<_, ClientError>(())
        });
    counted.unwrap();
    assert_eq!(expected, 50_000);
}

#[test]
fn empty_listing_is_an_empty_array() {
    let appliance = Appliance::start(Limits::DEFAULT, |query| match query {
        Query::Connections(reply) => drop(reply.try_send(Vec::new())),
        query => truthful(query),
    });
    let answer = raw(&appliance.path, "GET /api/v1/connections HTTP/1.0\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\n[]\n"), "{answer}");
}

#[test]
fn listing_that_stops_half_way_is_no_success() {
    let mut kept = Vec::new();
    let appliance = Appliance::start(SHORT, move |query| match query {
        Query::Connections(reply) => {
            reply.try_send(example::connections()).unwrap();
            kept.push(reply);
        }
        query => truthful(query),
    });
    let mut seen = 0;
    let listed = appliance
        .client()
        .for_each("connections", |_: view::Connection| {
            seen += 1;
            Ok::<_, ClientError>(())
        });
    assert!(
        matches!(listed, Err(ClientError::BrokenOff(_))),
        "{listed:?}"
    );
    assert_eq!(seen, 3);
}

#[test]
fn only_so_many_listings_at_a_time() {
    let appliance = Appliance::start(Limits::DEFAULT, listing(100));
    let clients: Vec<_> = (0..MAX_LISTINGS).map(|_| appliance.client()).collect();
    let unread: Vec<_> = clients
        .iter()
        .map(|c| c.read("connections").unwrap())
        .collect();
    let error = appliance.client().get::<Value>("connections").unwrap_err();
    assert!(
        error.to_string().contains("are under way already"),
        "{error}"
    );
    drop(unread);
    drop(clients);
    // The server notices that they are gone when it writes to them.
    let started = Instant::now();
    while appliance.client().get::<Value>("connections").is_err() {
        assert!(started.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn client_gives_up_on_an_appliance_that_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("appliance.sock");
    // It listens, but nobody ever accepts.
    let _listener = bind(&path).unwrap();
    let client = Client::new(&path)
        .unwrap()
        .with_patience(Duration::from_millis(100));
    let error = client.get::<Value>("services").unwrap_err().to_string();
    let expected = format!(
        "the appliance at {} did not answer within 0.1 s: it is overloaded, stopped or stuck",
        path.display()
    );
    assert_eq!(error, expected);
}

#[test]
fn client_says_when_what_answers_is_no_appliance() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.sock");
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let answers = [
        "220 mail ESMTP\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n",
        "",
    ];
    thread::spawn(move || {
        for answer in answers {
            use std::io::{Read, Write};
            let (mut stream, _) = other.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let client = Client::new(&path).unwrap();
    for answer in answers {
        let error = client.get::<Value>("services").unwrap_err();
        match error {
            ClientError::Unintelligible { .. } => assert!(!answer.is_empty(), "{error}"),
            ClientError::BrokenOff(_) => assert!(answer.is_empty(), "{answer:?}: {error}"),
            _ => panic!("{answer:?}: {error}"),
        }
    }
}

/// Half a request each, held open; a good client among them is served within
/// the limit, and the control loop turns all the while.
#[test]
fn thousand_half_requests_delay_nobody() {
    let turns = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&turns);
    let appliance = Appliance::start(SHORT, move |query| {
        counted.fetch_add(1, Ordering::Relaxed);
        truthful(query);
    });
    // Both ends are ours: more descriptors than the usual 1024.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let limit = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let mut hostile = Vec::new();
    for number in 0..1000 {
        let mut stream = std::os::unix::net::UnixStream::connect(&appliance.path).unwrap();
        if number % 2 == 0 {
            let half = b"GET /api/v1/services HTTP/1.1\r\nhost";
            std::io::Write::write_all(&mut stream, half).unwrap();
        }
        hostile.push(stream);
    }
    let started = Instant::now();
    appliance.client().get::<Value>("services").unwrap();
    // 128 at a time for 0.2 s each.
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        turns.load(Ordering::Relaxed),
        1,
        "no half request reaches the loop"
    );
    // All of them are gone by then.
    let mut closed = hostile.pop().unwrap();
    closed
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    std::io::Read::read_to_end(&mut closed, &mut Vec::new()).unwrap();
}

#[test]
fn garbage_and_huge_headers_are_refused() {
    let appliance = Appliance::start(SHORT, truthful);
    let huge = format!(
        "GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1000));
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    for request in [
        &huge,
        &many,
        &target,
        "\0\u{1}\u{2}garbage\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(&appliance.path).unwrap();
        // The server may close before it has read everything.
        let _ = std::io::Write::write_all(&mut stream, request.as_bytes());
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    appliance.client().get::<Value>("services").unwrap();
}

/// A client that asks for a long listing and never reads is cut off, and
/// until then the control loop has sent no more than fits in the buffers.
#[test]
fn unread_listing_is_cut_off_and_bounded() {
    let appliance = Appliance::start(SHORT, listing(10_000));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut stream = UnixStream::connect(&appliance.path).await.unwrap();
        stream
            .write_all(b"GET /api/v1/connections HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(SHORT.connection + Duration::from_millis(500)).await;
        let mut read = Vec::new();
        timeout(Duration::from_secs(5), stream.read_to_end(&mut read))
            .await
            .unwrap()
            .unwrap();
        assert!(read.len() < 4 << 20, "{} bytes", read.len());
    });
}

/// Who does not read has its place until another wants it; then one is cut off, no more.
#[test]
fn the_deafest_makes_room_when_all_places_are_taken() {
    let limits = Limits {
        clients: 2,
        connection: Duration::from_secs(60),
        ..SHORT
    };
    let appliance = Appliance::start(limits, listing(20));
    let mut deaf = [(); 2].map(|()| {
        let mut stream = std::os::unix::net::UnixStream::connect(&appliance.path).unwrap();
        let request = b"GET /api/v1/connections HTTP/1.1\r\nhost: a\r\n\r\n";
        std::io::Write::write_all(&mut stream, request).unwrap();
        thread::sleep(Duration::from_millis(100));
        stream
    });
    let begin = Instant::now();
    let client = appliance.client();
    client.get::<view::Version>("version").unwrap();
    let waited = begin.elapsed();
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    let [cut_off, pages_on] = deaf.each_mut().map(|stream| {
        let mut answer = Vec::new();
        std::io::Read::read_to_end(stream, &mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    });
    // The last piece of a whole answer.
    assert!(!cut_off.ends_with("\r\n0\r\n\r\n"), "the first is cut off");
    assert!(pages_on.ends_with("\r\n0\r\n\r\n"), "the second is not");
}
