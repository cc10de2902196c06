//! `appliance run`: the main job.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;

use super::config_file::Syntax;
use super::{ConfigFile, EXIT_STATUS, Failure, SOCKET_VARIABLE, server_socket};
use crate::config;
use crate::run::{self, Options};

/// Run the load balancer in the foreground until SIGTERM or SIGINT
///
/// Prints "ready" on stderr, and tells systemd, once traffic can flow. SIGHUP
/// reloads the file, as does `appliance reload`. Needs root, or CAP_NET_ADMIN,
/// CAP_NET_RAW, CAP_BPF, CAP_PERFMON and CAP_IPC_LOCK, and with VRRP
/// CAP_SYS_NICE. Logs go to stderr; RUST_LOG=debug makes them longer. Without
/// CONFIG there are no virtual servers.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Run {
    /// The configuration file: *.toml is TOML, any other name keepalived.conf syntax
    #[arg(value_name = "CONFIG")]
    path: Option<PathBuf>,
    #[command(flatten)]
    syntax: Syntax,
    /// Control socket to serve [default: control_socket of the file, else $APPLIANCE_SOCKET, or /run/appliance.sock]
    // The option of every command, which for this one has another meaning.
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

impl Run {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 2 when the configuration has an error; 1 when the
    /// appliance cannot start or go on.
    pub fn run(self) -> Result<(), Failure> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            // They would be printed on stderr too, where printing panics when it fails: on a full disk.
            .log_internal_errors(false)
            .init();
        let (checked, file) = match self.path {
            None => (config::parse("", Path::new("(no file)"))?, None),
            Some(path) => {
                let file = ConfigFile {
                    path,
                    syntax: self.syntax,
                };
                let checked = file.load()?;
                (checked, Some((file.path.clone(), file.format())))
            }
        };
        if !checked.warnings.is_empty() {
            // A log that cannot be written is no reason not to serve.
            let _ = writeln!(io::stderr(), "{}", checked.warnings);
        }
        let config = checked.config;
        let socket = server_socket(
            self.socket,
            &config.appliance.control_socket,
            std::env::var_os(SOCKET_VARIABLE),
        );
        Ok(run::run(Options {
            file,
            config,
            text: checked.text,
            socket,
        })?)
    }
}
