//! The far end: an XDP program counts and drops what arrives.
//!
//! For every line on stdin it prints what it has counted so far; it ends with stdin. The measuring
//! process thereby takes two readings with their exact times, whatever else the machine does.

use std::io::{BufRead as _, Write as _};
use std::time::Instant;

use clap::Parser;
use pktgen::interface::Interface;
use pktgen::sink::Sink;

/// Counts and drops everything that arrives at an interface.
#[derive(Debug, Parser)]
struct Arguments {
    /// Interface to attach to
    interface: String,
}

fn main() -> anyhow::Result<()> {
    let sink = Sink::attach(&Interface::find(&Arguments::parse().interface)?)?;
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
