//! `appliance run`: the main job.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;

use super::config_file::Syntax;
use super::{ConfigFile, EXIT_STATUS, Failure};
use crate::config;
use crate::run::{self, Options};

/// Run the load balancer in the foreground until SIGTERM or SIGINT
///
/// Prints "ready" on stderr, and tells systemd, once traffic can flow. SIGHUP
/// reloads the file, as does `appliance reload`. Needs root, or CAP_NET_ADMIN,
/// CAP_NET_RAW, CAP_BPF and CAP_IPC_LOCK. Logs go to stderr; RUST_LOG=debug
/// makes them longer. Without CONFIG there are no virtual servers.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Run {
    /// The configuration file: *.toml is TOML, any other name keepalived.conf syntax
    #[arg(value_name = "CONFIG")]
    path: Option<PathBuf>,
    #[command(flatten)]
    syntax: Syntax,
}

impl Run {
    /// Runs the command; `socket` overrides what the file says.
    ///
    /// # Errors
    ///
    /// Exit status 2 when the configuration has an error; 1 when the
    /// appliance cannot start or go on.
    pub fn run(self, socket: Option<PathBuf>) -> Result<(), Failure> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
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
            eprintln!("{}", checked.warnings);
        }
        let config = checked.config;
        let socket = socket.unwrap_or_else(|| config.appliance.control_socket.clone());
        Ok(run::run(Options {
            file,
            config,
            text: checked.text,
            socket,
        })?)
    }
}
