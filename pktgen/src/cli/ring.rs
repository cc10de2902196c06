//! `pktgen ring`

use std::io::Write as _;
use std::time::Duration;

use clap::ValueEnum;
use dataplane::service::Protocol;
use pktgen::cpu;
use pktgen::ring::{self, Measured, Plan};
use pktgen::units;
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Number of flows, each a connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    flows: u32,
    /// Forwarding method
    #[arg(long, value_enum, default_value_t = Mode::Dr)]
    mode: Mode,
    /// udp, or tcp: a SYN for each flow, then ACKs
    #[arg(long, value_name = "udp|tcp", default_value = "udp", value_parser = super::protocol)]
    protocol: Protocol,
    /// Flows that end and are replaced by new ones, per second
    #[arg(long, value_name = "N", default_value_t = 0)]
    new_flows_per_second: u32,
    /// How long to measure, in time spent in the data plane
    #[arg(long, value_name = "D", default_value = "3s", value_parser = units::duration)]
    duration: Duration,
    /// Measure this many packets instead
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    packets: Option<u64>,
    /// CPU to run on
    #[arg(long, value_name = "CPU")]
    core: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Direct routing: the Ethernet addresses are rewritten
    Dr,
    /// Addresses and ports are rewritten; requests only
    Nat,
    /// IP in IP, over IPv4
    Tun,
}

/// The result, as JSON. Rates are those of the data plane alone.
#[derive(Debug, Serialize)]
struct Report {
    mode: Mode,
    protocol: String,
    flows: u32,
    new_flows_per_second: u32,
    packets: u64,
    mpps: f64,
    /// Median over slices of the run.
    ns_per_packet: f64,
    /// The fastest slice.
    ns_per_packet_min: f64,
    /// The slowest slice.
    ns_per_packet_max: f64,
    instructions_per_packet: Option<f64>,
    connections: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(core) = arguments.core {
        cpu::pin(core)?;
    }
    let measured = ring::run(&Plan {
        flows: arguments.flows,
        mode: match arguments.mode {
            Mode::Dr => ring::Mode::Dr,
            Mode::Nat => ring::Mode::Nat,
            Mode::Tun => ring::Mode::Tun,
        },
        protocol: arguments.protocol,
        new_flows_per_second: arguments.new_flows_per_second,
        duration: arguments.duration,
        packets: arguments.packets,
    })?;
    let report = report(arguments, &measured);
    let mut out = std::io::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut out, &report)?;
        return Ok(writeln!(out)?);
    }
    let instructions = report.instructions_per_packet.map_or_else(
        || "not counted: this machine has no counter".to_owned(),
        |count| format!("{count:.0}"),
    );
    writeln!(out, "packets       {}", report.packets)?;
    writeln!(out, "connections   {}", report.connections)?;
    writeln!(
        out,
        "ns/packet     {:.1} (slices {:.1}..{:.1}), {:.2} Mpps",
        report.ns_per_packet, report.ns_per_packet_min, report.ns_per_packet_max, report.mpps
    )?;
    writeln!(out, "instructions  {instructions}")?;
    Ok(())
}

fn report(arguments: &Arguments, measured: &Measured) -> Report {
    let ns = measured.ns_per_packet();
    Report {
        mode: arguments.mode,
        protocol: arguments.protocol.to_string().to_lowercase(),
        flows: arguments.flows,
        new_flows_per_second: arguments.new_flows_per_second,
        packets: measured.packets,
        mpps: if ns > 0.0 { 1e3 / ns } else { 0.0 },
        ns_per_packet: ns,
        ns_per_packet_min: measured.slices.first().copied().unwrap_or(ns),
        ns_per_packet_max: measured.slices.last().copied().unwrap_or(ns),
        instructions_per_packet: measured.instructions_per_packet,
        connections: measured.connections,
    }
}
