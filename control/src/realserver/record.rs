//! What `up` made, so that `down` takes back that and nothing else.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Everything made, in the order in which it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub settings: Vec<Setting>,
    pub addresses: Vec<Address>,
    pub decapsulators: Vec<Decapsulator>,
}

/// An IPv4 setting of a link, or of `all`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub link: String,
    pub name: String,
    pub before: u32,
    pub set: u32,
}

/// An address added to the loopback interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub interface: String,
    pub address: IpAddr,
    pub prefix_length: u8,
}

/// A decapsulating program, kept by a file of a BPF file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decapsulator {
    pub interface: String,
    /// Of the interface; one made anew has another.
    pub index: u32,
    pub pin: PathBuf,
    /// In words.
    pub ends: Vec<String>,
}

impl Decapsulator {
    /// True if the file that keeps it is there.
    #[must_use]
    pub(crate) fn is_kept(&self) -> bool {
        self.pin.exists()
    }
}

impl Record {
    /// What an earlier `up` wrote; nothing if there was none.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or somebody else wrote it.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is no record of `appliance realserver up`: see what it is, and remove it",
                path.display()
            )
        })
    }

    /// Writes it; an empty one leaves no file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let failed = || format!("cannot write {}", path.display());
        if *self == Self::default() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(error).with_context(failed)
                }
                _ => Ok(()),
            };
        }
        let text = serde_json::to_string_pretty(self).with_context(failed)?;
        // Never half a file: rename(2) is one step.
        let new = path.with_extension("new");
        fs::write(&new, text).with_context(failed)?;
        fs::rename(&new, path).with_context(failed)
    }
}
