//! What the configuration does not name any more, and connections still need: real servers and local addresses whose
//! replies go on. It is given up when workers have none of them left.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use dataplane::bpf::Rule;
use dataplane::counters::ServerTotals;
use dataplane::service::{Address, ServerId, ServiceKey};

use super::{Controller, steering};
use crate::config::VirtualServer;
use crate::event::Action;

impl Controller {
    /// What the steering programs are to steer by.
    pub(super) fn rules(&self) -> BTreeSet<Rule> {
        let servers = self.servers.removed().map(|(service, server)| {
            Rule::RealServer(ServiceKey {
                address: server.ip().into(),
                port: server.port(),
                protocol: service.protocol,
            })
        });
        // With another method than NAT its replies did not pass here before.
        let servers = servers.filter(|rule| self.steering.has(rule));
        let local = self.addresses.leaving.iter();
        let local = local.map(|address| Rule::PoolAddress((*address).into()));
        steering::rules(&self.config, &self.addresses, servers.chain(local))
    }

    /// Takes note of the local addresses that no virtual server has any more.
    pub(super) fn keep_local_addresses(&mut self) {
        let services = self.config.virtual_servers.iter();
        let named: HashSet<IpAddr> = services.flat_map(VirtualServer::local_addresses).collect();
        let known = self.steering.rules().filter_map(|rule| {
            let Rule::PoolAddress(address) = rule else {
                return None;
            };
            Some(IpAddr::from(*address))
        });
        self.addresses.leaving = known.filter(|known| !named.contains(known)).collect();
        self.leaving_since = self.generation + 1;
    }

    /// Some real server's replies pass the director.
    pub(super) fn translates_replies(&self) -> bool {
        let services = self.config.virtual_servers.iter();
        let mut servers = services.flat_map(VirtualServer::all_servers);
        let is_translated =
            |rule: &Rule| matches!(rule, Rule::RealServer(_) | Rule::PoolAddress(_));
        servers.any(|server| server.lb_kind.rewrites_replies())
            || self.steering.rules().any(is_translated)
    }

    /// Frees the ids of removed servers that no worker refers to any more. Their next servers do not inherit clients. Ends
    /// the templates that workers made before they told clients apart in another way.
    pub fn free_ids(
        &mut self,
        oldest_generation: u64,
        totals: impl Fn(ServerId) -> ServerTotals,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let freed = (self.servers).free(oldest_generation, self.generation, totals);
        if !freed.is_empty() {
            self.templates
                .forget(|template| freed.contains(&template.server));
            self.give_up(&mut actions);
        }
        if oldest_generation >= self.generation && !self.regrouped.is_empty() {
            let regrouped = std::mem::take(&mut self.regrouped);
            self.templates
                .forget(|template| regrouped.contains(&template.key.service));
        }
        actions
    }

    /// The generation from which on workers begin no connection by a local address that leaves; `None` if none does.
    #[must_use]
    pub fn leaving_since(&self) -> Option<u64> {
        (!self.addresses.leaving.is_empty()).then_some(self.leaving_since)
    }

    /// Gives up those of them that are not `used`: no worker has a connection by them.
    pub fn free_local_addresses(&mut self, used: &HashSet<Address>) -> Vec<Action> {
        let mut actions = Vec::new();
        let before = self.addresses.leaving.len();
        self.addresses
            .leaving
            .retain(|address| used.contains(&(*address).into()));
        if self.addresses.leaving.len() < before {
            self.give_up(&mut actions);
            self.want_addresses(&mut actions);
        }
        actions
    }

    /// Less is needed than before.
    fn give_up(&mut self, actions: &mut Vec<Action>) {
        let rules = self.rules();
        self.steering.keep_only(&rules, actions);
        // An address of this host that was a local one may be any other now.
        self.steering.take_up(rules, actions);
        self.follow(actions);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use dataplane::service::PortIndex;
    use dataplane::snapshot::Snapshot;

    use super::*;
    use crate::config::{self, Config};
    use crate::controller::Port;
    use crate::event::{Event, NetworkEvent};

    fn file(lb_kind: &str, more: &str, servers: &[u8]) -> Config {
        let mut text = format!(
            "[[virtual_server]]\naddress = \"10.0.0.100:80\"\nlb_kind = \"{lb_kind}\"\n{more}\n"
        );
        for last in servers {
            text += &format!("[[virtual_server.real_server]]\naddress = \"10.0.0.{last}:80\"\n");
        }
        config::parse(&text, Path::new("file")).unwrap().config
    }

    fn ports() -> Vec<Port> {
        vec![Port {
            number: PortIndex(0),
            index: 2,
            name: "eth0".into(),
            mac: [2, 0, 0, 0, 0, 2],
            up: true,
            gone: false,
        }]
    }

    fn start(config: Config) -> Controller {
        let mut controller = Controller::new(config, ports());
        let own = NetworkEvent::Address {
            index: 2,
            address: [10, 0, 0, 9].into(),
            prefix_length: 24,
            ours: false,
            present: true,
        };
        controller.handle(Event::Network(own), Instant::now());
        controller.start(Instant::now());
        controller
    }

    /// The rules that are given up when this is taken up, and the new generation.
    fn reload(controller: &mut Controller, config: Config) -> (Vec<Rule>, u64) {
        let (_, actions) = controller.reload(config, ports(), Instant::now()).unwrap();
        let generation = controller.snapshot(&Snapshot::empty()).generation;
        (given_up(&actions), generation)
    }

    fn given_up(actions: &[Action]) -> Vec<Rule> {
        let rules = actions.iter().filter_map(|action| {
            let Action::Unsteer(rule) = action else {
                return None;
            };
            Some(*rule)
        });
        rules.collect()
    }

    fn real_server(last: u8) -> Rule {
        Rule::RealServer(format!("TCP 10.0.0.{last}:80").parse().unwrap())
    }

    #[test]
    fn replies_of_a_removed_server_are_steered_while_it_has_connections() {
        let mut controller = start(file("NAT", "", &[1, 2]));
        let (rules, generation) = reload(&mut controller, file("NAT", "", &[2]));
        assert_eq!(rules, []);
        let busy = ServerTotals {
            active: 1,
            ..ServerTotals::default()
        };
        assert_eq!(controller.free_ids(generation, |_| busy), []);
        let actions = controller.free_ids(generation, |_| ServerTotals::default());
        assert_eq!(given_up(&actions), [real_server(1)]);
        // So with the whole virtual server, the last one: the ways to its clients are still followed.
        let nothing = config::parse("", Path::new("file")).unwrap().config;
        let (rules, generation) = reload(&mut controller, nothing);
        let own = Rule::VirtualServer("TCP 10.0.0.100:80".parse().unwrap());
        assert_eq!(rules, [own]);
        assert!(controller.translates_replies());
        let actions = controller.free_ids(generation, |_| ServerTotals::default());
        let local = Rule::LocalAddress(Address::v4([10, 0, 0, 9]));
        assert_eq!(given_up(&actions), [real_server(2), local]);
        assert!(!controller.translates_replies());
    }

    #[test]
    fn a_server_that_was_removed_without_nat_is_not_steered() {
        let mut controller = start(file("DR", "", &[1, 2]));
        let (rules, _) = reload(&mut controller, file("DR", "", &[2]));
        assert_eq!((rules, controller.translates_replies()), (vec![], false));
    }

    #[test]
    fn a_local_address_stays_while_connections_use_it() {
        let own = |last| format!("local_addresses = [\"10.0.0.{last}\"]");
        let mut controller = start(file("FULLNAT", &own(50), &[1]));
        let [first, second] = [50, 51].map(|last| Address::v4([10, 0, 0, last]));
        assert_eq!(controller.leaving_since(), None);
        let (rules, generation) = reload(&mut controller, file("FULLNAT", &own(51), &[1]));
        assert_eq!(rules, []);
        assert_eq!(controller.leaving_since(), Some(generation));
        let used = HashSet::from([first, second]);
        assert_eq!(controller.free_local_addresses(&used), []);
        // It is wanted again, and not any more.
        reload(&mut controller, file("FULLNAT", &own(50), &[1]));
        assert_eq!(controller.addresses.leaving, [second.into()].into());
        let (_, generation) = reload(&mut controller, file("FULLNAT", &own(51), &[1]));
        assert_eq!(controller.leaving_since(), Some(generation));
        let gone = [
            Action::Unsteer(Rule::PoolAddress(first)),
            Action::Log(
                "address 10.0.0.50 is removed from eth0: no virtual server needs it any more"
                    .into(),
            ),
            Action::RemoveAddress {
                index: 2,
                address: first.into(),
                prefix_length: 32,
            },
        ];
        let used = HashSet::from([second]);
        assert_eq!(controller.free_local_addresses(&used), gone);
        assert_eq!(controller.leaving_since(), None);
    }
}
