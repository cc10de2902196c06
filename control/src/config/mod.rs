//! The configuration, checked: what the rest of the control plane works from.
//!
//! Every value here is valid and every default is filled in. The raw TOML
//! never leaves this module.
//!
//! A file goes through three steps: [`load`] reads it, `syntax` finds every
//! mistake of TOML itself, `check` walks what is left, section by section.
//! All three put what they find into one list, so that a user sees every
//! problem of a file at once, each as
//! `file:line:column: where: what was found, what was expected, what to do`.
//! [`to_toml`] is the way back: the configuration with its defaults filled in.
//!
//! Nothing here looks at the system: whether an interface exists is for `run`
//! to find out.

mod check;
mod diagnostic;
mod duration;
mod lines;
mod load;
mod print;
mod raw;
mod report;
mod syntax;
#[cfg(test)]
mod tests;
mod vrrp;

pub use check::{Checked, parse};
pub use diagnostic::{Diagnostic, Diagnostics, Position, Severity};
pub use load::{Format, load, load_as};
pub use print::to_toml;
pub use vrrp::{
    Authentication, Tracked, VirtualAddress, VrrpDefaults, VrrpInstance, VrrpScript, VrrpState,
    VrrpSyncGroup,
};

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use dataplane::conn::Timeouts;
use dataplane::service::{ForwardingMethod, Protocol, SchedulerKind, ServiceKey, TcpMidstream};
use serde::{Deserialize, Serialize};

/// A whole configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub router_id: Option<String>,
    pub vrrp: VrrpDefaults,
    pub appliance: Appliance,
    /// Empty: every Ethernet interface that is up.
    pub interfaces: Vec<Interface>,
    pub vrrp_scripts: Vec<VrrpScript>,
    pub vrrp_instances: Vec<VrrpInstance>,
    pub vrrp_sync_groups: Vec<VrrpSyncGroup>,
    pub virtual_servers: Vec<VirtualServer>,
}

/// `[appliance]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Appliance {
    pub control_socket: PathBuf,
    /// Room for connections, over all workers.
    pub max_connections: u32,
    pub tcp_midstream: TcpMidstream,
    /// CPU numbers, one worker each; empty: all but the first, or the only one.
    pub cores: Vec<usize>,
    pub idle: Idle,
    pub timeouts: Timeouts,
}

/// What a worker does when no packet comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Spin for a short time, then sleep until a packet arrives.
    Adaptive,
    /// Spin for ever.
    Busy,
    /// Sleep at once.
    Interrupt,
}

/// `[[interface]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub queues: Queues,
    pub mode: XdpMode,
}

/// Which receive queues of an interface are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queues {
    All,
    List(Vec<u32>),
}

/// How AF_XDP is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// The best that works, said at start.
    Auto,
    /// Native XDP with zero-copy or an error.
    ZeroCopy,
    /// Native XDP in copy mode or an error.
    Copy,
    /// Generic XDP.
    Generic,
}

/// `[[virtual_server]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualServer {
    pub key: ServiceKey,
    pub scheduler: SchedulerKind,
    /// The method of real servers that name none.
    pub lb_kind: ForwardingMethod,
    pub real_servers: Vec<RealServer>,
}

impl VirtualServer {
    /// Address and port as users write them.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.key.address.into(), self.key.port)
    }

    /// Shorthand for the key's protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.key.protocol
    }
}

/// `[[virtual_server.real_server]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RealServer {
    pub address: SocketAddr,
    pub lb_kind: ForwardingMethod,
    /// 0..=65535; 0 takes no new connections.
    pub weight: u32,
    /// Weight 0 instead of removal when a check fails.
    pub inhibit_on_failure: bool,
    /// All must pass for the server to be up; none: always up.
    pub checks: Vec<Check>,
}

/// A health check of one real server, every parameter filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub kind: CheckKind,
    /// Where to connect.
    pub target: SocketAddr,
    /// Source address of the check's connection.
    pub bindto: Option<IpAddr>,
    pub connect_timeout: Duration,
    /// Time between checks while the result does not change.
    pub delay_loop: Duration,
    /// Failures tolerated before the server is down: it goes down at failure
    /// `retry + 1` in a row.
    pub retry: u32,
    /// Time between a failed try and the next.
    pub delay_before_retry: Duration,
    /// The first check starts after a random part of this.
    pub warmup: Duration,
    /// Start as down until the first check passes (`alpha`).
    pub alpha: bool,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckKind {
    /// A TCP connection is accepted.
    TcpCheck,
    /// Every url answers as it should.
    HttpGet {
        urls: Vec<CheckUrl>,
        virtualhost: Option<String>,
    },
}

/// One url of an `HTTP_GET`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckUrl {
    pub path: String,
    /// Accepted status codes, inclusive ranges; keepalived's default is 200–299.
    pub status_code: Vec<(u16, u16)>,
    /// Overrides the check's `virtualhost`.
    pub virtualhost: Option<String>,
}
