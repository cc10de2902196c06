//! The controller's part in VRRP: what the instances want becomes actions.

use std::collections::BTreeSet;
use std::time::Instant;

use super::{Controller, Port};
use crate::config::Notify;
use crate::event::{Action, NetworkEvent, VrrpEvent};
use crate::notify::{Notice, state_word};
use crate::vrrp::machine::{Output, State};
use crate::vrrp::router::{Complaint, Instance, Outputs};

/// What keepalived tells the scripts of a group, which has none.
const NO_PRIORITY: u8 = 0;

impl Controller {
    pub(super) fn vrrp(&mut self, event: VrrpEvent, now: Instant, actions: &mut Vec<Action>) {
        let outputs = match event {
            VrrpEvent::Datagram { index, datagram } => {
                let (outputs, complaint) = self.vrrp.datagram(index, &datagram, now);
                actions.extend(complaint.map(|Complaint(line)| Action::Log(line)));
                outputs
            }
            VrrpEvent::Timer => self.vrrp.timeout(now),
            VrrpEvent::Script {
                name,
                succeeds,
                reason,
            } => {
                let word = if succeeds { "succeeds" } else { "fails" };
                actions.push(Action::Log(format!("vrrp_script {name} {word}: {reason}")));
                self.vrrp.script(&name, succeeds, now)
            }
            VrrpEvent::ScriptNotRun { name, reason } => {
                let line = format!("vrrp_script {name} does not count: {reason}");
                actions.push(Action::Log(line));
                self.vrrp.script_not_run(&name, now)
            }
            VrrpEvent::File { name, value } => {
                actions.push(Action::Log(format!("track_file {name}: {value}")));
                self.vrrp.file(&name, value, now)
            }
            VrrpEvent::Process {
                name,
                fine,
                running,
            } => {
                let word = if fine { "runs" } else { "does not run" };
                let line = format!("vrrp_track_process {name} {word}: {running} found");
                actions.push(Action::Log(line));
                self.vrrp.process(&name, fine, now)
            }
        };
        self.carry(outputs, actions);
    }

    /// Tells the instances what they have to know of the network.
    pub(super) fn vrrp_network(
        &mut self,
        event: &NetworkEvent,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let outputs = match event {
            NetworkEvent::Link {
                index, name, up, ..
            } => {
                // Made anew: no worker has it, so no address should lead there before a reload.
                let is_anew =
                    |port: &Port| port.name == *name && (port.index != *index || port.gone);
                if self.ports.iter().any(is_anew) {
                    return;
                }
                if *up && !self.vrrp.is_up(name) {
                    self.addresses.restore_routes(name, actions);
                }
                let outputs = self.vrrp.link(*index, name, *up, now);
                if self.addresses.vmacs.link(name, *index) {
                    self.want_addresses(actions);
                }
                outputs
            }
            NetworkEvent::LinkGone { index } => {
                if self.addresses.vmacs.link_gone(*index) {
                    self.want_addresses(actions);
                }
                self.vrrp.link_gone(*index, now)
            }
            NetworkEvent::Address {
                index,
                address,
                present,
                ..
            } => self.vrrp.address(*index, *address, *present, now),
            NetworkEvent::Neighbor { .. }
            | NetworkEvent::Asked { .. }
            | NetworkEvent::RoutesChanged => return,
        };
        self.carry(outputs, actions);
    }

    /// Tells the instances of interfaces that workers did not have before.
    pub(super) fn vrrp_ports(&mut self, before: &[Port], now: Instant, actions: &mut Vec<Action>) {
        let is_new = |port: &&Port| before.iter().all(|old| old.number != port.number);
        let new: Vec<_> = self.ports.iter().filter(is_new).cloned().collect();
        for port in new {
            if port.up && !self.vrrp.is_up(&port.name) {
                self.addresses.restore_routes(&port.name, actions);
            }
            let outputs = self.vrrp.link(port.index, &port.name, port.up, now);
            self.carry(outputs, actions);
        }
    }

    /// Gives up being master, if there is an instance. Another director is
    /// waited for: go on until [`Router::has_stopped`](crate::vrrp::router::Router::has_stopped).
    pub fn stop_vrrp(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let outputs = self.vrrp.stop(now);
        self.carry(outputs, &mut actions);
        actions
    }

    /// How many addresses are here because an instance is master.
    #[must_use]
    pub fn held_by_masters(&self) -> u32 {
        let held = self.master_instances().map(|i| i.config().held().count());
        u32::try_from(held.sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// Adds and removes addresses, so that this host has those that it should.
    pub(super) fn want_addresses(&mut self, actions: &mut Vec<Action>) {
        let masters = self.masters();
        let instances = self.config.vrrp_instances.iter();
        for master in instances.filter(|instance| masters.contains(&instance.name)) {
            self.addresses.vmacs.raise(master, actions);
        }
        self.addresses
            .want(&self.config, &self.ports, &masters, actions);
        self.answer_to_vmacs(actions);
    }

    /// The same after the host's addresses changed. What could be added now is asked for first: nobody has done so, and the
    /// other director may have it.
    pub(super) fn look_again(&mut self, actions: &mut Vec<Action>) {
        let masters = self.masters();
        let plan = self.addresses.plan(&self.config, &self.ports, &masters);
        self.addresses.ask_for_new(&plan, actions);
        self.want_addresses(actions);
    }

    /// Packets to the MAC addresses of virtual routers are ours while we are master.
    fn answer_to_vmacs(&mut self, actions: &mut Vec<Action>) {
        for port in &self.ports {
            let macs = self.addresses.vmacs.macs(port.index);
            self.steering.virtual_macs(port.index, macs, actions);
        }
    }

    fn masters(&self) -> BTreeSet<String> {
        let masters = self.master_instances();
        masters.map(|i| i.config().name.clone()).collect()
    }

    fn master_instances(&self) -> impl Iterator<Item = &Instance> {
        let instances = self.vrrp.instances().iter();
        instances.filter(|i| i.machine().state() == State::Master)
    }

    pub(super) fn carry(&mut self, outputs: Outputs, actions: &mut Vec<Action>) {
        for (instance, output) in outputs {
            match output {
                Output::Send { priority } => {
                    self.raise_vmac(&instance, actions);
                    if let Some(known) = self.vrrp.instance(&instance) {
                        self.send_adverts(known, priority, actions);
                    }
                }
                Output::AddAddresses => self.want_addresses(actions),
                Output::RemoveAddresses => {
                    actions.push(Action::StopAnnouncing { instance });
                    self.want_addresses(actions);
                }
                Output::Announce { repeat } => {
                    actions.push(Action::AnnounceInstance { instance, repeat });
                }
                Output::Priority { state, priority } => {
                    let line = format!("vrrp_instance {instance}: its priority is {priority} now");
                    actions.push(Action::Log(line));
                    self.tell_priority(&instance, state, priority, actions);
                }
                Output::Changed { from, to, why } => {
                    let line = format!("vrrp_instance {instance}: {from} -> {to}: {why}");
                    actions.push(Action::Log(line.clone()));
                    self.notify(&instance, to, &line, actions);
                }
            }
        }
    }

    /// Does at last what an instance wants that the file has no more: in its old words, as another one may
    /// have its name. Its addresses, and the macvlan that it sends by, are to go after the last advertisement of all.
    pub(super) fn dismiss(
        &mut self,
        instance: &Instance,
        outputs: Outputs,
        actions: &mut Vec<Action>,
    ) {
        for (name, output) in outputs {
            match output {
                Output::Send { priority } => self.send_adverts(instance, priority, actions),
                Output::RemoveAddresses => {
                    actions.push(Action::StopAnnouncing { instance: name });
                }
                Output::Changed { from, to, why } => {
                    let line = format!("vrrp_instance {name}: {from} -> {to}: {why}");
                    actions.push(Action::Log(line));
                    self.tell_of_removal(instance, actions);
                }
                Output::AddAddresses | Output::Announce { .. } | Output::Priority { .. } => {}
            }
        }
    }

    /// As keepalived does it: FAULT for those who are told of any change, nothing for the script of that
    /// state, for a group, or by mail.
    fn tell_of_removal(&self, instance: &Instance, actions: &mut Vec<Action>) {
        let config = instance.config();
        let (state, priority) = (State::Fault, instance.machine().priority());
        if self.config.notifications.want_vrrp() {
            let name = config.name.clone();
            actions.push(Action::Tell(Notice::Instance {
                name,
                state,
                priority,
            }));
        }
        let notify = Notify {
            any: config.notify.any.clone(),
            ..Notify::default()
        };
        tell(&notify, "INSTANCE", &config.name, state, priority, actions);
    }

    /// What a master sends comes from the MAC address of its virtual router, from the first on.
    fn raise_vmac(&mut self, instance: &str, actions: &mut Vec<Action>) {
        let known = self.vrrp.instance(instance);
        let master = known.filter(|known| known.machine().state() == State::Master);
        if let Some(master) = master {
            self.addresses.vmacs.raise(master.config(), actions);
        }
    }

    /// Tells the FIFOs of a priority, if somebody wants to know.
    fn tell_priority(&self, instance: &str, state: State, priority: u8, actions: &mut Vec<Action>) {
        let known = self.vrrp.instance(instance);
        let is_wanted = known.is_some_and(|known| known.config().notify_priority_changes);
        if is_wanted && self.config.notifications.want_vrrp() {
            let name = instance.to_owned();
            actions.push(Action::Tell(Notice::Priority {
                name,
                state,
                priority,
            }));
        }
    }

    /// Tells the scripts, FIFOs and people of an instance, and of its sync group if
    /// that is news for it.
    fn notify(&mut self, instance: &str, state: State, why: &str, actions: &mut Vec<Action>) {
        let group = self.vrrp.group_change(instance, state);
        let Some(known) = self.vrrp.instance(instance) else {
            return;
        };
        let priority = known.machine().priority();
        let own = Notice::Instance {
            name: instance.to_owned(),
            state,
            priority,
        };
        let of_group = group.as_ref().map(|group| {
            let name = group.name.clone();
            (Notice::Group { name, state }, &group.notify)
        });
        let notifications = &self.config.notifications;
        let mail = notifications.mail.as_ref();
        let mail = mail.filter(|mail| state != State::Fault || !mail.no_email_faults);
        for (notice, notify) in [(own, &known.config().notify)].into_iter().chain(of_group) {
            if mail.is_some_and(|mail| mail.is_for_vrrp(notify.smtp_alert)) {
                actions.push(Action::Mail(notice.message(why)));
            }
            if notifications.want_vrrp() {
                actions.push(Action::Tell(notice));
            }
        }
        tell(
            &known.config().notify,
            "INSTANCE",
            instance,
            state,
            priority,
            actions,
        );
        if let Some(group) = group {
            tell(
                &group.notify,
                "GROUP",
                &group.name,
                state,
                NO_PRIORITY,
                actions,
            );
        }
    }

    fn send_adverts(&self, instance: &Instance, priority: u8, actions: &mut Vec<Action>) {
        let config = instance.config();
        let Some(base) = self.vrrp.index(config) else {
            return; // its interface is gone
        };
        let vmac = config.vmac.as_ref().filter(|vmac| !vmac.xmit_base);
        let vmac = vmac.and_then(|vmac| self.addresses.vmacs.index(&vmac.name));
        let index = vmac.unwrap_or(base);
        let packets = instance.packets(priority).into_iter();
        actions.extend(packets.map(|packet| Action::SendAdvert {
            instance: config.name.clone(),
            index,
            source: packet.source,
            destination: packet.destination,
            message: packet.message,
            with_header: packet.with_header,
            ttl: packet.ttl,
        }));
    }
}

/// The script of a state, and the one of every state with keepalived's arguments.
fn tell(
    notify: &Notify,
    kind: &str,
    name: &str,
    state: State,
    priority: u8,
    actions: &mut Vec<Action>,
) {
    let of_state = match state {
        State::Master => &notify.master,
        State::Backup => &notify.backup,
        State::Fault => &notify.fault,
        State::Init => &notify.stop,
    };
    let word = state_word(state);
    let about = format!("{} {name}", kind.to_lowercase());
    let cause = format!("{about} is {word}");
    let arguments = [kind, name, word, &priority.to_string()].map(str::to_owned);
    let told = [(of_state, Vec::new()), (&notify.any, arguments.into())];
    for (script, arguments) in told {
        if let Some(script) = script.clone() {
            actions.push(Action::RunScript {
                about: about.clone(),
                script,
                arguments,
                cause: cause.clone(),
            });
        }
    }
}
