//! Checks against real sockets on 127.0.0.1, and the task manager.

use std::io::{Read, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};

use super::*;
use crate::config::{CheckSource, CheckUrl, DnsCheck, HttpGet, HttpProtocol, RecordType, UdpCheck};
use crate::scripts::Policy;

fn tcp_check(target: SocketAddr) -> Check {
    Check {
        kind: CheckKind::TcpCheck,
        target,
        source: CheckSource::default(),
        through_vip: false,
        connect_timeout: Duration::from_millis(500),
        delay_loop: Duration::from_millis(50),
        retry: 1,
        rise: 1,
        delay_before_retry: Duration::from_millis(20),
        warmup: Duration::ZERO,
        alpha: false,
    }
}

fn runner() -> Runner {
    Runner::new(Policy::default())
}

async fn try_once(check: Check) -> Outcome {
    Probe::new(check, runner()).try_once().await
}

fn id(real_server: SocketAddr) -> CheckId {
    CheckId {
        virtual_server: "TCP 192.0.2.1:80".into(),
        real_server,
        check: 0,
    }
}

/// A port on which nothing listens.
fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn tcp_check_passes_where_connections_are_accepted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let outcome = try_once(tcp_check(target)).await;
    assert_eq!(
        outcome.in_words(&tcp_check(target)),
        format!("TCP_CHECK {target}: connected")
    );
    // Closed by a reset: nothing of it stays in TIME_WAIT.
    let (mut accepted, _) = listener.accept().unwrap();
    let error = accepted.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn what_was_found_in_words() {
    let target: SocketAddr = "192.0.2.1:53".parse().unwrap();
    let words = |kind, finding: Finding| {
        finding.in_words(&Check {
            kind,
            ..tcp_check(target)
        })
    };
    let url = |path: &str| CheckUrl {
        path: path.into(),
        status_code: Vec::new(),
        virtualhost: None,
        digest: None,
        regex: None,
    };
    let get = HttpGet {
        tls: None,
        protocol: HttpProtocol::Http10,
        urls: vec![url("/first"), url("/last")],
        virtualhost: None,
    };
    let udp = UdpCheck {
        payload: None,
        reply: None,
    };
    let dns = DnsCheck {
        record_type: RecordType::Soa,
        name: ".".into(),
    };
    let cases = [
        (
            words(CheckKind::TcpCheck, Finding::Connected),
            "TCP_CHECK 192.0.2.1:53: connected",
        ),
        (
            words(CheckKind::HttpGet(get), Finding::Status(204)),
            "HTTP_GET 192.0.2.1:53 /last: status 204",
        ),
        (
            words(CheckKind::UdpCheck(udp), Finding::NotRefused),
            "UDP_CHECK 192.0.2.1:53: not refused",
        ),
        (
            words(CheckKind::DnsCheck(dns), Finding::Answered),
            "DNS_CHECK 192.0.2.1:53 SOA .: answered",
        ),
        (
            words(CheckKind::PingCheck, Finding::Answered),
            "PING_CHECK 192.0.2.1: answered",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn tcp_check_fails_where_connections_are_refused() {
    let target = closed_port();
    assert_eq!(
        try_once(tcp_check(target)).await,
        Outcome::Failed(format!("TCP_CHECK {target}: connect: connection refused"))
    );
}

#[tokio::test]
async fn tcp_check_times_out_where_the_backlog_is_full() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let target = socket.local_addr().unwrap().as_socket().unwrap();
    // A backlog of 0 holds one connection; then SYNs are dropped.
    let _fills_the_backlog = std::net::TcpStream::connect(target).unwrap();
    let mut check = tcp_check(target);
    check.connect_timeout = Duration::from_millis(200);
    assert_eq!(
        try_once(check.clone()).await,
        Outcome::Failed(format!(
            "TCP_CHECK {target}: connect: timed out after 200ms"
        ))
    );
}

#[tokio::test]
async fn smtp_check_takes_every_answer_to_quit() {
    let cases = [
        ("221 bye\r\n", true),
        ("250-many\r\n250 lines\r\n", true),
        ("500 what?\r\n", true),
        ("goodbye\r\n", true),
        ("", false),
    ];
    for (answer, passes) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in ["220 ready\r\n", "250 fine\r\n", answer] {
                stream.write_all(answer.as_bytes()).unwrap();
                // A command, at last the end.
                let _ = stream.read(&mut [0; 64]);
            }
        });
        let check = Check {
            kind: CheckKind::SmtpCheck { helo_name: None },
            ..tcp_check(target)
        };
        let outcome = try_once(check).await;
        assert_eq!(
            matches!(outcome, Outcome::Passed(_)),
            passes,
            "{answer:?}: {outcome:?}"
        );
        server.join().unwrap();
    }
}

#[tokio::test]
async fn bindto_is_the_source_and_a_bad_one_is_no_verdict() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut check = tcp_check(listener.local_addr().unwrap());
    let source: IpAddr = "127.0.0.7".parse().unwrap();
    check.source.bindto = Some(source);
    assert!(matches!(try_once(check.clone()).await, Outcome::Passed(_)));
    assert_eq!(listener.accept().unwrap().1.ip(), source);

    // TEST-NET-1 is no address of this host.
    check.source.bindto = Some("192.0.2.9".parse().unwrap());
    let Outcome::Inconclusive(reason) = try_once(check.clone()).await else {
        panic!("a bind error says nothing about the real server");
    };
    assert!(
        reason.contains("cannot bind to 192.0.2.9: cannot assign"),
        "{reason}"
    );
}

#[tokio::test]
async fn checker_reports_changes_only() {
    let target = closed_port();
    let (sender, mut events) = mpsc::channel(8);
    let mut checker = Checker::new(sender, runner());
    assert!(checker.start(id(target), tcp_check(target), None));
    let Event::Health {
        healthy, reason, ..
    } = events.recv().await.unwrap()
    else {
        panic!("no health event");
    };
    assert!(!healthy);
    assert_eq!(
        reason,
        format!("TCP_CHECK {target}: connect: connection refused")
    );
    // Still down: silence, though tries go on.
    let patience = Instant::now() + Duration::from_secs(10);
    let status = loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let status = checker.status_of(&id(target)).unwrap();
        if status.failures >= 5 || Instant::now() > patience {
            break status;
        }
    };
    assert!(events.try_recv().is_err());
    assert!(!status.healthy && status.failures >= 5, "{status:?}");
    assert_eq!(status.last_result, LastResult::Failed);

    let _listener = TcpListener::bind(target).unwrap();
    let event = events.recv().await.unwrap();
    assert_eq!(
        event,
        Event::Health {
            id: id(target),
            healthy: true,
            reason: format!("TCP_CHECK {target}: connected"),
            weight: None,
        }
    );
}

#[tokio::test]
async fn the_first_verdict_is_reported_if_it_is_no_change() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for (target, alpha) in [
        (listener.local_addr().unwrap(), false),
        (closed_port(), true),
    ] {
        let (sender, mut events) = mpsc::channel(8);
        let mut checker = Checker::new(sender, runner());
        let mut check = tcp_check(target);
        check.alpha = alpha;
        assert_eq!(checker.start(id(target), check, None), !alpha);
        let event = events.recv().await.unwrap();
        let Event::Health { healthy, .. } = event else {
            panic!("{event:?}");
        };
        assert_eq!(healthy, !alpha);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(events.try_recv().is_err(), "reported again");
    }
}

#[tokio::test]
async fn stopped_checks_make_no_more_tries() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let (sender, _events) = mpsc::channel(8);
    let mut checker = Checker::new(sender, runner());
    checker.start(id(target), tcp_check(target), None);
    tokio::task::spawn_blocking({
        let listener = listener.try_clone().unwrap();
        move || listener.accept().unwrap()
    })
    .await
    .unwrap();
    assert!(checker.stop(&id(target)));
    assert!(!checker.stop(&id(target)));
    tokio::time::sleep(Duration::from_millis(20)).await;
    listener.set_nonblocking(true).unwrap();
    while listener.accept().is_ok() {}
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(listener.accept().is_err(), "a try after the stop");
    assert_eq!(checker.status_of(&id(target)), None);
}

#[tokio::test]
async fn a_changed_check_keeps_the_known_state() {
    let target = closed_port();
    let (sender, mut events) = mpsc::channel(8);
    let mut checker = Checker::new(sender, runner());
    checker.start(id(target), tcp_check(target), None);
    events.recv().await.unwrap();
    // The same: undisturbed.
    assert!(!checker.start(id(target), tcp_check(target), None));
    assert!(checker.has_tried(&id(target)));
    // Other parameters: anew, but still down at the first failure. That is said once.
    let mut changed = tcp_check(target);
    changed.retry = 5;
    assert!(!checker.start(id(target), changed, None));
    let event = events.recv().await.unwrap();
    assert!(
        matches!(event, Event::Health { healthy: false, .. }),
        "{event:?}"
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(events.try_recv().is_err());
}

#[tokio::test]
async fn a_silent_server_is_found_by_http_get_only() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut check = tcp_check(listener.local_addr().unwrap());
    assert!(matches!(try_once(check.clone()).await, Outcome::Passed(_)));
    check.kind = CheckKind::HttpGet(HttpGet {
        tls: None,
        protocol: HttpProtocol::Http10,
        urls: vec![CheckUrl {
            path: "/".into(),
            status_code: vec![(200, 299)],
            virtualhost: None,
            digest: None,
            regex: None,
        }],
        virtualhost: None,
    });
    check.connect_timeout = Duration::from_millis(200);
    let target = check.target;
    assert_eq!(
        try_once(check.clone()).await,
        Outcome::Failed(format!(
            "HTTP_GET {target} /: no complete answer: timed out after 200ms"
        ))
    );
}
