//! `pktgen man` and `pktgen completions`: made of the command definitions.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

/// Writes the manual pages of every command into a directory.
#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Where to write them; made if it is not there.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Prints what makes a shell complete this program's commands and options.
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// # Errors
/// The directory cannot be written.
pub(super) fn man(arguments: &Man) -> anyhow::Result<()> {
    let Man { directory } = arguments;
    let write = || {
        fs::create_dir_all(directory)?;
        clap_mangen::generate_to(super::Arguments::command(), directory)
    };
    write().with_context(|| format!("cannot write manual pages into {}", directory.display()))
}

/// # Errors
/// stdout is broken.
pub(super) fn completions(arguments: &Completions) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let mut command = super::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "pktgen", &mut script);
    let written = std::io::stdout().write_all(&script);
    written.context("cannot write to stdout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command() {
        let directory = tempfile::tempdir().unwrap();
        let arguments = Man {
            directory: directory.path().to_owned(),
        };
        man(&arguments).unwrap();
        let main = fs::read_to_string(directory.path().join("pktgen.1")).unwrap();
        for command in super::super::Arguments::command().get_subcommands() {
            let name = command.get_name();
            assert!(main.contains(&format!("pktgen\\-{name}(1)")), "{name}");
            assert!(
                directory.path().join(format!("pktgen-{name}.1")).exists(),
                "{name}"
            );
        }
    }
}
