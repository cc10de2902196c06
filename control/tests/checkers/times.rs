//! Transitions happen when keepalived.conf(5) says, within 10 % and 50 ms.
//!
//! A busy machine wakes its processes late: what is wrong three times is wrong.

use std::time::{Duration, Instant};

use control::config::{Check, CheckKind};
use control::event::{CheckId, Event};
use control::health::Checker;
use control::scripts::{Policy, Runner};
use tokio::sync::mpsc;

use super::servers::{Tcp, Udp, Visits};
use super::{PATIENCE, check, dns, get, smtp, udp};

fn near(what: &str, found: Duration, expected: Duration) -> Result<(), String> {
    let tolerance = expected / 10 + Duration::from_millis(50);
    // Early, too, if the visit before was noticed late.
    if found + Duration::from_millis(2) >= expected && found <= expected + tolerance {
        return Ok(());
    }
    Err(format!("{what}: after {found:?}, expected {expected:?}"))
}

async fn in_three_attempts(measured: impl AsyncFn() -> Result<(), String>) {
    for _ in 0..2 {
        if measured().await.is_ok() {
            return;
        }
    }
    measured().await.unwrap();
}

/// The next change of health, and when it came.
async fn change(events: &mut mpsc::Receiver<Event>) -> (bool, Instant) {
    let event = events.recv().await.unwrap();
    let Event::Health { healthy, .. } = event else {
        panic!("{event:?}");
    };
    (healthy, Instant::now())
}

fn start(check: Check) -> (Checker, mpsc::Receiver<Event>) {
    let (sender, events) = mpsc::channel(8);
    let mut checker = Checker::new(sender, Runner::new(Policy::default()));
    let id = CheckId {
        virtual_server: "TCP 192.0.2.1:80".into(),
        real_server: check.target,
        check: 0,
    };
    checker.start(id, check, None);
    (checker, events)
}

/// A server that says nothing: every try lasts `connect_timeout`.
async fn silence(
    kind: CheckKind,
    target: std::net::SocketAddr,
    visits: &Visits,
) -> Result<(), String> {
    let name = kind.name();
    let wanted = check(kind, target);
    let (retry, pause) = (wanted.retry, wanted.delay_before_retry);
    let delay_loop = wanted.delay_loop;
    let (_checker, mut events) = start(wanted);
    let (healthy, at) = change(&mut events).await;
    assert!(!healthy, "{name}");
    // One more try, to see when it comes.
    tokio::time::sleep(delay_loop + Duration::from_millis(90)).await;
    let visits = visits.lock().unwrap().clone();
    if visits.len() < 4 {
        return Err(format!("{name}: only {} tries", visits.len()));
    }
    near(
        &format!("{name} is down"),
        at - visits[0],
        PATIENCE * (retry + 1) + pause * retry,
    )?;
    for tries in visits[..3].windows(2) {
        near(
            &format!("{name} retries"),
            tries[1] - tries[0],
            PATIENCE + pause,
        )?;
    }
    near(
        &format!("{name} is tried again"),
        visits[3] - visits[2],
        PATIENCE + delay_loop,
    )
}

#[tokio::test]
async fn servers_that_hang_are_out_in_time() {
    let tcp = [get(false), get(true), smtp()].map(|kind| async move {
        in_three_attempts(async || {
            let server = Tcp::silent();
            silence(kind.clone(), server.address, &server.visits).await
        })
        .await;
    });
    let wanted = control::config::UdpReply {
        content: Vec::new(),
        min_length: 0,
        max_length: 255,
    };
    let udp = [udp(Some(wanted)), dns()].map(|kind| async move {
        in_three_attempts(async || {
            let server = Udp::start(|_| None);
            silence(kind.clone(), server.address, &server.visits).await
        })
        .await;
    });
    tokio::join!(
        futures_util::future::join_all(tcp),
        futures_util::future::join_all(udp)
    );
}

#[tokio::test]
async fn servers_that_refuse_are_out_in_time_and_back_at_the_next_try() {
    in_three_attempts(async || {
        let address = super::closed_port();
        let mut wanted = check(CheckKind::TcpCheck, address);
        wanted.rise = 2;
        let (retry, pause) = (wanted.retry, wanted.delay_before_retry);
        let delay_loop = wanted.delay_loop;
        let begin = Instant::now();
        let (_checker, mut events) = start(wanted);
        let (healthy, down) = change(&mut events).await;
        assert!(!healthy);
        near("down", down - begin, pause * retry)?;
        let _listener = std::net::TcpListener::bind(address).unwrap();
        let (healthy, up) = change(&mut events).await;
        assert!(healthy);
        // The next try and, with rise = 2, its confirmation.
        near("up", up - down, delay_loop + pause)
    })
    .await;
}

#[tokio::test]
async fn first_tries_are_spread_over_the_warmup() {
    in_three_attempts(async || {
        let server = Udp::start(|_| None);
        let warmup = Duration::from_millis(500);
        let (sender, _events) = mpsc::channel(8);
        let mut checker = Checker::new(sender, Runner::new(Policy::default()));
        for number in 0..100 {
            let mut wanted = check(udp(None), server.address);
            wanted.warmup = warmup;
            wanted.delay_loop = Duration::from_secs(60);
            let id = CheckId {
                virtual_server: "UDP 192.0.2.1:53".into(),
                real_server: server.address,
                check: number,
            };
            assert!(
                checker.start(id, wanted, None),
                "it counts as up until its first try"
            );
        }
        let begin = Instant::now();
        tokio::time::sleep(warmup + Duration::from_millis(100)).await;
        let visits = server.visits.lock().unwrap().clone();
        let quarters = (0..4).map(|quarter: u32| {
            let (from, to) = (warmup / 4 * quarter, warmup / 4 * (quarter + 1));
            let inside = |visit: &&Instant| (from..to).contains(&(**visit - begin));
            visits.iter().filter(inside).count()
        });
        // 25 on average; fewer than 5 in one of them by chance: once in a million.
        let quarters: Vec<_> = quarters.collect();
        if visits.len() == 100 && quarters.iter().all(|&count| count >= 5) {
            return Ok(());
        }
        Err(format!("{} visits, by quarters {quarters:?}", visits.len()))
    })
    .await;
}
