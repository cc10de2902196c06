//! The configuration file that several commands take.

use std::path::PathBuf;

use crate::config::{self, Checked, Diagnostics};

/// `CONFIG [--format toml|keepalived]`.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigFile {
    /// The configuration file: *.toml is TOML, any other name keepalived.conf syntax
    #[arg(value_name = "CONFIG")]
    pub path: PathBuf,
    /// The file's syntax, whatever its name
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
}

/// Values of `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Toml,
    /// Not supported by this version
    Keepalived,
}

impl ConfigFile {
    /// Reads and checks the file.
    ///
    /// # Errors
    ///
    /// Every problem of the file, as [`config::load`].
    pub fn load(&self) -> Result<Checked, Diagnostics> {
        config::load_as(&self.path, self.syntax())
    }

    /// The file's syntax, by option or by name.
    #[must_use]
    pub fn syntax(&self) -> config::Format {
        match self.format {
            None => config::Format::of(&self.path),
            Some(Format::Toml) => config::Format::Toml,
            Some(Format::Keepalived) => config::Format::Keepalived,
        }
    }
}
