//! The command line: one file per command, and what they share.
//!
//! Exit status: 0 success, 1 the operation failed, 2 the command line or a
//! configuration file is wrong and nothing was changed. What people asked for
//! goes to stdout; everything else goes to stderr.

mod check;
mod completions;
mod config_file;
mod drain;
mod explain;
mod failure;
mod import;
mod ipvsadm;
mod lab;
mod man;
mod output;
mod probe;
mod realserver;
mod reload;
mod replay;
mod run;
mod show;
mod table;
mod top;

pub use config_file::ConfigFile;
pub use failure::Failure;
pub use output::{print, print_with};

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Where client commands look when nothing says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/appliance.sock";
/// The environment variable that overrides [`DEFAULT_SOCKET`].
pub const SOCKET_VARIABLE: &str = "APPLIANCE_SOCKET";

const EXIT_STATUS: &str = "\
Exit status:
  0  success
  1  the operation failed
  2  the command line or a configuration file is wrong; nothing was changed";

/// A layer-4 load balancer in userspace, on AF_XDP.
#[derive(Debug, Parser)]
#[command(name = "appliance", version, after_help = EXIT_STATUS)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
pub struct Global {
    /// For commands that talk to the appliance: its control socket [default: $APPLIANCE_SOCKET, or /run/appliance.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

impl Global {
    /// The socket that a client command talks to.
    #[must_use]
    pub fn client_socket(&self) -> PathBuf {
        client_socket(self.socket.clone(), env::var_os(SOCKET_VARIABLE))
    }
}

/// The socket that `run` serves; `configured` is what the file says. A path
/// other than the default is its own, and counts for more than the variable.
fn server_socket(
    option: Option<PathBuf>,
    configured: &Path,
    variable: Option<OsString>,
) -> PathBuf {
    let own = (configured != Path::new(DEFAULT_SOCKET)).then(|| configured.to_owned());
    client_socket(option.or(own), variable)
}

fn client_socket(option: Option<PathBuf>, variable: Option<OsString>) -> PathBuf {
    let variable = variable.filter(|path| !path.is_empty()).map(PathBuf::from);
    option
        .or(variable)
        .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::Run),
    Check(check::Check),
    Import(import::Import),
    Show(show::Show),
    Reload(reload::Reload),
    Replay(replay::Replay),
    Drain(drain::Drain),
    Undrain(drain::Undrain),
    Ipvsadm(ipvsadm::Ipvsadm),
    Lab(lab::Lab),
    #[command(name = "realserver")]
    RealServer(realserver::RealServer),
    Explain(explain::Explain),
    Probe(probe::Probe),
    Top(top::Top),
    Man(man::Man),
    Completions(completions::Completions),
    #[command(hide = true)]
    LabResponder(lab::LabResponder),
}

/// Parses the arguments of the process, runs the command, prints what went
/// wrong once.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = env::args_os();
    if arguments.next().is_some_and(|name| ipvsadm::is_name(&name)) {
        let arguments: Vec<String> = arguments
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect();
        return ipvsadm::run(
            &arguments,
            &client_socket(None, env::var_os(SOCKET_VARIABLE)),
        );
    }
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Show(command) => command.run(&cli.global.client_socket()),
        Command::Reload(command) => command.run(&cli.global.client_socket()),
        Command::Replay(command) => command.run(),
        Command::Drain(command) => command.run(&cli.global.client_socket()),
        Command::Undrain(command) => command.run(&cli.global.client_socket()),
        Command::Ipvsadm(command) => return command.run(&cli.global.client_socket()),
        Command::Lab(command) => command.run(),
        Command::RealServer(command) => command.run(),
        Command::Explain(command) => command.run(&cli.global.client_socket()),
        Command::Probe(command) => command.run(),
        Command::Top(command) => command.run(&cli.global.client_socket()),
        Command::Man(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::LabResponder(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The status tells, too, when nobody reads this.
            let _ = writeln!(io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_accepts_the_command_tree() {
        Cli::command().debug_assert();
    }

    #[test]
    fn socket_of_the_appliance() {
        let option = || Some(PathBuf::from("/option"));
        let variable = || Some(OsString::from("/v"));
        let default = Path::new(DEFAULT_SOCKET);
        let file = Path::new("/file");
        assert_eq!(server_socket(None, default, None), default);
        assert_eq!(server_socket(None, default, variable()), Path::new("/v"));
        assert_eq!(server_socket(None, file, variable()), file);
        assert_eq!(
            server_socket(option(), file, variable()),
            Path::new("/option")
        );
    }

    #[test]
    fn run_says_which_socket_it_serves() {
        for line in [
            ["appliance", "run", "--socket", "/a"],
            ["appliance", "--socket", "/a", "run"],
        ] {
            let Command::Run(run) = Cli::try_parse_from(line).unwrap().command else {
                unreachable!("{line:?}");
            };
            assert_eq!(run.socket.as_deref(), Some(Path::new("/a")));
        }
        let mut cli = Cli::command();
        cli.build();
        let help = |name: &str| {
            let command = cli.find_subcommand(name).unwrap();
            let mut arguments = command.get_arguments();
            let socket = arguments
                .find(|argument| argument.get_id() == "socket")
                .unwrap();
            socket.get_help().unwrap().to_string()
        };
        assert!(help("run").contains("control_socket"), "{}", help("run"));
        assert!(!help("show").contains("control_socket"), "{}", help("show"));
    }

    #[test]
    fn socket_of_clients() {
        let option = || Some(PathBuf::from("/option"));
        let variable = |path: &str| Some(OsString::from(path));
        let default = PathBuf::from(DEFAULT_SOCKET);
        assert_eq!(client_socket(None, None), default);
        assert_eq!(client_socket(None, variable("")), default);
        assert_eq!(client_socket(None, variable("/v")), PathBuf::from("/v"));
        assert_eq!(
            client_socket(option(), variable("/v")),
            PathBuf::from("/option")
        );
    }
}
