//! From a configuration to the network that it describes, on paper.
//!
//! ```text
//!  client ── router ──┬── director        `switch`: one bridge,
//!                     ├── rs1             one layer-2 segment
//!                     └── rs2 …
//!
//!  client ── router ───── director ──┬── rs1       NAT with an interface
//!                                    └── rs2 …     for its real servers
//! ```
//!
//! [`Plan::of`] decides which namespaces, links, addresses, routes and kernel
//! settings that takes; [`super::network`] carries it out. No I/O here. The
//! file says nothing about the director's own address, the router and the
//! client: addresses are chosen for them from what is free.
//!
//! Real servers of TUN are on the segment as well. Tunnels end at the program that `appliance realserver up` attaches:
//! many a machine that a lab runs on lacks the kernel's modules for them.

mod cabling;
mod directors;
mod segment;
mod servers;
#[cfg(test)]
mod tests;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use dataplane::service::SchedulerKind;

use crate::config::{Config, Queues};
use cabling::Cabling;
pub use directors::{Director, Failover};
use segment::Segment;
pub use servers::{Listen, Protocol, RealServer};
pub use watched::Watched;

/// Namespace names within a lab; the lab's own name is put before them.
pub const CLIENT: &str = "client";
pub const ROUTER: &str = "router";
pub const SWITCH: &str = "switch";
/// The switch of NAT's real servers, where they have one.
pub const INSIDE_SWITCH: &str = "switch-inside";
pub const DIRECTOR: &str = "director";

/// The interface of the client and of the real servers.
pub const INTERFACE: &str = "eth0";

/// The port that requests go to when a virtual server takes every port.
const PORT_OF_EVERY: u16 = 80;

/// Everything that has to be built, and what is known of its inhabitants.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub namespaces: Vec<Namespace>,
    pub links: Vec<Link>,
    pub directors: Vec<Director>,
    /// With several directors.
    pub failover: Option<Failover>,
    /// What scripts watch on each director.
    pub watched: Vec<Watched>,
    pub real_servers: Vec<RealServer>,
    pub services: Vec<Service>,
    /// What the user should know, one line each.
    pub notes: Vec<String>,
}

/// One network namespace.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Namespace {
    pub name: String,
    /// A bridge that every interface of the namespace belongs to.
    pub bridge: bool,
    /// Paths below `/proc/sys/net/` and their values, set before there is any
    /// interface, so that `default` reaches all of them.
    pub settings: Vec<(&'static str, &'static str)>,
    pub addresses: Vec<InterfaceAddress>,
    /// Gateways of default routes.
    pub gateways: Vec<IpAddr>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceAddress {
    pub interface: String,
    pub address: IpAddr,
    pub prefix_length: u8,
}

/// A veth pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    pub ends: [End; 2],
    /// Receive and transmit queues of both ends.
    pub queues: u32,
}

/// One end of a [`Link`].
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    pub namespace: String,
    pub interface: String,
}

/// A virtual server as the client sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub protocol: Protocol,
    /// Where requests go; port 80 when the virtual server takes every port.
    pub address: SocketAddr,
    pub scheduler: SchedulerKind,
    /// The client, who is one, stays with one real server.
    pub is_persistent: bool,
    /// Address and weight; the weights of one address on several ports are added.
    pub servers: Vec<(IpAddr, u32)>,
}

/// Why a configuration cannot be rehearsed.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    #[error("the file has no virtual_server with a real_server: there is nothing to rehearse")]
    NothingToDo,
    #[error(
        "{0} is the address of a virtual server and of a real server: \
         the lab cannot rehearse a director that is its own real server"
    )]
    VirtualAndReal(IpAddr),
    #[error(
        "{0} is no address that another machine could be reached at: the lab needs unicast \
         addresses that are not loopback, link-local or unspecified"
    )]
    Unroutable(IpAddr),
    #[error(
        "subnet {subnet} has no free address for the {role}: \
         give the virtual_ipaddress a shorter prefix than /{}", .subnet.prefix_length()
    )]
    NoFreeAddress {
        subnet: super::subnet::Subnet,
        role: &'static str,
    },
    #[error(
        "real server {0}: the lab cannot rehearse client_address = \"proxy\": \
         its built-in responder does not read the PROXY protocol"
    )]
    ProxyProtocol(SocketAddr),
    #[error(
        "real server {0} belongs to virtual servers with NAT and with DR: it would need the \
         director and the router as its one default gateway; give it two addresses"
    )]
    TwoGateways(IpAddr),
    #[error(
        "virtual server SCTP {0}: the lab's clients and real servers speak TCP and UDP only; \
         rehearse a copy of the file without it"
    )]
    Sctp(SocketAddr),
    #[error("no subnet is free for the client: the file's subnets cover all that the lab can use")]
    NoClientSubnet,
}

impl Plan {
    /// The network that `config` describes.
    ///
    /// # Errors
    ///
    /// [`PlanError`] when there is no such network.
    pub fn of(config: &Config) -> Result<Self, PlanError> {
        let services = services(config)?;
        if services.iter().all(|service| service.servers.is_empty()) {
            return Err(PlanError::NothingToDo);
        }
        let mut segment = Segment::of(config)?;
        let real_servers = servers::real_servers(config)?;
        let mut notes = segment.notes();
        notes.extend(servers::notes(config));

        let router = segment.take_outside("router")?;
        let mut own = Vec::new();
        for given in directors::given(config)
            .iter()
            .zip(directors::names(config))
        {
            own.push((given.1, segment.take_or_given("director", given.0)?));
        }
        let interfaces = director_interfaces(config);
        let cabling = Cabling::of(config, &segment, &interfaces);
        let (client_side, client) = segment.client_side()?;

        let mut namespaces = vec![
            Namespace {
                name: CLIENT.into(),
                settings: segment.host_settings(),
                addresses: on(INTERFACE, &client),
                gateways: addresses(&client_side),
                ..Namespace::default()
            },
            Namespace {
                name: ROUTER.into(),
                settings: segment.router_settings(),
                addresses: [on("client", &client_side), on("segment", &router)].concat(),
                ..Namespace::default()
            },
            Namespace {
                name: SWITCH.into(),
                bridge: true,
                settings: segment.switch_settings(),
                ..Namespace::default()
            },
        ];
        let mut links = vec![
            link((CLIENT, INTERFACE), (ROUTER, "client"), 1),
            link((ROUTER, "segment"), (SWITCH, ROUTER), 1),
        ];
        let mut directors = Vec::new();
        for (number, (name, held)) in own.iter().enumerate() {
            namespaces.push(Namespace {
                name: name.clone(),
                settings: segment.host_settings(),
                addresses: cabling.place(held),
                gateways: segment.one_a_family(&router),
                ..Namespace::default()
            });
            for (place, interface) in interfaces.iter().enumerate() {
                let port = match place {
                    0 => name.clone(),
                    more => format!("{name}-{more}"),
                };
                links.push(link(
                    (name, interface),
                    (cabling.switch_of_interface(interface), &port),
                    queues(config, interface),
                ));
            }
            let copy = || directors::standby(config, number, &own[0].1, held);
            directors.push(Director {
                name: name.clone(),
                addresses: addresses(held),
                file: (number > 0).then(|| directors::text(&copy())),
            });
        }
        let mut ways_back: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for server in &real_servers {
            let beside = segment.take_beside(server)?;
            let gateways: Vec<IpAddr> = if server.behind_director {
                let gateway = segment.way_back(config, server.address, &own[0].1);
                gateway.into_iter().collect()
            } else {
                let own = std::iter::once(server.address).chain(addresses(beside.as_slice()));
                own.flat_map(|own| segment.near(own, &router)).collect()
            };
            for gateway in gateways.iter().filter(|_| server.behind_director) {
                ways_back
                    .entry(*gateway)
                    .or_default()
                    .push(server.address.to_string());
            }
            namespaces.push(segment.real_server(server, beside, gateways));
            let switch = cabling.switch_of(server.address);
            let port = (switch, server.namespace.as_str());
            links.push(link((&server.namespace, INTERFACE), port, 1));
        }
        if links
            .iter()
            .any(|link| link.ends[1].namespace == INSIDE_SWITCH)
        {
            namespaces.push(Namespace {
                name: INSIDE_SWITCH.into(),
                bridge: true,
                settings: segment.switch_settings(),
                ..Namespace::default()
            });
        }
        Ok(Self {
            namespaces,
            links,
            directors,
            failover: Failover::of(config),
            watched: Watched::all(config),
            real_servers,
            services,
            notes,
        })
    }
}

impl Plan {
    /// True if the director stands between two switches.
    #[must_use]
    pub fn is_divided(&self) -> bool {
        self.namespaces.iter().any(|one| one.name == INSIDE_SWITCH)
    }
}

/// Virtual servers that have real servers.
fn services(config: &Config) -> Result<Vec<Service>, PlanError> {
    let with_servers = |server: &&crate::config::VirtualServer| !server.real_servers.is_empty();
    let configured = config.virtual_servers.iter().filter(with_servers);
    configured
        .map(|configured| {
            let mut servers: Vec<(IpAddr, u32)> = Vec::new();
            for real in &configured.real_servers {
                match servers.iter_mut().find(|(ip, _)| *ip == real.address.ip()) {
                    Some((_, weight)) => *weight += real.weight,
                    None => servers.push((real.address.ip(), real.weight)),
                }
            }
            Ok(Service {
                protocol: Protocol::of(configured)?,
                address: request_address(configured.address()),
                scheduler: configured.scheduler,
                is_persistent: configured.options.persistence.is_some(),
                servers,
            })
        })
        .collect()
}

/// Where requests to a virtual server go.
fn request_address(mut address: SocketAddr) -> SocketAddr {
    if address.port() == 0 {
        address.set_port(PORT_OF_EVERY);
    }
    address
}

/// Every interface that the file names, the one that carries the segment's
/// addresses first; `eth0` if it names none.
fn director_interfaces(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let instances = config.vrrp_instances.iter();
    let of_addresses = instances.clone().flat_map(|instance| {
        let addresses = instance.virtual_ipaddress.iter();
        addresses.map(|address| address.interface.as_ref().unwrap_or(&instance.interface))
    });
    let of_instances = instances.map(|instance| &instance.interface);
    let listed = config.interfaces.iter().map(|interface| &interface.name);
    for name in of_addresses.chain(of_instances).chain(listed) {
        if !names.contains(name) && name != "lo" {
            names.push(name.clone());
        }
    }
    if names.is_empty() {
        names.push(INTERFACE.into());
    }
    names
}

/// As many queues as the file has workers or queue numbers for.
fn queues(config: &Config, interface: &str) -> u32 {
    let listed = config
        .interfaces
        .iter()
        .find(|candidate| candidate.name == interface)
        .and_then(|found| match &found.queues {
            Queues::All => None,
            Queues::List(numbers) => numbers.iter().max().map(|highest| highest + 1),
        });
    let workers = u32::try_from(config.appliance.cores.len()).unwrap_or(u32::MAX);
    listed.unwrap_or(1).max(workers)
}

fn link(a: (&str, &str), b: (&str, &str), queues: u32) -> Link {
    let end = |(namespace, interface): (&str, &str)| End {
        namespace: namespace.into(),
        interface: interface.into(),
    };
    Link {
        ends: [end(a), end(b)],
        queues,
    }
}

/// Those addresses as addresses of one interface.
fn on(interface: &str, addresses: &[(IpAddr, u8)]) -> Vec<InterfaceAddress> {
    let one = |&(address, prefix_length): &(IpAddr, u8)| InterfaceAddress {
        interface: interface.into(),
        address,
        prefix_length,
    };
    addresses.iter().map(one).collect()
}

fn addresses(with_prefixes: &[(IpAddr, u8)]) -> Vec<IpAddr> {
    with_prefixes.iter().map(|(address, _)| *address).collect()
}

/// Every address that the file gives to somebody.
fn addresses_in_use(config: &Config) -> BTreeSet<IpAddr> {
    let virtual_servers = config.virtual_servers.iter();
    let held = config
        .vrrp_instances
        .iter()
        .flat_map(crate::config::VrrpInstance::held);
    let given = directors::given(config);
    virtual_servers
        .clone()
        .map(|server| server.address().ip())
        .chain(
            virtual_servers
                .clone()
                .flat_map(crate::config::VirtualServer::local_addresses),
        )
        .chain(given.concat())
        .chain(
            virtual_servers
                .flat_map(|server| &server.real_servers)
                .map(|real| real.address.ip()),
        )
        .chain(held.map(|address| address.address))
        .collect()
}
