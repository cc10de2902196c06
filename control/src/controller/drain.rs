//! Real servers that an operator takes out of use.
//!
//! A drained server takes no new connections, not even of persistent clients,
//! and keeps those it has, whatever its weight and its checks say. At its deadline it counts as down for them
//! too: TCP packets are dropped, UDP clients get another server.
//!
//! Unlike other edits this outlives a reload: a server under maintenance must
//! not get traffic because somebody else's change was applied. It ends with
//! `undrain`, with the server itself, or with the process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::ServerKey;
use crate::api::edit::EditError;
use crate::config::Config;

#[derive(Clone, Copy, Debug)]
struct Drain {
    /// When the remaining connections are given up; `None`: never.
    deadline: Option<Instant>,
    over: bool,
}

/// Which real servers are drained.
#[derive(Debug, Default)]
pub(super) struct Drains {
    drains: BTreeMap<ServerKey, Drain>,
}

/// Every real server with an address, or with one address and port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matching {
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
}

impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "real server {}", SocketAddr::new(self.address, port)),
            None => write!(f, "real server {}", self.address),
        }
    }
}

impl Matching {
    fn matches(self, server: SocketAddr) -> bool {
        server.ip() == self.address && self.port.is_none_or(|port| port == server.port())
    }
}

impl Drains {
    /// Drains the servers of `config` that match; those that are drained
    /// already get the new deadline.
    ///
    /// # Errors
    /// None matches.
    pub(super) fn drain(
        &mut self,
        config: &Config,
        matching: Matching,
        deadline: Option<Duration>,
        now: Instant,
    ) -> Result<(), EditError> {
        let found: Vec<ServerKey> = servers(config)
            .filter(|(_, server)| matching.matches(*server))
            .collect();
        if found.is_empty() {
            return Err(EditError::NoSuchServer);
        }
        let drain = Drain {
            deadline: deadline.map(|after| now + after),
            over: false,
        };
        self.drains
            .extend(found.into_iter().map(|key| (key, drain)));
        Ok(())
    }

    /// Uses the servers again.
    ///
    /// # Errors
    /// None that matches is drained.
    pub(super) fn undrain(&mut self, matching: Matching) -> Result<(), EditError> {
        let before = self.drains.len();
        self.drains
            .retain(|(_, server), _| !matching.matches(*server));
        match self.drains.len() < before {
            true => Ok(()),
            false => Err(EditError::NoSuchServer),
        }
    }

    /// Forgets servers that are gone.
    pub(super) fn keep_only(&mut self, config: &Config) {
        if !self.drains.is_empty() {
            let configured: BTreeSet<ServerKey> = servers(config).collect();
            self.drains.retain(|key, _| configured.contains(key));
        }
    }

    /// The servers whose deadline has come.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<ServerKey> {
        let mut expired = Vec::new();
        for (key, drain) in &mut self.drains {
            if !drain.over && drain.deadline.is_some_and(|deadline| deadline <= now) {
                drain.over = true;
                expired.push(*key);
            }
        }
        expired
    }

    pub(super) fn is_drained(&self, server: ServerKey) -> bool {
        self.drains.contains_key(&server)
    }

    pub(super) fn is_over(&self, server: ServerKey) -> bool {
        self.drains.get(&server).is_some_and(|drain| drain.over)
    }
}

fn servers(config: &Config) -> impl Iterator<Item = ServerKey> {
    config.virtual_servers.iter().flat_map(|service| {
        let servers = service.real_servers.iter();
        servers.map(|server| (service.key, server.address))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config() -> Config {
        let text = ["10.0.0.100:80", "10.0.0.100:443"].map(|vip| {
            let port = vip.rsplit_once(':').unwrap().1;
            format!(
                "[[virtual_server]]\naddress = \"{vip}\"\nlb_kind = \"DR\"\n\
                 [[virtual_server.real_server]]\naddress = \"10.0.0.1:{port}\"\n\
                 [[virtual_server.real_server]]\naddress = \"10.0.0.2:{port}\"\n"
            )
        });
        let checked = crate::config::parse(&text.concat(), Path::new("test"));
        checked.unwrap().config
    }

    fn drained(drains: &Drains) -> Vec<String> {
        let keys = drains.drains.keys();
        keys.map(|(_, server)| server.to_string()).collect()
    }

    fn matching(text: &str) -> Matching {
        match text.parse::<SocketAddr>() {
            Ok(server) => Matching {
                address: server.ip(),
                port: Some(server.port()),
            },
            Err(_) => Matching {
                address: text.parse().unwrap(),
                port: None,
            },
        }
    }

    #[test]
    fn an_address_means_all_its_ports() {
        let (config, now) = (config(), Instant::now());
        let mut drains = Drains::default();
        drains
            .drain(&config, matching("10.0.0.1"), None, now)
            .unwrap();
        assert_eq!(drained(&drains), ["10.0.0.1:80", "10.0.0.1:443"]);
        drains.undrain(matching("10.0.0.1:80")).unwrap();
        assert_eq!(drained(&drains), ["10.0.0.1:443"]);
        let unknown = drains.drain(&config, matching("10.0.0.1:81"), None, now);
        assert_eq!(unknown, Err(EditError::NoSuchServer));
        let unknown = drains.undrain(matching("10.0.0.1:80"));
        assert_eq!(unknown, Err(EditError::NoSuchServer));
    }

    #[test]
    fn a_deadline_comes_once() {
        let (config, now) = (config(), Instant::now());
        let mut drains = Drains::default();
        let second = Duration::from_secs(1);
        drains
            .drain(&config, matching("10.0.0.1:80"), Some(2 * second), now)
            .unwrap();
        assert!(drains.expire(now + second).is_empty());
        let expired = drains.expire(now + 2 * second);
        assert_eq!(expired.len(), 1);
        assert!(drains.is_drained(expired[0]) && drains.is_over(expired[0]));
        assert!(drains.expire(now + 3 * second).is_empty());
    }

    #[test]
    fn a_server_that_goes_takes_its_drain_along() {
        let mut config = config();
        let mut drains = Drains::default();
        let now = Instant::now();
        drains
            .drain(&config, matching("10.0.0.1"), None, now)
            .unwrap();
        config.virtual_servers.remove(0);
        drains.keep_only(&config);
        assert_eq!(drained(&drains), ["10.0.0.1:443"]);
    }
}
