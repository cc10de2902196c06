//! The configuration, checked: what the rest of the control plane works from.
//!
//! Every value here is valid and every default is filled in. The raw TOML
//! never leaves this module.
//!
//! A file goes through three steps: [`load()`] reads it, `syntax` finds every
//! mistake of TOML itself, `check` walks what is left, section by section.
//! `keepalived` takes the second step for the other syntax. All put what they find into one list, so that a user sees every
//! problem of a file at once, each as
//! `file:line:column: where: what was found, what was expected, what to do`.
//! [`to_toml`] is the way back: the configuration with its defaults filled in.
//!
//! Nothing here looks at the system: whether an interface exists is for `run`
//! to find out.

mod check;
mod diagnostic;
mod duration;
mod health;
mod keepalived;
mod lines;
mod load;
mod notifications;
mod pieces;
mod place;
mod print;
mod raw;
mod report;
mod syntax;
#[cfg(test)]
mod tests;
mod vrrp;

pub use check::{Checked, parse, parse_after};
pub use diagnostic::{Diagnostic, Diagnostics, Position, Severity};
pub(crate) use duration::duration_from_text;
pub use health::{
    BodyRegex, Check, CheckKind, CheckSource, CheckUrl, DnsCheck, FileCheck, HttpGet, HttpProtocol,
    MiscCheck, Passive, RecordType, RegexOption, Tls, UdpCheck, UdpReply,
};
pub use load::{Format, import_keepalived, load, load_after, load_as, parse_keepalived};
pub(crate) use load::{import_keepalived_text, read_text};
pub use notifications::{Fifo, Mail, MailServer, Notifications};
pub use pieces::Known;
pub use print::to_toml;
pub use vrrp::{
    AuthType, Authentication, InitFile, Notify, ParameterMatch, TrackFile, TrackProcess, Tracked,
    Tracks, VirtualAddress, Vmac, VrrpDefaults, VrrpInstance, VrrpScript, VrrpState, VrrpSyncGroup,
};

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use dataplane::bpf::Prefix;
use dataplane::conn::Timeouts;
use dataplane::limits::WhenFull;
use dataplane::matching::Match;
use dataplane::service::{
    Address, ForwardingMethod, Protocol, SchedulerKind, ServiceKey, ServiceOptions, TcpMidstream,
    Thresholds,
};
use dataplane::snapshot::Expiry;

use crate::scripts::{Policy, Script};

/// A whole configuration file; by default an empty one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub router_id: Option<String>,
    pub vrrp: VrrpDefaults,
    /// `script_user` and `enable_script_security`.
    pub scripts: Policy,
    pub notifications: Notifications,
    pub appliance: Appliance,
    /// Empty: every Ethernet interface that is up.
    pub interfaces: Vec<Interface>,
    pub vrrp_scripts: Vec<VrrpScript>,
    pub track_files: Vec<TrackFile>,
    pub track_processes: Vec<TrackProcess>,
    pub vrrp_instances: Vec<VrrpInstance>,
    pub vrrp_sync_groups: Vec<VrrpSyncGroup>,
    pub virtual_servers: Vec<VirtualServer>,
}

impl Config {
    /// Whether an address takes packets of virtual servers only.
    #[must_use]
    pub fn refuses(&self, address: IpAddr) -> bool {
        let mut instances = self.vrrp_instances.iter().filter(|i| i.no_accept);
        instances.any(|instance| instance.held().any(|held| held.address == address))
    }

    /// Whether the XDP program drops packets to this because no virtual server has it, and its address takes none
    /// but those of virtual servers.
    #[must_use]
    pub fn refuses_packets_to(&self, end: &ServiceKey) -> bool {
        let every_port = ServiceKey { port: 0, ..*end };
        let is_end = |known: ServiceKey| known == *end || known == every_port;
        let mut services = self.virtual_servers.iter();
        self.refuses(end.address.into())
            && !services.any(|service| service.destinations().any(is_end))
    }

    /// All that instances and groups track.
    pub fn tracks(&self) -> impl Iterator<Item = &Tracks> {
        let instances = self.vrrp_instances.iter().map(|i| &i.tracks);
        instances.chain(self.vrrp_sync_groups.iter().map(|g| &g.tracks))
    }

    /// A copy for those who may look but not take part in VRRP.
    pub(crate) fn without_passwords(&self) -> Self {
        let mut copy = self.clone();
        let instances = copy.vrrp_instances.iter_mut();
        for authentication in instances.filter_map(|i| i.authentication.as_mut()) {
            authentication.auth_pass = "********".to_owned();
        }
        copy
    }
}

/// `[appliance]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Appliance {
    pub control_socket: PathBuf,
    /// Where the status page, the API and the metrics are; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// Who knows what it contains may make changes there; `None`: nobody may.
    pub http_token_file: Option<PathBuf>,
    /// Room for connections, over all workers.
    pub max_connections: u32,
    pub tcp_midstream: TcpMidstream,
    /// CPU numbers, whose threads run the workers; empty: all but the first, or the only one.
    pub cores: Vec<usize>,
    /// How many workers there are, if there are to be more than `cores`.
    pub workers: Option<u32>,
    pub idle: Idle,
    /// Packets from there are dropped before anything looks at them.
    pub deny: Vec<Prefix>,
    /// Exceptions from `deny`: the longest prefix decides.
    pub allow: Vec<Prefix>,
    pub expiry: Expiry,
    /// `table_full`.
    pub when_full: WhenFull,
    pub timeouts: Timeouts,
}

impl Appliance {
    /// The prefix by which packets from an address are dropped: of all of `deny` and `allow` the longest decides.
    #[must_use]
    pub fn denies(&self, address: IpAddr) -> Option<Prefix> {
        let longest = |prefixes: &[Prefix]| {
            let holding = prefixes.iter().filter(|prefix| prefix.holds(address));
            holding.max_by_key(|prefix| prefix.length()).copied()
        };
        let allowed = longest(&self.allow).map(|prefix| prefix.length());
        longest(&self.deny).filter(|denied| Some(denied.length()) > allowed)
    }
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
    pub options: ServiceOptions,
    /// The method of real servers that name none.
    pub lb_kind: ForwardingMethod,
    pub real_servers: Vec<RealServer>,
    pub quorum: Quorum,
    /// At the end, `quorum_down` and `notify_down` are run for what is up.
    pub omega: bool,
    /// Mails about the quorum; `None`: as [`Mail`] says.
    pub smtp_alert: Option<bool>,
}

/// How many real servers a virtual server needs, and what happens with fewer.
#[derive(Clone, Debug, PartialEq)]
pub struct Quorum {
    /// The sum of the weights of real servers that are up, 1 at least.
    pub quorum: u32,
    /// Less than `quorum`: so much more gains it and so much less loses it.
    pub hysteresis: u32,
    pub up: Option<Script>,
    pub down: Option<Script>,
    /// Serves alone while there is no quorum. It has no checks.
    pub sorry_server: Option<RealServer>,
}

/// Any real server is enough, and nobody is told.
impl Default for Quorum {
    fn default() -> Self {
        Self {
            quorum: 1,
            hysteresis: 0,
            up: None,
            down: None,
            sorry_server: None,
        }
    }
}

impl VirtualServer {
    /// Address and port as users write them.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.key.address.into(), self.key.port)
    }

    /// The real servers and, at the end, the sorry server.
    pub fn all_servers(&self) -> impl Iterator<Item = &RealServer> + Clone {
        self.real_servers.iter().chain(&self.quorum.sorry_server)
    }

    /// Every address and port that packets come to, with port 0 for all
    /// ports of an address.
    pub fn destinations(&self) -> impl Iterator<Item = ServiceKey> {
        let matches = self.options.matches.iter().flat_map(Match::pairs);
        let own = (self.key.address, self.key.port);
        let only = self.options.matches.is_empty().then_some(own);
        only.into_iter()
            .chain(matches)
            .map(|(address, port)| ServiceKey {
                address,
                port,
                protocol: self.key.protocol,
            })
    }

    /// Every address that is to be on this host for it.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses().chain(self.local_addresses())
    }

    /// Its addresses that are to be on this host; a range is somebody else's
    /// to route here.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let matches = self.options.matches.iter().filter_map(Match::only_address);
        let only = self.options.matches.is_empty().then_some(self.key.address);
        only.into_iter().chain(matches).map(IpAddr::from)
    }

    /// True if packets to this address may be for it.
    #[must_use]
    pub fn destinations_hold(&self, address: Address) -> bool {
        let mut matches = self.options.matches.iter();
        match self.options.matches.is_empty() {
            true => self.key.address == address,
            false => matches.any(|written| written.holds(address)),
        }
    }

    /// The director's addresses to which its real servers of FULLNAT reply; none without such a server.
    pub fn local_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let mut servers = self.all_servers();
        let is_used = servers.any(|server| server.lb_kind == ForwardingMethod::FullNat);
        let own = self.options.full_nat.local_addresses.iter();
        own.filter(move |_| is_used).copied().map(IpAddr::from)
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
    pub thresholds: Thresholds,
    /// All must pass for the server to be up; none: always up.
    pub checks: Vec<Check>,
    /// Also taken out when clients get no answer.
    pub passive: Option<Passive>,
    pub notify_up: Option<Script>,
    pub notify_down: Option<Script>,
    /// Mails when it goes up or down; `None`: as [`Mail`] says.
    pub smtp_alert: Option<bool>,
}
