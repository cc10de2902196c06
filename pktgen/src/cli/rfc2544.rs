//! `pktgen rfc2544`

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use dataplane::service::{MacAddress, Protocol};
use pktgen::frame::Layout;
use pktgen::interface::parse_mac;
use pktgen::report::{Found, Received};
use pktgen::rfc2544::bed::Subject;
use pktgen::rfc2544::results::{AtLoad, FCS, Machine, Measurement, Results, Setup, short};
use pktgen::rfc2544::search::{Settings, Trial, search};
use pktgen::rfc2544::tester::{Interrupted, Load, Place, Tester};
use pktgen::rfc2544::{html, table};
use pktgen::units::{self, Rate};
use pktgen::verify::{Expected, Mode};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Frame lengths of RFC 2544 §9.1.
const FRAMES: [usize; 7] = [64, 128, 256, 512, 1024, 1280, 1518];
/// Percent of the highest rate at which latency is measured.
const LOADS: [u32; 3] = [50, 80, 100];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The director's configuration: it is run in a lab of network namespaces
    #[arg(value_name = "CONFIG", required_unless_present_any = ["from", "tx_interface"])]
    config: Option<PathBuf>,
    /// The virtual server to measure [default: the first with --protocol; without that, with UDP, or the first]
    #[arg(long, value_name = "VIP:PORT", requires = "config")]
    virtual_server: Option<SocketAddr>,
    /// The director's program [default: appliance, beside this one or in PATH]
    #[arg(long, value_name = "FILE", requires = "config")]
    appliance: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
    /// udp or tcp [default: the virtual server's, with interfaces udp]
    #[arg(long, value_name = "udp|tcp", value_parser = super::protocol)]
    protocol: Option<Protocol>,
    /// Frame lengths in bytes, with FCS as RFC 2544 counts
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = FRAMES)]
    frames: Vec<usize>,
    /// Numbers of flows; k and M are understood
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,10k", value_parser = units::count)]
    flows: Vec<u32>,
    /// How long a trial sends: seconds, or a number with ms, s, m
    #[arg(long, value_name = "D", default_value = "10s", value_parser = units::duration)]
    trial: Duration,
    /// Loss that counts as none, in percent; RFC 2544 wants 0
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = units::percent)]
    tolerance: f64,
    /// How exactly rates are searched for, in percent
    #[arg(long, value_name = "PERCENT", default_value = "2", value_parser = units::percent)]
    resolution: f64,
    /// CPU for sending and receiving [default: one that the lab's director does not use]
    #[arg(long, value_name = "CPU")]
    core: Option<usize>,
    /// Write a report with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Put the results of an earlier run beside these
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Measure nothing: report on the results of an earlier run
    #[arg(long, value_name = "RUN.json", conflicts_with_all = ["config", "tx_interface", "protocol", "frames", "flows", "trial", "tolerance", "resolution", "core"])]
    from: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// A director that is there already.
#[derive(Debug, clap::Args)]
struct Given {
    /// Measure what is between two interfaces of this host: the one to send from
    #[arg(long, value_name = "IF", requires_all = ["rx_interface", "dst"], conflicts_with = "config")]
    tx_interface: Option<String>,
    /// The one where real servers would receive; may be the same
    #[arg(long, value_name = "IF", requires = "tx_interface")]
    rx_interface: Option<String>,
    /// Address and port of the virtual server
    #[arg(long, value_name = "VIP:PORT", requires = "tx_interface")]
    dst: Option<SocketAddr>,
    /// The director's Ethernet address [default: the next hop's, from the kernel]
    #[arg(long, value_name = "MAC", requires = "tx_interface", value_parser = parse_mac)]
    dst_mac: Option<MacAddress>,
    /// Source addresses [default: the sending interface's own]
    #[arg(long, value_name = "CIDR", requires = "tx_interface")]
    src: Option<String>,
    /// How the director forwards
    #[arg(
        long,
        value_name = "dr|nat|fullnat|tun",
        default_value = "dr",
        conflicts_with_all = ["config", "from"]
    )]
    mode: Mode,
    /// A real server and its weight; may be repeated [default: all that get something, alike]
    #[arg(long, value_name = "SERVER=WEIGHT", requires = "tx_interface")]
    server: Vec<Expected>,
}

/// What was measured, and what ended it before all was.
struct Outcome {
    results: Results,
    failed: Option<anyhow::Error>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(path) = &arguments.html {
        can_be_written(path)?;
    }
    let old = arguments.compare.as_deref().map(read).transpose()?;
    let Outcome { results, failed } = match (&arguments.from, &arguments.config) {
        (Some(path), _) => Outcome {
            results: read(path)?,
            failed: None,
        },
        (None, Some(config)) => in_a_lab(arguments, config)?,
        (None, None) => between_interfaces(arguments)?,
    };
    let mut out = std::io::stdout().lock();
    report(arguments, &results, old.as_ref(), &mut out)?;
    failed.map_or(Ok(()), Err)
}

/// Finds out before half an hour of measuring whether its report can be written.
fn can_be_written(path: &Path) -> anyhow::Result<()> {
    let is_there = path.exists();
    let failed = || format!("cannot write {}", path.display());
    let options = &mut OpenOptions::new();
    options
        .create(true)
        .append(true)
        .open(path)
        .with_context(failed)?;
    if !is_there {
        std::fs::remove_file(path).with_context(failed)?;
    }
    Ok(())
}

/// Prints the results and writes the page; if one fails, the other is done all the same.
fn report(
    arguments: &Arguments,
    results: &Results,
    old: Option<&Results>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let printed = print(arguments, results, old, out);
    if let Some(path) = &arguments.html {
        let page = html::page(results, old);
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    printed
}

fn print(
    arguments: &Arguments,
    results: &Results,
    old: Option<&Results>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if arguments.json {
        serde_json::to_writer_pretty(&mut *out, results)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", table::text(results, old))?;
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Results> {
    let failed = || {
        format!(
            "cannot read {} as results of pktgen rfc2544 --json",
            path.display()
        )
    };
    let text = std::fs::read_to_string(path).with_context(failed)?;
    serde_json::from_str(&text).with_context(failed)
}

fn in_a_lab(arguments: &Arguments, config: &Path) -> anyhow::Result<Outcome> {
    let subject = Subject::read(config, arguments.virtual_server, arguments.protocol)
        .map_err(|error| super::Usage(format!("{error:#}")))?;
    let appliance = match &arguments.appliance {
        Some(path) => path.clone(),
        None => appliance()?,
    };
    let stop = signals()?;
    let mut bed = subject.build(&appliance)?;
    let ready = bed.ready()?;
    let virtual_server = subject.virtual_server();
    let tester = Tester {
        program: own_program()?,
        send: ready.send,
        receive: ready.receive,
        destination: virtual_server.address(),
        destination_mac: Some(ready.destination_mac),
        sources: Some(ready.sources),
        protocol: virtual_server.protocol(),
        mode: ready.mode,
        servers: ready.servers,
        core: arguments.core.or(ready.core),
        stop,
    };
    let config = config.file_name().unwrap_or_default().to_string_lossy();
    let setup = Setup {
        scheduler: Some(virtual_server.scheduler.to_string()),
        method: virtual_server.lb_kind.to_string(),
        ..setup(
            arguments,
            &tester,
            format!("a lab of {config}: veth between network namespaces of one host"),
        )
    };
    measure(arguments, &tester, setup)
}

fn between_interfaces(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let given = &arguments.given;
    for server in &given.server {
        server.check(given.mode)?;
    }
    let place = |interface: &Option<String>| Place {
        namespace: None,
        interface: interface.clone().unwrap_or_default(),
    };
    let tester = Tester {
        program: own_program()?,
        send: place(&given.tx_interface),
        receive: place(&given.rx_interface),
        destination: given.dst.context("--tx-interface needs --dst")?,
        destination_mac: given.dst_mac.map(|mac| mac.to_string()),
        sources: given.src.clone(),
        protocol: arguments.protocol.unwrap_or(Protocol::Udp),
        mode: given.mode,
        servers: given.server.iter().map(ToString::to_string).collect(),
        core: arguments.core,
        stop: signals()?,
    };
    let network = format!(
        "from {} to {} of this host",
        tester.send.interface, tester.receive.interface
    );
    let setup = setup(arguments, &tester, network);
    measure(arguments, &tester, setup)
}

fn setup(arguments: &Arguments, tester: &Tester, network: String) -> Setup {
    Setup {
        virtual_server: tester.destination.to_string(),
        protocol: tester.protocol.to_string(),
        method: tester.mode.to_string().to_uppercase(),
        scheduler: None,
        real_servers: tester.servers.len(),
        network,
        seconds: arguments.trial.as_secs_f64(),
        tolerance: arguments.tolerance / 100.0,
        resolution: arguments.resolution / 100.0,
    }
}

/// All measurements, or those until a signal or an error.
fn measure(arguments: &Arguments, tester: &Tester, setup: Setup) -> anyhow::Result<Outcome> {
    let settings = Settings {
        tolerance: setup.tolerance,
        resolution: setup.resolution.max(0.001),
    };
    let mut results = Results {
        program: format!("pktgen {}", env!("CARGO_PKG_VERSION")),
        date: httpdate::fmt_http_date(SystemTime::now()),
        machine: Machine::here(),
        setup,
        measurements: Vec::new(),
    };
    let frames = lengths(
        &arguments.frames,
        tester.destination,
        tester.protocol,
        tester.mode,
    );
    let total = frames.len() * arguments.flows.len();
    if let Err(error) = try_out(tester, &frames, &arguments.flows) {
        return ended(results, total, error);
    }
    for &flows in &arguments.flows {
        for &frame in &frames {
            let number = results.measurements.len() + 1;
            let progress = Progress::of(format!("{number}/{total}: {}", named(frame, flows)));
            let load = Load {
                flows,
                length: frame - FCS,
                rate: Rate::Max,
                duration: arguments.trial,
            };
            match one(tester, settings, load, &progress) {
                Ok(measurement) => {
                    progress.done(&measurement);
                    results.measurements.push(measurement);
                }
                Err(error) => {
                    progress.end();
                    return ended(results, total, error.context(progress.what));
                }
            }
        }
    }
    Ok(Outcome {
        results,
        failed: None,
    })
}

/// A signal or an error keeps what was measured until then, if anything.
fn ended(results: Results, total: usize, error: anyhow::Error) -> anyhow::Result<Outcome> {
    let done = results.measurements.len();
    match (done, error.is::<Interrupted>()) {
        (0, true) => bail!("interrupted before the first result"),
        (0, false) => Err(error),
        (_, true) => {
            eprintln!("interrupted: these are the {done} results of {total} so far");
            Ok(Outcome {
                results,
                failed: None,
            })
        }
        (_, false) => Ok(Outcome {
            results,
            failed: Some(error),
        }),
    }
}

/// Sends the longest frames of the most flows for a moment: if that fails, it is known before anything is measured.
fn try_out(tester: &Tester, frames: &[usize], flows: &[u32]) -> anyhow::Result<()> {
    let (Some(&frame), Some(&flows)) = (frames.iter().max(), flows.iter().max()) else {
        return Ok(());
    };
    let load = Load {
        flows,
        length: frame - FCS,
        rate: Rate::PerSecond(1000.0),
        duration: Duration::from_millis(100),
    };
    let tried = count(tester, load).with_context(|| named(frame, flows));
    tried.map(|_| ())
}

fn named(frame: usize, flows: u32) -> String {
    format!("{frame} bytes, flows: {}", short(flows))
}

/// One trial that only counts.
fn count(tester: &Tester, load: Load) -> anyhow::Result<Trial> {
    let (sent, received) = tester.count(load)?;
    if sent.sent > 0 && received.received == 0 {
        bail!(
            "none of {} packets came to {}: is the director running, and does it forward {} there, at this length?",
            sent.sent,
            tester.receive.interface,
            tester.destination
        );
    }
    Ok(Trial {
        sent: sent.sent,
        received: received.received,
        seconds: sent.seconds,
    })
}

/// The highest rate, and the latency at shares of it.
fn one(
    tester: &Tester,
    settings: Settings,
    load: Load,
    progress: &Progress,
) -> anyhow::Result<Measurement> {
    let highest = search(settings, |rate| -> anyhow::Result<Trial> {
        progress.say(&match rate {
            Rate::Max => "trying full speed".to_owned(),
            Rate::PerSecond(rate) => format!("trying {:.3} Mpps", rate / 1e6),
        });
        count(tester, Load { rate, ..load })
    })?;
    let mut measurement = Measurement {
        by_tester: highest.by_tester,
        trials: highest.trials,
        ..Measurement::new(load.flows, load.length + FCS, highest.rate)
    };
    for percent in LOADS {
        let rate = highest.rate * f64::from(percent) / 100.0;
        if rate < 1.0 {
            continue;
        }
        progress.say(&format!("latency at {percent} %"));
        let rate = Rate::PerSecond(rate.min(100e6));
        let (sent, received) = tester.verify(Load { rate, ..load })?;
        measurement
            .latency
            .push(at_load(percent, sent.sent, &received));
    }
    Ok(measurement)
}

fn at_load(load: u32, sent: u64, received: &Received) -> AtLoad {
    let found = received.found.as_ref();
    let count = |count: fn(&Found) -> u64| found.map_or(0, count);
    AtLoad {
        load,
        sent,
        lost: sent.saturating_sub(received.received - count(|found| found.duplicates)),
        missed: received.missed,
        bad: count(|found| found.malformed + found.bad_ip_checksums + found.bad_l4_checksums),
        moved_flows: count(|found| found.moved_flows),
        duplicates: count(|found| found.duplicates),
        reordered: count(|found| found.reordered),
        latency: found.and_then(|found| found.latency),
    }
}

/// With the longest outer headers, IPv6 and GUE, this is a frame of 1518 bytes.
const LONGEST_TUNNELLED: usize = 1518 - 40 - 12;

/// The frame lengths, those too short for headers and stamp raised to the shortest with both, and for TUN those too long
/// for a tunnel lowered to the longest that fits any.
fn lengths(
    frames: &[usize],
    destination: SocketAddr,
    protocol: Protocol,
    mode: Mode,
) -> Vec<usize> {
    let layout = Layout {
        source_mac: MacAddress::default(),
        destination_mac: MacAddress::default(),
        destination,
        protocol,
    };
    let shortest = layout.shortest_stamped() + FCS;
    let possible = frames.iter().map(|&frame| {
        if frame < shortest {
            eprintln!("{frame}-byte frames are too short: {shortest} bytes instead, the shortest with a stamp");
            return shortest;
        }
        if mode == Mode::Tun && frame > LONGEST_TUNNELLED {
            eprintln!(
                "{frame}-byte frames are too long for a tunnel: {LONGEST_TUNNELLED} bytes instead, the longest that fit any"
            );
            return LONGEST_TUNNELLED;
        }
        frame
    });
    let mut frames: Vec<usize> = possible.collect();
    frames.sort_unstable();
    frames.dedup();
    frames
}

/// A flag that SIGINT and SIGTERM set.
fn signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's file")
}

/// The appliance beside this program, or in PATH.
fn appliance() -> anyhow::Result<PathBuf> {
    let beside = own_program()?.with_file_name("appliance");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|directory| directory.join("appliance"));
    let mut found = [beside]
        .into_iter()
        .chain(in_path)
        .filter(|file| file.is_file());
    found
        .next()
        .context("there is no appliance beside pktgen or in PATH: give --appliance FILE")
}

/// A line on stderr: on a terminal rewritten for each trial.
#[derive(Debug)]
struct Progress {
    what: String,
    terminal: bool,
}

impl Progress {
    fn of(what: String) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { what, terminal }
    }

    fn say(&self, now: &str) {
        if self.terminal {
            eprint!("\r\x1b[K{}: {now}", self.what);
        }
    }

    fn done(&self, found: &Measurement) {
        let end = if self.terminal { "\r\x1b[K" } else { "" };
        let trials = found.trials.len();
        eprintln!(
            "{end}{}: {:.3} Mpps, {trials} trials",
            self.what, found.mpps
        );
    }

    fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}

#[cfg(test)]
#[path = "rfc2544/tests.rs"]
mod tests;
