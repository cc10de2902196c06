//! `pktgen tx`

mod handshakes;
mod workers;

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use dataplane::service::{MacAddress, Protocol};
use pktgen::cpu;
use pktgen::flows::{Flows, Prefix};
use pktgen::frame::Layout;
use pktgen::interface::{Interface, parse_mac};
use pktgen::live::{LiveError, Plan, Sent, Source, Vanished};
use pktgen::next_hop;
use pktgen::report::{self, packets_per_second, rates};
use pktgen::traffic::Traffic;
use pktgen::units::{self, Rate, Size};
use pktgen::user_space::Sender;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Interface to send from
    #[arg(long, value_name = "IF")]
    interface: String,
    /// Address and port to send to
    #[arg(long, value_name = "VIP:PORT", required_unless_present = "pcap")]
    dst: Option<SocketAddr>,
    /// Source addresses [default: the interface's own]
    #[arg(long, value_name = "CIDR")]
    src: Option<Prefix>,
    /// Ethernet address to send to [default: the next hop's, from the kernel]
    #[arg(long, value_name = "MAC", value_parser = parse_mac)]
    dst_mac: Option<MacAddress>,
    /// VLAN to send in: frames get a tag, and are 4 bytes longer than --size says
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    vlan: Option<u16>,
    /// Number of flows: source addresses and ports; k and M are understood
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    flows: u32,
    /// Frame length in bytes without FCS, or imix (60, 590 and 1514 bytes, 7:4:1) [default: the shortest that carries a stamp]
    #[arg(long, value_name = "N|imix")]
    size: Option<Size>,
    /// Packets per second, of all workers together; k and M are understood
    #[arg(long, value_name = "PPS|max", default_value_t = Rate::Max)]
    rate: Rate,
    /// udp, or tcp: a SYN for each flow, then ACKs
    #[arg(long, value_name = "udp|tcp", default_value = "udp", value_parser = super::protocol)]
    protocol: Protocol,
    /// Send only SYNs: a flood, when there are many flows
    #[arg(long)]
    syn: bool,
    /// Open and close TCP connections with a `sink --respond` behind the director, --rate of them a second
    #[arg(long, conflicts_with_all = ["syn", "fragment", "malformed", "pcap", "vlan", "size", "engine", "workers"])]
    handshakes: bool,
    /// Send each packet in IP fragments with so many bytes of payload, a multiple of 8
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(8..=3200))]
    fragment: Option<u16>,
    /// Break so many percent of the frames: versions, lengths, checksums, truncation in turn
    #[arg(long, value_name = "PERCENT")]
    malformed: Option<f64>,
    /// Send the frames of a capture, over and over, as they are
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dst", "src", "dst_mac", "vlan", "size", "fragment", "workers"])]
    pcap: Option<PathBuf>,
    /// What makes the frames: live-frames, the kernel, or af-xdp, this process, which is slower but can
    /// send anything [default: live-frames where that does]
    #[arg(long, value_enum, value_name = "live-frames|af-xdp")]
    engine: Option<Engine>,
    /// Processes that send, each its part of the flows, on a CPU each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: u32,
    /// Queue to send by, with af-xdp
    #[arg(long, value_name = "N", default_value_t = 0)]
    queue: u32,
    /// How long to send: seconds, or a number with ms, s, m
    #[arg(long, value_name = "D", default_value = "10s", value_parser = units::duration)]
    duration: Duration,
    /// CPU to run on; of several workers, the first one's
    #[arg(long, value_name = "CPU")]
    core: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Which of how many workers this is, and the run's number: given by the first one
    #[arg(long, hide = true, value_name = "I/N/RUN", value_parser = workers::part)]
    part: Option<workers::Part>,
}

/// What makes frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    LiveFrames,
    AfXdp,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.workers > 1 && arguments.part.is_none() {
        let report = workers::run(arguments)?;
        return print(&report, arguments.json);
    }
    let own = arguments.part.map(|part| workers::own(arguments, part));
    let arguments = own.as_ref().unwrap_or(arguments);
    if let Some(core) = arguments.core {
        cpu::pin(core)?;
    }
    let interface = Interface::find(&arguments.interface)?;
    let name = interface.name.clone();
    let sent;
    let size;
    let mut connections = None;
    if let Some(path) = &arguments.pcap {
        size = "capture".to_owned();
        let mut traffic = Traffic::capture(path)?;
        if arguments.engine == Some(Engine::LiveFrames) {
            bail!("--pcap needs --engine af-xdp: the kernel's generator makes frames of its own");
        }
        sent = by_user_space(arguments, &interface, &mut traffic)?;
    } else if arguments.handshakes {
        let plan = plan(arguments, &interface)?;
        size = "handshakes".to_owned();
        let done = handshakes::run(&plan, &interface, arguments.duration, progress())?;
        sent = done.0;
        connections = Some(done.1);
    } else {
        let plan = plan(arguments, &interface)?;
        size = plan.size.to_string();
        sent = send(arguments, interface, &plan)?;
    }
    let seconds = sent.elapsed.as_secs_f64();
    let (mpps, gbit_per_second) = rates(sent.frames, sent.bytes, seconds);
    let destination = arguments.dst.map(|destination| destination.to_string());
    let report = report::Sent {
        interface: name,
        destination: destination.unwrap_or_default(),
        protocol: arguments.protocol.to_string().to_lowercase(),
        flows: arguments.flows,
        size,
        sent: sent.frames,
        dropped: sent.dropped,
        bytes: sent.bytes,
        seconds,
        mpps,
        gbit_per_second,
        connections,
    };
    print(&report, arguments.json)
}

/// What the command line asks for.
fn plan(arguments: &Arguments, interface: &Interface) -> anyhow::Result<Plan> {
    let Some(destination) = arguments.dst else {
        bail!("--dst is missing");
    };
    if destination.port() == 0 {
        bail!("--dst {destination}: port 0 cannot be sent to");
    }
    let sources = match arguments.src {
        Some(prefix) => prefix,
        None => Prefix::host(next_hop::source_address(destination)?),
    };
    let destination_mac = match arguments.dst_mac {
        Some(mac) => mac,
        None => next_hop::resolve(interface, destination.ip())?,
    };
    let layout = Layout {
        source_mac: interface.mac,
        destination_mac,
        destination,
        protocol: if arguments.syn || arguments.handshakes {
            Protocol::Tcp
        } else {
            arguments.protocol
        },
    };
    let mut flows = Flows::new(sources, arguments.flows)?;
    let mut run = run_number();
    if let Some(part) = arguments.part {
        run = part.run;
        flows = match flows.part(part.number, part.of) {
            Some(part) => part,
            None => bail!(
                "--workers {}: there are fewer flows: give more --flows",
                part.of
            ),
        };
    }
    Ok(Plan {
        layout,
        flows,
        size: arguments
            .size
            .unwrap_or_else(|| Size::Fixed(layout.shortest_stamped())),
        rate: arguments.rate,
        vlan: arguments.vlan,
        run,
        syn_only: arguments.syn,
    })
}

/// By the engine that was asked for, or the fastest that can.
fn send(arguments: &Arguments, interface: Interface, plan: &Plan) -> anyhow::Result<Sent> {
    let is_special = arguments.fragment.is_some() || arguments.malformed.is_some();
    let vanished = match (arguments.engine, is_special) {
        (Some(Engine::LiveFrames), true) => {
            bail!("--fragment and --malformed need --engine af-xdp: the kernel's generator cannot")
        }
        (Some(Engine::AfXdp), _) | (None, true) => None,
        (Some(Engine::LiveFrames), false) => Some(Vanished::Count),
        (None, false) => Some(Vanished::Refuse),
    };
    if let Some(vanished) = vanished {
        let mut source = Source::load(interface.clone(), plan)?;
        match source.send(arguments.duration, vanished, progress()) {
            Err(error @ LiveError::Vanished(_)) => {
                eprintln!("pktgen: {error}. Sending by AF_XDP instead, which is slower");
            }
            sent => return Ok(sent?),
        }
    }
    let templates = plan.templates(&interface, arguments.fragment.is_some())?;
    let mut traffic = match arguments.fragment {
        Some(bytes) => Traffic::fragments(plan.flows, templates, bytes),
        None => Traffic::of_flows(plan.flows, templates),
    };
    if let Some(percent) = arguments.malformed {
        if !(0.0..=100.0).contains(&percent) {
            bail!("--malformed {percent}: write percent, 0 to 100");
        }
        traffic = traffic.with_damage(percent / 100.0);
    }
    by_user_space(arguments, &interface, &mut traffic)
}

fn by_user_space(
    arguments: &Arguments,
    interface: &Interface,
    traffic: &mut Traffic,
) -> anyhow::Result<Sent> {
    let mut sender = Sender::open(interface, arguments.queue, traffic.longest())?;
    Ok(sender.send(traffic, arguments.rate, arguments.duration, progress())?)
}

/// Unlike that of the run before, by chance.
fn run_number() -> u8 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let [.., a, b] = (now.tv_nsec / 1000).to_be_bytes();
    a ^ b
}

fn print(report: &report::Sent, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        return super::print_json(&mut out, report);
    }
    writeln!(
        out,
        "sent {} packets in {:.2} s: {}, {:.2} Gbit/s, {} dropped by {}",
        report.sent,
        report.seconds,
        packets_per_second(report.mpps),
        report.gbit_per_second,
        report.dropped,
        report.interface
    )?;
    if let Some(connections) = &report.connections {
        writeln!(
            out,
            "connections: {} opened, {} answered, {} closed, {} refused: {:.0} per second",
            connections.opened,
            connections.answered,
            connections.closed,
            connections.refused,
            connections.per_second
        )?;
    }
    if report.sent > 0 && report.dropped == report.sent {
        let error = LiveError::Vanished(report.interface.clone());
        eprintln!("pktgen: {error}");
    }
    Ok(())
}

/// Says once a second what was sent: on a terminal in one line, else every ten seconds.
fn progress() -> impl FnMut(Sent) + Send {
    let terminal = std::io::stderr().is_terminal();
    let mut last = Sent::default();
    let mut seconds = 0u64;
    move |sent: Sent| {
        seconds += 1;
        let rate = Sent {
            frames: sent.frames - last.frames,
            elapsed: sent.elapsed.saturating_sub(last.elapsed),
            ..sent
        }
        .rate();
        if terminal {
            eprint!(
                "\r{seconds} s, {} packets, {:.3} Mpps ",
                sent.frames,
                rate / 1e6
            );
            last = sent;
        } else if seconds.is_multiple_of(10) {
            eprintln!(
                "{seconds} s, {} packets, {:.3} Mpps",
                sent.frames,
                rate / 1e6
            );
            last = sent;
        }
    }
}
