//! `appliance replay`: the data plane offline, over a capture.

use std::path::PathBuf;

use super::{ConfigFile, EXIT_STATUS, Failure, print};
use crate::replay;

/// Run the data plane over a capture, offline, and print its counters
///
/// Needs no rights and no interface. The timestamps of the capture are the
/// time, all real servers count as up, and frames leave for MAC addresses
/// made of the real servers' IP addresses: 02:00 and the last four bytes.
/// Counters that stayed zero are not printed.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Replay {
    #[command(flatten)]
    file: ConfigFile,
    /// The capture to read, pcap of Ethernet frames
    #[arg(value_name = "IN.pcap")]
    input: PathBuf,
    /// The capture to write; an existing file is overwritten
    #[arg(value_name = "OUT.pcap")]
    output: PathBuf,
}

impl Replay {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 2 when the configuration has an error; 1 when a capture
    /// cannot be read or written.
    pub fn run(self) -> Result<(), Failure> {
        let checked = self.file.load()?;
        if !checked.warnings.is_empty() {
            eprintln!("{}", checked.warnings);
        }
        let counters = replay::replay(&checked.config, &self.input, &self.output)?;
        print(&replay::display(&counters))
    }
}
