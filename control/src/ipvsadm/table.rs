//! What listings show: plain copies of what the appliance has.

use std::net::SocketAddr;

use super::command::{Method, Netmask, Protocol, SchedulerFlags, ServiceName};
use super::names::Names;

/// Counters, or what they grew by in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub connections: u64,
    pub in_packets: u64,
    pub out_packets: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
}

impl Numbers {
    /// In the order of the columns.
    pub(super) fn columns(&self) -> [u64; 5] {
        [
            self.connections,
            self.in_packets,
            self.out_packets,
            self.in_bytes,
            self.out_bytes,
        ]
    }
}

/// A virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    pub scheduler: String,
    pub flags: SchedulerFlags,
    /// Seconds.
    pub persistent: Option<u32>,
    pub netmask: Netmask,
    pub one_packet: bool,
    pub engine: Option<String>,
    pub statistics: Numbers,
    pub rates: Numbers,
    pub servers: Vec<Server>,
}

/// A real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    pub address: SocketAddr,
    pub method: Method,
    pub weight: u32,
    pub upper_threshold: u32,
    pub lower_threshold: u32,
    pub active: u64,
    pub inactive: u64,
    /// Persistence templates.
    pub persistent: u64,
    pub statistics: Numbers,
    pub rates: Numbers,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub protocol: String,
    /// Seconds.
    pub expires: u64,
    pub state: String,
    pub client: SocketAddr,
    pub virtual_server: SocketAddr,
    pub real_server: SocketAddr,
}

/// Seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub tcp: u64,
    pub tcp_fin: u64,
    pub udp: u64,
}

impl Timeouts {
    /// `-L --timeout`.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { tcp, tcp_fin, udp } = self;
        format!("Timeout (tcp tcpfin udp): {tcp} {tcp_fin} {udp}\n")
    }
}

/// `host:port` as `-n` wants it: by numbers, or by names where there are any.
pub(super) fn shown(
    address: SocketAddr,
    protocol: Protocol,
    numeric: bool,
    names: &dyn Names,
) -> String {
    if numeric {
        return address.to_string();
    }
    let port = match address.port() {
        0 => "0".to_owned(),
        port => names
            .of_port(port, protocol)
            .unwrap_or_else(|| port.to_string()),
    };
    match (names.of_host(address.ip()), address) {
        (Some(host), _) => format!("{host}:{port}"),
        (None, SocketAddr::V4(address)) => format!("{}:{port}", address.ip()),
        (None, SocketAddr::V6(address)) => format!("[{}]:{port}", address.ip()),
    }
}

impl ServiceName {
    /// Whose names the ports of the virtual server and its real servers have.
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::Address { protocol, .. } => *protocol,
            Self::Firewall { .. } => Protocol::Tcp,
        }
    }
}
