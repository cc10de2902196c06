//! What a `vrrp_script` asks of the director that it runs on, where the lab can serve that and let it
//! stop: HTTP on a loopback address. Any other script runs as it is, on whatever it finds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Config, Failover, directors::SLACK};
use crate::config::{VrrpInstance, VrrpScript};
use crate::vrrp::packet::PRIORITY_OWNER;

/// Something that a script watches on each director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The name of the `vrrp_script`.
    pub script: String,
    pub address: SocketAddr,
    /// From its stop on the master until another director is that; `None`: it stays master.
    pub out_within: Option<Duration>,
    /// From its return until the director is master again.
    pub back_within: Duration,
}

impl Watched {
    /// Nothing if the file has no `vrrp_instance`.
    pub(super) fn all(config: &Config) -> Vec<Self> {
        let scripts = config.vrrp_scripts.iter();
        scripts
            .filter_map(|script| Self::of(script, config))
            .collect()
    }

    fn of(script: &VrrpScript, config: &Config) -> Option<Self> {
        let address = script.script.words.iter().find_map(|word| asked(word))?;
        let failover = Failover::of(config)?;
        let mut trackers = config
            .vrrp_instances
            .iter()
            .map(|instance| (instance, weight(instance, script)));
        let yields = trackers.all(|(instance, weight)| {
            weight.is_some_and(|weight| yields_to_next(instance, weight))
        });
        let run = script.interval + script.timeout;
        Some(Self {
            script: script.name.clone(),
            address,
            out_within: (yields && failover.back_within.is_some())
                .then_some(failover.out_within + run * script.fall),
            back_within: failover.back_within.unwrap_or(SLACK) + run * script.rise,
        })
    }
}

/// What a script's failure weighs for an instance that tracks it.
fn weight(instance: &VrrpInstance, script: &VrrpScript) -> Option<i16> {
    let mut tracked = instance.tracks.script.iter();
    let tracked = tracked.find(|tracked| tracked.name == script.name && !tracked.reverse)?;
    Some(tracked.weight.unwrap_or(script.weight))
}

/// Whether that puts the instance behind the next director, whose priority is one less.
fn yields_to_next(instance: &VrrpInstance, weight: i16) -> bool {
    instance.priority != PRIORITY_OWNER && (weight == 0 || weight.unsigned_abs() > 1)
}

/// The loopback address of an HTTP URL.
fn asked(word: &str) -> Option<SocketAddr> {
    const HTTP: u16 = 80;
    let (_, after) = word.split_once("http://")?;
    let authority = after.split(['/', '?', '#', '\'', '"', ' ']).next()?;
    let address = if let Ok(address) = authority.parse::<SocketAddr>() {
        address
    } else if let Ok(ip) = authority.trim_matches(['[', ']']).parse::<IpAddr>() {
        SocketAddr::new(ip, HTTP)
    } else {
        let port = match authority.strip_prefix("localhost")? {
            "" => HTTP,
            port => port.strip_prefix(':')?.parse().ok()?,
        };
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    };
    address.ip().is_loopback().then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_this_host() {
        for (word, address) in [
            ("http://127.0.0.1/", "127.0.0.1:80"),
            ("http://127.0.0.1:8080/health?x=1", "127.0.0.1:8080"),
            ("http://localhost", "127.0.0.1:80"),
            ("http://localhost:81/", "127.0.0.1:81"),
            ("http://[::1]/", "[::1]:80"),
            ("curl -f 'http://[::1]:8080'", "[::1]:8080"),
        ] {
            assert_eq!(asked(word), Some(address.parse().unwrap()), "{word}");
        }
        for word in [
            "/usr/bin/curl",
            "http://10.0.0.1/",
            "https://127.0.0.1/",
            "http://localhostess/",
            "http://127.0.0.1:99999/",
        ] {
            assert_eq!(asked(word), None, "{word}");
        }
    }
}
