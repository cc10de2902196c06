//! The tables of `appliance show`: pure functions from what the appliance
//! answers to text. Nothing to show is said in words.

mod limits;
mod vrrp;

pub(super) use vrrp::vrrp;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use crate::api::view::{
    Connection, Drop, HealthCheck, Neighbor, Persistence, RealServer, Service, Traffic, WayBack,
    Word, Worker,
};
use crate::cli::table::Align::{Left, Right};
use crate::cli::table::Table;
use crate::in_words::{duration, scaled};

/// Rows between two writes of a listing: enough to align well, and little to
/// keep.
const BLOCK: usize = 1000;
/// What is not known or does not apply.
const NONE: &str = "-";

/// Like `ipvsadm -Ln`, with traffic and health.
pub(super) fn services(out: &mut dyn Write, services: &[Service]) -> io::Result<()> {
    if services.is_empty() {
        return writeln!(out, "no virtual servers");
    }
    writeln!(out, "Prot VirtualAddress:Port Scheduler")?;
    let mut table = Table::new([
        ("  -> RealServer:Port", Left),
        ("Forward", Left),
        ("Weight", Right),
        ("ActiveConn", Right),
        ("InActConn", Right),
        ("Conns", Right),
        ("Packets", Right),
        ("Bytes", Right),
        ("Health", Left),
    ]);
    for service in services {
        let Service {
            protocol,
            address,
            matches,
            scheduler,
            scheduler_flags,
            persistence,
            one_packet,
            limits,
            forwarding_method,
            traffic,
            real_servers,
        } = service;
        let options = options(matches, scheduler_flags, persistence.as_ref(), *one_packet)
            + &limits::limited(limits);
        let [active, inactive, connections, packets, bytes] = counts(traffic);
        table.push([
            format!("{protocol:<4} {address} {scheduler}"),
            String::new(),
            String::new(),
            active,
            inactive,
            connections,
            packets,
            bytes,
            summary(real_servers) + &options,
        ]);
        for server in real_servers {
            let [active, inactive, connections, packets, bytes] = counts(&server.traffic);
            table.push([
                format!("  -> {}", server.address),
                forwarding_method.to_string(),
                weight(server),
                active,
                inactive,
                connections,
                packets,
                bytes,
                condition(server),
            ]);
        }
    }
    table.write(out)
}

/// What else is to be known of a virtual server, by ipvsadm's words where it
/// has some.
fn options(
    matches: &[String],
    flags: &[Word],
    persistence: Option<&Persistence>,
    one_packet: bool,
) -> String {
    let mut words: Vec<String> = flags.iter().map(ToString::to_string).collect();
    if let Some(Persistence {
        timeout_seconds,
        granularity,
    }) = persistence
    {
        words.push(format!("persistent {timeout_seconds} /{granularity}"));
    }
    if one_packet {
        words.push("ops".to_owned());
    }
    if !matches.is_empty() {
        words.push(format!("match {}", matches.join(", ")));
    }
    words.iter().map(|word| format!("; {word}")).collect()
}

fn counts(traffic: &Traffic) -> [String; 5] {
    [
        traffic.active_connections.to_string(),
        traffic.inactive_connections.to_string(),
        scaled(traffic.connections_total),
        scaled(traffic.packets_total),
        scaled(traffic.bytes_total),
    ]
}

/// How many of the servers take connections as far as health goes.
fn summary(servers: &[RealServer]) -> String {
    let fit = |server: &&RealServer| server.health.is_fit();
    match servers.len() {
        0 => "no real servers".to_owned(),
        all => format!("{} of {all} up", servers.iter().filter(fit).count()),
    }
}

fn weight(server: &RealServer) -> String {
    if server.weight == server.configured_weight {
        server.weight.to_string()
    } else {
        format!("{} of {}", server.weight, server.configured_weight)
    }
}

fn condition(server: &RealServer) -> String {
    let mut condition = server.health.as_str().to_owned();
    if server.drained {
        condition += ", drained";
    }
    if let Some(reason) = &server.reason {
        condition = format!("{condition}: {reason}");
    }
    let connections = server.traffic.active_connections + server.traffic.inactive_connections;
    if server.upper_threshold > 0 && connections >= server.upper_threshold.into() {
        condition += "; overloaded";
    }
    if server.next_hop.is_none() {
        condition += "; next hop unknown";
    }
    condition
}

/// Like `ipvsadm -Lnc`. Connections are given one at a time and written a
/// block at a time: there may be a million.
#[derive(Debug)]
pub(super) struct Connections {
    table: Table<7>,
    count: u64,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self {
            table: Table::new([
                ("Prot", Left),
                ("Expires", Right),
                ("State", Left),
                ("Client", Left),
                ("Virtual server", Left),
                ("Real server", Left),
                ("Worker", Right),
            ]),
            count: 0,
        }
    }

    pub(super) fn push(&mut self, out: &mut dyn Write, connection: &Connection) -> io::Result<()> {
        let Connection {
            protocol,
            client,
            virtual_server,
            real_server,
            state,
            expires_seconds,
            worker,
        } = connection;
        self.count += 1;
        self.table.push([
            protocol.to_string(),
            format!("{:02}:{:02}", expires_seconds / 60, expires_seconds % 60),
            state.to_string(),
            client.to_string(),
            virtual_server.to_string(),
            real_server.to_string(),
            worker.map_or_else(|| "-".to_owned(), |worker| worker.to_string()),
        ]);
        if self.table.len() == BLOCK {
            self.table.write(out)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.count == 0 {
            return writeln!(out, "no connections");
        }
        self.table.write(out)?;
        let noun = if self.count == 1 {
            "connection"
        } else {
            "connections"
        };
        writeln!(out, "{} {noun}", self.count)
    }
}

pub(super) fn neighbors(out: &mut dyn Write, neighbors: &[Neighbor]) -> io::Result<()> {
    if neighbors.is_empty() {
        return writeln!(out, "no neighbors: there are no real servers");
    }
    let mut table = Table::new([
        ("Real server", Left),
        ("Via", Left),
        ("Interface", Left),
        ("MAC", Left),
        ("State", Left),
    ]);
    for neighbor in neighbors {
        let via = neighbor.via.as_ref().map(IpAddr::to_string);
        table.push([
            neighbor.real_server.to_string(),
            via.unwrap_or_else(|| NONE.to_owned()),
            neighbor.interface.as_deref().unwrap_or(NONE).to_owned(),
            neighbor.mac.as_deref().unwrap_or(NONE).to_owned(),
            neighbor.state.to_string(),
        ]);
    }
    table.write(out)
}

/// Packets, connections, what was made here or handed back, what floods fill, sockets, interfaces: six tables, a
/// line each for a worker, a socket of one, or an interface. Numbers are exact: people compare them with each other.
pub(super) fn workers(out: &mut dyn Write, workers: &[Worker]) -> io::Result<()> {
    if workers.is_empty() {
        return writeln!(out, "no workers");
    }
    let mut packets = Table::new([
        ("Worker", Right),
        ("Core", Right),
        ("Snapshot", Right),
        ("rx_packets", Right),
        ("rx_bytes", Right),
        ("tx_packets", Right),
        ("tx_bytes", Right),
        ("handed_off_rx", Right),
        ("handed_off_tx", Right),
        ("dropped", Right),
        ("waiting", Right),
    ]);
    let mut connections = Table::new([
        ("Worker", Right),
        ("connections", Right),
        ("created", Right),
        ("expired", Right),
        ("evicted", Right),
        ("reused", Right),
    ]);
    let mut own = Table::new([
        ("Worker", Right),
        ("resets_sent", Right),
        ("icmp_sent", Right),
        ("fragments_made", Right),
        ("returned_to_kernel", Right),
        ("Way back", Left),
        ("tx_invalid", Right),
        ("tx_dropped", Right),
    ]);
    let mut floods = Table::new([
        ("Worker", Right),
        ("syn_cookies_sent", Right),
        ("syn_cookies_accepted", Right),
        ("syn_cookies_refused", Right),
        ("sources_evicted", Right),
        ("templates_evicted", Right),
        ("fragments_evicted", Right),
        ("replies_for_others", Right),
    ]);
    let mut sockets = Table::new([
        ("Worker", Right),
        ("Interface", Left),
        ("Queue", Right),
        ("Mode", Left),
        ("Zero-copy", Left),
        ("rx_dropped", Right),
        ("rx_ring_full", Right),
        ("rx_fill_ring_empty", Right),
        ("tx_invalid", Right),
        ("tx_dropped", Right),
        ("kernel_invalid", Right),
    ]);
    let mut interfaces = Table::new([
        ("Interface", Left),
        ("steered", Right),
        ("passed", Right),
        ("no_socket", Right),
        ("not_for_us", Right),
        ("denied", Right),
    ]);
    for worker in workers {
        let number = || worker.worker.to_string();
        let counter = |name| worker.counters.get(name).copied().unwrap_or(0).to_string();
        packets.push([
            number(),
            worker.core.to_string(),
            worker.snapshot_generation.to_string(),
            counter("rx_packets"),
            counter("rx_bytes"),
            counter("tx_packets"),
            counter("tx_bytes"),
            counter("handed_off_rx"),
            counter("handed_off_tx"),
            worker.dropped_packets.to_string(),
            counter("waiting"),
        ]);
        connections.push([
            number(),
            counter("connections"),
            counter("connections_created"),
            counter("connections_expired"),
            counter("connections_evicted"),
            counter("connections_reused"),
        ]);
        let way_back = worker.way_back.as_ref();
        let of_way_back = |count: fn(&WayBack) -> u64| {
            way_back.map_or_else(|| NONE.to_owned(), |way| count(way).to_string())
        };
        own.push([
            number(),
            counter("resets_sent"),
            counter("icmp_sent"),
            counter("fragments_made"),
            counter("returned_to_kernel"),
            way_back.map_or(NONE, |way| &way.interface).to_owned(),
            of_way_back(|way| way.tx_invalid),
            of_way_back(|way| way.tx_dropped),
        ]);
        floods.push([
            number(),
            counter("syn_cookies_sent"),
            counter("syn_cookies_accepted"),
            counter("syn_cookies_refused"),
            counter("sources_evicted"),
            counter("templates_evicted"),
            counter("fragments_evicted"),
            counter("replies_for_others"),
        ]);
        for socket in &worker.interfaces {
            sockets.push([
                number(),
                socket.interface.clone(),
                socket.queue.to_string(),
                socket.mode.as_str().to_owned(),
                if socket.zero_copy { "yes" } else { "no" }.to_owned(),
                socket.rx_dropped.to_string(),
                socket.rx_ring_full.to_string(),
                socket.rx_fill_ring_empty.to_string(),
                socket.tx_invalid.to_string(),
                socket.tx_dropped.to_string(),
                socket.kernel_invalid.to_string(),
            ]);
        }
    }
    let sockets_by_name = workers.iter().flat_map(|worker| &worker.interfaces);
    let by_name: BTreeMap<_, _> = sockets_by_name
        .map(|socket| (&socket.interface, &socket.steering))
        .collect();
    for (interface, steering) in by_name {
        interfaces.push([
            interface.clone(),
            steering.steered.to_string(),
            steering.passed.to_string(),
            steering.no_socket.to_string(),
            steering.not_for_us.to_string(),
            steering.denied.to_string(),
        ]);
    }
    packets.write(out)?;
    writeln!(out)?;
    connections.write(out)?;
    writeln!(out)?;
    own.write(out)?;
    writeln!(out)?;
    floods.write(out)?;
    if !sockets.is_empty() {
        writeln!(out)?;
        sockets.write(out)?;
        writeln!(out)?;
        interfaces.write(out)?;
    }
    Ok(())
}

/// The most frequent first; without `all`, only what happened.
pub(super) fn drops(out: &mut dyn Write, drops: &[Drop], all: bool) -> io::Result<()> {
    let happened = |drop: &&Drop| all || drop.packets_total > 0;
    let mut drops: Vec<_> = drops.iter().filter(happened).collect();
    if drops.is_empty() {
        return writeln!(out, "no packets were dropped");
    }
    drops.sort_by_key(|drop| std::cmp::Reverse(drop.packets_total));
    let mut table = Table::new([("Packets", Right), ("Reason", Left), ("Description", Left)]);
    for drop in drops {
        table.push([
            drop.packets_total.to_string(),
            drop.reason.to_string(),
            drop.description.to_string(),
        ]);
    }
    table.write(out)
}

pub(super) fn health(out: &mut dyn Write, checks: &[HealthCheck]) -> io::Result<()> {
    if checks.is_empty() {
        return writeln!(out, "no health checks: every real server counts as up");
    }
    let mut table = Table::new([
        ("Prot", Left),
        ("Virtual server", Left),
        ("Real server", Left),
        ("Check", Left),
        ("Target", Left),
        ("State", Left),
        ("For", Right),
        ("Failures", Right),
        ("Last result", Left),
    ]);
    for check in checks {
        table.push([
            check.protocol.to_string(),
            check.virtual_server.to_string(),
            check.real_server.to_string(),
            check.check.to_string(),
            target(check.target, check.real_server),
            check.state.as_str().to_owned(),
            duration(check.since_seconds),
            check.failures.to_string(),
            check.last_result.as_deref().unwrap_or(NONE).to_owned(),
        ]);
    }
    table.write(out)
}

/// Where a check connects, in as much as it is not where clients go.
fn target(target: SocketAddr, real_server: SocketAddr) -> String {
    if target == real_server {
        "same".to_owned()
    } else {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{env, fs};

    use super::*;
    use crate::api::example;

    /// Compares with `golden/NAME.txt`; with `UPDATE_GOLDEN=1` in the
    /// environment, writes it.
    fn golden(name: &str, render: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        let mut out = Vec::new();
        render(&mut out).unwrap();
        let rendered = String::from_utf8(out).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/cli/show/golden")
            .join(name)
            .with_extension("txt");
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &rendered).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap();
        assert_eq!(rendered, expected, "{} differs", path.display());
    }

    #[test]
    fn tables_look_as_the_golden_files() {
        golden("services", |out| services(out, &example::services()));
        golden("connections", |out| {
            let mut table = Connections::new();
            for connection in example::connections() {
                table.push(out, &connection)?;
            }
            table.finish(out)
        });
        golden("neighbors", |out| neighbors(out, &example::neighbors()));
        golden("workers", |out| workers(out, &example::workers()));
        golden("drops", |out| drops(out, &example::drops(), false));
        golden("drops_all", |out| drops(out, &example::drops(), true));
        golden("health", |out| health(out, &example::health()));
        golden("vrrp", |out| vrrp(out, &example::vrrp()));
    }

    #[test]
    fn nothing_is_said_in_words() {
        golden("nothing", |out| {
            services(out, &[])?;
            Connections::new().finish(out)?;
            neighbors(out, &[])?;
            workers(out, &[])?;
            drops(out, &[], true)?;
            drops(out, &example::drops()[..1], false)?;
            health(out, &[])
        });
    }

    #[test]
    fn million_connections_are_written_as_they_come() {
        let mut table = Connections::new();
        let (mut lines, mut out) = (0, Vec::new());
        for number in 0..2500 {
            table.push(&mut out, &example::connection(number)).unwrap();
            assert!(table.table.len() < BLOCK);
            lines += out.iter().filter(|byte| **byte == b'\n').count();
            out.clear();
        }
        assert_eq!(lines, 1 + 2 * BLOCK);
        table.finish(&mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.lines().count(), 501);
        assert!(out.ends_with("2500 connections\n"));
    }
}
