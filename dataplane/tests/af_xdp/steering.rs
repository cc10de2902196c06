//! Each kind of packet that the steering program tells apart, sent raw.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::bpf::Rule;
use dataplane::device::Device;
use dataplane::device::af_xdp::{AfXdp, BindMode, FRAMES_PER_QUEUE, open_worker};
use dataplane::service::{Protocol, ServiceKey};
use dataplane::xsk::umem::{FramePool, FrameSize, Umem};

use super::Worker;
use super::cases::Verdict::{self, Denied, NotForUs, Passed, Steered};
use super::cases::{denied, errors, from_servers, rules, to_services};
use super::network::{Network, queue};
use super::packets::{UDP, later, packet};

#[test]
fn the_program_tells_packets_apart() {
    let Some(network) = Network::build("steer") else {
        return;
    };
    let mut worker = Worker::start(&network, BindMode::Auto);
    for rule in rules() {
        worker.steering.add(&rule).unwrap();
    }
    let mut client = Client::open(&network);
    for (name, packet, verdict) in [to_services(), from_servers(), errors(), denied()].concat() {
        client.assert_verdict(&mut worker, name, &packet, verdict);
    }
}

#[test]
fn rules_that_are_gone_steer_nothing() {
    let Some(network) = Network::build("unsteer") else {
        return;
    };
    let mut worker = Worker::start(&network, BindMode::Auto);
    let mut client = Client::open(&network);
    let key = |port| ServiceKey {
        address: "10.77.0.100".parse::<IpAddr>().unwrap().into(),
        port,
        protocol: Protocol::Udp,
    };
    let to = |port| packet(UDP, "10.77.0.1:5000", &format!("10.77.0.100:{port}"));
    let fragment = later(to(1));
    let [first, second, every] = [key(1), key(2), key(0)].map(Rule::VirtualServer);
    for rule in [first, second, every] {
        worker.steering.add(&rule).unwrap();
    }
    client.assert_verdict(&mut worker, "every port", &to(3), Steered);
    worker.steering.remove(&every).unwrap();
    client.assert_verdict(&mut worker, "not every port", &to(3), Passed);
    client.assert_verdict(&mut worker, "two ports", &fragment, Steered);
    worker.steering.remove(&first).unwrap();
    client.assert_verdict(&mut worker, "the first is gone", &to(1), Passed);
    client.assert_verdict(&mut worker, "the second is left", &to(2), Steered);
    client.assert_verdict(
        &mut worker,
        "for which there may be fragments",
        &fragment,
        Steered,
    );
    worker.steering.remove(&second).unwrap();
    client.assert_verdict(&mut worker, "none is left", &fragment, Passed);

    // Every rule, and every one gone again.
    for rule in rules() {
        worker.steering.add(&rule).unwrap();
    }
    for rule in rules().iter().rev() {
        worker.steering.remove(rule).unwrap();
        worker.steering.remove(rule).unwrap();
    }
    for (name, packet, verdict) in [to_services(), from_servers(), errors(), denied()].concat() {
        if verdict != NotForUs {
            client.assert_verdict(&mut worker, name, &packet, Passed);
        }
    }
}

/// Sends raw frames from the client's interface.
struct Client {
    umem: Arc<Umem>,
    pool: FramePool,
    device: AfXdp,
}

impl Client {
    fn open(network: &Network) -> Self {
        let (umem, mut pool) = Umem::new(FRAMES_PER_QUEUE, FrameSize::Bytes2048).unwrap();
        let mut devices = network.within("client", || {
            open_worker(&umem, &mut pool, &[queue("c0", 0)], BindMode::Auto).unwrap()
        });
        let device = devices.pop().unwrap();
        Self { umem, pool, device }
    }

    /// Sends the frame, sees what the worker gets of it, and what is counted.
    fn assert_verdict(&mut self, worker: &mut Worker, name: &str, packet: &[u8], verdict: Verdict) {
        let before = worker.counters();
        let mut frame = self.pool.take().unwrap();
        self.umem.fill(&mut frame, packet).unwrap();
        self.device.transmit(frame).unwrap();
        while self.device.has_outstanding() {
            self.device.flush(&mut self.pool);
        }
        let steered = verdict == Steered;
        let mut arrived = Vec::new();
        let deadline = Instant::now() + Duration::from_millis(if steered { 2000 } else { 10 });
        while arrived.is_empty() && Instant::now() < deadline {
            worker.devices[0].receive(&mut arrived);
            worker.devices[1].receive(&mut arrived);
        }
        assert_eq!(arrived.len(), usize::from(steered), "{name}");
        for frame in arrived.drain(..) {
            assert_eq!(worker.umem.bytes(&frame), packet, "{name}");
            worker.pool.give(frame);
        }
        for device in &mut worker.devices {
            device.flush(&mut worker.pool);
        }
        let after = worker.counters();
        assert_eq!(after.steered - before.steered, steered.into(), "{name}");
        let denied = verdict == Denied;
        assert_eq!(after.denied - before.denied, denied.into(), "{name}");
        // The client's kernel sends something now and then, too.
        let passed = after.passed > before.passed;
        let not_for_us = after.not_for_us > before.not_for_us;
        assert!(passed || verdict != Passed, "{name}");
        assert!(not_for_us || verdict != NotForUs, "{name}");
    }
}
