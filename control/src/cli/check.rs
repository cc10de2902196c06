//! `appliance check`: validates a file without touching the system.

use super::{ConfigFile, EXIT_STATUS, Failure, print};
use crate::config::{self, Config};
use crate::in_words::count;

/// Validate a configuration file without touching the system
///
/// Reports every problem of the file at once on stderr, one a line:
///
///   file:line:column: where: what was found, what was expected, what to do
///
/// Warnings say "warning:" after the position and do not change the exit
/// status. Nothing of the system is looked at: whether an interface exists or
/// an address is taken is found out by `run`. docs/config.md describes every
/// key.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the effective configuration, all defaults filled in, as TOML
    ///
    /// The output is itself a valid configuration file with the same meaning.
    /// It contains the passwords of the file.
    #[arg(long)]
    print: bool,
}

impl Check {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 2 when the file has an error; 1 when stdout is broken.
    pub fn run(self) -> Result<(), Failure> {
        let checked = self.file.load()?;
        if !checked.warnings.is_empty() {
            eprintln!("{}", checked.warnings);
        }
        if self.print {
            return print(&config::to_toml(&checked.config));
        }
        let file = self.file.path.display();
        print(&format!("{file}: valid, {}\n", summary(&checked.config)))
    }
}

/// What the file sets up, so that an empty file is seen to be one.
fn summary(config: &Config) -> String {
    let servers = || config.virtual_servers.iter().flat_map(|v| &v.real_servers);
    format!(
        "{}, {}, {}",
        count(config.virtual_servers.len(), "virtual server"),
        count(servers().count(), "real server"),
        count(servers().map(|s| s.checks.len()).sum(), "health check"),
    )
}
