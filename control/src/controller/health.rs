//! What the checks' results mean for real servers and virtual servers: up and
//! down, weights, quorum, and the scripts that are told.
//!
//! Invariant: `sum` of a virtual server is that of its real servers' shares, kept
//! by difference: a change costs the same with ten real servers and with ten
//! thousand.

mod checks;
mod share;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Add;
use std::time::Instant;

use dataplane::counters::ServerTotals;
use dataplane::service::{ServerId, ServiceKey};

pub use self::checks::CheckState;
use self::share::Share;
use super::diff::Touched;
use super::drain::Drains;
use super::passive::{self, Change};
use super::{Controller, ServerKey, check_id};
use crate::config::{Config, Passive, Quorum, VirtualServer};
use crate::event::{Action, CheckId, WeightChange};
use crate::notify::{Notice, server_name};
use crate::scripts::Script;

/// A real server and its checks.
#[derive(Debug)]
struct Server {
    checks: Vec<CheckState>,
    passive: Option<passive::State>,
    /// As configured.
    weight: u32,
    /// Taken out of use by an operator: no new connections.
    is_drained: bool,
    notify_up: Option<Script>,
    notify_down: Option<Script>,
    /// Whether mails are sent about it.
    mails: bool,
}

impl Server {
    fn is_up(&self) -> bool {
        self.checks.iter().all(CheckState::passes)
            && self.passive.as_ref().is_none_or(passive::State::passes)
    }

    /// Whether somebody found it down: a server that only waits for its first success is not.
    fn is_found_down(&self) -> bool {
        self.checks.iter().any(|check| check.healthy == Some(false))
            || self
                .passive
                .as_ref()
                .is_some_and(|passive| !passive.passes())
    }

    /// The weight while it is up and not drained. As in keepalived, every check changes the
    /// configured one by a difference, and the differences add up.
    fn weight(&self) -> u32 {
        let configured = i64::from(self.weight);
        let difference = |state: &CheckState| match state.weight {
            None => 0,
            Some(WeightChange::Set(weight)) => i64::from(weight) - configured,
            Some(WeightChange::Add(weight)) => weight,
        };
        let differences = self.checks.iter().map(difference);
        let sum = differences.fold(configured, i64::saturating_add);
        u32::try_from(sum.clamp(0, i64::from(u16::MAX))).unwrap_or(0)
    }

    /// What it adds to its virtual server. Drained, it is up and weighs nothing: who waits for new connections is
    /// served as little as by weight 0.
    fn share(&self) -> Share {
        let is_up = self.is_up();
        let weight = match is_up && !self.is_drained {
            true => self.weight().into(),
            false => 0,
        };
        Share {
            up: is_up.into(),
            taking: (weight > 0).into(),
            weight,
        }
    }
}

/// A virtual server and the sums over its real servers.
#[derive(Debug)]
struct Service {
    key: ServiceKey,
    quorum: Quorum,
    omega: bool,
    real_servers: usize,
    sum: Share,
    has_quorum: bool,
    /// Whether anybody waits for [`Notice`]s.
    tells: bool,
    /// Whether mails are sent about the quorum.
    mails: bool,
}

impl Service {
    /// Those who wait for any change are told of this one of a real server,
    /// and so are people if it `mails`.
    fn tell_of(
        &self,
        server: SocketAddr,
        mails: bool,
        up: bool,
        why: &str,
        actions: &mut Vec<Action>,
    ) {
        let key = ServiceKey {
            address: server.ip().into(),
            port: server.port(),
            protocol: self.key.protocol,
        };
        if self.tells || mails {
            let notice = Notice::RealServer {
                name: server_name(key),
                virtual_server: server_name(self.key),
                up,
            };
            self.tell(notice, mails, why, actions);
        }
    }

    /// The same of the quorum.
    fn tell_of_quorum(&self, up: bool, why: &str, actions: &mut Vec<Action>) {
        if self.tells || self.mails {
            let name = server_name(self.key);
            let notice = Notice::VirtualServer { name, up };
            self.tell(notice, self.mails, why, actions);
        }
    }

    fn tell(&self, notice: Notice, mails: bool, why: &str, actions: &mut Vec<Action>) {
        if mails {
            actions.push(Action::Mail(notice.message(why)));
        }
        if self.tells {
            actions.push(Action::Tell(notice));
        }
    }

    /// keepalived's rule: as long as there is a quorum, `hysteresis` less is
    /// tolerated, and without one as much more is needed.
    fn needed(&self) -> u64 {
        let (quorum, hysteresis) = (self.quorum.quorum, self.quorum.hysteresis);
        if self.has_quorum {
            quorum.saturating_sub(hysteresis).into()
        } else {
            u64::from(quorum) + u64::from(hysteresis)
        }
    }
}

/// Health of everything that is configured.
#[derive(Debug, Default)]
pub(super) struct Health {
    servers: BTreeMap<ServerKey, Server>,
    services: BTreeMap<ServiceKey, Service>,
}

impl Controller {
    /// The id of the real server that a check is of, for as long as both are configured.
    #[must_use]
    pub fn server_id(&self, id: &CheckId) -> Option<ServerId> {
        let key = id.virtual_server.parse().ok()?;
        self.servers.id(key, id.real_server)
    }
}

impl Health {
    /// Makes the state of the virtual servers in `touched` that of `config`. The state of checks that did not
    /// change is kept, and the quorum of virtual servers that were there.
    pub(super) fn take_up(
        &mut self,
        config: &Config,
        touched: &Touched,
        drains: &Drains,
        actions: &mut Vec<Action>,
    ) {
        let mail = config.notifications.mail.as_ref();
        let is_touched = |key: &ServiceKey| touched.contains(key);
        let servers = self.servers.extract_if(.., |key, _| is_touched(&key.0));
        let mut servers: BTreeMap<_, _> = servers.collect();
        let mut risen = Vec::new();
        let services = self.services.extract_if(.., |key, _| is_touched(key));
        let services: BTreeMap<_, _> = services.collect();
        let wanted = config.virtual_servers.iter();
        for service in wanted.filter(|service| is_touched(&service.key)) {
            for server in &service.real_servers {
                let key = (service.key, server.address);
                let known = servers.remove(&key);
                let was_up = known.as_ref().is_some_and(Server::is_up);
                let is_new = known.is_none();
                let (known, passive) = known
                    .map(|known| (known.checks, known.passive))
                    .unwrap_or_default();
                let checks = checks::take_up(key, server, known, was_up, actions);
                let passive = server.passive.map(|config| match passive {
                    Some(state) if state.config() == config => state,
                    Some(_) | None => passive::State::new(config),
                });
                let taken = Server {
                    checks,
                    passive,
                    weight: server.weight,
                    is_drained: drains.is_drained(server.address),
                    notify_up: server.notify_up.clone(),
                    notify_down: server.notify_down.clone(),
                    mails: mail.is_some_and(|m| m.is_for_real_server(server.smtp_alert)),
                };
                if !is_new && !was_up && taken.is_up() {
                    risen.push(key);
                }
                self.servers.insert(key, taken);
            }
            let known = services.get(&service.key);
            let had_quorum = known.map(|known| known.has_quorum);
            let told = (
                config.notifications.want_servers(),
                mail.is_some_and(|m| m.is_for_virtual_server(service.smtp_alert)),
            );
            self.take_up_service(service, told, had_quorum, actions);
        }
        for key in risen {
            if let (Some(server), Some(service)) =
                (self.servers.get(&key), self.services.get(&key.0))
            {
                let reason = "the reload left no check that fails";
                say(&check_id(key, 0), server, service, reason, actions);
            }
        }
        for (key, gone) in servers {
            actions.extend(gone.checks.iter().map(|state| Action::StopCheck {
                id: check_id(key, state.number),
            }));
            if let Some(service) = services.get(&key.0) {
                dismiss_server(key, &gone, service, "it is removed", actions);
            }
        }
        for (key, gone) in &services {
            if !self.services.contains_key(key) {
                dismiss_service(gone, "it is removed", actions);
            }
        }
    }

    /// `had_quorum` is `None` for a new one.
    fn take_up_service(
        &mut self,
        service: &VirtualServer,
        (tells, mails): (bool, bool),
        had_quorum: Option<bool>,
        actions: &mut Vec<Action>,
    ) {
        let shares = service.real_servers.iter().filter_map(|server| {
            let server = self.servers.get(&(service.key, server.address))?;
            Some(server.share())
        });
        let sum = shares.fold(Share::default(), Share::add);
        let mut taken = Service {
            key: service.key,
            quorum: service.quorum.clone(),
            omega: service.omega,
            real_servers: service.real_servers.len(),
            sum,
            has_quorum: had_quorum.unwrap_or(false),
            tells,
            mails,
        };
        if had_quorum.is_some() {
            settle_quorum(&mut taken, actions);
        } else if taken.sum.weight >= taken.needed() {
            // As keepalived at its start: said to the script, no news for the log.
            taken.has_quorum = true;
            let about = format!("virtual_server {}", service.key);
            let cause = format!("{about} has its quorum");
            taken.tell_of_quorum(true, &cause, actions);
            actions.extend(run(about, taken.quorum.up.as_ref(), cause));
        } else if let Some(sorry) = &taken.quorum.sorry_server {
            let about = format!("virtual_server {}", service.key);
            let serves = format!("the sorry server {} serves", sorry.address);
            let cause = format!("{about} begins without its quorum: {serves}");
            actions.push(Action::Log(cause.clone()));
            taken.tell_of_quorum(false, &cause, actions);
            actions.extend(run(about, taken.quorum.down.as_ref(), cause));
        }
        self.services.insert(service.key, taken);
    }

    /// Takes note of what is drained from now on. Quorums are settled after all of it: one server that replaces
    /// another changes none.
    pub(super) fn take_up_drains(&mut self, drains: &Drains, actions: &mut Vec<Action>) {
        let mut changed = BTreeSet::new();
        for (&(key, address), server) in &mut self.servers {
            let before = server.share();
            let was_drained = std::mem::replace(&mut server.is_drained, drains.is_drained(address));
            if let Some(service) = self.services.get_mut(&key)
                && was_drained != server.is_drained
            {
                service.sum = service.sum + server.share() - before;
                changed.insert(key);
            }
        }
        for key in changed {
            if let Some(service) = self.services.get_mut(&key) {
                settle_quorum(service, actions);
            }
        }
    }

    /// Takes note of a check's result.
    pub(super) fn result(
        &mut self,
        id: &CheckId,
        healthy: bool,
        reason: String,
        weight: Option<WeightChange>,
        actions: &mut Vec<Action>,
    ) {
        let Ok(key) = id.virtual_server.parse::<ServiceKey>() else {
            return;
        };
        // Either may have been removed while its last result was on the way.
        let Some(service) = self.services.get_mut(&key) else {
            return;
        };
        let Some(server) = self.servers.get_mut(&(key, id.real_server)) else {
            return;
        };
        let before = server.share();
        let weight_before = server.weight();
        let was_found_down = server.is_found_down();
        let mut checks = server.checks.iter_mut();
        let Some(state) = checks.find(|state| state.number == id.check) else {
            return;
        };
        let changed = state.healthy != Some(healthy);
        state.healthy = Some(healthy);
        state.reason = Some(reason.clone());
        state.weight = weight;
        let (share, weight) = (server.share(), server.weight());
        if share.up != before.up {
            settle_server(id, server, service, before, &reason, actions);
            return;
        }
        if !healthy && !was_found_down {
            // With `alpha`: down from the start, and now it is known why.
            say(id, server, service, &reason, actions);
            return;
        }
        service.sum = service.sum + share - before;
        if share.up == 1 && weight != weight_before {
            actions.push(Action::Log(format!(
                "{id}: weight {weight_before} -> {weight}: {reason}"
            )));
            actions.push(Action::Publish);
        } else if changed && !healthy {
            actions.push(Action::Log(format!("{id} fails another check: {reason}")));
        }
        settle_quorum(service, actions);
    }

    /// Shows what the workers count for each server to its passive health.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        totals: impl Fn(ServerKey) -> Option<ServerTotals>,
        actions: &mut Vec<Action>,
    ) {
        for (&key, server) in &mut self.servers {
            let before = server.share();
            let (Some(service), Some(state)) =
                (self.services.get_mut(&key.0), server.passive.as_mut())
            else {
                continue;
            };
            let Some(totals) = totals(key) else { continue };
            // Others that are up are no help to clients while they get no connections.
            let is_alone = service.sum.taking <= before.taking;
            let Some(change) = state.observe(now, totals, is_alone) else {
                continue;
            };
            let Passive {
                max_fails,
                fail_timeout,
            } = state.config();
            let reason = match change {
                Change::Out => format!(
                    "{} SYNs of clients got no answer, max_fails is {max_fails}; it is out for {fail_timeout:?}",
                    state.status().unanswered
                ),
                Change::BackIn => format!("{fail_timeout:?} are over"),
            };
            // Down by a check as well: no change, and no news.
            if server.share().up != before.up {
                settle_server(&check_id(key, 0), server, service, before, &reason, actions);
            }
        }
    }

    /// `None` without passive health.
    pub(super) fn passive(&self, server: ServerKey) -> Option<passive::Status> {
        let state = self.servers.get(&server)?.passive.as_ref()?;
        Some(state.status())
    }

    /// What is to be said before the end: `omega`.
    pub(super) fn stop(&self, actions: &mut Vec<Action>) {
        let why = "the appliance stops";
        for (key, server) in &self.servers {
            let service = self.services.get(&key.0).filter(|service| service.omega);
            if let Some(service) = service {
                dismiss_server(*key, server, service, why, actions);
            }
        }
        for service in self.services.values().filter(|service| service.omega) {
            dismiss_service(service, why, actions);
        }
    }

    /// True if every check of the server passes; also without any.
    pub(super) fn is_up(&self, server: ServerKey) -> bool {
        self.servers.get(&server).is_none_or(Server::is_up)
    }

    /// The weight of a real server with what its checks want of it, 0 while it is down; and whether it is up.
    /// Drained or not.
    pub(super) fn weight_and_state(&self, server: ServerKey) -> (u32, bool) {
        match self.servers.get(&server) {
            None => (0, true),
            Some(server) if server.is_up() => (server.weight(), true),
            Some(_) => (0, false),
        }
    }

    /// Whether the real servers that are up weigh enough.
    pub(super) fn has_quorum(&self, service: ServiceKey) -> bool {
        self.services.get(&service).is_none_or(|s| s.has_quorum)
    }

    /// The same, as it will be when this server is not drained any more.
    pub(super) fn has_quorum_unless_drained(&self, server: ServerKey) -> bool {
        let Some(service) = self.services.get(&server.0) else {
            return true;
        };
        let drained = self.servers.get(&server);
        let drained = drained.filter(|server| server.is_drained && server.is_up());
        let more = drained.map_or(0, |server| u64::from(server.weight()));
        service.has_quorum || service.sum.weight + more >= service.needed()
    }

    pub(super) fn checks(&self, server: ServerKey) -> &[CheckState] {
        self.servers.get(&server).map_or(&[], |s| &s.checks)
    }
}

/// A server went up or down: sums, who is told, quorum. `before` is its share until now.
fn settle_server(
    id: &CheckId,
    server: &Server,
    service: &mut Service,
    before: Share,
    reason: &str,
    actions: &mut Vec<Action>,
) {
    service.sum = service.sum + server.share() - before;
    say(id, server, service, reason, actions);
    actions.push(Action::Publish);
    settle_quorum(service, actions);
}

/// Says that a server is up or down now: log, those who wait for it, script.
fn say(id: &CheckId, server: &Server, service: &Service, reason: &str, actions: &mut Vec<Action>) {
    let is_up = server.is_up();
    let (now_up, total) = (service.sum.up, service.real_servers);
    let (word, script) = if is_up {
        ("up", &server.notify_up)
    } else {
        ("down", &server.notify_down)
    };
    let line = format!("{id} is {word}: {reason}; {now_up} of {total} real servers are up");
    actions.push(Action::Log(line.clone()));
    service.tell_of(id.real_server, server.mails, is_up, &line, actions);
    let cause = format!("{id} is {word}");
    actions.extend(run(id.to_string(), script.as_ref(), cause));
}

/// Says when a quorum is gained or lost; then another pool serves.
fn settle_quorum(service: &mut Service, actions: &mut Vec<Action>) {
    let needed = service.needed();
    let has_quorum = service.sum.weight >= needed;
    if has_quorum == service.has_quorum {
        return;
    }
    service.has_quorum = has_quorum;
    let (key, weight) = (service.key, service.sum.weight);
    let (word, script) = if has_quorum {
        ("gained", &service.quorum.up)
    } else {
        ("lost", &service.quorum.down)
    };
    let serves = match &service.quorum.sorry_server {
        None => String::new(),
        Some(_) if has_quorum => "; the real servers serve".into(),
        Some(sorry) => format!("; the sorry server {} serves", sorry.address),
    };
    let about = format!("virtual_server {key}");
    let cause = format!("{about}: quorum {word}: weight {weight} of {needed}");
    // Of the default, how many servers are up says as much.
    if service.quorum != Quorum::default() {
        actions.push(Action::Log(format!("{cause}{serves}")));
    }
    service.tell_of_quorum(has_quorum, &cause, actions);
    actions.extend(run(about, script.as_ref(), cause));
    actions.push(Action::Publish);
}

/// Of a server that is up and will not be any more: it is said to be down.
fn dismiss_server(
    key: ServerKey,
    server: &Server,
    service: &Service,
    why: &str,
    actions: &mut Vec<Action>,
) {
    if server.is_up() {
        let about = check_id(key, 0).to_string();
        let cause = format!("{about}: {why}");
        service.tell_of(key.1, server.mails, false, &cause, actions);
        actions.extend(run(about, server.notify_down.as_ref(), cause));
    }
}

/// The same of a virtual server that has its quorum.
fn dismiss_service(service: &Service, why: &str, actions: &mut Vec<Action>) {
    if service.has_quorum {
        let about = format!("virtual_server {}", service.key);
        let cause = format!("{about}: {why}");
        service.tell_of_quorum(false, &cause, actions);
        actions.extend(run(about, service.quorum.down.as_ref(), cause));
    }
}

fn run(about: String, script: Option<&Script>, cause: String) -> Option<Action> {
    let script = script?.clone();
    Some(Action::RunScript {
        about,
        script,
        arguments: Vec::new(),
        cause,
    })
}

#[cfg(test)]
mod tests;
