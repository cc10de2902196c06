//! `pktgen ring`

use std::io::Write as _;
use std::time::Duration;

use clap::ValueEnum;
use dataplane::service::Protocol;
use pktgen::cpu;
use pktgen::ring::several::{self, Compared, Share};
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
    /// Compare so many workers, each with its own flows, on the CPUs from 0 on, with one. NAT: with answers,
    /// each of which arrives at another worker than its request
    #[arg(long, value_name = "N", conflicts_with_all = ["duration", "new_flows_per_second", "core"], value_parser = clap::value_parser!(u16).range(2..=64))]
    workers: Option<u16>,
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
    /// Addresses and ports are rewritten; requests only, but with --workers
    Nat,
    /// IP in IP, over IPv4
    Tun,
    /// As nat, and the source is rewritten, too; requests only
    Fullnat,
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

/// A comparison as printed with `--workers`; times and instructions are medians over rounds.
#[derive(Debug, Serialize)]
struct Comparison {
    mode: Mode,
    protocol: String,
    flows: u32,
    workers: u16,
    /// By each worker, in each round.
    packets: u64,
    ns_per_packet_alone: f64,
    /// Of each worker's processor.
    ns_per_packet: f64,
    instructions_per_packet_alone: Option<f64>,
    instructions_per_packet: Option<f64>,
    /// How much more they do than one: the median, and the least and most of all rounds.
    speedup: f64,
    speedup_min: f64,
    speedup_max: f64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(core) = arguments.core {
        cpu::pin(core)?;
    }
    let plan = plan(arguments);
    if let Some(workers) = arguments.workers {
        return compare(arguments, &plan, workers);
    }
    let measured = ring::run(&plan)?;
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

fn plan(arguments: &Arguments) -> Plan {
    Plan {
        flows: arguments.flows,
        mode: match arguments.mode {
            Mode::Dr => ring::Mode::Dr,
            Mode::Nat => ring::Mode::Nat,
            Mode::Tun => ring::Mode::Tun,
            Mode::Fullnat => ring::Mode::FullNat,
        },
        protocol: arguments.protocol,
        new_flows_per_second: arguments.new_flows_per_second,
        duration: arguments.duration,
        packets: arguments.packets,
    }
}

fn compare(arguments: &Arguments, plan: &Plan, workers: u16) -> anyhow::Result<()> {
    let comparison = comparison(arguments, &several::compare(plan, workers)?);
    let mut out = std::io::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut out, &comparison)?;
        return Ok(writeln!(out)?);
    }
    let instructions =
        |count: Option<f64>| count.map_or_else(|| "-".to_owned(), |count| format!("{count:.0}"));
    writeln!(
        out,
        "one worker    {:.1} ns/packet, {} instructions",
        comparison.ns_per_packet_alone,
        instructions(comparison.instructions_per_packet_alone)
    )?;
    writeln!(
        out,
        "each of {workers:<5} {:.1} ns/packet, {} instructions",
        comparison.ns_per_packet,
        instructions(comparison.instructions_per_packet)
    )?;
    writeln!(
        out,
        "speedup       {:.2} (rounds {:.2}..{:.2})",
        comparison.speedup, comparison.speedup_min, comparison.speedup_max
    )?;
    Ok(())
}

fn comparison(arguments: &Arguments, compared: &Compared) -> Comparison {
    let speedups = compared.speedups();
    let at = |place: usize| speedups.get(place).copied().unwrap_or(0.0);
    let (alone, each): (Vec<Share>, Vec<Share>) = compared.rounds.iter().copied().unzip();
    let ns = |shares: &[Share]| median(shares.iter().map(|share| share.ns_per_packet).collect());
    let instructions = |shares: &[Share]| {
        let counts = shares.iter().map(|share| share.instructions_per_packet);
        counts.collect::<Option<Vec<f64>>>().map(median)
    };
    Comparison {
        mode: arguments.mode,
        protocol: arguments.protocol.to_string().to_lowercase(),
        flows: arguments.flows,
        workers: compared.workers,
        packets: compared.packets,
        ns_per_packet_alone: ns(&alone),
        ns_per_packet: ns(&each),
        instructions_per_packet_alone: instructions(&alone),
        instructions_per_packet: instructions(&each),
        speedup: at(speedups.len() / 2),
        speedup_min: at(0),
        speedup_max: at(speedups.len().saturating_sub(1)),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
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
