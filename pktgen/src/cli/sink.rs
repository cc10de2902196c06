//! `pktgen sink`

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataplane::service::MacAddress;
use pktgen::cpu;
use pktgen::handshake::{Segment, respond};
use pktgen::interface::{Interface, parse_mac};
use pktgen::receive::{Receiver, Take};
use pktgen::report::{Found, Received, packets_per_second, rates};
use pktgen::units;
use pktgen::verify::{Expected, Mode, Verifier};
use signal_hook::consts::{SIGINT, SIGTERM};

/// How long a silent socket is waited for before the clock is looked at.
const PATIENCE: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Interface to receive from
    #[arg(long, value_name = "IF")]
    interface: String,
    /// How the director forwards, which says what names a real server in a frame: its Ethernet address,
    /// its address and port, or the address of the tunnel
    #[arg(long, value_name = "dr|nat|fullnat|tun", default_value = "dr")]
    mode: Mode,
    /// A real server and its weight; may be repeated [default: all that get something, alike]
    #[arg(long, value_name = "SERVER=WEIGHT")]
    server: Vec<Expected>,
    /// Only count, in the kernel: nothing is verified, the sender is not slowed down, and the rate is that of the
    /// sink's whole time
    #[arg(long, conflicts_with = "server")]
    count: bool,
    /// Be a server: answer TCP segments to this port, for `tx --handshakes`
    #[arg(long, value_name = "PORT", conflicts_with_all = ["server", "count"], value_parser = clap::value_parser!(u16).range(1..))]
    respond: Option<u16>,
    /// Ethernet address to answer to [default: where the segment came from, which with NAT is right]
    #[arg(long, value_name = "MAC", requires = "respond", value_parser = parse_mac)]
    reply_mac: Option<MacAddress>,
    /// How long to receive: seconds, or a number with ms, s, m [default: until Ctrl-C]
    #[arg(long, value_name = "D", value_parser = units::duration)]
    duration: Option<Duration>,
    /// CPU to run on
    #[arg(long, value_name = "CPU")]
    core: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Receives until the time is over or a signal arrives, and prints what was measured so far.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(core) = arguments.core {
        cpu::pin(core)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    for server in &arguments.server {
        server.check(arguments.mode)?;
    }
    let interface = Interface::find(&arguments.interface)?;
    let take = match arguments.respond {
        Some(port) => Take::ToPort(port),
        None if arguments.count => Take::Count,
        None => Take::Deliver,
    };
    let mut receiver = Receiver::attach(&interface, take)?;
    let mut verifier = Verifier::new(arguments.mode, &arguments.server);
    let mut progress = Progress::new();
    eprintln!("ready");
    let start = Instant::now();
    let mut times: Option<(u64, u64)> = None;
    let mut responses = Responses::default();
    let mut drain = |receiver: &mut Receiver| {
        receiver.exchange(|frame, arrived, out| {
            times = Some(times.map_or((arrived, arrived), |(first, _)| (first, arrived)));
            if arguments.respond.is_none() {
                return verifier.look(frame, arrived);
            }
            responses.look(frame, arguments.reply_mac, |answer| out.send(answer));
        })
    };
    while !stop.load(Ordering::Relaxed)
        && arguments
            .duration
            .is_none_or(|duration| start.elapsed() < duration)
    {
        if drain(&mut receiver) == 0 {
            receiver.wait(PATIENCE);
            progress.say(&receiver)?;
        } else if progress.is_due() {
            progress.say(&receiver)?;
        }
    }
    receiver.close()?;
    while drain(&mut receiver) > 0 {}
    progress.end();

    let (received, bytes) = receiver.counted()?;
    let found = (take == Take::Deliver).then(|| verifier.found());
    let seconds = match times {
        Some((first, last)) => last.saturating_sub(first) as f64 / 1e9,
        None => start.elapsed().as_secs_f64(),
    };
    let (mpps, gbit_per_second) = rates(received, bytes, seconds);
    let looked_at = match (take, &found) {
        (Take::ToPort(_), _) => responses.done,
        (_, Some(found)) => found.frames,
        (_, None) => received,
    };
    print(
        &Received {
            interface: interface.name,
            received,
            bytes,
            seconds,
            mpps,
            gbit_per_second,
            answered: arguments.respond.map(|_| responses.answered),
            missed: received.saturating_sub(looked_at),
            found,
        },
        arguments.json,
    )
}

/// What `--respond` did.
#[derive(Debug, Default)]
struct Responses {
    /// Segments that need nothing more: they were answered, or need no answer.
    done: u64,
    answered: u64,
    answer: Vec<u8>,
}

impl Responses {
    /// Answers a segment, by `send`, which is false when it cannot.
    fn look(
        &mut self,
        frame: &[u8],
        reply_mac: Option<MacAddress>,
        send: impl FnOnce(&[u8]) -> bool,
    ) {
        if let Some(mut segment) = Segment::read(frame).and_then(|it| respond(&it)) {
            segment.destination_mac = reply_mac.unwrap_or(segment.destination_mac);
            segment.write(&mut self.answer);
            if !send(&self.answer) {
                return;
            }
            self.answered += 1;
        }
        self.done += 1;
    }
}

/// A line on a terminal, once a second.
#[derive(Debug)]
struct Progress {
    terminal: bool,
    seconds: u64,
    next: Instant,
    last: u64,
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(1);

    fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            seconds: 0,
            next: Instant::now() + Self::EVERY,
            last: 0,
        }
    }

    fn is_due(&self) -> bool {
        self.terminal && Instant::now() >= self.next
    }

    fn say(&mut self, receiver: &Receiver) -> anyhow::Result<()> {
        if self.is_due() {
            self.next += Self::EVERY;
            self.seconds += 1;
            let (frames, _) = receiver.counted()?;
            let rate = (frames - self.last) as f64 / 1e6;
            eprint!("\r{} s, {frames} packets, {rate:.3} Mpps ", self.seconds);
            self.last = frames;
        }
        Ok(())
    }

    /// Leaves the cursor on a new line.
    fn end(&self) {
        if self.seconds > 0 {
            eprintln!();
        }
    }
}

fn print(report: &Received, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        return super::print_json(&mut out, report);
    }
    writeln!(
        out,
        "received  {} packets in {:.2} s: {}, {:.2} Gbit/s",
        report.received,
        report.seconds,
        packets_per_second(report.mpps),
        report.gbit_per_second
    )?;
    if report.missed > 0 && report.answered.is_some() {
        let missed = report.missed;
        writeln!(
            out,
            "missed    {missed} of them came faster than they could be answered"
        )?;
    } else if report.missed > 0 {
        writeln!(
            out,
            "missed    {} of them came faster than they could be looked at: what follows is of the others, \
             and lost ones cannot be told from missed ones. Send more slowly, or use --count",
            report.missed
        )?;
    }
    if let Some(answered) = report.answered {
        writeln!(out, "answered  {answered} TCP segments")?;
    }
    match &report.found {
        Some(found) => print_found(&mut out, found),
        None => Ok(()),
    }
}

fn print_found(out: &mut impl std::io::Write, found: &Found) -> anyhow::Result<()> {
    let bad = [
        (found.malformed, "malformed"),
        (found.bad_ip_checksums, "with a wrong IP checksum"),
        (found.bad_l4_checksums, "with a wrong UDP or TCP checksum"),
    ];
    let well = match found.frames {
        0 => "none",
        _ => "all whole, checksums right",
    };
    writeln!(out, "packets   {}", summary(&bad, well))?;
    writeln!(
        out,
        "sequence  {} lost, {} duplicates, {} out of order{}",
        found.lost,
        found.duplicates,
        found.reordered,
        match found.unfollowed {
            0 => String::new(),
            frames => format!("; {frames} not judged, as their flows are too many to follow"),
        }
    )?;
    writeln!(out, "flows     {}", flows(found))?;
    for server in &found.servers {
        writeln!(
            out,
            "  {:<24} {:>9} flows {:>6.2} %  expected {:>6.2} %  {:>11} packets",
            server.server,
            server.flows,
            server.share * 100.0,
            server.expected_share * 100.0,
            server.frames
        )?;
    }
    if let Some(spread) = &found.spread {
        let verdict = if spread.fits {
            "as the weights want it"
        } else {
            "NOT as the weights want it"
        };
        writeln!(
            out,
            "  spread: {verdict} (chi-square {:.1}; chance stays below {:.1})",
            spread.chi_square, spread.limit
        )?;
    }
    if let Some(latency) = &found.latency {
        writeln!(
            out,
            "latency   p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1} µs (min {:.1}, mean {:.1})",
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.max,
            latency.min,
            latency.mean
        )?;
    }
    Ok(())
}

/// Whether each flow had one server, and whether any is missing.
fn flows(found: &Found) -> String {
    if found.flows == 0 {
        return "none".to_owned();
    }
    let astray = [
        (found.moved_flows, "at more than one server"),
        (
            found.moved_frames,
            "packets at another server than their flow's first",
        ),
    ];
    let silent = match found.silent_flows {
        0 => String::new(),
        flows => format!("; nothing came of {flows} others"),
    };
    let astray = summary(&astray, "each at one server");
    format!("{}: {astray}{silent}", found.flows)
}

/// What there is any of, or that all is well.
fn summary(counts: &[(u64, &str)], well: &str) -> String {
    let some = counts.iter().filter(|(count, _)| *count > 0);
    let some: Vec<String> = some
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if some.is_empty() {
        well.to_owned()
    } else {
        some.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(found: &Found) -> String {
        let mut out = Vec::new();
        print_found(&mut out, found).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn flows_that_are_missing_do_not_hide_the_verdict() {
        let found = Found {
            frames: 20,
            flows: 10,
            silent_flows: 3,
            ..Found::default()
        };
        assert!(
            text(&found).contains("flows     10: each at one server; nothing came of 3 others\n")
        );
        let found = Found {
            moved_flows: 2,
            moved_frames: 5,
            ..found
        };
        assert!(
            text(&found).contains("flows     10: 2 at more than one server, 5 packets at another")
        );
    }

    #[test]
    fn what_cannot_be_answered_is_not_done() {
        let (client, server) = (([10, 0, 0, 1].into(), 1024), ([10, 0, 0, 2].into(), 80));
        let syn = Segment::opening(Default::default(), client, server, 7);
        let mut frame = Vec::new();
        syn.write(&mut frame);
        let mut responses = Responses::default();
        responses.look(&frame, None, |_| true);
        responses.look(&frame, None, |_| false);
        assert_eq!((responses.answered, responses.done), (1, 1));
        let ack = Segment { flags: 0x10, ..syn };
        ack.write(&mut frame);
        responses.look(&frame, None, |_| panic!("an ACK needs no answer"));
        assert_eq!((responses.answered, responses.done), (1, 2));
    }

    #[test]
    fn of_nothing_nothing_is_said_to_be_well() {
        let text = text(&Found::default());
        assert!(text.starts_with("packets   none\n"), "{text}");
        assert!(text.contains("flows     none\n"), "{text}");
    }
}
