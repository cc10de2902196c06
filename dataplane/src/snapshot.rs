//! The forwarding state that workers read: immutable, built off to the side
//! by the control plane, published by one atomic exchange of a pointer.
//!
//! Invariant: the control plane keeps its own `Arc` of every snapshot until
//! all workers report a newer generation, so that no worker ever frees one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use crate::conn::Timeouts;
use crate::forward::tunnel;
use crate::routes::Routes;
use crate::scheduler::Scheduler;
use crate::service::{
    Address, ForwardingMethod, NextHop, PortIndex, RealServer, ServerId, ServiceKey, TcpMidstream,
    VirtualServer, VirtualServerId,
};
use crate::wire::ethernet;

/// Where snapshots are published; workers hold a clone of it.
pub type Published = Arc<ArcSwap<Snapshot>>;

/// Everything that decides where a packet goes, besides the connections.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows with each snapshot.
    pub generation: u64,
    pub timeouts: Timeouts,
    pub tcp_midstream: TcpMidstream,
    /// The way to clients, for replies that pass the director.
    pub routes: Routes,
    /// Some forwarding method translates replies.
    pub translates_replies: bool,
    services: HashMap<ServiceKey, Service>,
    /// Indexed by `ServerId`; ids that are not in use are `None`.
    servers: Vec<Option<Server>>,
    /// The same, of servers that packets can go to by DR at this moment, and nothing else: all
    /// that most packets need.
    direct: Vec<Option<DirectHop>>,
    tunnels: Vec<tunnel::Template>,
}

/// A [`NextHop`] as the hot path wants it.
#[derive(Clone, Copy, Debug)]
pub struct DirectHop {
    pub addresses: ethernet::Addresses,
    pub port: PortIndex,
}

const _: () = assert!(size_of::<Option<DirectHop>>() == 16);

/// What a new connection needs to know of a virtual server.
#[derive(Debug)]
pub struct Service {
    pub id: VirtualServerId,
    pub scheduler: Scheduler,
}

/// What a packet of a connection needs to know of its real server.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    pub method: ForwardingMethod,
    /// False: down by its checks.
    pub available: bool,
    /// A `wlc` scheduler looks at its connections.
    pub counted: bool,
    pub next_hop: Option<NextHop>,
    pub address: Address,
    /// Host byte order.
    pub port: u16,
    /// Its virtual server's address is IPv4.
    serves_v4: bool,
    /// TUN: its outer headers are in `tunnels`, once its way is known.
    tunnel: Option<u32>,
}

impl Snapshot {
    /// Builds the lookup and scheduler tables.
    ///
    /// The ids in `virtual_servers` are unique; of two virtual servers with
    /// one key the first would win, but configuration forbids it.
    #[must_use]
    pub fn new(
        generation: u64,
        timeouts: Timeouts,
        tcp_midstream: TcpMidstream,
        virtual_servers: &[VirtualServer],
    ) -> Self {
        let ids = virtual_servers
            .iter()
            .flat_map(|service| &service.real_servers);
        let highest = ids.map(|server| server.id.0).max();
        let mut servers = vec![None; highest.map_or(0, |id| id as usize + 1)];
        let mut direct = vec![None; servers.len()];
        let mut translates_replies = false;
        let mut services = HashMap::with_capacity(virtual_servers.len());
        for service in virtual_servers {
            let scheduler = Scheduler::new(service.scheduler, &service.real_servers, None);
            for RealServer {
                id,
                address,
                port,
                method,
                available,
                next_hop,
                weight: _,
            } in &service.real_servers
            {
                if *method == ForwardingMethod::Direct && *available {
                    direct[id.0 as usize] = next_hop.map(|hop| DirectHop {
                        addresses: hop.addresses(),
                        port: hop.port,
                    });
                }
                translates_replies |= method.rewrites_replies();
                servers[id.0 as usize] = Some(Server {
                    method: *method,
                    address: *address,
                    port: *port,
                    tunnel: None,
                    serves_v4: service.key.address.is_v4(),
                    available: *available,
                    counted: scheduler.counts_connections(),
                    next_hop: *next_hop,
                });
            }
            services.entry(service.key).or_insert(Service {
                id: service.id,
                scheduler,
            });
        }
        Self {
            generation,
            timeouts,
            tcp_midstream,
            routes: Routes::default(),
            translates_replies,
            services,
            servers,
            direct,
            tunnels: Vec::new(),
        }
    }

    /// The same with the ways to clients, without which replies go back to where the request came
    /// from, and with the interfaces, without which nothing can be tunnelled.
    #[must_use]
    pub fn with_routes(mut self, routes: Routes) -> Self {
        let largest = routes.largest_mtu();
        for hop in &mut self.direct {
            // What may be too long for its way is looked at more closely.
            *hop = hop.filter(|hop| routes.mtu(hop.port) >= largest);
        }
        self.routes = routes;
        self.build_tunnels();
        self
    }

    fn build_tunnels(&mut self) {
        for server in self.servers.iter_mut().flatten() {
            let ForwardingMethod::Tunnel(tunnel) = server.method else {
                continue;
            };
            let egress = server.next_hop.and_then(|hop| self.routes.egress(hop.port));
            let source = egress.and_then(|egress| match server.address.is_v4() {
                true => egress.v4,
                false => egress.v6,
            });
            let (Some(egress), Some(source)) = (egress, source) else {
                continue;
            };
            let template = tunnel::Template::new(&tunnel::Options {
                tunnel,
                checksum: false,
                inner_is_v4: server.serves_v4,
                source,
                source_bits: 0,
                destination: server.address,
                mtu: egress.mtu,
            });
            server.tunnel = u32::try_from(self.tunnels.len()).ok();
            self.tunnels.push(template);
        }
    }

    /// The outer headers for a TUN server; `None` while its way, or an address of our own on it, is not known.
    #[inline(always)]
    #[must_use]
    pub fn tunnel(&self, server: &Server) -> Option<&tunnel::Template> {
        self.tunnels.get(server.tunnel? as usize)
    }

    /// True if a scheduler remembers where destinations went.
    #[must_use]
    pub fn remembers_destinations(&self) -> bool {
        let mut services = self.services.values();
        services.any(|service| service.scheduler.remembers_destinations())
    }

    /// A snapshot without virtual servers.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(0, Timeouts::default(), TcpMidstream::default(), &[])
    }

    /// The virtual server with this address, port and protocol.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key)
    }

    /// The real server; `None` if it was removed.
    #[inline(always)]
    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(id.0 as usize)?.as_ref()
    }

    /// The next hop of a real server that is available, resolved and reached by DR.
    #[inline(always)]
    #[must_use]
    pub fn direct(&self, id: ServerId) -> Option<&DirectHop> {
        self.direct.get(id.0 as usize)?.as_ref()
    }

    /// Ids of the servers whose connections a scheduler looks at.
    pub fn counted_servers(&self) -> impl Iterator<Item = ServerId> {
        (0..).zip(&self.servers).filter_map(|(id, server)| {
            server
                .as_ref()
                .filter(|server| server.counted)
                .map(|_| ServerId(id))
        })
    }
}
