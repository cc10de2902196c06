//! `appliance top`: what happens now, again and again.
//!
//! A table as text and a few ANSI sequences: the terminal's own alternate screen and colours do what is
//! wanted, so a library for terminals (`ratatui`) would bring forty crates for little. Keys are not
//! read: Ctrl-C ends it, which the terminal turns into SIGINT.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::table::Align::{Left, Right};
use super::table::Table;
use super::{EXIT_STATUS, Failure};
use crate::api::client::Client;
use crate::api::view::{Drop, Health, RealServer, Service, Traffic, Vrrp, Worker};
use crate::in_words::{duration, scaled};

/// Enter and leave the alternate screen, and hide and show the cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the first place, and what is beyond the end of a line, or of all.
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const REST: &str = "\x1b[J";
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Show rates, health, VRRP and drops live
///
/// Ctrl-C ends it. Where stdout is no terminal, one picture follows the other,
/// separated by an empty line; --count says how many.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Top {
    /// Seconds between two pictures
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
    /// End after this many pictures [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// One look at the appliance.
#[derive(Debug)]
struct Picture {
    at: Instant,
    services: Vec<Service>,
    vrrp: Vrrp,
    workers: Vec<Worker>,
    drops: Vec<Drop>,
}

impl Top {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 2 for an interval that is none; 1 when no appliance answers.
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        if !(0.1..=3600.0).contains(&self.interval) {
            let found = self.interval;
            return Err(Failure::Usage(anyhow!(
                "--interval: found {found}, expected 0.1 to 3600 seconds"
            )));
        }
        let interval = Duration::from_secs_f64(self.interval);
        let client = Client::new(socket).map_err(anyhow::Error::from)?;
        let mut screen = Screen::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make an event loop")?;
        let mut interrupted = runtime
            .block_on(async { Interrupts::new() })
            .context("cannot listen to signals")?;
        let mut before = look(&client)?;
        let mut shown = 0;
        loop {
            // Rates need two looks.
            if runtime.block_on(interrupted.within(interval)) {
                return Ok(());
            }
            let now = look(&client)?;
            match screen.show(&before, &now) {
                // As after `| head`: the reader has what it wanted.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                shown => shown.context("cannot write to stdout")?,
            }
            before = now;
            shown += 1;
            if self.count == Some(shown) {
                return Ok(());
            }
        }
    }
}

fn look(client: &Client) -> anyhow::Result<Picture> {
    Ok(Picture {
        services: client.get("services")?,
        vrrp: client.get("vrrp")?,
        workers: client.get("workers")?,
        drops: client.get("drops")?,
        at: Instant::now(),
    })
}

/// SIGINT and SIGTERM, after which the terminal is to be put right.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits; true if it was interrupted.
    async fn within(&mut self, time: Duration) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            () = tokio::time::sleep(time) => false,
        }
    }
}

/// Stdout: a terminal that is drawn over, or a stream of pictures.
struct Screen {
    is_terminal: bool,
    entered: bool,
}

impl Screen {
    fn new() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
            entered: false,
        }
    }

    fn show(&mut self, before: &Picture, now: &Picture) -> io::Result<()> {
        let text = render(before, now, self.is_terminal)?;
        let mut out = io::stdout().lock();
        if !self.is_terminal {
            out.write_all(text.as_bytes())?;
            out.write_all(b"\n")?;
            return out.flush();
        }
        let size = rustix::termios::tcgetwinsize(&out).ok();
        // A serial line may not know.
        let size = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
        let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
        if !self.entered {
            out.write_all(ENTER.as_bytes())?;
            self.entered = true;
        }
        let mut drawn = HOME.to_owned();
        for line in text.lines().take(usize::from(rows).saturating_sub(1)) {
            drawn += &cut(line, columns.into());
            drawn += REST_OF_LINE;
            drawn += "\r\n";
        }
        drawn += REST;
        out.write_all(drawn.as_bytes())?;
        out.flush()
    }
}

impl std::ops::Drop for Screen {
    fn drop(&mut self) {
        if self.entered {
            let mut out = io::stdout().lock();
            // Nothing is left to be done if the terminal is gone.
            let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// The line, as far as the terminal has columns: sequences take none, and the last one stays.
fn cut(line: &str, columns: usize) -> String {
    let mut kept = String::with_capacity(line.len());
    let (mut width, mut in_sequence) = (0, false);
    for character in line.chars() {
        if character == '\x1b' {
            in_sequence = true;
        }
        if in_sequence {
            in_sequence = character != 'm';
            kept.push(character);
        } else if width < columns {
            width += 1;
            kept.push(character);
        }
    }
    kept
}

/// One picture as text.
fn render(before: &Picture, now: &Picture, colours: bool) -> io::Result<String> {
    let mut out = Vec::new();
    let seconds = now
        .at
        .saturating_duration_since(before.at)
        .as_secs_f64()
        .max(1e-3);
    let rate = |old: u64, new: u64| {
        let per_second = new.saturating_sub(old) as f64 / seconds;
        // Far below what a float cannot tell apart.
        #[expect(clippy::cast_possible_truncation, reason = "a rate, rounded")]
        #[expect(clippy::cast_sign_loss, reason = "not negative")]
        scaled(per_second.round() as u64)
    };
    head(&mut out, before, now, &rate)?;
    services(&mut out, before, now, &rate, colours)?;
    vrrp(&mut out, &now.vrrp)?;
    drops(&mut out, before, now, &rate)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

type Rate<'r> = &'r dyn Fn(u64, u64) -> String;

fn head(out: &mut Vec<u8>, before: &Picture, now: &Picture, rate: Rate<'_>) -> io::Result<()> {
    let sum = |picture: &Picture, name: &str| -> u64 {
        let counters = picture.workers.iter().filter_map(|w| w.counters.get(name));
        counters.sum()
    };
    let rate_of = |name| rate(sum(before, name), sum(now, name));
    let dropped = |picture: &Picture| picture.drops.iter().map(|d| d.packets_total).sum();
    writeln!(
        out,
        "received {}/s, {}B/s   sent {}/s   dropped {}/s   connections {}, {} new/s\n",
        rate_of("rx_packets"),
        rate_of("rx_bytes"),
        rate_of("tx_packets"),
        rate(dropped(before), dropped(now)),
        scaled(sum(now, "connections")),
        rate_of("connections_created"),
    )
}

fn services(
    out: &mut Vec<u8>,
    before: &Picture,
    now: &Picture,
    rate: Rate<'_>,
    colours: bool,
) -> io::Result<()> {
    if now.services.is_empty() {
        return writeln!(out, "no virtual servers");
    }
    let mut old = BTreeMap::new();
    for service in &before.services {
        for server in &service.real_servers {
            let key = (&service.protocol, service.address, server.address);
            old.insert(key, server.traffic);
        }
    }
    let mut table = Table::new([
        ("Virtual server, real servers", Left),
        ("Weight", Right),
        ("Active", Right),
        ("Inactive", Right),
        ("Conns/s", Right),
        ("Packets/s", Right),
        ("Bytes/s", Right),
        ("State", Left),
    ]);
    let mut marks = Vec::new();
    for service in &now.services {
        let key = |server: &RealServer| (&service.protocol, service.address, server.address);
        let earlier = |server: &RealServer| {
            // A real server that is new begins at 0: what it has is no rate.
            old.get(&key(server)).copied().unwrap_or(server.traffic)
        };
        let sum: Traffic = service.real_servers.iter().map(earlier).sum();
        let fit = |server: &&RealServer| server.health.is_fit();
        let up = service.real_servers.iter().filter(fit);
        let state = format!("{} of {} up", up.count(), service.real_servers.len());
        let name = format!(
            "{} {} {}",
            service.protocol, service.address, service.scheduler
        );
        table.push(line(
            name,
            String::new(),
            (&sum, &service.traffic),
            rate,
            state,
        ));
        marks.push(BOLD);
        for server in &service.real_servers {
            let mut state = server.health.as_str().to_owned();
            if server.drained {
                state += ", drained";
            }
            if let Some(reason) = &server.reason {
                state = format!("{state}: {reason}");
            }
            let traffic = (&earlier(server), &server.traffic);
            let name = format!("  -> {} {}", server.address, server.forwarding_method);
            table.push(line(name, server.weight.to_string(), traffic, rate, state));
            marks.push(if server.health == Health::Down {
                RED
            } else {
                ""
            });
        }
    }
    let mut text = Vec::new();
    table.write(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    for (line, mark) in text.lines().zip([""].into_iter().chain(marks)) {
        match (colours, mark) {
            (true, mark) if !mark.is_empty() => writeln!(out, "{mark}{line}{PLAIN}")?,
            _ => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}

fn line(
    name: String,
    weight: String,
    (old, new): (&Traffic, &Traffic),
    rate: Rate<'_>,
    state: String,
) -> [String; 8] {
    [
        name,
        weight,
        new.active_connections.to_string(),
        new.inactive_connections.to_string(),
        rate(old.connections_total, new.connections_total),
        rate(old.packets_total, new.packets_total),
        rate(old.bytes_total, new.bytes_total),
        state,
    ]
}

fn vrrp(out: &mut Vec<u8>, vrrp: &Vrrp) -> io::Result<()> {
    for instance in &vrrp.instances {
        let faults = match instance.faults.as_slice() {
            [] => String::new(),
            some => format!(": {}", some.join(", ")),
        };
        writeln!(
            out,
            "\nVRRP {} {} for {}, priority {}{faults}",
            instance.name,
            instance.state,
            duration(instance.since_seconds),
            instance.priority
        )?;
    }
    Ok(())
}

/// Those that happened since the last look.
fn drops(out: &mut Vec<u8>, before: &Picture, now: &Picture, rate: Rate<'_>) -> io::Result<()> {
    for drop in &now.drops {
        let mut earlier = before.drops.iter();
        let old = earlier.find(|old| old.reason == drop.reason);
        let old = old.map_or(drop.packets_total, |old| old.packets_total);
        if drop.packets_total > old {
            writeln!(
                out,
                "\ndropped {}/s {}: {}",
                rate(old, drop.packets_total),
                drop.reason,
                drop.description
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::example;

    fn pictures() -> (Picture, Picture) {
        let picture = |at| Picture {
            at,
            services: example::services(),
            vrrp: example::vrrp(),
            workers: example::workers(),
            drops: example::drops(),
        };
        let start = Instant::now();
        let before = picture(start);
        let mut now = picture(start + Duration::from_secs(2));
        let server = &mut now.services[0].real_servers[0];
        server.traffic.packets_total += 50_000;
        now.services[0].traffic.packets_total += 50_000;
        now.drops[1].packets_total += 30;
        *now.workers[0].counters.get_mut("rx_packets").unwrap() += 50_030;
        (before, now)
    }

    #[test]
    fn rates_are_differences_over_time() {
        let (before, now) = pictures();
        let text = render(&before, &now, false).unwrap();
        assert!(text.starts_with("received 25.0k/s, 0B/s"), "{text}");
        let server = text
            .lines()
            .find(|l| l.contains("-> 192.168.1.101:80"))
            .unwrap();
        assert!(server.contains(" 25.0k "), "{text}");
        assert!(
            text.contains("dropped 15/s no_real_server: The virtual"),
            "{text}"
        );
        assert!(text.contains("VRRP VI_3 FAULT for 1h02m, priority 100: the interface is down"));
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn colours_mark_what_is_down() {
        let (before, now) = pictures();
        let text = render(&before, &now, true).unwrap();
        let down = text
            .lines()
            .find(|l| l.contains("192.168.1.102:80"))
            .unwrap();
        assert!(down.starts_with(RED) && down.ends_with(PLAIN), "{down:?}");
    }

    #[test]
    fn lines_are_cut_but_sequences_are_not() {
        let line = format!("{RED}abcdef{PLAIN}");
        assert_eq!(cut(&line, 3), format!("{RED}abc{PLAIN}"));
        assert_eq!(cut("é→x", 2), "é→");
    }
}
