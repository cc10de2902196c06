//! The directors of a file: one, a pair when it has a `vrrp_instance`, or as
//! many as an instance has in `unicast_peer`, and itself.
//!
//! The first runs the file unchanged. Each other runs a copy of it that says
//! what such directors' files differ in: a priority lower by one than the one before,
//! the state `BACKUP`, and the addresses that advertisements come from and go to.

use std::net::IpAddr;
use std::time::Duration;

use super::{Config, DIRECTOR};
use crate::config::{VrrpInstance, VrrpState, to_toml};
use crate::vrrp::packet::Version;

/// Starting, scheduling and measuring take time too: allowed on top of what
/// the timers add up to.
pub(super) const SLACK: Duration = Duration::from_secs(1);

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
    let peers = |instance: &VrrpInstance| instance.unicast_peer.len().max(1);
    let others = config.vrrp_instances.iter().map(peers).max().unwrap_or(0);
    let other = |number| format!("{DIRECTOR}{}", number + 2);
    let first = std::iter::once(DIRECTOR.to_string());
    first.chain((0..others).map(other)).collect()
}

/// The addresses that the file gives to directors, in their order.
pub(super) fn given(config: &Config) -> Vec<Vec<IpAddr>> {
    let instances = || config.vrrp_instances.iter();
    let own = instances().filter_map(VrrpInstance::source).collect();
    let of_peer = |number: usize| {
        let peers = instances().filter_map(move |one: &VrrpInstance| one.unicast_peer.get(number));
        peers.map(|peer| peer.address).collect()
    };
    let others = names(config).len() - 1;
    std::iter::once(own)
        .chain((0..others).map(of_peer))
        .collect()
}

/// The file of director `number`, from 1; the first one is 0. `first` and `own` are the
/// addresses of that and of this, in the order of the subnets.
pub(super) fn standby(
    config: &Config,
    number: usize,
    first: &[(IpAddr, u8)],
    own: &[(IpAddr, u8)],
) -> Config {
    let pairs = || first.iter().zip(own).map(|(a, b)| (a.0, b.0));
    let lower = u8::try_from(number).unwrap_or(u8::MAX);
    let mut copy = config.clone();
    for instance in &mut copy.vrrp_instances {
        instance.state = VrrpState::Backup;
        instance.priority = instance.priority.saturating_sub(lower).max(1);
        let sources = [&mut instance.mcast_src_ip, &mut instance.unicast_src_ip];
        for source in sources.into_iter().flatten() {
            if let Some((_, here)) = pairs().find(|(there, _)| there == source) {
                *source = here;
            }
        }
        for peer in &mut instance.unicast_peer {
            if let Some((there, _)) = pairs().find(|(_, here)| *here == peer.address) {
                peer.address = there;
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
