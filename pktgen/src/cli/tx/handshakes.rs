//! `pktgen tx --handshakes`: connections that are opened and closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pktgen::handshake::{Connections, Segment, proceed};
use pktgen::interface::Interface;
use pktgen::live::{Plan, Sent};
use pktgen::receive::{Receiver, Take};
use pktgen::user_space::Pace;
use signal_hook::consts::{SIGINT, SIGTERM};

/// How long answers to the last connections are waited for.
const DRAIN: Duration = Duration::from_millis(200);
/// Connections opened before answers are looked at.
const BURST: usize = 32;

/// Opens connections at the plan's rate, each flow's in turn, and closes those that are answered.
pub(super) fn run(
    plan: &Plan,
    interface: &Interface,
    duration: Duration,
    mut progress: impl FnMut(Sent),
) -> anyhow::Result<(Sent, Connections)> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let destination = plan.layout.destination;
    let mut socket = Receiver::attach(interface, Take::FromPort(destination.port()))?;
    let macs = [plan.layout.source_mac, plan.layout.destination_mac];
    let mut order = plan.flows.order();
    let mut pace = Pace::new(plan.rate);
    let mut connections = Connections::default();
    let mut total = Sent::default();
    let mut frame = Vec::new();
    let start = Instant::now();
    let mut next = Duration::from_secs(1);
    let mut elapsed = Duration::ZERO;
    while elapsed < duration + DRAIN && !stop.load(Ordering::Relaxed) {
        let wanted = if elapsed < duration {
            pace.due(elapsed).min(BURST)
        } else {
            0
        };
        for _ in 0..wanted {
            let (flow, round) = order.next().unwrap_or_default();
            let from = plan.flows.source(flow);
            let to = (destination.ip(), destination.port());
            let syn = Segment::opening(macs, from, to, round.wrapping_mul(1 << 16));
            syn.write(&mut frame);
            if !socket.send(&frame) {
                break; // All frames are under way: the answers come first.
            }
            pace.sent += 1;
            connections.opened += 1;
            total.frames += 1;
            total.bytes += frame.len() as u64;
        }
        let received = socket.exchange(|packet, _, out| {
            let Some(segment) = Segment::read(packet) else {
                return;
            };
            for answer in proceed(&segment, &mut connections).iter().flatten() {
                answer.write(&mut frame);
                if out.send(&frame) {
                    total.frames += 1;
                    total.bytes += frame.len() as u64;
                }
            }
        });
        if wanted == 0 && received == 0 {
            socket.wait(Duration::from_millis(1));
        }
        elapsed = start.elapsed();
        if elapsed >= next {
            next += Duration::from_secs(1);
            progress(Sent { elapsed, ..total });
        }
    }
    total.elapsed = elapsed.min(duration);
    connections.per_second = connections.closed as f64 / total.elapsed.as_secs_f64();
    Ok((total, connections))
}
