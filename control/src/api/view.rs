//! What the appliance shows: the JSON of `appliance show --json` and of
//! `GET /api/v1/*`, one type per answer.
//!
//! A contract with scripts: fields are added, never renamed or removed.
//! Names are lower_snake and carry the unit where one matters; `_total`
//! marks what only grows. Addresses are strings: `192.168.1.100:80`,
//! `[2001:db8::1]:80`. What is not known is `null`, never missing.
//!
//! These are plain copies: nothing here is computed, except that [`Traffic`]
//! adds up.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::iter::Sum;
use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// A word out of a small fixed set: costs no allocation where it is made.
pub type Word = Cow<'static, str>;

/// What was counted for a real server or, added up, for a virtual server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections in state ESTABLISHED.
    pub active_connections: u64,
    /// Connections in any other state; all of UDP's, as in IPVS.
    pub inactive_connections: u64,
    /// Connections ever scheduled.
    pub connections_total: u64,
    /// Packets from clients.
    pub packets_total: u64,
    /// IP bytes from clients: without Ethernet headers, as IPVS counts.
    pub bytes_total: u64,
    /// Packets from real servers, which only NAT and FULLNAT see.
    pub reply_packets_total: u64,
    /// IP bytes of these.
    pub reply_bytes_total: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.active_connections += other.active_connections;
        self.inactive_connections += other.inactive_connections;
        self.connections_total += other.connections_total;
        self.packets_total += other.packets_total;
        self.bytes_total += other.bytes_total;
        self.reply_packets_total += other.reply_packets_total;
        self.reply_bytes_total += other.reply_bytes_total;
    }
}

impl Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |mut sum, part| {
            sum += part;
            sum
        })
    }
}

/// A virtual server: an element of `show services --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Word,
    pub address: SocketAddr,
    /// What it matches beside or instead of `address`, as the file has it;
    /// empty: the address alone.
    pub matches: Vec<String>,
    /// IPVS's name: `wrr`.
    pub scheduler: Word,
    /// `sh-port`, `mh-fallback` and the like.
    pub scheduler_flags: Vec<Word>,
    /// `null`: a client's connections are scheduled each for itself.
    pub persistence: Option<Persistence>,
    /// Every UDP datagram is scheduled for itself.
    pub one_packet: bool,
    pub limits: Limits,
    /// `DR`, `NAT`, `TUN` or `FULLNAT`: that of real servers which name none.
    pub forwarding_method: Word,
    /// The sum over the real servers.
    #[serde(flatten)]
    pub traffic: Traffic,
    pub real_servers: Vec<RealServer>,
}

/// How many connections a virtual server and each source of clients may have and begin; `null`:
/// any number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub max_connections: Option<u32>,
    pub new_connections_per_second: Option<u32>,
    pub new_connections_burst: Option<u32>,
    pub source_max_connections: Option<u32>,
    pub source_new_connections_per_second: Option<u32>,
    pub source_new_connections_burst: Option<u32>,
    /// Length of the prefix that is one source; `null`: sources are not limited.
    pub source_granularity: Option<u8>,
    /// `off`, `always` or `under-attack`.
    pub syn_proxy: Word,
    /// With `under-attack`: half-open connections that begin it.
    pub syn_proxy_threshold: Option<u32>,
    /// With `under-attack`: it is at work.
    pub under_attack: bool,
    /// Now.
    pub half_open_connections: u32,
    /// New connections that were refused, by the reason of `show drops`.
    pub refused_total: BTreeMap<String, u64>,
}

/// That a client's connections go to one real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// After the last new connection.
    pub timeout_seconds: u64,
    /// Length of the prefix that tells clients apart.
    pub granularity: u8,
}

/// A real server of one virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServer {
    pub address: SocketAddr,
    /// `DR`, `NAT`, `TUN` or `FULLNAT`.
    pub forwarding_method: Word,
    /// As scheduled now: 0 takes no new connections.
    pub weight: u32,
    /// As the configuration has it.
    pub configured_weight: u32,
    /// Connections that make it overloaded; 0: none do.
    pub upper_threshold: u32,
    /// Connections below which it is not any more; 0: three quarters of the
    /// upper one.
    pub lower_threshold: u32,
    pub health: Health,
    /// `appliance drain`: no new connections until `undrain`.
    pub drained: bool,
    /// The deadline of its drain has come: its connections are not served any more.
    pub given_up: bool,
    /// The last failure, while the server is not up.
    pub reason: Option<String>,
    #[serde(flatten)]
    pub traffic: Traffic,
    /// `null`: not known, packets for the server cannot be sent.
    pub next_hop: Option<NextHop>,
}

/// Whether a real server is fit for new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Every check passes.
    Up,
    /// A check fails.
    Down,
    /// No check has a result yet.
    Checking,
    /// It has no checks, and counts as up.
    Unchecked,
}

impl Health {
    /// Whether a server takes new connections as far as its health goes. Before the first result it does.
    #[must_use]
    pub const fn is_fit(self) -> bool {
        match self {
            Self::Up | Self::Unchecked | Self::Checking => true,
            Self::Down => false,
        }
    }

    /// The word used in JSON and in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Checking => "checking",
            Self::Unchecked => "unchecked",
        }
    }
}

/// Where frames for a real server go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    pub interface: String,
    /// Destination of the frames: `02:00:00:00:00:01`.
    pub mac: String,
}

/// A connection: an element of `show connections --json`. There may be a
/// million, so making one allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub protocol: Word,
    pub client: SocketAddr,
    pub virtual_server: SocketAddr,
    pub real_server: SocketAddr,
    /// IPVS's name of the TCP or SCTP state, or `UDP`; `NONE`: this is no connection but a template of
    /// persistence, which says where the client's next one goes. Its client has port 0.
    pub state: Word,
    /// Time left if no further packet comes.
    pub expires_seconds: u64,
    /// The worker that has the connection; `null`: a template belongs to none.
    pub worker: Option<u32>,
}

/// How a real server is reached: an element of `show neighbors --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbor {
    pub real_server: IpAddr,
    /// The gateway; `null`: the real server is on the link.
    pub via: Option<IpAddr>,
    /// Of the route, also while the next hop is not resolved; `null`: no route
    /// is known, or it leads over an interface that is not used.
    pub interface: Option<String>,
    /// `null`: not known.
    pub mac: Option<String>,
    /// `resolved`, or what stands in the way.
    pub state: Word,
}

/// A worker: an element of `show workers --json`.
/// `rx_packets + handed_off_rx + fragments_made = tx_packets + handed_off_tx + dropped_packets + waiting`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    pub worker: u32,
    /// The CPU that it is pinned to.
    pub core: u32,
    /// Generation of the snapshot that it works with.
    pub snapshot_generation: u64,
    /// By the names of `dataplane::counters::Counters`.
    #[serde(flatten)]
    pub counters: BTreeMap<String, u64>,
    /// Over all reasons of `show drops`.
    pub dropped_packets: u64,
    pub interfaces: Vec<WorkerInterface>,
    /// Where packets go that are not the appliance's; without it they are dropped.
    pub way_back: Option<WayBack>,
}

/// The tap interface by which a worker hands packets to the kernel. `returned_to_kernel` counts all
/// of them; the kernel did not take those that are counted here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayBack {
    pub interface: String,
    /// Frames without a whole Ethernet header.
    pub tx_invalid: u64,
    /// Frames that the kernel refused: somebody set the interface down.
    pub tx_dropped: u64,
}

/// One AF_XDP socket of a worker. The counters are the kernel's
/// (`XDP_STATISTICS` in `<linux/if_xdp.h>`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInterface {
    pub interface: String,
    pub queue: u32,
    pub mode: AttachMode,
    pub zero_copy: bool,
    /// Frames that the kernel dropped for other reasons than full rings.
    pub rx_dropped: u64,
    /// Frames that the kernel dropped because the worker was too slow.
    pub rx_ring_full: u64,
    /// Times that the kernel found no free frame to receive into.
    pub rx_fill_ring_empty: u64,
    /// Descriptors that the kernel refused to transmit.
    pub tx_invalid: u64,
    /// Frames that the driver reported as dropped while sending.
    pub tx_dropped: u64,
    /// Descriptors from the kernel that named no frame of ours: a kernel bug.
    pub kernel_invalid: u64,
    /// Of the whole interface: the same for all of its queues.
    pub steering: Steering,
}

/// What the steering program of an interface counted: each received packet once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steering {
    /// Given to a worker's socket.
    pub steered: u64,
    /// No virtual server's: left to the kernel.
    pub passed: u64,
    /// A virtual server's, on a queue without a worker: left to the kernel.
    pub no_socket: u64,
    /// To another host or to a group: left to the kernel.
    pub not_for_us: u64,
    /// From a prefix of `deny`, or to an address of `no_accept`: dropped.
    pub denied: u64,
}

/// Where in the kernel the steering program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// Behind the driver: slower, works everywhere.
    Generic,
}

impl AttachMode {
    /// The word used in JSON and in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// A drop reason, over all workers: an element of `show drops --json`, which
/// has every reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    pub reason: Word,
    /// One sentence.
    pub description: Word,
    pub packets_total: u64,
}

/// A health check: an element of `show health --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Of the virtual server.
    pub protocol: Word,
    pub virtual_server: SocketAddr,
    pub real_server: SocketAddr,
    /// keepalived's name: `TCP_CHECK`, `HTTP_GET`.
    pub check: Word,
    /// Where the check connects.
    pub target: SocketAddr,
    /// [`Health::Up`], [`Health::Down`] or [`Health::Checking`].
    pub state: Health,
    /// What the last try came to; `null` before the first.
    pub last_result: Option<String>,
    /// Time spent in `state`.
    pub since_seconds: u64,
    /// Failed tries in a row.
    pub failures: u64,
}

/// The directors' election: `show vrrp --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vrrp {
    pub instances: Vec<VrrpInstance>,
    /// Packets that are no instance's.
    pub refused: Vec<VrrpRefused>,
    pub timer_slip: TimerSlip,
}

/// An instance of VRRP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrrpInstance {
    pub name: String,
    /// keepalived's word: `INIT`, `BACKUP`, `MASTER` or `FAULT`.
    pub state: Word,
    /// Time spent in `state`.
    pub since_seconds: u64,
    /// What keeps it in `FAULT`.
    pub faults: Vec<String>,
    pub interface: String,
    /// 2 or 3
    pub version: u8,
    pub virtual_router_id: u8,
    /// With the weights of what it tracks.
    pub priority: u8,
    pub configured_priority: u8,
    pub advert_int_milliseconds: u64,
    /// Its `vrrp_sync_group`.
    pub sync_group: Option<String>,
    /// Where its advertisements come from.
    pub source: Option<IpAddr>,
    /// Of a backup: whom it follows.
    pub master: Option<IpAddr>,
    pub master_priority: Option<u8>,
    /// `virtual_ipaddress` and `virtual_ipaddress_excluded`, with prefix.
    pub addresses: Vec<String>,
    pub adverts_sent_total: u64,
    /// Those that were followed.
    pub adverts_received_total: u64,
    pub became_master_total: u64,
    pub released_master_total: u64,
    pub priority_zero_sent_total: u64,
    pub priority_zero_received_total: u64,
    /// Sent later than half an `advert_int` after their time.
    pub late_adverts_total: u64,
    /// Advertisements for it that were refused, by reason.
    pub refused: Vec<VrrpRefused>,
}

/// Refused advertisements of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrrpRefused {
    /// One of those in docs/vrrp.md: `password`.
    pub reason: Word,
    pub total: u64,
    /// Sender of the last one.
    pub last: Option<IpAddr>,
}

/// How much later than asked for the control thread's timers ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerSlip {
    pub timers_total: u64,
    /// Of all timers together.
    pub sum_microseconds: u64,
    /// In ascending order; each has those of the ones before it, too.
    pub buckets: Vec<SlipBucket>,
    pub p50_microseconds: u64,
    pub p99_microseconds: u64,
    pub max_microseconds: u64,
}

/// Timers that were not later than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlipBucket {
    pub le_microseconds: u64,
    pub timers_total: u64,
}

/// What the status page and the metrics are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub version: Version,
    pub services: Vec<Service>,
    pub workers: Vec<Worker>,
    pub drops: Vec<Drop>,
    pub health: Vec<HealthCheck>,
    pub vrrp: Vrrp,
}

/// What a packet would meet: `explain --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// As the configuration names it; `null`: none matches.
    pub virtual_server: Option<String>,
    /// What a worker has of this client.
    pub connection: Option<FoundConnection>,
    /// Whom the packet goes to.
    pub real_server: Option<SocketAddr>,
    /// False: what decides may be different when the packet comes.
    pub certain: bool,
    /// How that came about, a sentence each.
    pub why: Vec<String>,
    /// Every real server of the virtual server.
    pub candidates: Vec<Candidate>,
    pub forwarding_method: Option<Word>,
    /// `null`: not known, or asked offline.
    pub next_hop: Option<NextHop>,
    /// What is written into the packet, for people.
    pub headers: Vec<String>,
}

/// A connection as `explain` found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundConnection {
    pub worker: u32,
    /// IPVS's name.
    pub state: Word,
    /// `null`: it was removed.
    pub real_server: Option<SocketAddr>,
}

/// A real server that `explain` considered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub real_server: SocketAddr,
    pub forwarding_method: Word,
    pub weight: u32,
    pub active_connections: u64,
    pub inactive_connections: u64,
    /// Whether it takes new connections, and why not.
    pub state: String,
}

/// The effective configuration: `show config --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// A valid configuration file, all defaults filled in.
    pub toml: String,
}

/// A reload that was carried out: answer of `POST /api/v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// What is different now, one line each, for people; empty: nothing.
    pub changes: Vec<String>,
    /// What is suspect in the file, although it was taken up, as in [`ReloadRefused`].
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Generation of the snapshot that has the changes.
    pub generation: u64,
}

/// A reload that was refused; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadRefused {
    /// `file:line:column: where: what was found, what was expected, what to do`.
    pub diagnostics: Vec<String>,
}

/// Who answers: `GET /api/v1/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub version: Word,
    pub pid: u32,
    pub uptime_seconds: u64,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    pub error: String,
    /// Of a refused reload; otherwise absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<String>,
}
