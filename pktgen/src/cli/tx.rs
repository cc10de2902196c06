//! `pktgen tx`

mod handshakes;
mod workers;

use std::io::{IsTerminal as _, Stderr, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use dataplane::service::{MacAddress, Protocol};
use pktgen::cpu;
use pktgen::flows::{Flows, Prefix};
use pktgen::frame::{ETHERNET, Layout};
use pktgen::interface::{Interface, parse_mac};
use pktgen::live::{self, LiveError, Plan, Sent, Source};
use pktgen::next_hop;
use pktgen::report::{self, packets_per_second, rates};
use pktgen::traffic::Traffic;
use pktgen::units::{self, Rate, Size};
use pktgen::user_space::Sender;

use super::Usage;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Interface to send from
    #[arg(long, value_name = "IF")]
    interface: String,
    /// Address and port to send to
    #[arg(long, value_name = "VIP:PORT", required_unless_present = "pcap", value_parser = destination)]
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
    /// udp, or tcp: a SYN for each flow, then ACKs [default: udp, or tcp with --syn and --handshakes]
    #[arg(long, value_name = "udp|tcp", value_parser = super::protocol)]
    protocol: Option<Protocol>,
    /// Send only SYNs: a flood, when there are many flows
    #[arg(long)]
    syn: bool,
    /// Open and close TCP connections with a `sink --respond` behind the director, --rate of them a second
    #[arg(long, conflicts_with_all = ["syn", "fragment", "malformed", "pcap", "vlan", "size", "engine", "workers"])]
    handshakes: bool,
    /// Send each packet in IP fragments with so many bytes of payload, a multiple of 8
    #[arg(long, value_name = "BYTES", value_parser = fragment)]
    fragment: Option<u16>,
    /// Break so many percent of the frames: versions, lengths, checksums, truncation in turn
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    malformed: Option<f64>,
    /// Send the frames of a capture, over and over, as they are
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dst", "src", "dst_mac", "vlan", "flows", "size", "protocol", "syn", "fragment", "malformed", "workers"])]
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

/// Reads an address and port that can be sent to.
fn destination(text: &str) -> Result<SocketAddr, String> {
    let destination = text.parse().ok();
    let destination = destination.filter(|destination: &SocketAddr| destination.port() > 0);
    destination.ok_or_else(|| {
        "write address:port, such as 192.0.2.1:80 or [2001:db8::1]:80, the port not 0".to_owned()
    })
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok();
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "write percent, 0 to 100".to_owned())
}

/// Reads a fragment's length: all but a packet's last are multiples of 8 (RFC 791 §3.2).
fn fragment(text: &str) -> Result<u16, String> {
    let bytes = text.parse().ok();
    let bytes = bytes.filter(|bytes: &u16| (8..=3200).contains(bytes) && bytes.is_multiple_of(8));
    bytes.ok_or_else(|| "write a multiple of 8, from 8 to 3200".to_owned())
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
    let plan = match arguments.pcap {
        Some(_) => None,
        None => Some(plan(arguments, &interface)?),
    };
    let mut used = Engine::AfXdp;
    let mut connections = None;
    let (sent, size) = match (&plan, &arguments.pcap) {
        (Some(plan), _) if arguments.handshakes => {
            let progress = progress(arguments);
            let (sent, made) = handshakes::run(plan, &interface, arguments.duration, progress)?;
            connections = Some(made);
            (sent, "handshakes".to_owned())
        }
        (Some(plan), _) => {
            used = engine(arguments, &interface, plan)?;
            let sent = send(arguments, used, &interface, plan)?;
            (sent, plan.size.to_string())
        }
        (None, Some(path)) => (capture(arguments, &interface, path)?, "capture".to_owned()),
        (None, None) => bail!("give --dst or --pcap"),
    };
    let seconds = sent.elapsed.as_secs_f64();
    let (mpps, gbit_per_second) = rates(sent.frames, sent.bytes, seconds);
    let destination = arguments.dst.map(|destination| destination.to_string());
    let report = report::Sent {
        interface: interface.name.clone(),
        destination: destination.unwrap_or_default(),
        protocol: plan.as_ref().map_or_else(String::new, |plan| {
            plan.layout.protocol.to_string().to_lowercase()
        }),
        flows: plan.map_or(0, |_| arguments.flows),
        size,
        sent: sent.frames,
        dropped: sent.dropped,
        bytes: sent.bytes,
        seconds,
        mpps,
        gbit_per_second,
        connections,
    };
    if arguments.part.is_none() {
        say_if_none_taken(&report, used, &interface);
    }
    print(&report, arguments.json)
}

/// What the command line asks for.
fn plan(arguments: &Arguments, interface: &Interface) -> anyhow::Result<Plan> {
    let destination = arguments.dst.context("--dst is missing")?;
    let protocol = match arguments.protocol {
        _ if !arguments.syn && !arguments.handshakes => arguments.protocol.unwrap_or(Protocol::Udp),
        None | Some(Protocol::Tcp) => Protocol::Tcp,
        Some(_) => bail!(Usage(
            "--syn and --handshakes are of TCP: leave --protocol out".to_owned()
        )),
    };
    let sources = match arguments.src {
        Some(prefix) => prefix,
        None => Prefix::host(next_hop::source_address(destination)?),
    };
    let mut flows = Flows::new(sources, arguments.flows)?;
    let destination_mac = match arguments.dst_mac {
        Some(mac) => mac,
        None => next_hop::resolve(interface, destination.ip())?,
    };
    let layout = Layout {
        source_mac: interface.mac,
        destination_mac,
        destination,
        protocol,
    };
    let mut run = run_number();
    if let Some(part) = arguments.part {
        run = part.run;
        let own = flows.part(part.number, part.of);
        flows = own.context("--part: there are fewer flows")?;
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

/// The engine that was asked for, or the fastest that can, for a plan that is sound: to find out, frames are sent.
fn engine(arguments: &Arguments, interface: &Interface, plan: &Plan) -> anyhow::Result<Engine> {
    plan.templates(interface, arguments.fragment)?;
    let is_special = arguments.fragment.is_some() || arguments.malformed.is_some();
    match arguments.engine {
        Some(Engine::LiveFrames) if is_special => {
            bail!(Usage(
                "--fragment and --malformed need --engine af-xdp: the kernel's generator cannot"
                    .to_owned()
            ))
        }
        Some(engine) => Ok(engine),
        None if is_special => Ok(Engine::AfXdp),
        None if live::are_taken(interface)? => Ok(Engine::LiveFrames),
        None => {
            let error = LiveError::Vanished(interface.name.clone());
            eprintln!("pktgen: {error}. Sending by AF_XDP instead, which is slower");
            Ok(Engine::AfXdp)
        }
    }
}

fn send(
    arguments: &Arguments,
    engine: Engine,
    interface: &Interface,
    plan: &Plan,
) -> anyhow::Result<Sent> {
    if engine == Engine::LiveFrames {
        let mut source = Source::load(interface.clone(), plan, arguments.duration)?;
        return Ok(source.send(progress(arguments))?);
    }
    let templates = plan.templates(interface, arguments.fragment)?;
    let mut traffic = match arguments.fragment {
        Some(bytes) => Traffic::fragments(plan.flows, templates, bytes),
        None => Traffic::of_flows(plan.flows, templates),
    };
    if let Some(percent) = arguments.malformed {
        traffic = traffic.with_damage(percent / 100.0);
    }
    by_user_space(arguments, interface, &mut traffic)
}

fn capture(arguments: &Arguments, interface: &Interface, path: &Path) -> anyhow::Result<Sent> {
    if arguments.engine == Some(Engine::LiveFrames) {
        bail!(Usage(
            "--pcap needs --engine af-xdp: the kernel's generator makes frames of its own"
                .to_owned()
        ));
    }
    let mut traffic = Traffic::capture(path)?;
    by_user_space(arguments, interface, &mut traffic)
}

fn by_user_space(
    arguments: &Arguments,
    interface: &Interface,
    traffic: &mut Traffic,
) -> anyhow::Result<Sent> {
    let mut sender = Sender::open(interface, arguments.queue, traffic.longest())?;
    Ok(sender.send(
        traffic,
        arguments.rate,
        arguments.duration,
        progress(arguments),
    )?)
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
    Ok(())
}

/// Why, probably, the interface took no frame at all.
fn say_if_none_taken(report: &report::Sent, engine: Engine, interface: &Interface) {
    if report.sent == 0 || report.dropped < report.sent {
        return;
    }
    let Interface { name, mtu, .. } = interface;
    match engine {
        Engine::LiveFrames => eprintln!("pktgen: {}", LiveError::Vanished(name.clone())),
        Engine::AfXdp => eprintln!(
            "pktgen: {name} took none of the frames: it takes those of {ETHERNET} to {} bytes (MTU {mtu})",
            mtu + ETHERNET
        ),
    }
}

/// What is told of the progress; of several workers, the first process says it.
fn progress(arguments: &Arguments) -> impl FnMut(Sent) + Send {
    let mut progress = arguments.part.is_none().then(Progress::new);
    move |sent| {
        if let Some(progress) = &mut progress {
            progress.say(sent);
        }
    }
}

/// Says once a second what was sent: on a terminal in one line, which ends with this, else every ten seconds.
struct Progress<W: Write> {
    out: W,
    is_terminal: bool,
    seconds: u64,
    last: Sent,
}

impl Progress<Stderr> {
    fn new() -> Self {
        let out = std::io::stderr();
        let is_terminal = out.is_terminal();
        Self::to(out, is_terminal)
    }
}

impl<W: Write> Progress<W> {
    fn to(out: W, is_terminal: bool) -> Self {
        Self {
            out,
            is_terminal,
            seconds: 0,
            last: Sent::default(),
        }
    }

    /// To be told once a second what was sent until now.
    fn say(&mut self, sent: Sent) {
        self.seconds += 1;
        if !self.is_terminal && !self.seconds.is_multiple_of(10) {
            return;
        }
        let rate = Sent {
            frames: sent.frames.saturating_sub(self.last.frames),
            elapsed: sent.elapsed.saturating_sub(self.last.elapsed),
            ..sent
        }
        .rate();
        let (begin, end) = if self.is_terminal {
            ("\r", " ")
        } else {
            ("", "\n")
        };
        // Without a progress the run goes on.
        let _ = write!(
            self.out,
            "{begin}{} s, {} packets, {:.3} Mpps{end}",
            self.seconds,
            sent.frames,
            rate / 1e6
        );
        self.last = sent;
    }
}

impl<W: Write> Drop for Progress<W> {
    fn drop(&mut self) {
        if self.is_terminal && self.seconds > 0 {
            let _ = writeln!(self.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(is_terminal: bool, seconds: u64) -> String {
        let mut out = Vec::new();
        let mut progress = Progress::to(&mut out, is_terminal);
        for second in 1..=seconds {
            progress.say(Sent {
                frames: second * 1000,
                elapsed: Duration::from_secs(second),
                ..Sent::default()
            });
        }
        drop(progress);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn progress_is_one_line_on_a_terminal_and_a_line_in_ten_seconds_elsewhere() {
        let twice = "\r1 s, 1000 packets, 0.001 Mpps \r2 s, 2000 packets, 0.001 Mpps \n";
        assert_eq!(said(true, 2), twice);
        assert_eq!(said(true, 0), "");
        assert_eq!(said(false, 9), "");
        assert_eq!(said(false, 19), "10 s, 10000 packets, 0.001 Mpps\n");
    }
}
