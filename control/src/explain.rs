//! What a packet of a client would meet: the virtual server that matches, the connection it belongs to, or
//! the real server that it would get, and how it leaves. What `appliance explain` says.
//!
//! Pure, and by the very tables that workers use: a [`Snapshot`] with its schedulers and persistence
//! templates. What only a worker knows is given (`Known`), or said to be unknown: `rr` takes turns, and
//! each worker has its own.

mod admission;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dataplane::bpf::Prefix;
use dataplane::conn::State;
use dataplane::limits::{Limits, ServiceTotals};
use dataplane::persistence::Persistence;
use dataplane::scheduler::{Load, Memory, Request, Scheduler, Servers};
use dataplane::service::{
    Address, ForwardingMethod, MAX_SERVERS, MacAddress, PortIndex, Protocol, ServerId, ServiceKey,
};
use dataplane::snapshot::{Server, Service, Snapshot};
use dataplane::wire::ethernet;

use crate::api::view::{Candidate, Explanation, FoundConnection, NextHop};

/// Whose packet it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub virtual_server: SocketAddr,
}

impl Question {
    /// By the name of the protocol, in capitals or not.
    ///
    /// # Errors
    ///
    /// What is wrong: there is no such protocol, or no such packet.
    pub fn new(
        protocol: &str,
        client: SocketAddr,
        virtual_server: SocketAddr,
    ) -> Result<Self, String> {
        let key = format!("{} {virtual_server}", protocol.to_ascii_uppercase());
        let Ok(key) = key.parse::<ServiceKey>() else {
            return Err(format!(
                "found the protocol {protocol:?}, expected tcp, udp or sctp"
            ));
        };
        if client.is_ipv4() != virtual_server.is_ipv4() {
            return Err(format!(
                "found {client} and {virtual_server}, expected addresses of one IP version: no packet has both"
            ));
        }
        Ok(Self {
            protocol: key.protocol,
            client,
            virtual_server,
        })
    }

    pub(crate) fn key(&self) -> ServiceKey {
        ServiceKey {
            address: Address::from(self.virtual_server.ip()),
            port: self.virtual_server.port(),
            protocol: self.protocol,
        }
    }
}

/// A connection that a worker has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Existing {
    pub(crate) server: ServerId,
    pub(crate) state: State,
    /// Its replies are translated: it began with NAT or FULLNAT.
    pub(crate) is_translated: bool,
    pub(crate) worker: u32,
}

/// What is known beside the snapshot.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) existing: Option<Existing>,
    /// The prefix of `deny` that the client is in.
    pub(crate) denied: Option<Prefix>,
    /// The virtual address takes packets of virtual servers only, and this is of none.
    pub(crate) refused: bool,
    /// What the virtual server has on all workers; `None`: offline.
    pub(crate) totals: Option<ServiceTotals>,
    pub(crate) loads: BTreeMap<ServerId, Load>,
    /// Names of the interfaces; empty: offline, next hops are not known.
    pub(crate) interfaces: BTreeMap<PortIndex, String>,
    /// Why a real server is down.
    pub(crate) reasons: BTreeMap<ServerId, String>,
    /// The workers' time, in milliseconds.
    pub(crate) now: u64,
}

impl Known {
    fn load(&self, server: ServerId) -> Load {
        self.loads.get(&server).copied().unwrap_or_default()
    }
}

/// The real servers of a virtual server.
pub(crate) fn servers_of<'s>(
    snapshot: &'s Snapshot,
    service: &Service,
) -> impl Iterator<Item = (ServerId, &'s Server)> {
    let id = service.id;
    let ids = (0..).map(ServerId).take(MAX_SERVERS);
    ids.filter_map(|server| Some((server, snapshot.server(server)?)))
        .filter(move |(_, server)| snapshot.service_of(server).map(|own| own.id) == Some(id))
}

/// Answers the question; `name` is how the virtual server is called in the configuration.
pub(crate) fn explain(
    question: &Question,
    snapshot: &Snapshot,
    known: &Known,
    name: impl Fn(&Service) -> Option<String>,
) -> Explanation {
    let mut answer = Explanation::default();
    let client = Address::from(question.client.ip());
    let service = snapshot.service(client, &question.key());
    answer.virtual_server = service.and_then(name);
    answer.connection = (known.existing).map(|existing| found(question, snapshot, existing));
    if let Some(prefix) = &known.denied {
        answer.certain = true;
        answer.why.push(format!(
            "{} is in the prefix {prefix} of deny: the packet is dropped by the XDP program, and counted as denied",
            question.client.ip()
        ));
        return answer;
    }
    let Some(service) = service else {
        let why = if known.refused {
            "no virtual server matches this address, port and protocol, and the address takes nothing else \
             (no_accept): the packet is dropped by the XDP program, and counted as denied"
        } else {
            "no virtual server matches this address, port and protocol: the packet is the kernel's, as if \
             the appliance were not there"
        };
        answer.why.push(why.to_owned());
        return answer;
    };
    for (id, server) in servers_of(snapshot, service) {
        answer.candidates.push(candidate(id, server, known));
    }
    if let Some(existing) = known.existing {
        return of_connection(answer, question, snapshot, known, existing);
    }
    answer
        .why
        .push("no worker has a connection of this client".to_owned());
    if snapshot.is_local(client) {
        answer.certain = true;
        answer.why.push(format!(
            "{} is a local address of FULLNAT, by which the director itself asks real servers: the packet is dropped \
             as local_source",
            question.client.ip()
        ));
        return answer;
    }
    admission::opens(&mut answer, question, service, snapshot, known);
    if admission::refuses(&mut answer, client, service, snapshot, known) {
        return answer;
    }
    let chosen = templated(&mut answer, question, service, snapshot, known)
        .or_else(|| scheduled(&mut answer, question, service, snapshot, known));
    match chosen.and_then(|id| Some((id, snapshot.server(id)?))) {
        Some((_, server)) => leave(&mut answer, question, server, known),
        None => answer.why.push(
            "no real server takes new connections: the packet is dropped as no_real_server"
                .to_owned(),
        ),
    }
    answer.certain &= service.limits == Limits::default();
    answer
}

fn candidate(id: ServerId, server: &Server, known: &Known) -> Candidate {
    let Load { active, inactive } = known.load(id);
    let state = if !server.available {
        let why = known.reasons.get(&id).cloned();
        why.map_or_else(|| "down".to_owned(), |why| format!("down: {why}"))
    } else if server.drained {
        "drained: takes no new connections".to_owned()
    } else if server.weight == 0 {
        "weight 0: takes no new connections".to_owned()
    } else if server
        .thresholds
        .overloads(active.saturating_add(inactive), false)
    {
        format!(
            "overloaded: it has {} connections or more",
            server.thresholds.upper
        )
    } else {
        "takes connections".to_owned()
    };
    Candidate {
        // As it is configured, with port 0 for every port.
        real_server: SocketAddr::new(server.address.into(), server.port),
        forwarding_method: server.method.to_string().into(),
        weight: server.weight,
        active_connections: active.into(),
        inactive_connections: inactive.into(),
        state,
    }
}

/// Where its packets go: one of every port gets them at the port that they were sent to.
fn real(question: &Question, server: &Server) -> SocketAddr {
    let port = match server.port {
        0 => question.virtual_server.port(),
        port => port,
    };
    SocketAddr::new(server.address.into(), port)
}

fn found(question: &Question, snapshot: &Snapshot, existing: Existing) -> FoundConnection {
    let server = snapshot.server(existing.server);
    FoundConnection {
        worker: existing.worker,
        state: existing.state.to_string().into(),
        real_server: server.map(|server| real(question, server)),
    }
}

fn of_connection(
    mut answer: Explanation,
    question: &Question,
    snapshot: &Snapshot,
    known: &Known,
    existing: Existing,
) -> Explanation {
    let server = snapshot.server(existing.server);
    answer.why.push(
        "the connection exists: its packets go to its real server, whatever the scheduler says"
            .to_owned(),
    );
    match server {
        Some(server) if server.available && server.goes_on(existing.is_translated) => {
            answer.certain = true;
            leave(&mut answer, question, server, known);
        }
        other => {
            let what = match (question.protocol, snapshot.expiry.nodest_conn) {
                (Protocol::Udp, _) => "the next packet gets another real server",
                (_, true) => "the connection ends with its next packet (expire_nodest_conn)",
                (_, false) => {
                    "its packets are dropped as server_unavailable, but for a SYN, which gets another one"
                }
            };
            let why = match other {
                Some(server) if server.available => format!(
                    "that real server is one of {} now, which is no way for a connection that began {} \
                     translated replies",
                    server.method,
                    if existing.is_translated {
                        "with"
                    } else {
                        "without"
                    }
                ),
                Some(_) | None => "that real server is down or was removed".to_owned(),
            };
            answer.why.push(format!("{why}: {what}"));
        }
    }
    answer
}

/// The server that persistence has for the client.
fn templated(
    answer: &mut Explanation,
    question: &Question,
    service: &Service,
    snapshot: &Snapshot,
    known: &Known,
) -> Option<ServerId> {
    let client = Address::from(question.client.ip());
    let persistence = service.persistence.as_ref()?;
    let Persistence {
        timeout,
        granularity,
    } = persistence;
    let seconds = timeout.as_secs();
    let key = persistence.key(service.id, client);
    let id = snapshot.templates.server(&key, known.now);
    let Some((id, server)) = id.and_then(|id| Some((id, snapshot.server(id)?))) else {
        answer.why.push(format!(
            "persistence ({seconds} s, /{granularity}) has nothing for this client yet, and would then keep the choice"
        ));
        return None;
    };
    let quiescent = server.weight == 0 && snapshot.expiry.quiescent_template;
    if !server.available || server.drained || quiescent {
        answer.why.push(format!(
            "persistence had {}, which takes none of its clients any more",
            real(question, server)
        ));
        return None;
    }
    answer.certain = true;
    answer.why.push(format!(
        "persistence ({seconds} s, /{granularity}) keeps this client at {}",
        real(question, server)
    ));
    Some(id)
}

fn scheduled(
    answer: &mut Explanation,
    question: &Question,
    service: &Service,
    snapshot: &Snapshot,
    known: &Known,
) -> Option<ServerId> {
    let request = Request {
        client: Address::from(question.client.ip()),
        client_port: question.client.port(),
        destination: Address::from(question.virtual_server.ip()),
        now: known.now,
    };
    // A worker's memory is its own: this one begins anew.
    let mut memory = Memory::new(0, &dataplane::flow::FlowHasher::fixed());
    let loads = Overloads { known, snapshot };
    let chosen = service
        .scheduler
        .schedule(service.id, &mut memory, &request, &loads);
    let (certain, why) = match &service.scheduler {
        Scheduler::RoundRobin(_) | Scheduler::WeightedRoundRobin(_) => (
            false,
            "the scheduler takes turns, each worker its own: the one named is where a worker begins",
        ),
        Scheduler::DestinationHash(_) => {
            (true, "the scheduler goes by the destination address alone")
        }
        Scheduler::SourceHash(_) => (
            true,
            "the scheduler goes by the client's address (and port, with sh-port)",
        ),
        Scheduler::MaglevHash(_) => (
            true,
            "the scheduler goes by the client's address (and port, with mh-port)",
        ),
        Scheduler::LeastConnection(_)
        | Scheduler::WeightedLeastConnection(_)
        | Scheduler::ShortestExpectedDelay(_)
        | Scheduler::NeverQueue(_)
        | Scheduler::Overflow(_) => (
            false,
            "the scheduler goes by the connections of each real server, as they are now",
        ),
        Scheduler::Failover(_) => (
            true,
            "the scheduler takes the available one with the highest weight",
        ),
        Scheduler::Locality(_) | Scheduler::ReplicatedLocality(_) => (
            false,
            "the scheduler keeps what it chose for the destination address; the one named is for a new address",
        ),
        Scheduler::TwoChoices(_) => (
            false,
            "the scheduler takes the less loaded of two that it draws by lot",
        ),
    };
    answer.why.push(why.to_owned());
    answer.certain = certain;
    chosen
}

struct Overloads<'k> {
    known: &'k Known,
    snapshot: &'k Snapshot,
}

impl Servers for Overloads<'_> {
    fn load(&self, server: ServerId) -> Load {
        self.known.load(server)
    }

    fn is_overloaded(&self, id: ServerId) -> bool {
        let Load { active, inactive } = self.load(id);
        self.snapshot.server(id).is_none_or(|server| {
            server
                .thresholds
                .overloads(active.saturating_add(inactive), false)
        })
    }
}

/// How the packet leaves for a real server.
fn leave(answer: &mut Explanation, question: &Question, server: &Server, known: &Known) {
    let real = real(question, server);
    answer.real_server = Some(real);
    answer.forwarding_method = Some(server.method.to_string().into());
    if !known.interfaces.is_empty() {
        match server.next_hop {
            Some(hop) => {
                let (destination, source) = macs(&hop.addresses);
                let interface = known.interfaces.get(&hop.port);
                answer.next_hop = Some(NextHop {
                    interface: interface.cloned().unwrap_or_default(),
                    mac: destination.to_string(),
                });
                let line = format!("Ethernet: source {source}, destination {destination}");
                answer.headers.push(line);
            }
            None => answer.why.push(
                "its MAC address is not known: packets wait for it up to a second, then they are dropped as \
                 next_hop_unresolved"
                    .to_owned(),
            ),
        }
    }
    let Question {
        client,
        virtual_server,
        ..
    } = question;
    let headers = match server.method {
        ForwardingMethod::Direct => vec![
            format!("IP: {client} → {virtual_server}, unchanged but for one hop less to live"),
            "replies go to the client without the director".to_owned(),
        ],
        ForwardingMethod::Nat => vec![
            format!("IP: {client} → {real}, was {virtual_server}"),
            format!(
                "replies: {virtual_server} → {client}, was from {real}; they must come by the director"
            ),
        ],
        ForwardingMethod::FullNat => vec![
            format!("IP: an address of the director → {real}, was {client} → {virtual_server}"),
            format!("replies: {virtual_server} → {client}, was from {real}"),
        ],
        ForwardingMethod::Tunnel(_) => vec![
            format!("outer IP: an address of the director → {}", real.ip()),
            format!(
                "IP inside: {client} → {virtual_server}, unchanged but for one hop less to live"
            ),
            "replies go to the client without the director".to_owned(),
        ],
    };
    answer.headers.extend(headers);
}

/// Destination and source.
fn macs(addresses: &ethernet::Addresses) -> (MacAddress, MacAddress) {
    let mut frame = [0; ethernet::HEADER_LEN];
    addresses.write(&mut frame);
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, _, _] = frame;
    (
        MacAddress([d0, d1, d2, d3, d4, d5]),
        MacAddress([s0, s1, s2, s3, s4, s5]),
    )
}

#[cfg(test)]
mod tests;
