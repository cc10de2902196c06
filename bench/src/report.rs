//! The table, and the dated file that keeps it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::Spread;
use crate::tcp::Outcome;

/// One row of the veth table.
#[derive(Clone, Debug)]
pub struct Throughput {
    pub name: String,
    /// Mpps at the sink.
    pub delivered: Spread,
    /// Mpps that the source sent.
    pub offered: Spread,
    /// Of the bare forwarder's in the same round.
    pub ratio: Option<Spread>,
    /// Part of a CPU that the balancer used, where the load is a given one.
    pub cpu: Option<Spread>,
}

/// One row of the TCP table.
#[derive(Clone, Debug)]
pub struct Tcp {
    pub name: &'static str,
    pub requests: Spread,
    pub connections: Spread,
    /// Microseconds of the balancer's CPU.
    pub cpu_per_request: Spread,
    pub cpu_per_connection: Spread,
}

impl Tcp {
    /// The row of a balancer; `None` without a round.
    #[must_use]
    pub fn of(name: &'static str, outcomes: &[Outcome]) -> Option<Self> {
        let spread = |value: fn(&Outcome) -> f64| {
            Spread::of(&outcomes.iter().map(value).collect::<Vec<_>>())
        };
        Some(Self {
            name,
            requests: spread(|outcome| outcome.requests.per_second)?,
            connections: spread(|outcome| outcome.connections.per_second)?,
            cpu_per_request: spread(|outcome| outcome.requests.cpu)?,
            cpu_per_connection: spread(|outcome| outcome.connections.cpu)?,
        })
    }
}

/// One row of the memory table.
#[derive(Clone, Debug)]
pub struct Memory {
    pub flows: u32,
    pub ns: Spread,
    /// Of `limit` with a table of as many lines.
    pub limit: Spread,
    /// Of `ns` to `limit`, within each round.
    pub ratio: Spread,
    /// By callgrind, or why not.
    pub callgrind: Result<f64, String>,
    /// By the processor's counter.
    pub counter: Option<f64>,
}

/// All that one run found.
#[derive(Clone, Debug)]
pub struct Report {
    pub command: String,
    pub load_before: String,
    pub throughput: Vec<Throughput>,
    /// Rows, and how many times as fast they are as nftables's stateful DNAT, within each round.
    pub to_nftables: Vec<(String, Spread)>,
    pub tcp: Vec<Tcp>,
    pub memory: Vec<Memory>,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

impl Report {
    /// The report as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# Measurement of {}\n\n",
            first_line("date", &["-u", "+%F"])
        );
        for (name, value) in self.machine() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "- {name}: {value}");
        }
        for skipped in &self.skipped {
            let _ = writeln!(text, "- **skipped**, because {skipped}");
        }
        let (fixed, free): (Vec<_>, Vec<_>) =
            self.throughput.iter().partition(|row| row.cpu.is_some());
        if !free.is_empty() {
            text += "\n## Over veth\n\nUDP frames of 60 bytes where nothing else is said, one direction, as fast as they come. \
                     Median (min..max) in million packets per second; the ratio is taken within each round, with frames of the same size.\n\n\
                     | | Mpps | of the bare forwarder | offered | rounds |\n|---|---|---|---|---|\n";
            for row in free {
                let ratio = row
                    .ratio
                    .map_or_else(|| "–".to_owned(), |ratio| cell(&ratio));
                let _ = writeln!(
                    text,
                    "| {} | {} | {ratio} | {:.2} | {} |",
                    row.name,
                    cell(&row.delivered),
                    row.offered.median,
                    row.delivered.count
                );
            }
        }
        if !self.to_nftables.is_empty() {
            text += "\nBeside nftables's stateful DNAT, to the same sink and within each round:\n\n\
                     | | times its rate |\n|---|---|\n";
            for (name, ratio) in &self.to_nftables {
                let _ = writeln!(text, "| {name} | {} |", hundredths(ratio));
            }
        }
        if !fixed.is_empty() {
            text += "\n## Processor time at a given load\n\nUDP frames of 60 bytes. Percent of one CPU that the balancer used, median (min..max); \
                     what the source's CPU does for AF_XDP (the XDP program, the copy into the umem) is not in it.\n\n\
                     | | % of a CPU | delivered, Mpps |\n|---|---|---|\n";
            for row in fixed {
                let Some(cpu) = row.cpu else { continue };
                let _ = writeln!(
                    text,
                    "| {} | {:.1} ({:.1}..{:.1}) | {} |",
                    row.name,
                    cpu.median * 100.0,
                    cpu.min * 100.0,
                    cpu.max * 100.0,
                    cell(&row.delivered)
                );
            }
        }
        if !self.tcp.is_empty() {
            text += "\n## TCP\n\nwrk with one thread and 64 connections, four real servers (nginx), all on CPU 0; the balancer on CPU 1. \
                     Median (min..max); processor time is the balancer's.\n\n\
                     | | requests/s | connections/s | µs/request | µs/connection |\n|---|---|---|---|---|\n";
            let whole = |spread: &Spread| {
                format!(
                    "{:.0} ({:.0}..{:.0})",
                    spread.median, spread.min, spread.max
                )
            };
            for row in &self.tcp {
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {} | {} |",
                    row.name,
                    whole(&row.requests),
                    whole(&row.connections),
                    tenths(&row.cpu_per_request),
                    tenths(&row.cpu_per_connection)
                );
            }
        }
        if !self.memory.is_empty() {
            text += "\n## In memory (`pktgen ring`, DR, UDP)\n\n\
                     The limit is a loop that reads one line of a table of as many lines for each packet, in bursts and prefetched, and \
                     touches the frame. Median (min..max); the ratio is taken within each round.\n\n\
                     | flows | ns/packet | limit | ratio | instructions/packet (callgrind) | by the processor's counter |\n|---|---|---|---|---|---|\n";
            for row in &self.memory {
                let callgrind = match &row.callgrind {
                    Ok(count) => format!("{count:.1}"),
                    Err(_) => "–".to_owned(),
                };
                let counter = row
                    .counter
                    .map_or_else(|| "–".to_owned(), |count| format!("{count:.1}"));
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {} | {callgrind} | {counter} |",
                    row.flows,
                    tenths(&row.ns),
                    tenths(&row.limit),
                    tenths(&row.ratio)
                );
            }
        }
        text
    }

    /// Writes the report as `directory/<date>.md`; returns the path. A second run on one day replaces
    /// the first.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, directory: &Path) -> anyhow::Result<PathBuf> {
        let path = directory.join(format!("{}.md", first_line("date", &["-u", "+%F"])));
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&path, self.markdown()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn machine(&self) -> [(&'static str, String); 6] {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        [
            ("processor", format!("{model}, {cpus} CPUs")),
            ("kernel", first_line("uname", &["-r"])),
            ("compiler", first_line("rustc", &["--version"])),
            (
                "commit",
                first_line("git", &["describe", "--always", "--dirty"]),
            ),
            ("command", format!("`{}`", self.command)),
            ("load average before", self.load_before.clone()),
        ]
    }
}

fn cell(spread: &Spread) -> String {
    format!(
        "{:.3} ({:.3}..{:.3})",
        spread.median, spread.min, spread.max
    )
}

fn hundredths(spread: &Spread) -> String {
    format!(
        "{:.2} ({:.2}..{:.2})",
        spread.median, spread.min, spread.max
    )
}

fn tenths(spread: &Spread) -> String {
    format!(
        "{:.1} ({:.1}..{:.1})",
        spread.median, spread.min, spread.max
    )
}

/// The first line that a program prints, or `unknown`: a report without one fact is better than none.
fn first_line(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| {
            let text = String::from_utf8_lossy(&output.stdout);
            text.lines().next().map(str::to_owned)
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_omissions_are_shown() {
        let spread = Spread::of(&[0.5, 0.6, 0.7]).unwrap();
        let report = Report {
            command: "bench/run".to_owned(),
            load_before: "0.00".to_owned(),
            to_nftables: vec![("appliance, NAT".to_owned(), spread)],
            throughput: vec![Throughput {
                name: "appliance".to_owned(),
                delivered: spread,
                offered: spread,
                ratio: None,
                cpu: None,
            }],
            tcp: Vec::new(),
            memory: vec![Memory {
                flows: 10,
                ns: spread,
                limit: spread,
                ratio: spread,
                callgrind: Err("no valgrind".to_owned()),
                counter: Some(123.4),
            }],
            skipped: vec!["there is no valgrind".to_owned()],
        };
        let text = report.markdown();
        assert!(
            text.contains("| appliance | 0.600 (0.500..0.700) | – | 0.60 | 3 |"),
            "{text}"
        );
        assert!(
            text.contains("| 10 | 0.6 (0.5..0.7) | 0.6 (0.5..0.7) | 0.6 (0.5..0.7) | – | 123.4 |"),
            "{text}"
        );
        assert!(
            text.contains("| appliance, NAT | 0.60 (0.50..0.70) |"),
            "{text}"
        );
        assert!(text.contains("**skipped**, because there is no valgrind"));
    }
}
