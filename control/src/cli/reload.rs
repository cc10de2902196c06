//! `appliance reload`: has the running appliance read its file again.

use std::path::Path;

use anyhow::Error;

use super::{EXIT_STATUS, Failure, print};
use crate::api::client::Client;
use crate::api::view;

/// Apply the configuration file again to the running appliance
///
/// The running appliance reads the file that it was started with, validates
/// it and applies the difference to what is running as a whole or not at all.
/// Connections of what stays are not disturbed. Prints what changed; a file
/// with errors changes nothing. SIGHUP does the same.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Reload {}

impl Reload {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 2 when the file is refused; 1 when no appliance answers.
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        let client = Client::new(socket).map_err(Error::from)?;
        match client.reload().map_err(Error::from)? {
            Ok(reload) => {
                for warning in &reload.warnings {
                    eprintln!("{warning}");
                }
                print(&report(&reload))
            }
            Err(refused) => Err(Failure::Refused(refused)),
        }
    }
}

fn report(reload: &view::Reload) -> String {
    let view::Reload {
        changes,
        warnings: _, // on stderr
        generation,
    } = reload;
    let lines: String = changes.iter().map(|line| format!("{line}\n")).collect();
    match changes.len() {
        0 => "no changes: the file says what is running\n".to_owned(),
        1 => format!("{lines}1 change applied, snapshot {generation}\n"),
        count => format!("{lines}{count} changes applied, snapshot {generation}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_before_their_count() {
        let reload = |changes: &[&str]| {
            report(&view::Reload {
                changes: changes.iter().map(|line| (*line).to_owned()).collect(),
                warnings: Vec::new(),
                generation: 8,
            })
        };
        assert_eq!(reload(&[]), "no changes: the file says what is running\n");
        assert_eq!(reload(&["+ a"]), "+ a\n1 change applied, snapshot 8\n");
        assert_eq!(
            reload(&["+ a", "- b"]),
            "+ a\n- b\n2 changes applied, snapshot 8\n"
        );
    }
}
