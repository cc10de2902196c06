//! What differs between two configurations, in words.

use std::collections::{BTreeSet, HashMap};

use dataplane::service::ServiceKey;

use super::Port;
use crate::config::{Config, RealServer, VirtualServer};

/// Changes that a running appliance cannot take up: one line each.
pub(super) fn needs_restart(before: &Config, after: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |key: &str, changed: bool| {
        if changed {
            lines.push(format!(
                "{key} changed: it takes effect at a start only; restart the appliance, or undo the change"
            ));
        }
    };
    let (old, new) = (&before.appliance, &after.appliance);
    compare(
        "appliance.control_socket",
        old.control_socket != new.control_socket,
    );
    compare(
        "appliance.max_connections",
        old.max_connections != new.max_connections,
    );
    for old in &before.interfaces {
        let mut kept = after.interfaces.iter();
        if let Some(new) = kept.find(|new| new.name == old.name) {
            let name = &old.name;
            compare(
                &format!("interface {name}: queues"),
                old.queues != new.queues,
            );
            compare(&format!("interface {name}: mode"), old.mode != new.mode);
        }
    }
    lines
}

/// Interfaces that come and go. One that was made anew does both, and has another number even if it has the old index.
pub(super) fn ports(before: &[Port], after: &[Port]) -> Vec<String> {
    let is_in = |port: &Port, ports: &[Port]| ports.iter().any(|other| other.number == port.number);
    let gone = before.iter().filter(|port| !is_in(port, after));
    let mut lines: Vec<_> = gone
        .map(|port| format!("interface {} removed", port.name))
        .collect();
    let new = after.iter().filter(|port| !is_in(port, before));
    lines.extend(new.map(|port| format!("interface {} added", port.name)));
    lines
}

/// Virtual servers.
pub(super) type Touched = BTreeSet<ServiceKey>;

/// The virtual servers that come, go or change: all of them when who is told of their changes does.
pub(super) fn touched(before: &Config, after: &Config) -> Touched {
    let old: HashMap<ServiceKey, &VirtualServer> = by_key(before);
    let new = by_key(after);
    let is_same = |key: &ServiceKey| match (old.get(key), new.get(key)) {
        (Some(old), Some(new)) => before.notifications == after.notifications && old == new,
        (_, _) => false,
    };
    let all = old.keys().chain(new.keys());
    all.filter(|key| !is_same(key)).copied().collect()
}

/// The virtual servers whose `persistence_granularity` changes, comes or goes.
pub(super) fn regrouped(before: &Config, after: &Config) -> BTreeSet<ServiceKey> {
    let (old, new) = (by_key(before), by_key(after));
    let granularity = |services: &HashMap<ServiceKey, &VirtualServer>, key: &ServiceKey| {
        let persistence = services.get(key)?.options.persistence.as_ref();
        persistence.map(|persistence| persistence.granularity)
    };
    let all = old.keys().chain(new.keys());
    all.filter(|key| granularity(&old, key) != granularity(&new, key))
        .copied()
        .collect()
}

fn by_key(config: &Config) -> HashMap<ServiceKey, &VirtualServer> {
    let services = config.virtual_servers.iter();
    services.map(|service| (service.key, service)).collect()
}

/// Every other change, one line each, as `reload` prints them.
pub(super) fn changes(before: &Config, after: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if before.appliance.timeouts != after.appliance.timeouts {
        lines.push("appliance.timeouts changed".to_owned());
    }
    if before.appliance.expiry != after.appliance.expiry {
        lines.push("appliance.expire_nodest_conn or expire_quiescent_template changed".to_owned());
    }
    if before.appliance.tcp_midstream != after.appliance.tcp_midstream {
        lines.push("appliance.tcp_midstream changed".to_owned());
    }
    if before.appliance.when_full != after.appliance.when_full {
        lines.push("appliance.table_full changed".to_owned());
    }
    if before.appliance.cores != after.appliance.cores {
        lines.push("appliance.cores changed".to_owned());
    }
    let page = |config: &Config| {
        let appliance = &config.appliance;
        (appliance.http, appliance.http_token_file.clone())
    };
    if page(before) != page(after) {
        lines.push("appliance.http or http_token_file changed".to_owned());
    }
    if before.appliance.idle != after.appliance.idle {
        lines.push("appliance.idle changed".to_owned());
    }
    let prefixes = [
        ("deny", &before.appliance.deny, &after.appliance.deny),
        ("allow", &before.appliance.allow, &after.appliance.allow),
    ];
    for (key, old, new) in prefixes {
        let gone = old.iter().filter(|prefix| !new.contains(prefix));
        lines.extend(gone.map(|prefix| format!("appliance.{key}: {prefix} removed")));
        let added = new.iter().filter(|prefix| !old.contains(prefix));
        lines.extend(added.map(|prefix| format!("appliance.{key}: {prefix} added")));
    }
    vrrp_changes(before, after, &mut lines);
    if before.scripts != after.scripts {
        lines.push("script_user, enable_script_security changed".to_owned());
    }
    if before.notifications != after.notifications {
        lines.push("global_defs: a FIFO or what is said about mails changed".to_owned());
    }
    let (old, new) = (by_key(before), by_key(after));
    for service in &before.virtual_servers {
        if !new.contains_key(&service.key) {
            lines.push(format!("virtual_server {} removed", service.key));
        }
    }
    for service in &after.virtual_servers {
        match old.get(&service.key) {
            None => lines.push(format!(
                "virtual_server {} added with {} real servers",
                service.key,
                service.real_servers.len()
            )),
            Some(old) if *old == service => {}
            Some(old) => service_changes(old, service, &mut lines),
        }
    }
    lines
}

fn vrrp_changes(before: &Config, after: &Config, lines: &mut Vec<String>) {
    for old in &before.vrrp_instances {
        let mut kept = after.vrrp_instances.iter();
        match kept.find(|new| new.name == old.name) {
            None => lines.push(format!("vrrp_instance {} removed", old.name)),
            Some(new) if new != old => {
                lines.push(format!("vrrp_instance {} changed", old.name));
            }
            Some(_) => {}
        }
    }
    for new in &after.vrrp_instances {
        if before.vrrp_instances.iter().all(|old| old.name != new.name) {
            lines.push(format!("vrrp_instance {} added", new.name));
        }
    }
    if before.vrrp_sync_groups != after.vrrp_sync_groups {
        lines.push("vrrp_sync_group changed".to_owned());
    }
    if before.vrrp_scripts != after.vrrp_scripts {
        lines.push("vrrp_script changed".to_owned());
    }
    if before.track_files != after.track_files {
        lines.push("track_file changed".to_owned());
    }
    if before.track_processes != after.track_processes {
        lines.push("vrrp_track_process changed".to_owned());
    }
    if before.vrrp != after.vrrp {
        lines.push("global_defs: vrrp_startup_delay or vrrp_garp_interval changed".to_owned());
    }
}

fn find<'a>(servers: &'a [RealServer], wanted: &RealServer) -> Option<&'a RealServer> {
    servers
        .iter()
        .find(|server| server.address == wanted.address)
}

fn service_changes(before: &VirtualServer, after: &VirtualServer, lines: &mut Vec<String>) {
    let name = format!("virtual_server {}", after.key);
    if before.scheduler != after.scheduler {
        lines.push(format!(
            "{name}: lb_algo {} -> {}",
            before.scheduler, after.scheduler
        ));
    }
    if before.quorum != after.quorum {
        lines.push(format!("{name}: quorum, sorry_server changed"));
    }
    if before.omega != after.omega {
        lines.push(format!("{name}: omega {}", after.omega));
    }
    if before.options.persistence != after.options.persistence {
        lines.push(format!("{name}: persistence changed"));
    }
    if before.options.one_packet != after.options.one_packet {
        lines.push(format!("{name}: ops {}", after.options.one_packet));
    }
    if before.options.full_nat != after.options.full_nat {
        lines.push(format!("{name}: local_addresses or client_address changed"));
    }
    if before.options.limits != after.options.limits {
        lines.push(format!("{name}: limits changed"));
    }
    if before.options.syn_proxy != after.options.syn_proxy {
        lines.push(format!("{name}: syn_proxy changed"));
    }
    if before.options.matches != after.options.matches {
        lines.push(format!("{name}: match changed"));
    }
    for server in &before.real_servers {
        if find(&after.real_servers, server).is_none() {
            lines.push(format!("{name}: real_server {} removed", server.address));
        }
    }
    for server in &after.real_servers {
        let address = server.address;
        let Some(old) = find(&before.real_servers, server) else {
            lines.push(format!(
                "{name}: real_server {address} added, weight {}",
                server.weight
            ));
            continue;
        };
        if old.weight != server.weight {
            lines.push(format!(
                "{name}: real_server {address}: weight {} -> {}",
                old.weight, server.weight
            ));
        }
        if old.lb_kind != server.lb_kind {
            lines.push(format!(
                "{name}: real_server {address}: lb_kind {} -> {}",
                old.lb_kind, server.lb_kind
            ));
        }
        if old.thresholds != server.thresholds {
            lines.push(format!(
                "{name}: real_server {address}: uthreshold {}, lthreshold {}",
                server.thresholds.upper, server.thresholds.lower
            ));
        }
        if old.inhibit_on_failure != server.inhibit_on_failure {
            lines.push(format!(
                "{name}: real_server {address}: inhibit_on_failure {}",
                server.inhibit_on_failure
            ));
        }
        if old.notify_up != server.notify_up || old.notify_down != server.notify_down {
            lines.push(format!(
                "{name}: real_server {address}: notify_up, notify_down changed"
            ));
        }
        if old.passive != server.passive {
            lines.push(format!(
                "{name}: real_server {address}: max_fails, fail_timeout changed"
            ));
        }
        if old.checks != server.checks {
            lines.push(format!("{name}: real_server {address}: checks changed"));
        }
    }
}
