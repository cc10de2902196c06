//! What the controller wants is done here: each [`Action`], and what follows from it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use dataplane::bpf::{Steering, XdpError};
use dataplane::service::MacAddress;
use futures_util::future::join_all;
use tracing::{debug, error, info, warn};

use super::Appliance;
use crate::announce::{self, Announcement, Schedule};
use crate::config::Check;
use crate::controller::Port;
use crate::event::{Action, CheckId, Event, NetworkEvent, Route};
use crate::health::Way;
use crate::netlink::{self, NewAddress};

/// Routes asked for in a row: the kernel answers before the first answer is read, into a buffer that holds some thirty.
const LOOKUPS_AT_ONCE: usize = 16;

impl Appliance {
    /// Does what the controller wants, and what follows from that.
    pub(super) async fn carry_out(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            self.vrrp_in_between(&mut actions);
            match action {
                Action::Publish => self.snapshot_pace.want(),
                Action::Log(line) => info!("{line}"),
                Action::Warn(line) => warn!("{line}"),
                Action::Steer(rule) => {
                    // Workers must know it before its packets come.
                    if self.snapshot_pace.is_wanted() {
                        self.publish();
                    }
                    self.steer(|steering| steering.add(&rule));
                }
                Action::Unsteer(rule) => self.steer(|steering| steering.remove(&rule)),
                Action::OwnMacs { index } => self.set_macs(|port| port.index == index),
                Action::AddAddress {
                    index,
                    address,
                    prefix_length,
                    label,
                    scope,
                } => {
                    // It was asked for on the network before, in IPv6 too.
                    let new = NewAddress {
                        index,
                        address,
                        prefix_length,
                        label,
                        scope,
                        nodad: true,
                    };
                    say_failure(self.requests.add_address(&new).await);
                }
                Action::RemoveAddress {
                    index,
                    address,
                    prefix_length,
                } => {
                    self.to_announce.retain(|one| one.address != address);
                    self.announcer.give_up(address);
                    say_failure(
                        self.requests
                            .remove_address(index, address, prefix_length)
                            .await,
                    );
                }
                Action::AddVmac { name, base, mac } => {
                    self.add_vmac(&name, base, mac).await;
                }
                Action::SetVmac { name, base, up } => self.set_vmac(&name, &base, up).await,
                Action::RemoveVmac { name } => {
                    say_failure(self.requests.remove_vmac(&name).await);
                }
                Action::AddRoute(route) => {
                    let added = self.requests.add_route(&route).await;
                    say_if_there(added, "route", &route);
                }
                Action::RemoveRoute(route) => {
                    say_failure(self.requests.remove_route(&route).await);
                }
                Action::AddRule(rule) => {
                    let added = self.requests.add_rule(&rule).await;
                    say_if_there(added, "rule", &rule);
                }
                Action::RemoveRule(rule) => {
                    say_failure(self.requests.remove_rule(&rule).await);
                }
                Action::AskFor { index, addresses } => self.ask_for(index, addresses),
                Action::Announce { index, address } => {
                    let port = self
                        .controller
                        .ports()
                        .iter()
                        .find(|port| port.index == index);
                    self.to_announce.extend(port.map(|port| Announcement {
                        interface: announce_on(port),
                        address,
                    }));
                }
                Action::AnnounceInstance { instance, repeat } => {
                    self.announce_instance(instance, repeat);
                }
                Action::StopAnnouncing { instance } => {
                    if let Some(task) = self.announcing_instances.remove(&instance) {
                        task.abort();
                    }
                }
                advert @ Action::SendAdvert { .. } => {
                    self.send_if_advert(advert);
                }
                Action::ListRoutes => match self.requests.routes().await {
                    Ok(routes) => {
                        let event = Event::Routes { routes };
                        actions.extend(self.controller.handle(event, Instant::now()));
                    }
                    Err(error) => warn!("{error}"),
                },
                Action::LookUpRoute { destination } => {
                    let mut destinations = vec![destination];
                    while destinations.len() < LOOKUPS_AT_ONCE
                        && let Some(Action::LookUpRoute { destination }) = actions.front()
                    {
                        destinations.push(*destination);
                        actions.pop_front();
                    }
                    actions.extend(self.look_up_routes(&destinations).await);
                }
                Action::ProbeNeighbor {
                    index,
                    address,
                    resolved,
                } => {
                    let asked = if resolved {
                        self.requests.verify(index, address).await
                    } else {
                        self.requests.resolve(index, address).await
                    };
                    if let Err(error) = asked {
                        debug!("{error}");
                    }
                }
                Action::StartCheck { id, check } => {
                    self.start_check(id, *check);
                }
                Action::StopCheck { id } => {
                    self.checker.stop(&id);
                }
                Action::RunScript {
                    about,
                    script,
                    arguments,
                    cause,
                } => self.notifier.run(about, script, arguments, cause),
                Action::Tell(notice) => self.notifier.tell(&notice),
                Action::Mail(message) => self.notifier.mail(message),
            }
        }
    }

    /// Asks for all routes at once: between a question and its answer, other tasks have their turn.
    async fn look_up_routes(&mut self, destinations: &[IpAddr]) -> Vec<Action> {
        let asked = destinations.iter().map(|to| self.requests.route(*to));
        let answers = join_all(asked).await;
        let mut actions = Vec::new();
        for (destination, answer) in destinations.iter().zip(answers) {
            match answer {
                Ok(route) => {
                    let event = Event::Route {
                        destination: *destination,
                        local: matches!(route, netlink::Route::Local),
                        route: forwarding(route),
                    };
                    actions.extend(self.controller.handle(event, Instant::now()));
                }
                Err(error) => warn!("{error}"),
            }
        }
        actions
    }

    fn start_check(&mut self, id: CheckId, check: Check) {
        let server = check.through_vip.then(|| self.controller.server_id(&id));
        let way = server.flatten().map(|server| Way {
            published: Arc::clone(&self.published),
            server,
        });
        self.checker.start(id, check, way);
    }

    /// Tells the steering program of every interface.
    fn steer(&mut self, tell: impl Fn(&mut Steering) -> Result<(), XdpError>) {
        for steering in self.workers.steering.values_mut() {
            if let Err(error) = tell(steering) {
                error!("{error:#}");
            }
        }
    }

    /// Tells the steering programs of some interfaces what MAC addresses they have.
    pub(super) fn set_macs(&mut self, of: impl Fn(&Port) -> bool) {
        for port in self.controller.ports() {
            if of(port)
                && let Some(steering) = self.workers.steering.get_mut(&port.number)
                && let Err(error) = steering.set_macs(&self.controller.own_macs(port))
            {
                error!("{error:#}");
            }
        }
    }

    /// Asks whether others have addresses; the answer is an event, a second later.
    fn ask_for(&mut self, index: u32, addresses: Vec<IpAddr>) {
        let mut ports = self.controller.ports().iter();
        let Some(port) = ports.find(|port| port.index == index) else {
            return;
        };
        let interface = announce_on(port);
        let events = self.checker.events();
        self.announcing.spawn(async move {
            let answers = announce::probe(&interface, &addresses).await;
            let claimed = answers.unwrap_or_else(|error| {
                warn!("cannot find out whether an address is in use: {error}");
                BTreeMap::new()
            });
            let claimed = claimed.into_iter().map(|(address, mac)| (address, mac.0));
            let claimed = claimed.collect();
            let asked = NetworkEvent::Asked { addresses, claimed };
            // Nobody listens any more at the end.
            drop(events.send(Event::Network(asked)).await);
        });
    }

    pub(super) fn send_announcements(&mut self) {
        if !self.to_announce.is_empty() {
            let announcements = std::mem::take(&mut self.to_announce);
            let announced = self.announcer.announce(announcements, Schedule::default());
            self.announcing.spawn(async move {
                if let Err(error) = announced.await {
                    warn!("{error}");
                }
            });
        }
    }
}

pub(super) fn say_failure<T>(result: Result<T, netlink::Error>) {
    if let Err(error) = result {
        error!("{error}");
    }
}

/// Of a route or rule that was added, or not because there is one.
fn say_if_there(added: Result<bool, netlink::Error>, what: &str, it: &dyn std::fmt::Display) {
    match added {
        Ok(true) => debug!("{what} {it} added"),
        Ok(false) => info!("{what} {it}: there is one already, which stays as it is"),
        Err(error) => error!("{error}"),
    }
}

pub(super) fn announce_on(port: &Port) -> announce::Interface {
    announce::Interface {
        index: port.index,
        name: port.name.clone(),
        mac: MacAddress(port.mac),
    }
}

/// The way over an interface.
fn forwarding(route: netlink::Route) -> Option<Route> {
    match route {
        netlink::Route::Forward(hop) => Some(Route {
            index: hop.index,
            gateway: hop.gateway,
        }),
        netlink::Route::Local | netlink::Route::Unreachable => None,
    }
}
