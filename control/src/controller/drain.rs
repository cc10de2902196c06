//! Real servers that an operator takes out of use.
//!
//! A drained server takes no new connections, not even of persistent clients,
//! and keeps those it has, whatever its weight and its checks say. At its deadline it counts as down for them
//! too: TCP packets are dropped, UDP clients get another server.
//!
//! Unlike other edits this outlives a reload: a server under maintenance must
//! not get traffic because somebody else's change was applied. What is drained
//! is an address or a port of it, so a virtual server that gets such a server
//! later has it drained. It ends with `undrain` or with the process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Controller, ServerKey};
use crate::api::edit::EditError;
use crate::config::Config;
use crate::event::Action;

#[derive(Clone, Debug)]
struct Drain {
    /// When the remaining connections are given up; `None`: never.
    deadline: Option<Instant>,
    /// The deadline has come: the first snapshot that says so.
    over: Option<u64>,
    /// Of an address: ports that are used again.
    except: BTreeSet<u16>,
}

/// Which real servers are drained.
#[derive(Debug, Default)]
pub(super) struct Drains {
    drains: BTreeMap<Matching, Drain>,
}

/// Every real server with an address, or with one address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

    /// True if all that `other` matches, this does.
    fn covers(self, other: Self) -> bool {
        self.address == other.address && (self.port.is_none() || self.port == other.port)
    }
}

impl Drains {
    /// Drains what matches, now and later; what is drained already gets the
    /// new deadline.
    ///
    /// # Errors
    /// No server of `config` matches.
    pub(super) fn drain(
        &mut self,
        config: &Config,
        matching: Matching,
        deadline: Option<Duration>,
        now: Instant,
    ) -> Result<(), EditError> {
        if !servers(config).any(|(_, server)| matching.matches(server)) {
            return Err(EditError::NoSuchServer);
        }
        let drain = Drain {
            deadline: deadline.map(|after| now + after),
            over: None,
            except: BTreeSet::new(),
        };
        self.drains.retain(|known, _| !matching.covers(*known));
        self.drains.insert(matching, drain);
        Ok(())
    }

    /// Uses the servers again.
    ///
    /// # Errors
    /// None that matches is drained.
    pub(super) fn undrain(&mut self, config: &Config, matching: Matching) -> Result<(), EditError> {
        let before = self.drains.len();
        let mut drained = servers(config).filter(|(_, server)| matching.matches(*server));
        let is_drained = drained.any(|(_, server)| self.of(server).is_some());
        self.drains.retain(|known, _| !matching.covers(*known));
        if !is_drained && self.drains.len() == before {
            return Err(EditError::NoSuchServer);
        }
        let whole = Matching {
            port: None,
            ..matching
        };
        if let (Some(port), Some(drain)) = (matching.port, self.drains.get_mut(&whole)) {
            drain.except.insert(port);
        }
        Ok(())
    }

    /// When the next deadline comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waiting = self.drains.values().filter(|drain| drain.over.is_none());
        waiting.filter_map(|drain| drain.deadline).min()
    }

    /// The servers whose deadline has come. `generation`: the next snapshot's.
    pub(super) fn expire(
        &mut self,
        config: &Config,
        now: Instant,
        generation: u64,
    ) -> Vec<ServerKey> {
        let mut due = Vec::new();
        for (matching, drain) in &mut self.drains {
            if drain.over.is_none() && drain.deadline.is_some_and(|deadline| deadline <= now) {
                drain.over = Some(generation);
                due.push(*matching);
            }
        }
        if due.is_empty() {
            return Vec::new();
        }
        let is_due = |(_, server): &ServerKey| {
            let by = self.of(*server);
            by.is_some_and(|(matching, _)| due.contains(&matching))
        };
        servers(config).filter(is_due).collect()
    }

    pub(super) fn is_drained(&self, server: SocketAddr) -> bool {
        self.of(server).is_some()
    }

    pub(super) fn is_over(&self, server: SocketAddr) -> bool {
        self.over_since(server).is_some()
    }

    /// The first snapshot without the server's connections.
    pub(super) fn over_since(&self, server: SocketAddr) -> Option<u64> {
        self.of(server).and_then(|(_, drain)| drain.over)
    }

    /// What drains a server; of its own port rather than of every port.
    fn of(&self, server: SocketAddr) -> Option<(Matching, &Drain)> {
        let (address, port) = (server.ip(), server.port());
        let of = |port| {
            let matching = Matching { address, port };
            Some((matching, self.drains.get(&matching)?))
        };
        let whole = || of(None).filter(|(_, drain)| !drain.except.contains(&port));
        of(Some(port)).or_else(whole)
    }
}

fn servers(config: &Config) -> impl Iterator<Item = ServerKey> {
    config.virtual_servers.iter().flat_map(|service| {
        let servers = service.all_servers();
        servers.map(|server| (service.key, server.address))
    })
}

impl Controller {
    /// When the next drain's deadline comes: an [`Event::Tick`](crate::event::Event::Tick) is due by then.
    #[must_use]
    pub fn drain_deadline(&self) -> Option<Instant> {
        self.drains.deadline()
    }

    pub(super) fn give_up_drained(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let next = self.generation + 1;
        for (service, server) in self.drains.expire(&self.config, now, next) {
            actions.push(Action::Log(format!(
                "virtual_server {service}: real_server {server}: the deadline of its drain has come, \
                 its remaining connections are given up"
            )));
            actions.push(Action::Publish);
        }
    }

    /// True if the server gets no new connections because an operator says so.
    #[must_use]
    pub fn is_drained(&self, server: SocketAddr) -> bool {
        self.drains.is_drained(server)
    }

    /// True if the deadline of its drain has come, and no worker serves its connections any more.
    #[must_use]
    pub fn is_given_up(&self, server: SocketAddr, oldest_generation: u64) -> bool {
        let since = self.drains.over_since(server);
        since.is_some_and(|since| since <= oldest_generation)
    }
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

    fn drained(drains: &Drains, config: &Config) -> Vec<String> {
        let drained = servers(config).filter(|(_, server)| drains.is_drained(*server));
        drained.map(|(_, server)| server.to_string()).collect()
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
        assert_eq!(drained(&drains, &config), ["10.0.0.1:80", "10.0.0.1:443"]);
        drains.undrain(&config, matching("10.0.0.1:80")).unwrap();
        assert_eq!(drained(&drains, &config), ["10.0.0.1:443"]);
        for unknown in ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2"] {
            let unknown = drains.undrain(&config, matching(unknown));
            assert_eq!(unknown, Err(EditError::NoSuchServer));
        }
        let unknown = drains.drain(&config, matching("10.0.0.1:81"), None, now);
        assert_eq!(unknown, Err(EditError::NoSuchServer));
        drains.undrain(&config, matching("10.0.0.1")).unwrap();
        assert!(drained(&drains, &config).is_empty());
    }

    #[test]
    fn the_last_drain_of_a_server_counts() {
        let (config, now) = (config(), Instant::now());
        let (second, server) = (Duration::from_secs(1), "10.0.0.1:80".parse().unwrap());
        let mut drains = Drains::default();
        for (what, deadline) in [
            ("10.0.0.1", None),
            ("10.0.0.1:80", Some(second)),
            ("10.0.0.1", None),
            ("10.0.0.1:80", Some(second)),
        ] {
            drains
                .drain(&config, matching(what), deadline, now)
                .unwrap();
        }
        assert_eq!(drains.expire(&config, now + second, 7).len(), 1);
        assert!(drains.is_over(server));
        drains
            .drain(&config, matching("10.0.0.1"), None, now)
            .unwrap();
        assert!(drains.is_drained(server) && !drains.is_over(server));
        drains.undrain(&config, matching("10.0.0.1:80")).unwrap();
        assert_eq!(drained(&drains, &config), ["10.0.0.1:443"]);
    }

    #[test]
    fn a_deadline_comes_once() {
        let (config, now) = (config(), Instant::now());
        let mut drains = Drains::default();
        let second = Duration::from_secs(1);
        drains
            .drain(&config, matching("10.0.0.1:80"), Some(2 * second), now)
            .unwrap();
        assert_eq!(drains.deadline(), Some(now + 2 * second));
        assert!(drains.expire(&config, now + second, 7).is_empty());
        let expired = drains.expire(&config, now + 2 * second, 8);
        assert_eq!(expired.len(), 1);
        assert!(drains.is_drained(expired[0].1));
        assert_eq!(drains.over_since(expired[0].1), Some(8));
        assert!(drains.expire(&config, now + 3 * second, 9).is_empty());
        assert_eq!(drains.deadline(), None);
    }

    #[test]
    fn a_server_that_goes_and_comes_back_is_drained() {
        let mut config = config();
        let mut drains = Drains::default();
        let now = Instant::now();
        drains
            .drain(&config, matching("10.0.0.1"), None, now)
            .unwrap();
        let gone = config.virtual_servers.remove(0);
        assert_eq!(drained(&drains, &config), ["10.0.0.1:443"]);
        config.virtual_servers.push(gone);
        assert_eq!(drained(&drains, &config), ["10.0.0.1:443", "10.0.0.1:80"]);
        // Nothing has it, and it can be used again.
        config.virtual_servers.clear();
        drains.undrain(&config, matching("10.0.0.1")).unwrap();
        assert!(drains.drains.is_empty());
    }
}
