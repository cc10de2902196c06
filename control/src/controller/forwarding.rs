//! From configuration, health, drains and next hops to what workers forward by.

use std::collections::HashSet;
use std::sync::Arc;

use dataplane::routes::Routes;
use dataplane::service;
use dataplane::snapshot::Snapshot;

use super::Controller;
use crate::config::{RealServer, VirtualServer};

impl Controller {
    /// The forwarding state as it should be now, under a new generation, to
    /// replace `before`.
    pub fn snapshot(&mut self, before: &Snapshot) -> Snapshot {
        self.generation += 1;
        let appliance = &self.config.appliance;
        let mut virtual_servers = Vec::with_capacity(self.config.virtual_servers.len());
        for service in &self.config.virtual_servers {
            let real_servers = service.all_servers();
            let real_servers = real_servers.filter_map(|server| self.scheduled(service, server));
            let real_servers = real_servers.collect();
            let Some(id) = self.servers.virtual_server_id(service.key) else {
                continue;
            };
            virtual_servers.push(service::VirtualServer {
                id,
                key: service.key,
                scheduler: service.scheduler,
                options: service.options.clone(),
                real_servers,
            });
        }
        Snapshot::replacing(
            before,
            self.generation,
            appliance.timeouts,
            appliance.tcp_midstream,
            &virtual_servers,
        )
        .with_expiry(appliance.expiry)
        .when_full(appliance.when_full)
        .with_templates(Arc::clone(&self.templates))
        .with_routes(self.routes().replacing(&before.routes))
    }

    fn routes(&self) -> Routes {
        let services = self.config.virtual_servers.iter();
        let own = services.flat_map(VirtualServer::own_addresses);
        let virtual_addresses: HashSet<_> =
            own.chain(self.addresses.leaving.iter().copied()).collect();
        self.ways.routes(
            &self.ports,
            &self.next_hops,
            &self.addresses,
            &virtual_addresses,
        )
    }

    /// A real server, or the sorry server, as workers are to use it now.
    fn scheduled(
        &self,
        service: &VirtualServer,
        server: &RealServer,
    ) -> Option<service::RealServer> {
        let (weight, available) = self.weight_and_availability(service, server);
        Some(service::RealServer {
            id: self.servers.id(service.key, server.address)?,
            address: server.address.ip().into(),
            port: server.address.port(),
            method: server.lb_kind,
            weight,
            available: (available || server.inhibit_on_failure)
                && !self.drains.is_over(server.address),
            drained: self.drains.is_drained(server.address),
            next_hop: self.next_hop_of(server),
            thresholds: server.thresholds,
        })
    }

    /// Where workers send packets for a real server; `None` while that is not known.
    #[must_use]
    pub fn next_hop_of(&self, server: &RealServer) -> Option<service::NextHop> {
        let hop = self.next_hops.next_hop(server.address.ip()).ok();
        hop.filter(|_| self.is_reached(server))
    }

    /// What this host's own kernel gets has to be for an address of its own, as it came: answers leave without passing a
    /// worker, which could not translate them.
    pub(super) fn is_reached(&self, server: &RealServer) -> bool {
        let is_direct = server.lb_kind == service::ForwardingMethod::Direct;
        is_direct || !self.next_hops.is_local(server.address.ip())
    }

    /// The weight of a server now, and whether its connections are served. Of
    /// real servers that are up without a quorum they are, though the sorry server
    /// gets the new ones.
    #[must_use]
    pub fn weight_and_availability(
        &self,
        service: &VirtualServer,
        server: &RealServer,
    ) -> (u32, bool) {
        let (weight, available) = self.weight_unless_drained(service, server);
        match self.drains.is_drained(server.address) {
            true => (0, available),
            false => (weight, available),
        }
    }

    /// The same, as it will be when the server is not drained any more.
    pub(super) fn weight_unless_drained(
        &self,
        service: &VirtualServer,
        server: &RealServer,
    ) -> (u32, bool) {
        let key = (service.key, server.address);
        let has_quorum = self.health.has_quorum(service.key);
        match &service.quorum.sorry_server {
            Some(sorry) if sorry.address == server.address && has_quorum => (0, false),
            Some(sorry) if sorry.address == server.address => (sorry.weight, true),
            Some(_) if !self.health.has_quorum_unless_drained(key) => (0, self.health.is_up(key)),
            Some(_) | None => self.health.weight_and_state(key),
        }
    }
}
