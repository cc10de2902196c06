//! `pktgen tx`

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use dataplane::service::{MacAddress, Protocol};
use pktgen::cpu;
use pktgen::flows::{Flows, Prefix};
use pktgen::frame::Layout;
use pktgen::interface::{Interface, parse_mac};
use pktgen::live::{Plan, Sent, Source};
use pktgen::next_hop;
use pktgen::report::{self, rates};
use pktgen::units::{self, Rate, Size};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Interface to send from
    #[arg(long, value_name = "IF")]
    interface: String,
    /// Address and port to send to
    #[arg(long, value_name = "VIP:PORT")]
    dst: SocketAddr,
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
    /// Packets per second; k and M are understood
    #[arg(long, value_name = "PPS|max", default_value_t = Rate::Max)]
    rate: Rate,
    /// udp, or tcp: a SYN for each flow, then ACKs
    #[arg(long, value_name = "udp|tcp", default_value = "udp", value_parser = super::protocol)]
    protocol: Protocol,
    /// How long to send: seconds, or a number with ms, s, m
    #[arg(long, value_name = "D", default_value = "10s", value_parser = units::duration)]
    duration: Duration,
    /// CPU to run on
    #[arg(long, value_name = "CPU")]
    core: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.dst.port() == 0 {
        bail!("--dst {}: port 0 cannot be sent to", arguments.dst);
    }
    if let Some(core) = arguments.core {
        cpu::pin(core)?;
    }
    let interface = Interface::find(&arguments.interface)?;
    let sources = match arguments.src {
        Some(prefix) => prefix,
        None => Prefix::host(next_hop::source_address(arguments.dst)?),
    };
    let destination_mac = match arguments.dst_mac {
        Some(mac) => mac,
        None => next_hop::resolve(&interface, arguments.dst.ip())?,
    };
    let layout = Layout {
        source_mac: interface.mac,
        destination_mac,
        destination: arguments.dst,
        protocol: arguments.protocol,
    };
    let plan = Plan {
        layout,
        flows: Flows::new(sources, arguments.flows)?,
        size: arguments
            .size
            .unwrap_or_else(|| Size::Fixed(layout.shortest_stamped())),
        rate: arguments.rate,
        vlan: arguments.vlan,
        run: run_number(),
    };
    let name = interface.name.clone();
    let mut source = Source::load(interface, &plan)?;
    let sent = source.send(arguments.duration, progress())?;
    let seconds = sent.elapsed.as_secs_f64();
    let (mpps, gbit_per_second) = rates(sent.frames, sent.bytes, seconds);
    let report = report::Sent {
        interface: name,
        destination: arguments.dst.to_string(),
        protocol: arguments.protocol.to_string().to_lowercase(),
        flows: arguments.flows,
        size: plan.size.to_string(),
        sent: sent.frames,
        dropped: sent.dropped,
        bytes: sent.bytes,
        seconds,
        mpps,
        gbit_per_second,
    };
    print(&report, arguments.json)
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
        serde_json::to_writer(&mut out, report)?;
        return Ok(writeln!(out)?);
    }
    writeln!(
        out,
        "sent {} packets in {:.2} s: {:.3} Mpps, {:.2} Gbit/s, {} dropped by {}",
        report.sent,
        report.seconds,
        report.mpps,
        report.gbit_per_second,
        report.dropped,
        report.interface
    )?;
    if report.sent > 0 && report.dropped == report.sent {
        eprintln!(
            "pktgen: {} sent nothing. On a veth the other end must have an XDP program or GRO: `ethtool -K PEER gro on`",
            report.interface
        );
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
