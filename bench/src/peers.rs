//! What a user would take instead, in the same place: kernel routing, nftables, DPDK's testpmd.
//!
//! The kernel's forwarding runs where the frame was received. A veth receives on its sender's CPU, so the
//! balancer's interfaces get NAPI threads of their own, pinned to CPU 1: that CPU then does for these peers
//! what the worker does for the appliance.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::Pid;

use crate::pause;
use crate::process::Process;
use crate::topology::{self, BALANCER, REAL_SERVERS, SERVERS_MAC, VIP_ADDRESS};

/// How long an interface may take to do what it was told.
const PATIENCE: Duration = Duration::from_secs(10);

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The kernel routes to one server; nothing is balanced.
    Routing,
    /// nftables, NAT with connection tracking.
    NftDnat,
    /// nftables at the ingress hook: a new Ethernet address, out of the other interface; no state.
    NftDsr,
    /// DPDK over AF_XDP, new Ethernet addresses; nothing is balanced.
    Testpmd,
}

impl Peer {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Routing, Self::NftDnat, Self::NftDsr, Self::Testpmd];

    /// What it is called in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Routing => "kernel routing (no balancing)",
            Self::NftDnat => "nftables, stateful DNAT",
            Self::NftDsr => "nftables netdev, DSR without state",
            Self::Testpmd => "DPDK testpmd, net_af_xdp (no balancing)",
        }
    }

    /// Why it cannot be measured here, if it cannot.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let (program, package) = match self {
            Self::Routing => ("ethtool", "ethtool"),
            Self::NftDnat | Self::NftDsr => ("nft", "nftables"),
            Self::Testpmd => ("dpdk-testpmd", "dpdk-dev librte-net-af-xdp23"),
        };
        let missing = !topology::has(program);
        missing.then(|| {
            format!(
                "{}: {program} not found: apt-get install {package}",
                self.name()
            )
        })
    }
}

/// A running balancer.
#[derive(Debug, Default)]
pub struct Started {
    process: Option<Process>,
    /// Whose processor time is the balancer's.
    pub charged: Vec<Pid>,
}

impl Started {
    /// A program.
    #[must_use]
    pub fn process(process: Process) -> Self {
        Self {
            charged: vec![process.id()],
            process: Some(process),
        }
    }

    /// The kernel, in these threads.
    #[must_use]
    pub const fn kernel(threads: Vec<Pid>) -> Self {
        Self {
            process: None,
            charged: threads,
        }
    }

    /// Ends it: with SIGTERM, or by the end of its input.
    ///
    /// # Errors
    /// It failed, or does not end.
    pub fn stop(self, by_input: bool) -> anyhow::Result<()> {
        match self.process {
            Some(process) if by_input => process.finish(PATIENCE).map(drop),
            Some(process) => process.stop().map(drop),
            None => Ok(()),
        }
    }
}

/// Sets the peer up in the balancer's namespace.
///
/// # Errors
/// A command failed; the error has what it said.
pub fn start(peer: Peer) -> anyhow::Result<Started> {
    match peer {
        Peer::Routing => {
            // The balancer must not keep the VIP, or it would deliver locally.
            topology::ip(&format!("-n {BALANCER} addr del {VIP_ADDRESS}/32 dev l0"))?;
            topology::ip(&format!(
                "-n {BALANCER} route add {VIP_ADDRESS}/32 via {} dev l1",
                REAL_SERVERS[0]
            ))?;
            Ok(Started::kernel(vec![receive_on(BALANCER, "l0", "1")?]))
        }
        Peer::NftDnat => {
            nft(&dnat("udp"))?;
            Ok(Started::kernel(vec![receive_on(BALANCER, "l0", "1")?]))
        }
        Peer::NftDsr => {
            nft(&format!(
                "table netdev bench {{ chain ingress {{ type filter hook ingress device l0 priority 0; \
                 ip daddr {VIP_ADDRESS} udp dport 80 ether daddr set {SERVERS_MAC} fwd to l1; }}; }}"
            ))?;
            Ok(Started::kernel(vec![receive_on(BALANCER, "l0", "1")?]))
        }
        Peer::Testpmd => testpmd().map(Started::process),
    }
}

/// The rule set of a stateful balancer: four servers by a hash of the source.
#[must_use]
pub fn dnat(protocol: &str) -> String {
    let servers: Vec<String> = REAL_SERVERS
        .iter()
        .enumerate()
        .map(|(index, address)| format!("{index} : {address}"))
        .collect();
    format!(
        "table ip bench {{ chain prerouting {{ type nat hook prerouting priority -100; \
         ip daddr {VIP_ADDRESS} {protocol} dport 80 \
         dnat to jhash ip saddr . {protocol} sport mod {} map {{ {} }}; }}; }}",
        servers.len(),
        servers.join(", ")
    )
}

/// Gives `rules` to nft in the balancer's namespace.
///
/// # Errors
/// nft refuses them.
pub fn nft(rules: &str) -> anyhow::Result<()> {
    topology::on(BALANCER, "nft", &[rules])
}

/// Lets a kernel thread pinned to `cpu` receive for `interface` in `namespace`; returns the thread.
///
/// # Errors
/// The kernel has no threaded NAPI, or a command failed.
pub fn receive_on(namespace: &str, interface: &str, cpu: &str) -> anyhow::Result<Pid> {
    topology::on(namespace, "ethtool", &["-K", interface, "gro", "on"])?;
    let threaded = format!("echo 1 > /sys/class/net/{interface}/threaded");
    topology::on(namespace, "sh", &["-c", &threaded])?;
    let thread = napi_thread(interface)?;
    let id = thread.as_raw_nonzero().to_string();
    topology::run("taskset", &["-pc", cpu, &id])?;
    topology::run("renice", &["-n", "-20", "-p", &id])?;
    Ok(thread)
}

/// The newest kernel thread that receives for `interface`: other namespaces may have one of that name.
fn napi_thread(interface: &str) -> anyhow::Result<Pid> {
    let prefix = format!("napi/{interface}-");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let newest = fs::read_dir("/proc")
            .context("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|process| {
                fs::read_to_string(format!("/proc/{process}/comm"))
                    .is_ok_and(|name| name.starts_with(&prefix))
            })
            .max();
        if let Some(thread) = newest.and_then(Pid::from_raw) {
            return Ok(thread);
        }
        if Instant::now() > deadline {
            bail!("no NAPI thread for {interface}");
        }
        pause(Duration::from_millis(50))?;
    }
}

fn testpmd() -> anyhow::Result<Process> {
    #[rustfmt::skip]
    let process = Process::start(BALANCER, "dpdk-testpmd".as_ref(), &[
        "--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--iova-mode=va", "-l", "0,1", "--main-lcore", "0",
        "--vdev", "net_af_xdp0,iface=l0", "--vdev", "net_af_xdp1,iface=l1", "--",
        "--forward-mode=mac", "--burst=64", "--eth-peer=0,02:00:00:00:00:01", &format!("--eth-peer=1,{SERVERS_MAC}"),
        "--auto-start", "--no-mlockall", "--nb-cores=1", "--total-num-mbufs=20000",
    ])?;
    let deadline = Instant::now() + PATIENCE;
    // It says nothing that can be waited for when its output is a pipe.
    while !["l0", "l1"].into_iter().all(has_xdp) {
        if Instant::now() > deadline {
            bail!("dpdk-testpmd attached to nothing: {}", process.said());
        }
        pause(Duration::from_millis(100))?;
    }
    pause(Duration::from_millis(500))?;
    Ok(process)
}

fn has_xdp(interface: &str) -> bool {
    Command::new("ip")
        .args(["-n", BALANCER, "link", "show", "dev", interface])
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("prog/xdp"))
}

/// Processor time of processes and kernel threads, all of their threads together.
///
/// # Errors
/// One of them is gone.
pub fn processor_time(processes: &[Pid]) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    for process in processes {
        let tasks = format!("/proc/{}/task", process.as_raw_nonzero());
        for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
            // The first of three numbers is the time on a CPU.
            let path = task?.path().join("schedstat");
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let first = text
                .split_whitespace()
                .next()
                .context("schedstat is empty")?;
            nanoseconds += first.parse::<u64>().context("schedstat")?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}
