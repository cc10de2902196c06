//! The owner of all control state: configuration, health, next hops,
//! addresses, ids.
//!
//! Sans-I/O: [`Controller::handle`] and [`Controller::reload`] take what
//! happened and the time, and return what is to be done. A change that makes
//! no difference produces nothing.
//!
//! Invariants: a [`ServerId`] is given to another real server only after no
//! worker has a connection of it (see `ids`); the state after a reload is
//! that of a start with the new file, except for what is kept on purpose: connections, health,
//! ids and statistics of unchanged servers.

mod addresses;
mod diff;
mod ids;
mod next_hops;
mod steering;
mod vrrp;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use dataplane::counters::ServerTotals;
use dataplane::service::{self, MacAddress, ServerId, ServiceKey};
use dataplane::snapshot::Snapshot;

pub use addresses::{Addresses, Wanted};
pub use ids::Servers;
pub use next_hops::{NextHops, Port, Resolution};

use self::steering::Steering;
use crate::config::{Check, Config, RealServer};
use crate::event::{Action, CheckId, Event, NetworkEvent};
use crate::vrrp::router::Router;

/// What is known of a real server by its checks.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckState {
    pub check: Check,
    /// `None`: no result yet; the server counts as up, unless `alpha`.
    pub healthy: Option<bool>,
    /// What the last change was about.
    pub reason: Option<String>,
}

impl CheckState {
    fn new(check: Check) -> Self {
        Self {
            check,
            healthy: None,
            reason: None,
        }
    }

    /// Whether the server may be used as far as this check is concerned.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.healthy.unwrap_or(!self.check.alpha)
    }
}

/// Names a real server of a virtual server.
pub type ServerKey = (ServiceKey, SocketAddr);

/// All control state.
#[derive(Debug)]
pub struct Controller {
    config: Config,
    ports: Vec<Port>,
    generation: u64,
    checks: BTreeMap<ServerKey, Vec<CheckState>>,
    servers: Servers,
    next_hops: NextHops,
    addresses: Addresses,
    steering: Steering,
    vrrp: Router,
}

impl Controller {
    /// A controller for `config` over the interfaces that workers use.
    ///
    /// Nothing is done before [`start`](Self::start): the kernel's links,
    /// addresses and neighbours are fed in first.
    #[must_use]
    pub fn new(config: Config, ports: Vec<Port>) -> Self {
        Self {
            config,
            next_hops: NextHops::new(ports.clone()),
            ports,
            generation: 0,
            checks: BTreeMap::new(),
            servers: Servers::default(),
            addresses: Addresses::default(),
            steering: Steering::default(),
            vrrp: Router::default(),
        }
    }

    /// The first actions.
    pub fn start(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let config = self.config.clone();
        self.take_up(&config, now, &mut actions);
        actions
    }

    /// The actions before the end: what was taken is given back.
    pub fn stop(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.addresses.release(&mut actions);
        actions
    }

    /// Takes note of something that happened.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Health {
                id,
                healthy,
                reason,
            } => self.health(&id, healthy, reason, &mut actions),
            Event::Network(event) => self.network(event, now, &mut actions),
            Event::Route { destination, route } => {
                let before = self.next_hops.next_hop(destination);
                self.next_hops.route(destination, route, now, &mut actions);
                let after = self.next_hops.next_hop(destination);
                if before.ok() != after.ok() {
                    actions.push(Action::Log(match after {
                        Ok(hop) => format!(
                            "real server {destination} is reached by {}",
                            hop.destination
                        ),
                        Err(why) => format!(
                            "real server {destination} is not reached any more, next hop: {}",
                            why.as_str()
                        ),
                    }));
                    actions.push(Action::Publish);
                }
            }
            Event::Vrrp(event) => self.vrrp(event, now, &mut actions),
            Event::Tick => self.next_hops.tick(now, &mut actions),
        }
        actions
    }

    /// Replaces the configuration. Nothing changes when it is refused.
    ///
    /// # Errors
    /// One line for each change that needs a restart.
    pub fn reload(
        &mut self,
        config: Config,
        now: Instant,
    ) -> Result<(Vec<String>, Vec<Action>), Vec<String>> {
        let refused = diff::needs_restart(&self.config, &config);
        if !refused.is_empty() {
            return Err(refused);
        }
        let changes = diff::changes(&self.config, &config);
        let mut actions = Vec::new();
        self.config = config.clone();
        self.take_up(&config, now, &mut actions);
        Ok((changes, actions))
    }

    /// Makes the state that of `config`, keeping what is the same.
    fn take_up(&mut self, config: &Config, now: Instant, actions: &mut Vec<Action>) {
        let rules = steering::rules(config, &self.addresses);
        self.steering.keep_only(&rules, actions);
        self.take_up_checks(config, actions);
        self.servers.keep_only(config);
        let real_servers = config
            .virtual_servers
            .iter()
            .flat_map(|service| &service.real_servers);
        self.next_hops
            .follow(real_servers.map(|server| server.address.ip()), actions);
        actions.push(Action::Publish);
        // Workers know it all before its packets come.
        self.steering.take_up(rules, actions);
        let outputs = self.vrrp.take_up(config, now);
        self.want_addresses(actions);
        self.carry(outputs, actions);
    }

    fn take_up_checks(&mut self, config: &Config, actions: &mut Vec<Action>) {
        let mut before = std::mem::take(&mut self.checks);
        for service in &config.virtual_servers {
            for server in &service.real_servers {
                let known = before
                    .remove(&(service.key, server.address))
                    .unwrap_or_default();
                let states = self.take_up_server_checks(service.key, server, known, actions);
                self.checks.insert((service.key, server.address), states);
            }
        }
        for (server, states) in before {
            actions.extend((0..states.len()).map(|check| Action::StopCheck {
                id: check_id(server, check),
            }));
        }
    }

    /// Keeps the state of checks that did not change; the others start anew,
    /// with the last verdict standing until the first result.
    fn take_up_server_checks(
        &self,
        service: ServiceKey,
        server: &RealServer,
        known: Vec<CheckState>,
        actions: &mut Vec<Action>,
    ) -> Vec<CheckState> {
        let key = (service, server.address);
        let stale = known.len().max(server.checks.len());
        let mut known = known.into_iter();
        let mut states = Vec::with_capacity(server.checks.len());
        for number in 0..stale {
            let id = check_id(key, number);
            match (known.next(), server.checks.get(number)) {
                (Some(state), Some(check)) if state.check == *check => states.push(state),
                (old, check) => {
                    if old.is_some() {
                        actions.push(Action::StopCheck { id: id.clone() });
                    }
                    if let Some(check) = check {
                        let mut state = CheckState::new(check.clone());
                        if let Some(old) = old {
                            state.healthy = old.healthy;
                            state.reason = old.reason;
                        }
                        states.push(state);
                        actions.push(Action::StartCheck {
                            id,
                            check: check.clone(),
                        });
                    }
                }
            }
        }
        states
    }

    fn health(&mut self, id: &CheckId, healthy: bool, reason: String, actions: &mut Vec<Action>) {
        let Some(service) = self
            .config
            .virtual_servers
            .iter()
            .find(|service| service.key.to_string() == id.virtual_server)
        else {
            return; // removed while its last result was on the way
        };
        let key = (service.key, id.real_server);
        let Some(states) = self.checks.get_mut(&key) else {
            return;
        };
        let up_before = states.iter().all(CheckState::passes);
        let Some(state) = states.get_mut(id.check) else {
            return;
        };
        let changed = state.healthy != Some(healthy);
        state.healthy = Some(healthy);
        state.reason = Some(reason.clone());
        let up = states.iter().all(CheckState::passes);
        let now_up = service
            .real_servers
            .iter()
            .filter(|server| {
                self.checks
                    .get(&(service.key, server.address))
                    .is_some_and(|all| all.iter().all(CheckState::passes))
            })
            .count();
        let total = service.real_servers.len();
        if up != up_before {
            let word = if up { "up" } else { "down" };
            actions.push(Action::Log(format!(
                "{id} is {word}: {reason}; {now_up} of {total} real servers are up"
            )));
            actions.push(Action::Publish);
        } else if changed && !healthy {
            actions.push(Action::Log(format!("{id} fails another check: {reason}")));
        }
    }

    fn network(&mut self, event: NetworkEvent, now: Instant, actions: &mut Vec<Action>) {
        self.vrrp_network(&event, now, actions);
        match event {
            NetworkEvent::Link {
                index,
                name,
                mac,
                up,
                master,
                ..
            } => {
                self.steering.link(index, mac, master, &self.ports, actions);
                self.link(index, &name, mac, up, actions);
            }
            NetworkEvent::LinkGone { index } => {
                if let Some(port) = self.ports.iter().find(|port| port.index == index) {
                    actions.push(Action::Log(format!(
                        "interface {} is gone: nothing is received or sent on it; restart the appliance when it is back",
                        port.name
                    )));
                }
            }
            NetworkEvent::Address {
                index,
                address,
                prefix_length,
                ours,
                present,
            } => {
                self.addresses
                    .observe(index, address, prefix_length, ours, present);
                if !present {
                    self.addresses.restore(index, address, actions);
                }
                let present = self.addresses.all().any(|kept| kept == address);
                self.steering.local_address(address, present, actions);
                self.next_hops.routes_changed(actions);
            }
            NetworkEvent::Neighbor {
                index,
                address,
                mac,
            } => {
                let before = self.next_hops.neighbor(index, address, mac);
                if before == mac || !self.is_next_hop(index, address) {
                    return;
                }
                actions.push(Action::Log(match (before, mac) {
                    (_, None) => format!("next hop {address} is lost: packets for it wait"),
                    (None, Some(mac)) => format!("next hop {address} is at {}", display_mac(mac)),
                    (Some(before), Some(mac)) => format!(
                        "next hop {address} moved from {} to {}",
                        display_mac(before),
                        display_mac(mac)
                    ),
                }));
                actions.push(Action::Publish);
                if mac.is_none() {
                    self.next_hops.tick(now, actions);
                }
            }
            NetworkEvent::RoutesChanged => self.next_hops.routes_changed(actions),
        }
    }

    fn link(&mut self, index: u32, name: &str, mac: [u8; 6], up: bool, actions: &mut Vec<Action>) {
        let Some(port) = self.ports.iter_mut().find(|port| port.index == index) else {
            return;
        };
        if port.mac != mac {
            actions.push(Action::Log(format!(
                "interface {name} now has the MAC address {}",
                display_mac(mac)
            )));
            port.mac = mac;
            self.next_hops.own_mac(index, mac);
            actions.push(Action::Publish);
            self.addresses.announce(index, actions);
        }
        if port.up != up {
            port.up = up;
            actions.push(Action::Log(format!(
                "interface {name} is {}",
                if up { "up" } else { "down" }
            )));
            if up {
                self.addresses.announce(index, actions);
                self.next_hops.routes_changed(actions);
            }
        }
    }

    /// True if a followed real server is reached through this neighbour.
    fn is_next_hop(&self, index: u32, address: IpAddr) -> bool {
        self.ports.iter().any(|port| port.index == index)
            && self
                .next_hops
                .destinations()
                .any(|server| self.next_hops.gateway(server).unwrap_or(server) == address)
    }

    /// The forwarding state as it should be now, under a new generation.
    pub fn snapshot(&mut self) -> Snapshot {
        self.generation += 1;
        let appliance = &self.config.appliance;
        let mut virtual_servers = Vec::with_capacity(self.config.virtual_servers.len());
        for service in &self.config.virtual_servers {
            let mut real_servers = Vec::with_capacity(service.real_servers.len());
            for server in &service.real_servers {
                let up = self.is_up(service.key, server);
                let weight = if up { server.weight } else { 0 };
                let Some(id) = self.servers.id(service.key, server.address) else {
                    continue;
                };
                real_servers.push(service::RealServer {
                    id,
                    address: server.address.ip().into(),
                    port: server.address.port(),
                    method: server.lb_kind,
                    weight,
                    available: up || server.inhibit_on_failure,
                    next_hop: self.next_hops.next_hop(server.address.ip()).ok(),
                });
            }
            let Some(id) = self.servers.virtual_server_id(service.key) else {
                continue;
            };
            virtual_servers.push(service::VirtualServer {
                id,
                key: service.key,
                scheduler: service.scheduler,
                real_servers,
            });
        }
        Snapshot::new(
            self.generation,
            appliance.timeouts,
            appliance.tcp_midstream,
            &virtual_servers,
        )
    }

    /// Frees the ids of removed servers that no worker refers to any more.
    pub fn free_ids(&mut self, oldest_generation: u64, totals: impl Fn(ServerId) -> ServerTotals) {
        self.servers
            .free(oldest_generation, self.generation, totals);
    }

    /// True if every check of the server passes.
    #[must_use]
    pub fn is_up(&self, service: ServiceKey, server: &RealServer) -> bool {
        self.checks
            .get(&(service, server.address))
            .is_none_or(|states| states.iter().all(CheckState::passes))
    }

    /// The checks of a real server.
    #[must_use]
    pub fn checks(&self, server: ServerKey) -> &[CheckState] {
        self.checks.get(&server).map_or(&[], Vec::as_slice)
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    #[must_use]
    pub fn next_hops(&self) -> &NextHops {
        &self.next_hops
    }

    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    #[must_use]
    pub fn router(&self) -> &Router {
        &self.vrrp
    }

    #[must_use]
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// The MAC addresses that a port answers to.
    #[must_use]
    pub fn own_macs(&self, port: &Port) -> Vec<MacAddress> {
        self.steering.own_macs(port)
    }

    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }
}

/// Names a check of a real server.
#[must_use]
pub fn check_id((service, server): ServerKey, check: usize) -> CheckId {
    CheckId {
        virtual_server: service.to_string(),
        real_server: server,
        check,
    }
}

fn display_mac(mac: [u8; 6]) -> service::MacAddress {
    service::MacAddress(mac)
}
