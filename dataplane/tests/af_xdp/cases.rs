//! The packets that the steering program must tell apart, by the rules here.

use std::net::{IpAddr, SocketAddr};

use dataplane::bpf::Rule;
use dataplane::service::{Protocol, ServiceKey};

use self::Verdict::{Denied, NotForUs, Passed, Steered};
use super::packets::{ICMP, SCTP, TCP, UDP, error, extended, later, packet, with};

/// What the program does with a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Steered,
    Passed,
    NotForUs,
    Denied,
}

pub(crate) type Case = (&'static str, Vec<u8>, Verdict);

/// Addresses: the director's is 10.77.0.2, which has the VIPs 10.77.0.100 and .101 and the pool
/// address .200 as well; the real servers are 10.78.0.x.
pub(crate) fn rules() -> Vec<Rule> {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap().into();
    let key = |protocol, address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        let (address, port) = (address.ip().into(), address.port());
        ServiceKey {
            address,
            port,
            protocol,
        }
    };
    let service = |protocol, address| Rule::VirtualServer(key(protocol, address));
    let server = |protocol, address| Rule::RealServer(key(protocol, address));
    let tunnel = |address, gue_port| Rule::TunnelServer {
        address: ip(address),
        gue_port,
    };
    vec![
        Rule::LocalAddress(ip("10.77.0.2")),
        Rule::LocalAddress(ip("10.77.0.100")),
        Rule::LocalAddress(ip("fd00::2")),
        Rule::Allow("192.0.2.128/25".parse().unwrap()),
        Rule::Deny("192.0.2.0/24".parse().unwrap()),
        // Of IPv6 only, although the program knows IPv4 addresses as ::ffff:…
        Rule::Deny("::/1".parse().unwrap()),
        Rule::Allow("::1:0:0:0/80".parse().unwrap()),
        service(Protocol::Udp, "10.77.0.100:9000"),
        service(Protocol::Udp, "[fd00::64]:9000"),
        service(Protocol::Tcp, "10.77.0.101:0"),
        Rule::PoolAddress(ip("10.77.0.200")),
        Rule::PoolAddress(ip("fd00::200")),
        Rule::RefusedAddress(ip("10.77.0.101")),
        Rule::RefusedAddress(ip("fd00::101")),
        tunnel("10.78.0.5", None),
        tunnel("fd01::5", None),
        tunnel("10.78.0.6", Some(6080)),
        server(Protocol::Udp, "10.78.0.1:8080"),
        server(Protocol::Udp, "[fd01::1]:8080"),
        server(Protocol::Tcp, "10.78.0.3:0"),
    ]
}

/// Packets to a virtual server, and what looks like them.
pub(crate) fn to_services() -> Vec<Case> {
    let udp = || packet(UDP, "10.77.0.1:5000", "10.77.0.100:9000");
    let udp6 = || packet(UDP, "[fd00::1]:5000", "[fd00::64]:9000");
    let options = |mut packet: Vec<u8>| {
        packet[14] = 0x46;
        packet.splice(34..34, [1, 1, 1, 0]);
        packet
    };
    let tagged = |mut packet: Vec<u8>, tag: [u8; 4]| {
        packet.splice(12..12, tag);
        packet
    };
    let (q, ad) = ([0x81, 0, 0, 5], [0x88, 0xa8, 0, 6]);
    let none = [0, 1, 4, 0, 0, 0, 0];
    vec![
        ("udp", udp(), Steered),
        (
            "another port",
            packet(UDP, "10.77.0.1:5000", "10.77.0.100:9001"),
            Passed,
        ),
        (
            "another address",
            packet(UDP, "10.77.0.1:5000", "10.77.0.102:9000"),
            Passed,
        ),
        (
            "another protocol",
            packet(TCP, "10.77.0.1:5000", "10.77.0.100:9000"),
            Passed,
        ),
        ("to a group", with(udp(), 0, &[3]), NotForUs),
        ("to another host", with(udp(), 5, &[0x77]), NotForUs),
        ("tagged", tagged(udp(), q), Steered),
        ("tagged twice", tagged(tagged(udp(), q), ad), Steered),
        (
            "tagged three times",
            tagged(tagged(tagged(udp(), q), q), ad),
            Passed,
        ),
        ("ip options", options(udp()), Steered),
        ("header length 4", with(udp(), 14, &[0x41]), Passed),
        ("first fragment", with(udp(), 20, &[0x20, 0]), Steered),
        ("later fragment", later(udp()), Steered),
        (
            "later fragment of another port: cannot be told",
            later(packet(UDP, "10.77.0.1:5000", "10.77.0.100:9001")),
            Steered,
        ),
        (
            "later fragment, another protocol",
            later(packet(TCP, "10.77.0.1:5000", "10.77.0.100:9000")),
            Passed,
        ),
        (
            "later fragment of a ping",
            later(packet(ICMP, "10.77.0.1:0", "10.77.0.100:0")),
            Passed,
        ),
        (
            "every port",
            packet(TCP, "10.77.0.1:5000", "10.77.0.101:1234"),
            Steered,
        ),
        (
            "every port, later fragment",
            later(packet(TCP, "10.77.0.1:5000", "10.77.0.101:1")),
            Steered,
        ),
        (
            "every port, another protocol, which the address refuses",
            packet(UDP, "10.77.0.1:5000", "10.77.0.101:1234"),
            Denied,
        ),
        ("udp6", udp6(), Steered),
        (
            "udp6, another port",
            packet(UDP, "[fd00::1]:5000", "[fd00::64]:9001"),
            Passed,
        ),
        ("udp6, hop by hop", extended(udp6(), 0, none), Steered),
        (
            "udp6, first fragment",
            extended(udp6(), 44, [0, 0, 1, 0, 0, 0, 7]),
            Steered,
        ),
        ("udp6, later fragment", later(udp6()), Steered),
        (
            "udp6, later fragment, another protocol",
            later(packet(TCP, "[fd00::1]:5000", "[fd00::64]:9000")),
            Passed,
        ),
        (
            "udp6, options and fragment",
            extended(extended(udp6(), 44, [0, 0, 0, 0, 0, 0, 7]), 60, none),
            Steered,
        ),
        (
            "refused, later fragment",
            later(packet(UDP, "10.77.0.1:5000", "10.77.0.101:1")),
            Denied,
        ),
        (
            "refused, another protocol",
            packet(47, "10.77.0.1:0", "10.77.0.101:0"),
            Denied,
        ),
        (
            "refused, echo request",
            error(8, "10.77.0.1", "10.77.0.101", &[0; 42]),
            Denied,
        ),
        (
            "refused, ipv6",
            packet(TCP, "[fd00::1]:5000", "[fd00::101]:22"),
            Denied,
        ),
        (
            "refused, echo request of ipv6",
            error(128, "fd00::1", "fd00::101", &[0; 62]),
            Denied,
        ),
        (
            "neighbour solicitation",
            error(135, "fd00::1", "fd00::101", &[0; 62]),
            Passed,
        ),
        ("too short for ip", udp()[..20].to_vec(), Passed),
        ("too short for ports", udp()[..36].to_vec(), Passed),
    ]
}

/// Packets from real servers of NAT and FULLNAT.
pub(crate) fn from_servers() -> Vec<Case> {
    const CLIENT: &str = "10.99.0.1:5000";
    vec![
        ("nat return", packet(UDP, "10.78.0.1:8080", CLIENT), Steered),
        (
            "nat return, later fragment",
            later(packet(UDP, "10.78.0.1:8080", CLIENT)),
            Steered,
        ),
        (
            "from another port",
            packet(UDP, "10.78.0.1:8081", CLIENT),
            Passed,
        ),
        (
            "from another server",
            packet(UDP, "10.78.0.2:8080", CLIENT),
            Passed,
        ),
        (
            "from the server by another protocol",
            packet(TCP, "10.78.0.1:8080", CLIENT),
            Passed,
        ),
        (
            "answer to a health check",
            packet(UDP, "10.78.0.1:8080", "10.77.0.2:5000"),
            Passed,
        ),
        (
            "answer to a health check from the VIP",
            packet(UDP, "10.78.0.1:8080", "10.77.0.100:5000"),
            Passed,
        ),
        (
            "its later fragment",
            later(packet(UDP, "10.78.0.1:8080", "10.77.0.2:5000")),
            Passed,
        ),
        (
            "a client that uses the server's port",
            packet(UDP, "10.78.0.1:8080", "10.77.0.100:9000"),
            Steered,
        ),
        (
            "from every port",
            packet(TCP, "10.78.0.3:1234", CLIENT),
            Steered,
        ),
        (
            "from every port, by another protocol",
            packet(UDP, "10.78.0.3:1234", CLIENT),
            Passed,
        ),
        (
            "nat return, ipv6",
            packet(UDP, "[fd01::1]:8080", "[fd99::1]:5000"),
            Steered,
        ),
        (
            "nat return, ipv6, later fragment",
            later(packet(UDP, "[fd01::1]:8080", "[fd99::1]:5000")),
            Steered,
        ),
        (
            "health check, ipv6",
            packet(UDP, "[fd01::1]:8080", "[fd00::2]:5000"),
            Passed,
        ),
        (
            "to the pool, tcp",
            packet(TCP, "10.78.0.9:80", "10.77.0.200:5000"),
            Steered,
        ),
        (
            "to the pool, udp",
            packet(UDP, "10.78.0.9:80", "10.77.0.200:5000"),
            Steered,
        ),
        (
            "to the pool, sctp",
            packet(SCTP, "10.78.0.9:80", "10.77.0.200:5000"),
            Steered,
        ),
        (
            "to the pool, later fragment",
            later(packet(UDP, "10.78.0.9:80", "10.77.0.200:5000")),
            Steered,
        ),
        (
            "to the pool, ipv6",
            packet(TCP, "[fd01::9]:80", "[fd00::200]:5000"),
            Steered,
        ),
        (
            "ping of the pool",
            error(8, "10.78.0.9", "10.77.0.200", &[0; 42]),
            Passed,
        ),
        (
            "to the pool, another protocol",
            packet(47, "10.78.0.9:0", "10.77.0.200:0"),
            Passed,
        ),
    ]
}

/// ICMP errors.
pub(crate) fn errors() -> Vec<Case> {
    const ROUTER: &str = "10.78.0.254";
    let by_vip = packet(UDP, "10.77.0.100:9000", "10.77.0.1:5000");
    let by_vip6 = packet(UDP, "[fd00::64]:9000", "[fd00::1]:5000");
    let vip = |kind, about: &[u8]| error(kind, "10.77.0.1", "10.77.0.100", about);
    let vip6 = |kind, about: &[u8]| error(kind, "fd00::1", "fd00::64", about);
    let to_server = packet(UDP, "10.99.0.1:5000", "10.78.0.1:8080");
    let to_server6 = packet(UDP, "[fd99::1]:5000", "[fd01::1]:8080");
    let checked = packet(UDP, "10.77.0.2:5000", "10.78.0.1:8080");
    let from_pool = packet(TCP, "10.77.0.200:5000", "10.78.0.9:80");
    let director = |about: &[u8]| error(3, ROUTER, "10.77.0.2", about);
    vec![
        ("echo request", vip(8, &by_vip), Passed),
        ("unreachable", vip(3, &by_vip), Steered),
        (
            "unreachable, eight bytes of it",
            vip(3, &by_vip[..42]),
            Steered,
        ),
        (
            "unreachable, three bytes of it",
            vip(3, &by_vip[..37]),
            Passed,
        ),
        ("time exceeded", vip(11, &by_vip), Steered),
        ("parameter problem", vip(12, &by_vip), Steered),
        (
            "about a later fragment",
            vip(3, &later(by_vip.clone())),
            Steered,
        ),
        (
            "about a packet to the VIP",
            vip(3, &packet(UDP, "10.77.0.1:5000", "10.77.0.100:9000")),
            Passed,
        ),
        (
            "about another port of the VIP",
            vip(3, &packet(UDP, "10.77.0.100:9001", "10.77.0.1:5000")),
            Passed,
        ),
        (
            "about every port",
            error(
                3,
                "10.77.0.1",
                "10.77.0.101",
                &packet(TCP, "10.77.0.101:7", "10.77.0.1:5000"),
            ),
            Steered,
        ),
        ("packet too big", vip6(2, &by_vip6), Steered),
        (
            "packet too big about a later fragment",
            vip6(2, &later(by_vip6.clone())),
            Steered,
        ),
        ("neighbor solicitation", vip6(135, &by_vip6), Passed),
        (
            "about a packet to a server",
            error(3, ROUTER, "10.99.0.1", &to_server),
            Steered,
        ),
        (
            "about a later fragment to a server",
            error(3, ROUTER, "10.99.0.1", &later(to_server.clone())),
            Steered,
        ),
        (
            "about a packet to a server, ipv6",
            error(2, "fd01::fe", "fd99::1", &to_server6),
            Steered,
        ),
        (
            "about a packet to another server",
            error(
                3,
                ROUTER,
                "10.99.0.1",
                &packet(UDP, "10.99.0.1:5000", "10.78.0.2:8080"),
            ),
            Passed,
        ),
        ("about a health check", director(&checked), Passed),
        (
            "about a packet from the pool",
            error(3, ROUTER, "10.77.0.200", &from_pool),
            Steered,
        ),
        (
            "about an ipip packet",
            director(&packet(4, "10.77.0.2:0", "10.78.0.5:0")),
            Steered,
        ),
        (
            "about a sit packet",
            director(&packet(41, "10.77.0.2:0", "10.78.0.5:0")),
            Steered,
        ),
        (
            "about a gre packet",
            director(&packet(47, "10.77.0.2:0", "10.78.0.5:0")),
            Steered,
        ),
        (
            "about an ipip packet in ipv6",
            error(
                2,
                "fd01::fe",
                "fd00::2",
                &packet(4, "[fd00::2]:0", "[fd01::5]:0"),
            ),
            Steered,
        ),
        (
            "about udp to an ipip server",
            director(&packet(UDP, "10.77.0.2:1", "10.78.0.5:6080")),
            Passed,
        ),
        (
            "about an ipip packet to a gue server",
            director(&packet(4, "10.77.0.2:0", "10.78.0.6:0")),
            Passed,
        ),
        (
            "about a gue packet",
            director(&packet(UDP, "10.77.0.2:1", "10.78.0.6:6080")),
            Steered,
        ),
        (
            "about another port of a gue server",
            director(&packet(UDP, "10.77.0.2:1", "10.78.0.6:53")),
            Passed,
        ),
    ]
}

/// Packets from denied prefixes.
pub(crate) fn denied() -> Vec<Case> {
    vec![
        (
            "denied",
            packet(UDP, "192.0.2.1:5000", "10.77.0.100:9000"),
            Denied,
        ),
        (
            "denied, to the host",
            packet(TCP, "192.0.2.1:5000", "10.77.0.2:22"),
            Denied,
        ),
        (
            "denied, a later fragment",
            later(packet(TCP, "192.0.2.1:5000", "10.77.0.2:22")),
            Denied,
        ),
        (
            "denied, but to another host",
            with(
                packet(UDP, "192.0.2.1:5000", "10.77.0.100:9000"),
                5,
                &[0x77],
            ),
            NotForUs,
        ),
        (
            "allowed",
            packet(UDP, "192.0.2.128:5000", "10.77.0.100:9000"),
            Steered,
        ),
        (
            "beside it",
            packet(UDP, "192.0.3.1:5000", "10.77.0.100:9000"),
            Steered,
        ),
        (
            "denied, ipv6",
            packet(UDP, "[2001:db8::1]:5000", "[fd00::64]:9000"),
            Denied,
        ),
        (
            "allowed, ipv6",
            packet(UDP, "[::1:0:0:1]:5000", "[fd00::64]:9000"),
            Steered,
        ),
        (
            "beside it, ipv6",
            packet(UDP, "[8000::1]:5000", "[fd00::64]:9000"),
            Steered,
        ),
    ]
}
