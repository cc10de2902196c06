//! `appliance ipvsadm`, and the binary under the name `ipvsadm`.

use std::ffi::OsStr;
use std::io::{self, BufRead};
use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;

use super::{Failure, print, print_with};
use crate::api::client::{Client, ClientError};
use crate::api::edit::Edit;
use crate::api::ipvs::Ipvs;
use crate::api::view;
use crate::ipvsadm::command::{List, What};
use crate::ipvsadm::names::System;
use crate::ipvsadm::table::{Connection, Service, Timeouts};
use crate::ipvsadm::{
    self, Command, EditFailure, UsageError, connection_header, connection_row, usage,
};

/// Edits sent in one request by `-R`.
const EDITS_AT_ONCE: usize = 1000;
/// Exit status when the kernel has no IPVS, or here: no appliance runs.
const NO_APPLIANCE: u8 = 2;

/// The ipvsadm(8) command line, against the running appliance
///
/// Options, listings, messages and exit statuses are those of ipvsadm 1.31, so
/// that scripts keep working. A link named ipvsadm to this binary does the
/// same. Edits last until the next reload. `appliance ipvsadm -h` lists all.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, disable_help_flag = true)]
pub struct Ipvsadm {
    /// As ipvsadm(8) has them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0.., value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

/// How a command that was not carried out ends.
#[derive(Debug)]
enum Ended {
    /// To be said on stderr.
    Badly(String, u8),
    /// It was said already.
    Said(u8),
}

impl From<UsageError> for Ended {
    fn from(error: UsageError) -> Self {
        Self::Badly(error.message, error.status)
    }
}

impl From<EditFailure> for Ended {
    fn from(failure: EditFailure) -> Self {
        Self::Badly(failure.message, failure.status)
    }
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Self::Badly(format!("Can't initialize ipvs: {error}"), NO_APPLIANCE)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Badly(failure.to_string(), 1)
    }
}

impl Ipvsadm {
    /// Runs the command; the exit status is ipvsadm's.
    #[must_use]
    pub fn run(self, socket: &Path) -> ExitCode {
        run(&self.arguments, socket)
    }
}

/// True if the program was started under the name `ipvsadm`.
pub(super) fn is_name(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new("ipvsadm"))
}

/// Runs a command line, without the name of the program.
pub(super) fn run(arguments: &[String], socket: &Path) -> ExitCode {
    let command = ipvsadm::parse(arguments, &System).map_err(Ended::from);
    let ended = command.and_then(|command| match Client::new(socket) {
        Ok(client) => Session { client: &client }.execute(&command),
        Err(error) => Err(error.into()),
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Said(status)) => status.into(),
        Err(Ended::Badly(message, status)) => {
            eprintln!("{message}");
            status.into()
        }
    }
}

struct Session<'c> {
    client: &'c Client,
}

impl Session<'_> {
    fn execute(&self, command: &Command) -> Result<(), Ended> {
        if let Some(edit) = ipvsadm::edit(command) {
            return self.edit(vec![edit?]);
        }
        match command {
            Command::Version => Ok(print(usage::VERSION)?),
            Command::List(list) => self.list(list),
            Command::Save { numeric } => {
                let services = services(&self.table()?);
                Ok(print(&ipvsadm::save(&services, *numeric, &System))?)
            }
            Command::Restore => self.restore(io::stdin().lock()),
            Command::Help
            | Command::AddService(_)
            | Command::EditService(_)
            | Command::DeleteService(_)
            | Command::AddServer(..)
            | Command::EditServer(..)
            | Command::DeleteServer(..)
            | Command::Clear
            | Command::Zero(_)
            | Command::SetTimeouts(_)
            | Command::StartDaemon
            | Command::StopDaemon => Ok(print(&usage::help())?),
        }
    }

    fn table(&self) -> Result<Ipvs, ClientError> {
        self.client.get("ipvs")
    }

    fn list(&self, list: &List) -> Result<(), Ended> {
        match list.what {
            What::Connections { .. } => self.connections(list),
            What::Timeouts => Ok(print(&Timeouts::from(self.table()?.timeouts).line())?),
            // There are none; but ipvsadm would find out.
            What::Daemons => Ok(self.table().map(drop)?),
            What::Services
            | What::Statistics
            | What::Rates
            | What::Thresholds
            | What::PersistentConnections
            | What::Tunnels => {
                let mut services = services(&self.table()?);
                if let Some(wanted) = list.service {
                    services.retain(|service| service.name == wanted);
                    if services.is_empty() {
                        return Err(Ended::Badly("No such service".to_owned(), 1));
                    }
                }
                Ok(print(&ipvsadm::list(&services, list, &System))?)
            }
        }
    }

    fn connections(&self, list: &List) -> Result<(), Ended> {
        let mut unreachable = None;
        let printed = print_with(|out| {
            let mut header = Some(connection_header(list));
            let listed = self
                .client
                .for_each("connections", |connection: view::Connection| {
                    if let Some(header) = header.take() {
                        out.write_all(header.as_bytes())?;
                    }
                    let connection = Connection::from(connection);
                    let row = connection_row(&connection, list.numeric, &System);
                    Ok::<_, anyhow::Error>(out.write_all(row.as_bytes())?)
                });
            match listed {
                Ok(()) => Ok(out.write_all(header.unwrap_or_default().as_bytes())?),
                Err(error) => match error.downcast::<ClientError>() {
                    Ok(error) => {
                        unreachable = Some(error);
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            }
        });
        match unreachable {
            Some(error) => Err(error.into()),
            None => Ok(printed?),
        }
    }

    /// Sends edits and says what came of them; the status is the last one's.
    fn edit(&self, edits: Vec<Edit>) -> Result<(), Ended> {
        let edited = self.client.edit(edits.clone())?;
        let mut last = Ok(());
        for (edit, result) in edits.iter().zip(edited.results) {
            last = match result {
                None => Ok(()),
                Some(error) => {
                    let EditFailure { message, status } = EditFailure::of(edit, &error);
                    eprintln!("{message}");
                    Err(Ended::Said(status))
                }
            };
        }
        last
    }

    /// `-R`: every line is a command line. One that is wrong ends it, after
    /// those before it were carried out; one that fails does not, nor one with
    /// an option that cannot be read.
    fn restore(&self, input: impl BufRead) -> Result<(), Ended> {
        let mut restoring = Restoring {
            session: self,
            edits: Vec::new(),
            last: Ok(()),
        };
        for line in input.split(b'\n') {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    restoring.flush()?;
                    let error = anyhow!(error).context("cannot read stdin");
                    return Err(Failure::from(error).into());
                }
            };
            // What is no text is wrong in this line only.
            let line = String::from_utf8_lossy(&line);
            match ipvsadm::parse_line(&line, &System) {
                Ok(None) => {}
                Ok(Some(command)) => {
                    restoring.take(&command)?;
                    if command == Command::Help {
                        break;
                    }
                }
                Err(wrong) if wrong.of_option => restoring.fail(&wrong.message, wrong.status)?,
                Err(wrong) => {
                    restoring.flush()?;
                    return Err(wrong.into());
                }
            }
        }
        restoring.flush()?;
        restoring.last
    }
}

/// Collects edits, because a thousand of them in one request are one new
/// snapshot.
struct Restoring<'s> {
    session: &'s Session<'s>,
    edits: Vec<Edit>,
    /// What the last command came to.
    last: Result<(), Ended>,
}

impl Restoring<'_> {
    fn take(&mut self, command: &Command) -> Result<(), Ended> {
        match ipvsadm::edit(command) {
            Some(Ok(edit)) => {
                self.edits.push(edit);
                if self.edits.len() >= EDITS_AT_ONCE {
                    self.flush()?;
                }
            }
            Some(Err(EditFailure { message, status })) => self.fail(&message, status)?,
            None => {
                self.flush()?;
                self.last = self.session.execute(command);
            }
        }
        Ok(())
    }

    /// Says what is wrong with a line, after what those before it came to.
    fn fail(&mut self, message: &str, status: u8) -> Result<(), Ended> {
        self.flush()?;
        eprintln!("{message}");
        self.last = Err(Ended::Said(status));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Ended> {
        if self.edits.is_empty() {
            return Ok(());
        }
        let edits = std::mem::take(&mut self.edits);
        self.last = match self.session.edit(edits) {
            Err(Ended::Badly(message, status)) => return Err(Ended::Badly(message, status)),
            other => other,
        };
        Ok(())
    }
}

fn services(table: &Ipvs) -> Vec<Service> {
    table.virtual_servers.iter().map(Service::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_decides() {
        for name in ["ipvsadm", "/sbin/ipvsadm", "./ipvsadm"] {
            assert!(is_name(OsStr::new(name)), "{name}");
        }
        for name in ["", "appliance", "/opt/ipvsadm/appliance", "ipvsadm-save"] {
            assert!(!is_name(OsStr::new(name)), "{name}");
        }
    }
}
