//! One instance: its configuration, its machine, and what it refused.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::super::ah;
use super::super::machine::{Fault, Machine, Output, Parameters};
use super::super::packet::{
    Advert, Authentication, Datagram, Expected, GROUP_V4, GROUP_V6, Refusal, TTL,
};
use super::{Complaint, Outgoing, Outputs};
use crate::config::{AuthType, VrrpInstance};

/// Counts what was refused for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusalCount {
    pub total: u64,
    /// Sender of the last one.
    pub last: Option<IpAddr>,
}

impl RefusalCount {
    /// True the first time, when it is to be said.
    pub(super) fn count(&mut self, source: IpAddr) -> bool {
        self.total += 1;
        self.last.replace(source).is_none()
    }
}

/// An instance of the configuration.
#[derive(Debug)]
pub struct Instance {
    config: VrrpInstance,
    machine: Machine,
    expected: Expected,
    started: bool,
    refused: BTreeMap<&'static str, RefusalCount>,
    /// Of authentication headers: the highest that was seen or sent.
    pub(super) sequence: u32,
}

impl Instance {
    pub(super) fn new(config: VrrpInstance, startup_delay: Duration) -> Self {
        Self {
            machine: Machine::new(parameters(&config, startup_delay)),
            expected: expected(&config),
            config,
            started: false,
            refused: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Whether `config` is of the same virtual router: then the state is kept.
    pub(super) fn is_the_same_router(&self, config: &VrrpInstance) -> bool {
        let of = |config: &VrrpInstance| {
            let name = (config.name.clone(), config.interface.clone());
            let id = config.virtual_router_id;
            (name, id, config.version, config.is_ipv4())
        };
        of(&self.config) == of(config)
    }

    pub(super) fn set_config(
        &mut self,
        config: VrrpInstance,
        startup_delay: Duration,
        now: Instant,
        outputs: &mut Outputs,
    ) {
        if self.config != config {
            let parameters = parameters(&config, startup_delay);
            self.run(outputs, |machine, out| {
                machine.set_parameters(parameters, now, out);
            });
            self.expected = expected(&config);
            self.refused.clear();
            self.config = config;
        }
    }

    /// Takes part, unless it does already.
    pub(super) fn start(&mut self, now: Instant, outputs: &mut Outputs) {
        if !std::mem::replace(&mut self.started, true) {
            self.run(outputs, |machine, out| machine.start(now, out));
        }
    }

    pub(super) fn stop(&mut self, now: Instant, outputs: &mut Outputs) {
        self.run(outputs, |machine, out| machine.stop(now, out));
    }

    pub(super) fn abandon(&mut self, now: Instant, outputs: &mut Outputs) {
        self.run(outputs, |machine, out| machine.abandon(now, out));
    }

    pub(super) fn timeout(&mut self, now: Instant, outputs: &mut Outputs) {
        self.run(outputs, |machine, out| machine.timeout(now, out));
    }

    /// Whether advertisements on an interface may be its.
    pub(super) fn hears(&self, interface: &str, is_ipv4: bool) -> bool {
        self.config.interface == interface && self.config.is_ipv4() == is_ipv4
    }

    pub(super) fn router_id(&self) -> u8 {
        self.config.virtual_router_id
    }

    pub(super) fn advert(
        &mut self,
        advert: &Advert,
        datagram: &Datagram,
        now: Instant,
        outputs: &mut Outputs,
    ) -> Result<Option<Complaint>, Refusal> {
        self.expected.check(advert, datagram)?;
        if let Some(sealed) = &datagram.ah {
            let (found, last) = (sealed.sequence, self.sequence);
            // The same number twice: two masters that count alike would never hear one another.
            if found < last {
                return Err(Refusal::Replayed { found, last });
            }
            self.sequence = found;
        }
        let complaint = if advert.priority == 0 || self.expected.same_addresses(advert) {
            None
        } else {
            let found: Vec<_> = advert.addresses.iter().map(IpAddr::to_string).collect();
            let what = format!(
                "has other addresses ({}): correct virtual_ipaddress here or there; it is followed all the same",
                found.join(", ")
            );
            self.complain("address_list", datagram.source, &what)
        };
        self.run(outputs, |machine, out| {
            machine.advert(advert, datagram.source, now, out);
        });
        Ok(complaint)
    }

    pub(super) fn refuse(
        &mut self,
        kind: &'static str,
        source: IpAddr,
        why: &dyn Display,
    ) -> Option<Complaint> {
        let why = format!("is refused: {why}; counted from now on");
        self.complain(kind, source, &why)
    }

    fn complain(&mut self, kind: &'static str, source: IpAddr, what: &str) -> Option<Complaint> {
        let is_first = self.refused.entry(kind).or_default().count(source);
        is_first.then(|| {
            let name = &self.config.name;
            Complaint(format!(
                "vrrp_instance {name}: an advertisement of {source} {what}"
            ))
        })
    }

    pub(super) fn observe(
        &mut self,
        primary: Option<IpAddr>,
        weight: i32,
        faults: Vec<(Fault, bool)>,
        now: Instant,
        outputs: &mut Outputs,
    ) {
        self.run(outputs, |machine, out| {
            machine.set_weight(weight, out);
            // New faults before old ones end: no state in between.
            let is_gone = |fault: &&Fault| matches!(fault, Fault::Tracked(_));
            let tracked: Vec<_> = machine.faults().filter(is_gone).cloned().collect();
            for (fault, _) in faults.iter().filter(|(_, present)| *present) {
                machine.set_fault(fault.clone(), true, now, out);
            }
            machine.set_primary(primary, now, out);
            let over = faults.iter().filter(|(_, present)| !present);
            for (fault, _) in over {
                machine.set_fault(fault.clone(), false, now, out);
            }
            for fault in tracked {
                if !faults.iter().any(|(known, _)| *known == fault) {
                    machine.set_fault(fault, false, now, out);
                }
            }
        });
    }

    pub(super) fn is_at_fault_itself(&self) -> bool {
        self.machine.faults().any(|fault| *fault != Fault::Group)
    }

    pub(super) fn set_group_fault(&mut self, present: bool, now: Instant, outputs: &mut Outputs) {
        let present = present && !self.is_at_fault_itself();
        self.run(outputs, |machine, out| {
            machine.set_fault(Fault::Group, present, now, out);
        });
    }

    pub(super) fn set_in_group(&mut self, in_group: bool) {
        self.machine.set_in_group(in_group);
    }

    pub(super) fn follow_to_master(&mut self, now: Instant, outputs: &mut Outputs) {
        self.run(outputs, |machine, out| machine.follow_to_master(now, out));
    }

    pub(super) fn follow_to_backup(&mut self, now: Instant, outputs: &mut Outputs) {
        self.run(outputs, |machine, out| machine.follow_to_backup(now, out));
    }

    fn run(&mut self, outputs: &mut Outputs, step: impl FnOnce(&mut Machine, &mut Vec<Output>)) {
        let mut out = Vec::new();
        step(&mut self.machine, &mut out);
        let sent = out.iter().filter(|out| matches!(out, Output::Send { .. }));
        let sent = u32::try_from(sent.count()).unwrap_or(u32::MAX);
        self.sequence = self.sequence.saturating_add(sent);
        let name = &self.config.name;
        outputs.extend(out.into_iter().map(|output| (name.clone(), output)));
    }

    /// The packets of one [`Output::Send`].
    #[must_use]
    pub fn packets(&self, priority: u8) -> Vec<Outgoing> {
        let Some(source) = self.machine.primary() else {
            return Vec::new();
        };
        let advert = Advert {
            version: self.config.version,
            virtual_router_id: self.config.virtual_router_id,
            priority,
            advert_int: self.config.advert_int,
            authentication: self.expected.authentication,
            addresses: self.expected.addresses.clone(),
        };
        let group = match source {
            IpAddr::V4(_) => IpAddr::V4(GROUP_V4),
            IpAddr::V6(_) => IpAddr::V6(GROUP_V6),
        };
        let is_unicast = !self.expected.peers.is_empty();
        let ttl = if is_unicast {
            self.config.unicast_ttl
        } else {
            TTL
        };
        let mut destinations: Vec<_> = self.expected.peers.iter().map(|p| p.address).collect();
        if !is_unicast {
            destinations.push(group);
        }
        let packet = |destination| {
            let message = advert.emit(source, destination);
            let sealed = match (advert.authentication, source, destination) {
                (Authentication::Ah(key), IpAddr::V4(source), IpAddr::V4(destination)) => {
                    let ends = (source, destination);
                    Some(ah::seal(&message, ends, ttl, self.sequence, &key))
                }
                _ => None,
            };
            Outgoing {
                source,
                destination,
                with_header: sealed.is_some(),
                ttl,
                message: sealed.unwrap_or(message),
            }
        };
        destinations.into_iter().map(packet).collect()
    }

    #[must_use]
    pub fn config(&self) -> &VrrpInstance {
        &self.config
    }

    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Refused advertisements by reason; `address_list` was followed.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<&'static str, RefusalCount> {
        &self.refused
    }
}

fn parameters(config: &VrrpInstance, startup_delay: Duration) -> Parameters {
    Parameters {
        version: config.version,
        priority: config.priority,
        advert_int: config.advert_int,
        preempt: !config.nopreempt,
        preempt_delay: config.preempt_delay,
        startup_delay,
        lower_prio_advert: !config.lower_prio_no_advert,
        higher_prio_send_advert: config.higher_prio_send_advert,
        garp: config.garp,
    }
}

fn expected(config: &VrrpInstance) -> Expected {
    let password = config.authentication.as_ref();
    let addresses = config.virtual_ipaddress.iter().map(|held| held.address);
    Expected {
        version: config.version,
        advert_int: config.advert_int,
        authentication: password.map_or(Authentication::None, |password| match password.kind {
            AuthType::Pass => Authentication::password(&password.auth_pass),
            AuthType::Ah => Authentication::ah(&password.auth_pass),
        }),
        peers: config.unicast_peer.clone(),
        addresses: addresses.collect(),
    }
}
