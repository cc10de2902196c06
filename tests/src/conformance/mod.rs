//! The conformance cases: a configuration and packets in, packets and counters out.
//!
//! A case is a directory of `tests/conformance/`, whose README says what is in it. [`Case::run`]
//! replays it and looks at the result twice: against what was recorded (`out.txt`, `out.pcap`,
//! `counters.txt`), and against what holds for every case (`invariants`), so that an error cannot
//! be recorded along with a regeneration.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use control::replay;
use dataplane::counters::Counters;
use pcap_file::TsResolution;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};

pub use dissector::{Dissected, dissect};

use crate::script::{self, Script};

mod diff;
mod dissector;
mod full_nat;
mod invariants;
mod proxying;
mod rewriting;

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    directory: PathBuf,
}

/// What is done with the recorded files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are compared with.
    Check,
    /// They are written.
    Regenerate,
}

/// A frame and when it was received or sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub time: Duration,
    pub bytes: Vec<u8>,
}

/// What a case comes to.
struct Replayed {
    input: Vec<u8>,
    output: Vec<u8>,
    rendition: String,
    counters: String,
}

/// Every case in `root`, by name.
///
/// # Errors
/// The directory cannot be read.
pub fn cases(root: &Path) -> anyhow::Result<Vec<Case>> {
    let entries = fs::read_dir(root).with_context(|| root.display().to_string())?;
    let mut cases = Vec::new();
    for entry in entries {
        let directory = entry?.path();
        if let (true, Some(name)) = (directory.is_dir(), directory.file_name()) {
            cases.push(Case {
                name: name.to_string_lossy().into_owned(),
                directory,
            });
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

impl Case {
    /// The first line of `about.txt`.
    ///
    /// # Errors
    /// There is none.
    pub fn summary(&self) -> anyhow::Result<String> {
        let about = self.text("about.txt")?;
        let line = about.lines().next().filter(|line| !line.is_empty());
        Ok(line
            .context("about.txt: empty, expected one line that says what the case shows")?
            .to_owned())
    }

    /// Replays the case. Returns the names of the files that were written.
    ///
    /// # Errors
    /// What differs from the recorded files, or what is wrong with the case.
    pub fn run(&self, mode: Mode) -> anyhow::Result<Vec<&'static str>> {
        self.summary()?;
        let result = self.replay()?;
        match mode {
            Mode::Regenerate => self.record(&result),
            Mode::Check => self.compare(&result).map(|()| Vec::new()),
        }
    }

    fn replay(&self) -> anyhow::Result<Replayed> {
        let script = script::parse(&self.text("in.txt")?, &self.path("in.txt"))?;
        let sent = frames(&script)?;
        let input = write_capture(&sent)?;

        let config = control::config::load(&self.path("config.toml"))
            .map_err(|diagnostics| anyhow!("{diagnostics}"))?;
        anyhow::ensure!(config.warnings.is_empty(), "{}", config.warnings);
        let directory = tempfile::tempdir()?;
        let [input_path, output_path] =
            ["in.pcap", "out.pcap"].map(|name| directory.path().join(name));
        fs::write(&input_path, &input)?;
        let counters: Counters = replay::replay(&config.config, &input_path, &output_path)?;
        let output = fs::read(&output_path)?;
        let received = read_capture(&output)?;

        invariants::check(&config.config, &sent, &received, &counters)?;
        let lines = received
            .iter()
            .map(|frame| script::render(frame.time, &frame.bytes, &script.names) + "\n");
        Ok(Replayed {
            input,
            output,
            rendition: lines.collect(),
            counters: replay::display(&counters),
        })
    }

    fn compare(&self, result: &Replayed) -> anyhow::Result<()> {
        let mut problems = Vec::new();
        if self.recorded("in.pcap")? != result.input {
            problems.push("in.pcap is not what in.txt says".to_owned());
        }
        for (file, found) in [
            ("out.txt", &result.rendition),
            ("counters.txt", &result.counters),
        ] {
            let expected = String::from_utf8(self.recorded(file)?)
                .with_context(|| format!("{file}: not text"))?;
            if expected != *found {
                problems.push(format!(
                    "{file} (- recorded, + now):\n{}",
                    diff::lines(&expected, found)
                ));
            }
        }
        if problems.is_empty() && self.recorded("out.pcap")? != result.output {
            problems.push("out.pcap differs from what out.txt says".to_owned());
        }
        if problems.is_empty() {
            return Ok(());
        }
        problems.push(
            "If this is how it should be: record it with --regenerate and review the diff."
                .to_owned(),
        );
        Err(anyhow!(problems.join("\n")))
    }

    fn record(&self, result: &Replayed) -> anyhow::Result<Vec<&'static str>> {
        let mut written = Vec::new();
        for (file, bytes) in [
            ("in.pcap", &result.input[..]),
            ("out.pcap", &result.output),
            ("out.txt", result.rendition.as_bytes()),
            ("counters.txt", result.counters.as_bytes()),
        ] {
            let path = self.path(file);
            if !fs::read(&path).is_ok_and(|old| old == bytes) {
                fs::write(&path, bytes).with_context(|| path.display().to_string())?;
                written.push(file);
            }
        }
        Ok(written)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    fn text(&self, file: &str) -> anyhow::Result<String> {
        fs::read_to_string(self.path(file)).with_context(|| self.path(file).display().to_string())
    }

    fn recorded(&self, file: &str) -> anyhow::Result<Vec<u8>> {
        fs::read(self.path(file)).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                anyhow!("{file}: not recorded yet; record it with --regenerate")
            } else {
                anyhow!(error).context(self.path(file).display().to_string())
            }
        })
    }
}

/// The frames that a script describes.
fn frames(script: &Script) -> anyhow::Result<Vec<Frame>> {
    let frames = (1..).zip(&script.packets).map(|(number, timed)| {
        let bytes = script::build(&timed.packet)
            .with_context(|| format!("in.txt: packet {number} at {:?}", timed.time))?;
        Ok(Frame {
            time: timed.time,
            bytes,
        })
    });
    frames.collect()
}

fn write_capture(frames: &[Frame]) -> anyhow::Result<Vec<u8>> {
    let header = PcapHeader {
        ts_resolution: TsResolution::NanoSecond,
        endianness: pcap_file::Endianness::Little,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(Vec::new(), header)?;
    for frame in frames {
        let length = u32::try_from(frame.bytes.len())?;
        writer.write_packet(&PcapPacket::new(frame.time, length, &frame.bytes))?;
    }
    Ok(writer.into_writer())
}

fn read_capture(bytes: &[u8]) -> anyhow::Result<Vec<Frame>> {
    let mut reader = PcapReader::new(bytes)?;
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet?;
        frames.push(Frame {
            time: packet.timestamp,
            bytes: packet.data.into_owned(),
        });
    }
    Ok(frames)
}
