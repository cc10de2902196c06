//! What a configuration says about VRRP.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::announce;
use crate::routing::{VirtualRoute, VirtualRule};
use crate::scripts::Script;
use crate::vrrp::machine::Garp;
use crate::vrrp::packet::{Peer, Version};

/// keys of `[global_defs]` that are of VRRP as a whole. The defaults that it
/// gives to instances (`vrrp_version`, `vrrp_garp_*`) are already in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VrrpDefaults {
    /// From the start to taking part in VRRP.
    pub startup_delay: Duration,
    /// Between two announcements of any address.
    pub garp_interval: Duration,
}

/// keepalived has no pause between announcements: hundreds of addresses must not
/// overrun a switch's ARP policer.
impl Default for VrrpDefaults {
    fn default() -> Self {
        Self {
            startup_delay: Duration::ZERO,
            garp_interval: announce::INTERVAL,
        }
    }
}

/// `[[vrrp_script]]`: run for as long as an instance tracks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpScript {
    pub name: String,
    pub script: Script,
    /// Between the end of one run and the next.
    pub interval: Duration,
    /// A run that takes longer is killed, and has failed.
    pub timeout: Duration,
    /// Successes in a row after which it succeeds, at least 1.
    pub rise: u32,
    /// Failures in a row after which it fails, at least 1.
    pub fall: u32,
    /// It counts as failing until its first result.
    pub init_fail: bool,
    /// −253..=253, added to the priority of the instances that track it.
    pub weight: i16,
}

/// `[[vrrp_instance]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpInstance {
    pub name: String,
    pub state: VrrpState,
    pub interface: String,
    /// The addresses have a MAC address of their own.
    pub vmac: Option<Vmac>,
    pub version: Version,
    /// 1..=255
    pub virtual_router_id: u8,
    /// 1..=255; 255 is the owner of the addresses.
    pub priority: u8,
    /// Whole seconds to 255 in VRRPv2, hundredths to 40.95 s in VRRPv3.
    pub advert_int: Duration,
    /// VRRPv2 only.
    pub authentication: Option<Authentication>,
    /// In the advertisements; all of one IP version.
    pub virtual_ipaddress: Vec<VirtualAddress>,
    /// Held as well, but not in the advertisements; of either IP version.
    pub virtual_ipaddress_excluded: Vec<VirtualAddress>,
    /// What the master has beside its addresses.
    pub virtual_routes: Vec<VirtualRoute>,
    pub virtual_rules: Vec<VirtualRule>,
    /// The addresses take nothing but packets of virtual servers. Never of an owner.
    pub no_accept: bool,
    /// What goes beyond the RFCs is left out.
    pub strict_mode: bool,
    pub nopreempt: bool,
    pub preempt_delay: Duration,
    /// The interface may be down without a fault.
    pub dont_track_primary: bool,
    pub mcast_src_ip: Option<IpAddr>,
    pub unicast_src_ip: Option<IpAddr>,
    /// Empty: multicast.
    pub unicast_peer: Vec<Peer>,
    /// TTL or hop limit of what is sent to them, 1..=255.
    pub unicast_ttl: u8,
    pub garp: Garp,
    pub lower_prio_no_advert: bool,
    pub higher_prio_send_advert: bool,
    pub tracks: Tracks,
    pub notify: Notify,
    /// FIFOs are told of priorities that change, too.
    pub notify_priority_changes: bool,
}

impl VrrpInstance {
    /// Everything that the master holds.
    pub fn held(&self) -> impl Iterator<Item = &VirtualAddress> {
        self.virtual_ipaddress
            .iter()
            .chain(&self.virtual_ipaddress_excluded)
    }

    /// The interfaces beside its own that its addresses, routes and rules need, each once.
    #[must_use]
    pub fn other_interfaces(&self) -> BTreeSet<&str> {
        let addresses = self.held().filter(|held| !held.no_track);
        let addresses = addresses.filter_map(|held| held.interface.as_deref());
        let routes = self.virtual_routes.iter().filter(|route| !route.no_track);
        let routes = routes.filter_map(|route| route.dev.as_deref());
        // Only a master has its macvlan up.
        let vmac = self.vmac.as_ref().map(|vmac| vmac.name.as_str());
        let is_other = |name: &&str| *name != self.interface && Some(*name) != vmac;
        let rules = self.virtual_rules.iter().filter(|rule| !rule.no_track);
        let rules = rules.flat_map(|rule| rule.iif.iter().chain(&rule.oif));
        let rules = rules.map(String::as_str);
        let all = addresses.chain(routes).chain(rules);
        all.filter(is_other).collect()
    }

    /// Whether VRRP is spoken over IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        let first = self.virtual_ipaddress.first();
        first.is_none_or(|first| first.address.is_ipv4())
    }

    /// The MAC address of the virtual router (RFC 9568 §7.3).
    #[must_use]
    pub fn virtual_mac(&self) -> [u8; 6] {
        let family = if self.is_ipv4() { 1 } else { 2 };
        [0, 0, 0x5e, 0, family, self.virtual_router_id]
    }

    /// The source of advertisements that the file gives.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.unicast_src_ip.or(self.mcast_src_ip)
    }
}

/// `use_vmac`: a macvlan with the MAC address of the virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmac {
    /// Of the interface.
    pub name: String,
    /// Advertisements have the MAC address of the interface below all the same.
    pub xmit_base: bool,
}

/// What an instance tracks, or a group for all its instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracks {
    /// Names of [`Config::vrrp_scripts`](super::Config::vrrp_scripts).
    pub script: Vec<Tracked>,
    /// Names of interfaces.
    pub interface: Vec<Tracked>,
    /// Names of [`Config::track_files`](super::Config::track_files).
    pub file: Vec<Tracked>,
    /// Names of [`Config::track_processes`](super::Config::track_processes).
    pub process: Vec<Tracked>,
}

/// Something that is tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    pub name: String,
    /// `None`: what the tracked thing says itself; of an interface: 0.
    /// 0: its failure is a fault. Negative: taken off while it fails.
    /// Positive: added while it does not.
    pub weight: Option<i16>,
    /// Its success counts as failure; the number of a file with the other sign.
    pub reverse: bool,
}

/// `[[track_file]]`: a number that somebody else writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackFile {
    pub name: String,
    pub file: PathBuf,
    /// The number times this is added to priorities; 0: a number other than 0 is a fault.
    pub weight: i32,
    /// Written at the start.
    pub init_file: Option<InitFile>,
}

/// What a [`TrackFile`] has at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitFile {
    pub value: i32,
    /// Also if there is a file.
    pub overwrite: bool,
}

/// `[[vrrp_track_process]]`: fine while enough processes run, and not too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackProcess {
    pub name: String,
    /// Its name and its parameters.
    pub process: Vec<String>,
    /// `None`: parameters are the same, or any if there are none here.
    pub param_match: Option<ParameterMatch>,
    /// −254..=254, as of [`VrrpScript`].
    pub weight: i16,
    /// The fewest that are enough.
    pub quorum: u32,
    /// The most that are not too many.
    pub quorum_max: Option<u32>,
    /// For how long enough have to run before they count.
    pub fork_delay: Duration,
    /// For how long they are missed before that counts.
    pub terminate_delay: Duration,
    /// The name is that of the command line, not the kernel's of 15 bytes.
    pub full_command: bool,
}

/// How the parameters of a process are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterMatch {
    /// The last one begins so.
    Initial,
    /// These are the first ones.
    Partial,
}

/// `[[vrrp_sync_group]]`: instances that are master, backup or at fault together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpSyncGroup {
    pub name: String,
    /// Names of instances, each in one group at most.
    pub group: Vec<String>,
    /// Counts for each of them.
    pub tracks: Tracks,
    pub notify: Notify,
}

/// Who is told of changes of state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    pub master: Option<Script>,
    pub backup: Option<Script>,
    pub fault: Option<Script>,
    pub stop: Option<Script>,
    /// Of every change; gets `INSTANCE` or `GROUP`, the name, the state and
    /// the priority as arguments.
    pub any: Option<Script>,
    /// Mails, too; `None`: as [`Mail`](super::Mail) says.
    pub smtp_alert: Option<bool>,
}

/// The state that an instance starts in. An election follows at once; only
/// the owner starts as master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpState {
    Master,
    Backup,
}

/// How a password authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthType {
    /// It is in the advertisement.
    Pass,
    /// An IP authentication header is made with it.
    Ah,
}

/// `authentication = { auth_type = "PASS", auth_pass = "…" }`.
#[derive(Clone, PartialEq, Eq)]
pub struct Authentication {
    pub kind: AuthType,
    pub auth_pass: String,
}

/// Without the password: this type ends up in logs.
impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentication")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// An address that the director holds: `192.168.1.100/24 dev eth0 label eth0:0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualAddress {
    pub address: IpAddr,
    pub prefix_length: u8,
    /// `None`: the interface of the instance.
    pub interface: Option<String>,
    pub label: Option<String>,
    /// As the kernel numbers them, `ifa_scope`; `None`: global. The kernel chooses that of IPv6.
    pub scope: Option<u8>,
    /// `interface` may be down without a fault.
    pub no_track: bool,
}
