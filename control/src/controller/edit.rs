//! Changes of the running configuration by `ipvsadm`.
//!
//! An edit is written as a piece of a configuration file and read back, together
//! with all that it could contradict there, so that the checks are the file's. The
//! result is a configuration like any other: the next reload sees the difference
//! to the file and undoes it.
//!
//! A real server that its checks hold down does not exist for an edit, as
//! under keepalived, which takes it out of IPVS's table: it can be added,
//! which replaces it with one that has no checks.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::bpf::Prefix;
use dataplane::service::{ForwardingMethod, SchedulerKind, ServiceKey, ServiceOptions};

use super::drain::Matching;
use super::{Controller, diff};
use crate::api::edit::{Edit, EditError, ServerEdit, ServiceEdit};
use crate::config::{self, Appliance, Config, Quorum, RealServer, Severity, VirtualServer};
use crate::event::Action;

impl Controller {
    /// Carries edits out, each as a whole or not at all, and all of them with
    /// one new snapshot. Statistics must have been observed just before.
    pub fn edit(&mut self, edits: &[Edit], now: Instant) -> (Vec<Option<EditError>>, Vec<Action>) {
        let mut config = Config::clone(&self.config);
        let mut actions = Vec::new();
        let results = edits
            .iter()
            .map(|edit| self.apply(edit, &mut config, now, &mut actions).err())
            .collect();
        let changes = diff::changes(&self.config, &config);
        if *self.config != config {
            let touched = diff::touched(&self.config, &config);
            self.regroup(&config);
            self.config = Arc::new(config);
            self.take_up(&touched, now, &mut actions);
        }
        let is_drain = |edit: &Edit| matches!(edit, Edit::Drain { .. } | Edit::Undrain { .. });
        if edits.iter().any(is_drain) {
            self.health.take_up_drains(&self.drains, &mut actions);
        }
        let log = |change| Action::Log(format!("edited: {change}"));
        actions.extend(changes.into_iter().map(log));
        (results, actions)
    }

    fn apply(
        &mut self,
        edit: &Edit,
        config: &mut Config,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Result<(), EditError> {
        match edit {
            Edit::AddService(edit) => {
                let key = key(&edit.virtual_server)?;
                if find(config, key).is_ok() {
                    return Err(EditError::ServiceExists);
                }
                let service = service(edit, key)?;
                let address = service.address();
                checked(&config::to_toml(&around(config, &service, None, address)))?;
                config.virtual_servers.push(service);
            }
            Edit::EditService(edit) => {
                let key = key(&edit.virtual_server)?;
                let place = find(config, key)?;
                let new = service(edit, key)?;
                let mut edited = config.virtual_servers[place].clone();
                edited.scheduler = new.scheduler;
                edited.options = ServiceOptions {
                    // IPVS has no such things, so ipvsadm cannot mention them.
                    matches: edited.options.matches,
                    limits: edited.options.limits,
                    full_nat: edited.options.full_nat,
                    syn_proxy: edited.options.syn_proxy,
                    ..new.options
                };
                let address = edited.address();
                checked(&config::to_toml(&around(config, &edited, None, address)))?;
                config.virtual_servers[place] = edited;
            }
            Edit::DeleteService { virtual_server } => {
                let key = key(virtual_server)?;
                find(config, key)?;
                config.virtual_servers.retain(|service| service.key != key);
            }
            Edit::AddServer {
                virtual_server,
                real_server,
            } => {
                let place = find(config, key(virtual_server)?)?;
                let new = server(config, &config.virtual_servers[place], real_server)?;
                let service = &mut config.virtual_servers[place];
                match self.place(service, real_server.address) {
                    Place::Up(_) => return Err(EditError::ServerExists),
                    Place::Down(place) => service.real_servers[place] = new,
                    Place::Nowhere => service.real_servers.push(new),
                }
            }
            Edit::EditServer {
                virtual_server,
                real_server,
            } => {
                let service_place = find(config, key(virtual_server)?)?;
                let service = &config.virtual_servers[service_place];
                let new = server(config, service, real_server)?;
                let Place::Up(place) = self.place(service, real_server.address) else {
                    return Err(EditError::NoSuchServer);
                };
                let mut edited = service.real_servers[place].clone();
                edited.lb_kind = new.lb_kind;
                edited.weight = new.weight;
                edited.thresholds = new.thresholds;
                // Its checks may not suit the method.
                let around = around(config, service, Some(&edited), edited.address);
                checked(&config::to_toml(&around))?;
                config.virtual_servers[service_place].real_servers[place] = edited;
            }
            Edit::DeleteServer {
                virtual_server,
                real_server,
            } => {
                let place = find(config, key(virtual_server)?)?;
                let service = &mut config.virtual_servers[place];
                let Place::Up(place) = self.place(service, *real_server) else {
                    return Err(EditError::NoSuchServer);
                };
                service.real_servers.remove(place);
            }
            Edit::Clear => config.virtual_servers.clear(),
            Edit::Zero { virtual_server } => {
                let key = match virtual_server {
                    Some(name) => {
                        let key = key(name)?;
                        find(config, key)?;
                        Some(key)
                    }
                    None => None,
                };
                self.statistics.zero(key);
            }
            Edit::Drain {
                address,
                port,
                deadline_milliseconds,
            } => {
                let (address, port) = (*address, *port);
                let deadline = deadline_milliseconds.map(Duration::from_millis);
                let matching = Matching { address, port };
                self.drains.drain(config, matching, deadline, now)?;
                actions.push(Action::Log(format!(
                    "{matching} is drained: it gets no new connections"
                )));
                actions.push(Action::Publish);
            }
            Edit::Undrain { address, port } => {
                let (address, port) = (*address, *port);
                let matching = Matching { address, port };
                self.drains.undrain(config, matching)?;
                actions.push(Action::Log(format!("{matching} is used again")));
                actions.push(Action::Publish);
            }
            Edit::SetTimeouts { tcp, tcpfin, udp } => set_timeouts(config, [*tcp, *tcpfin, *udp])?,
        }
        Ok(())
    }

    /// Where in the virtual server's list a real server is.
    fn place(&self, service: &VirtualServer, address: SocketAddr) -> Place {
        let mut servers = service.real_servers.iter();
        let Some(place) = servers.position(|server| server.address == address) else {
            return Place::Nowhere;
        };
        match self.is_listed(service.key, &service.real_servers[place]) {
            true => Place::Up(place),
            false => Place::Down(place),
        }
    }

    /// True if the server would be in IPVS's table: its checks do not hold it
    /// down, or only lower its weight to 0.
    #[must_use]
    pub fn is_listed(&self, service: ServiceKey, server: &RealServer) -> bool {
        let unchecked = server.checks.is_empty() && server.passive.is_none();
        server.inhibit_on_failure || self.is_up(service, server) || unchecked
    }
}

enum Place {
    Up(usize),
    /// In the configuration, and held down by its checks.
    Down(usize),
    Nowhere,
}

fn key(name: &str) -> Result<ServiceKey, EditError> {
    name.parse()
        .map_err(|error: dataplane::service::NotAServiceKey| EditError::Refused(error.to_string()))
}

/// Where in the configuration's list a virtual server is.
fn find(config: &Config, key: ServiceKey) -> Result<usize, EditError> {
    let mut services = config.virtual_servers.iter();
    services
        .position(|service| service.key == key)
        .ok_or(EditError::NoSuchService)
}

/// What an edit can contradict, which is little of a large configuration: the virtual server is at the end, with
/// only the real server that the edit changed, and one that makes it use its local addresses. `address` is that of
/// what was edited.
fn around(
    config: &Config,
    service: &VirtualServer,
    edited: Option<&RealServer>,
    address: SocketAddr,
) -> Config {
    let by_full_nat = |server: &&RealServer| {
        server.lb_kind == ForwardingMethod::FullNat && server.address != address
    };
    let by_full_nat = service.real_servers.iter().find(by_full_nat);
    let real_servers: Vec<RealServer> = by_full_nat.into_iter().chain(edited).cloned().collect();
    let concerns = |prefix: &&Prefix| {
        let mut servers = real_servers.iter();
        prefix.holds(address.ip()) || servers.any(|server| prefix.holds(server.address.ip()))
    };
    let prefixes = |list: &[Prefix]| list.iter().filter(concerns).copied().collect();
    let appliance = Appliance {
        http: config.appliance.http,
        deny: prefixes(&config.appliance.deny),
        allow: prefixes(&config.appliance.allow),
        ..Appliance::default()
    };
    // To them the address is one that replies come to.
    let others = config.virtual_servers.iter().filter(|other| {
        let locals = &other.options.full_nat.local_addresses;
        other.key != service.key && locals.contains(&address.ip().into())
    });
    let others = others.map(|other| VirtualServer {
        lb_kind: ForwardingMethod::FullNat,
        real_servers: Vec::new(),
        quorum: Quorum::default(),
        ..other.clone()
    });
    let service = VirtualServer {
        key: service.key,
        scheduler: service.scheduler,
        options: service.options.clone(),
        lb_kind: service.lb_kind,
        real_servers,
        quorum: service.quorum.clone(),
        omega: service.omega,
        smtp_alert: service.smtp_alert,
    };
    Config {
        appliance,
        virtual_servers: others.chain([service]).collect(),
        ..Config::default()
    }
}

/// A virtual server without real servers.
fn service(edit: &ServiceEdit, key: ServiceKey) -> Result<VirtualServer, EditError> {
    let ServiceEdit {
        virtual_server: _,
        lb_algo,
        flags,
        persistence_timeout,
        persistence_granularity,
        persistence_engine,
        ops,
    } = edit;
    if !SchedulerKind::NAMES.iter().any(|(name, _)| name == lb_algo) {
        return Err(EditError::NoSuchScheduler);
    }
    let address = SocketAddr::new(key.address.into(), key.port);
    let mut toml = format!(
        "[[virtual_server]]\naddress = \"{address}\"\nprotocol = \"{}\"\n\
         lb_algo = \"{lb_algo}\"\nlb_kind = \"DR\"\n",
        key.protocol
    );
    let mut write = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = writeln!(toml, "{key} = {value}");
    };
    if let Some(timeout) = persistence_timeout {
        write("persistence_timeout", timeout);
    }
    if let Some(granularity) = persistence_granularity {
        match granularity.parse::<u8>() {
            Ok(length) => write("persistence_granularity", &length),
            Err(_) => write("persistence_granularity", &quoted(granularity)),
        }
    }
    if let Some(engine) = persistence_engine {
        write("persistence_engine", &quoted(engine));
    }
    for flag in flags {
        write(&quoted(flag), &true);
    }
    if *ops {
        write("ops", &true);
    }
    checked(&toml)
}

/// A real server that fits its virtual server.
fn server(
    config: &Config,
    service: &VirtualServer,
    edit: &ServerEdit,
) -> Result<RealServer, EditError> {
    let ServerEdit {
        address,
        lb_kind,
        tun_type,
        tun_port,
        weight,
        uthreshold,
        lthreshold,
    } = edit;
    if lthreshold > uthreshold {
        return Err(EditError::ThresholdOutOfRange);
    }
    if !is_unicast(address.ip()) {
        return Err(EditError::NotUnicast);
    }
    let mut toml = config::to_toml(&around(config, service, None, *address));
    let mut write = |line: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(toml, "{line}");
    };
    write(format_args!(
        "[[virtual_server.real_server]]\naddress = \"{address}\"\nweight = {weight}"
    ));
    write(format_args!("lb_kind = {}", quoted(lb_kind)));
    if let Some(tunnel) = tun_type {
        write(format_args!("tun_type = {}", quoted(tunnel)));
    }
    if let Some(port) = tun_port {
        write(format_args!("tun_port = {port}"));
    }
    if *uthreshold > 0 {
        write(format_args!("uthreshold = {uthreshold}"));
    }
    if *lthreshold > 0 {
        write(format_args!("lthreshold = {lthreshold}"));
    }
    let server = checked(&toml)?.real_servers.pop();
    server.ok_or_else(|| EditError::Refused("the real server was not understood".to_owned()))
}

/// The last virtual server of a configuration file.
fn checked(toml: &str) -> Result<VirtualServer, EditError> {
    let checked = config::parse(toml, Path::new("edit")).map_err(|diagnostics| {
        let errors = diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error);
        // Line and column are those of a file that nobody wrote.
        let lines = errors.map(|error| format!("{}: {}", error.place, error.message));
        EditError::Refused(lines.collect::<Vec<_>>().join("; "))
    })?;
    let mut services = checked.config.virtual_servers;
    let service = services.pop();
    service.ok_or_else(|| EditError::Refused("the virtual server was not understood".to_owned()))
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn is_unicast(address: IpAddr) -> bool {
    let broadcast = IpAddr::from([255, 255, 255, 255]);
    !address.is_multicast() && !address.is_unspecified() && address != broadcast
}

fn set_timeouts(config: &mut Config, seconds: [u32; 3]) -> Result<(), EditError> {
    let timeouts = &config.appliance.timeouts;
    let longest = dataplane::conn::Timeouts::MAX;
    let mut new = *timeouts;
    let places = [&mut new.established, &mut new.fin_wait, &mut new.udp];
    for (place, seconds) in places.into_iter().zip(seconds) {
        let timeout = Duration::from_secs(seconds.into());
        if timeout > longest {
            return Err(EditError::Refused(format!(
                "timeout {seconds}: the longest is {} seconds",
                longest.as_secs()
            )));
        }
        if seconds > 0 {
            *place = timeout;
        }
    }
    config.appliance.timeouts = new;
    Ok(())
}

#[cfg(test)]
mod tests;
