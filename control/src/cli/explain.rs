//! `appliance explain`: what a packet of a client would meet.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::table::Align::{Left, Right};
use super::table::Table;
use super::{EXIT_STATUS, Failure, print_with};
use crate::api::client::Client;
use crate::api::view::{Candidate, Explanation};
use crate::config::{self, Format};
use crate::explain::{Known, Question, explain};
use crate::replay;

/// Say where a packet of a client would go, and why
///
/// Which virtual server matches, whether a connection exists, which real server
/// it has or would get, next hop and headers. Asks the running appliance; with
/// --config it goes by a file alone: all real servers count as up, and there are
/// no connections.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Explain {
    /// Where the packet comes from: 198.51.100.7:40000
    #[arg(value_name = "CLIENT:PORT", value_parser = endpoint)]
    client: SocketAddr,
    /// Where it goes: 192.168.1.100:80
    #[arg(value_name = "VIP:PORT", value_parser = endpoint)]
    virtual_server: SocketAddr,
    /// tcp, udp or sctp
    #[arg(long, default_value = "tcp")]
    protocol: String,
    /// Go by this file instead of the running appliance
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON: an object
    #[arg(long)]
    json: bool,
}

fn endpoint(text: &str) -> Result<SocketAddr, &'static str> {
    let expected = "expected an address and a port, as 192.168.1.100:80 or [2001:db8::1]:80";
    text.parse().map_err(|_| expected)
}

impl Explain {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 2 when the configuration has an error, or no packet is like that; 1 when no appliance
    /// answers or stdout is broken.
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        let question = Question::new(&self.protocol, self.client, self.virtual_server);
        let question = question.map_err(|why| Failure::Usage(anyhow!(why)))?;
        let answer = match &self.config {
            Some(file) => offline(&question, file)?,
            None => online(&question, socket)?,
        };
        print_with(|out| {
            if self.json {
                serde_json::to_writer_pretty(&mut *out, &answer)?;
                writeln!(out)?;
                return Ok(());
            }
            Ok(render(out, &answer)?)
        })
    }
}

fn online(question: &Question, socket: &Path) -> anyhow::Result<Explanation> {
    let Question {
        protocol,
        client,
        virtual_server,
    } = question;
    let what = format!("explain/{protocol}/{client}/{virtual_server}");
    Ok(Client::new(socket)?.get(&what)?)
}

fn offline(question: &Question, file: &Path) -> Result<Explanation, Failure> {
    let checked = config::load_as(file, &Format::of(file))?;
    if !checked.warnings.is_empty() {
        eprintln!("{}", checked.warnings);
    }
    let config = checked.config;
    let snapshot = replay::snapshot(&config);
    let name = |service: &dataplane::snapshot::Service| {
        let own = config.virtual_servers.get(service.id.0 as usize)?;
        Some(format!("{}, {}", own.key, own.scheduler))
    };
    let known = Known {
        denied: config.appliance.denies(question.client.ip()),
        refused: config.refuses_packets_to(&question.key()),
        ..Known::default()
    };
    Ok(explain(question, &snapshot, &known, name))
}

fn render(out: &mut dyn std::io::Write, answer: &Explanation) -> std::io::Result<()> {
    let Explanation {
        virtual_server,
        connection,
        real_server,
        certain,
        why,
        candidates,
        forwarding_method,
        next_hop,
        headers,
    } = answer;
    let none = || "none".to_owned();
    writeln!(
        out,
        "virtual server  {}",
        virtual_server.clone().unwrap_or_else(none)
    )?;
    if virtual_server.is_some() {
        let shown = connection.as_ref().map(|found| {
            let server = found
                .real_server
                .map_or_else(|| "a removed real server".to_owned(), |s| s.to_string());
            format!("{} to {server}, on worker {}", found.state, found.worker)
        });
        writeln!(out, "connection      {}", shown.unwrap_or_else(none))?;
        let shown = real_server.map(|server| {
            let method = forwarding_method.as_deref().unwrap_or_default();
            let how = if *certain { "" } else { ", as things are now" };
            format!("{server} by {method}{how}")
        });
        writeln!(out, "real server     {}", shown.unwrap_or_else(none))?;
    }
    if let Some(hop) = next_hop {
        writeln!(out, "next hop        {} on {}", hop.mac, hop.interface)?;
    }
    for header in headers {
        writeln!(out, "                {header}")?;
    }
    writeln!(out, "\nwhy")?;
    for sentence in why {
        writeln!(out, "  - {sentence}")?;
    }
    if candidates.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut table = Table::new([
        ("Real server", Left),
        ("Forward", Left),
        ("Weight", Right),
        ("ActiveConn", Right),
        ("InActConn", Right),
        ("State", Left),
    ]);
    for Candidate {
        real_server,
        forwarding_method,
        weight,
        active_connections,
        inactive_connections,
        state,
    } in candidates
    {
        table.push([
            real_server.to_string(),
            forwarding_method.to_string(),
            weight.to_string(),
            active_connections.to_string(),
            inactive_connections.to_string(),
            state.clone(),
        ]);
    }
    table.write(out)
}
