//! Every kind of check against servers on loopback that are up, down, slow or
//! lying: they hang, reset, answer something else, or answer garbage. Real
//! servers of each kind are in `tests/netns/health_kinds.sh`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod servers;
mod times;

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use control::config::{
    Check, CheckKind, CheckSource, CheckUrl, DnsCheck, FileCheck, HttpGet, HttpProtocol, MiscCheck,
    RecordType, Tls, UdpCheck, UdpReply,
};
use control::event::WeightChange;
use control::health::{Outcome, Probe};
use control::scripts::{Policy, Runner, Script};

use servers::{Tcp, Udp, closed_port};

/// Machines stop for some tenths of a second, and a server that answers is in time all the same.
const PATIENCE: Duration = Duration::from_millis(500);

fn check(kind: CheckKind, target: SocketAddr) -> Check {
    Check {
        kind,
        target,
        source: CheckSource::default(),
        through_vip: false,
        connect_timeout: PATIENCE,
        delay_loop: Duration::from_millis(400),
        retry: 2,
        rise: 1,
        delay_before_retry: Duration::from_millis(100),
        warmup: Duration::ZERO,
        alpha: false,
    }
}

fn get(tls: bool) -> CheckKind {
    CheckKind::HttpGet(HttpGet {
        tls: tls.then_some(Tls { enable_sni: false }),
        protocol: HttpProtocol::Http10,
        urls: vec![CheckUrl {
            path: "/".into(),
            status_code: vec![(200, 299)],
            virtualhost: None,
            digest: None,
            regex: None,
        }],
        virtualhost: None,
    })
}

fn udp(reply: Option<UdpReply>) -> CheckKind {
    CheckKind::UdpCheck(UdpCheck {
        payload: Some(b"ping".to_vec()),
        reply,
    })
}

fn dns() -> CheckKind {
    CheckKind::DnsCheck(DnsCheck {
        record_type: RecordType::A,
        name: "www.example.org".into(),
    })
}

fn smtp() -> CheckKind {
    CheckKind::SmtpCheck { helo_name: None }
}

/// `passed`, or `failed: ` or `inconclusive: ` and why, without the target.
async fn verdict(kind: CheckKind, target: SocketAddr) -> String {
    let what = format!("{} {target}", kind.name());
    let probe = Probe::new(check(kind, target), Runner::new(Policy::default()));
    let (word, reason) = match probe.try_once().await {
        Outcome::Passed(_) => return "passed".into(),
        Outcome::Weighed(WeightChange::Set(weight), _) => return format!("weight {weight}"),
        Outcome::Weighed(WeightChange::Add(weight), _) => return format!("weight {weight:+}"),
        Outcome::Failed(reason) => ("failed", reason),
        Outcome::Inconclusive(reason) => ("inconclusive", reason),
    };
    let reason = reason.strip_prefix(&what).unwrap_or(&reason);
    format!("{word}: {}", reason.trim_start_matches([':', ' ']))
}

#[tokio::test]
async fn udp_check() {
    let reply = |content: &[u8], min_length, max_length| {
        Some(UdpReply {
            content: content.iter().map(|&byte| (byte, 0xff)).collect(),
            min_length,
            max_length,
        })
    };
    let echo = Udp::start(|request| Some(request.to_vec()));
    let silent = Udp::start(|_| None);
    let closed = closed_port();
    let at = |server: &Udp| server.address;
    let cases = [
        // Silence is no refusal.
        (at(&silent), None, "passed"),
        (at(&echo), None, "passed"),
        (closed, None, "failed: connection refused"),
        (at(&echo), reply(b"", 0, 255), "passed"),
        (at(&echo), reply(b"pi", 4, 4), "passed"),
        // As far as both go.
        (at(&echo), reply(b"ping pong", 0, 255), "passed"),
        (
            at(&silent),
            reply(b"", 0, 255),
            "failed: no answer: timed out after 500ms",
        ),
        (closed, reply(b"", 0, 255), "failed: connection refused"),
        (
            at(&echo),
            reply(b"pong", 0, 255),
            "failed: the answer has 0x69 at byte 1, expected 0x6f",
        ),
        (
            at(&echo),
            reply(b"", 5, 255),
            "failed: an answer of 4 bytes, expected 5 or more",
        ),
        (
            at(&echo),
            reply(b"", 0, 3),
            "failed: an answer of more than 3 bytes",
        ),
    ];
    for (target, wanted, expected) in cases {
        assert_eq!(verdict(udp(wanted), target).await, expected);
    }
    let mut wild = reply(b"p", 0, 255).unwrap();
    wild.content.push((0, 0));
    wild.content.push((b'n' & 0xf0, 0xf0));
    assert_eq!(verdict(udp(Some(wild)), echo.address).await, "passed");
}

/// The query as an answer with this code.
fn answered(query: &[u8], code: u8) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[3] = code;
    answer
}

#[tokio::test]
async fn dns_check() {
    let good = Udp::start(|query| Some(answered(query, 0)));
    assert_eq!(verdict(dns(), good.address).await, "passed");
    let lost = "failed: no answer: timed out after 500ms";
    for (code, name) in [(2, "SERVFAIL"), (3, "NXDOMAIN"), (5, "REFUSED")] {
        let server = Udp::start(move |query| Some(answered(query, code)));
        let found = verdict(dns(), server.address).await;
        assert!(
            found.starts_with("failed: ") && found.ends_with(&format!("answered with {name}")),
            "{found}"
        );
    }
    type Liar = fn(&[u8]) -> Option<Vec<u8>>;
    let liars: [Liar; 4] = [
        |_| None,
        // Another query's answer.
        |query| {
            let mut answer = answered(query, 0);
            answer[0] ^= 1;
            Some(answer)
        },
        // The query itself.
        |query| Some(query.to_vec()),
        |_| Some(b"garbage".to_vec()),
    ];
    for liar in liars {
        let server = Udp::start(liar);
        let found = verdict(dns(), server.address).await;
        assert!(
            found.ends_with(lost.strip_prefix("failed: ").unwrap()),
            "{found}"
        );
    }
    let found = verdict(dns(), closed_port()).await;
    assert!(found.ends_with("connection refused"), "{found}");
}

#[tokio::test]
async fn smtp_check() {
    let good: &[&[u8]] = &[
        b"220-mail.example.org\r\n220 ready\r\n",
        b"250 hello\r\n",
        b"221 bye\r\n",
    ];
    let hello: &[u8] = b"220 ready\r\n";
    let cases: [(&[&[u8]], &str); 8] = [
        (good, "passed"),
        (
            &[b"554 go away\r\n"],
            "failed: greeting: answered \"554 go away\", expected 220",
        ),
        (
            &[b"HTTP/1.1 400 Bad Request\r\n"],
            "failed: greeting: not an SMTP answer",
        ),
        (&[b""], "failed: greeting: connection closed"),
        (&[hello], "failed: HELO: connection closed"),
        (
            &[hello, b"502 what?\r\n"],
            "failed: HELO: answered \"502 what?\", expected 250",
        ),
        (
            &[hello, b"250-never ends\r\n"],
            "failed: HELO: connection closed",
        ),
        (&[hello, b"250 hello\r\n", b"250 still here\r\n"], "passed"),
    ];
    for (script, expected) in cases {
        let script: Vec<Vec<u8>> = script.iter().map(|line| line.to_vec()).collect();
        let server = Tcp::start(move |stream| servers::say(stream, &script));
        assert_eq!(verdict(smtp(), server.address).await, expected);
    }
    let hangs = Tcp::silent();
    assert_eq!(
        verdict(smtp(), hangs.address).await,
        "failed: greeting: timed out"
    );
    let endless = Tcp::start(|stream| servers::flood(stream, b"220-and so on\r\n"));
    assert_eq!(
        verdict(smtp(), endless.address).await,
        "failed: greeting: not an SMTP answer"
    );
    let resets = Tcp::resetting();
    let found = verdict(smtp(), resets.address).await;
    assert!(found.ends_with("connection reset by peer"), "{found}");
    assert_eq!(
        verdict(smtp(), closed_port()).await,
        "failed: connect: connection refused"
    );
}

#[tokio::test]
async fn ssl_get_of_what_is_no_tls() {
    let plain = Tcp::start(|stream| servers::say(stream, &[b"HTTP/1.0 200 OK\r\n\r\n".to_vec()]));
    let found = verdict(get(true), plain.address).await;
    assert!(
        found.starts_with("failed: /: TLS: received corrupt message"),
        "{found}"
    );
    let hangs = Tcp::silent();
    assert_eq!(
        verdict(get(true), hangs.address).await,
        "failed: /: TLS: timed out after 500ms"
    );
    let resets = Tcp::resetting();
    let found = verdict(get(true), resets.address).await;
    assert!(found.ends_with("connection reset by peer"), "{found}");
    assert_eq!(
        verdict(get(true), closed_port()).await,
        "failed: /: connect: connection refused"
    );
}

#[tokio::test]
async fn a_slow_server_is_waited_for_up_to_the_timeout() {
    let slow = |delay| {
        Tcp::start(move |stream| {
            std::thread::sleep(Duration::from_millis(delay));
            // Nothing at first, so that the request is read before the answer.
            servers::say(stream, &[Vec::new(), b"HTTP/1.0 200 OK\r\n\r\n".to_vec()])
        })
    };
    assert_eq!(verdict(get(false), slow(100).address).await, "passed");
    assert_eq!(
        verdict(get(false), slow(1000).address).await,
        "failed: /: no complete answer: timed out after 500ms"
    );
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip::skipped("needs root");
    }
    root
}

#[tokio::test]
async fn ping_check() {
    if !is_root() {
        return;
    }
    for address in ["127.0.0.1:1", "[::1]:1"] {
        let address: SocketAddr = address.parse().unwrap();
        // Several at once: each has its own answer.
        let probes = (0..10).map(|_| verdict(CheckKind::PingCheck, address));
        for found in futures_util::future::join_all(probes).await {
            assert_eq!(found, "passed");
        }
    }
    let mut bound = check(CheckKind::PingCheck, "127.0.0.1:1".parse().unwrap());
    bound.source.bind_if = Some("no-such-if".into());
    let probe = Probe::new(bound, Runner::new(Policy::default()));
    let outcome = probe.try_once().await;
    let Outcome::Inconclusive(reason) = &outcome else {
        panic!("{outcome:?}");
    };
    assert!(
        reason.contains("cannot bind to no-such-if: no such device"),
        "{reason}"
    );
}

#[tokio::test]
async fn misc_check() {
    let nowhere = closed_port();
    let script = |line: &str, dynamic| {
        CheckKind::MiscCheck(MiscCheck {
            script: Script {
                words: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
                user: None,
            },
            timeout: Duration::from_millis(300),
            dynamic,
        })
    };
    let shown = |line: &str, why: &str| format!("failed: MISC_CHECK /bin/sh -c {line}: {why}");
    assert_eq!(verdict(script("exit 0", false), nowhere).await, "passed");
    for (line, dynamic, why) in [
        ("exit 1", false, "exit status 1"),
        ("exit 1", true, "exit status 1"),
        ("exit 12", false, "exit status 12"),
        ("kill -9 $$", true, "killed by signal 9"),
        ("sleep 9", true, "timed out after 300ms"),
    ] {
        assert_eq!(
            verdict(script(line, dynamic), nowhere).await,
            shown(line, why)
        );
    }
    assert_eq!(verdict(script("exit 12", true), nowhere).await, "weight 10");
    assert_eq!(verdict(script("exit 2", true), nowhere).await, "weight 0");
    assert_eq!(
        verdict(script("exit 255", true), nowhere).await,
        "weight 253"
    );
    let missing = CheckKind::MiscCheck(MiscCheck {
        script: Script {
            words: vec!["/no/such/script".into()],
            user: None,
        },
        timeout: PATIENCE,
        dynamic: false,
    });
    let found = verdict(missing, nowhere).await;
    assert!(
        found.starts_with("inconclusive: ") && found.ends_with("no such file or directory"),
        "{found}"
    );
}

#[tokio::test]
async fn file_check() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("number");
    let file = path.to_str().unwrap().to_owned();
    let nowhere = closed_port();
    let kind = |weight, reverse| {
        CheckKind::FileCheck(FileCheck {
            file: file.clone(),
            weight,
            reverse,
        })
    };
    let missing = verdict(kind(1, false), nowhere).await;
    assert!(
        missing.starts_with("inconclusive: ") && missing.ends_with("no such file or directory")
    );
    for (text, weight, reverse, expected) in [
        ("0\n", 0, false, "passed"),
        ("0", 0, true, "failed"),
        (" 7 ", 0, false, "failed"),
        ("-3", 0, true, "passed"),
        ("7", 2, false, "weight +14"),
        ("-7", 2, false, "weight -14"),
        ("7", 2, true, "weight -14"),
        ("-2147483648", 1, false, "failed"),
        ("seven", 1, false, "inconclusive"),
        ("", 1, false, "inconclusive"),
    ] {
        fs::write(&path, text).unwrap();
        let found = verdict(kind(weight, reverse), nowhere).await;
        assert!(found.starts_with(expected), "{text}: {found}");
    }
    // A pipe is not opened.
    fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let found = verdict(kind(1, false), nowhere).await;
    assert!(found.ends_with("not a regular file"), "{found}");
}
