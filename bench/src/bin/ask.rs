//! The client of `bench/failover`, and who answers it.
//!
//! `ask VIP:PORT` sends a numbered datagram every millisecond until stdin ends; then it prints an
//! [`Outage`] as JSON. The first answer is said on stderr.
//! `ask --answer NAME ADDRESS:PORT` answers with a name.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bench::outage::{self, Outage};
use clap::Parser;

/// How often is asked.
const INTERVAL: Duration = Duration::from_millis(1);
/// How long the last answers are waited for.
const PATIENCE: Duration = Duration::from_millis(200);

/// Asks every millisecond who answers.
#[derive(Debug, Parser)]
struct Arguments {
    /// Whom to ask, or where to answer
    address: SocketAddr,
    /// Answer instead, with this name
    #[arg(long, value_name = "NAME")]
    answer: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { address, answer } = Arguments::parse();
    match answer {
        Some(name) => answer_all(address, &name),
        None => {
            println!("{}", serde_json::to_string(&ask(address)?)?);
            Ok(())
        }
    }
}

fn answer_all(address: SocketAddr, name: &str) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
    let mut buffer = [0; 64];
    loop {
        let (length, client) = socket.recv_from(&mut buffer)?;
        // The client may be out of reach for now: it counts what it misses.
        let _ = socket.send_to(&outage::answer(&buffer[..length], name), client);
    }
}

fn ask(address: SocketAddr) -> anyhow::Result<Outage> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let listener = scope.spawn(|| listen(&socket, &over));
        scope.spawn(|| {
            // It ends, or cannot be read: over in any case.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            over.store(true, Ordering::Relaxed);
        });
        let begin = Instant::now();
        let mut sent = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let number = u64::try_from(sent.len())?;
            let at = begin.elapsed();
            sent.push(at);
            // What cannot be sent (nobody is there, no route) is lost like what is not answered.
            let _ = socket.send(&number.to_be_bytes());
            let next =
                at + INTERVAL - Duration::from_nanos(u64::from(at.subsec_nanos()) % 1_000_000);
            thread::sleep(next.saturating_sub(begin.elapsed()));
        }
        let answers = listener.join().expect("the listener does not panic");
        Ok(Outage::of(&outage::join(&sent, answers)))
    })
}

/// All answers, until nothing has come for a while after the end.
fn listen(socket: &UdpSocket, over: &AtomicBool) -> Vec<(u64, String)> {
    let mut answers = Vec::new();
    let mut buffer = [0; 64];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                if answers.is_empty() {
                    eprintln!("answered");
                }
                answers.extend(outage::read_answer(&buffer[..length]));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if over.load(Ordering::Relaxed) {
                    return answers;
                }
            }
            // An ICMP error: nobody is there.
            Err(_) => {}
        }
    }
}
