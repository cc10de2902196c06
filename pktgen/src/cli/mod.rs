//! The commands, one file each.

mod manual;
mod rfc2544;
mod ring;
mod sink;
mod tx;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dataplane::service::Protocol;
use pktgen::cpu::PinError;
use pktgen::flows::FlowsError;
use pktgen::live::LiveError;
use pktgen::verify::WrongName;
use serde::Serialize;

/// Sends and measures packets.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends packets from an interface.
    Tx(tx::Arguments),
    /// Receives what `tx` sent, behind a director: verifies it, and measures loss and latency
    Sink(sink::Arguments),
    /// Measures a director: the highest rate without loss by frame length, and latency (RFC 2544)
    Rfc2544(rfc2544::Arguments),
    /// Measures the data plane alone, in this process: no root, no interface
    Ring(ring::Arguments),
    Man(manual::Man),
    Completions(manual::Completions),
}

/// Runs the command given on the command line; exits with status 2 when clap finds that wrong.
pub(crate) fn run() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Tx(arguments) => tx::run(&arguments),
        Command::Sink(arguments) => sink::run(&arguments),
        Command::Rfc2544(arguments) => rfc2544::run(&arguments),
        Command::Ring(arguments) => ring::run(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
    }
}

/// The command line, or a configuration that it names, is wrong; clap has not seen it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// 2 for a wrong command line or configuration, as of clap; 1 for an operation that failed.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_usage = error.is::<Usage>()
        || error.is::<FlowsError>()
        || error.is::<WrongName>()
        || matches!(error.downcast_ref(), Some(PinError::Unknown { .. }))
        || matches!(error.downcast_ref(), Some(error) if LiveError::is_of_plan(error));
    ExitCode::from(if is_usage { 2 } else { 1 })
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "udp" => Ok(Protocol::Udp),
        "tcp" => Ok(Protocol::Tcp),
        _ => Err("write udp or tcp".to_owned()),
    }
}

/// A report as one line of JSON.
fn print_json(out: &mut impl Write, report: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    Ok(writeln!(out)?)
}
