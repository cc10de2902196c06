//! What ipvsadm shows as statistics and rates.
//!
//! Workers count for ever; IPVS counts from the creation of a virtual or real
//! server or from the last `ipvsadm -Z`, and a virtual server keeps what it
//! counted for real servers that are gone. So [`Statistics::observe`] adds what
//! was counted since the last observation to numbers of our own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dataplane::counters::ServerTotals;
use dataplane::service::{ServerId, ServiceKey};

use super::ServerKey;
use super::ids::Servers;
use crate::config::Config;

/// Counters, or what they grow by in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) connections: u64,
    pub(super) in_packets: u64,
    pub(super) out_packets: u64,
    pub(super) in_bytes: u64,
    pub(super) out_bytes: u64,
}

impl Numbers {
    fn combine(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            connections: with(self.connections, other.connections),
            in_packets: with(self.in_packets, other.in_packets),
            out_packets: with(self.out_packets, other.out_packets),
            in_bytes: with(self.in_bytes, other.in_bytes),
            out_bytes: with(self.out_bytes, other.out_bytes),
        }
    }
}

impl From<ServerTotals> for Numbers {
    fn from(totals: ServerTotals) -> Self {
        Self {
            connections: totals.connections,
            in_packets: totals.packets,
            out_packets: totals.reply_packets,
            in_bytes: totals.bytes,
            out_bytes: totals.reply_bytes,
        }
    }
}

/// Time between two estimates, in seconds.
pub const ESTIMATE_EVERY: u32 = 2;

/// Counters and rates of one virtual or real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Meter {
    counted: Numbers,
    /// `counted` at the last estimate.
    estimated: Numbers,
    /// Averages per second, in units of 2^-10 (bytes: 2^-5).
    average: Numbers,
}

impl Meter {
    /// IPVS's estimator (`net/netfilter/ipvs/ip_vs_est.c`): every two seconds
    /// the average moves by a quarter of its distance to the rate of these two
    /// seconds.
    fn estimate(&mut self) {
        let grown = self.counted.combine(self.estimated, u64::saturating_sub);
        self.estimated = self.counted;
        // The rate per second in the units of the average is grown × 2^10 / 2.
        let step = |shift: u32| {
            move |average: u64, grown: u64| {
                let rate = i128::from(grown) << shift;
                let average = i128::from(average);
                let moved = average + ((rate - average) >> 2);
                u64::try_from(moved).unwrap_or(u64::MAX)
            }
        };
        let packets = self.average.combine(grown, step(9));
        let bytes = self.average.combine(grown, step(4));
        self.average = Numbers {
            in_bytes: bytes.in_bytes,
            out_bytes: bytes.out_bytes,
            ..packets
        };
    }

    fn rates(&self) -> Numbers {
        let Numbers {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        } = self.average;
        let unit = |average: u64| average.saturating_add(0x1ff) >> 10;
        let bytes = |average: u64| average.saturating_add(0xf) >> 5;
        Numbers {
            connections: unit(connections),
            in_packets: unit(in_packets),
            out_packets: unit(out_packets),
            in_bytes: bytes(in_bytes),
            out_bytes: bytes(out_bytes),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct ServerMeter {
    meter: Meter,
    /// What the workers had counted at the last observation.
    seen: Numbers,
}

/// Of every virtual and real server.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    services: BTreeMap<ServiceKey, Meter>,
    servers: HashMap<ServerKey, ServerMeter>,
}

impl Statistics {
    /// Takes note of what the workers counted, and forgets servers that are
    /// not configured any more and whose ids are free.
    pub(super) fn observe(
        &mut self,
        config: &Config,
        ids: &Servers,
        totals: impl Fn(ServerId) -> ServerTotals,
    ) {
        let mut observed = 0;
        for service in &config.virtual_servers {
            let known = self.services.get(&service.key).copied();
            let mut sum = known.unwrap_or_default();
            for server in &service.real_servers {
                let key = (service.key, server.address);
                let Some(id) = ids.id(service.key, server.address) else {
                    continue;
                };
                let now = Numbers::from(ids.since_baseline(id, totals(id)));
                let server = self.servers.entry(key).or_default();
                observed += 1;
                if known.is_none() {
                    server.meter = Meter::default();
                }
                let grown = now.combine(server.seen, u64::saturating_sub);
                server.seen = now;
                server.meter.counted = server.meter.counted.combine(grown, u64::wrapping_add);
                sum.counted = sum.counted.combine(grown, u64::wrapping_add);
            }
            self.services.insert(service.key, sum);
        }
        if self.servers.len() > observed {
            // One that comes back with its id goes on where it was.
            let servers = &mut self.servers;
            servers.retain(|(service, server), _| ids.id(*service, *server).is_some());
        }
        if self.services.len() > config.virtual_servers.len() {
            let services = config.virtual_servers.iter();
            let configured: BTreeSet<_> = services.map(|service| service.key).collect();
            self.services.retain(|key, _| configured.contains(key));
        }
    }

    /// Every [`ESTIMATE_EVERY`] seconds, after an observation.
    pub(super) fn estimate(&mut self) {
        self.services.values_mut().for_each(Meter::estimate);
        let servers = self.servers.values_mut();
        servers.for_each(|server| server.meter.estimate());
    }

    /// Begins at zero again, after an observation; `None`: everywhere.
    pub(super) fn zero(&mut self, service: Option<ServiceKey>) {
        let meant = |key: &ServiceKey| service.is_none_or(|service| service == *key);
        for (key, meter) in &mut self.services {
            if meant(key) {
                *meter = Meter::default();
            }
        }
        for ((key, _), server) in &mut self.servers {
            if meant(key) {
                server.meter = Meter::default();
            }
        }
    }

    /// Counters and rates of a virtual server.
    #[must_use]
    pub(super) fn of_service(&self, service: ServiceKey) -> (Numbers, Numbers) {
        let meter = self.services.get(&service).copied().unwrap_or_default();
        (meter.counted, meter.rates())
    }

    /// Counters and rates of a real server.
    #[must_use]
    pub(super) fn of_server(&self, server: ServerKey) -> (Numbers, Numbers) {
        let server = self.servers.get(&server);
        let meter = server.map(|server| server.meter).unwrap_or_default();
        (meter.counted, meter.rates())
    }
}

#[cfg(test)]
mod tests {
    use super::super::diff::Touched;
    use super::*;

    /// 100 connections, 1000 packets and 64000 bytes a second.
    fn after(seconds: u64) -> Numbers {
        Numbers {
            connections: 100 * seconds,
            in_packets: 1000 * seconds,
            in_bytes: 64_000 * seconds,
            ..Numbers::default()
        }
    }

    fn connection_rates(meter: &mut Meter, seconds: impl Iterator<Item = u64>) -> Vec<u64> {
        let estimates = seconds.map(|second| {
            meter.counted = after(second);
            meter.estimate();
            meter.rates().connections
        });
        estimates.collect()
    }

    #[test]
    fn the_average_closes_in_by_a_quarter() {
        let mut meter = Meter::default();
        let rates = connection_rates(&mut meter, (2..=10).step_by(2));
        // 100 × (1 − 0.75^n), rounded up as IPVS does.
        assert_eq!(rates, [25, 44, 58, 68, 76]);
        let rates = connection_rates(&mut meter, (12..=60).step_by(2));
        assert_eq!(rates.last(), Some(&100));
        assert_eq!(meter.rates().in_packets, 1000);
        let bytes = meter.rates().in_bytes;
        assert!((63_900..=64_000).contains(&bytes), "{bytes}");
    }

    /// Two servers of one virtual server, or what is left of them.
    fn config(servers: &[&str]) -> Config {
        let servers = servers
            .iter()
            .map(|address| format!("[[virtual_server.real_server]]\naddress = \"{address}:80\"\n"));
        let text = format!(
            "[[virtual_server]]\naddress = \"10.0.0.100:80\"\nlb_kind = \"DR\"\n{}",
            servers.collect::<String>()
        );
        crate::config::parse(&text, std::path::Path::new("test"))
            .unwrap()
            .config
    }

    fn connections(count: u64) -> impl Fn(ServerId) -> ServerTotals {
        move |_| ServerTotals {
            connections: count,
            ..ServerTotals::default()
        }
    }

    #[test]
    fn a_virtual_server_keeps_what_its_servers_counted() {
        let both = config(&["10.0.0.1", "10.0.0.2"]);
        let one = config(&["10.0.0.1"]);
        let service = both.virtual_servers[0].key;
        let second = (service, both.virtual_servers[0].real_servers[1].address);
        let mut ids = Servers::default();
        let mut statistics = Statistics::default();
        ids.keep_only(&both, &Touched::from([service]));
        statistics.observe(&both, &ids, connections(5));
        let counted = |statistics: &Statistics| {
            let (service, _) = statistics.of_service(service);
            let (server, _) = statistics.of_server(second);
            (service.connections, server.connections)
        };
        assert_eq!(counted(&statistics), (10, 5));
        ids.keep_only(&one, &Touched::from([service]));
        statistics.observe(&one, &ids, connections(7));
        assert_eq!(counted(&statistics).0, 12);
        // It comes back, with its id, and is not counted twice.
        ids.keep_only(&both, &Touched::from([service]));
        statistics.observe(&both, &ids, connections(8));
        assert_eq!(counted(&statistics), (16, 8));
        statistics.zero(Some(service));
        assert_eq!(counted(&statistics), (0, 0));
        statistics.observe(&both, &ids, connections(9));
        assert_eq!(counted(&statistics), (2, 1));
    }

    #[test]
    fn silence_lets_the_average_sink_to_zero() {
        let mut meter = Meter::default();
        connection_rates(&mut meter, (2..=60).step_by(2));
        let sinking = connection_rates(&mut meter, std::iter::repeat_n(60, 4));
        assert_eq!(sinking, [75, 56, 42, 32]);
        let silent = connection_rates(&mut meter, std::iter::repeat_n(60, 60));
        assert_eq!(silent.last(), Some(&0));
    }
}
