//! The far end: a BPF program counts and drops what arrives, where a real server's network stack begins, or before in
//! its driver.
//!
//! For every line on stdin it prints what it has counted so far; it ends with stdin. The measuring
//! process thereby takes two readings with their exact times, whatever else the machine does.

use std::io::{BufRead as _, Write as _};
use std::time::Instant;

use clap::Parser;
use pktgen::interface::Interface;
use pktgen::sink::{Hook, Sink};

/// Counts and drops everything that arrives at an interface.
#[derive(Debug, Parser)]
struct Arguments {
    /// Interface to attach to
    interface: String,
    /// Take frames in the driver, by XDP
    #[arg(long)]
    xdp: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let hook = if arguments.xdp { Hook::Xdp } else { Hook::Tc };
    let sink = Sink::attach(&Interface::find(&arguments.interface)?, hook)?;
    let start = Instant::now();
    eprintln!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let (frames, bytes) = sink.counted()?;
        let reading = bench::Reading {
            frames,
            bytes,
            seconds: start.elapsed().as_secs_f64(),
        };
        println!("{}", serde_json::to_string(&reading)?);
        std::io::stdout().flush()?;
    }
    Ok(())
}
