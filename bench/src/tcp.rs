//! TCP through each kind of balancer: wrk asks, nginx answers, both on CPU 0; the balancer is on CPU 1.
//!
//! Two figures: requests per second on kept connections, and connections per second. For each, the
//! processor time that the balancer spends on one. A proxy ends both connections and copies bytes; a
//! layer-4 balancer forwards frames: that is the comparison a user makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Pid;

use crate::appliance::{Configuration, Idle, Method};
use crate::peers::{self, Started, processor_time};
use crate::process::{self, Process};
use crate::topology::{self, BALANCER, REAL_SERVERS, SERVERS, SOURCE, Topology, VIP, VIP_ADDRESS};
use crate::{pause, throughput::Setup};

/// Connections that wrk keeps open.
const CONNECTIONS: &str = "64";

/// What is between wrk and nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Balancer {
    /// Nothing but the kernel's routing; all goes to one server.
    Routing,
    /// nftables, NAT with connection tracking.
    NftDnat,
    /// HAProxy in TCP mode, one thread.
    Haproxy,
    /// nginx's stream module, one process.
    NginxStream,
    /// The appliance, NAT, one worker.
    Appliance(Idle),
}

impl Balancer {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 6] = [
        Self::Routing,
        Self::NftDnat,
        Self::Haproxy,
        Self::NginxStream,
        Self::Appliance(Idle::Adaptive),
        Self::Appliance(Idle::Interrupt),
    ];

    /// What it is called in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Routing => "kernel routing (no balancing)",
            Self::NftDnat => "nftables, stateful DNAT",
            Self::Haproxy => "HAProxy, mode tcp",
            Self::NginxStream => "nginx stream",
            Self::Appliance(Idle::Adaptive) => "appliance, NAT",
            Self::Appliance(Idle::Interrupt) => "appliance, NAT, idle = interrupt",
        }
    }

    /// Why it cannot be measured here, if it cannot.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let programs: &[(&str, &str)] = match self {
            Self::Routing | Self::Appliance(_) => &[],
            Self::NftDnat => &[("nft", "nftables")],
            Self::Haproxy => &[("haproxy", "haproxy")],
            Self::NginxStream => &[(STREAM_MODULE, "libnginx-mod-stream")],
        };
        let common = [("wrk", "wrk"), ("nginx", "nginx"), ("ethtool", "ethtool")];
        let (program, package) = common
            .iter()
            .chain(programs)
            .find(|(program, _)| !topology::has(program) && !Path::new(program).is_file())?;
        Some(format!(
            "TCP through {}: {program} not found: apt-get install {package}",
            self.name()
        ))
    }
}

const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// What wrk and the balancer's clock said.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Requests, or connections, per second.
    pub per_second: f64,
    /// Microseconds of the balancer's CPU for each.
    pub cpu: f64,
}

/// One round of one balancer.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Requests on 64 kept connections.
    pub requests: Rate,
    /// Connections with one request each.
    pub connections: Rate,
}

/// Measures `balancer` once, in a network of its own.
///
/// # Errors
/// A program failed; the error has what it said.
pub fn run(setup: &Setup, balancer: Balancer) -> anyhow::Result<Outcome> {
    let _topology = Topology::up()?;
    prepare()?;
    let servers = servers(&setup.scratch)?;
    let started = start(setup, balancer)?;
    let target = if balancer == Balancer::Routing {
        format!("{}:80", REAL_SERVERS[0])
    } else {
        VIP.to_owned()
    };
    let seconds = setup.seconds.ceil().max(1.0);
    // Neighbours, file caches and the first connections of everybody.
    wrk(&target, 1.0, &[], &started.charged)?;
    let requests = wrk(&target, seconds, &[], &started.charged)?;
    let connections = wrk(
        &target,
        seconds,
        &["-H", "Connection: close"],
        &started.charged,
    )?;
    started.stop(false)?;
    servers.stop()?;
    Ok(Outcome {
        requests,
        connections,
    })
}

/// Routes and settings that the UDP cases do not need.
fn prepare() -> anyhow::Result<()> {
    topology::ip(&format!(
        "-n {SOURCE} route add {VIP_ADDRESS}/32 via 10.1.0.2"
    ))?;
    topology::ip(&format!("-n {SOURCE} route add 10.2.0.0/16 via 10.1.0.2"))?;
    topology::ip(&format!("-n {SERVERS} route add 10.1.0.0/16 via 10.2.0.3"))?;
    for namespace in [SOURCE, BALANCER, SERVERS] {
        topology::on(
            namespace,
            "sysctl",
            &[
                "-qw",
                "net.ipv4.ip_local_port_range=1024 65000",
                "net.ipv4.tcp_tw_reuse=1",
                "net.core.somaxconn=8192",
                "net.ipv4.tcp_max_syn_backlog=8192",
            ],
        )?;
    }
    // A veth leaves checksums to a device that does not exist; AF_XDP would see them unfinished. For
    // all rows alike, because it costs the ends a little.
    topology::on(SOURCE, "ethtool", &["-K", "g0", "tx", "off"])?;
    topology::on(SERVERS, "ethtool", &["-K", "b0", "tx", "off"])?;
    // What wrk and nginx receive is theirs to process. On a veth it would be done, and charged, where it was
    // sent: on the balancer's CPU. Threads do it elsewhere, but are only given what comes from a device
    // without TSO (`veth_skb_is_eligible_for_gro`): of these small requests nothing is segmented anyway.
    for interface in ["l0", "l1"] {
        topology::on(BALANCER, "ethtool", &["-K", interface, "tso", "off"])?;
    }
    peers::receive_on(SOURCE, "g0", "0")?;
    peers::receive_on(SERVERS, "b0", "0")?;
    Ok(())
}

fn start(setup: &Setup, balancer: Balancer) -> anyhow::Result<Started> {
    match balancer {
        Balancer::Routing => forwarding_by_kernel(),
        Balancer::NftDnat => {
            peers::nft(&peers::dnat("tcp"))?;
            forwarding_by_kernel()
        }
        Balancer::Haproxy => {
            let path = setup.scratch.join("haproxy.cfg");
            write(&path, &haproxy())?;
            let process = pinned(
                BALANCER,
                "1",
                &["haproxy", "-db", "-f", &path.to_string_lossy()],
            )?;
            wait_listening(&process)?;
            Ok(Started::process(process))
        }
        Balancer::NginxStream => {
            let path = setup.scratch.join("stream.conf");
            write(&path, &stream(&setup.scratch))?;
            let process = pinned(BALANCER, "1", &["nginx", "-c", &path.to_string_lossy()])?;
            wait_listening(&process)?;
            Ok(Started::process(process))
        }
        Balancer::Appliance(idle) => {
            let configuration = Configuration {
                method: Method::Nat,
                protocol: "TCP",
                idle,
            };
            let process = configuration.run(&setup.programs.join("appliance"), &setup.scratch)?;
            Ok(Started::process(process))
        }
    }
}

/// The kernel forwards both ways in threads on the balancer's CPU.
fn forwarding_by_kernel() -> anyhow::Result<Started> {
    let threads = ["l0", "l1"].map(|interface| peers::receive_on(BALANCER, interface, "1"));
    let [left, right] = threads;
    Ok(Started::kernel(vec![left?, right?]))
}

/// Starts a program on one CPU.
fn pinned(namespace: &str, cpu: &str, command: &[&str]) -> anyhow::Result<Process> {
    Process::start(
        namespace,
        "taskset".as_ref(),
        &[&["-c", cpu], command].concat(),
    )
}

/// Waits until somebody listens at the VIP.
fn wait_listening(process: &Process) -> anyhow::Result<()> {
    for _ in 0..100 {
        pause(Duration::from_millis(50))?;
        let listening = topology::on(
            BALANCER,
            "sh",
            &["-c", "ss -Hltn sport = :80 | grep --quiet ."],
        );
        if listening.is_ok() {
            return Ok(());
        }
    }
    bail!("nobody listens on port 80: {}", process.said());
}

fn wrk(target: &str, seconds: f64, more: &[&str], charged: &[Pid]) -> anyhow::Result<Rate> {
    let duration = format!("{seconds}s");
    let url = format!("http://{target}/");
    let before = processor_time(charged)?;
    let mut arguments = vec![
        "netns",
        "exec",
        SOURCE,
        "taskset",
        "-c",
        "0",
        "wrk",
        "-t1",
        "-c",
        CONNECTIONS,
        "-d",
        &duration,
        "--timeout",
        "5s",
    ];
    arguments.extend(more);
    arguments.push(&url);
    let (said, _) = process::run("ip".as_ref(), &arguments)?;
    let spent = processor_time(charged)?.saturating_sub(before);
    let per_second = requests_per_second(&said)
        .with_context(|| format!("wrk did not say how many requests: {said}"))?;
    if let Some(errors) = said.lines().find(|line| line.contains("Socket errors")) {
        // "connect 0, read 12, write 0, timeout 0": a few resets at the end are nothing.
        if !errors.contains("connect 0") || !errors.contains("timeout 0") {
            eprintln!("bench: {target}: {}", errors.trim());
        }
    }
    let count = per_second * seconds;
    Ok(Rate {
        per_second,
        cpu: spent.as_secs_f64() * 1e6 / count,
    })
}

/// The number in wrk's line `Requests/sec:  62345.67`.
fn requests_per_second(said: &str) -> Option<f64> {
    said.lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))?
        .trim()
        .parse()
        .ok()
}

/// nginx as the four real servers, on CPU 0.
fn servers(scratch: &Path) -> anyhow::Result<Process> {
    let path = scratch.join("servers.conf");
    let listen: String = REAL_SERVERS
        .iter()
        .map(|address| format!("listen {address}:80 backlog=8192; "))
        .collect();
    write(
        &path,
        &format!(
            "{}events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 100000000;\n\
             server {{ {listen} location / {{ return 200 \"ok\\n\"; }} }} }}\n",
            nginx_header(scratch, "servers")
        ),
    )?;
    pinned(SERVERS, "0", &["nginx", "-c", &path.to_string_lossy()])
}

/// One process, no master: what is ended is what works.
fn nginx_header(scratch: &Path, name: &str) -> String {
    let file = |extension: &str| -> PathBuf { scratch.join(format!("{name}.{extension}")) };
    format!(
        "daemon off; master_process off; worker_processes 1;\n\
         pid {}; error_log {};\n",
        file("pid").display(),
        file("log").display()
    )
}

fn stream(scratch: &Path) -> String {
    let servers: String = REAL_SERVERS
        .iter()
        .map(|address| format!("server {address}:80; "))
        .collect();
    format!(
        "load_module {STREAM_MODULE};\n{}events {{ worker_connections 16384; }}\n\
         stream {{ upstream servers {{ {servers} }}\n\
         server {{ listen {VIP} backlog=8192; proxy_pass servers; }} }}\n",
        nginx_header(scratch, "stream")
    )
}

fn haproxy() -> String {
    let servers: String = REAL_SERVERS
        .iter()
        .enumerate()
        .map(|(index, address)| format!("    server s{index} {address}:80\n"))
        .collect();
    format!(
        "global\n    nbthread 1\n    maxconn 8000\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\
         listen bench\n    bind {VIP} backlog 8192\n    balance roundrobin\n{servers}"
    )
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read() {
        let said = "  2 threads\nRequests/sec:  62345.67\nTransfer/sec:  9.6MB\n";
        assert_eq!(requests_per_second(said), Some(62_345.67));
        assert_eq!(requests_per_second("unable to connect"), None);
    }
}
