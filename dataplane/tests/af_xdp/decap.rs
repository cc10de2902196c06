//! Packets out of tunnels, on a real server without tunnel devices.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::bpf::Mode;
use dataplane::bpf::decap::{self, DecapCounters, Decapsulator, TunnelEnd};
use dataplane::device::Device;
use dataplane::device::af_xdp::{AfXdp, BindMode, FRAMES_PER_QUEUE, open_worker};
use dataplane::service::Tunnel;
use dataplane::xsk::umem::{FramePool, FrameSize, Umem};

use super::assert_nothing_attached;
use super::network::{Network, SERVER_MAC, VIP, ifindex, queue};
use super::packets::{UDP, build, extended, udp, with};
use super::tap::{PATIENCE, came_from, socket};

const DIRECTOR: &str = "10.78.0.2";
const SERVER: &str = "10.78.0.1";
const DIRECTOR6: &str = "fd01::2";
const SERVER6: &str = "fd01::1";
const IPIP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;
const GUE_PORT: u16 = 6080;

/// The director's end of the wire to the server.
struct Director {
    umem: Arc<Umem>,
    pool: FramePool,
    device: AfXdp,
}

impl Director {
    fn open(network: &Network) -> Self {
        let (umem, mut pool) = Umem::new(FRAMES_PER_QUEUE, FrameSize::Bytes2048).unwrap();
        let mut devices = network.within("director", || {
            open_worker(&umem, &mut pool, &[queue("d1", 0)], BindMode::Auto).unwrap()
        });
        let device = devices.pop().unwrap();
        Self { umem, pool, device }
    }

    fn send(&mut self, packet: &[u8]) {
        let mut frame = self.pool.take().unwrap();
        self.umem.fill(&mut frame, packet).unwrap();
        self.umem.bytes_mut(&mut frame)[..6].copy_from_slice(&SERVER_MAC);
        self.device.transmit(frame).unwrap();
        while self.device.has_outstanding() {
            self.device.flush(&mut self.pool);
        }
    }
}

/// The real server, with its end of every tunnel, and a socket for each VIP.
struct Server {
    decapsulator: Decapsulator,
    vip: UdpSocket,
    vip6: UdpSocket,
}

fn ends() -> Vec<TunnelEnd> {
    let mut ends = Vec::new();
    for address in [SERVER, SERVER6] {
        for tunnel in [Tunnel::Ipip, Tunnel::Gre, Tunnel::Gue { port: GUE_PORT }] {
            let address = address.parse().unwrap();
            ends.push(TunnelEnd { address, tunnel });
        }
    }
    ends
}

fn attach(network: &Network, mode: BindMode, ends: &[TunnelEnd]) -> Decapsulator {
    network.within("server", || {
        decap::attach(ifindex("s0"), "s0", mode, ends).unwrap()
    })
}

impl Server {
    fn start(network: &Network, mode: BindMode) -> Self {
        network.add_ipv6("server", "fd01::1/64", "s0");
        network.add_ipv6("server", "fd00::64/128", "lo");
        network.run("ip -n SERVER route add default via fd01::2");
        Self {
            decapsulator: attach(network, mode, &ends()),
            vip: socket(network, "server", &format!("{VIP}:9000")),
            vip6: socket(network, "server", "[fd00::64]:9000"),
        }
    }

    /// Waits until the program has seen another packet of a kind.
    fn count_after(&self, before: DecapCounters, of: fn(&DecapCounters) -> u64) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            let counters = self.decapsulator.counters().unwrap();
            let more = of(&counters) - of(&before);
            if more > 0 || Instant::now() > deadline {
                return more;
            }
            std::thread::yield_now();
        }
    }
}

/// The IP packet of the frame in another, after some bytes more.
fn wrap(protocol: u8, from: &str, to: &str, between: &[u8], inner: &[u8]) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    build(protocol, from, to, &[between, &inner[14..]].concat())
}

/// UDP ports, length, no checksum, and what follows.
fn gue(port: u16, header: &[u8], inner: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + header.len() + inner.len() - 14).unwrap();
    let ports = [51000_u16.to_be_bytes(), port.to_be_bytes()].concat();
    [&ports[..], &length.to_be_bytes(), &[0, 0], header].concat()
}

fn inner() -> Vec<u8> {
    udp("10.77.0.1:5000", &format!("{VIP}:9000"))
}

fn inner6() -> Vec<u8> {
    udp("[fd00::1]:5000", "[fd00::64]:9000")
}

/// Every kind of tunnel, in both families and around both.
fn tunnelled() -> Vec<(String, Vec<u8>, bool)> {
    let mut cases = Vec::new();
    for (from, to) in [(DIRECTOR, SERVER), (DIRECTOR6, SERVER6)] {
        for is_v4 in [true, false] {
            let inner = if is_v4 { inner() } else { inner6() };
            let protocol = if is_v4 { IPIP } else { IPV6_IN_IP };
            let ether: &[u8] = if is_v4 { &[0x08, 0x00] } else { &[0x86, 0xdd] };
            let mut add = |name: &str, packet| {
                let family = if is_v4 { "ipv4" } else { "ipv6" };
                cases.push((format!("{name}, {family} to {to}"), packet, is_v4));
            };
            add("ipip", wrap(protocol, from, to, &[], &inner));
            let gre = |flags: u8, optional: &[u8]| {
                wrap(
                    GRE,
                    from,
                    to,
                    &[&[flags, 0], ether, optional].concat(),
                    &inner,
                )
            };
            add("gre", gre(0, &[]));
            add("gre with a checksum", gre(0x80, &[1, 2, 0, 0]));
            add("gre with everything", gre(0xb0, &[7; 12]));
            let gue = |header: &[u8]| {
                let between = gue(GUE_PORT, header, &inner);
                wrap(UDP, from, to, &between, &inner)
            };
            add("gue", gue(&[0, protocol, 0, 0]));
            add(
                "gue with options",
                gue(&[2, protocol, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
            );
            add("gue variant 1", gue(&[]));
        }
    }
    let limited = extended(
        wrap(IPIP, DIRECTOR6, SERVER6, &[], &inner()),
        60,
        [0, 4, 1, 4, 1, 1, 0],
    );
    cases.push(("encapsulation limit".into(), limited, true));
    let mut options = wrap(IPIP, DIRECTOR, SERVER, &[], &inner());
    options[14] = 0x46;
    options.splice(34..34, [1, 1, 1, 0]);
    cases.push(("ip options".into(), options, true));
    cases
}

/// What passes although it looks like a tunnel.
fn others() -> Vec<(&'static str, Vec<u8>)> {
    let ipip = || wrap(IPIP, DIRECTOR, SERVER, &[], &inner());
    let gre = |header: &[u8]| wrap(GRE, DIRECTOR, SERVER, header, &inner());
    let gue = |port, header: &[u8]| {
        let between = gue(port, header, &inner());
        wrap(UDP, DIRECTOR, SERVER, &between, &inner())
    };
    vec![
        (
            "another address",
            wrap(IPIP, DIRECTOR, "10.78.0.9", &[], &inner()),
        ),
        ("first fragment", with(ipip(), 20, &[0x20, 0])),
        ("later fragment", with(ipip(), 20, &[0, 3])),
        ("cut off", ipip()[..14 + 20 + 19].to_vec()),
        (
            "ipv6 in an ipip packet",
            wrap(IPIP, DIRECTOR, SERVER, &[], &inner6()),
        ),
        (
            "ipv4 in a sit packet",
            wrap(IPV6_IN_IP, DIRECTOR, SERVER, &[], &inner()),
        ),
        ("gre with routing", gre(&[0x40, 0, 8, 0])),
        ("gre version 1", gre(&[0, 1, 8, 0])),
        ("gre with ethernet", gre(&[0, 0, 0x65, 0x58])),
        ("gre, cut off", gre(&[0, 0])[..14 + 20 + 2].to_vec()),
        ("another udp port", gue(GUE_PORT + 1, &[0, IPIP, 0, 0])),
        ("gue control", gue(GUE_PORT, &[0x20, IPIP, 0, 0])),
        ("gue with ipsec", gue(GUE_PORT, &[0, 50, 0, 0])),
        (
            "gue longer than the packet",
            gue(GUE_PORT, &[31, IPIP, 0, 0]),
        ),
        ("gue variant 2", gue(GUE_PORT, &[0x80, IPIP, 0, 0])),
    ]
}

fn all_tunnels_end(mode: BindMode, name: &str) {
    let Some(network) = Network::build(name) else {
        return;
    };
    let server = Server::start(&network, mode);
    let expected = match mode {
        BindMode::Generic => Mode::Generic,
        BindMode::Auto | BindMode::ZeroCopy | BindMode::Copy => Mode::Native,
    };
    assert_eq!(server.decapsulator.attached().mode, expected);
    let mut director = Director::open(&network);
    for (name, packet, is_v4) in tunnelled() {
        director.send(&packet);
        let (socket, client) = match is_v4 {
            true => (&server.vip, "10.77.0.1:5000"),
            false => (&server.vip6, "[fd00::1]:5000"),
        };
        assert_eq!(came_from(socket).as_deref(), Some(client), "{name}");
    }
}

#[test]
fn every_kind_of_tunnel_ends_in_native_mode() {
    all_tunnels_end(BindMode::Copy, "decap");
}

#[test]
fn every_kind_of_tunnel_ends_in_generic_mode() {
    all_tunnels_end(BindMode::Generic, "decapgen");
}

#[test]
fn what_is_in_no_tunnel_passes() {
    let Some(network) = Network::build("nodecap") else {
        return;
    };
    let server = Server::start(&network, BindMode::Auto);
    let mut director = Director::open(&network);
    for (name, packet) in others() {
        let before = server.decapsulator.counters().unwrap();
        director.send(&packet);
        assert!(server.count_after(before, |c| c.passed) > 0, "{name}");
        let after = server.decapsulator.counters().unwrap();
        assert_eq!(after.decapsulated, before.decapsulated, "{name}");
        assert_eq!(after.dropped, 0, "{name}");
    }
    // Nor is a plain packet touched, or ping.
    director.send(&inner());
    assert_eq!(came_from(&server.vip).as_deref(), Some("10.77.0.1:5000"));
    network.run("ip netns exec DIRECTOR ping -c 1 -W 2 10.78.0.1");
}

#[test]
fn congestion_is_handed_on() {
    let Some(network) = Network::build("ecn") else {
        return;
    };
    let server = Server::start(&network, BindMode::Auto);
    let mut director = Director::open(&network);
    let marked = |counter: &str| -> u64 {
        let text = network.run(&format!("ip netns exec SERVER nstat -asz {counter}"));
        let value = text.lines().last().unwrap().split_whitespace().nth(1);
        value.unwrap().parse().unwrap()
    };
    // RFC 3168: 1 and 2 can be told, 0 cannot, 3 is told.
    let set_ecn = |mut packet: Vec<u8>, ecn: u8| {
        if packet[12..14] == [0x08, 0] {
            packet[15] |= ecn;
            packet[24..26].copy_from_slice(&[0, 0]);
            let words = packet[14..34].chunks(2);
            let sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
            let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            packet[24..26].copy_from_slice(&(!folded).to_be_bytes());
        } else {
            packet[15] |= ecn << 4;
        }
        packet
    };
    for (inner, vip, counter) in [
        (inner(), &server.vip, "IpExtInCEPkts"),
        (inner6(), &server.vip6, "Ip6InCEPkts"),
    ] {
        let protocol = if counter.starts_with("Ip6") {
            IPV6_IN_IP
        } else {
            IPIP
        };
        for (outer, own, arrives, is_marked) in [
            (0, 0, true, false),
            (3, 0, false, false),
            (3, 1, true, true),
            (3, 2, true, true),
            (3, 3, true, true),
            (2, 1, true, false),
            (0, 3, true, true),
        ] {
            for (from, to) in [(DIRECTOR, SERVER), (DIRECTOR6, SERVER6)] {
                let name = format!("{outer} around {own}, {counter}, to {to}");
                let before = (server.decapsulator.counters().unwrap(), marked(counter));
                let packet = wrap(protocol, from, to, &[], &set_ecn(inner.clone(), own));
                director.send(&set_ecn(packet, outer));
                let patience = if arrives {
                    PATIENCE
                } else {
                    Duration::from_millis(100)
                };
                vip.set_read_timeout(Some(patience)).unwrap();
                assert_eq!(came_from(vip).is_some(), arrives, "{name}");
                let after = (server.decapsulator.counters().unwrap(), marked(counter));
                assert_eq!(after.1 - before.1, is_marked.into(), "{name}");
                assert_eq!(
                    after.0.dropped - before.0.dropped,
                    (!arrives).into(),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn vlan_tags_stay() {
    let Some(network) = Network::build("decaptag") else {
        return;
    };
    let server = Server::start(&network, BindMode::Auto);
    let mut director = Director::open(&network);
    let directory = tempfile::tempdir().unwrap();
    let capture = directory.path().join("s0.pcap");
    let file = capture.to_str().unwrap().to_owned();
    let command = format!("ip netns exec SERVER timeout 5 tcpdump -i s0 -U -c 2 -w {file} vlan");
    let received = std::thread::scope(|scope| {
        let tcpdump = scope.spawn(|| network.run(&command));
        let deadline = Instant::now() + Duration::from_secs(5);
        while !capture.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let ipip = wrap(IPIP, DIRECTOR, SERVER, &[], &inner());
        let in6 = wrap(IPV6_IN_IP, DIRECTOR, SERVER, &[], &inner6());
        for (mut packet, tags) in [
            (ipip, &[0x81, 0, 0, 5][..]),
            (in6, &[0x88, 0xa8, 0, 6, 0x81, 0, 0, 5][..]),
        ] {
            packet.splice(12..12, tags.iter().copied());
            director.send(&packet);
        }
        tcpdump.join().unwrap();
        read_capture(&capture)
    });
    let expected = [
        (inner(), &[0x81, 0, 0, 5][..]),
        (inner6(), &[0x88, 0xa8, 0, 6, 0x81, 0, 0, 5]),
    ]
    .map(|(mut packet, tags)| {
        packet[..6].copy_from_slice(&SERVER_MAC);
        packet.splice(12..12, tags.iter().copied());
        packet
    });
    assert_eq!(received, expected);
    assert_eq!(server.decapsulator.counters().unwrap().decapsulated, 2);
}

fn read_capture(path: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::File::open(path).unwrap();
    let mut reader = pcap_file::pcap::PcapReader::new(file).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        packets.push(packet.unwrap().data.into_owned());
    }
    packets
}

#[test]
fn it_is_gone_with_its_handle_unless_it_is_kept() {
    let Some(network) = Network::build("decapkeep") else {
        return;
    };
    let attached = || {
        network
            .run("ip -n SERVER -d link show dev s0")
            .contains("prog/xdp")
    };
    let decapsulator = attach(&network, BindMode::Auto, &ends());
    assert!(attached());
    let again = network.within("server", || {
        decap::attach(ifindex("s0"), "s0", BindMode::Auto, &[]).unwrap_err()
    });
    let again = again.to_string();
    assert!(again.contains("another XDP program is attached"), "{again}");
    drop(decapsulator);
    assert_nothing_attached(&network, "SERVER");

    let elsewhere = tempfile::tempdir().unwrap();
    let decapsulator = attach(&network, BindMode::Auto, &[]);
    let error = decapsulator
        .keep(&elsewhere.path().join("decap"))
        .unwrap_err();
    let error = error.to_string();
    assert!(error.contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
    assert_nothing_attached(&network, "SERVER");

    let bpffs = elsewhere.path();
    let mount = format!("mount -t bpf bpf {}", bpffs.display());
    network.run(&mount);
    let path = bpffs.join("decap");
    attach(&network, BindMode::Auto, &[]).keep(&path).unwrap();
    let kept = attached();
    let (first, second) = (decap::release(&path), decap::release(&path));
    network.run(&format!("umount {}", bpffs.display()));
    assert!(kept);
    assert!(first.unwrap() && !second.unwrap());
    assert_nothing_attached(&network, "SERVER");

    let end = TunnelEnd {
        address: SERVER.parse().unwrap(),
        tunnel: Tunnel::Ipip,
    };
    let many: Vec<_> = (0..1025)
        .map(|port| TunnelEnd {
            tunnel: Tunnel::Gue { port },
            ..end
        })
        .collect();
    let error = network.within("server", || {
        decap::attach(ifindex("s0"), "s0", BindMode::Auto, &many).unwrap_err()
    });
    let expected = "s0: cannot take packets out of GUE to 10.78.0.1, UDP port 1024: \
                    the table is full; it holds 1024 protocols and ports";
    assert_eq!(error.to_string(), expected);
}
