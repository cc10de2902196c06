//! `appliance show`: what the running appliance does, for people and scripts.

mod tables;

use std::io::Write;
use std::path::Path;

use anyhow::{Error, anyhow};
use clap::ValueEnum;
use serde::de::DeserializeOwned;

use super::{EXIT_STATUS, Failure, print_with};
use crate::api::client::{Client, ClientError};
use crate::api::view;

/// Show what the running appliance does
///
/// The tables are for people and may change; scripts use --json, the same as
/// GET /api/v1/WHAT on the control socket.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Show {
    /// What to show
    #[arg(value_enum, default_value_t = What::Services)]
    what: What,
    /// Print JSON: an array, or an object for vrrp and config
    #[arg(long)]
    json: bool,
    /// Of drops, show also the reasons that never occurred
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Virtual servers and their real servers, like ipvsadm -Ln
    Services,
    /// Every connection, like ipvsadm -Lnc
    Connections,
    /// How each real server is reached: route and MAC address
    Neighbors,
    /// Counters of each worker and each of its AF_XDP sockets
    Workers,
    /// Packets dropped, by reason
    Drops,
    /// Every health check and its last result
    Health,
    /// The directors' election: state, priority and refused advertisements
    Vrrp,
    /// The effective configuration, all defaults filled in, as TOML
    Config,
}

impl What {
    /// The last part of the path: `/api/v1/services`.
    const fn resource(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Connections => "connections",
            Self::Neighbors => "neighbors",
            Self::Workers => "workers",
            Self::Drops => "drops",
            Self::Health => "health",
            Self::Vrrp => "vrrp",
            Self::Config => "config",
        }
    }
}

impl Show {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 2 for options that do not go together; 1 when no appliance
    /// answers or stdout is broken.
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        if self.all && self.what != What::Drops {
            return Err(Failure::Usage(anyhow!(
                "--all goes with \"show drops\" only: leave it out"
            )));
        }
        let client = Client::new(socket).map_err(Error::from)?;
        print_with(|out| match self.json {
            true => copy(&client, self.what, out),
            false => render(&client, self.what, self.all, out),
        })
    }
}

/// Prints the JSON as it comes.
fn copy(client: &Client, what: What, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut body = client.read(what.resource())?;
    let mut last = None;
    loop {
        let part = body.part()?;
        let Some(end) = part.last().copied() else {
            break;
        };
        out.write_all(&part)?;
        last = Some(end);
    }
    if last != Some(b'\n') {
        writeln!(out)?;
    }
    Ok(())
}

fn render(client: &Client, what: What, all: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    fn get<T: DeserializeOwned>(client: &Client, what: What) -> Result<T, ClientError> {
        client.get(what.resource())
    }
    match what {
        What::Services => tables::services(out, &get::<Vec<_>>(client, what)?)?,
        What::Connections => {
            let mut table = tables::Connections::new();
            client.for_each(what.resource(), |connection| {
                Ok::<_, Error>(table.push(out, &connection)?)
            })?;
            table.finish(out)?;
        }
        What::Neighbors => tables::neighbors(out, &get::<Vec<_>>(client, what)?)?,
        What::Workers => tables::workers(out, &get::<Vec<_>>(client, what)?)?,
        What::Drops => tables::drops(out, &get::<Vec<_>>(client, what)?, all)?,
        What::Health => tables::health(out, &get::<Vec<_>>(client, what)?)?,
        What::Vrrp => tables::vrrp(out, &get(client, what)?)?,
        What::Config => out.write_all(get::<view::Config>(client, what)?.toml.as_bytes())?,
    }
    Ok(())
}
