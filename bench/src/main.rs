//! `bench`: runs the measurement that `bench/README.md` describes. `bench/run` builds it and what it
//! measures, and starts it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bench::appliance::Method;
use bench::peers::Peer;
use bench::report::{Memory, Report, Tcp, Throughput};
use bench::throughput::{self, Balancer, Case, Outcome, Setup};
use bench::{Spread, memory, pause, tcp};
use clap::Parser;

/// Measures the appliance beside a bare AF_XDP forwarder, and the data plane in memory.
#[derive(Debug, Parser)]
struct Arguments {
    /// Times that each case is run, taking turns
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds to measure a case, after warming up
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// Measure only this: packets over veth, TCP through proxies, or the data plane in memory
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// Where to write the dated report
    #[arg(long, value_name = "DIRECTORY", default_value = "bench/results")]
    results: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Veth,
    Tcp,
    Ring,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("network namespaces and XDP need root: sudo bench/run");
    }
    // From here on Ctrl-C lets everything be removed.
    pause(std::time::Duration::ZERO)?;
    let executable = std::env::current_exe().context("where am I?")?;
    let programs = executable.parent().context("where am I?")?.to_owned();
    let mut report = Report {
        command: std::iter::once("bench/run".to_owned())
            .chain(std::env::args().skip(1))
            .collect::<Vec<_>>()
            .join(" "),
        load_before: load_average(),
        throughput: Vec::new(),
        to_nftables: Vec::new(),
        tcp: Vec::new(),
        memory: Vec::new(),
        skipped: Vec::new(),
    };
    let measured = |part| arguments.only.is_none_or(|only| only == part);
    let scratch = Scratch::new()?;
    let setup = Setup {
        programs: programs.clone(),
        scratch: scratch.0.clone(),
        seconds: arguments.seconds,
    };
    if measured(Part::Veth) {
        over_veth(arguments, &setup, &mut report)?;
    }
    if measured(Part::Tcp) {
        through_proxies(arguments, &setup, &mut report)?;
    }
    if measured(Part::Ring) {
        in_memory(arguments, &programs, &mut report)?;
    }
    let path = report.save(&arguments.results)?;
    println!("{}", report.markdown());
    eprintln!("written to {}", path.display());
    Ok(())
}

fn over_veth(arguments: &Arguments, setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let cases = throughput::cases(&available(&Peer::ALL, Peer::missing, report));
    let mut outcomes: HashMap<String, Vec<Outcome>> = HashMap::new();
    for round in 1..=arguments.rounds {
        for case in &cases {
            let outcome = throughput::run(setup, case).with_context(|| case.name())?;
            eprintln!(
                "round {round}: {}: {:.3} Mpps of {:.3} offered",
                case.name(),
                outcome.delivered,
                outcome.offered
            );
            outcomes.entry(case.name()).or_default().push(outcome);
        }
    }
    report.throughput = rows(&cases, &outcomes);
    report.to_nftables = to_nftables(&cases, &outcomes);
    Ok(())
}

/// How many times as fast as nftables's stateful DNAT NAT and the bare forwarder are, within each round and at either sink.
fn to_nftables(cases: &[Case], outcomes: &HashMap<String, Vec<Outcome>>) -> Vec<(String, Spread)> {
    let free = |case: &&Case| case.rate.is_none() && case.size.is_none();
    let ratio = |case: &Case| {
        let is_peer = |other: &&Case| {
            other.balancer == Balancer::Peer(Peer::NftDnat) && other.sink == case.sink
        };
        let peer = cases.iter().filter(free).find(is_peer)?;
        let [own, peer] = [case, peer].map(|case| outcomes.get(&case.name()));
        let ratios: Vec<f64> = (own?.iter().zip(peer?))
            .map(|(own, peer)| own.delivered / peer.delivered)
            .collect();
        Some((case.name(), Spread::of(&ratios)?))
    };
    let is_compared = |case: &&Case| match case.balancer {
        Balancer::Forwarder => true,
        Balancer::Appliance(method, _) => method == Method::Nat,
        Balancer::Absent | Balancer::Peer(_) => false,
    };
    (cases.iter().filter(free).filter(is_compared))
        .filter_map(ratio)
        .collect()
}

fn rows(cases: &[Case], outcomes: &HashMap<String, Vec<Outcome>>) -> Vec<Throughput> {
    let of = |case: &Case| outcomes.get(&case.name()).map_or(&[][..], Vec::as_slice);
    // The limit of a case is the forwarder with frames of the same size and the same sink.
    let bare = |size, sink| {
        cases
            .iter()
            .find(|case| {
                case.balancer == Balancer::Forwarder
                    && (case.size, case.sink, case.rate) == (size, sink, None)
            })
            .map_or(&[][..], of)
    };
    let row = |case: &Case| {
        let delivered: Vec<f64> = of(case).iter().map(|outcome| outcome.delivered).collect();
        let offered: Vec<f64> = of(case).iter().map(|outcome| outcome.offered).collect();
        let cpu: Vec<f64> = of(case).iter().map(|outcome| outcome.cpu).collect();
        let ratios: Vec<f64> = of(case)
            .iter()
            .zip(bare(case.size, case.sink))
            .map(|(own, bare)| own.delivered / bare.delivered)
            .collect();
        Some(Throughput {
            name: case.name(),
            delivered: Spread::of(&delivered)?,
            offered: Spread::of(&offered)?,
            cpu: case.rate.and_then(|_| Spread::of(&cpu)),
            ratio: Spread::of(&ratios).filter(|_| {
                !matches!(case.balancer, Balancer::Absent | Balancer::Forwarder)
                    && case.rate.is_none()
            }),
        })
    };
    cases.iter().filter_map(row).collect()
}

fn through_proxies(
    arguments: &Arguments,
    setup: &Setup,
    report: &mut Report,
) -> anyhow::Result<()> {
    let balancers = available(&tcp::Balancer::ALL, tcp::Balancer::missing, report);
    let mut outcomes: HashMap<tcp::Balancer, Vec<tcp::Outcome>> = HashMap::new();
    for round in 1..=arguments.rounds {
        for &balancer in &balancers {
            let outcome = tcp::run(setup, balancer).with_context(|| balancer.name())?;
            eprintln!(
                "round {round}: TCP through {}: {:.0} requests/s, {:.0} connections/s",
                balancer.name(),
                outcome.requests.per_second,
                outcome.connections.per_second
            );
            outcomes.entry(balancer).or_default().push(outcome);
        }
    }
    report.tcp = balancers
        .iter()
        .filter_map(|balancer| Tcp::of(balancer.name(), outcomes.get(balancer)?))
        .collect();
    Ok(())
}

fn in_memory(arguments: &Arguments, programs: &Path, report: &mut Report) -> anyhow::Result<()> {
    let (pktgen, limit) = (&programs.join("pktgen"), &programs.join("limit"));
    let mut times: HashMap<u32, Vec<(memory::Ring, f64)>> = HashMap::new();
    for round in 1..=arguments.rounds {
        for flows in memory::FLOWS {
            pause(std::time::Duration::ZERO)?;
            let ring = memory::time(pktgen, flows)?;
            let limit = memory::limit(limit, flows)?;
            eprintln!(
                "round {round}: ring, {flows} flows: {:.1} ns/packet, limit {limit:.1}",
                ring.ns_per_packet
            );
            times.entry(flows).or_default().push((ring, limit));
        }
    }
    for flows in memory::FLOWS {
        pause(std::time::Duration::ZERO)?;
        let rounds = times.remove(&flows).unwrap_or_default();
        let column = |value: fn(&(memory::Ring, f64)) -> f64| {
            Spread::of(&rounds.iter().map(value).collect::<Vec<_>>()).context("no rounds")
        };
        let callgrind = memory::instructions(pktgen, flows).map_err(|error| format!("{error:#}"));
        if let Err(reason) = &callgrind {
            report
                .skipped
                .push(format!("instructions of {flows} flows: {reason}"));
        }
        report.memory.push(Memory {
            flows,
            ns: column(|(ring, _)| ring.ns_per_packet)?,
            limit: column(|(_, limit)| *limit)?,
            ratio: column(|(ring, limit)| ring.ns_per_packet / limit)?,
            callgrind,
            counter: rounds
                .last()
                .and_then(|(ring, _)| ring.instructions_per_packet),
        });
    }
    Ok(())
}

/// Those of `all` that nothing is missing for; the report says what is missing for the others.
fn available<T: Copy>(
    all: &[T],
    missing: impl Fn(T) -> Option<String>,
    report: &mut Report,
) -> Vec<T> {
    let mut available = Vec::new();
    for &one in all {
        match missing(one) {
            None => available.push(one),
            Some(why) => report.skipped.push(why),
        }
    }
    available
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A directory for the configuration and the control socket; removed when dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("bench: cannot remove {}: {error}", self.0.display());
        }
    }
}
