//! AF_XDP and the steering program on real interfaces, in network namespaces.
//! Needs root; says `skipped` otherwise.

#![expect(clippy::unwrap_used, reason = "a test")]

mod cases;
mod decap;
mod network;
mod packets;
mod steering;
mod tap;

use std::collections::HashSet;
use std::error::Error;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::bpf::{Mode, Rule, Steering, SteeringCounters};
use dataplane::device::Device;
use dataplane::device::af_xdp::{
    AfXdp, BindMode, FRAMES_PER_QUEUE, fill_share, open_more, open_worker,
};
use dataplane::service::{MacAddress, Protocol, ServiceKey};
use dataplane::xsk::umem::{Frame, FramePool, FrameSize, Umem};

use network::{DIRECTOR_MAC, Network, SERVER_MAC, VIP, ifindex, queue};

/// Steers what is for port 9000 of the address.
fn service(address: &str, protocol: Protocol) -> Rule {
    let address: IpAddr = address.parse().unwrap();
    Rule::VirtualServer(ServiceKey {
        address: address.into(),
        port: 9000,
        protocol,
    })
}

/// A director's worker over both queues of d0 and the queue of d1.
struct Worker {
    steering: Steering,
    devices: Vec<AfXdp>,
    umem: Arc<Umem>,
    pool: FramePool,
    burst: Vec<Frame>,
    /// Frames received on each of the devices.
    received: [usize; 3],
}

impl Worker {
    fn start(network: &Network, mode: BindMode) -> Self {
        network.within("director", || {
            let frames = 3 * FRAMES_PER_QUEUE;
            let (umem, mut pool) = Umem::new(frames, FrameSize::Bytes2048).unwrap();
            let mut steering = Steering::attach(ifindex("d0"), "d0", mode).unwrap();
            steering.set_macs(&[MacAddress(DIRECTOR_MAC)]).unwrap();
            let queues = [queue("d0", 0), queue("d0", 1), queue("d1", 0)];
            let devices = open_worker(&umem, &mut pool, &queues, mode).unwrap();
            for device in &devices[..2] {
                let queue = device.spec().queue;
                steering.register_socket(queue, device).unwrap();
            }
            let burst = Vec::with_capacity(64);
            Self {
                steering,
                devices,
                umem,
                pool,
                burst,
                received: [0; 3],
            }
        })
    }

    /// Forwards to the server what arrives, until `done`.
    fn forward(&mut self, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done(self) && Instant::now() < deadline {
            for arrival in 0..3 {
                self.received[arrival] += self.devices[arrival].receive(&mut self.burst);
                for mut frame in self.burst.drain(..) {
                    let packet = self.umem.bytes_mut(&mut frame);
                    packet[..6].copy_from_slice(&SERVER_MAC);
                    if let Err(frame) = self.devices[2].transmit(frame) {
                        self.pool.give(frame);
                    }
                }
            }
            for device in &mut self.devices {
                device.flush(&mut self.pool);
            }
            std::thread::yield_now();
        }
    }

    /// Forwards until `count` frames were received, or for ten seconds.
    fn forward_count(&mut self, count: usize) {
        self.forward(|worker| worker.received.iter().sum::<usize>() >= count);
        self.forward(|worker| !worker.devices.iter().any(Device::has_outstanding));
    }

    /// Every frame of the umem is in the pool or lent.
    fn assert_no_frame_lost(&self) {
        let lent: u32 = self.devices.iter().map(AfXdp::lent).sum();
        assert_eq!(
            self.pool.len() + lent as usize,
            3 * FRAMES_PER_QUEUE as usize
        );
        for device in &self.devices {
            assert_eq!(
                device.statistics(),
                Default::default(),
                "{:?}",
                device.spec()
            );
        }
    }

    fn counters(&self) -> SteeringCounters {
        self.steering.counters().unwrap()
    }
}

/// Sends `each` datagrams from each of 20 client ports; each says a number of
/// its own.
fn send_datagrams(network: &Network, each: u32) -> HashSet<u32> {
    let mut numbers = HashSet::new();
    for socket in 0..20 {
        let client = network.within("client", || UdpSocket::bind("10.77.0.1:0").unwrap());
        for datagram in 0..each {
            let number = socket * each + datagram;
            client.send_to(&number.to_be_bytes(), (VIP, 9000)).unwrap();
            numbers.insert(number);
        }
    }
    numbers
}

fn receive_datagrams(socket: &UdpSocket) -> HashSet<u32> {
    let mut numbers = HashSet::new();
    let mut buffer = [0; 64];
    while let Ok(4) = socket.recv(&mut buffer) {
        let number = u32::from_be_bytes(buffer[..4].try_into().unwrap());
        assert!(numbers.insert(number), "datagram {number} came twice");
    }
    numbers
}

fn server(network: &Network, role: &str) -> UdpSocket {
    let socket = network.within(role, || UdpSocket::bind((VIP, 9000)).unwrap());
    let patience = Some(Duration::from_millis(300));
    socket.set_read_timeout(patience).unwrap();
    socket
}

fn assert_nothing_attached(network: &Network, role: &str) {
    let show = format!("ip -n {role} -details link show");
    // A command that another test starts has a copy of every descriptor until it is
    // executed, and what was closed here is closed then.
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let links = network.run(&show);
        if !links.contains("prog/xdp") {
            return;
        }
        assert!(Instant::now() < deadline, "{links}");
    }
}

#[test]
fn datagrams_of_both_queues_reach_the_server_and_no_frame_is_lost() {
    let Some(network) = Network::build("both") else {
        return;
    };
    let server = server(&network, "server");
    let mut worker = Worker::start(&network, BindMode::Auto);
    assert_eq!(worker.steering.attached().mode, Mode::Native);
    assert_eq!(worker.steering.attached().fallback, None);
    assert!(!worker.devices[0].is_zero_copy(), "veth cannot");
    let key = service(VIP, Protocol::Udp);
    worker.steering.add(&key).unwrap();
    worker.steering.add(&key).unwrap();

    let sent = send_datagrams(&network, 10);
    worker.forward_count(200);
    assert_eq!(receive_datagrams(&server), sent);
    assert!(
        worker.received[0] > 0 && worker.received[1] > 0,
        "{:?}",
        worker.received
    );
    assert_eq!(worker.counters().steered, 200);
    assert_eq!(worker.counters().no_socket, 0);
    worker.assert_no_frame_lost();

    drop(worker);
    assert_nothing_attached(&network, "DIRECTOR");
}

#[test]
fn two_workers_share_an_interface() {
    let Some(network) = Network::build("two") else {
        return;
    };
    let mut steering = network.within("director", || {
        Steering::attach(ifindex("d0"), "d0", BindMode::Auto).unwrap()
    });
    steering.set_macs(&[MacAddress(DIRECTOR_MAC)]).unwrap();
    let mut workers = [0, 1].map(|number| {
        let (umem, mut pool) = Umem::new(FRAMES_PER_QUEUE, FrameSize::Bytes2048).unwrap();
        let mut devices = network.within("director", || {
            open_worker(&umem, &mut pool, &[queue("d0", number)], BindMode::Auto).unwrap()
        });
        let device = devices.pop().unwrap();
        steering.register_socket(number, &device).unwrap();
        (umem, pool, device, Vec::new())
    });
    let key = service(VIP, Protocol::Udp);
    steering.add(&key).unwrap();

    // More than a fill ring holds, so that frames must come round.
    let mut received = [0; 2];
    for _ in 0..30 {
        send_datagrams(&network, 10);
        for (worker, received) in workers.iter_mut().zip(&mut received) {
            let (umem, pool, device, burst) = worker;
            while device.receive(burst) > 0 {
                for frame in burst.drain(..) {
                    assert_eq!(umem.bytes(&frame)[..6], DIRECTOR_MAC);
                    *received += 1;
                    pool.give(frame);
                }
                device.flush(pool);
            }
        }
    }
    assert_eq!(received.iter().sum::<usize>(), 6000);
    assert!(received[0] > 0 && received[1] > 0, "{received:?}");
}

#[test]
fn a_socket_leaves_its_frames_behind_and_another_takes_its_place() {
    let Some(network) = Network::build("leave") else {
        return;
    };
    let mut worker = Worker::start(&network, BindMode::Auto);
    worker.steering.add(&service(VIP, Protocol::Udp)).unwrap();
    let server = server(&network, "server");
    for _ in 0..2 {
        let sent = send_datagrams(&network, 10);
        worker.forward_count(worker.received.iter().sum::<usize>() + sent.len());
        assert_eq!(receive_datagrams(&server), sent);
        worker.assert_no_frame_lost();

        let gone = worker.devices.pop().unwrap();
        assert!(gone.lent() > 0);
        for frame in gone.close() {
            worker.pool.give(frame);
        }
        worker.assert_no_frame_lost();
        let sharing = worker.devices[0].sharing();
        let more = network.within("director", || {
            open_more(&sharing, &[queue("d1", 0)], BindMode::Auto)
        });
        let mut device = more.unwrap().pop().unwrap();
        *device.fill_level().unwrap() = fill_share(3 * FRAMES_PER_QUEUE, 3);
        device.flush(&mut worker.pool);
        worker.devices.push(device);
    }
}

#[test]
fn a_full_fill_ring_is_all_that_a_silent_worker_receives() {
    let Some(network) = Network::build("silent") else {
        return;
    };
    let mut worker = Worker::start(&network, BindMode::Auto);
    let key = service(VIP, Protocol::Udp);
    worker.steering.add(&key).unwrap();
    send_datagrams(&network, 250); // 5000
    let statistics: Vec<_> = worker.devices.iter().map(Device::statistics).collect();
    let lost = statistics
        .iter()
        .map(|of| of.rx_fill_ring_empty)
        .sum::<u64>();
    let others = statistics.iter().map(|of| of.rx_dropped + of.rx_ring_full);
    assert_eq!(others.sum::<u64>(), 0, "{statistics:?}");
    assert_eq!(worker.counters().steered, 5000);
    worker.forward_count(5000 - usize::try_from(lost).unwrap());
    assert_eq!(worker.received.iter().sum::<usize>() as u64 + lost, 5000);
    assert!(lost >= 5000 - 2 * 2048, "{statistics:?}");
}

#[test]
fn other_traffic_stays_with_the_kernel() {
    let Some(network) = Network::build("other") else {
        return;
    };
    // This one is the director's own, at the VIP.
    let kernel = server(&network, "director");
    let mut worker = Worker::start(&network, BindMode::Auto);
    worker.steering.add(&service(VIP, Protocol::Tcp)).unwrap();

    network.run("ip netns exec CLIENT ping -c 2 -i 0.1 -W 2 10.77.0.2");
    network.run("ip netns exec CLIENT ping -c 2 -i 0.1 -W 2 10.77.0.100");
    let sent = send_datagrams(&network, 1);
    assert_eq!(
        receive_datagrams(&kernel),
        sent,
        "UDP, and only TCP is steered"
    );

    let key = service(VIP, Protocol::Udp);
    worker.steering.add(&key).unwrap();
    send_datagrams(&network, 1);
    assert_eq!(receive_datagrams(&kernel).len(), 0, "steered now");
    assert_eq!(worker.counters().steered, 20);

    worker.steering.remove(&key).unwrap();
    worker.steering.remove(&key).unwrap();
    let sent = send_datagrams(&network, 1);
    assert_eq!(receive_datagrams(&kernel), sent, "the kernel's again");
    worker.forward_count(20);
    worker.assert_no_frame_lost();
}

#[test]
fn a_queue_without_a_socket_falls_back_to_the_kernel() {
    let Some(network) = Network::build("nosock") else {
        return;
    };
    let kernel = server(&network, "director");
    let mut worker = Worker::start(&network, BindMode::Auto);
    let key = service(VIP, Protocol::Udp);
    worker.steering.add(&key).unwrap();
    // Closing the sockets takes them out of the program's map.
    worker.devices.clear();
    let deadline = Instant::now() + Duration::from_secs(2);
    while send_datagrams(&network, 1).len() != receive_datagrams(&kernel).len() {
        assert!(Instant::now() < deadline, "the kernel does not get them");
    }
    assert!(worker.counters().no_socket >= 20);
}

#[test]
fn generic_mode_forwards_as_well() {
    let Some(network) = Network::build("generic") else {
        return;
    };
    let server = server(&network, "server");
    let mut worker = Worker::start(&network, BindMode::Generic);
    assert_eq!(worker.steering.attached().mode, Mode::Generic);
    worker.steering.add(&service(VIP, Protocol::Udp)).unwrap();
    let sent = send_datagrams(&network, 10);
    worker.forward_count(200);
    assert_eq!(receive_datagrams(&server), sent);
    worker.assert_no_frame_lost();
    drop(worker);
    assert_nothing_attached(&network, "DIRECTOR");
}

#[test]
fn more_frames_than_the_tx_ring_holds_are_all_sent_or_given_back() {
    let Some(network) = Network::build("burst") else {
        return;
    };
    let mut worker = Worker::start(&network, BindMode::Copy);
    let (mut sent, mut refused) = (0, 0);
    for _ in 0..3000 {
        let mut frame = worker.pool.take().unwrap();
        worker.umem.fill(&mut frame, &[2; 60]).unwrap();
        match worker.devices[2].transmit(frame) {
            Ok(()) => sent += 1,
            Err(frame) => {
                refused += 1;
                worker.pool.give(frame);
            }
        }
    }
    assert_eq!((sent, refused), (2048, 952));
    // An empty frame is not sent, and not lost either.
    let empty = worker.pool.take().unwrap();
    worker.devices[1].transmit(empty).unwrap();
    worker.devices[1].flush(&mut worker.pool);
    assert_eq!(worker.devices[1].statistics().tx_invalid, 1);

    worker.forward(|worker| !worker.devices[2].has_outstanding());
    let lent: u32 = worker.devices.iter().map(AfXdp::lent).sum();
    assert_eq!(
        worker.pool.len() + lent as usize,
        3 * FRAMES_PER_QUEUE as usize
    );
    let link = network.run("ip -n SERVER -s -j link show s0");
    assert!(link.contains(r#""rx":{"bytes":"#), "{link}");
    let packets = link.split(r#""packets":"#).nth(1).unwrap();
    let packets: u64 = packets.split(',').next().unwrap().parse().unwrap();
    assert!(packets >= 2048, "{packets} arrived");
}

#[test]
fn an_interface_that_is_down_keeps_frames_until_it_is_up() {
    let Some(network) = Network::build("down") else {
        return;
    };
    let mut worker = Worker::start(&network, BindMode::Auto);
    network.run("ip -n DIRECTOR link set d1 down");
    for _ in 0..100 {
        let mut frame = worker.pool.take().unwrap();
        worker.umem.fill(&mut frame, &[2; 60]).unwrap();
        worker.devices[2].transmit(frame).unwrap();
    }
    for _ in 0..10 {
        worker.devices[2].flush(&mut worker.pool);
    }
    assert!(worker.devices[2].has_outstanding());
    network.run("ip -n DIRECTOR link set d1 up");
    worker.forward(|worker| !worker.devices[2].has_outstanding());
    assert!(!worker.devices[2].has_outstanding());
    worker.assert_no_frame_lost();
}

#[test]
fn errors_say_what_failed_and_what_to_do() {
    let Some(network) = Network::build("errors") else {
        return;
    };
    network.within("director", || {
        let (umem, mut pool) = Umem::new(64, FrameSize::Bytes2048).unwrap();
        let mut open = |interface: &str, number, mode| {
            let spec = queue(interface, number);
            open_worker(&umem, &mut pool, &[spec], mode).map_err(|error| error.to_string())
        };
        let error = open("d0", 0, BindMode::ZeroCopy).unwrap_err();
        let expected = "d0, queue 0: cannot bind the AF_XDP socket in mode zero-copy: \
                        the driver has no zero-copy: use mode \"auto\" or \"copy\"";
        assert_eq!(error, expected);
        let error = open("d0", 7, BindMode::Auto).unwrap_err();
        assert!(
            error.contains("queue 7") && error.contains("no such queue"),
            "{error}"
        );

        let held = open("d0", 0, BindMode::Auto).unwrap();
        let error = open("d0", 0, BindMode::Auto).unwrap_err();
        assert!(
            error.contains("in use by another AF_XDP program"),
            "{error}"
        );
        drop(held);
        open("d0", 0, BindMode::Auto).unwrap(); // although just closed

        let first = Steering::attach(ifindex("d0"), "d0", BindMode::Auto).unwrap();
        for mode in [BindMode::Auto, BindMode::Generic] {
            let error = Steering::attach(ifindex("d0"), "d0", mode).unwrap_err();
            assert!(error.source().is_some());
            let remedy = "`ip link set dev d0 xdp off`";
            assert!(error.to_string().contains(remedy), "{mode}: {error}");
        }
        drop(first);

        // The loopback interface has no native XDP.
        let error = Steering::attach(ifindex("lo"), "lo", BindMode::Copy).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("no native XDP: use mode \"auto\""),
            "{error}"
        );
        let steering = Steering::attach(ifindex("lo"), "lo", BindMode::Auto).unwrap();
        let attached = steering.attached();
        assert_eq!(attached.mode, Mode::Generic);
        assert_eq!(
            attached.fallback.as_deref(),
            Some("the driver has no native XDP")
        );
        drop(steering);

        let error = Steering::attach(4_000_000, "gone0", BindMode::Auto).unwrap_err();
        let expected = "gone0: cannot attach the XDP program in native mode: the interface is gone";
        assert_eq!(error.to_string(), expected);
    });
    assert_nothing_attached(&network, "DIRECTOR");
}
