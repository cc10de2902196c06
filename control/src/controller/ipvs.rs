//! The running state as ipvsadm shows it.

use dataplane::counters::ServerTotals;
use dataplane::service::{ForwardingMethod, ServerId, Tunnel};

use super::{Controller, Numbers};
use crate::api::ipvs::{self, Ipvs, Timeouts};
use crate::config::{RealServer, VirtualServer};

impl Controller {
    /// The table as IPVS would have it; `totals` are the workers' counters.
    pub fn ipvs(&mut self, totals: impl Fn(ServerId) -> ServerTotals) -> Ipvs {
        self.measure(&totals);
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
                .map(|service| self.ipvs_service(service, &totals))
                .collect(),
        }
    }

    fn ipvs_service(
        &self,
        service: &VirtualServer,
        totals: &impl Fn(ServerId) -> ServerTotals,
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
            statistics: numbers(statistics),
            rates: numbers(rates),
            real_servers: listed
                .chain(sorry)
                .map(|server| self.ipvs_server(service, server, totals))
                .collect(),
        }
    }

    fn ipvs_server(
        &self,
        service: &VirtualServer,
        server: &RealServer,
        totals: &impl Fn(ServerId) -> ServerTotals,
    ) -> ipvs::RealServer {
        let (statistics, rates) = self.statistics.of_server((service.key, server.address));
        let id = self.servers.id(service.key, server.address);
        let totals = id.map(totals).unwrap_or_default();
        let (tun_type, tun_port) = match server.lb_kind {
            ForwardingMethod::Direct | ForwardingMethod::Nat | ForwardingMethod::FullNat => {
                (None, None)
            }
            ForwardingMethod::Tunnel(Tunnel::Ipip) => (Some("ipip"), None),
            ForwardingMethod::Tunnel(Tunnel::Gre) => (Some("gre"), None),
            ForwardingMethod::Tunnel(Tunnel::Gue { port }) => (Some("gue"), Some(port)),
        };
        let (weight, _) = self.weight_and_availability(service, server);
        ipvs::RealServer {
            address: server.address,
            lb_kind: server.lb_kind.to_string().into(),
            tun_type: tun_type.map(Into::into),
            tun_port,
            weight,
            active_connections: totals.active.into(),
            inactive_connections: totals.inactive.into(),
            statistics: numbers(statistics),
            rates: numbers(rates),
        }
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
