//! Answering clients: copies of the state, in the words of the API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use dataplane::bpf::SteeringCounters;
use dataplane::conn::State;
use dataplane::counters::DropReason;
use dataplane::limits::{Limits, RefusedBy, SynProxy};
use dataplane::persistence::Templates;
use dataplane::service::ServerId;
use dataplane::worker::{self, ConnectionRecord, Request};
use tracing::{debug, warn};

use super::Appliance;
use super::workers::WorkerHandle;
use crate::api::Query;
use crate::api::view::{self, AttachMode, Health, Traffic};
use crate::config::{self, Config, RealServer, VirtualServer};
use crate::controller::{CheckState, PassiveStatus, Port, ServerKey, check_id};
use crate::health::LastResult;

/// How long a worker is waited for while it lists its connections.
pub(super) const LISTING_PATIENCE: Duration = Duration::from_secs(5);
/// Templates of persistence in a batch of the listing.
const TEMPLATES_BATCH: usize = 1024;

/// Real servers that are listed before VRRP has its turn again: some hundred microseconds.
const AT_ONCE: usize = 128;

impl Appliance {
    /// Answers a client. One that is gone is no error.
    pub(super) async fn answer(&mut self, query: Query) {
        match query {
            Query::Ping(reply) => drop(reply.send(())),
            Query::Services(reply) => drop(reply.send(self.services().await)),
            Query::Connections(batches) => self.connections(batches),
            Query::Neighbors(reply) => drop(reply.send(self.neighbors())),
            Query::Workers(reply) => drop(reply.send(self.workers())),
            Query::Drops(reply) => drop(reply.send(self.drops())),
            Query::Health(reply) => drop(reply.send(self.health().await)),
            Query::Vrrp(reply) => drop(reply.send(self.show_vrrp())),
            Query::Config(reply) => drop(reply.send(self.show_config(Config::clone))),
            Query::PublicConfig(reply) => {
                drop(reply.send(self.show_config(Config::without_passwords)));
            }
            Query::Explain(question, reply) => self.explain(question, reply),
            Query::Ipvs(reply) => drop(reply.send(self.ipvs())),
            Query::Edit(edits, reply) => {
                let edited = self.edit(&edits.edits).await;
                drop(reply.send(edited));
            }
            Query::Reload(reply) => {
                let result = self.reload().await;
                drop(reply.send(result));
            }
        }
    }

    /// What is in effect: the socket may be another than the file's.
    fn show_config(&self, copy: impl Fn(&Config) -> Config) -> view::Config {
        let mut config = copy(self.controller.config());
        // A relative path is one of where the appliance was started.
        let socket = std::path::absolute(&self.socket);
        config.appliance.control_socket = socket.unwrap_or_else(|_| self.socket.clone());
        let toml = config::to_toml(&config);
        view::Config { toml }
    }

    async fn services(&mut self) -> Vec<view::Service> {
        let mut services = Vec::new();
        for number in 0..self.controller.config().virtual_servers.len() {
            let mut real_servers = Vec::new();
            while let Some(service) = self.controller.config().virtual_servers.get(number) {
                let before = real_servers.len();
                let servers = self.listed(service).skip(before).take(AT_ONCE);
                real_servers.extend(servers.map(|server| self.real_server(service, server)));
                if real_servers.len() < before + AT_ONCE {
                    services.push(self.service(service, real_servers));
                    break;
                }
                self.give_way().await;
            }
            self.give_way().await;
        }
        services
    }

    fn service(
        &self,
        service: &VirtualServer,
        real_servers: Vec<view::RealServer>,
    ) -> view::Service {
        view::Service {
            protocol: service.protocol().to_string().into(),
            address: service.address(),
            matches: service
                .options
                .matches
                .iter()
                .map(ToString::to_string)
                .collect(),
            scheduler: service.scheduler.to_string().into(),
            scheduler_flags: service.scheduler.flags().map(Into::into).collect(),
            persistence: service
                .options
                .persistence
                .map(|persistence| view::Persistence {
                    timeout_seconds: persistence.timeout.as_secs(),
                    granularity: persistence.granularity,
                }),
            one_packet: service.options.one_packet,
            limits: self.limits(service),
            forwarding_method: service.lb_kind.to_string().into(),
            traffic: real_servers.iter().map(|server| server.traffic).sum(),
            real_servers,
        }
    }

    fn limits(&self, service: &VirtualServer) -> view::Limits {
        let Limits {
            max_connections,
            rate,
            source,
        } = service.options.limits;
        let of_source = source.and_then(|source| source.rate);
        let id = self.controller.servers().virtual_server_id(service.key);
        let totals = id.map(|id| self.workers.service_totals(id));
        let totals = totals.unwrap_or_default();
        let refused = RefusedBy::ALL.into_iter().zip(totals.refused);
        let (syn_proxy, threshold) = match service.options.syn_proxy {
            None => ("off", None),
            Some(SynProxy::Always) => ("always", None),
            Some(SynProxy::UnderAttack { half_open }) => ("under-attack", Some(half_open)),
        };
        view::Limits {
            max_connections,
            new_connections_per_second: rate.map(|rate| rate.per_second),
            new_connections_burst: rate.map(|rate| rate.burst),
            source_max_connections: source.and_then(|source| source.max_connections),
            source_new_connections_per_second: of_source.map(|rate| rate.per_second),
            source_new_connections_burst: of_source.map(|rate| rate.burst),
            source_granularity: source.map(|source| source.granularity),
            syn_proxy: syn_proxy.into(),
            syn_proxy_threshold: threshold,
            under_attack: totals.under_attack && threshold.is_some(),
            half_open_connections: totals.half_open,
            refused_total: refused
                .filter(|(_, count)| *count > 0)
                .map(|(by, count)| (by.reason().name().to_owned(), count))
                .collect(),
        }
    }

    /// The real servers, and the sorry server while it serves.
    fn listed<'s>(&self, service: &'s VirtualServer) -> impl Iterator<Item = &'s RealServer> {
        let has_quorum = self.controller.has_quorum(service.key);
        let sorry = service.quorum.sorry_server.iter();
        let sorry = sorry.filter(move |sorry| !has_quorum || sorry.inhibit_on_failure);
        service.real_servers.iter().chain(sorry)
    }

    fn real_server(&self, service: &VirtualServer, server: &RealServer) -> view::RealServer {
        let states = self.controller.checks((service.key, server.address));
        let (weight, _) = self.controller.weight_and_availability(service, server);
        let all_tried = states.iter().all(|state| {
            self.checker
                .has_tried(&check_id((service.key, server.address), state.number))
        });
        let passive = self.controller.passive((service.key, server.address));
        let drained = self.controller.is_drained(server.address);
        let failed = states.iter().find(|state| !state.passes());
        let id = self.controller.servers().id(service.key, server.address);
        let next_hops = self.controller.next_hops();
        let next_hop = self.controller.next_hop_of(server);
        let interface = next_hops.interface(server.address.ip());
        view::RealServer {
            address: server.address,
            forwarding_method: server.lb_kind.to_string().into(),
            weight,
            configured_weight: server.weight,
            upper_threshold: server.thresholds.upper,
            lower_threshold: server.thresholds.lower,
            health: match passive {
                Some(status) if !status.passes => Health::Down,
                Some(_) | None => health(states, all_tried),
            },
            drained,
            given_up: (self.controller)
                .is_given_up(server.address, self.workers.oldest_generation()),
            reason: failed
                .and_then(|state| state.reason.clone())
                .or_else(|| passive_reason(passive)),
            traffic: id.map(|id| self.traffic(id)).unwrap_or_default(),
            next_hop: next_hop.zip(interface).map(|(hop, port)| view::NextHop {
                interface: port.name.clone(),
                mac: hop.destination.to_string(),
            }),
        }
    }

    fn traffic(&self, id: ServerId) -> Traffic {
        let totals = self
            .controller
            .servers()
            .since_baseline(id, self.workers.totals(id));
        Traffic {
            active_connections: totals.active.into(),
            inactive_connections: totals.inactive.into(),
            connections_total: totals.connections,
            packets_total: totals.packets,
            bytes_total: totals.bytes,
            reply_packets_total: totals.reply_packets,
            reply_bytes_total: totals.reply_bytes,
        }
    }

    fn neighbors(&self) -> Vec<view::Neighbor> {
        let next_hops = self.controller.next_hops();
        next_hops
            .destinations()
            .map(|real_server| {
                let hop = next_hops.next_hop(real_server);
                let interface = next_hops.interface(real_server);
                view::Neighbor {
                    real_server,
                    via: next_hops.gateway(real_server),
                    interface: interface.map(|port| port.name.clone()),
                    mac: hop.ok().map(|hop| hop.destination.to_string()),
                    state: hop.map_or_else(|why| why.as_str(), |_| "resolved").into(),
                }
            })
            .collect()
    }

    fn workers(&self) -> Vec<view::Worker> {
        let steering: BTreeMap<&str, view::Steering> = self.steering().collect();
        let way_back = self.workers.way_back.as_ref();
        (0..)
            .zip(&self.workers.handles)
            .map(|(number, handle)| {
                let mut worker = worker(number, handle, way_back, &steering);
                // Somebody may have deleted it.
                (worker.way_back).take_if(|_| !self.controller.next_hops().has_way_back());
                worker
            })
            .collect()
    }

    /// What each interface's steering program counted.
    fn steering(&self) -> impl Iterator<Item = (&str, view::Steering)> {
        self.workers.steering.values().map(|steering| {
            let counters = steering.counters().unwrap_or_else(|error| {
                warn!("{error}");
                SteeringCounters::default()
            });
            let SteeringCounters {
                steered,
                passed,
                no_socket,
                not_for_us,
                denied,
            } = counters;
            let shown = view::Steering {
                steered,
                passed,
                no_socket,
                not_for_us,
                denied,
            };
            (steering.interface(), shown)
        })
    }

    fn drops(&self) -> Vec<view::Drop> {
        let mut sums = [0; DropReason::COUNT];
        for counters in self.workers.counters() {
            for (sum, drops) in sums.iter_mut().zip(counters.drops) {
                *sum += drops;
            }
        }
        let denied = view::Drop {
            reason: "denied".into(),
            description: "The sender is in a prefix of deny, or the destination is an address of no_accept and no \
                          virtual server's: the XDP program dropped it."
                .into(),
            packets_total: self.steering().map(|(_, counters)| counters.denied).sum(),
        };
        let reasons = DropReason::ALL.iter().zip(sums);
        reasons
            .map(|(reason, packets_total)| view::Drop {
                reason: reason.name().into(),
                description: reason.description().into(),
                packets_total,
            })
            .chain([denied])
            .collect()
    }

    async fn health(&mut self) -> Vec<view::HealthCheck> {
        let mut checks = Vec::new();
        for number in 0..self.controller.config().virtual_servers.len() {
            let mut from = 0;
            while let Some(service) = self.controller.config().virtual_servers.get(number)
                && from < service.real_servers.len()
            {
                let servers = service.real_servers.iter().skip(from).take(AT_ONCE);
                servers.for_each(|server| self.checks_of(service, server, &mut checks));
                from += AT_ONCE;
                self.give_way().await;
            }
        }
        checks
    }

    fn checks_of(
        &self,
        service: &VirtualServer,
        server: &RealServer,
        checks: &mut Vec<view::HealthCheck>,
    ) {
        let states = self.controller.checks((service.key, server.address));
        let passive = self.controller.passive((service.key, server.address));
        checks.extend(passive.map(|status| view::HealthCheck {
            protocol: service.protocol().to_string().into(),
            virtual_server: service.address(),
            real_server: server.address,
            check: "passive".into(),
            target: server.address,
            state: up_or_down(status.passes),
            last_result: passive_reason(passive),
            since_seconds: status.since.map_or(0, |since| since.elapsed().as_secs()),
            failures: status.unanswered,
        }));
        for state in states {
            let id = check_id((service.key, server.address), state.number);
            let status = self.checker.status_of(&id);
            let status = status.as_ref();
            let tried = status.filter(|status| status.last_result != LastResult::NotTried);
            checks.push(view::HealthCheck {
                protocol: service.protocol().to_string().into(),
                virtual_server: service.address(),
                real_server: server.address,
                check: state.check.kind.name().into(),
                target: state.check.target,
                state: match (status, tried) {
                    (Some(status), Some(_)) => up_or_down(status.healthy),
                    (_, _) => Health::Checking,
                },
                last_result: tried.map(|status| status.reason.clone()),
                since_seconds: status.map_or(0, |status| status.unchanged_for.as_secs()),
                failures: status.map_or(0, |status| status.failures.into()),
            });
        }
    }

    /// Lists the connections from a thread of its own: neither this loop nor
    /// a worker waits for the client.
    fn connections(&self, batches: tokio::sync::mpsc::Sender<Vec<view::Connection>>) {
        let mut listings = Vec::with_capacity(self.workers.handles.len());
        for handle in &self.workers.handles {
            let (sender, receiver) = mpsc::channel();
            // A worker that has ended drops the request, which ends the listing.
            drop(handle.requests.send(Request::Connections(sender)));
            listings.push(receiver);
        }
        let servers = self.controller.servers().by_id();
        let timeouts = self.controller.config().appliance.timeouts.by_state();
        let templates = Arc::clone(self.controller.templates());
        let clock = worker::clock();
        tokio::task::spawn_blocking(move || {
            let is_complete = pass_on(listings, &batches, LISTING_PATIENCE, |worker, record| {
                connection(record, worker, &servers, &timeouts)
            });
            if is_complete {
                pass_on_templates(&templates, clock, &batches, &servers);
            }
        });
    }
}

/// Passes on what each worker lists, as `shown`; true if all of it was. The end of `batches` says that it is
/// complete; so if a worker takes longer than `patience`, they stay open until the reader gives up.
fn pass_on(
    listings: Vec<mpsc::Receiver<Vec<ConnectionRecord>>>,
    batches: &tokio::sync::mpsc::Sender<Vec<view::Connection>>,
    patience: Duration,
    shown: impl Fn(u32, &ConnectionRecord) -> Option<view::Connection>,
) -> bool {
    // The first batch may be empty; it tells that there is an answer.
    if batches.blocking_send(Vec::new()).is_err() {
        return false;
    }
    for (worker, listing) in (0..).zip(listings) {
        loop {
            let records = match listing.recv_timeout(patience) {
                Ok(records) => records,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    warn!("worker {worker} did not go on listing its connections in {patience:?}");
                    tokio::runtime::Handle::current().block_on(batches.closed());
                    return false;
                }
            };
            let batch = records.iter().filter_map(|record| shown(worker, record));
            if batches.blocking_send(batch.collect()).is_err() {
                debug!("a client stopped reading the list of connections");
                return false;
            }
        }
    }
    true
}

/// Passes on the templates of persistence, as IPVS lists them among its connections: with port 0 and without
/// a state.
fn pass_on_templates(
    templates: &Templates,
    clock: u64,
    batches: &tokio::sync::mpsc::Sender<Vec<view::Connection>>,
    servers: &BTreeMap<ServerId, ServerKey>,
) {
    let mut batch = Vec::new();
    templates.for_each(clock, |template| {
        let Some((service, real_server)) = servers.get(&template.server) else {
            return;
        };
        batch.push(view::Connection {
            protocol: service.protocol.to_string().into(),
            client: SocketAddr::new(template.key.network.into(), 0),
            virtual_server: SocketAddr::new(service.address.into(), service.port),
            real_server: *real_server,
            state: "NONE".into(),
            expires_seconds: template.remaining(clock).as_secs(),
            worker: None,
        });
        if batch.len() == TEMPLATES_BATCH {
            // Sent to nobody when the client stopped reading.
            drop(batches.blocking_send(std::mem::take(&mut batch)));
        }
    });
    drop(batches.blocking_send(batch));
}

fn connection(
    record: &ConnectionRecord,
    worker: u32,
    servers: &BTreeMap<ServerId, ServerKey>,
    timeouts: &[u32; State::COUNT],
) -> Option<view::Connection> {
    let service = record.key.service();
    let (_, mut real_server) = *servers.get(&record.server)?;
    // A real server of every port gets what was sent to a port at that port, and IPVS lists it so.
    if real_server.port() == 0 {
        real_server.set_port(service.port);
    }
    let timeout = Duration::from_millis(timeouts[record.state.index()].into());
    Some(view::Connection {
        protocol: service.protocol.to_string().into(),
        client: record.key.client(),
        virtual_server: SocketAddr::new(service.address.into(), service.port),
        real_server,
        state: record.state.to_string().into(),
        expires_seconds: timeout.saturating_sub(record.idle).as_secs(),
        worker: Some(worker),
    })
}

fn worker(
    number: u32,
    handle: &WorkerHandle,
    way_back: Option<&Port>,
    steering: &BTreeMap<&str, view::Steering>,
) -> view::Worker {
    let counters = handle.statistics.counters();
    // The way back is the first device.
    let first = usize::from(way_back.is_some());
    let interfaces = (first..).zip(&handle.queues).map(|(device, queue)| {
        let statistics = handle.statistics.device(device);
        view::WorkerInterface {
            interface: queue.interface.clone(),
            queue: queue.queue,
            mode: if queue.native {
                AttachMode::Native
            } else {
                AttachMode::Generic
            },
            zero_copy: queue.zero_copy,
            rx_dropped: statistics.rx_dropped,
            rx_ring_full: statistics.rx_ring_full,
            rx_fill_ring_empty: statistics.rx_fill_ring_empty,
            tx_invalid: statistics.tx_invalid,
            tx_dropped: statistics.tx_dropped,
            kernel_invalid: statistics.kernel_invalid,
            steering: steering
                .get(queue.interface.as_str())
                .cloned()
                .unwrap_or_default(),
        }
    });
    view::Worker {
        worker: number,
        core: u32::try_from(handle.core).unwrap_or(u32::MAX),
        snapshot_generation: handle
            .statistics
            .generation
            .load(std::sync::atomic::Ordering::Relaxed),
        counters: counters
            .named()
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        dropped_packets: counters.dropped(),
        way_back: way_back.map(|port| {
            let statistics = handle.statistics.device(0);
            view::WayBack {
                interface: port.name.clone(),
                tx_invalid: statistics.tx_invalid,
                tx_dropped: statistics.tx_dropped,
            }
        }),
        interfaces: interfaces.collect(),
    }
}

/// Of all checks of a server together. A first try that decides nothing yet is no
/// event, hence `all_tried`.
fn health(states: &[CheckState], all_tried: bool) -> Health {
    if states.is_empty() {
        Health::Unchecked
    } else if states.iter().any(|state| !state.passes()) {
        Health::Down
    } else if all_tried {
        Health::Up
    } else {
        Health::Checking
    }
}

/// Why passive health has taken a server out.
fn passive_reason(passive: Option<PassiveStatus>) -> Option<String> {
    let out = passive.filter(|status| !status.passes)?;
    Some(format!("{} SYNs of clients got no answer", out.unanswered))
}

fn up_or_down(healthy: bool) -> Health {
    if healthy { Health::Up } else { Health::Down }
}

#[cfg(test)]
mod tests {
    use dataplane::flow::FlowKey;
    use dataplane::service::{Address, ServiceKey};

    use super::*;

    #[tokio::test]
    async fn a_worker_that_stops_listing_does_not_end_the_list() {
        let (ends, endless) = (mpsc::channel(), mpsc::channel());
        drop(ends.0);
        let (batches, mut answer) = tokio::sync::mpsc::channel(1);
        let passing_on = tokio::task::spawn_blocking(move || {
            let patience = Duration::from_millis(10);
            pass_on(vec![ends.1, endless.1], &batches, patience, |_, _| None)
        });
        assert!(answer.recv().await.is_some_and(|first| first.is_empty()));
        let more = tokio::time::timeout(Duration::from_millis(200), answer.recv()).await;
        assert!(more.is_err(), "{more:?}");
        answer.close();
        assert!(!passing_on.await.unwrap(), "not complete");
        drop(endless.0);
    }

    #[test]
    fn a_real_server_of_every_port_is_listed_with_the_port_of_the_packet() {
        let key: ServiceKey = "TCP 10.0.0.100:8443".parse().unwrap();
        let client = Address::v4([198, 51, 100, 7]);
        let record = ConnectionRecord {
            key: FlowKey::new(client, 40000, key.address, key.port, key.protocol),
            server: ServerId(0),
            state: State::Established,
            is_translated: false,
            idle: Duration::ZERO,
        };
        let every_port = ServiceKey { port: 0, ..key };
        let shown = |address: &str| {
            let server = (every_port, address.parse().unwrap());
            let servers = BTreeMap::from([(ServerId(0), server)]);
            let shown = connection(&record, 0, &servers, &[0; State::COUNT]).unwrap();
            shown.real_server.to_string()
        };
        assert_eq!(shown("10.0.0.101:0"), "10.0.0.101:8443");
        assert_eq!(shown("10.0.0.101:80"), "10.0.0.101:80");
    }
}
