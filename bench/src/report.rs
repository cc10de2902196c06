//! The table, and the dated file that keeps it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::Spread;

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
}

/// One row of the memory table.
#[derive(Clone, Debug)]
pub struct Memory {
    pub flows: u32,
    pub ns: Spread,
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
        if !self.throughput.is_empty() {
            text += "\n## Over veth\n\n60-byte UDP frames, one direction, as fast as they come. \
                     Median (min..max) in million packets per second; the ratio is taken within each round.\n\n\
                     | | Mpps | of the bare forwarder | offered | rounds |\n|---|---|---|---|---|\n";
            for row in &self.throughput {
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
        if !self.memory.is_empty() {
            text += "\n## In memory (`pktgen ring`, DR, UDP)\n\n\
                     | flows | ns/packet | instructions/packet (callgrind) | by the processor's counter |\n|---|---|---|---|\n";
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
                    "| {} | {:.1} ({:.1}..{:.1}) | {callgrind} | {counter} |",
                    row.flows, row.ns.median, row.ns.min, row.ns.max
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
            throughput: vec![Throughput {
                name: "appliance".to_owned(),
                delivered: spread,
                offered: spread,
                ratio: None,
            }],
            memory: vec![Memory {
                flows: 10,
                ns: spread,
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
            text.contains("| 10 | 0.6 (0.5..0.7) | – | 123.4 |"),
            "{text}"
        );
        assert!(text.contains("**skipped**, because there is no valgrind"));
    }
}
