//! `appliance replay`: the data plane, offline, over a capture.
//!
//! The capture's timestamps are the time. Nothing of this machine is used, so
//! the same input gives the same output everywhere: every real server is up, there is one
//! interface with an MTU of 3600 (its addresses are 192.0.2.1 and 2001:db8::1), one worker, a fixed hash, and a next hop's MAC address is made of the real
//! server's IP address: `02:00:` and its last four bytes.

use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use dataplane::counters::{Counters, DropReason, WorkerStatistics};
use dataplane::device::pcap::{CaptureReader, CaptureWriter, PcapDevice};
use dataplane::director::{Director, DirectorOptions};
use dataplane::flow::FlowHasher;
use dataplane::persistence::Templates;
use dataplane::routes::{Egress, Routes};
use dataplane::service::{
    Address, MAX_SERVERS, MacAddress, NextHop, PortIndex, RealServer, ServerId, VirtualServer,
    VirtualServerId,
};
use dataplane::snapshot::Snapshot;
use dataplane::worker::{Port, Worker};
use dataplane::xsk::umem::{FrameSize, Umem};

use crate::config::Config;

/// MAC address of the one interface.
const OWN_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// Its IP addresses, from which tunnelled packets come (RFC 5737, RFC 3849).
const OWN_V4: [u8; 4] = [192, 0, 2, 1];
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Most bytes of an IP packet that it sends.
const MTU: u16 = 3600;

/// Sends every packet of `input` through a director that works by `config`,
/// writes what it transmits to `output`, and returns what it counted.
///
/// # Errors
/// A capture cannot be read or written; the message names it.
pub fn replay(config: &Config, input: &Path, output: &Path) -> anyhow::Result<Counters> {
    // Reading and writing one file at once would destroy it.
    let same = std::fs::canonicalize(input)
        .ok()
        .zip(std::fs::canonicalize(output).ok());
    ensure!(
        same.is_none_or(|(input, output)| input != output),
        "{}: is input and output at once: name another file for the output",
        output.display()
    );
    let reader = CaptureReader::open(input)?;
    let writer = CaptureWriter::create(output)?;
    let (umem, mut pool) = Umem::new(64, FrameSize::Bytes4096).context("cannot map memory")?;
    let device = PcapDevice::new(&umem, &mut pool, reader, writer);
    let published = Arc::new(ArcSwap::from_pointee(snapshot(config)));
    let options = DirectorOptions {
        max_connections: config.appliance.max_connections,
        hasher: FlowHasher::fixed(),
        worker: 0,
        kernel: None,
    };
    let statistics = [Arc::new(WorkerStatistics::new(MAX_SERVERS, 1))];
    let director = Director::new(options, published, &statistics);
    let port = Port {
        index: PortIndex(0),
        device,
    };
    let (_requests, no_requests) = mpsc::channel();
    let mut worker = Worker::new(vec![port], umem, pool, director, no_requests);

    let mut first = None;
    let mut now = 0;
    while let Some(time) = worker
        .ports()
        .first()
        .and_then(|port| port.device.next_time())
    {
        let since_first = time.saturating_sub(*first.get_or_insert(time));
        // A capture may step back; the worker's clock does not.
        now = now.max(milliseconds(since_first));
        worker.pass_time(now);
        worker.turn(now);
    }
    let counters = worker.counters().clone();
    for port in worker.into_ports() {
        port.device.finish()?;
    }
    Ok(counters)
}

/// The counters that are not zero, one `name value` a line, drops as
/// `drop_<reason>`.
#[must_use]
pub fn display(counters: &Counters) -> String {
    let named = counters
        .named()
        .map(|(name, value)| (name.to_owned(), value));
    let drops = DropReason::ALL.iter().zip(counters.drops);
    let drops = drops.map(|(reason, count)| (format!("drop_{}", reason.name()), count));
    named
        .into_iter()
        .chain(drops)
        .filter(|(_, value)| *value > 0)
        .map(|(name, value)| format!("{name} {value}\n"))
        .collect()
}

/// The forwarding state that a configuration asks for; ids are in the order of the file.
pub(crate) fn snapshot(config: &Config) -> Snapshot {
    let mut ids = 0..;
    let mut virtual_servers = Vec::with_capacity(config.virtual_servers.len());
    for (number, service) in (0..).zip(&config.virtual_servers) {
        let real_servers = service
            .real_servers
            .iter()
            .zip(&mut ids)
            .map(|(server, id)| {
                let address = Address::from(server.address.ip());
                let [a, b, c, d] = address.last_octets();
                RealServer {
                    id: ServerId(id),
                    address,
                    port: server.address.port(),
                    method: server.lb_kind,
                    weight: server.weight,
                    available: true,
                    drained: false,
                    next_hop: Some(NextHop {
                        port: PortIndex(0),
                        destination: MacAddress([2, 0, a, b, c, d]),
                        source: OWN_MAC,
                    }),
                    thresholds: server.thresholds,
                }
            });
        virtual_servers.push(VirtualServer {
            id: VirtualServerId(number),
            key: service.key,
            scheduler: service.scheduler,
            options: service.options.clone(),
            real_servers: real_servers.collect(),
        });
    }
    let appliance = &config.appliance;
    let interface = Egress {
        index: 0,
        mac: OWN_MAC,
        mtu: MTU,
        v4: Some(Address::v4(OWN_V4)),
        v6: Some(Address::from_octets(OWN_V6.octets())),
    };
    let templates = Templates::new(appliance.max_connections, FlowHasher::fixed());
    let templates = Arc::new(templates);
    Snapshot::new(
        1,
        appliance.timeouts,
        appliance.tcp_midstream,
        &virtual_servers,
    )
    .with_routes(Routes::new([], Vec::new(), vec![interface]))
    .with_expiry(appliance.expiry)
    .when_full(appliance.when_full)
    .with_templates(templates)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
