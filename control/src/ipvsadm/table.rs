//! What listings show: plain copies of what the appliance has.

use std::net::SocketAddr;

use super::command::{
    Method, Netmask, Protocol, SchedulerFlags, ServiceName, TunnelChecksum, TunnelType,
};
use super::names::Names;
use crate::api::{ipvs, view};

/// Counters, or what they grew by in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
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
pub(crate) struct Service {
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
pub(crate) struct Server {
    pub address: SocketAddr,
    pub method: Method,
    pub weight: u32,
    /// What to save: a drain is not among what `-R` restores.
    pub saved_weight: u32,
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
pub(crate) struct Connection {
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
pub(crate) struct Timeouts {
    pub tcp: u64,
    pub tcp_fin: u64,
    pub udp: u64,
}

impl Timeouts {
    /// `-L --timeout`.
    #[must_use]
    pub(crate) fn line(&self) -> String {
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

impl From<&ipvs::Numbers> for Numbers {
    fn from(numbers: &ipvs::Numbers) -> Self {
        let ipvs::Numbers {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        } = *numbers;
        Self {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        }
    }
}

impl From<&ipvs::VirtualServer> for Service {
    fn from(service: &ipvs::VirtualServer) -> Self {
        let protocol = Protocol::named(&service.protocol);
        Self {
            name: ServiceName::Address {
                protocol,
                address: service.address,
            },
            scheduler: service.lb_algo.to_string(),
            flags: SchedulerFlags::of_names(
                &service.lb_algo,
                service.flags.iter().map(AsRef::as_ref),
            ),
            persistent: service.persistence.map(|persistence| persistence.timeout),
            netmask: netmask(service),
            one_packet: service.ops,
            engine: None,
            statistics: (&service.statistics).into(),
            rates: (&service.rates).into(),
            servers: service.real_servers.iter().map(Server::from).collect(),
        }
    }
}

fn netmask(service: &ipvs::VirtualServer) -> Netmask {
    let is_ipv6 = service.address.is_ipv6();
    match service.persistence {
        None => Netmask::host(is_ipv6),
        Some(persistence) if is_ipv6 => Netmask::Ipv6(persistence.granularity),
        Some(persistence) => Netmask::of_ipv4(persistence.granularity),
    }
}

impl From<&ipvs::RealServer> for Server {
    fn from(server: &ipvs::RealServer) -> Self {
        let tunnel = match server.tun_type.as_deref() {
            Some("gue") => TunnelType::Gue {
                port: server.tun_port.unwrap_or_default(),
            },
            Some("gre") => TunnelType::Gre,
            Some(_) | None => TunnelType::Ipip,
        };
        Self {
            address: server.address,
            method: match server.lb_kind.as_ref() {
                "DR" => Method::Gatewaying,
                "TUN" => Method::Tunnel(tunnel, TunnelChecksum::None),
                // IPVS has no FULLNAT; NAT is the nearest.
                _ => Method::Masquerading,
            },
            weight: server.weight,
            saved_weight: server.undrained_weight,
            upper_threshold: server.uthreshold,
            lower_threshold: server.lthreshold,
            active: server.active_connections,
            inactive: server.inactive_connections,
            persistent: server.persistent_clients,
            statistics: (&server.statistics).into(),
            rates: (&server.rates).into(),
        }
    }
}

impl From<view::Connection> for Connection {
    fn from(connection: view::Connection) -> Self {
        Self {
            protocol: connection.protocol.into_owned(),
            expires: connection.expires_seconds,
            state: connection.state.into_owned(),
            client: connection.client,
            virtual_server: connection.virtual_server,
            real_server: connection.real_server,
        }
    }
}

impl From<ipvs::Timeouts> for Timeouts {
    fn from(timeouts: ipvs::Timeouts) -> Self {
        Self {
            tcp: timeouts.tcp,
            tcp_fin: timeouts.tcpfin,
            udp: timeouts.udp,
        }
    }
}
