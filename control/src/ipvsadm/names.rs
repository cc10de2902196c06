//! Names of hosts and ports, from what the system is set up to ask
//! (nsswitch.conf).

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use dns_lookup::{AddrInfoHints, SockType};

use super::command::Protocol;

/// Where names are looked up. The command line's parser and the listings take
/// one, so that they do no I/O themselves.
pub(crate) trait Names: Debug {
    /// The address of a host; IPv4 if it has both.
    fn host(&self, name: &str) -> Option<IpAddr>;
    /// The port of a service.
    fn port(&self, name: &str, protocol: Protocol) -> Option<u16>;
    /// The name of an address.
    fn of_host(&self, address: IpAddr) -> Option<String>;
    /// The name of a port.
    fn of_port(&self, port: u16, protocol: Protocol) -> Option<String>;
}

/// The system's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System;

impl Names for System {
    fn host(&self, name: &str) -> Option<IpAddr> {
        let addresses: Vec<SocketAddr> = (name, 0).to_socket_addrs().ok()?.collect();
        let ipv4 = addresses.iter().find(|address| address.is_ipv4());
        ipv4.or_else(|| addresses.first()).map(SocketAddr::ip)
    }

    fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        // getaddrinfo takes numbers too, of any size.
        if !name.bytes().any(|byte| byte.is_ascii_alphabetic()) {
            return None;
        }
        let hints = AddrInfoHints {
            socktype: socket_type(protocol),
            protocol: match protocol {
                Protocol::Tcp | Protocol::Udp => 0,
                Protocol::Sctp => IPPROTO_SCTP,
            },
            ..AddrInfoHints::default()
        };
        let mut found = dns_lookup::getaddrinfo(None, Some(name), Some(hints)).ok()?;
        Some(found.next()?.ok()?.sockaddr.port())
    }

    fn of_host(&self, address: IpAddr) -> Option<String> {
        let (host, _) = dns_lookup::getnameinfo(&SocketAddr::new(address, 0), 0).ok()?;
        // Without a name, the address comes back.
        host.parse::<IpAddr>().is_err().then_some(host)
    }

    fn of_port(&self, port: u16, protocol: Protocol) -> Option<String> {
        let any = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port);
        let flags = match protocol {
            Protocol::Udp => NI_DGRAM | NI_NUMERICHOST,
            Protocol::Tcp | Protocol::Sctp => NI_NUMERICHOST,
        };
        let (_, service) = dns_lookup::getnameinfo(&any, flags).ok()?;
        let has_name = service.parse::<u16>().is_err();
        // getnameinfo knows TCP and UDP: SCTP need not have that name.
        let is_shared = || self.port(&service, protocol) == Some(port);
        (has_name && (protocol != Protocol::Sctp || is_shared())).then_some(service)
    }
}

/// `<netdb.h>`
const NI_NUMERICHOST: i32 = 1;
const NI_DGRAM: i32 = 16;
/// `<netinet/in.h>`
const IPPROTO_SCTP: i32 = 132;

fn socket_type(protocol: Protocol) -> i32 {
    match protocol {
        Protocol::Tcp | Protocol::Sctp => SockType::Stream,
        Protocol::Udp => SockType::DGram,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_names_has_that_number() {
        assert_eq!(System.host("localhost"), Some(IpAddr::from([127, 0, 0, 1])));
        for (port, protocol) in [(80, Protocol::Tcp), (53, Protocol::Udp)] {
            let Some(name) = System.of_port(port, protocol) else {
                skip::partly(format!("this system has no name for port {port}"));
                continue;
            };
            assert_eq!(System.port(&name, protocol), Some(port), "{name}");
        }
        // Neither has another protocol's name.
        assert_eq!(System.port("http", Protocol::Sctp), None);
        assert_eq!(System.of_port(80, Protocol::Sctp), None);
        for name in ["70000", "-1", " 80", "", "no such service"] {
            assert_eq!(System.port(name, Protocol::Tcp), None, "{name}");
        }
    }
}

/// No names at all but a few, for tests.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Few;

#[cfg(test)]
impl Few {
    const PORTS: [(&str, u16, Protocol); 6] = [
        ("http", 80, Protocol::Tcp),
        ("http-alt", 8080, Protocol::Tcp),
        ("finger", 79, Protocol::Tcp),
        ("https", 443, Protocol::Tcp),
        ("domain", 53, Protocol::Udp),
        ("sip", 5060, Protocol::Udp),
    ];
}

#[cfg(test)]
impl Names for Few {
    fn host(&self, name: &str) -> Option<IpAddr> {
        (name == "localhost").then_some(IpAddr::from([127, 0, 0, 1]))
    }

    fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let mut ports = Self::PORTS.iter();
        let found = ports.find(|(known, _, of)| *known == name && *of == protocol);
        found.map(|(_, port, _)| *port)
    }

    fn of_host(&self, _: IpAddr) -> Option<String> {
        None
    }

    fn of_port(&self, port: u16, protocol: Protocol) -> Option<String> {
        let mut ports = Self::PORTS.iter();
        let found = ports.find(|(_, known, of)| *known == port && *of == protocol);
        found.map(|(name, _, _)| (*name).to_owned())
    }
}
