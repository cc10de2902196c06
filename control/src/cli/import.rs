//! `appliance import`: another program's configuration as TOML.

use std::path::PathBuf;

use anyhow::anyhow;

use super::{EXIT_STATUS, Failure, print};
use crate::config;
use crate::ipvsadm::names::System;
use crate::ipvsadm::{self, is_saved};

/// Write a keepalived.conf, or what ipvsadm -S wrote, as TOML
///
/// The TOML goes to stdout, every default filled in. What is left out, or means
/// something else here, goes to stderr, one line a keyword,
/// or one for each line of ipvsadm's:
///
///   file:line:column: warning: where: keyword is left out: what is done instead
///
/// docs/keepalived.md has every keyword, docs/ipvsadm.md every difference. What
/// the file is shows in its first line. The output contains the passwords of
/// the file.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Import {
    /// The file to import
    #[arg(value_name = "FILE")]
    path: PathBuf,
    /// What the file is [default: what it looks like]
    #[arg(long, value_enum, value_name = "FORMAT")]
    from: Option<From>,
    /// Use a keepalived.conf's lines with @ID [default: first part of the host name]
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
    /// Output of ipvsadm -S
    Ipvsadm,
}

impl Import {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 2 when the file has an error; 1 when stdout is broken, or
    /// with `--strict` when something was not mapped.
    pub fn run(self) -> Result<(), Failure> {
        // Once: it may be a pipe.
        let text = config::read_text(&self.path)?;
        let looks_like = match is_saved(&text) {
            true => From::Ipvsadm,
            false => From::Keepalived,
        };
        let checked = match self.from.unwrap_or(looks_like) {
            From::Ipvsadm => ipvsadm::import(&text, &self.path, &System)?,
            From::Keepalived => {
                config::import_keepalived_text(text, &self.path, self.config_id.as_deref())?
            }
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
