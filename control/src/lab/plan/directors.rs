//! The directors of a file: one, or a pair when it has a `vrrp_instance`.
//!
//! The first runs the file unchanged. The second runs a copy of it that says
//! what such a pair's files differ in: a lower priority, the state `BACKUP`,
//! and the addresses that advertisements come from and go to.

use std::net::IpAddr;
use std::time::Duration;

use super::{Config, DIRECTOR};
use crate::config::{VrrpInstance, VrrpState, to_toml};
use crate::vrrp::packet::Version;

/// Starting, scheduling and measuring take time too: allowed on top of what
/// the timers add up to.
const SLACK: Duration = Duration::from_secs(1);

/// One director.
#[derive(Clone, Debug, PartialEq)]
pub struct Director {
    /// Its namespace.
    pub name: String,
    /// Its own addresses, one for each subnet.
    pub addresses: Vec<IpAddr>,
    /// The file that it runs, as TOML; `None`: the one to be rehearsed.
    pub file: Option<String>,
}

/// What the file promises of the death and the return of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// From its death until the other serves.
    pub out_within: Duration,
    /// From its return until it serves again; `None` if it is not to (`nopreempt`).
    pub back_within: Option<Duration>,
}

/// Names of the directors' namespaces.
pub(super) fn names(config: &Config) -> Vec<String> {
    let mut names = vec![DIRECTOR.to_string()];
    if !config.vrrp_instances.is_empty() {
        names.push(format!("{DIRECTOR}2"));
    }
    names
}

/// The addresses that the file gives to directors, first and second.
pub(super) fn given(config: &Config) -> [Vec<IpAddr>; 2] {
    let instances = || config.vrrp_instances.iter();
    let second = |one: &VrrpInstance| one.unicast_peer.first().map(|peer| peer.address);
    [
        instances().filter_map(VrrpInstance::source).collect(),
        instances().filter_map(second).collect(),
    ]
}

/// The second director's file. `first` and `second` are their own addresses,
/// in the order of the subnets.
pub(super) fn standby(config: &Config, first: &[(IpAddr, u8)], second: &[(IpAddr, u8)]) -> Config {
    let pairs = || first.iter().zip(second).map(|(a, b)| (a.0, b.0));
    let mut copy = config.clone();
    for instance in &mut copy.vrrp_instances {
        instance.state = VrrpState::Backup;
        instance.priority = instance.priority.saturating_sub(1).max(1);
        let sources = [&mut instance.mcast_src_ip, &mut instance.unicast_src_ip];
        for source in sources.into_iter().flatten() {
            if let Some((_, other)) = pairs().find(|(own, _)| own == source) {
                *source = other;
            }
        }
        for peer in &mut instance.unicast_peer {
            if let Some((other, _)) = pairs().find(|(_, own)| *own == peer.address) {
                peer.address = other;
            }
        }
    }
    copy
}

/// The text of a director's file.
pub(super) fn text(config: &Config) -> String {
    to_toml(config)
}

impl Failover {
    /// `None` without a `vrrp_instance`. The slowest instance counts.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let instances = || config.vrrp_instances.iter();
        let silence = instances().map(master_down_interval).max()?;
        let returns = instances().all(|instance| !instance.nopreempt);
        let delay = instances().map(|instance| instance.preempt_delay).max()?;
        Some(Self {
            out_within: silence + SLACK,
            back_within: returns.then_some(silence + delay + SLACK),
        })
    }
}

/// How long a backup of the lowest priority waits for a silent master
/// (RFC 9568 §6.1): three advertisements and at most one skew time.
fn master_down_interval(instance: &VrrpInstance) -> Duration {
    let longest_skew = match instance.version {
        Version::V2 => Duration::from_secs(1),
        Version::V3 => instance.advert_int,
    };
    3 * instance.advert_int + longest_skew
}
