//! Room for the sockets of health checks.
//!
//! A check holds a descriptor while it is tried. When a thousand servers hang,
//! a thousand are held at once, and the usual limit of 1024 would leave the
//! other checks without a verdict at the worst of times.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::config::Config;

/// Descriptors beside those of checks: sockets of workers, clients, scripts.
const OTHERS: u64 = 512;

/// Raises the limit to what the checks need, and says when the system does not
/// let us. No further: scripts inherit it, and some close everything up to it.
pub(super) fn make_room(config: &Config) {
    let servers = config.virtual_servers.iter().flat_map(|s| &s.real_servers);
    let checks: usize = servers.map(|server| server.checks.len()).sum();
    let needed = OTHERS + checks as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    // More than the maximum needs CAP_SYS_RESOURCE.
    let wanted = Rlimit {
        current: Some(needed),
        maximum: limit.maximum.map(|maximum| maximum.max(needed)),
    };
    if setrlimit(Resource::Nofile, wanted).is_ok() {
        return;
    }
    let most = limit.maximum.unwrap_or(needed);
    let as_many = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    // Up to the maximum it is always allowed.
    let _ = setrlimit(Resource::Nofile, as_many);
    warn!(
        "{checks} health checks may need {needed} open files and {most} are allowed: those beyond have no verdict; raise LimitNOFILE= of the service, or ulimit -n"
    );
}
