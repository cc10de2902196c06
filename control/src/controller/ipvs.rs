//! The running state as ipvsadm shows it.

use dataplane::counters::ServerTotals;
use dataplane::persistence::Persistence;
use dataplane::service::{ForwardingMethod, ServerId, Tunnel};

use super::{Controller, Numbers};
use crate::api::ipvs::{self, Ipvs, Timeouts};
use crate::config::{RealServer, VirtualServer};

impl Controller {
    /// The table as IPVS would have it; `totals` are the workers' counters,
    /// `clock` is theirs, in milliseconds.
    pub fn ipvs(&mut self, totals: impl Fn(ServerId) -> ServerTotals, clock: u64) -> Ipvs {
        self.measure(&totals);
        let templates = self.templates.count(clock);
        let connections = |id| Connections {
            totals: totals(id),
            templates: templates.get(&id).copied().unwrap_or(0),
        };
        let config = &self.config;
        let timeouts = &config.appliance.timeouts;
        Ipvs {
            timeouts: Timeouts {
                tcp: timeouts.established.as_secs(),
                tcpfin: timeouts.fin_wait.as_secs(),
                udp: timeouts.udp.as_secs(),
            },
            virtual_servers: config
                .virtual_servers
                .iter()
                .map(|service| self.ipvs_service(service, &connections))
                .collect(),
        }
    }

    fn ipvs_service(
        &self,
        service: &VirtualServer,
        connections: &impl Fn(ServerId) -> Connections,
    ) -> ipvs::VirtualServer {
        let (statistics, rates) = self.statistics.of_service(service.key);
        let servers = service.real_servers.iter();
        let listed = servers.filter(|server| self.is_listed(service.key, server));
        let sorry = service.quorum.sorry_server.iter();
        let sorry = sorry.filter(|sorry| {
            sorry.inhibit_on_failure || self.weight_and_availability(service, sorry).1
        });
        ipvs::VirtualServer {
            protocol: service.protocol().to_string().into(),
            address: service.address(),
            lb_algo: service.scheduler.to_string().into(),
            flags: service.scheduler.flags().map(Into::into).collect(),
            persistence: service.options.persistence.map(persistence),
            ops: service.options.one_packet,
            statistics: numbers(statistics),
            rates: numbers(rates),
            real_servers: listed
                .chain(sorry)
                .map(|server| self.ipvs_server(service, server, connections))
                .collect(),
        }
    }

    fn ipvs_server(
        &self,
        service: &VirtualServer,
        server: &RealServer,
        connections: &impl Fn(ServerId) -> Connections,
    ) -> ipvs::RealServer {
        let (statistics, rates) = self.statistics.of_server((service.key, server.address));
        let id = self.servers.id(service.key, server.address);
        let Connections { totals, templates } = id.map(connections).unwrap_or_default();
        let (tun_type, tun_port) = match server.lb_kind {
            ForwardingMethod::Direct | ForwardingMethod::Nat | ForwardingMethod::FullNat => {
                (None, None)
            }
            ForwardingMethod::Tunnel(Tunnel::Ipip) => (Some("ipip"), None),
            ForwardingMethod::Tunnel(Tunnel::Gre) => (Some("gre"), None),
            ForwardingMethod::Tunnel(Tunnel::Gue { port }) => (Some("gue"), Some(port)),
        };
        let (weight, _) = self.weight_and_availability(service, server);
        let (undrained_weight, _) = self.weight_unless_drained(service, server);
        ipvs::RealServer {
            address: server.address,
            lb_kind: server.lb_kind.to_string().into(),
            tun_type: tun_type.map(Into::into),
            tun_port,
            weight,
            undrained_weight,
            uthreshold: server.thresholds.upper,
            lthreshold: server.thresholds.lower,
            active_connections: totals.active.into(),
            inactive_connections: totals.inactive.into(),
            persistent_clients: templates,
            statistics: numbers(statistics),
            rates: numbers(rates),
        }
    }
}

/// Of one real server.
#[derive(Clone, Copy, Debug, Default)]
struct Connections {
    totals: ServerTotals,
    templates: u64,
}

fn persistence(persistence: Persistence) -> ipvs::Persistence {
    let Persistence {
        timeout,
        granularity,
    } = persistence;
    // 0 would be none; ipvsadm reads no parts of a second.
    let seconds = timeout.as_millis().div_ceil(1000);
    ipvs::Persistence {
        timeout: u32::try_from(seconds).unwrap_or(u32::MAX),
        granularity,
    }
}

fn numbers(numbers: Numbers) -> ipvs::Numbers {
    let Numbers {
        connections,
        in_packets,
        out_packets,
        in_bytes,
        out_bytes,
    } = numbers;
    ipvs::Numbers {
        connections,
        in_packets,
        out_packets,
        in_bytes,
        out_bytes,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;
    use std::time::Duration;

    use dataplane::service::Address;
    use dataplane::snapshot::Snapshot;

    use super::*;

    const FILE: &str = r#"
        [[virtual_server]]
        address = "10.0.0.100:80"
        lb_kind = "DR"
        persistence_timeout = "1500ms"
        persistence_granularity = "255.255.255.0"
        [[virtual_server.real_server]]
        address = "10.0.0.1:80"
        uthreshold = 9
        lthreshold = 4
        [[virtual_server.real_server]]
        address = "10.0.0.2:80"
    "#;

    #[test]
    fn templates_end_with_what_they_are_found_by() {
        let parse = |text: &str| {
            crate::config::parse(text, Path::new("file"))
                .unwrap()
                .config
        };
        let config = parse(FILE);
        let service = &config.virtual_servers[0];
        let (key, persistence) = (service.key, service.options.persistence.unwrap());
        let servers: Vec<_> = service.real_servers.iter().map(|own| own.address).collect();
        let now = std::time::Instant::now();
        let mut controller = Controller::new(config, Vec::new());
        controller.start(now);
        controller.templates().allocate();
        let connect = |controller: &Controller, client: u8, server: SocketAddr| {
            let ids = controller.servers();
            let server = ids.id(key, server).unwrap();
            let service = ids.virtual_server_id(key).unwrap();
            let key = persistence.key(service, Address::v4([10, 0, client, 1]));
            let timeout = Duration::from_secs(1);
            let _ = controller.templates().bind(&key, server, None, timeout, 0);
        };
        let count = |controller: &Controller| controller.templates().count(0).len();
        connect(&controller, 1, servers[0]);
        connect(&controller, 2, servers[1]);
        // A server that has gone, with its last connection.
        let without = FILE.replace("10.0.0.1:80", "10.0.0.3:80");
        controller.reload(parse(&without), Vec::new(), now).unwrap();
        assert_eq!(count(&controller), 2);
        controller.free_ids(u64::MAX, |_| ServerTotals::default());
        assert_eq!(count(&controller), 1);
        // Clients are told apart in another way.
        let coarser = without.replace("255.255.255.0", "255.255.0.0");
        controller.reload(parse(&coarser), Vec::new(), now).unwrap();
        let generation = controller.snapshot(&Snapshot::empty()).generation;
        controller.free_ids(generation - 1, |_| ServerTotals::default());
        assert_eq!(count(&controller), 1, "workers may make more");
        controller.free_ids(generation, |_| ServerTotals::default());
        assert_eq!(count(&controller), 0);
    }

    #[test]
    fn persistence_is_shown_with_its_clients() {
        let config = crate::config::parse(FILE, Path::new("file"))
            .unwrap()
            .config;
        let service = &config.virtual_servers[0];
        let (key, persistence) = (service.key, service.options.persistence.unwrap());
        let first = service.real_servers[0].address;
        let mut controller = Controller::new(config, Vec::new());
        controller.start(std::time::Instant::now());
        let (id, server) = {
            let ids = controller.servers();
            (
                ids.virtual_server_id(key).unwrap(),
                ids.id(key, first).unwrap(),
            )
        };
        let templates = controller.templates();
        templates.allocate();
        for client in [[10, 0, 1, 1], [10, 0, 1, 2], [10, 0, 2, 1]] {
            let key = persistence.key(id, Address::v4(client));
            let timeout = Duration::from_secs(1);
            let bound = templates.bind(&key, server, None, timeout, 0);
            templates.release(&key, bound.server, 0);
        }
        let mut clients = |clock| {
            let table = controller.ipvs(|_| ServerTotals::default(), clock);
            let service = &table.virtual_servers[0];
            let expected = ipvs::Persistence {
                timeout: 2,
                granularity: 24,
            };
            assert_eq!(service.persistence, Some(expected));
            let servers = service.real_servers.iter();
            servers
                .map(|server| {
                    (
                        server.uthreshold,
                        server.lthreshold,
                        server.persistent_clients,
                    )
                })
                .collect::<Vec<_>>()
        };
        // Two networks of clients, until their time is over.
        assert_eq!(clients(999), [(9, 4, 2), (0, 0, 0)]);
        assert_eq!(clients(1000), [(9, 4, 0), (0, 0, 0)]);
    }
}
