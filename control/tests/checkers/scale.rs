//! Ten thousand checks a second. Run by hand, it wants a quiet machine:
//!
//!     cargo test --release -p control --test checkers -- --ignored --nocapture

use std::thread;
use std::time::{Duration, Instant};

use control::config::CheckKind;
use control::event::CheckId;
use control::health::Checker;
use control::scripts::{Policy, Runner};
use tokio::sync::mpsc;

use super::{check, get, udp};

const CHECKS: usize = 10_000;
const SECONDS: u64 = 10;

/// Time of the CPU that this thread has used.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

/// Accepts and answers what an HTTP check asks, in threads of its own.
fn server() -> std::net::SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(4096).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    for _ in 0..4 {
        let listener = listener.try_clone().unwrap();
        thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            while let Ok((mut stream, _)) = listener.accept() {
                if matches!(stream.read(&mut [0; 512]), Ok(1..)) {
                    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nfine");
                }
            }
        });
    }
    address
}

#[tokio::test]
#[ignore = "a measurement"]
async fn ten_thousand_checks_a_second() {
    let udp_server = super::Udp::start(|request| Some(request.to_vec()));
    let tcp_server = server();
    let kinds = [
        (CheckKind::TcpCheck, tcp_server),
        (get(false), tcp_server),
        (udp(None), udp_server.address),
    ];
    for (kind, target) in kinds {
        let name = kind.name();
        let (sender, mut events) = mpsc::channel(CHECKS);
        let mut checker = Checker::new(sender, Runner::new(Policy::default()));
        for number in 0..CHECKS {
            let mut wanted = check(kind.clone(), target);
            wanted.connect_timeout = Duration::from_secs(3);
            wanted.delay_loop = Duration::from_secs(1);
            wanted.warmup = Duration::from_secs(1);
            let id = CheckId {
                virtual_server: "TCP 192.0.2.1:80".into(),
                real_server: target,
                check: number,
            };
            checker.start(id, wanted);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let tries = |checker: &Checker| checker.status().map(|(_, s)| s.tries).sum::<u64>();
        let (begin, used, before) = (Instant::now(), cpu_time(), tries(&checker));
        tokio::time::sleep(Duration::from_secs(SECONDS)).await;
        let elapsed = begin.elapsed();
        let (used, made) = (cpu_time() - used, tries(&checker) - before);
        let rate = made as f64 / elapsed.as_secs_f64();
        let core = used.as_secs_f64() / elapsed.as_secs_f64();
        // On a busy machine fewer are made: what counts is the cost of each.
        let of_ten_thousand = core / rate * 10_000.0;
        println!(
            "{name}: {rate:.0} tries/s, {core:.2} of a core; {of_ten_thousand:.2} for 10,000/s"
        );
        assert!(events.try_recv().is_err(), "{name}: a check failed");
        assert!(of_ten_thousand < 0.5, "{name}");
    }
}
