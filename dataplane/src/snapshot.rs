//! The forwarding state that workers read: immutable, built off to the side
//! by the control plane, published by one atomic exchange of a pointer.
//!
//! Invariant: the control plane keeps its own `Arc` of every snapshot until
//! all workers report a newer generation, so that no worker ever frees one.

mod local;
mod paths;
mod plain;

use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use self::local::LocalAddresses;
pub use self::paths::{Path, TunnelPath};
use self::plain::PlainServices;
use crate::conn::{Connection, Timeouts};
use crate::flow::{FlowHasher, PlainEnd};
use crate::limits::{Limits, SharedBucket, Sources, SynProxy, WhenFull};
use crate::matching::Match;
use crate::persistence::{Persistence, Templates};
use crate::routes::Routes;
use crate::scheduler::Scheduler;
use crate::service::{
    Address, ClientAddress, ForwardingMethod, FullNat, Hop, Protocol, RealServer, ServerId,
    ServiceKey, TcpMidstream, Thresholds, VirtualServer, VirtualServerId,
};

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
    /// Of some of those connections not all addresses are IPv4.
    pub translates_wide_replies: bool,
    /// Some real servers of FULLNAT are told who the client is.
    pub introduces_clients: bool,
    pub expiry: Expiry,
    pub when_full: WhenFull,
    /// Where persistent clients go: one and the same through all snapshots of a director.
    pub templates: Arc<Templates>,
    /// What sources of clients have begun: likewise.
    pub sources: Arc<Sources>,
    services: Vec<Service>,
    /// Indices of `services` by what they are found by, with port 0 for every port.
    by_key: HashMap<ServiceKey, u32>,
    /// The same for those that match more than one address and port.
    groups: Vec<Group>,
    /// Those that most packets of no connection are for.
    plain: PlainServices,
    /// Indexed by `ServerId`; ids that are not in use are `None`.
    servers: Vec<Option<Server>>,
    /// The same, and nothing else: all that most packets need.
    paths: Vec<Path>,
    /// Of those of IPv4, where they are; port 0 is that of the request.
    ends: Vec<PlainEnd>,
    tunnels: Vec<TunnelPath>,
    local: LocalAddresses,
    /// Some tunnel has no [`front`](TunnelPath::front).
    pub(crate) wraps_otherwise: bool,
    /// Some path is [`Path::Direct`].
    pub sends_direct: bool,
    /// There is a [`plain_service`](Self::plain_service).
    pub(crate) opens_straight: bool,
}

/// What becomes of connections whose real server takes none any more (IPVS's
/// sysctl variables of these names).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expiry {
    /// A connection ends with its server: its next packet is one of no
    /// connection. Otherwise it waits for the server's return.
    pub nodest_conn: bool,
    /// A template whose server has weight 0 is replaced. Otherwise its clients
    /// go on going there.
    pub quiescent_template: bool,
}

/// What a new connection needs to know of a virtual server.
#[derive(Debug)]
pub struct Service {
    pub id: VirtualServerId,
    pub scheduler: Scheduler,
    pub persistence: Option<Persistence>,
    /// Every UDP datagram is scheduled for itself.
    pub one_packet: bool,
    pub full_nat: FullNat,
    pub limits: Limits,
    pub syn_proxy: Option<SynProxy>,
    /// Of its rate: one and the same through all snapshots of a director.
    pub bucket: Arc<SharedBucket>,
    /// Nothing but the scheduler has a say in who gets a connection, and all real servers take as many
    /// as come.
    has_no_conditions: bool,
    /// Besides, they are all reached this way.
    pub(crate) opens_by: Option<OpensBy>,
}

/// How the first packets of connections reach any real server of a virtual server, without a closer look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpensBy {
    /// By [`Path::Direct`].
    Direct,
    /// By [`Path::Translated`]: NAT.
    Nat,
    /// FULLNAT; none of the connections is particular.
    FullNat,
    /// By [`Path::Wrapped`].
    Wrapped,
}

/// A virtual server that matches more than one address and port.
#[derive(Debug)]
struct Group {
    protocol: Protocol,
    matches: Vec<Match>,
    service: u32,
}

/// What a packet of a connection needs to know of its real server.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    pub method: ForwardingMethod,
    /// False: down by its checks.
    pub available: bool,
    /// 0: it takes no new connections.
    pub weight: u32,
    /// It takes none by persistence either.
    pub drained: bool,
    pub thresholds: Thresholds,
    /// Index of its virtual server in `services`.
    service: u32,
    /// Its scheduler, or a threshold, looks at its connections.
    pub counted: bool,
    pub next_hop: Option<Hop>,
    pub address: Address,
    /// Host byte order.
    pub port: u16,
    /// Its virtual server's address is IPv4.
    serves_v4: bool,
    /// TUN: its outer headers are in `tunnels`, once its way is known.
    tunnel: Option<u32>,
}

impl Server {
    /// True if packets of the connection go to it. Not if it was made one whose replies are translated since the
    /// connection began, or such a one no more: what the connection is cannot go that way.
    #[must_use]
    pub fn serves(&self, connection: &Connection) -> bool {
        self.available && self.goes_on(connection.is_translated())
    }

    /// True if its forwarding method is one for connections whose replies are translated, or are not.
    #[must_use]
    pub fn goes_on(&self, is_translated: bool) -> bool {
        self.method.rewrites_replies() == is_translated
    }
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
        let mut this = Self::without_services(generation, timeouts, tcp_midstream);
        this.add_services(virtual_servers, None);
        this
    }

    /// The same, to replace `before`, with which it shares what stays as it
    /// is: scheduler tables that are expensive to build, and templates.
    #[must_use]
    pub fn replacing(
        before: &Self,
        generation: u64,
        timeouts: Timeouts,
        tcp_midstream: TcpMidstream,
        virtual_servers: &[VirtualServer],
    ) -> Self {
        let mut this = Self {
            templates: Arc::clone(&before.templates),
            sources: Arc::clone(&before.sources),
            ..Self::without_services(generation, timeouts, tcp_midstream)
        };
        this.add_services(virtual_servers, Some(before));
        this
    }

    fn without_services(generation: u64, timeouts: Timeouts, tcp_midstream: TcpMidstream) -> Self {
        Self {
            generation,
            timeouts,
            tcp_midstream,
            routes: Routes::default(),
            translates_replies: false,
            translates_wide_replies: false,
            introduces_clients: false,
            expiry: Expiry::default(),
            when_full: WhenFull::default(),
            templates: Arc::new(Templates::new(0, FlowHasher::random())),
            sources: Arc::new(Sources::new(FlowHasher::random())),
            services: Vec::new(),
            by_key: HashMap::new(),
            groups: Vec::new(),
            plain: PlainServices::default(),
            servers: Vec::new(),
            paths: Vec::new(),
            ends: Vec::new(),
            tunnels: Vec::new(),
            local: LocalAddresses::default(),
            wraps_otherwise: false,
            sends_direct: false,
            opens_straight: false,
        }
    }

    fn add_services(&mut self, virtual_servers: &[VirtualServer], before: Option<&Self>) {
        let known = before.into_iter().flat_map(|before| &before.services);
        let known: HashMap<_, _> = known.map(|service| (service.id, service)).collect();
        let ids = virtual_servers
            .iter()
            .flat_map(|service| &service.real_servers);
        let highest = ids.map(|server| server.id.0).max();
        let room = highest.map_or(0, |id| id as usize + 1);
        self.servers.resize(room, None);
        self.paths.resize(room, Path::None);
        self.ends.resize(room, PlainEnd::NONE);
        self.by_key.reserve(virtual_servers.len());
        for (index, service) in (0..).zip(virtual_servers) {
            let VirtualServer {
                id,
                key,
                scheduler,
                options,
                real_servers,
            } = service;
            let same = known.get(id).copied();
            let scheduler = Scheduler::new(
                *scheduler,
                real_servers,
                same.map(|service| &service.scheduler),
            );
            for server in real_servers {
                self.add_server(server, index, key, &scheduler);
            }
            self.introduces_clients |= options.full_nat.client_address != ClientAddress::None;
            let is_wide = !key.address.is_v4()
                || options.matches.iter().any(|matches| !matches.is_v4())
                || real_servers.iter().any(|server| !server.address.is_v4());
            self.translates_wide_replies |=
                is_wide && (real_servers.iter()).any(|server| server.method.rewrites_replies());
            let has_thresholds = (real_servers.iter()).any(|server| server.thresholds.upper > 0);
            self.services.push(Service {
                opens_by: None,
                has_no_conditions: !has_thresholds
                    && options.persistence.is_none()
                    && !options.one_packet
                    && options.limits == Limits::default()
                    && options.syn_proxy.is_none(),
                id: *id,
                scheduler,
                persistence: options.persistence,
                one_packet: options.one_packet && key.protocol == Protocol::Udp,
                full_nat: options.full_nat.clone(),
                limits: options.limits,
                syn_proxy: options.syn_proxy,
                bucket: same.map_or_else(Arc::default, |service| Arc::clone(&service.bucket)),
            });
            if options.matches.is_empty() {
                self.by_key.entry(*key).or_insert(index);
            } else {
                self.groups.push(Group {
                    protocol: key.protocol,
                    matches: options.matches.clone(),
                    service: index,
                });
            }
        }
        let has_sources = |group: &Group| group.matches.iter().any(Match::has_source);
        if !self.groups.iter().any(has_sources) {
            self.plain = PlainServices::new(&self.by_key);
        }
        let local = self.local_addresses().flat_map(|(_, own)| own);
        self.local = LocalAddresses::new(local.copied().collect());
        self.find_plain();
        self.allocate_templates();
        self.prepare_sources(known.into_values());
    }

    /// To be called after each change of a path.
    fn find_plain(&mut self) {
        for service in &mut self.services {
            service.opens_by = None;
        }
        let available = |server: &&Server| server.available;
        let mut mixed = vec![false; self.services.len()];
        for (server, path) in self.servers.iter().zip(&self.paths) {
            let Some(server) = server.as_ref().filter(available) else {
                continue;
            };
            let at = server.service as usize;
            let Some(service) = self.services.get_mut(at) else {
                continue;
            };
            let is_introduced = service.full_nat.client_address != ClientAddress::None;
            let is_full = server.method == ForwardingMethod::FullNat;
            let by = match path {
                Path::Direct(_) => Some(OpensBy::Direct),
                Path::Translated(_) if !server.address.is_v4() || is_full && is_introduced => None,
                Path::Translated(_) if is_full => Some(OpensBy::FullNat),
                Path::Translated(_) => Some(OpensBy::Nat),
                Path::Wrapped(_) => Some(OpensBy::Wrapped),
                Path::None => None,
            };
            mixed[at] |= by.is_none() || service.opens_by.is_some_and(|other| by != Some(other));
            service.opens_by = by;
        }
        for (service, mixed) in self.services.iter_mut().zip(mixed) {
            service.opens_by = (service.opens_by).filter(|_| service.has_no_conditions && !mixed);
        }
        self.opens_straight = self
            .services
            .iter()
            .any(|service| service.opens_by.is_some());
    }

    /// Makes room for sources, and forgets what was counted of them by other limits than now.
    fn prepare_sources<'a>(&self, before: impl Iterator<Item = &'a Service>) {
        let now: HashMap<_, _> = (self.services.iter())
            .filter_map(|service| Some((service.id, service.limits.source?)))
            .collect();
        if !now.is_empty() {
            self.sources.allocate();
        }
        let before: HashMap<_, _> = before
            .filter_map(|service| Some((service.id, service.limits.source?)))
            .collect();
        let is_kept = |id: &VirtualServerId| match (before.get(id), now.get(id)) {
            (Some(before), Some(now)) => before.counts_like(now),
            (Some(_), None) | (None, Some(_)) | (None, None) => false,
        };
        for id in before.keys().chain(now.keys()).filter(|id| !is_kept(id)) {
            self.sources.forget(*id);
        }
    }

    fn add_server(
        &mut self,
        server: &RealServer,
        service: u32,
        key: &ServiceKey,
        scheduler: &Scheduler,
    ) {
        let RealServer {
            id,
            address,
            port,
            method,
            weight,
            available,
            drained,
            next_hop,
            thresholds,
        } = server;
        let next_hop = next_hop.map(Hop::from);
        self.paths[id.0 as usize] = match (method, next_hop.filter(|_| *available)) {
            (ForwardingMethod::Direct, Some(hop)) => Path::Direct(hop),
            (ForwardingMethod::Nat | ForwardingMethod::FullNat, Some(hop)) => Path::Translated(hop),
            // Once the interfaces are known.
            (ForwardingMethod::Tunnel(_), Some(_)) | (_, None) => Path::None,
        };
        self.ends[id.0 as usize] = PlainEnd {
            address: u32::from_ne_bytes(address.last_octets()),
            port: port.to_be(),
        };
        self.sends_direct |= *method == ForwardingMethod::Direct;
        self.translates_replies |= method.rewrites_replies();
        self.servers[id.0 as usize] = Some(Server {
            method: *method,
            address: *address,
            port: *port,
            tunnel: None,
            serves_v4: key.address.is_v4(),
            available: *available,
            weight: *weight,
            drained: *drained,
            thresholds: *thresholds,
            service,
            counted: scheduler.counts_connections() || thresholds.upper > 0,
            next_hop,
        });
    }

    fn allocate_templates(&self) {
        let mut services = self.services.iter();
        if services.any(|service| service.persistence.is_some()) {
            self.templates.allocate();
        }
    }

    /// This snapshot with these templates; without them it has its own, few.
    #[must_use]
    pub fn with_templates(self, templates: Arc<Templates>) -> Self {
        let this = Self { templates, ..self };
        this.allocate_templates();
        this
    }

    /// This snapshot with a policy for connections without a server.
    #[must_use]
    pub fn with_expiry(self, expiry: Expiry) -> Self {
        Self { expiry, ..self }
    }

    /// This snapshot with a policy for a full connection table.
    #[must_use]
    pub fn when_full(self, when_full: WhenFull) -> Self {
        Self { when_full, ..self }
    }

    /// True if a scheduler remembers where destinations went.
    #[must_use]
    pub fn remembers_destinations(&self) -> bool {
        let mut services = self.services.iter();
        services.any(|service| service.scheduler.remembers_destinations())
    }

    /// A snapshot without virtual servers.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(0, Timeouts::default(), TcpMidstream::default(), &[])
    }

    /// The virtual server for packets of `client` to `key`. What is written
    /// for the client's network comes first, then the address and port, then every port of the
    /// address, then the other groups, in their order.
    #[must_use]
    pub fn service(&self, client: Address, key: &ServiceKey) -> Option<&Service> {
        let every_port = ServiceKey { port: 0, ..*key };
        let index = (self.group(client, key, true))
            .or_else(|| self.by_key.get(key).copied())
            .or_else(|| self.by_key.get(&every_port).copied())
            .or_else(|| self.group(client, key, false))?;
        self.services.get(index as usize)
    }

    /// The virtual server for packets with this service word ([`PlainKey`](crate::flow::PlainKey)), if that is known without a closer look and it
    /// is reached without one as well, by all of its real servers.
    #[inline(always)]
    #[must_use]
    pub(crate) fn plain_service(&self, word: u64) -> Option<&Service> {
        let service = self.services.get(self.plain.find(word)? as usize)?;
        service.opens_by.is_some().then_some(service)
    }

    fn group(&self, client: Address, key: &ServiceKey, has_source: bool) -> Option<u32> {
        let is_it = |group: &&Group| {
            group.protocol == key.protocol
                && group.matches.iter().any(|pattern| {
                    pattern.has_source() == has_source
                        && pattern.matches(client, key.address, key.port)
                })
        };
        self.groups.iter().find(is_it).map(|group| group.service)
    }

    /// The virtual server that a real server belongs to.
    #[must_use]
    pub fn service_of(&self, server: &Server) -> Option<&Service> {
        self.services.get(server.service as usize)
    }

    /// The local addresses of FULLNAT by virtual server.
    pub fn local_addresses(&self) -> impl Iterator<Item = (VirtualServerId, &[Address])> {
        let services = self.services.iter();
        services.map(|service| (service.id, &service.full_nat.local_addresses[..]))
    }

    /// The virtual servers, in the order of configuration.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter()
    }

    /// Every real server's virtual server.
    pub(crate) fn memberships(&self) -> impl Iterator<Item = (ServerId, VirtualServerId)> {
        (0..).zip(&self.servers).filter_map(|(id, server)| {
            let service = self.service_of(server.as_ref()?)?;
            Some((ServerId(id), service.id))
        })
    }

    /// The real server; `None` if it was removed.
    #[inline(always)]
    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(id.0 as usize)?.as_ref()
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
