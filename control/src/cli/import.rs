//! `appliance import`: another program's configuration as TOML.

use std::path::PathBuf;

use anyhow::anyhow;

use super::{EXIT_STATUS, Failure, print};
use crate::config;

/// Write a keepalived.conf as TOML
///
/// The TOML goes to stdout, every default filled in. What is left out, or means
/// something else here, goes to stderr, one line a keyword:
///
///   file:line:column: warning: where: keyword is left out: what is done instead
///
/// docs/keepalived.md has every keyword. The output contains the passwords of
/// the file.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Import {
    /// The file to import
    #[arg(value_name = "FILE")]
    path: PathBuf,
    /// What the file is
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "keepalived")]
    from: From,
    /// Use the lines with @ID [default: first part of the host name]
    #[arg(long, value_name = "ID")]
    config_id: Option<String>,
    /// Exit with status 1 if anything was left out or means something else
    #[arg(long)]
    strict: bool,
}

/// Values of `--from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum From {
    /// keepalived.conf(5)
    Keepalived,
}

impl Import {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 2 when the file has an error; 1 when stdout is broken, or
    /// with `--strict` when something was not mapped.
    pub fn run(self) -> Result<(), Failure> {
        let checked = match self.from {
            From::Keepalived => config::import_keepalived(&self.path, self.config_id.as_deref())?,
        };
        if !checked.warnings.is_empty() {
            eprintln!("{}", checked.warnings);
        }
        print(&config::to_toml(&checked.config))?;
        if self.strict && checked.warnings.has_unmapped() {
            return Err(anyhow!("not everything could be imported (--strict)").into());
        }
        Ok(())
    }
}
