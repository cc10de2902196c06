//! The instances of a configuration: which advertisement is whose, what each
//! tracks, and which are master together.
//!
//! Sans-I/O like the machines inside. Interfaces, addresses, scripts and
//! datagrams are fed in; [`Output`]s come out, each with its instance.
//!
//! Invariant: two instances never share interface, IP version and virtual
//! router id, so that every advertisement has one owner at most.

mod instance;
mod tally;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

pub use instance::{Instance, RefusalCount};

use self::tally::Tally;
use super::machine::{Fault, Output, State};
use super::packet::{Advert, Datagram, PRIORITY_OWNER, Refusal};
use crate::config::{
    Config, TrackFile, TrackProcess, Tracked, Tracks, VrrpInstance, VrrpScript, VrrpSyncGroup,
};

/// What an instance wants done.
pub type Outputs = Vec<(String, Output)>;

/// What is known of an interface.
#[derive(Clone, Debug)]
struct Link {
    name: String,
    up: bool,
}

/// All instances.
#[derive(Debug, Default)]
pub struct Router {
    instances: Vec<Instance>,
    groups: Vec<VrrpSyncGroup>,
    /// The state that each group was last told to be in.
    group_states: BTreeMap<String, State>,
    scripts: Vec<VrrpScript>,
    /// Whether scripts succeed, once they have a result; `None` of one that cannot be run. Without
    /// one they do not count.
    results: BTreeMap<String, Option<bool>>,
    files: Vec<TrackFile>,
    /// The numbers in them; 0 until one was read.
    numbers: BTreeMap<String, i32>,
    processes: Vec<TrackProcess>,
    /// Whether they run as they should, once they were looked for; until then they do not count.
    running: BTreeMap<String, bool>,
    links: BTreeMap<u32, Link>,
    /// Addresses of interfaces in the order in which they came.
    addresses: Vec<(u32, IpAddr)>,
    /// Each instance ends for itself: no group is followed.
    stopping: bool,
    /// Advertisements that no instance wanted to look at.
    refused: BTreeMap<&'static str, RefusalCount>,
}

/// What is to be said about a refused advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint(pub String);

impl Router {
    /// Takes the instances of `config` up: those that are there already keep
    /// their state. Those that it has no more come back with what they want done
    /// at last, because another one may have their name by now.
    pub fn take_up(
        &mut self,
        config: &Config,
        now: Instant,
    ) -> (Vec<(Instance, Outputs)>, Outputs) {
        let mut outputs = Outputs::new();
        let mut before = std::mem::take(&mut self.instances);
        self.groups.clone_from(&config.vrrp_sync_groups);
        let is_known = |name: &String| config.vrrp_scripts.iter().any(|s| s.name == *name);
        self.results.retain(|name, _| is_known(name));
        for script in config.vrrp_scripts.iter().filter(|script| script.init_fail) {
            if self.scripts.iter().all(|known| known.name != script.name) {
                self.results.insert(script.name.clone(), Some(false));
            }
        }
        self.scripts.clone_from(&config.vrrp_scripts);
        self.files.clone_from(&config.track_files);
        self.processes.clone_from(&config.track_processes);
        let files = &self.files;
        let is_known = |name: &String| files.iter().any(|file| file.name == *name);
        self.numbers.retain(|name, _| is_known(name));
        let processes = &self.processes;
        let is_known = |name: &String| processes.iter().any(|process| process.name == *name);
        self.running.retain(|name, _| is_known(name));
        let startup_delay = config.vrrp.startup_delay;
        for wanted in &config.vrrp_instances {
            let known = before.iter().position(|old| old.is_the_same_router(wanted));
            match known.map(|place| before.remove(place)) {
                Some(mut instance) => {
                    instance.set_config(wanted.clone(), startup_delay, now, &mut outputs);
                    self.instances.push(instance);
                }
                None => {
                    let instance = Instance::new(wanted.clone(), startup_delay);
                    self.instances.push(instance);
                }
            }
        }
        let removed = before.into_iter().map(|mut instance| {
            let mut last = Outputs::new();
            instance.abandon(now, &mut last);
            (instance, last)
        });
        let removed = removed.collect();
        for place in 0..self.instances.len() {
            let in_group = self.group_of(&self.instances[place].config().name);
            let in_group = in_group.is_some();
            self.instances[place].set_in_group(in_group);
            self.observe(place, now, &mut outputs);
        }
        self.start(now, &mut outputs);
        // Whose fault it was may be in the group no more.
        for place in 0..self.instances.len() {
            let group = self.group_of(&self.instances[place].config().name);
            let at_fault = group.is_some_and(|group| self.is_at_fault(&group.group));
            self.instances[place].set_group_fault(at_fault, now, &mut outputs);
        }
        (removed, self.follow_groups(now, outputs))
    }

    /// An interface is there, up or not.
    pub fn link(&mut self, index: u32, name: &str, up: bool, now: Instant) -> Outputs {
        let name = name.to_owned();
        self.links.insert(index, Link { name, up });
        self.observe_all(now)
    }

    /// An interface is there no more.
    pub fn link_gone(&mut self, index: u32, now: Instant) -> Outputs {
        self.links.remove(&index);
        self.addresses.retain(|(on, _)| *on != index);
        self.observe_all(now)
    }

    /// An interface has an address, or has it no more.
    pub fn address(&mut self, index: u32, address: IpAddr, present: bool, now: Instant) -> Outputs {
        self.addresses.retain(|known| *known != (index, address));
        if present {
            self.addresses.push((index, address));
        }
        self.observe_all(now)
    }

    /// A script's result changed.
    pub fn script(&mut self, name: &str, succeeds: bool, now: Instant) -> Outputs {
        self.result(name, Some(succeeds), now)
    }

    /// A script cannot be run. It does not count until its next result.
    pub fn script_not_run(&mut self, name: &str, now: Instant) -> Outputs {
        self.result(name, None, now)
    }

    fn result(&mut self, name: &str, succeeds: Option<bool>, now: Instant) -> Outputs {
        self.results.insert(name.to_owned(), succeeds);
        let mut outputs = self.observe_all(now);
        self.start(now, &mut outputs);
        self.follow_groups(now, outputs)
    }

    /// Starts the instances that have not been started, unless they wait for a script.
    fn start(&mut self, now: Instant, outputs: &mut Outputs) {
        for place in 0..self.instances.len() {
            if !self.waits(self.instances[place].config()) {
                self.instances[place].start(now, outputs);
            }
        }
    }

    /// Whether a script that may be a fault has no result yet: as in keepalived nobody is master by
    /// mistake until then.
    fn waits(&self, config: &VrrpInstance) -> bool {
        let group = self.group_of(&config.name).map(|group| &group.tracks);
        let tracks = [Some(&config.tracks), group].into_iter().flatten();
        let mut scripts = tracks.flat_map(|tracks| &tracks.script);
        scripts.any(|tracked| {
            let weight = tracked.weight.unwrap_or_else(|| self.weight_of(tracked));
            weight == 0 && !self.results.contains_key(&tracked.name)
        })
    }

    /// The weight that a script says itself.
    fn weight_of(&self, tracked: &Tracked) -> i16 {
        let mut scripts = self.scripts.iter();
        let script = scripts.find(|script| script.name == tracked.name);
        script.map_or(0, |script| script.weight)
    }

    /// The number in a file is another one.
    pub fn file(&mut self, name: &str, value: i32, now: Instant) -> Outputs {
        self.numbers.insert(name.to_owned(), value);
        self.observe_all(now)
    }

    /// Enough processes run, or not.
    pub fn process(&mut self, name: &str, fine: bool, now: Instant) -> Outputs {
        self.running.insert(name.to_owned(), fine);
        self.observe_all(now)
    }

    /// A packet of protocol 112 came in by an interface. The complaint is to
    /// be logged; each kind comes once for each instance.
    pub fn datagram(
        &mut self,
        index: u32,
        datagram: &Datagram,
        now: Instant,
    ) -> (Outputs, Option<Complaint>) {
        let mut outputs = Outputs::new();
        let interface = self.links.get(&index).map_or("?", |link| &link.name);
        let source = datagram.source;
        let advert = match Advert::parse(datagram) {
            Ok(advert) => advert,
            Err(refusal) => {
                let complaint = self.refuse(index, datagram, refusal.name(), &refusal);
                return (outputs, complaint);
            }
        };
        let router = advert.virtual_router_id;
        let own = |instance: &&mut Instance| {
            instance.hears(interface, source.is_ipv4()) && instance.router_id() == router
        };
        let Some(instance) = self.instances.iter_mut().find(own) else {
            let what = format!("its virtual_router_id {router} is not ours");
            let complaint = self.refuse(index, datagram, "virtual_router_id", &what);
            return (outputs, complaint);
        };
        if self.addresses.contains(&(index, source)) {
            let refusal = Refusal::OwnAddress;
            let complaint = instance.refuse(refusal.name(), source, &refusal);
            return (outputs, complaint);
        }
        let complaint = match instance.advert(&advert, datagram, now, &mut outputs) {
            Ok(complaint) => complaint,
            Err(refusal) => instance.refuse(refusal.name(), source, &refusal),
        };
        (self.follow_groups(now, outputs), complaint)
    }

    fn refuse(
        &mut self,
        index: u32,
        datagram: &Datagram,
        kind: &'static str,
        why: &dyn std::fmt::Display,
    ) -> Option<Complaint> {
        let refused = self.refused.entry(kind).or_default();
        refused.count(datagram.source).then(|| {
            let interface = self.links.get(&index).map_or("?", |link| &link.name);
            Complaint(format!(
                "VRRP on {interface}: an advertisement of {} is refused: {why}; counted from now on",
                datagram.source
            ))
        })
    }

    /// When [`timeout`](Self::timeout) is to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let machines = self.instances.iter();
        machines.filter_map(|i| i.machine().deadline()).min()
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Instant) -> Outputs {
        let mut outputs = Outputs::new();
        for instance in &mut self.instances {
            instance.timeout(now, &mut outputs);
        }
        self.follow_groups(now, outputs)
    }

    /// Advertisements that were sent late, over all instances.
    #[must_use]
    pub fn late_adverts(&self) -> u64 {
        let machines = self.instances.iter().map(Instance::machine);
        machines.map(|m| m.statistics().late_adverts).sum()
    }

    /// Gives every address up, see [`Machine::stop`](super::machine::Machine::stop).
    pub fn stop(&mut self, now: Instant) -> Outputs {
        let mut outputs = Outputs::new();
        self.stopping = true;
        for instance in &mut self.instances {
            instance.stop(now, &mut outputs);
        }
        outputs
    }

    /// True when nothing is left to be done after [`stop`](Self::stop).
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.instances.iter().all(|i| i.machine().has_stopped())
    }

    #[must_use]
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    #[must_use]
    pub fn instance(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|i| i.config().name == name)
    }

    /// The sync group that an instance is in.
    #[must_use]
    pub fn group_of(&self, name: &str) -> Option<&VrrpSyncGroup> {
        let is_member = |group: &&VrrpSyncGroup| group.group.iter().any(|member| member == name);
        self.groups.iter().find(is_member)
    }

    /// The sync group of an instance, if this state of the instance is a new
    /// one for the group.
    pub fn group_change(&mut self, instance: &str, state: State) -> Option<VrrpSyncGroup> {
        let group = self.group_of(instance)?.clone();
        let before = self.group_states.insert(group.name.clone(), state);
        (before != Some(state)).then_some(group)
    }

    /// Refused packets that belong to no instance, by reason.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<&'static str, RefusalCount> {
        &self.refused
    }

    /// The kernel's index of an instance's interface, while it is there.
    #[must_use]
    pub fn index(&self, instance: &VrrpInstance) -> Option<u32> {
        self.index_of(&instance.interface)
    }

    /// The same of any interface.
    #[must_use]
    pub fn index_of(&self, interface: &str) -> Option<u32> {
        let mut links = self.links.iter();
        let found = links.find(|(_, link)| link.name == interface);
        found.map(|(index, _)| *index)
    }

    /// True if the interface was reported to be up.
    #[must_use]
    pub fn is_up(&self, interface: &str) -> bool {
        let mut links = self.links.values();
        links.any(|link| link.name == interface && link.up)
    }

    fn observe_all(&mut self, now: Instant) -> Outputs {
        let mut outputs = Outputs::new();
        for place in 0..self.instances.len() {
            self.observe(place, now, &mut outputs);
        }
        self.follow_groups(now, outputs)
    }

    /// Tells an instance how everything is that it depends on.
    fn observe(&mut self, place: usize, now: Instant, outputs: &mut Outputs) {
        let config = self.instances[place].config();
        let link = config.dont_track_primary || self.is_up(&config.interface);
        let primary = config.source().or_else(|| self.primary(config));
        let mut tally = Tally::default();
        let group = self.group_of(&config.name).map(|group| &group.tracks);
        for tracks in [Some(&config.tracks), group].into_iter().flatten() {
            self.count(tracks, &mut tally);
        }
        let Tally { weight, mut faults } = tally;
        faults.push((Fault::Link, !link));
        // `dont_track_primary` is of the instance's own interface, as in keepalived.
        for other in config.other_interfaces() {
            let fault = Fault::Tracked(format!("dev {other}"));
            faults.push((fault, !self.is_up(other)));
        }
        let instance = &mut self.instances[place];
        instance.observe(primary, weight, faults, now, outputs);
    }

    /// Adds up what somebody tracks.
    fn count(&self, tracks: &Tracks, tally: &mut Tally) {
        for tracked in &tracks.interface {
            let fine = self.is_up(&tracked.name);
            tally.count("track_interface", tracked, 0, fine);
        }
        for tracked in &tracks.script {
            if let Some(fine) = self.results.get(&tracked.name).copied().flatten() {
                tally.count("track_script", tracked, self.weight_of(tracked), fine);
            }
        }
        for tracked in &tracks.process {
            let mut processes = self.processes.iter();
            let process = processes.find(|process| process.name == tracked.name);
            let default = process.map_or(0, |process| process.weight);
            if let Some(fine) = self.running.get(&tracked.name) {
                tally.count("track_process", tracked, default, *fine);
            }
        }
        for tracked in &tracks.file {
            let mut files = self.files.iter();
            let file = files.find(|file| file.name == tracked.name);
            let number = self.numbers.get(&tracked.name).copied().unwrap_or(0);
            let default = file.map_or(0, |file| file.weight);
            tally.count_number(tracked, default, number);
        }
    }

    /// The address that advertisements come from: the interface's first one
    /// that no instance manages; of IPv6 the link-local one (RFC 9568 §5.1.2.1).
    fn primary(&self, config: &VrrpInstance) -> Option<IpAddr> {
        let index = self.index_of(&config.interface)?;
        let is_managed = |address: &IpAddr| {
            let mut held = self.instances.iter().flat_map(|i| i.config().held());
            held.any(|held| held.address == *address)
        };
        let fits = |address: &IpAddr| match address {
            IpAddr::V4(_) => config.is_ipv4(),
            IpAddr::V6(v6) => !config.is_ipv4() && v6.is_unicast_link_local(),
        };
        let here = self.addresses.iter().filter(|(on, _)| *on == index);
        let mut here = here.map(|(_, address)| *address);
        let is_owner = config.priority == PRIORITY_OWNER;
        here.find(|address| fits(address) && (is_owner || !is_managed(address)))
    }

    /// Whether one of these is at fault. One whose only fault is the group's is not at fault itself.
    fn is_at_fault(&self, members: &[String]) -> bool {
        let is_member = |instance: &&Instance| members.contains(&instance.config().name);
        let mut members = self.instances.iter().filter(is_member);
        members.any(Instance::is_at_fault_itself)
    }

    /// Lets the other members of a sync group follow what changed.
    ///
    /// One that is master no more takes all with it; they become master when all
    /// of them want to, as in keepalived. The other way round, a group whose members
    /// hear different masters would go back and forth for ever.
    fn follow_groups(&mut self, now: Instant, mut outputs: Outputs) -> Outputs {
        if self.stopping {
            return outputs;
        }
        self.follow_to_backup(now, &mut outputs);
        self.unite(now, &mut outputs);
        for group in &self.groups {
            let is_member = |instance: &Instance| group.group.contains(&instance.config().name);
            let mut members = self.instances.iter().filter(|i| is_member(i));
            if members.all(|instance| instance.machine().wants_master()) {
                for instance in self.instances.iter_mut().filter(|i| is_member(i)) {
                    instance.follow_to_master(now, &mut outputs);
                }
            }
        }
        outputs
    }

    /// Brings a group together that a reload made of instances in different states: none of them
    /// changes by itself while one is master here and another one follows a master elsewhere. One that
    /// hears no master soon wants to be master itself: nobody gives up because of it.
    fn unite(&mut self, now: Instant, outputs: &mut Outputs) {
        for group in &self.groups {
            let is_member = |instance: &Instance| group.group.contains(&instance.config().name);
            let mut members = self.instances.iter().filter(|i| is_member(i));
            if members.any(|instance| instance.machine().follows_master()) {
                for instance in self.instances.iter_mut().filter(|i| is_member(i)) {
                    instance.follow_to_backup(now, outputs);
                }
            }
        }
    }

    fn follow_to_backup(&mut self, now: Instant, outputs: &mut Outputs) {
        let mut seen = 0;
        while let Some((name, output)) = outputs.get(seen) {
            seen += 1;
            let Output::Changed { to, .. } = output else {
                continue;
            };
            let (to, name) = (*to, name.clone());
            let Some(group) = self.group_of(&name) else {
                continue;
            };
            let members = group.group.clone();
            let at_fault = self.is_at_fault(&members);
            let is_member = |instance: &Instance| members.contains(&instance.config().name);
            for instance in self.instances.iter_mut().filter(|i| is_member(i)) {
                instance.set_group_fault(at_fault, now, outputs);
                if to == State::Backup && instance.config().name != name {
                    instance.follow_to_backup(now, outputs);
                }
            }
        }
    }
}

/// What is sent for one output: a packet for the group, or one for each peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The message is a whole packet, with an authentication header.
    pub with_header: bool,
    /// TTL or hop limit.
    pub ttl: u8,
    pub message: Vec<u8>,
}

#[cfg(test)]
mod tests;
