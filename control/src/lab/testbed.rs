//! A lab without a rehearsal: the network, its real servers and its director,
//! for a program that measures.
//!
//! That program sends and receives at the switch's ports of the director, as
//! a tester in a rack would be cabled. Dropping the [`Testbed`] removes it all.

use std::path::PathBuf;

use anyhow::{Context, bail};

use super::directors::Directors;
use super::name::{LabName, Leftovers, remove_leftovers};
use super::network::Network;
use super::plan::{DIRECTOR, End, INSIDE_SWITCH, Plan};
use super::process::Process;
use super::{Directory, Options, require_root, responder};

/// A running lab. Fields are dropped in this order.
#[derive(Debug)]
pub struct Testbed<'a> {
    plan: &'a Plan,
    responders: Vec<Process>,
    directors: Directors<'a>,
    network: Network,
    directory: Directory,
}

/// Where a tester is plugged in: an interface in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub namespace: String,
    pub interface: String,
}

impl<'a> Testbed<'a> {
    /// Builds the network of `plan` and starts what is in it, the director
    /// with `options`, of which `keep` and what a rehearsal does are not looked at.
    ///
    /// # Errors
    /// No root, the network cannot be built, or a program cannot be started.
    pub fn build(plan: &'a Plan, options: &Options) -> anyhow::Result<Self> {
        require_root()?;
        if plan.failover.is_some() {
            bail!(
                "the file has a vrrp_instance, for which a lab has two directors: measure a copy of \
                 the file without it"
            );
        }
        for lab in remove_leftovers(Leftovers::Orphaned)? {
            eprintln!("lab: removed what {lab} left behind");
        }
        let name = LabName::mine(false);
        let directory = Directory::create(name.directory())?;
        let network = Network::build(name, plan)?;
        let mut responders = Vec::new();
        for server in &plan.real_servers {
            responders.push(responder(&options.program, &network, &directory, server)?);
        }
        let directors = Directors::start(plan, options, &network, &directory)?;
        Ok(Self {
            plan,
            responders,
            directors,
            network,
            directory,
        })
    }

    /// Waits until all programs run.
    ///
    /// # Errors
    /// One stopped, or takes too long; with the end of its log.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        for responder in &mut self.responders {
            responder.ready().await?;
        }
        self.directors.ready().await
    }

    /// The end of the director's log, for a person.
    #[must_use]
    pub fn log_ends(&self) -> String {
        self.directors.log_ends()
    }

    /// The director's control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.socket(DIRECTOR)
    }

    /// The director's own end of the cable to the clients.
    ///
    /// # Errors
    /// The plan has no director.
    pub fn director(&self) -> anyhow::Result<Port> {
        let [own, _] = self.first_cable(|_| true)?;
        Ok(self.port(own))
    }

    /// Where clients' packets come to the director.
    ///
    /// # Errors
    /// The plan has no director.
    pub fn outside(&self) -> anyhow::Result<Port> {
        let [_, port] = self.first_cable(|_| true)?;
        Ok(self.port(port))
    }

    /// Where packets leave the director for the real servers: [`outside`](Self::outside) unless they
    /// are in a network behind it.
    ///
    /// # Errors
    /// The plan has no director.
    pub fn inside(&self) -> anyhow::Result<Port> {
        let is_divided = self.plan.is_divided();
        let [_, port] = self.first_cable(|port| !is_divided || port.namespace == INSIDE_SWITCH)?;
        Ok(self.port(port))
    }

    fn first_cable(&self, wanted: impl Fn(&End) -> bool) -> anyhow::Result<&'a [End; 2]> {
        let cables = self.plan.links.iter().map(|link| &link.ends);
        let mut found = cables.filter(|[own, port]| own.namespace == DIRECTOR && wanted(port));
        found.next().context("the lab's director has no cable")
    }

    fn port(&self, end: &End) -> Port {
        Port {
            namespace: self.network.namespace(&end.namespace),
            interface: end.interface.clone(),
        }
    }
}
