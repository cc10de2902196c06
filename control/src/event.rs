//! What reaches the controller, and what it wants done.
//!
//! The controller does no I/O: `run` feeds it [`Event`]s and carries out its
//! [`Action`]s. Both serialise, so that a test case is a pair of files of
//! JSON lines.

mod rule;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dataplane::bpf::Rule;
use serde::{Deserialize, Serialize};

use crate::config::Check;
use crate::notify::{Message, Notice};
use crate::routing::{VirtualRoute, VirtualRule};
use crate::scripts::Script;
use crate::vrrp::packet::{Datagram, TTL};

/// Names one health check: `virtual_server` is a `ServiceKey` as displayed,
/// `TCP 192.168.1.100:80`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckId {
    pub virtual_server: String,
    pub real_server: SocketAddr,
    /// Its number among the real server's checks: it keeps it while others come and go.
    pub check: usize,
}

impl fmt::Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "virtual_server {}: real_server {}",
            self.virtual_server, self.real_server
        )
    }
}

/// What a `MISC_CHECK` with `misc_dynamic` or a `FILE_CHECK` does to a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightChange {
    /// To this, if no other check has a say.
    Set(u32),
    Add(i64),
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A dampened change of a check's result.
    Health {
        id: CheckId,
        healthy: bool,
        reason: String,
        /// What a check that passes wants of the real server's weight.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<WeightChange>,
    },
    /// The kernel's view of the network changed.
    Network(NetworkEvent),
    /// Answer to [`Action::LookUpRoute`]; `None`: there is no route.
    Route {
        destination: IpAddr,
        route: Option<Route>,
        /// It is an address of this host.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        local: bool,
    },
    /// Answer to [`Action::ListRoutes`].
    Routes { routes: Vec<TableRoute> },
    /// For the directors' election.
    Vrrp(VrrpEvent),
    /// Once a second.
    Tick,
}

/// What the instances of VRRP wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VrrpEvent {
    /// A packet of protocol 112 came in by an interface.
    Datagram { index: u32, datagram: Datagram },
    /// The time that the controller asked for has come.
    Timer,
    /// The result of a `vrrp_script` changed.
    Script {
        name: String,
        succeeds: bool,
        /// How its last run ended, in words.
        reason: String,
    },
    /// A `vrrp_script` cannot be run, and never could be: it does not count until it has a result.
    ScriptNotRun {
        name: String,
        /// Why, in words.
        reason: String,
    },
    /// The number in a `track_file` changed.
    File { name: String, value: i32 },
    /// A `vrrp_track_process` runs as it should, or not any more.
    Process {
        name: String,
        fine: bool,
        /// So many processes.
        running: usize,
    },
}

/// A change of links, addresses, routes or neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkEvent {
    Link {
        index: u32,
        name: String,
        mac: [u8; 6],
        /// Set up by the administrator and has a carrier.
        up: bool,
        mtu: u32,
        /// Carries Ethernet frames and is no loopback.
        ethernet: bool,
        /// The kernel's name for a virtual link: `veth`, `bond`, `bridge`,
        /// `vlan`, `tun`…; `None` for hardware.
        #[serde(default)]
        kind: Option<String>,
        /// Index of the bond, bridge or VRF that the link is part of.
        #[serde(default)]
        master: Option<u32>,
    },
    LinkGone {
        index: u32,
    },
    Address {
        index: u32,
        address: IpAddr,
        prefix_length: u8,
        ours: bool,
        present: bool,
    },
    /// `mac: None`: the neighbour is not reachable (failed, incomplete or gone).
    Neighbor {
        index: u32,
        address: IpAddr,
        mac: Option<[u8; 6]>,
    },
    /// Answer to [`Action::AskFor`]: of these addresses, which ones other hosts have, with their MAC addresses.
    Asked {
        addresses: Vec<IpAddr>,
        claimed: Vec<(IpAddr, [u8; 6])>,
    },
    /// Some route changed: next hops have to be looked up again.
    RoutesChanged,
}

/// The way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Outgoing interface.
    pub index: u32,
    /// `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
}

/// A route of the kernel's main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRoute {
    pub destination: IpAddr,
    pub prefix_length: u8,
    #[serde(flatten)]
    pub route: Route,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The forwarding state changed: build a snapshot and publish it.
    Publish,
    /// The steering program goes by this rule from now on.
    Steer(#[serde(with = "rule::RuleText")] Rule),
    /// The steering program forgets this rule.
    Unsteer(#[serde(with = "rule::RuleText")] Rule),
    /// The interface answers to other MAC addresses than before.
    OwnMacs {
        index: u32,
    },
    AddAddress {
        index: u32,
        address: IpAddr,
        prefix_length: u8,
        label: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<u8>,
    },
    RemoveAddress {
        index: u32,
        address: IpAddr,
        prefix_length: u8,
    },
    /// What a master has beside its addresses.
    AddRoute(VirtualRoute),
    RemoveRoute(VirtualRoute),
    AddRule(VirtualRule),
    RemoveRule(VirtualRule),
    /// Make a macvlan above an interface, or make it anew.
    AddVmac {
        name: String,
        /// Index of the interface below.
        base: u32,
        mac: [u8; 6],
    },
    SetVmac {
        name: String,
        /// The interface below, which is not to answer for what is on the macvlan.
        base: String,
        up: bool,
    },
    RemoveVmac {
        name: String,
    },
    /// Ask the network whether another host has one of these addresses, before they are added.
    AskFor {
        index: u32,
        addresses: Vec<IpAddr>,
    },
    /// Tell the network where the address is (gratuitous ARP, unsolicited NA).
    Announce {
        index: u32,
        address: IpAddr,
    },
    /// The same for what an instance of VRRP holds, in bursts that VRRP times:
    /// so many frames for each address.
    AnnounceInstance {
        instance: String,
        repeat: u32,
    },
    /// What is being announced for an instance is not its any more.
    StopAnnouncing {
        instance: String,
    },
    /// Ask for the kernel's main routing table: replies to clients go by it.
    ListRoutes,
    /// Send a packet of protocol 112 by an interface.
    SendAdvert {
        instance: String,
        index: u32,
        source: IpAddr,
        destination: IpAddr,
        message: Vec<u8>,
        /// The message is a whole packet, of protocol 51.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        with_header: bool,
        /// TTL or hop limit.
        #[serde(default = "usual_ttl", skip_serializing_if = "is_usual_ttl")]
        ttl: u8,
    },
    LookUpRoute {
        destination: IpAddr,
    },
    /// Resolve a neighbour, or verify one that is resolved.
    ProbeNeighbor {
        index: u32,
        address: IpAddr,
        resolved: bool,
    },
    StartCheck {
        id: CheckId,
        check: Box<Check>,
    },
    StopCheck {
        id: CheckId,
    },
    /// Tell somebody: `notify_*`, `quorum_*`.
    RunScript {
        /// What it is about, in words: such scripts are run one after the other.
        about: String,
        script: Script,
        /// More than its own.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        arguments: Vec<String>,
        /// In words, for the log.
        cause: String,
    },
    /// Tell those who wait for a change of any kind: `notify_fifo`.
    Tell(Notice),
    /// Send a mail: `smtp_alert`.
    Mail(Message),
    /// One line for the log: cause and effect.
    Log(String),
    /// The same for what somebody should look after.
    Warn(String),
}

/// What advertisements are sent with unless `unicast_ttl` says otherwise.
fn usual_ttl() -> u8 {
    TTL
}

fn is_usual_ttl(ttl: &u8) -> bool {
    *ttl == TTL
}
