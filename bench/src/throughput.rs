//! Packets per second over veth.
//!
//! The source runs on CPU 0, and with it the XDP half of the balancer's receive path, because a veth
//! receives on its sender's CPU; what is measured runs on CPU 1 and does everything after that, down to
//! the sink. So every case is judged by one CPU's work.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use pktgen::sink::Hook;

use crate::appliance::{Configuration, Idle, Method};
use crate::peers::{self, Peer, Started, processor_time};
use crate::process::Process;
use crate::topology::{
    BALANCER, BALANCER_MAC, CLIENTS, SERVERS, SERVERS_MAC, SOURCE, Topology, VIP,
};
use crate::{Reading, pause};

/// Flows of the cases.
pub const FLOWS: [u32; 3] = [1, 10_000, 1_000_000];

/// Flows of the cases that compare methods, sizes and peers.
pub const SOME_FLOWS: u32 = 10_000;

/// Packets per second of the cases that compare processor time.
pub const FIXED_LOAD: u32 = 200_000;

/// What is between source and sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancer {
    /// Nothing: the sink is at the other end of the source's veth.
    Absent,
    /// `forward`: AF_XDP in, Ethernet addresses rewritten, AF_XDP out.
    Forwarder,
    /// `appliance run`.
    Appliance(Method, Idle),
    /// What a user would take instead.
    Peer(Peer),
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub balancer: Balancer,
    pub flows: u32,
    /// As `pktgen tx --size` takes it; `None` for the shortest.
    pub size: Option<&'static str>,
    /// Packets per second that the source sends; `None` for as many as it can.
    pub rate: Option<u32>,
    /// Where the sink takes the frames.
    pub sink: Hook,
}

impl Case {
    /// What it is called in the table.
    #[must_use]
    pub fn name(&self) -> String {
        let who = match self.balancer {
            Balancer::Absent => return "source alone, into XDP_DROP".to_owned(),
            Balancer::Forwarder => "bare AF_XDP forwarder (xsk-rs)".to_owned(),
            Balancer::Appliance(method, Idle::Adaptive) => {
                format!("appliance, {}", method.keyword())
            }
            Balancer::Appliance(method, idle) => {
                format!("appliance, {}, idle = {}", method.keyword(), idle.keyword())
            }
            Balancer::Peer(peer) => peer.name().to_owned(),
        };
        let flows = match self.flows {
            // It knows no flows.
            _ if self.balancer == Balancer::Forwarder => String::new(),
            1 => ", 1 flow".to_owned(),
            flows => format!(", {flows} flows"),
        };
        let size = match self.size {
            None => String::new(),
            Some("imix") => ", IMIX".to_owned(),
            Some(bytes) => format!(", {bytes} B"),
        };
        let rate = match self.rate {
            None => String::new(),
            Some(rate) => format!(", {rate} packets/s"),
        };
        let sink = match self.sink {
            Hook::Xdp => ", into XDP_DROP",
            Hook::Tc => "",
        };
        format!("{who}{flows}{size}{rate}{sink}")
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
pub fn cases(peers: &[Peer]) -> Vec<Case> {
    let case = |balancer, flows| Case {
        balancer,
        flows,
        size: None,
        rate: None,
        sink: Hook::Tc,
    };
    let adaptive = |method| Balancer::Appliance(method, Idle::Adaptive);
    let direct = adaptive(Method::Dr);
    let absent = Case {
        sink: Hook::Xdp,
        ..case(Balancer::Absent, 1)
    };
    let mut cases = vec![absent, case(Balancer::Forwarder, 1)];
    cases.extend(FLOWS.map(|flows| case(direct, flows)));
    cases.extend(
        [Method::Nat, Method::Tun, Method::FullNat]
            .map(|method| case(adaptive(method), SOME_FLOWS)),
    );
    for size in ["512", "1500", "imix"] {
        cases.extend([Balancer::Forwarder, direct].map(|balancer| Case {
            balancer,
            size: Some(size),
            ..case(balancer, SOME_FLOWS)
        }));
    }
    let peers = peers.iter().map(|&peer| Balancer::Peer(peer));
    cases.extend(peers.clone().map(|peer| case(peer, SOME_FLOWS)));
    // What the sink has to do with it.
    let compared = [Balancer::Forwarder, adaptive(Method::Nat)].into_iter();
    let dnat = peers
        .clone()
        .filter(|peer| *peer == Balancer::Peer(Peer::NftDnat));
    cases.extend(compared.chain(dnat).map(|balancer| Case {
        sink: Hook::Xdp,
        ..case(balancer, SOME_FLOWS)
    }));
    // What a load costs that everybody can take.
    let methods = [Method::Dr, Method::Nat]
        .into_iter()
        .flat_map(|method| [Idle::Adaptive, Idle::Interrupt].map(|idle| (method, idle)))
        .map(|(method, idle)| Balancer::Appliance(method, idle));
    cases.extend(
        std::iter::once(Balancer::Forwarder)
            .chain(methods)
            .chain(peers)
            .map(|balancer| Case {
                rate: Some(FIXED_LOAD),
                ..case(balancer, SOME_FLOWS)
            }),
    );
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
    /// Part of a CPU that the balancer used; without one nothing is.
    pub cpu: f64,
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
        Balancer::Forwarder | Balancer::Appliance(..) | Balancer::Peer(_) => (SERVERS, "b0"),
    };
    let arguments: &[&str] = match case.sink {
        Hook::Xdp => &[interface, "--xdp"],
        Hook::Tc => &[interface],
    };
    let mut sink = Process::start(namespace, &program("sink"), arguments)?;
    sink.wait_ready()?;
    let balancer = match case.balancer {
        Balancer::Absent => Started::default(),
        Balancer::Forwarder => Started::process(forwarder(&program("forward"))?),
        Balancer::Appliance(method, idle) => {
            let configuration = Configuration {
                method,
                protocol: "UDP",
                idle,
            };
            Started::process(configuration.run(&program("appliance"), &setup.scratch)?)
        }
        Balancer::Peer(peer) => peers::start(peer)?,
    };
    let warm_up = case.warm_up();
    let duration = format!("{:.3}", warm_up.as_secs_f64() + setup.seconds + 0.5);
    let flows = case.flows.to_string();
    #[rustfmt::skip]
    let mut arguments = vec![
        "tx", "--interface", "g0", "--dst", VIP, "--dst-mac", BALANCER_MAC, "--src", CLIENTS,
        "--flows", &flows, "--duration", &duration, "--core", "0", "--json",
    ];
    arguments.extend(case.size.iter().flat_map(|size| ["--size", size]));
    let rate = case.rate.map(|rate| rate.to_string());
    arguments.extend(rate.iter().flat_map(|rate| ["--rate", rate]));
    let source = Process::start(SOURCE, &program("pktgen"), &arguments)?;
    pause(warm_up)?;
    let first = read(&mut sink)?;
    let spent_before = processor_time(&balancer.charged)?;
    pause(Duration::from_secs_f64(setup.seconds))?;
    let last = read(&mut sink)?;
    let spent = processor_time(&balancer.charged)?.saturating_sub(spent_before);
    let sent: Sent = serde_json::from_str(&source.finish(Duration::from_secs(10))?)
        .context("the source's report")?;
    balancer.stop(case.balancer == Balancer::Peer(Peer::Testpmd))?;
    sink.finish(Duration::from_secs(10))?;
    Ok(Outcome {
        offered: sent.mpps,
        delivered: last.mpps_since(&first),
        cpu: spent.as_secs_f64() / (last.seconds - first.seconds),
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
