//! The way back to the kernel.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use dataplane::bpf::Rule;
use dataplane::device::Device;
use dataplane::device::af_xdp::BindMode;
use dataplane::device::tap::{self, Tap};
use dataplane::service::{Protocol, ServiceKey};
use dataplane::xsk::umem::{FramePool, FrameSize, Umem};

use super::Worker;
use super::network::{Network, VIP};
use super::packets::udp;

/// How long a packet that is expected may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A tap in the director's namespace.
struct Back {
    umem: Arc<Umem>,
    pool: FramePool,
    tap: Tap,
}

impl Back {
    fn open(network: &Network) -> Self {
        let (umem, pool) = Umem::new(64, FrameSize::Bytes2048).unwrap();
        let interface = network.within("director", || tap::create().unwrap());
        let tap = Tap::new(interface, &umem);
        Self { umem, pool, tap }
    }

    fn write(&mut self, packet: &[u8]) {
        let mut frame = self.pool.take().unwrap();
        self.umem.fill(&mut frame, packet).unwrap();
        self.tap.transmit(frame).unwrap();
        assert!(self.tap.has_outstanding());
        self.tap.flush(&mut self.pool);
        assert_eq!(self.pool.len(), 64);
    }
}

/// A socket that waits for a datagram for as long as a busy machine may take.
pub(super) fn socket(network: &Network, role: &str, address: &str) -> UdpSocket {
    let socket = network.within(role, || UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(super) fn came_from(socket: &UdpSocket) -> Option<String> {
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    assert_eq!(&buffer[..length], b"ve bytes");
    Some(from.to_string())
}

#[test]
fn the_kernel_receives_what_is_written_to_the_tap() {
    let Some(network) = Network::build("tap") else {
        return;
    };
    // The strictest check of the path back; the director has no route by the tap.
    let strict = "ip netns exec DIRECTOR sysctl -qw net.ipv4.conf.all.rp_filter=1";
    network.run(strict);
    network.add_ipv6("director", "fd00::2/64", "d0");
    let mut back = Back::open(&network);
    assert!(
        back.tap.name().starts_with("appliance"),
        "{}",
        back.tap.name()
    );
    let here = socket(&network, "director", "10.77.0.2:7000");
    let here6 = socket(&network, "director", "[fd00::2]:7000");

    let ours = udp("10.77.0.1:5000", "10.77.0.2:7000");
    back.write(&ours);
    assert_eq!(came_from(&here).as_deref(), Some("10.77.0.1:5000"));
    let mut tagged = ours.clone();
    tagged.splice(12..12, [0x88, 0xa8, 0, 6, 0x81, 0, 0, 5]);
    back.write(&tagged);
    assert_eq!(came_from(&here).as_deref(), Some("10.77.0.1:5000"));
    back.write(&udp("[fd00::1]:5000", "[fd00::2]:7000"));
    assert_eq!(came_from(&here6).as_deref(), Some("[fd00::1]:5000"));

    // A packet for another host is routed onward where the host routes.
    let server = socket(&network, "server", "10.78.0.1:7000");
    let onward = udp("10.77.0.1:5000", "10.78.0.1:7000");
    network.run("ip netns exec DIRECTOR sysctl -qw net.ipv4.ip_forward=0");
    back.write(&onward);
    let moment = Some(Duration::from_millis(100));
    server.set_read_timeout(moment).unwrap();
    assert_eq!(came_from(&server), None);
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    network.run("ip netns exec DIRECTOR sysctl -qw net.ipv4.ip_forward=1");
    back.write(&onward);
    assert_eq!(came_from(&server).as_deref(), Some("10.77.0.1:5000"));

    // A frame that is none is counted.
    for runt in [&ours[..13], &tagged[..19]] {
        back.write(runt);
    }
    assert_eq!(back.tap.statistics().tx_invalid, 2);
    assert_eq!(back.tap.statistics().tx_dropped, 0);

    drop(back);
    let links = network.run("ip -n DIRECTOR -o link show");
    assert!(!links.contains("appliance"), "{links}");
}

#[test]
fn fragments_that_only_the_kernel_can_join_reach_it() {
    let Some(network) = Network::build("tapfrag") else {
        return;
    };
    network.add_ipv6("director", "fd00::64/64", "d0");
    network.add_ipv6("client", "fd00::1/64", "c0");
    let mut worker = Worker::start(&network, BindMode::Auto);
    let interface = network.within("director", || tap::create().unwrap());
    let mut tap = Tap::new(interface, &worker.umem);
    for vip in [VIP, "fd00::64"] {
        // Port 9000 is a service and port 7000 is not, which a later fragment does not say.
        let rule = super::service(vip, Protocol::Udp);
        worker.steering.add(&rule).unwrap();
        let address: IpAddr = vip.parse().unwrap();
        let host = network.within("director", || UdpSocket::bind((address, 7000)).unwrap());
        host.set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let client = network.within("client", || {
            let any = if address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            UdpSocket::bind(any).unwrap()
        });
        // The neighbours know each other: nothing is lost for that.
        network.run(&format!("ip netns exec CLIENT ping -q -c 1 -W 5 {vip}"));
        let before = worker.counters().steered;
        client.send_to(&[7; 4000], (address, 7000)).unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        let (mut burst, mut datagram) = (Vec::new(), [0; 5000]);
        let length = loop {
            for device in &mut worker.devices[..2] {
                device.receive(&mut burst);
            }
            for frame in burst.drain(..) {
                tap.transmit(frame).unwrap();
            }
            tap.flush(&mut worker.pool);
            if let Ok(length) = host.recv(&mut datagram) {
                break length;
            }
            assert!(std::time::Instant::now() < deadline, "nothing came, {vip}");
        };
        assert_eq!(datagram[..length], [7; 4000], "{vip}");
        // The first of three fragments never left the kernel.
        assert_eq!(worker.counters().steered - before, 2, "{vip}");
    }
}

#[test]
fn a_connection_lives_although_every_packet_went_through_a_worker() {
    let Some(network) = Network::build("back") else {
        return;
    };
    let mut worker = Worker::start(&network, BindMode::Auto);
    let address: IpAddr = VIP.parse().unwrap();
    let key = ServiceKey {
        address: address.into(),
        port: 7000,
        protocol: Protocol::Tcp,
    };
    worker.steering.add(&Rule::VirtualServer(key)).unwrap();
    let interface = network.within("director", || tap::create().unwrap());
    let mut tap = Tap::new(interface.try_clone().unwrap(), &worker.umem);
    let listener = network.within("director", || TcpListener::bind((VIP, 7000)).unwrap());

    let client = network.within("client", || {
        std::thread::spawn(|| {
            let mut stream = TcpStream::connect((VIP, 7000))?;
            stream.write_all(&[7; 100_000])?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        })
    });
    let host = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        write!(stream, "{} bytes", received.len()).unwrap();
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let mut burst = Vec::new();
    while !client.is_finished() && std::time::Instant::now() < deadline {
        for device in &mut worker.devices {
            device.receive(&mut burst);
        }
        for frame in burst.drain(..) {
            tap.transmit(frame).unwrap();
        }
        tap.flush(&mut worker.pool);
        for device in &mut worker.devices {
            device.flush(&mut worker.pool);
        }
    }
    assert_eq!(client.join().unwrap().unwrap(), "100000 bytes");
    host.join().unwrap();
    assert!(worker.counters().steered > 4, "{:?}", worker.counters());
}
