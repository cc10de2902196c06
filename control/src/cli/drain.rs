//! `appliance drain` and `undrain`: real servers out of use and back.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Error, anyhow, bail};

use super::{EXIT_STATUS, Failure, print};
use crate::api::client::Client;
use crate::api::edit::{Edit, EditError};
use crate::api::view;
use crate::config::duration_from_text;

/// Time between two looks at the connections that are left.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same once the deadline has come.
const LOOK_AT_THE_END_EVERY: Duration = Duration::from_millis(50);
/// How long the director may take to give connections up. It does so at the deadline; more is only ever needed by one
/// that has no time.
const PATIENCE: Duration = Duration::from_secs(5);
/// No connection twice in a row: none was being opened when the drain began.
const LOOKS_WITHOUT: u32 = 2;

/// Take a real server out of use without breaking its connections
///
/// The server gets no new connections, in every virtual server that has it,
/// and keeps those it has. Shows how many are left until there are none, or
/// until the deadline, when those left are given up: TCP packets are dropped,
/// UDP clients get another server. Interrupting this command, a reload and a
/// health check change nothing of it; undrain and a restart do. Connections
/// that are closing are shown but not waited for.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUS)]
pub struct Drain {
    /// The real server: an address, or one port of it
    #[arg(value_name = "RIP[:PORT]")]
    server: RealServer,
    /// Give the rest up after this time: seconds, or with a unit, as 90s or 5m
    #[arg(long, value_name = "D", value_parser = deadline)]
    deadline: Option<Duration>,
    /// Do not wait for the connections that are left
    #[arg(long)]
    no_wait: bool,
}

/// Use a drained real server again
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub struct Undrain {
    /// The real server: an address, or one port of it
    #[arg(value_name = "RIP[:PORT]")]
    server: RealServer,
}

/// `10.0.0.1`, `10.0.0.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RealServer {
    address: IpAddr,
    port: Option<u16>,
}

impl FromStr for RealServer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(address) = text.parse() {
            let port = None;
            return Ok(Self { address, port });
        }
        match text.parse::<SocketAddr>() {
            Ok(server) => Ok(Self {
                address: server.ip(),
                port: Some(server.port()),
            }),
            Err(_) => bail!("expected an address, or an address and a port, as 192.168.1.101:80"),
        }
    }
}

fn deadline(text: &str) -> Result<Duration, String> {
    duration_from_text(text)
        .ok_or_else(|| "expected seconds, or a time with a unit, as 90s or 5m".to_owned())
}

impl Drain {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 1 when there is no such server, no appliance answers, or
    /// connections were left at the deadline.
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        let RealServer { address, port } = self.server;
        let client = Client::new(socket).map_err(Error::from)?;
        let deadline = self.deadline.map(|deadline| deadline.as_millis());
        let left = match self.no_wait {
            true => Left::default(),
            false => Left::of(&found(&client, self.server)?),
        };
        edit(
            &client,
            Edit::Drain {
                address,
                port,
                deadline_milliseconds: deadline.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            },
        )?;
        if self.no_wait {
            return Ok(());
        }
        let end = self.deadline.map(|deadline| Instant::now() + deadline);
        wait(&client, self.server, left, end)
    }
}

impl Undrain {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Exit status 1 when the server is not drained or no appliance answers.
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        let RealServer { address, port } = self.server;
        let client = Client::new(socket).map_err(Error::from)?;
        edit(&client, Edit::Undrain { address, port })
    }
}

fn edit(client: &Client, edit: Edit) -> Result<(), Failure> {
    let undrain = matches!(edit, Edit::Undrain { .. });
    let edited = client.edit(vec![edit]).map_err(Error::from)?;
    match edited.results.into_iter().next().flatten() {
        None => Ok(()),
        Some(EditError::NoSuchServer) if undrain => Err(anyhow!(
            "no such real server is drained: \"appliance show services\" lists them"
        ))?,
        Some(EditError::NoSuchServer) => Err(anyhow!(
            "no virtual server has this real server: \"appliance show services\" lists them"
        ))?,
        Some(other) => Err(Error::from(other))?,
    }
}

/// Shows what is left until it is nothing, or until the director serves none of it any more: whoever waits for this
/// command may stop the server next. `left`: before the drain.
fn wait(
    client: &Client,
    server: RealServer,
    mut left: Left,
    end: Option<Instant>,
) -> Result<(), Failure> {
    let mut progress = Progress::new();
    let mut without = 0;
    loop {
        let found = found(client, server)?;
        let state = State::of(&found);
        if state == State::GivenUp {
            // What is left by now says nothing: UDP clients have another server already.
            progress.end()?;
            return match left.open {
                0 => print("drained: no connections are left\n"),
                _ => Err(anyhow!(
                    "{} left at the deadline, now given up",
                    left.open_in_words()
                ))?,
            };
        }
        left = Left::of(&found);
        progress.show(left)?;
        without = if left.open == 0 { without + 1 } else { 0 };
        let now = Instant::now();
        let is_late = end.is_some_and(|end| end <= now);
        if without >= LOOKS_WITHOUT || is_late && left.open == 0 {
            progress.end()?;
            return print("drained: no connections are left\n");
        }
        if is_late && state == State::Undrained {
            progress.end()?;
            Err(anyhow!(
                "{} left at the deadline, and not given up: the server was undrained meanwhile",
                left.open_in_words()
            ))?;
        }
        if end.is_some_and(|end| end + PATIENCE <= now) {
            progress.end()?;
            Err(anyhow!(
                "{} left at the deadline, and still served {PATIENCE:?} later: do not stop the server yet; either \
                 another drain gave it a later deadline, or a worker hangs: see the log",
                left.open_in_words()
            ))?;
        }
        // One look shortly before the end, to know what is given up then.
        let rest = end.map_or(LOOK_EVERY, |end| {
            let rest = end.saturating_duration_since(now);
            rest.saturating_sub(LOOK_AT_THE_END_EVERY)
        });
        sleep(rest.clamp(LOOK_AT_THE_END_EVERY, LOOK_EVERY));
    }
}

/// Connections of a real server, over its virtual servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left {
    /// Established TCP connections, and all of UDP.
    open: u64,
    /// TCP connections that begin or end.
    closing: u64,
}

impl Left {
    fn of(servers: &[Found]) -> Self {
        let mut left = Self::default();
        for Found { is_tcp, server } in servers {
            left.open += server.traffic.active_connections;
            match is_tcp {
                true => left.closing += server.traffic.inactive_connections,
                false => left.open += server.traffic.inactive_connections,
            }
        }
        left
    }

    fn open_in_words(self) -> String {
        let open = usize::try_from(self.open).unwrap_or(usize::MAX);
        crate::in_words::count(open, "connection")
    }
}

/// The real server in one of the virtual servers that have it.
struct Found {
    is_tcp: bool,
    server: view::RealServer,
}

fn found(client: &Client, server: RealServer) -> Result<Vec<Found>, Failure> {
    let services: Vec<view::Service> = client.get("services").map_err(Error::from)?;
    let found = services.into_iter().flat_map(|service| {
        let is_tcp = service.protocol == "TCP";
        let servers = service.real_servers.into_iter();
        servers.map(move |server| Found { is_tcp, server })
    });
    let matches = |found: &Found| {
        let address = found.server.address;
        address.ip() == server.address && server.port.is_none_or(|port| port == address.port())
    };
    Ok(found.filter(matches).collect())
}

/// How a drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The director serves the connections that are left.
    Served,
    GivenUp,
    /// Somebody undrained the server, or a port of it.
    Undrained,
}

impl State {
    fn of(servers: &[Found]) -> Self {
        if servers.iter().any(|found| !found.server.drained) {
            Self::Undrained
        } else if !servers.is_empty() && servers.iter().all(|found| found.server.given_up) {
            Self::GivenUp
        } else {
            Self::Served
        }
    }
}

/// One line that changes on a terminal; elsewhere a line for each change.
struct Progress {
    terminal: bool,
    shown: Option<Left>,
}

impl Progress {
    fn new() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            shown: None,
        }
    }

    fn show(&mut self, left: Left) -> Result<(), Failure> {
        if self.shown.replace(left) == Some(left) {
            return Ok(());
        }
        let closing = left.closing;
        let open = left.open_in_words();
        let text = format!("{open} left, and {closing} closing");
        match self.terminal {
            // Over the line before, whatever its length.
            true => print(&format!("\r\x1b[K{text}")).and_then(|()| flush()),
            false => print(&format!("{text}\n")),
        }
    }

    fn end(&self) -> Result<(), Failure> {
        match self.terminal {
            true => print("\n"),
            false => Ok(()),
        }
    }
}

fn flush() -> Result<(), Failure> {
    Ok(io::stdout().flush().map_err(Error::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_servers_with_and_without_a_port() {
        let read = |text: &str| text.parse::<RealServer>().unwrap();
        let is = |address: &str, port| RealServer {
            address: address.parse().unwrap(),
            port,
        };
        assert_eq!(read("10.0.0.1"), is("10.0.0.1", None));
        assert_eq!(read("10.0.0.1:80"), is("10.0.0.1", Some(80)));
        assert_eq!(read("2001:db8::1"), is("2001:db8::1", None));
        assert_eq!(read("[2001:db8::1]:80"), is("2001:db8::1", Some(80)));
        assert!("10.0.0.1:http".parse::<RealServer>().is_err());
    }

    #[test]
    fn it_is_given_up_when_no_virtual_server_serves_it() {
        let found = |drained, given_up| Found {
            is_tcp: true,
            server: view::RealServer {
                drained,
                given_up,
                ..crate::api::example::services()
                    .remove(0)
                    .real_servers
                    .remove(0)
            },
        };
        let (given_up, served) = ((true, true), (true, false));
        for (servers, state) in [
            (vec![], State::Served),
            (vec![given_up, given_up], State::GivenUp),
            (vec![given_up, served], State::Served),
            (vec![given_up, (false, false)], State::Undrained),
        ] {
            let servers: Vec<_> = servers.into_iter().map(|(d, g)| found(d, g)).collect();
            assert_eq!(State::of(&servers), state);
        }
    }

    #[test]
    fn deadlines_in_seconds_or_with_a_unit() {
        assert_eq!(deadline("90"), Ok(Duration::from_secs(90)));
        assert_eq!(deadline("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(deadline("5m"), Ok(Duration::from_secs(300)));
        assert!(deadline("soon").is_err() && deadline("-1").is_err());
    }
}
