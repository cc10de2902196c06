//! The network of a measurement, made anew for each case and removed after it.
//!
//! ```text
//!  bench-gen          bench-lb                  bench-be
//!  g0 10.1.0.1/16 ⇄ l0 10.1.0.2/16            b0 10.2.0.4/16
//!                   l0 10.9.0.1/32 (VIP)        10.2.0.11..14 (real servers)
//!                   l1 10.2.0.3/16          ⇄
//! ```
//!
//! All neighbours are permanent: nothing is resolved while it is measured.

use std::process::Command;

use anyhow::{Context as _, bail};

/// Namespace of the source.
pub const SOURCE: &str = "bench-gen";
/// Namespace of what is measured.
pub const BALANCER: &str = "bench-lb";
/// Namespace of the real servers.
pub const SERVERS: &str = "bench-be";
/// The virtual server's address.
pub const VIP_ADDRESS: &str = "10.9.0.1";
/// The virtual server's address and port.
pub const VIP: &str = "10.9.0.1:80";
/// Where clients are.
pub const CLIENTS: &str = "10.1.0.0/16";
/// Ethernet address of `l0`, the balancer's side towards the clients.
pub const BALANCER_MAC: &str = "02:00:00:00:00:02";
/// Ethernet address of `b0`, all real servers'.
pub const SERVERS_MAC: &str = "02:00:00:00:00:04";
/// The real servers' addresses.
pub const REAL_SERVERS: [&str; 4] = ["10.2.0.11", "10.2.0.12", "10.2.0.13", "10.2.0.14"];

/// The balancer's own addresses towards the real servers, for FULLNAT.
pub const LOCAL_ADDRESSES: [&str; 2] = ["10.2.0.21", "10.2.0.22"];

/// The network; removed when dropped.
#[derive(Debug)]
pub struct Topology(());

impl Topology {
    /// Makes the network, removing what a killed run left.
    ///
    /// # Errors
    /// `ip` failed; its message is in the error.
    pub fn up() -> anyhow::Result<Self> {
        remove();
        let topology = Self(());
        let mut commands: Vec<String> = [
            "link add g0 netns bench-gen type veth peer name l0 netns bench-lb",
            "link add l1 netns bench-lb type veth peer name b0 netns bench-be",
            "-n bench-gen link set g0 address 02:00:00:00:00:01 up",
            "-n bench-lb link set l0 address 02:00:00:00:00:02 up",
            "-n bench-lb link set l1 address 02:00:00:00:00:03 up",
            "-n bench-be link set b0 address 02:00:00:00:00:04 up",
            "-n bench-gen addr add 10.1.0.1/16 dev g0",
            "-n bench-lb addr add 10.1.0.2/16 dev l0",
            "-n bench-lb addr add 10.9.0.1/32 dev l0",
            "-n bench-lb addr add 10.2.0.3/16 dev l1",
            "-n bench-be addr add 10.2.0.4/16 dev b0",
            "-n bench-lb neigh replace 10.1.0.1 lladdr 02:00:00:00:00:01 dev l0 nud permanent",
            "-n bench-gen neigh replace 10.1.0.2 lladdr 02:00:00:00:00:02 dev g0 nud permanent",
        ]
        .map(str::to_owned)
        .into();
        commands.extend(REAL_SERVERS.map(|address| {
            format!(
                "-n {BALANCER} neigh replace {address} lladdr {SERVERS_MAC} dev l1 nud permanent"
            )
        }));
        // The real servers answer for themselves as well, should somebody ask.
        commands.extend(
            REAL_SERVERS.map(|address| format!("-n {SERVERS} addr add {address}/16 dev b0")),
        );
        for namespace in [SOURCE, BALANCER, SERVERS] {
            ip(&format!("netns add {namespace}"))?;
        }
        // Router solicitations and the like would be counted.
        for namespace in [SOURCE, BALANCER, SERVERS] {
            ip(&format!(
                "netns exec {namespace} sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"
            ))?;
        }
        for command in commands {
            ip(&command)?;
        }
        // What the kernel's peers need. The appliance reads neither.
        on(
            BALANCER,
            "sysctl",
            &[
                "-qw",
                "net.ipv4.ip_forward=1",
                "net.ipv4.conf.all.rp_filter=0",
            ],
        )?;
        Ok(topology)
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        remove();
    }
}

fn remove() {
    for namespace in [SOURCE, BALANCER, SERVERS] {
        // Absent is as good as removed.
        let _ = ip(&format!("netns del {namespace}"));
    }
}

/// ip(8).
///
/// # Errors
/// It failed; its message is in the error.
pub fn ip(arguments: &str) -> anyhow::Result<()> {
    run("ip", &arguments.split_whitespace().collect::<Vec<_>>())
}

/// Runs `program` in `namespace` until it ends.
///
/// # Errors
/// It failed; its message is in the error.
pub fn on(namespace: &str, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    run(
        "ip",
        &[&["netns", "exec", namespace, program], arguments].concat(),
    )
}

/// Runs `program` until it ends.
///
/// # Errors
/// It failed; its message is in the error.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", arguments.join(" "), message.trim());
    }
    Ok(())
}

/// Is there a `program` in `PATH`?
#[must_use]
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
