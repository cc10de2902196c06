//! The commands, one file each.

mod tx;

use clap::{Parser, Subcommand};

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
}

/// Runs the command given on the command line; exits with status 2 when that is wrong.
pub(crate) fn run() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Tx(arguments) => tx::run(arguments),
    }
}
