//! What the log says of connections that limits refused, or that a full table or FULLNAT's local addresses had
//! no room for: at once, and then, while it goes on, once in a while with how many there were.
//!
//! Sans-I/O: it is shown the workers' counters once a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dataplane::counters::{Counters, DropReason};
use dataplane::limits::{Limits, RefusedBy, ServiceTotals, SynProxy};
use dataplane::ports;
use dataplane::service::ServiceKey;

use crate::config::{Config, VirtualServer};

/// Between two lines about the same.
const PERIOD: Duration = Duration::from_secs(10);

/// What was said of some counters.
#[derive(Clone, Copy, Debug)]
struct Said<const N: usize> {
    counted: [u64; N],
    silent_until: Option<Instant>,
}

impl<const N: usize> Said<N> {
    /// What was counted before is not news.
    fn new(counted: [u64; N]) -> Self {
        Self {
            counted,
            silent_until: None,
        }
    }

    /// What the counters grew by since the last line, if there is to be another one.
    fn observe(&mut self, now: Instant, counted: [u64; N]) -> Option<[u64; N]> {
        if counted == self.counted || self.silent_until.is_some_and(|until| now < until) {
            return None;
        }
        let mut grown = counted;
        for (grown, before) in grown.iter_mut().zip(self.counted) {
            *grown = grown.saturating_sub(before);
        }
        self.counted = counted;
        self.silent_until = Some(now + PERIOD);
        Some(grown)
    }
}

/// What was said of every virtual server, of the table, and of local ports.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    services: BTreeMap<ServiceKey, Said<{ RefusedBy::ALL.len() }>>,
    /// Those under attack.
    attacked: BTreeSet<ServiceKey>,
    table: Option<Said<2>>,
    local_ports: Option<Said<1>>,
}

impl Refusals {
    /// The lines for the log.
    pub(super) fn observe(
        &mut self,
        config: &Config,
        now: Instant,
        totals: impl Fn(ServiceKey) -> Option<ServiceTotals>,
        counters: impl Iterator<Item = Counters>,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        let mut before = std::mem::take(&mut self.services);
        for service in &config.virtual_servers {
            let Some(totals) = totals(service.key) else {
                continue;
            };
            lines.extend(self.attack(service, &totals));
            let refused = totals.refused;
            let mut said = (before.remove(&service.key)).unwrap_or_else(|| Said::new(refused));
            if let Some(grown) = said.observe(now, refused) {
                lines.push(of_service(service.key, &service.options.limits, grown));
            }
            self.services.insert(service.key, said);
        }
        self.attacked.retain(|key| self.services.contains_key(key));
        let sums = counters.fold([0; 3], |[evicted, dropped, without_port], counters| {
            let of = |reason: DropReason| counters.drops[reason as usize];
            [
                evicted + counters.connections_evicted,
                dropped + of(DropReason::TableFull),
                without_port + of(DropReason::NoLocalPort),
            ]
        });
        let [evicted, dropped, without_port] = sums;
        let table = [evicted, dropped];
        let said = self.table.get_or_insert_with(|| Said::new(table));
        if let Some(grown) = said.observe(now, table) {
            lines.push(of_table(config.appliance.max_connections, grown));
        }
        let said = (self.local_ports).get_or_insert_with(|| Said::new([without_port]));
        if let Some(grown) = said.observe(now, [without_port]) {
            lines.push(of_local_ports(config, grown));
        }
        lines
    }

    /// The line about an attack that begins or ends.
    fn attack(&mut self, service: &VirtualServer, totals: &ServiceTotals) -> Option<String> {
        let threshold = match service.options.syn_proxy {
            Some(SynProxy::UnderAttack { half_open }) => Some(half_open),
            Some(SynProxy::Always) | None => None,
        };
        let (key, half_open) = (service.key, totals.half_open);
        match threshold.filter(|_| totals.under_attack) {
            Some(threshold) => self.attacked.insert(key).then(|| {
                format!(
                    "virtual_server {key}: {half_open} half-open connections, syn_proxy_threshold is {threshold}: \
                     SYNs are answered by the SYN proxy from now on"
                )
            }),
            None => self.attacked.remove(&key).then(|| {
                format!("virtual_server {key}: {half_open} half-open connections: the SYN proxy rests")
            }),
        }
    }
}

fn of_service(key: ServiceKey, limits: &Limits, refused: [u64; RefusedBy::ALL.len()]) -> String {
    let source = limits.source;
    let limits = [
        ("max_connections", limits.max_connections),
        (
            "new_connections_per_second",
            limits.rate.map(|rate| rate.per_second),
        ),
        (
            "source_max_connections",
            source.and_then(|source| source.max_connections),
        ),
        (
            "source_new_connections_per_second",
            source.and_then(|source| Some(source.rate?.per_second)),
        ),
    ];
    let parts = limits.into_iter().zip(refused);
    let parts = parts.filter(|(_, count)| *count > 0);
    let parts = parts.map(|((name, limit), count)| match limit {
        Some(limit) => format!("{count} by {name} = {limit}"),
        // Not any more.
        None => format!("{count} by {name}"),
    });
    let parts: Vec<String> = parts.collect();
    format!(
        "virtual_server {key}: new connections refused: {}",
        parts.join(", ")
    )
}

/// Which virtual server it is the workers do not tell: those with FULLNAT are named.
fn of_local_ports(config: &Config, [dropped]: [u64; 1]) -> String {
    let services = config.virtual_servers.iter().filter_map(|service| {
        let addresses = service.local_addresses().count();
        let ports = addresses * usize::try_from(ports::COUNT).unwrap_or(0); // 64512
        (addresses > 0).then(|| format!("virtual_server {} ({ports} ports)", service.key))
    });
    let services: Vec<_> = services.collect();
    format!(
        "FULLNAT: no local port is free: {dropped} packets of new connections were dropped; \
         add to local_addresses of {}",
        services.join(" or ")
    )
}

fn of_table(max_connections: u32, [evicted, dropped]: [u64; 2]) -> String {
    format!(
        "the connection table of a worker is full: {evicted} half-open connections were evicted, {dropped} packets \
         of new ones dropped; appliance.max_connections = {max_connections}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = "[[virtual_server]]\naddress = \"10.0.0.100:80\"\nlb_kind = \"DR\"\n\
                    max_connections = 5\nsource_new_connections_per_second = 7\n\
                    real_server = [{ address = \"10.0.0.1:80\" }]\n";
        let parsed = crate::config::parse(text, std::path::Path::new("test"));
        parsed.expect("a configuration").config
    }

    #[test]
    fn said_at_once_and_then_once_in_a_while() {
        let (config, start) = (config(), Instant::now());
        let mut refusals = Refusals::default();
        let mut at = |second, refused| {
            let totals = ServiceTotals {
                refused,
                ..ServiceTotals::default()
            };
            let now = start + Duration::from_secs(second);
            refusals.observe(&config, now, |_| Some(totals), std::iter::empty())
        };
        assert!(at(0, [9; 4]).is_empty(), "of another one's time");
        assert_eq!(
            at(1, [12, 9, 9, 10]),
            [
                "virtual_server TCP 10.0.0.100:80: new connections refused: 3 by max_connections = 5, \
                 1 by source_new_connections_per_second = 7"
            ]
        );
        for second in 2..11 {
            assert!(at(second, [10 + second, 9, 9, 10]).is_empty());
        }
        assert_eq!(
            at(11, [21, 9, 9, 10]),
            ["virtual_server TCP 10.0.0.100:80: new connections refused: 9 by max_connections = 5"]
        );
        assert!(at(40, [21, 9, 9, 10]).is_empty());
        assert_eq!(at(41, [21, 10, 9, 10]).len(), 1, "at once after a silence");
    }

    #[test]
    fn used_up_local_ports_are_said_with_their_virtual_servers() {
        let text = "[[virtual_server]]\naddress = \"10.0.0.100:80\"\nlb_kind = \"FULLNAT\"\n\
                    local_addresses = [\"10.0.0.201\", \"10.0.0.202\"]\n\
                    real_server = [{ address = \"10.0.0.1:80\" }]\n";
        let parsed = crate::config::parse(text, std::path::Path::new("test"));
        let config = parsed.expect("a configuration").config;
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let mut at = |dropped| {
            let mut counters = Counters::default();
            counters.drops[DropReason::NoLocalPort as usize] = dropped;
            refusals.observe(&config, now, |_| None, std::iter::once(counters))
        };
        assert!(at(3).is_empty());
        assert_eq!(
            at(10),
            [
                "FULLNAT: no local port is free: 7 packets of new connections were dropped; \
                 add to local_addresses of virtual_server TCP 10.0.0.100:80 (129024 ports)"
            ]
        );
    }

    #[test]
    fn an_attack_is_said_when_it_begins_and_when_it_ends() {
        let mut config = config();
        config.virtual_servers[0].options.syn_proxy = Some(SynProxy::UnderAttack { half_open: 9 });
        let mut refusals = Refusals::default();
        let mut lines = |under_attack, half_open| {
            let totals = ServiceTotals {
                under_attack,
                half_open,
                ..ServiceTotals::default()
            };
            let none = std::iter::empty();
            refusals.observe(&config, Instant::now(), |_| Some(totals), none)
        };
        assert!(lines(false, 8).is_empty());
        assert_eq!(
            lines(true, 10),
            [
                "virtual_server TCP 10.0.0.100:80: 10 half-open connections, syn_proxy_threshold is 9: SYNs are \
                 answered by the SYN proxy from now on"
            ]
        );
        assert!(lines(true, 12).is_empty());
        assert_eq!(lines(false, 2).len(), 1);
        assert!(lines(false, 2).is_empty());
    }

    #[test]
    fn a_full_table_is_said_with_all_workers_in_one_line() {
        let (config, start) = (config(), Instant::now());
        let mut refusals = Refusals::default();
        let mut at = |second, evicted, dropped| {
            let mut counters = Counters {
                connections_evicted: evicted,
                ..Counters::default()
            };
            counters.drops[DropReason::TableFull as usize] = dropped;
            let now = start + Duration::from_secs(second);
            let workers = [counters.clone(), counters].into_iter();
            refusals.observe(&config, now, |_| None, workers)
        };
        assert!(at(0, 0, 0).is_empty());
        let [line] = &at(1, 3, 0)[..] else {
            panic!("one line")
        };
        assert!(line.contains("6 half-open connections were evicted, 0 packets"));
        assert!(at(2, 4, 1).is_empty());
        assert!(at(11, 4, 1)[0].contains("2 half-open connections were evicted, 2 packets"));
    }
}
