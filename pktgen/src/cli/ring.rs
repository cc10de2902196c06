//! `pktgen ring`

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::ValueEnum;
use dataplane::service::{Protocol, SchedulerKind};
use hdrhistogram::Histogram;
use pktgen::cpu;
use pktgen::ring::churn::{self, Churned};
use pktgen::ring::flood::{self, Flooded};
use pktgen::ring::several::{self, Compared, Share};
use pktgen::ring::{self, Measured, Plan};
use pktgen::units;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Their connections take 9 GB.
const MOST_FLOWS: u32 = 100_000_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Number of flows, each a connection; k and M are understood
    #[arg(long, value_name = "N", default_value = "1", value_parser = flows)]
    flows: u32,
    /// Forwarding method
    #[arg(long, value_enum, default_value_t = Mode::Dr)]
    mode: Mode,
    /// udp, or tcp: a SYN for each flow, then ACKs
    #[arg(long, value_name = "udp|tcp", default_value = "udp", value_parser = super::protocol)]
    protocol: Protocol,
    /// Scheduler of the virtual server
    #[arg(long, value_name = "NAME", default_value = "rr", value_parser = scheduler)]
    scheduler: SchedulerKind,
    /// Flows that end and are replaced by new ones, per second; max: every packet begins one, until there are
    /// all and time out, and again
    #[arg(long, value_name = "N|max", default_value = "0", value_parser = new_flows)]
    new_flows_per_second: NewFlows,
    /// How long to measure, in time spent in the data plane
    #[arg(long, value_name = "D", default_value = "3s", value_parser = units::duration)]
    duration: Duration,
    /// Measure this many packets instead; k and M are understood
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = units::large_count)]
    packets: Option<u64>,
    /// With a flood besides: so many of 100 packets are SYNs of connections that never come to be (with --protocol tcp)
    #[arg(long, value_name = "PERCENT", conflicts_with_all = ["duration", "new_flows_per_second", "workers"], value_parser = clap::value_parser!(u8).range(1..=99))]
    syn_flood: Option<u8>,
    /// Compare so many workers, each with its own flows, on a CPU of its own, with one. NAT: with answers,
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

/// How many flows are replaced.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
enum NewFlows {
    PerSecond(u32),
    Max(Max),
}

/// Serialized as `max`.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Max {
    Max,
}

fn new_flows(text: &str) -> Result<NewFlows, String> {
    match text {
        "max" => Ok(NewFlows::Max(Max::Max)),
        "0" => Ok(NewFlows::PerSecond(0)),
        number => (units::count(number).map(NewFlows::PerSecond))
            .map_err(|_| "write a number below 2^32, such as 500, 10k or 1M, or max".to_owned()),
    }
}

fn flows(text: &str) -> Result<u32, String> {
    let number = units::count(text)?;
    match number <= MOST_FLOWS {
        true => Ok(number),
        false => Err("write 100M at most".to_owned()),
    }
}

fn scheduler(text: &str) -> Result<SchedulerKind, String> {
    let mut known = SchedulerKind::NAMES.into_iter();
    let found = known.find(|(name, _)| *name == text);
    found.map(|(_, kind)| kind).ok_or_else(|| {
        let names = SchedulerKind::NAMES.map(|(name, _)| name);
        format!("write one of {}", names.join(", "))
    })
}

/// The result, as JSON. Rates are those of the data plane alone.
#[derive(Debug, Serialize)]
struct Report {
    mode: Mode,
    protocol: String,
    flows: u32,
    new_flows_per_second: NewFlows,
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
    /// If every packet begins a connection.
    #[serde(flatten)]
    churn: Option<Churn>,
}

/// What making connections and ending them took.
#[derive(Debug, Serialize)]
struct Churn {
    bytes_per_connection: f64,
    fill: Bursts,
    drain: Bursts,
}

/// A flood, as JSON.
#[derive(Debug, Serialize)]
struct Flood {
    mode: Mode,
    flows: u32,
    /// Of established connections.
    packets: u64,
    syns: u64,
    evicted: u64,
    /// Otherwise it is an error.
    connections_lost: u64,
    /// With the flood, of any packet.
    mpps: f64,
    /// Without the flood.
    ns_per_packet_calm: f64,
    /// With it, of any packet.
    ns_per_packet: f64,
    instructions_per_packet_calm: Option<f64>,
    instructions_per_packet: Option<f64>,
}

/// The bursts of packets that make connections, or the turns that end them.
#[derive(Debug, Serialize)]
struct Bursts {
    bursts: u64,
    ns_per_connection: f64,
    instructions_per_connection: Option<f64>,
    burst_ns: Percentiles,
    burst_instructions: Option<Percentiles>,
}

#[derive(Debug, Serialize)]
struct Percentiles {
    p50: u64,
    p99: u64,
    p99_9: u64,
    max: u64,
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
    /// Of all workers together, each with a processor of its own.
    mpps: f64,
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
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let plan = plan(arguments, stop);
    if let Some(workers) = arguments.workers {
        // By the time of their threads, some that share a CPU would look as if each had one.
        let cpus = cpu::count();
        anyhow::ensure!(
            usize::from(workers) <= cpus,
            super::Usage(format!(
                "--workers {workers}: each needs a CPU of its own, and this process may run on {cpus}"
            ))
        );
        return compare(arguments, &plan, workers);
    }
    if let Some(percent) = arguments.syn_flood {
        anyhow::ensure!(
            arguments.protocol == Protocol::Tcp,
            super::Usage("--syn-flood is of TCP: add --protocol tcp".to_owned())
        );
        return print_flood(arguments, &flood::run(&plan, percent)?);
    }
    let report = match arguments.new_flows_per_second {
        NewFlows::PerSecond(_) => report(arguments, &ring::run(&plan)?, None),
        NewFlows::Max(_) => {
            let churned = churn::run(&plan)?;
            report(arguments, &churned.made, Some(&churned))
        }
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        return super::print_json(&mut out, &report);
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
    if let Some(churn) = &report.churn {
        print_churn(&mut out, churn)?;
    }
    Ok(())
}

fn print_flood(arguments: &Arguments, flooded: &Flooded) -> anyhow::Result<()> {
    let report = flood_report(arguments, flooded);
    let mut out = std::io::stdout().lock();
    if arguments.json {
        return super::print_json(&mut out, &report);
    }
    let instructions =
        |count: Option<f64>| count.map_or_else(|| "-".to_owned(), |count| format!("{count:.0}"));
    writeln!(
        out,
        "established   {} packets, all forwarded; no connection lost",
        flooded.packets
    )?;
    writeln!(
        out,
        "flood         {} SYNs, {} half-open connections evicted",
        flooded.syns, flooded.evicted
    )?;
    for (name, share) in [("calm", flooded.calm), ("flooded", flooded.flooded)] {
        writeln!(
            out,
            "{name:<13} {:.1} ns/packet, {} instructions",
            share.ns_per_packet,
            instructions(share.instructions_per_packet)
        )?;
    }
    Ok(())
}

fn flood_report(arguments: &Arguments, flooded: &Flooded) -> Flood {
    let Flooded {
        packets,
        syns,
        calm,
        flooded,
        evicted,
    } = *flooded;
    Flood {
        mode: arguments.mode,
        flows: arguments.flows,
        packets,
        syns,
        evicted,
        connections_lost: 0,
        mpps: mpps(flooded.ns_per_packet),
        ns_per_packet_calm: calm.ns_per_packet,
        ns_per_packet: flooded.ns_per_packet,
        instructions_per_packet_calm: calm.instructions_per_packet,
        instructions_per_packet: flooded.instructions_per_packet,
    }
}

fn print_churn(out: &mut impl std::io::Write, churn: &Churn) -> anyhow::Result<()> {
    writeln!(
        out,
        "memory        {:.1} bytes/connection",
        churn.bytes_per_connection
    )?;
    for (name, bursts) in [("fill", &churn.fill), ("drain", &churn.drain)] {
        let instructions = bursts.instructions_per_connection;
        let instructions = instructions.map_or_else(|| "-".to_owned(), |it| format!("{it:.0}"));
        writeln!(
            out,
            "{name:<13} {:.1} ns/connection, {instructions} instructions, {} bursts",
            bursts.ns_per_connection, bursts.bursts
        )?;
        let instructions = bursts.burst_instructions.as_ref();
        let all = [
            ("ns", Some(&bursts.burst_ns)),
            ("instructions", instructions),
        ];
        for (unit, percentiles) in all {
            let Some(percentiles) = percentiles else {
                continue;
            };
            let Percentiles {
                p50,
                p99,
                p99_9,
                max,
            } = percentiles;
            writeln!(
                out,
                "  {unit:<12} p50 {p50}, p99 {p99}, p99.9 {p99_9}, max {max} a burst"
            )?;
        }
    }
    Ok(())
}

fn plan(arguments: &Arguments, stop: Arc<AtomicBool>) -> Plan {
    Plan {
        flows: arguments.flows,
        mode: match arguments.mode {
            Mode::Dr => ring::Mode::Dr,
            Mode::Nat => ring::Mode::Nat,
            Mode::Tun => ring::Mode::Tun,
            Mode::Fullnat => ring::Mode::FullNat,
        },
        protocol: arguments.protocol,
        scheduler: arguments.scheduler,
        new_flows_per_second: match arguments.new_flows_per_second {
            NewFlows::PerSecond(number) => number,
            // The window stays: it is not replaced piecemeal.
            NewFlows::Max(_) => 0,
        },
        duration: arguments.duration,
        packets: arguments.packets,
        stop,
    }
}

fn compare(arguments: &Arguments, plan: &Plan, workers: u16) -> anyhow::Result<()> {
    let comparison = comparison(arguments, &several::compare(plan, workers)?);
    let mut out = std::io::stdout().lock();
    if arguments.json {
        return super::print_json(&mut out, &comparison);
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
        mpps: f64::from(compared.workers) * mpps(ns(&each)),
        ns_per_packet_alone: ns(&alone),
        ns_per_packet: ns(&each),
        instructions_per_packet_alone: instructions(&alone),
        instructions_per_packet: instructions(&each),
        speedup: at(speedups.len() / 2),
        speedup_min: at(0),
        speedup_max: at(speedups.len().saturating_sub(1)),
    }
}

/// The rate of one processor.
fn mpps(ns_per_packet: f64) -> f64 {
    if ns_per_packet > 0.0 {
        1e3 / ns_per_packet
    } else {
        0.0
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn report(arguments: &Arguments, measured: &Measured, churned: Option<&Churned>) -> Report {
    let ns = measured.ns_per_packet();
    Report {
        mode: arguments.mode,
        protocol: arguments.protocol.to_string().to_lowercase(),
        flows: arguments.flows,
        new_flows_per_second: arguments.new_flows_per_second,
        packets: measured.packets,
        mpps: mpps(ns),
        ns_per_packet: ns,
        ns_per_packet_min: measured.slices.first().copied().unwrap_or(ns),
        ns_per_packet_max: measured.slices.last().copied().unwrap_or(ns),
        instructions_per_packet: measured.instructions_per_packet,
        connections: measured.connections,
        churn: churned.map(|churned| Churn {
            bytes_per_connection: churned.bytes_per_connection,
            fill: bursts(&churned.fill),
            drain: bursts(&churned.drain),
        }),
    }
}

fn bursts(bursts: &churn::Bursts) -> Bursts {
    Bursts {
        bursts: bursts.nanoseconds.len(),
        ns_per_connection: bursts.nanoseconds_per_connection(),
        instructions_per_connection: bursts.instructions_per_connection(),
        burst_ns: percentiles(&bursts.nanoseconds),
        burst_instructions: bursts.instructions.as_ref().map(percentiles),
    }
}

fn percentiles(all: &Histogram<u64>) -> Percentiles {
    Percentiles {
        p50: all.value_at_quantile(0.5),
        p99: all.value_at_quantile(0.99),
        p99_9: all.value_at_quantile(0.999),
        max: all.max(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.arguments)
    }

    #[test]
    fn flows_are_written_as_for_the_other_commands() {
        let flows = |text: &str| parse(&format!("ring --flows {text}")).map(|it| it.flows);
        assert_eq!(flows("7").unwrap(), 7);
        assert_eq!(flows("10k").unwrap(), 10_000);
        assert_eq!(flows("100M").unwrap(), 100_000_000);
        for text in ["0", "101M", "5000M", "x"] {
            assert!(flows(text).is_err(), "{text}");
        }
        for text in ["0", "10k", "max"] {
            assert!(parse(&format!("ring --new-flows-per-second {text}")).is_ok());
        }
        assert!(parse("ring --new-flows-per-second x").is_err());
        let packets = |text: &str| parse(&format!("ring --packets {text}")).map(|it| it.packets);
        assert_eq!(packets("5000M").unwrap(), Some(5_000_000_000));
        for text in ["0", "1.5k", "20000000000000M"] {
            assert!(packets(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_no_counter_counted_is_not_zero() {
        let bursts = || Bursts {
            bursts: 3,
            ns_per_connection: 120.0,
            instructions_per_connection: None,
            burst_ns: Percentiles {
                p50: 1,
                p99: 2,
                p99_9: 3,
                max: 4,
            },
            burst_instructions: None,
        };
        let churn = Churn {
            bytes_per_connection: 88.0,
            fill: bursts(),
            drain: bursts(),
        };
        let mut out = Vec::new();
        print_churn(&mut out, &churn).unwrap();
        let out = String::from_utf8(out).unwrap();
        let line = "120.0 ns/connection, - instructions, 3 bursts";
        assert_eq!(out.matches(line).count(), 2, "{out}");
    }

    #[test]
    fn every_report_has_the_keys_of_the_contract() {
        let arguments = parse("ring --protocol tcp").unwrap();
        let share = Share {
            ns_per_packet: 100.0,
            instructions_per_packet: None,
        };
        let measured = Measured {
            packets: 1,
            slices: vec![100.0],
            instructions_per_packet: None,
            connections: 1,
        };
        let flooded = Flooded {
            packets: 1,
            syns: 1,
            calm: flood::Share {
                ns_per_packet: 50.0,
                instructions_per_packet: None,
            },
            flooded: flood::Share {
                ns_per_packet: 100.0,
                instructions_per_packet: None,
            },
            evicted: 0,
        };
        let compared = Compared {
            workers: 2,
            packets: 1,
            rounds: vec![(share, share)],
        };
        let reports = [
            serde_json::to_value(report(&arguments, &measured, None)).unwrap(),
            serde_json::to_value(flood_report(&arguments, &flooded)).unwrap(),
            serde_json::to_value(comparison(&arguments, &compared)).unwrap(),
        ];
        for report in &reports {
            assert_eq!(report["mode"], "dr");
            assert_eq!(report["flows"], 1);
            assert_eq!(report["ns_per_packet"], 100.0);
            assert_eq!(report.get("instructions_per_packet"), Some(&Value::Null));
        }
        assert_eq!(
            reports.each_ref().map(|it| it["mpps"].as_f64()),
            [10.0, 10.0, 20.0].map(Some)
        );
    }
}
