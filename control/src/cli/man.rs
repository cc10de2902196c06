//! `appliance man`: the manual, made of the command definitions.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

use super::{Cli, EXIT_STATUS, Failure};

/// Write the manual pages of every command into a directory
///
/// They are appliance.1, appliance-run.1 and so on; the directory is made if it
/// is not there. Read one by "man ./appliance-run.1", or put them where man
/// finds them: /usr/local/share/man/man1.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Man {
    /// Where to write them
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Man {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 1 when the directory cannot be written.
    pub fn run(self) -> Result<(), Failure> {
        let Self { directory } = self;
        let write = || {
            fs::create_dir_all(&directory)?;
            clap_mangen::generate_to(Cli::command(), &directory)
        };
        write()
            .with_context(|| format!("cannot write manual pages into {}", directory.display()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command() {
        let directory = tempfile::tempdir().unwrap();
        let man = Man {
            directory: directory.path().join("man1"),
        };
        man.run().unwrap();
        let read = |name: &str| {
            let path = directory.path().join("man1").join(name);
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let main = read("appliance.1");
        let command = Cli::command();
        for command in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            let name = command.get_name();
            assert!(main.contains(&format!("appliance\\-{name}(1)")), "{name}");
            let page = read(&format!("appliance-{name}.1"));
            assert!(page.contains(".SH SYNOPSIS"), "{page}");
            for option in command.get_arguments().filter_map(|a| a.get_long()) {
                let option = option.replace('-', "\\-");
                assert!(
                    page.contains(&format!("\\-\\-{option}")),
                    "{name} --{option}"
                );
            }
        }
        assert!(!main.contains("responder"), "what is hidden has no page");
    }
}
