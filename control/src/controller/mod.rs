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
mod drain;
mod edit;
mod forwarding;
mod health;
mod ids;
mod ipvs;
mod leaving;
mod moves;
mod next_hops;
mod passive;
mod refusals;
mod routing;
mod statistics;
mod steering;
mod vmac;
mod vrrp;
mod ways;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use dataplane::bpf::Rule;
use dataplane::counters::{Counters, ServerTotals};
use dataplane::flow::FlowHasher;
use dataplane::limits::ServiceTotals;
use dataplane::persistence::Templates;
use dataplane::service::{MacAddress, ServerId, ServiceKey, VirtualServerId};

pub use addresses::{Addresses, Wanted};
pub use health::CheckState;
pub use ids::Servers;
pub use next_hops::{NextHops, Port, Resolution};
pub use passive::Status as PassiveStatus;
pub use statistics::ESTIMATE_EVERY;
use statistics::{Numbers, Statistics};

use self::diff::Touched;
use self::drain::Drains;
use self::health::Health;
use self::moves::Moves;
use self::refusals::Refusals;
use self::steering::Steering;
use self::ways::Ways;
use crate::config::{Config, RealServer, VirtualServer};
use crate::event::{Action, CheckId, Event, NetworkEvent};
use crate::vrrp::router::Router;

/// Names a real server of a virtual server.
pub type ServerKey = (ServiceKey, SocketAddr);

/// All control state.
#[derive(Debug)]
pub struct Controller {
    config: Arc<Config>,
    ports: Vec<Port>,
    generation: u64,
    health: Health,
    servers: Servers,
    next_hops: NextHops,
    moves: Moves,
    addresses: Addresses,
    steering: Steering,
    vrrp: Router,
    statistics: Statistics,
    drains: Drains,
    refusals: Refusals,
    templates: Arc<Templates>,
    /// Virtual servers that tell their clients apart in another way since workers got their last snapshot.
    regrouped: HashSet<VirtualServerId>,
    /// The first generation without the local addresses that leave.
    leaving_since: u64,
    ways: Ways,
    /// Between start and stop: addresses are added and removed.
    holds_addresses: bool,
}

impl Controller {
    /// A controller for `config` over the interfaces that workers use.
    ///
    /// Nothing is done before [`start`](Self::start): the kernel's links,
    /// addresses and neighbours are fed in first.
    #[must_use]
    pub fn new(config: impl Into<Arc<Config>>, ports: Vec<Port>) -> Self {
        let config = config.into();
        let max_connections = config.appliance.max_connections;
        Self {
            config,
            templates: Arc::new(Templates::new(max_connections, FlowHasher::random())),
            next_hops: NextHops::new(ports.clone()),
            moves: Moves::default(),
            ports,
            generation: 0,
            health: Health::default(),
            servers: Servers::default(),
            addresses: Addresses::default(),
            steering: Steering::default(),
            vrrp: Router::default(),
            statistics: Statistics::default(),
            drains: Drains::default(),
            refusals: Refusals::default(),
            regrouped: HashSet::new(),
            leaving_since: 0,
            ways: Ways::default(),
            holds_addresses: false,
        }
    }

    /// The first actions.
    pub fn start(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.holds_addresses = true;
        let services = self.config.virtual_servers.iter();
        let all = services.map(|service| service.key).collect();
        self.take_up(&all, now, &mut actions);
        actions
    }

    /// To be called before [`start`](Self::start) if no other appliance runs here: addresses with our mark are then a killed
    /// one's on every interface. Else, those on other interfaces than the ones in use may be another appliance's.
    pub fn own_all_marked(&mut self) {
        self.addresses.owns_all_marked = true;
    }

    /// The actions before the end: what was taken is given back.
    pub fn stop(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.holds_addresses = false;
        self.health.stop(&mut actions);
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
                weight,
            } => self
                .health
                .result(&id, healthy, reason, weight, &mut actions),
            Event::Network(event) => self.network(event, now, &mut actions),
            Event::Route {
                destination,
                route,
                local,
            } => {
                let was_local = self.next_hops.is_local(destination);
                let before = self.next_hops.next_hop(destination);
                (self.next_hops).route(destination, route, local, now, &mut actions);
                let after = self.next_hops.next_hop(destination);
                if local && !was_local {
                    let services = self.config.virtual_servers.iter();
                    self.say_what_is_unreached(services, Some(destination), &mut actions);
                }
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
            Event::Routes { routes } => {
                if self.ways.take_up(routes) {
                    self.follow(&mut actions);
                    actions.push(Action::Publish);
                }
            }
            Event::Vrrp(event) => self.vrrp(event, now, &mut actions),
            Event::Tick => {
                self.next_hops.tick(now, &mut actions);
                self.moves.tick(now, &mut actions);
                self.give_up_drained(now, &mut actions);
            }
        }
        actions
    }

    /// Which real servers of these virtual servers, at this address or any, are this host itself, and not by DR.
    fn say_what_is_unreached<'c>(
        &self,
        services: impl Iterator<Item = &'c VirtualServer>,
        address: Option<IpAddr>,
        actions: &mut Vec<Action>,
    ) {
        let servers = services.flat_map(|service| {
            let servers = service.all_servers();
            servers.map(move |server| (service.key, server))
        });
        let unreached = servers.filter(|(_, server)| {
            address.is_none_or(|address| address == server.address.ip()) && !self.is_reached(server)
        });
        actions.extend(unreached.map(|(key, server)| {
            Action::Log(format!(
                "virtual_server {key}: real_server {}: is this host itself, which {} does not reach, as its \
                 answers would not pass the workers: it gets nothing; use lb_kind DR",
                server.address, server.lb_kind
            ))
        }));
    }

    /// Workers reach this host's kernel by this interface.
    pub fn use_way_back(&mut self, port: Port) {
        self.next_hops.use_way_back(port);
    }

    /// Whether a running appliance can take the configuration up.
    ///
    /// # Errors
    /// One line for each change that needs a restart.
    pub fn can_reload(&self, config: &Config) -> Result<(), Vec<String>> {
        let refused = diff::needs_restart(&self.config, config);
        match refused.is_empty() {
            true => Ok(()),
            false => Err(refused),
        }
    }

    /// Replaces the configuration, and the interfaces that workers use. Nothing changes when it is
    /// refused.
    ///
    /// # Errors
    /// As of [`can_reload`](Self::can_reload).
    pub fn reload(
        &mut self,
        config: impl Into<Arc<Config>>,
        ports: Vec<Port>,
        now: Instant,
    ) -> Result<(Vec<String>, Vec<Action>), Vec<String>> {
        let config = config.into();
        self.can_reload(&config)?;
        let mut changes = diff::ports(&self.ports, &ports);
        changes.extend(diff::changes(&self.config, &config));
        let mut actions = Vec::new();
        let touched = diff::touched(&self.config, &config);
        self.regroup(&config);
        self.config = config;
        self.next_hops.use_ports(ports.clone());
        let before = std::mem::replace(&mut self.ports, ports);
        self.addresses.withheld.clear(); // Whoever reloads has asked for them.
        self.vrrp_ports(&before, now, &mut actions);
        self.take_up(&touched, now, &mut actions);
        Ok((changes, actions))
    }

    /// Takes note of the virtual servers whose clients are told apart in another way from now on: nobody would find their
    /// templates, nor end them.
    fn regroup(&mut self, config: &Config) {
        let regrouped = diff::regrouped(&self.config, config).into_iter();
        let ids = regrouped.filter_map(|key| self.servers.virtual_server_id(key));
        self.regrouped.extend(ids);
    }

    /// Makes the state that of the configuration, of whose virtual servers only those in `touched` differ.
    fn take_up(&mut self, touched: &Touched, now: Instant, actions: &mut Vec<Action>) {
        let config = &*Arc::clone(&self.config);
        self.servers.keep_only(config, touched);
        self.keep_local_addresses();
        let rules = self.rules();
        self.steering.keep_only(&rules, actions);
        (self.health).take_up(config, touched, &self.drains, actions);
        self.follow(actions);
        let services = config.virtual_servers.iter();
        let changed = services.filter(|service| touched.contains(&service.key));
        self.say_what_is_unreached(changed, None, actions);
        if self.translates_replies() {
            actions.push(Action::ListRoutes);
        }
        actions.push(Action::Publish);
        // Workers know it all before its packets come.
        self.steering.take_up(rules, actions);
        let (removed, outputs) = self.vrrp.take_up(config, now);
        for (instance, outputs) in removed {
            self.dismiss(&instance, outputs, actions);
        }
        self.want_addresses(actions);
        self.carry(outputs, actions);
    }

    /// Keeps the next hops of all real servers and, for replies, of all gateways.
    fn follow(&mut self, actions: &mut Vec<Action>) {
        let real_servers = self
            .config
            .virtual_servers
            .iter()
            .flat_map(VirtualServer::all_servers)
            .map(|server| server.address.ip());
        let gateways = self.ways.gateways(&self.ports);
        let wanted = gateways.filter(|_| self.translates_replies());
        let wanted: Vec<_> = real_servers.chain(wanted).collect();
        self.next_hops.follow(wanted.into_iter(), actions);
    }

    fn routes_changed(&self, actions: &mut Vec<Action>) {
        self.next_hops.routes_changed(actions);
        if self.translates_replies() {
            actions.push(Action::ListRoutes);
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
                mtu,
                master,
                ..
            } => {
                if self.ways.link(index, mtu) && self.ports.iter().any(|port| port.index == index) {
                    actions.push(Action::Publish);
                }
                self.steering.link(index, mac, master, &self.ports, actions);
                self.link(index, &name, mac, up, actions);
            }
            NetworkEvent::LinkGone { index } => {
                let mut ports = self.ports.iter_mut();
                if let Some(port) = ports.find(|port| port.index == index && !port.gone) {
                    port.gone = true;
                    self.addresses.forget(index);
                    actions.push(Action::Warn(format!(
                        "interface {} is gone: nothing is received or sent on it; reload the configuration when it is back",
                        port.name
                    )));
                }
                if self.next_hops.lose_way_back(index) {
                    let line = "the way back to the kernel is gone: what was for it is dropped; restart the appliance";
                    actions.extend([Action::Warn(line.to_owned()), Action::Publish]);
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
                    (self.addresses).restore(index, address, prefix_length, actions);
                }
                // It may make, or have been, the subnet of a virtual server's address, or that address itself.
                if self.holds_addresses && !ours {
                    self.look_again(actions);
                }
                let present = self.addresses.all().any(|kept| kept == address);
                self.steering
                    .local_address(&self.config, address, present, actions);
                // The route to a host's own address alone leads nowhere else, and is told of as a changed route, too: a
                // thousand virtual addresses are not a thousand times every lookup.
                if prefix_length < if address.is_ipv4() { 32 } else { 128 } {
                    self.routes_changed(actions);
                }
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
                let line = match (before, mac) {
                    (_, None) => Some(format!("next hop {address} is lost: packets for it wait")),
                    (None, Some(mac)) => {
                        Some(format!("next hop {address} is at {}", display_mac(mac)))
                    }
                    (Some(before), Some(mac)) => {
                        let (before, mac) = (display_mac(before), display_mac(mac));
                        let is_said = self.moves.count(index, address, mac, now);
                        is_said.then(|| format!("next hop {address} moved from {before} to {mac}"))
                    }
                };
                actions.extend(line.map(Action::Log));
                actions.push(Action::Publish);
                if mac.is_none() {
                    self.next_hops.tick(now, actions);
                }
            }
            NetworkEvent::Asked { addresses, claimed } => {
                self.addresses.answered(&addresses, &claimed, actions);
                if self.holds_addresses {
                    self.want_addresses(actions);
                }
            }
            NetworkEvent::RoutesChanged => self.routes_changed(actions),
        }
    }

    fn link(&mut self, index: u32, name: &str, mac: [u8; 6], up: bool, actions: &mut Vec<Action>) {
        let mut ports = self.ports.iter_mut();
        let Some(port) = ports.find(|port| port.index == index && !port.gone) else {
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
                self.routes_changed(actions);
            }
        }
    }

    /// True if a followed real server is reached through this neighbour.
    fn is_next_hop(&self, index: u32, address: IpAddr) -> bool {
        self.ports.iter().any(|port| port.index == index)
            && self.next_hops.is_next_hop(index, address)
    }

    /// Shows the workers' counters to passive health; to be called once a second.
    pub fn observe(
        &mut self,
        now: Instant,
        totals: impl Fn(ServerId) -> ServerTotals,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let ids = &self.servers;
        let of_server = |(service, server)| ids.id(service, server).map(&totals);
        self.health.observe(now, of_server, &mut actions);
        actions
    }

    /// Shows the workers' counters to whoever tells of refused connections; to be called once a second.
    pub fn observe_refusals(
        &mut self,
        now: Instant,
        totals: impl Fn(VirtualServerId) -> ServiceTotals,
        counters: impl Iterator<Item = Counters>,
    ) -> Vec<Action> {
        let ids = &self.servers;
        let of_service = |service| ids.virtual_server_id(service).map(&totals);
        let lines = self
            .refusals
            .observe(&self.config, now, of_service, counters);
        lines.into_iter().map(Action::Log).collect()
    }

    /// Takes note of what the workers counted for each real server, for
    /// statistics.
    pub fn measure(&mut self, totals: impl Fn(ServerId) -> ServerTotals) {
        self.statistics.observe(&self.config, &self.servers, totals);
    }

    /// Moves the rates, every [`ESTIMATE_EVERY`] seconds.
    pub fn estimate(&mut self) {
        self.statistics.estimate();
    }

    /// True if every check of the server passes.
    #[must_use]
    pub fn is_up(&self, service: ServiceKey, server: &RealServer) -> bool {
        self.health.is_up((service, server.address))
    }

    /// Whether the real servers that are up weigh enough.
    #[must_use]
    pub fn has_quorum(&self, service: ServiceKey) -> bool {
        self.health.has_quorum(service)
    }

    /// Passive health of a real server that has it.
    #[must_use]
    pub fn passive(&self, server: ServerKey) -> Option<PassiveStatus> {
        self.health.passive(server)
    }

    /// The checks of a real server.
    #[must_use]
    pub fn checks(&self, server: ServerKey) -> &[CheckState] {
        self.health.checks(server)
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

    /// What the steering programs were told to steer by, in the order to tell it.
    pub fn steering_rules(&self) -> impl Iterator<Item = &Rule> {
        self.steering.rules()
    }

    /// The MAC addresses that a port answers to.
    #[must_use]
    pub fn own_macs(&self, port: &Port) -> Vec<MacAddress> {
        self.steering.own_macs(port)
    }

    /// Where persistent clients go.
    #[must_use]
    pub fn templates(&self) -> &Arc<Templates> {
        &self.templates
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

fn display_mac(mac: [u8; 6]) -> MacAddress {
    MacAddress(mac)
}
