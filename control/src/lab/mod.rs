//! `appliance lab`: rehearses a configuration on one machine.
//!
//! [`plan`] derives the network from the file, [`network`] builds it out of
//! namespaces, the same program runs in it as the [`directors`] with the file
//! unchanged and as one [`mod@responder`] a real server, [`client`] makes the
//! requests and [`script`] breaks things. Whatever ends the rehearsal (its
//! end, an error, a signal, a panic), dropping `Lab` removes all of it;
//! what a SIGKILL leaves is removed by the next lab.
//!
//! It does not measure: the built-in client and responders are for counting.
//! [`testbed`] is the same network for a program that does.

pub mod client;
pub mod directors;
pub mod name;
pub mod namespace;
pub mod network;
pub mod outage;
pub mod plan;
pub mod process;
pub mod responder;
pub mod screen;
pub mod script;
pub mod subnet;
pub mod tally;
pub mod testbed;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use client::Client;
use directors::Directors;
use name::{LabName, Leftovers, remove_leftovers};
use network::Network;
use plan::{CLIENT, DIRECTOR, Plan};
use process::Process;
use screen::Screen;
use script::Script;

/// The hidden command of a real server's responder.
pub const RESPONDER_COMMAND: &str = "lab-responder";

/// What to rehearse.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is run as director and as real servers: this program.
    pub program: PathBuf,
    /// The director's command line after `run`: the file and how to read it.
    pub run_arguments: Vec<OsString>,
    /// Leave the network up at the end.
    pub keep: bool,
    /// Break things after the traffic.
    pub break_things: bool,
    /// Requests to each virtual server before that.
    pub requests: u32,
}

/// Rehearses `config`. True if all went as it should.
///
/// # Errors
///
/// The network cannot be built, the director does not start or does not stay,
/// a signal came. Everything that was made has been removed then.
pub fn rehearse(config: &Config, options: &Options) -> anyhow::Result<bool> {
    require_root()?;
    let plan = Plan::of(config)?;
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build()?;
    runtime.block_on(async {
        // From here on a signal waits until it is asked for, so that nothing
        // is left half built.
        let mut signals = Signals::listen()?;
        for lab in remove_leftovers(Leftovers::Orphaned)? {
            eprintln!("lab: removed what {lab} left behind");
        }
        let mut screen = Screen::new();
        let mut lab = Lab::build(&plan, options)?;
        let passed = tokio::select! {
            passed = lab.run(options, &mut screen) => passed?,
            signal = signals.next() => bail!("{signal}: everything that the lab made is removed"),
        };
        if options.keep {
            lab.keep(&plan, &mut screen)?;
        }
        Ok(passed)
    })
}

/// Removes every lab that is not in use; returns a line about each.
///
/// # Errors
///
/// No right to, or the list of namespaces cannot be read.
pub fn remove() -> anyhow::Result<Vec<String>> {
    require_root()?;
    let removed = remove_leftovers(Leftovers::Kept)?;
    Ok(removed
        .iter()
        .map(|lab| format!("removed {lab}\n"))
        .collect())
}

fn require_root() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the lab makes network namespaces, which only root may do: run it with sudo");
    }
    Ok(())
}

/// Everything that has to go at the end. Fields are dropped in this order.
#[derive(Debug)]
struct Lab<'a> {
    plan: &'a Plan,
    client: Client,
    responders: Vec<Option<Process>>,
    /// On each director: what the file's scripts watch.
    watched: Vec<Option<Process>>,
    directors: Directors<'a>,
    network: Network,
    directory: Directory,
}

impl<'a> Lab<'a> {
    fn build(plan: &'a Plan, options: &Options) -> anyhow::Result<Self> {
        let name = LabName::mine(options.keep);
        let directory = Directory::create(name.directory())?;
        let network = Network::build(name, plan)?;
        let mut responders = Vec::new();
        for server in &plan.real_servers {
            let started = responder(&options.program, &network, &directory, server)?;
            responders.push(Some(started));
        }
        let mut watched = Vec::new();
        if !plan.watched.is_empty() {
            for director in &plan.directors {
                let services = watched_services(
                    &options.program,
                    &network,
                    &directory,
                    director,
                    &plan.watched,
                )?;
                watched.push(Some(services));
            }
        }
        let directors = Directors::start(plan, options, &network, &directory)?;
        Ok(Self {
            plan,
            client: Client::start(network.namespace(CLIENT))?,
            responders,
            watched,
            directors,
            network,
            directory,
        })
    }

    /// The whole rehearsal, unless a director dies by itself.
    async fn run(&mut self, options: &Options, screen: &mut Screen) -> anyhow::Result<bool> {
        let responders = self.responders.iter_mut().chain(&mut self.watched);
        for responder in responders.flatten() {
            responder.ready().await?;
        }
        self.directors.ready().await?;
        let Self {
            plan,
            client,
            responders,
            watched,
            directors,
            network,
            directory,
        } = self;
        let directors = &*directors;
        let mut script = Script {
            plan,
            client,
            directors,
            responders,
            watched,
            network,
            directory,
            screen,
            failures: 0,
        };
        let passed = tokio::select! {
            passed = script.play(options) => passed?,
            error = directors.died() => return Err(error),
        };
        if !passed {
            eprintln!("lab: {}", directors.log_ends());
        }
        Ok(passed)
    }

    /// Leaves it all running, and says how to use it and how to be rid of it.
    fn keep(self, plan: &Plan, screen: &mut Screen) -> anyhow::Result<()> {
        let enter = |role: &str| format!("  ip netns exec {} bash", self.network.namespace(role));
        screen.say("\nThe network is left up. To enter it:")?;
        for namespace in &plan.namespaces {
            let address = namespace.addresses.first();
            let address = address.map_or(String::new(), |held| format!("   # {}", held.address));
            screen.say(&format!("{}{address}", enter(&namespace.name)))?;
        }
        screen.say("To ask a director:")?;
        for director in &plan.directors {
            let socket = self.directory.socket(&director.name);
            screen.say(&format!("  appliance show --socket {}", socket.display()))?;
        }
        screen.say("To remove everything:\n  appliance lab --remove")?;
        let responders = self.responders.into_iter().chain(self.watched);
        responders.flatten().for_each(Process::keep);
        self.directors.keep();
        self.network.keep();
        self.directory.keep();
        Ok(())
    }
}

/// Starts the responder of a real server.
fn responder(
    program: &Path,
    network: &Network,
    directory: &Directory,
    server: &plan::RealServer,
) -> anyhow::Result<Process> {
    let mut arguments = vec![
        RESPONDER_COMMAND.to_string(),
        "--name".into(),
        server.address.to_string(),
    ];
    for listen in &server.listen {
        arguments.extend(["--listen".into(), listen.to_string()]);
    }
    for (path, status) in &server.statuses {
        arguments.extend(["--status".into(), format!("{status}={path}")]);
    }
    for end in &server.tunnel_ends {
        arguments.extend(["--tunnel".into(), responder::argument(end)]);
    }
    let name = &server.namespace;
    Process::start(
        format!("the responder of real server {}", server.address),
        program,
        &network.namespace(name),
        &arguments,
        directory.0.join(format!("{name}.log")),
    )
}

/// Starts what the scripts of a director watch.
fn watched_services(
    program: &Path,
    network: &Network,
    directory: &Directory,
    director: &plan::Director,
    watched: &[plan::Watched],
) -> anyhow::Result<Process> {
    let mut arguments = vec![RESPONDER_COMMAND.to_string()];
    let name = director.addresses.first();
    arguments.extend(
        name.into_iter()
            .flat_map(|name| ["--name".into(), name.to_string()]),
    );
    let places: BTreeSet<_> = watched.iter().map(|watched| watched.address).collect();
    for address in places {
        let protocol = plan::Protocol::Tcp;
        let listen = plan::Listen { protocol, address };
        arguments.extend(["--listen".into(), listen.to_string()]);
    }
    let name = &director.name;
    Process::start(
        format!(
            "what scripts of director {} watch",
            directors::addresses(director)
        ),
        program,
        &network.namespace(name),
        &arguments,
        directory.0.join(format!("{name}-watched.log")),
    )
}

/// The control socket and the logs, removed with this value.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    fn create(path: PathBuf) -> anyhow::Result<Self> {
        // Nobody else's: a lab that had this process number is gone.
        let _ = fs::remove_dir_all(&path);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// A director's control socket.
    fn socket(&self, director: &str) -> PathBuf {
        let is_first = director == DIRECTOR;
        let others = format!("{director}.socket");
        self.0.join(if is_first { "socket" } else { &others })
    }

    fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.0 != Path::new("") {
            // Whatever is in the way will be found by a person in /run.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// The signals that end a rehearsal in good order.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let one = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: one(SignalKind::interrupt())?,
            terminate: one(SignalKind::terminate())?,
            hangup: one(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "terminated",
            _ = self.hangup.recv() => "the terminal went away",
        }
    }
}
