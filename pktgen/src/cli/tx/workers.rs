//! Several senders: this program once for each, with its part of the flows and of the rate.
//!
//! Processes, not threads: a signal has to interrupt each one's system call.

use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use pktgen::cpu;
use pktgen::interface::Interface;
use pktgen::live::Sent;
use pktgen::report::{self, rates};
use pktgen::units::Rate;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::super::Usage;
use super::{Arguments, Engine, Progress, engine, plan, say_if_none_taken};

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
    if let Some(core) = arguments.core {
        cpu::find(core)?;
    }
    let interface = Interface::find(&arguments.interface)?;
    // What is wrong with the command line is wrong with all of them.
    let plan = plan(arguments, &interface)?;
    if plan.flows.count() < arguments.workers {
        bail!(Usage(format!(
            "--workers {}: there are fewer flows, {}: give more --flows",
            arguments.workers,
            plan.flows.count()
        )));
    }
    // Asked once for all: what the interface takes from one would hide what it does not take from another.
    let engine = engine(arguments, &interface, &plan)?;
    let before = interface.sent()?;
    let mut children = Vec::new();
    for number in 0..arguments.workers {
        children.push(start(arguments, engine, number, plan.run)?);
    }
    let mut progress = Progress::new();
    let begin = Instant::now();
    let mut next = Duration::from_secs(1);
    let mut failed = false;
    loop {
        let ended: Vec<Option<ExitStatus>> = children
            .iter_mut()
            .map(Child::try_wait)
            .collect::<Result<_, _>>()?;
        if ended.iter().all(Option::is_some) {
            break;
        }
        let fails = |status: &ExitStatus| !status.success();
        let fails = !failed && ended.iter().flatten().any(fails);
        failed |= fails;
        if fails || stop.swap(false, Ordering::Relaxed) {
            children.iter().for_each(interrupt);
        }
        let elapsed = begin.elapsed();
        if elapsed >= next {
            next += Duration::from_secs(1);
            progress.say(Sent {
                // What the interface took of all: the workers do not say.
                frames: interface.sent()?.saturating_sub(before),
                elapsed,
                ..Sent::default()
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(progress);
    let outputs: Vec<Output> = children
        .into_iter()
        .map(Child::wait_with_output)
        .collect::<Result<_, _>>()?;
    // One that was interrupted before it could handle that fails, too, but says nothing.
    let failures = outputs.iter().filter(|output| !output.status.success());
    if let Some(failure) = failures.max_by_key(|output| output.stderr.len()) {
        let said = String::from_utf8_lossy(&failure.stderr);
        let said = said.lines().last().unwrap_or("it said nothing");
        bail!("a worker failed: {}", said.trim_start_matches("pktgen: "));
    }
    let mut total: Option<report::Sent> = None;
    for output in outputs {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        let one: report::Sent =
            serde_json::from_slice(&output.stdout).context("a worker's report")?;
        total = Some(total.map_or_else(|| one.clone(), |total| add(total, &one)));
    }
    let mut total = total.context("there were no workers")?;
    // Each saw the interface take the others' frames, too.
    let taken = interface.sent()?.saturating_sub(before);
    total.dropped = total.sent.saturating_sub(taken);
    say_if_none_taken(&total, engine, &interface);
    Ok(total)
}

fn start(arguments: &Arguments, engine: Engine, number: u32, run: u8) -> anyhow::Result<Child> {
    let of = arguments.workers;
    let mut command = Command::new(std::env::current_exe()?);
    // All that was given, then what is its own.
    command.args(std::env::args_os().skip(1));
    command.args(["--part", &format!("{number}/{of}/{run}")]);
    if arguments.engine.is_none()
        && let Some(engine) = engine.to_possible_value()
    {
        command.args(["--engine", engine.get_name()]);
    }
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
