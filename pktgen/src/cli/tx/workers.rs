//! Several senders: this program once for each, with its part of the flows and of the rate.
//!
//! Processes, not threads: a signal has to interrupt each one's system call.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use pktgen::interface::Interface;
use pktgen::report::{self, rates};
use pktgen::units::Rate;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{Arguments, run_number};

/// One of several workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// From 0.
    pub(super) number: u32,
    pub(super) of: u32,
    /// In all stamps of all of them.
    pub(super) run: u8,
}

/// Reads `0/4/17`.
pub(super) fn part(text: &str) -> Result<Part, String> {
    let mut numbers = text.split('/').map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).ok_or("write I/N/RUN");
    Ok(Part {
        number: next()?,
        of: next()?,
        run: u8::try_from(next()?).map_err(|_| "RUN is at most 255")?,
    })
}

/// Runs all of them and adds up what they sent.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<report::Sent> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let run = run_number();
    let interface = Interface::find(&arguments.interface)?;
    let before = interface.sent()?;
    let mut children = Vec::new();
    for number in 0..arguments.workers {
        children.push(start(arguments, number, run)?);
    }
    while children
        .iter_mut()
        .any(|child| matches!(child.try_wait(), Ok(None)))
    {
        if stop.swap(false, Ordering::Relaxed) {
            children.iter().for_each(interrupt);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut total: Option<report::Sent> = None;
    for child in children {
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().last().unwrap_or("it said nothing");
            bail!("a worker failed: {}", said.trim_start_matches("pktgen: "));
        }
        let one: report::Sent =
            serde_json::from_slice(&output.stdout).context("a worker's report")?;
        total = Some(total.map_or_else(|| one.clone(), |total| add(total, &one)));
    }
    let mut total = total.context("there were no workers")?;
    // Each saw the interface take the others' frames, too.
    let taken = interface.sent()?.saturating_sub(before);
    total.dropped = total.sent.saturating_sub(taken);
    Ok(total)
}

fn start(arguments: &Arguments, number: u32, run: u8) -> anyhow::Result<Child> {
    let of = arguments.workers;
    let mut command = Command::new(std::env::current_exe()?);
    // All that was given, then what is its own: the last one counts.
    command.args(std::env::args_os().skip(1));
    command.args(["--part", &format!("{number}/{of}/{run}")]);
    Ok(command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?)
}

/// What this worker does differently than its command line says.
pub(super) fn own(arguments: &Arguments, part: Part) -> Arguments {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let first = arguments
        .core
        .and_then(|core| cores.iter().position(|id| id.id == core));
    let at = first.unwrap_or(0) + usize::try_from(part.number).unwrap_or(0);
    let core = cores.get(at % cores.len().max(1)).map(|id| id.id);
    Arguments {
        rate: match arguments.rate {
            Rate::Max => Rate::Max,
            Rate::PerSecond(rate) => Rate::PerSecond(rate / f64::from(part.of)),
        },
        core: core.or(arguments.core),
        queue: arguments.queue + part.number,
        json: true,
        ..arguments.clone()
    }
}

fn interrupt(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Fails if it has ended already.
        let _ = kill_process(pid, Signal::INT);
    }
}

fn add(total: report::Sent, one: &report::Sent) -> report::Sent {
    let (sent, bytes) = (total.sent + one.sent, total.bytes + one.bytes);
    let seconds = total.seconds.max(one.seconds);
    let (mpps, gbit_per_second) = rates(sent, bytes, seconds);
    report::Sent {
        sent,
        bytes,
        seconds,
        mpps,
        gbit_per_second,
        ..total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read() {
        let (number, of, run) = (1, 4, 200);
        assert_eq!(part("1/4/200"), Ok(Part { number, of, run }));
        for text in ["", "1/4", "1/4/256", "a/4/1"] {
            assert!(part(text).is_err(), "{text}");
        }
    }
}
