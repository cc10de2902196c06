//! `HTTP_GET` against servers that answer in every way but the right one.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::super::Probe;
use super::*;
use crate::config::{CheckKind, CheckSource, RegexOption};
use crate::scripts::{Policy, Runner};

/// Serves connections one after the other; each request's header goes to the
/// returned channel.
fn serve(
    answer: impl Fn(&mut TcpStream) -> io::Result<()> + Send + 'static,
) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => request.extend(byte),
                    _ => break,
                }
            }
            if sender
                .send(String::from_utf8_lossy(&request).into())
                .is_err()
            {
                return;
            }
            // The checker may be gone before the answer is: that is its right.
            let _ = answer(&mut stream);
        }
    });
    (address, requests)
}

fn url(path: &str) -> CheckUrl {
    CheckUrl {
        path: path.into(),
        status_code: vec![(200, 299)],
        virtualhost: None,
        digest: None,
        regex: None,
    }
}

fn parameters(urls: &[CheckUrl], virtualhost: Option<&str>) -> HttpGet {
    HttpGet {
        tls: None,
        protocol: HttpProtocol::Http10,
        urls: urls.to_vec(),
        virtualhost: virtualhost.map(str::to_owned),
    }
}

async fn get(target: SocketAddr, urls: &[CheckUrl], virtualhost: Option<&str>) -> Outcome {
    get_as(target, parameters(urls, virtualhost)).await
}

fn check_of(target: SocketAddr, get: HttpGet) -> Check {
    Check {
        kind: CheckKind::HttpGet(get),
        target,
        source: CheckSource::default(),
        through_vip: false,
        connect_timeout: Duration::from_millis(400),
        delay_loop: Duration::from_secs(1),
        retry: 0,
        rise: 1,
        delay_before_retry: Duration::from_secs(1),
        warmup: Duration::ZERO,
        alpha: false,
    }
}

async fn get_as(target: SocketAddr, get: HttpGet) -> Outcome {
    let parameters = check_of(target, get.clone());
    let prepared = Prepared::new(&parameters, &get).unwrap();
    check(&parameters, &get, &prepared, None).await
}

/// The reason of a failure behind `HTTP_GET <target> /: `.
async fn failure(answer: impl Fn(&mut TcpStream) -> io::Result<()> + Send + 'static) -> String {
    let (target, _requests) = serve(answer);
    match get(target, &[url("/")], None).await {
        Outcome::Failed(reason) => {
            let start = format!("HTTP_GET {target} /: ");
            reason
                .strip_prefix(&start)
                .unwrap_or_else(|| panic!("{reason} does not start with {start}"))
                .to_owned()
        }
        other @ (Outcome::Passed(_) | Outcome::Weighed(..) | Outcome::Inconclusive(_)) => {
            panic!("expected a failure, found {other:?}")
        }
    }
}

#[tokio::test]
async fn the_request_is_keepaliveds() {
    let (target, requests) = serve(|s| s.write_all(b"HTTP/1.0 204 No Content\r\n\r\n"));
    assert_eq!(
        get(target, &[url("/health?full=1")], None).await,
        Outcome::Passed(Finding::Status(204))
    );
    assert_eq!(
        requests.recv().unwrap(),
        format!(
            "GET /health?full=1 HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nHost: {target}\r\n\r\n"
        )
    );
}

#[tokio::test]
async fn virtualhosts_and_several_urls() {
    let (target, requests) =
        serve(|s| s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let mut own = url("/b");
    own.virtualhost = Some("b.example".into());
    let outcome = get(target, &[url("/a"), own], Some("a.example")).await;
    assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}");
    assert!(requests.recv().unwrap().contains("\r\nHost: a.example\r\n"));
    assert!(requests.recv().unwrap().contains("\r\nHost: b.example\r\n"));
}

#[tokio::test]
async fn the_first_failing_url_decides() {
    let (target, requests) =
        serve(|s| s.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(
        get(target, &[url("/a"), url("/b")], None).await,
        Outcome::Failed(format!(
            "HTTP_GET {target} /a: status 503, expected 200-299"
        ))
    );
    assert!(requests.recv().unwrap().starts_with("GET /a "));
    assert!(requests.try_recv().is_err(), "/b was asked for");
}

#[tokio::test]
async fn status_codes_are_ranges() {
    let (target, _requests) = serve(|s| s.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n"));
    let mut accepting = url("/");
    accepting.status_code = vec![(200, 200), (400, 404)];
    assert!(matches!(
        get(target, &[accepting.clone()], None).await,
        Outcome::Passed(_)
    ));
    accepting.status_code = vec![(200, 200), (300, 403)];
    assert_eq!(
        get(target, &[accepting], None).await,
        Outcome::Failed(format!(
            "HTTP_GET {target} /: status 404, expected 200, 300-403"
        ))
    );
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let reason = failure(|s| {
        s.write_all(b"HTTP/1.1 301 Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
    })
    .await;
    assert_eq!(reason, "status 301, expected 200-299");
}

#[tokio::test]
async fn garbage_is_not_http() {
    let reason = failure(|s| s.write_all(b"SSH-2.0-OpenSSH_9.2\r\n")).await;
    assert_eq!(reason, "the answer is not HTTP");
    let reason = failure(|s| s.write_all(&[0xff; 100])).await;
    assert_eq!(reason, "the answer is not HTTP");
}

#[tokio::test]
async fn a_huge_header_ends_the_check() {
    let reason = failure(|s| {
        s.write_all(b"HTTP/1.1 200 OK\r\nX-Large: ")?;
        loop {
            s.write_all(&[b'x'; 4096])?;
        }
    })
    .await;
    assert!(
        reason.starts_with("the answer's header is longer than"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_early_close_is_no_answer() {
    assert_eq!(
        failure(|_| Ok(())).await,
        "connection closed before the answer"
    );
    assert_eq!(
        failure(|s| s.write_all(b"HTTP/1.1 200 OK\r\nContent-")).await,
        "connection closed before the answer"
    );
}

#[tokio::test]
async fn a_slow_answer_times_out_as_a_whole() {
    // A byte now and then must not keep the check alive for ever.
    let start = Instant::now();
    let reason = failure(|s| {
        s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")?;
        loop {
            s.write_all(b".")?;
            thread::sleep(Duration::from_millis(50));
        }
    })
    .await;
    assert_eq!(reason, "no complete answer: timed out after 400ms");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_truncated_body_passes_as_with_keepalived() {
    let (target, _requests) =
        serve(|s| s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"));
    let outcome = get(target, &[url("/")], None).await;
    assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}");
}

#[tokio::test]
async fn an_endless_body_is_not_read_to_its_end() {
    let (target, _requests) = serve(|s| {
        s.write_all(b"HTTP/1.0 200 OK\r\n\r\n")?;
        loop {
            s.write_all(&[0; 65536])?;
        }
    });
    let outcome = get(target, &[url("/")], None).await;
    assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}");
}

#[tokio::test]
async fn refused_and_unusable() {
    let target = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(
        get(target, &[url("/")], None).await,
        Outcome::Failed(format!("HTTP_GET {target} /: connect: connection refused"))
    );
    let check = check_of(target, parameters(&[url("/a b")], None));
    let outcome = Probe::new(check, Runner::new(Policy::default()))
        .try_once()
        .await;
    assert!(matches!(outcome, Outcome::Inconclusive(_)), "{outcome:?}");
}

#[tokio::test]
async fn http_1_1_and_connection_close() {
    let (target, requests) =
        serve(|s| s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    for (protocol, line) in [
        (HttpProtocol::Http10Close, "GET / HTTP/1.0\r\n"),
        (HttpProtocol::Http11, "GET / HTTP/1.1\r\n"),
    ] {
        let mut get = parameters(&[url("/")], None);
        get.protocol = protocol;
        let outcome = get_as(target, get).await;
        assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}");
        let request = requests.recv().unwrap();
        assert!(request.starts_with(line), "{request}");
        assert!(request.contains("\r\nConnection: close\r\n"), "{request}");
    }
}

/// Serves one connection over HTTP/2: 200 with a body for `/health`, 404 for all else, and says goodbye.
async fn serve_http2() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.headers()["user-agent"], "KeepAliveClient");
            let is_health = request.uri() == "http://www.example.org/health";
            let answer = hyper::Response::builder().status(if is_health { 200 } else { 404 });
            let mut body = respond
                .send_response(answer.body(()).unwrap(), false)
                .unwrap();
            // More than a window of flow control.
            let text = vec![b'a'; 100_000];
            body.send_data(text.into(), true).unwrap();
            connection.graceful_shutdown();
        }
    });
    address
}

#[tokio::test]
async fn http_2() {
    let wanted = |path: &str, digest: u128| {
        let mut url = url(path);
        url.digest = Some(digest.to_be_bytes());
        let mut get = parameters(&[url], Some("www.example.org"));
        get.protocol = HttpProtocol::Http2;
        get
    };
    const A_HUNDRED_THOUSAND: u128 = 0x1af6_d6f2_f682_f76f_80e6_06ae_aaee_1680;
    let target = serve_http2().await;
    assert_eq!(
        get_as(target, wanted("/health", A_HUNDRED_THOUSAND)).await,
        Outcome::Passed(Finding::Status(200))
    );
    let target = serve_http2().await;
    assert_eq!(
        get_as(target, wanted("/", A_HUNDRED_THOUSAND)).await,
        Outcome::Failed(format!("HTTP_GET {target} /: status 404, expected 200-299"))
    );
    // One that speaks HTTP/1 only.
    let (target, _requests) = text_server();
    let outcome = get_as(target, wanted("/", A_HUNDRED_THOUSAND)).await;
    let Outcome::Failed(why) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(why.contains(" /: HTTP/2: "), "{why}");
}

/// Digest of what the next function serves.
const GREEN: u128 = 0xc60b89889f6ed3c1ea31b5f45ae0aa79;

fn text_server() -> (SocketAddr, mpsc::Receiver<String>) {
    serve(|s| s.write_all(b"HTTP/1.0 200 OK\r\n\r\nstatus: Green\nqueue: 17\n"))
}

/// The reason of a failure, or `passed`.
async fn body_verdict(wanted: CheckUrl) -> String {
    let (target, _requests) = text_server();
    match get(target, &[wanted], None).await {
        Outcome::Failed(reason) => reason.split_once(" /: ").unwrap().1.to_owned(),
        Outcome::Passed(_) => "passed".into(),
        other @ (Outcome::Weighed(..) | Outcome::Inconclusive(_)) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn digests_are_md5_of_the_body() {
    let with = |digest: u128| CheckUrl {
        digest: Some(digest.to_be_bytes()),
        ..url("/")
    };
    // printf 'status: Green\nqueue: 17\n' | md5sum
    assert_eq!(body_verdict(with(GREEN)).await, "passed");
    assert_eq!(
        body_verdict(with(0xff)).await,
        format!("the body's digest is {GREEN:032x}, expected {:032x}", 0xff)
    );
}

#[tokio::test]
async fn regexes_look_at_the_body() {
    let regex = |pattern: &str| BodyRegex {
        pattern: pattern.into(),
        options: Vec::new(),
        no_match: false,
        min_offset: 0,
        max_offset: None,
    };
    let with = |regex| CheckUrl {
        regex: Some(regex),
        ..url("/")
    };
    let matches = body_verdict(with(regex("Green\\s+queue: [0-9]+")));
    assert_eq!(matches.await, "passed");
    assert_eq!(
        body_verdict(with(regex("green"))).await,
        "the body does not match the regex \"green\""
    );
    let mut caseless = regex("green");
    caseless.options = vec![RegexOption::Caseless];
    assert_eq!(body_verdict(with(caseless.clone())).await, "passed");
    caseless.no_match = true;
    assert_eq!(
        body_verdict(with(caseless.clone())).await,
        "the body matches the regex \"green\""
    );
    // "Green" begins at byte 8.
    caseless.min_offset = 9;
    assert_eq!(body_verdict(with(caseless.clone())).await, "passed");
    (caseless.min_offset, caseless.max_offset) = (0, Some(7));
    assert_eq!(body_verdict(with(caseless.clone())).await, "passed");
    caseless.max_offset = Some(8);
    assert_ne!(body_verdict(with(caseless)).await, "passed");
}
