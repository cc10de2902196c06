//! The configuration file that several commands take.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::config::{self, Checked, Diagnostics};

/// `CONFIG [--format toml|keepalived] [--config-id ID]`.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigFile {
    /// The configuration file: *.toml is TOML, any other name keepalived.conf syntax
    #[arg(value_name = "CONFIG")]
    pub path: PathBuf,
    #[command(flatten)]
    pub syntax: Syntax,
}

/// How a configuration file is read.
#[derive(Clone, Debug, clap::Args)]
pub struct Syntax {
    /// The file's syntax, whatever its name
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// In keepalived.conf, use the lines with @ID [default: first part of the host name]
    #[arg(long, value_name = "ID")]
    pub config_id: Option<String>,
}

/// Values of `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Toml,
    /// keepalived.conf(5)
    Keepalived,
}

impl Syntax {
    /// The options that say the same to another process.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let format = self.format.and_then(|format| format.to_possible_value());
        let format = format.map(|value| ["--format".into(), value.get_name().into()]);
        let config_id = self.config_id.as_ref();
        let config_id = config_id.map(|id| ["--config-id".into(), id.into()]);
        format.into_iter().chain(config_id).flatten().collect()
    }
}

impl ConfigFile {
    /// Reads and checks the file.
    ///
    /// # Errors
    ///
    /// Every problem of the file, as [`config::load`].
    pub fn load(&self) -> Result<Checked, Diagnostics> {
        config::load_as(&self.path, &self.format())
    }

    /// The file's syntax, by option or by name.
    #[must_use]
    pub fn format(&self) -> config::Format {
        let keepalived = || config::Format::Keepalived {
            config_id: self.syntax.config_id.clone(),
        };
        match self.syntax.format {
            Some(Format::Toml) => config::Format::Toml,
            Some(Format::Keepalived) => keepalived(),
            None => match config::Format::of(&self.path) {
                config::Format::Toml => config::Format::Toml,
                config::Format::Keepalived { .. } => keepalived(),
            },
        }
    }
}
