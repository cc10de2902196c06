//! The director to measure, in a lab of its own: the network that its configuration describes, built by
//! `control`'s lab, with the tester at the switch's ports of the director.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use control::api::client::Client;
use control::api::view::{Health, RealServer, Service};
use control::config::{self, Config, VirtualServer};
use control::lab::Options;
use control::lab::plan::Plan;
use control::lab::testbed::{Port, Testbed};
use dataplane::service::Protocol;

use super::tester::Place;
use crate::verify::Mode;

/// How long real servers may take to be up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Networks that RFC 2544 §C.2.2 and RFC 5180 §8 set aside for benchmarks.
const SOURCES: [&str; 2] = ["198.18.0.0/15", "2001:2::/48"];

/// A configuration, and the virtual server of it that is measured.
#[derive(Debug)]
pub struct Subject {
    path: PathBuf,
    config: Config,
    plan: Plan,
    virtual_server: VirtualServer,
}

/// A director that is ready for traffic, as a tester sees it.
#[derive(Clone, Debug)]
pub struct Ready {
    pub send: Place,
    pub receive: Place,
    pub destination_mac: String,
    pub sources: String,
    pub mode: Mode,
    /// `SERVER=WEIGHT` each.
    pub servers: Vec<String>,
    /// A CPU that the director does not use; `None` if it uses all.
    pub core: Option<usize>,
}

impl Subject {
    /// Reads the director's configuration and chooses the virtual server with that address and protocol; of
    /// several the first with UDP, or the first.
    ///
    /// # Errors
    /// The file is wrong, has no such virtual server, or describes nothing that a lab can be built for.
    pub fn read(
        path: &Path,
        address: Option<SocketAddr>,
        protocol: Option<Protocol>,
    ) -> anyhow::Result<Self> {
        let checked = config::load(path).map_err(|diagnostics| anyhow!("{diagnostics}"))?;
        let config = checked.config;
        let can_be_measured = |one: &&VirtualServer| {
            !one.real_servers.is_empty() && matches!(one.protocol(), Protocol::Udp | Protocol::Tcp)
        };
        let all = || config.virtual_servers.iter().filter(can_be_measured);
        let wanted = || {
            all().filter(|one| {
                address.is_none_or(|address| one.address() == address)
                    && protocol.is_none_or(|protocol| one.protocol() == protocol)
            })
        };
        let with_udp = wanted().find(|one| one.protocol() == Protocol::Udp);
        let virtual_server = with_udp.or_else(|| wanted().next()).with_context(|| {
            let name = |one: &VirtualServer| format!("{} {}", one.protocol(), one.address());
            let known: Vec<String> = all().map(name).collect();
            let which = [
                protocol.map(|it| it.to_string()),
                address.map(|it| it.to_string()),
            ];
            let which: Vec<String> = which.into_iter().flatten().collect();
            let (path, which) = (path.display(), which.join(" "));
            match known.is_empty() {
                true => format!("{path}: no virtual server with UDP or TCP and a real server"),
                false => format!(
                    "{path}: no virtual server {which}: it has {}",
                    known.join(", ")
                ),
            }
        })?;
        if virtual_server.key.port == 0 {
            bail!(
                "virtual server {} takes every port: name one in a copy of the file",
                virtual_server.address()
            );
        }
        Ok(Self {
            path: path.to_owned(),
            plan: Plan::of(&config).map_err(|error| {
                anyhow!("{error}; a director of your own can be measured by --tx-interface")
            })?,
            virtual_server: virtual_server.clone(),
            config,
        })
    }

    /// What is measured.
    #[must_use]
    pub fn virtual_server(&self) -> &VirtualServer {
        &self.virtual_server
    }

    /// Builds the lab, with `appliance` in it.
    ///
    /// # Errors
    /// No root, the lab cannot be built, or a program in it does not start.
    pub fn build(&self, appliance: &Path) -> anyhow::Result<Bed<'_>> {
        let options = Options {
            program: appliance.to_owned(),
            run_arguments: vec![self.path.clone().into()],
            keep: false,
            break_things: false,
            requests: 0,
        };
        Ok(Bed {
            subject: self,
            testbed: Testbed::build(&self.plan, &options)?,
        })
    }

    /// The CPUs that the director's workers have.
    fn director_cores(&self) -> BTreeSet<usize> {
        let known = core_affinity::get_core_ids().unwrap_or_default();
        match self.config.appliance.cores.is_empty() {
            false => self.config.appliance.cores.iter().copied().collect(),
            true => known.iter().map(|id| id.id).skip(1).collect(),
        }
    }
}

/// A lab that exists as long as this.
#[derive(Debug)]
pub struct Bed<'a> {
    subject: &'a Subject,
    testbed: Testbed<'a>,
}

impl Bed<'_> {
    /// Waits until the director forwards to all of its real servers.
    ///
    /// # Errors
    /// A program of the lab stops, or a real server is not up within a minute.
    pub fn ready(&mut self) -> anyhow::Result<Ready> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.testbed.ready())?;
        let service = self.service()?;
        let method = &service.forwarding_method;
        let mut real_servers = service.real_servers.iter();
        if let Some(other) = real_servers.find(|real| real.forwarding_method != *method) {
            bail!(
                "real server {} has lb_kind {}, the virtual server {method}: one measurement is of one method; \
                 measure a copy of the file without it",
                other.address,
                other.forwarding_method
            );
        }
        let mode: Mode = method.as_ref().parse().map_err(anyhow::Error::msg)?;
        let server = |real: &RealServer| {
            let name = match (mode, &real.next_hop) {
                (Mode::Dr, Some(next_hop)) => next_hop.mac.clone(),
                (Mode::Tun, _) => real.address.ip().to_string(),
                _ => real.address.to_string(),
            };
            format!("{name}={}", real.weight)
        };
        let cores = self.subject.director_cores();
        let known = core_affinity::get_core_ids().unwrap_or_default();
        let [ipv4, ipv6] = SOURCES;
        let is_ipv4 = self.subject.virtual_server.address().is_ipv4();
        Ok(Ready {
            send: place(self.testbed.outside()?),
            receive: place(self.testbed.inside()?),
            destination_mac: ethernet_address(&self.testbed.director()?)?,
            sources: if is_ipv4 { ipv4 } else { ipv6 }.to_owned(),
            mode,
            servers: service.real_servers.iter().map(server).collect(),
            core: known.iter().map(|id| id.id).find(|id| !cores.contains(id)),
        })
    }

    /// What the director says of the virtual server, once all of its real servers are up and resolved.
    fn service(&self) -> anyhow::Result<Service> {
        let client = Client::new(&self.testbed.socket())?;
        let deadline = Instant::now() + PATIENCE;
        let wanted = &self.subject.virtual_server;
        loop {
            let services: Vec<Service> = client.get("services")?;
            let protocol = wanted.protocol().to_string();
            let mut services = services.into_iter();
            let service = services
                .find(|one| one.address == wanted.address() && one.protocol.as_ref() == protocol);
            let service = service.context("the director does not know the virtual server")?;
            let is_waited_for = |real: &&RealServer| {
                matches!(real.health, Health::Down | Health::Checking) || real.next_hop.is_none()
            };
            let late = service.real_servers.iter().find(is_waited_for);
            match late {
                None => return Ok(service),
                Some(real) if Instant::now() > deadline => bail!(
                    "real server {} is not up after {} s ({}); {}",
                    real.address,
                    PATIENCE.as_secs(),
                    real.reason.as_deref().unwrap_or("no answer"),
                    self.testbed.log_ends()
                ),
                Some(_) => std::thread::sleep(POLL),
            }
        }
    }
}

fn place(port: Port) -> Place {
    Place {
        namespace: Some(port.namespace),
        interface: port.interface,
    }
}

/// The Ethernet address of an interface in another namespace.
fn ethernet_address(port: &Port) -> anyhow::Result<String> {
    let path = format!("/sys/class/net/{}/address", port.interface);
    let read = Command::new("ip")
        .args(["netns", "exec", &port.namespace, "cat", &path])
        .output()
        .context("cannot run `ip`")?;
    let address = String::from_utf8_lossy(&read.stdout).trim().to_owned();
    if address.is_empty() {
        let said = String::from_utf8_lossy(&read.stderr);
        bail!(
            "the director's {} has no address: {}",
            port.interface,
            said.trim()
        );
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The virtual server that is chosen of `configs/udp-dns.toml`, which has UDP and TCP at one address.
    fn chosen(address: Option<&str>, protocol: Option<Protocol>) -> anyhow::Result<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/udp-dns.toml");
        let address = address.map(|address| address.parse().unwrap());
        let subject = Subject::read(&path, address, protocol)?;
        let virtual_server = subject.virtual_server();
        Ok(format!(
            "{} {}",
            virtual_server.protocol(),
            virtual_server.address()
        ))
    }

    #[test]
    fn address_and_protocol_choose_the_virtual_server() {
        const ADDRESS: Option<&str> = Some("192.168.1.100:53");
        let (udp, tcp) = (Some(Protocol::Udp), Some(Protocol::Tcp));
        for (address, protocol, expected) in [
            (None, None, "UDP 192.168.1.100:53"),
            (ADDRESS, None, "UDP 192.168.1.100:53"),
            (None, udp, "UDP 192.168.1.100:53"),
            (None, tcp, "TCP 192.168.1.100:53"),
            (ADDRESS, tcp, "TCP 192.168.1.100:53"),
        ] {
            assert_eq!(chosen(address, protocol).unwrap(), expected);
        }
        let error = chosen(Some("192.168.1.100:80"), tcp).unwrap_err();
        let error = error.to_string();
        let said = "no virtual server TCP 192.168.1.100:80: it has UDP 192.168.1.100:53, TCP 192.168.1.100:53";
        assert!(error.ends_with(said), "{error}");
    }
}
