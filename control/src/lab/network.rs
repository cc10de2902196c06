//! Builds a [`Plan`] out of network namespaces, and takes it down again.
//!
//! Links, addresses and routes are made by `ip` (iproute2), a batch of
//! commands a namespace. Whatever was made before an error, a signal or a
//! panic is removed when the [`Network`] is dropped.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail};
use dataplane::xsk::ethtool::Ethtool;

use super::name::LabName;
use super::namespace::within;
use super::plan::{Namespace, Plan};

/// The bridge of a namespace that is one.
const BRIDGE: &str = "bridge";

/// A network that exists, for as long as this value does.
#[derive(Debug)]
pub struct Network {
    name: LabName,
    namespaces: Vec<String>,
}

impl Network {
    /// Makes everything that `plan` says. The namespaces are named after the
    /// lab, and everything is up and has its addresses when this returns.
    ///
    /// # Errors
    ///
    /// `ip` is missing or refuses a command, which the error names. What was
    /// made until then is removed.
    pub fn build(name: LabName, plan: &Plan) -> anyhow::Result<Self> {
        let mut network = Self {
            name,
            namespaces: Vec::new(),
        };
        for namespace in &plan.namespaces {
            network.add(namespace)?;
        }
        ip(&[], &network.link_commands(plan))?;
        for link in &plan.links {
            for end in &link.ends {
                disable_offloads(&network.name.of(&end.namespace), &end.interface)?;
            }
        }
        for namespace in &plan.namespaces {
            let commands = namespace_commands(plan, namespace);
            ip(&["-n", &network.name.of(&namespace.name)], &commands)?;
        }
        Ok(network)
    }

    /// The name that the system knows a namespace of the plan by.
    #[must_use]
    pub fn namespace(&self, role: &str) -> String {
        self.name.of(role)
    }

    /// Pulls a host's cables out of the switches, or plugs them in again. The
    /// host keeps its addresses and routes, as it does in real life.
    ///
    /// # Errors
    ///
    /// `ip` refuses.
    pub fn set_cables(&self, plan: &Plan, host: &str, plugged: bool) -> anyhow::Result<()> {
        let state = if plugged { "up" } else { "down" };
        let [own, port] = [0, 1];
        let cables = plan.links.iter().map(|link| &link.ends);
        for ends in cables.filter(|ends| ends[own].namespace == host) {
            let command = format!("link set {} {state}", ends[port].interface);
            ip(&["-n", &self.name.of(&ends[port].namespace)], &[command])?;
        }
        Ok(())
    }

    /// Gives a host the addresses and routes that it has after a reboot.
    ///
    /// # Errors
    ///
    /// `ip` refuses.
    pub fn reboot(&self, plan: &Plan, host: &str) -> anyhow::Result<()> {
        let mut hosts = plan.namespaces.iter().filter(|known| known.name == host);
        let Some(namespace) = hosts.next() else {
            return Ok(());
        };
        let own = plan.links.iter().flat_map(|link| &link.ends);
        let own = own.filter(|end| end.namespace == host);
        let flush = |end: &super::plan::End| {
            // A link-local address of IPv6 would not come back by itself.
            format!("address flush dev {} scope global", end.interface)
        };
        let mut commands: Vec<String> = own.map(flush).collect();
        commands.extend(namespace_commands(plan, namespace));
        ip(&["-n", &self.name.of(host)], &commands)
    }

    /// Leaves everything as it is when this value is dropped.
    pub fn keep(mut self) {
        self.namespaces.clear();
    }

    fn add(&mut self, namespace: &Namespace) -> anyhow::Result<()> {
        let name = self.name.of(&namespace.name);
        ip(&[], &[format!("netns add {name}")])?;
        self.namespaces.push(name.clone());
        within(&name, || namespace.settings.iter().try_for_each(set))
    }

    fn link_commands(&self, plan: &Plan) -> Vec<String> {
        let command = |link: &super::plan::Link| {
            let [a, b] = &link.ends;
            let queues = format!("numrxqueues {0} numtxqueues {0}", link.queues);
            format!(
                "link add {} netns {} {queues} type veth peer name {} netns {} {queues}",
                a.interface,
                self.name.of(&a.namespace),
                b.interface,
                self.name.of(&b.namespace),
            )
        };
        plan.links.iter().map(command).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.namespaces.drain(..) {
            remove_namespace(&name);
        }
    }
}

/// Removes a namespace with all its interfaces, saying so if it cannot.
pub(super) fn remove_namespace(name: &str) {
    if let Err(error) = ip(&[], &[format!("netns delete {name}")]) {
        eprintln!("lab: {error:#}");
    }
}

/// Everything inside one namespace, once its interfaces exist.
fn namespace_commands(plan: &Plan, namespace: &Namespace) -> Vec<String> {
    let ends = plan.links.iter().flat_map(|link| &link.ends);
    let own = ends.filter(|end| end.namespace == namespace.name);
    let interfaces: Vec<&str> = own.map(|end| end.interface.as_str()).collect();

    let mut commands = vec!["link set lo up".to_string()];
    if namespace.bridge {
        // Without snooping, neighbour discovery's multicast goes everywhere
        // at once, as on a switch that has been up for a while.
        commands.push(format!("link add {BRIDGE} type bridge mcast_snooping 0"));
        commands.push(format!("link set {BRIDGE} up"));
        let join = |port: &&str| format!("link set {port} master {BRIDGE}");
        commands.extend(interfaces.iter().map(join));
    }
    commands.extend(interfaces.iter().map(|name| format!("link set {name} up")));
    commands.extend(namespace.addresses.iter().map(|held| {
        let nodad = if held.address.is_ipv6() { " nodad" } else { "" };
        format!(
            "address add {}/{} dev {}{nodad}",
            held.address, held.prefix_length, held.interface
        )
    }));
    let default = |gateway: &std::net::IpAddr| format!("route replace default via {gateway}");
    commands.extend(namespace.gateways.iter().map(default));
    commands
}

/// Runs a batch of `ip` commands; the first that fails ends it.
pub(super) fn ip(options: &[&str], commands: &[String]) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                anyhow!(
                    "the command `ip` is not there: install iproute2 \
                     (Debian: apt-get install iproute2)"
                )
            } else {
                anyhow::Error::from(error).context("cannot run `ip`")
            }
        })?;
    let batch = commands.join("\n") + "\n";
    if let Some(mut stdin) = child.stdin.take() {
        // If `ip` stopped reading, its own message says why.
        let _ = stdin.write_all(batch.as_bytes());
    }
    let output = child.wait_with_output().context("cannot run `ip`")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let namespace = options.last().map_or("", |name| name);
    bail!("{}", explain(&said, namespace, commands))
}

/// `ip` says `Command failed -:LINE`: names the command of that line.
fn explain(said: &str, namespace: &str, commands: &[String]) -> String {
    let (number, reason) = said.split_once("Command failed -:").map_or_else(
        || (None, said),
        |(reason, line)| (line.trim().parse::<usize>().ok(), reason),
    );
    let command = number
        .and_then(|number| commands.get(number.checked_sub(1)?))
        .map_or("…", String::as_str);
    let within = if namespace.is_empty() {
        String::new()
    } else {
        format!("-n {namespace} ")
    };
    let reason = reason.trim().replace('\n', "; ");
    format!("`ip {within}{command}` failed: {reason}")
}

/// Writes a kernel setting of the calling thread's network namespace.
fn set((name, value): &(&str, &str)) -> anyhow::Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    fs::write(&path, value).with_context(|| format!("cannot set {} to {value}", path.display()))
}

/// Makes the kernel finish checksums, and so segmentation, before it sends.
///
/// A veth hands packets of local sockets over with the checksum left to the
/// hardware that never comes: AF_XDP would see, and forward, a wrong one.
fn disable_offloads(namespace: &str, interface: &str) -> anyhow::Result<()> {
    within(namespace, || {
        let device = Ethtool::open(interface)?;
        Ok(device.set_tx_checksum_offload(false)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failing_command_is_named() {
        let commands = ["link set a up".to_string(), "link set b up".to_string()];
        let said = "Cannot find device \"b\"\nCommand failed -:2\n";
        assert_eq!(
            explain(said, "lab-1-switch", &commands),
            "`ip -n lab-1-switch link set b up` failed: Cannot find device \"b\""
        );
        assert_eq!(
            explain("out of memory\n", "", &commands),
            "`ip …` failed: out of memory"
        );
    }
}
