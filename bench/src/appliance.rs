//! The appliance as it is measured: one worker on CPU 1, one service, four real servers.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::process::Process;
use crate::topology::{BALANCER, LOCAL_ADDRESSES, REAL_SERVERS, VIP};

/// Forwarding methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Dr,
    Nat,
    Tun,
    FullNat,
}

impl Method {
    /// As `lb_kind` takes it.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Dr => "DR",
            Self::Nat => "NAT",
            Self::Tun => "TUN",
            Self::FullNat => "FULLNAT",
        }
    }
}

/// What a worker does when no packet comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Idle {
    /// It looks again for a short time: the default, made for low latency.
    Adaptive,
    /// It sleeps: made for little processor time.
    Interrupt,
}

impl Idle {
    /// As `idle` takes it.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Interrupt => "interrupt",
        }
    }
}

/// What the configuration file says.
#[derive(Clone, Copy, Debug)]
pub struct Configuration {
    pub method: Method,
    /// `UDP` or `TCP`.
    pub protocol: &'static str,
    pub idle: Idle,
}

impl Configuration {
    /// Starts `program` in the balancer's namespace and waits until it is ready. Its files are in `scratch`.
    ///
    /// # Errors
    /// The file cannot be written, or the appliance is not ready in time.
    pub fn run(&self, program: &Path, scratch: &Path) -> anyhow::Result<Process> {
        let path = scratch.join("bench.toml");
        fs::write(&path, self.text(scratch))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let path = path.to_string_lossy();
        let process = Process::start(BALANCER, program, &["run", &path])?;
        process.wait_ready()?;
        Ok(process)
    }

    fn text(&self, scratch: &Path) -> String {
        let mut text = format!(
            r#"[appliance]
control_socket = "{}"
max_connections = 1_048_576
cores = [1]
idle = "{}"

[[interface]]
name = "l0"

[[interface]]
name = "l1"

[[virtual_server]]
address = "{VIP}"
protocol = "{}"
lb_algo = "rr"
lb_kind = "{}"
"#,
            scratch.join("appliance.sock").display(),
            self.idle.keyword(),
            self.protocol,
            self.method.keyword(),
        );
        if self.method == Method::FullNat {
            text += &format!("local_addresses = {LOCAL_ADDRESSES:?}\n");
        }
        for address in REAL_SERVERS {
            text += &format!(
                "\n[[virtual_server.real_server]]\naddress = \"{address}:80\"\nweight = 1\n"
            );
        }
        text
    }
}
