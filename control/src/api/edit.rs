//! Changes of what is running: the body of `POST /api/v1/edit` and its answer.
//!
//! An edit is a piece of configuration under the file's own key names, and is
//! checked as a file is. What was edited lasts until the next reload.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The request: carried out in order, each as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edits {
    pub edits: Vec<Edit>,
}

/// The answer: one entry for each edit, `null` for one that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edited {
    pub results: Vec<Option<EditError>>,
    /// Generation of the snapshot that has the changes.
    pub generation: u64,
}

/// One change. A `virtual_server` is named as in logs: `TCP 192.168.1.100:80`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Edit {
    AddService(ServiceEdit),
    /// Replaces scheduler, flags, persistence and `ops`.
    EditService(ServiceEdit),
    DeleteService {
        virtual_server: String,
    },
    /// The server has no health checks: it is up.
    AddServer {
        virtual_server: String,
        real_server: ServerEdit,
    },
    /// Replaces forwarding method, weight and thresholds.
    EditServer {
        virtual_server: String,
        real_server: ServerEdit,
    },
    DeleteServer {
        virtual_server: String,
        real_server: SocketAddr,
    },
    /// Deletes every virtual server.
    Clear,
    /// Sets the statistics and rates that ipvsadm shows to zero; `null`: all.
    Zero {
        virtual_server: Option<String>,
    },
    /// Gives a real server no new connections, in every virtual server that has
    /// it. Outlives a reload.
    Drain {
        address: IpAddr,
        /// `null`: every port.
        port: Option<u16>,
        /// Until the remaining connections are given up; `null`: for ever.
        deadline_milliseconds: Option<u64>,
    },
    /// Uses a drained real server again.
    Undrain {
        address: IpAddr,
        port: Option<u16>,
    },
    /// In seconds; 0 keeps what is.
    SetTimeouts {
        tcp: u32,
        tcpfin: u32,
        udp: u32,
    },
}

/// A virtual server without its real servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceEdit {
    pub virtual_server: String,
    /// IPVS's name: `wrr`.
    pub lb_algo: String,
    /// Scheduler flags: `sh-port`.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Seconds.
    #[serde(default)]
    pub persistence_timeout: Option<u32>,
    /// A mask, or a prefix length for IPv6.
    #[serde(default)]
    pub persistence_granularity: Option<String>,
    #[serde(default)]
    pub persistence_engine: Option<String>,
    /// One-packet scheduling.
    #[serde(default)]
    pub ops: bool,
}

/// A real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerEdit {
    pub address: SocketAddr,
    /// `DR`, `NAT`, `TUN` or `FULLNAT`.
    pub lb_kind: String,
    #[serde(default)]
    pub tun_type: Option<String>,
    #[serde(default)]
    pub tun_port: Option<u16>,
    pub weight: u32,
    /// 0: none.
    #[serde(default)]
    pub uthreshold: u32,
    #[serde(default)]
    pub lthreshold: u32,
}

/// Why an edit was not carried out; nothing was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum EditError {
    #[error("the virtual server exists already")]
    ServiceExists,
    #[error("there is no such virtual server")]
    NoSuchService,
    #[error("the real server exists already")]
    ServerExists,
    #[error("there is no such real server")]
    NoSuchServer,
    #[error("there is no such scheduler")]
    NoSuchScheduler,
    #[error("lthreshold is above uthreshold")]
    ThresholdOutOfRange,
    #[error("the address is not that of one host")]
    NotUnicast,
    /// What the check of a configuration says.
    #[error("{0}")]
    Refused(String),
}
