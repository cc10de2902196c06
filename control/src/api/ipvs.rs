//! What `ipvsadm -L` shows: the answer of `GET /api/v1/ipvs`.
//!
//! Unlike `GET /api/v1/services`, this is the table as IPVS would have it
//! under keepalived: a real server that its checks hold down is not in it,
//! statistics count from the last `ipvsadm -Z`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::view::Word;

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipvs {
    pub timeouts: Timeouts,
    pub virtual_servers: Vec<VirtualServer>,
}

/// In seconds: of established TCP connections, of TCP connections after a FIN,
/// of UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    pub tcp: u64,
    pub tcpfin: u64,
    pub udp: u64,
}

/// Counters, or what they grow by in a second (IPVS's estimator).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    pub connections: u64,
    pub in_packets: u64,
    pub out_packets: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
}

/// How long a client stays with its real server, and who is one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// Seconds, 1 at least.
    pub timeout: u32,
    /// Leading bits of the client's address.
    pub granularity: u8,
}

/// A virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualServer {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Word,
    pub address: SocketAddr,
    /// IPVS's name: `wrr`.
    pub lb_algo: Word,
    /// Scheduler flags: `sh-port`.
    pub flags: Vec<Word>,
    pub persistence: Option<Persistence>,
    /// One-packet scheduling.
    pub ops: bool,
    pub statistics: Numbers,
    pub rates: Numbers,
    pub real_servers: Vec<RealServer>,
}

/// A real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServer {
    pub address: SocketAddr,
    /// `DR`, `NAT`, `TUN` or `FULLNAT`.
    pub lb_kind: Word,
    /// Of a tunnel: `ipip`, `gre` or `gue`.
    pub tun_type: Option<Word>,
    /// Of a GUE tunnel.
    pub tun_port: Option<u16>,
    pub weight: u32,
    /// What `weight` is when the server is not drained any more: what `-S` saves.
    pub undrained_weight: u32,
    /// Connections that overload the server; 0: none do.
    pub uthreshold: u32,
    /// With fewer it is not any more; 0: three quarters of `uthreshold`.
    pub lthreshold: u32,
    pub active_connections: u64,
    pub inactive_connections: u64,
    /// Clients that persistence leads there.
    pub persistent_clients: u64,
    pub statistics: Numbers,
    pub rates: Numbers,
}
