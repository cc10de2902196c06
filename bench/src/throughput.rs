//! Packets per second over veth.
//!
//! The source runs on CPU 0, and with it the XDP half of the balancer's receive path, because a veth
//! receives on its sender's CPU; what is measured runs on CPU 1 and does everything after that, down to
//! the sink. So every case is judged by one CPU's work.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use crate::process::Process;
use crate::topology::{
    BALANCER, BALANCER_MAC, CLIENTS, REAL_SERVERS, SERVERS, SERVERS_MAC, SOURCE, Topology, VIP,
};
use crate::{Reading, pause};

/// Flows of the cases.
pub const FLOWS: [u32; 3] = [1, 10_000, 1_000_000];

/// What is between source and sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancer {
    /// Nothing: the sink is at the other end of the source's veth.
    Absent,
    /// `forward`: AF_XDP in, Ethernet addresses rewritten, AF_XDP out.
    Forwarder,
    /// `appliance run`, direct routing.
    Appliance,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub balancer: Balancer,
    pub flows: u32,
}

impl Case {
    /// What it is called in the table.
    #[must_use]
    pub fn name(&self) -> String {
        match self.balancer {
            Balancer::Absent => "source alone, into XDP_DROP".to_owned(),
            Balancer::Forwarder => "bare AF_XDP forwarder (xsk-rs)".to_owned(),
            Balancer::Appliance => format!("appliance, DR, {} flows", self.flows),
        }
    }

    /// Until every flow has been seen, about: 1M flows at 0.8 Mpps, of which a random part gets
    /// through, need some seconds.
    fn warm_up(&self) -> Duration {
        match self.flows {
            0..100_000 => Duration::from_millis(1500),
            _ => Duration::from_secs(8),
        }
    }
}

/// The cases of a round, in the order in which they take turns.
#[must_use]
pub fn cases(with_appliance: bool) -> Vec<Case> {
    let case = |balancer, flows| Case { balancer, flows };
    let mut cases = vec![case(Balancer::Absent, 1), case(Balancer::Forwarder, 1)];
    if with_appliance {
        cases.extend(FLOWS.map(|flows| case(Balancer::Appliance, flows)));
    }
    cases
}

/// Where the programs are, and how long to measure.
#[derive(Clone, Debug)]
pub struct Setup {
    pub programs: PathBuf,
    pub scratch: PathBuf,
    pub seconds: f64,
}

/// What one run of a case gave, in million packets per second.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// What the source sent.
    pub offered: f64,
    /// What arrived at the sink.
    pub delivered: f64,
}

/// The source's own report.
#[derive(Debug, Deserialize)]
struct Sent {
    mpps: f64,
}

/// Runs a case once, in a network of its own.
///
/// # Errors
/// A program failed; the error has what it said.
pub fn run(setup: &Setup, case: &Case) -> anyhow::Result<Outcome> {
    let _topology = Topology::up()?;
    let program = |name: &str| setup.programs.join(name);
    // The sink first: attaching it later would wait for a CPU that spins.
    let (namespace, interface) = match case.balancer {
        Balancer::Absent => (BALANCER, "l0"),
        Balancer::Forwarder | Balancer::Appliance => (SERVERS, "b0"),
    };
    let mut sink = Process::start(namespace, &program("sink"), &[interface])?;
    sink.wait_ready()?;
    let balancer = match case.balancer {
        Balancer::Absent => None,
        Balancer::Forwarder => Some(forwarder(&program("forward"))?),
        Balancer::Appliance => Some(appliance(&program("appliance"), &setup.scratch)?),
    };
    let warm_up = case.warm_up();
    let duration = format!("{:.3}", warm_up.as_secs_f64() + setup.seconds + 0.5);
    let flows = case.flows.to_string();
    #[rustfmt::skip]
    let source = Process::start(SOURCE, &program("pktgen"), &[
        "tx", "--interface", "g0", "--dst", VIP, "--dst-mac", BALANCER_MAC, "--src", CLIENTS,
        "--flows", &flows, "--duration", &duration, "--core", "0", "--json",
    ])?;
    pause(warm_up)?;
    let first = read(&mut sink)?;
    pause(Duration::from_secs_f64(setup.seconds))?;
    let last = read(&mut sink)?;
    let sent: Sent = serde_json::from_str(&source.finish(Duration::from_secs(10))?)
        .context("the source's report")?;
    if let Some(balancer) = balancer {
        balancer.stop()?;
    }
    sink.finish(Duration::from_secs(10))?;
    Ok(Outcome {
        offered: sent.mpps,
        delivered: last.mpps_since(&first),
    })
}

fn read(sink: &mut Process) -> anyhow::Result<Reading> {
    serde_json::from_str(&sink.ask()?).context("the sink's reading")
}

fn forwarder(program: &Path) -> anyhow::Result<Process> {
    #[rustfmt::skip]
    let process = Process::start(BALANCER, program, &[
        "--rx", "l0", "--tx", "l1", "--dst-mac", SERVERS_MAC, "--core", "1",
    ])?;
    process.wait_ready()?;
    Ok(process)
}

fn appliance(program: &Path, scratch: &Path) -> anyhow::Result<Process> {
    let path = scratch.join("bench.toml");
    fs::write(&path, configuration(scratch))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let path = path.to_string_lossy();
    let process = Process::start(BALANCER, program, &["run", &path])?;
    process.wait_ready()?;
    Ok(process)
}

/// The appliance's configuration: one UDP service, four real servers, one worker.
fn configuration(scratch: &Path) -> String {
    let socket = scratch.join("appliance.sock");
    let mut text = format!(
        r#"[appliance]
control_socket = "{}"
max_connections = 1_048_576
cores = [1]

[[interface]]
name = "l0"

[[interface]]
name = "l1"

[[virtual_server]]
address = "{VIP}"
protocol = "UDP"
lb_algo = "rr"
lb_kind = "DR"
"#,
        socket.display()
    );
    for address in REAL_SERVERS {
        text +=
            &format!("\n[[virtual_server.real_server]]\naddress = \"{address}:80\"\nweight = 1\n");
    }
    text
}
