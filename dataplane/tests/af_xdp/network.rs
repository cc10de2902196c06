//! A network of three namespaces, for one test.
//!
//! ```text
//!    client               director              server
//!      c0 ══════════════ d0      d1 ──────────── s0      ══ two queues
//!    10.77.0.1      10.77.0.2    10.78.0.2     10.78.0.1 VIP 10.77.0.100 on lo
//! ```

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use dataplane::device::af_xdp::QueueSpec;
use dataplane::xsk::ethtool::Ethtool;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) const VIP: &str = "10.77.0.100";
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0c];
pub(crate) const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0d];
pub(crate) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x05];

const COMMANDS: &str = "
    ip netns add CLIENT
    ip netns add DIRECTOR
    ip netns add SERVER
    ip -n CLIENT link add c0 address 02:00:00:00:00:0c numtxqueues 2 numrxqueues 2 type veth \
        peer name d0 netns DIRECTOR address 02:00:00:00:00:0d numtxqueues 2 numrxqueues 2
    ip -n SERVER link add s0 address 02:00:00:00:00:05 type veth \
        peer name d1 netns DIRECTOR address 02:00:00:00:00:1d
    ip -n CLIENT addr add 10.77.0.1/24 dev c0
    ip -n DIRECTOR addr add 10.77.0.2/24 dev d0
    ip -n DIRECTOR addr add 10.77.0.100/32 dev d0
    ip -n DIRECTOR addr add 10.78.0.2/24 dev d1
    ip -n SERVER addr add 10.78.0.1/24 dev s0
    ip -n SERVER addr add 10.77.0.100/32 dev lo
    ip -n CLIENT link set c0 up
    ip -n DIRECTOR link set d0 up
    ip -n DIRECTOR link set d1 up
    ip -n SERVER link set s0 up
    ip -n SERVER link set lo up
    ip -n SERVER route add default via 10.78.0.2
";

pub(crate) struct Network {
    name: String,
}

impl Network {
    /// Builds the network; `None`, said on stderr, where that is impossible.
    pub(crate) fn build(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip::skipped("needs root for network namespaces and XDP");
            return None;
        }
        // Two checkouts may run their tests at the same time.
        let name = format!("xsk-{}-{test}", std::process::id());
        let network = Self { name };
        for command in COMMANDS.trim().lines() {
            network.run(command);
        }
        // veth leaves checksums unfinished, and the server would see them.
        network.within("client", || {
            let ethtool = Ethtool::open("c0").unwrap();
            assert_eq!(ethtool.driver().unwrap(), "veth");
            assert_eq!(ethtool.rx_queues().unwrap(), 2);
            assert!(ethtool.tx_checksum_offload().unwrap());
            ethtool.set_tx_checksum_offload(false).unwrap();
            assert!(!ethtool.tx_checksum_offload().unwrap());
        });
        Some(network)
    }

    fn namespace(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }

    /// Runs a command line in which CLIENT, DIRECTOR and SERVER stand for the
    /// namespaces, and returns what it printed.
    pub(crate) fn run(&self, command: &str) -> String {
        let words = command.split_whitespace().map(|word| match word {
            "CLIENT" | "DIRECTOR" | "SERVER" => self.namespace(&word.to_lowercase()),
            _ => word.to_owned(),
        });
        let words: Vec<_> = words.collect();
        let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Adds an IPv6 address and waits until packets to it are taken: the kernel makes the
    /// route by and by.
    pub(crate) fn add_ipv6(&self, role: &str, address: &str, interface: &str) {
        let role = role.to_uppercase();
        self.run(&format!(
            "ip -n {role} addr add {address} dev {interface} nodad"
        ));
        let (host, _) = address.split_once('/').unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let local = format!("ip -n {role} -6 route show table local");
        while !self.run(&local).contains(&format!("local {host} ")) {
            assert!(Instant::now() < deadline, "{address}: no route");
        }
    }

    /// Runs `work` in one of the namespaces. The sockets it makes stay there.
    pub(crate) fn within<T: Send>(&self, role: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.namespace(role));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(path).unwrap();
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).unwrap();
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for role in ["client", "director", "server"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.namespace(role)])
                .output();
        }
    }
}

/// Index of an interface in the namespace of this thread.
pub(crate) fn ifindex(interface: &str) -> u32 {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    rustix::net::netdevice::name_to_index(&socket, interface).unwrap()
}

/// A queue of an interface in the namespace of this thread.
pub(crate) fn queue(interface: &str, queue: u32) -> QueueSpec {
    QueueSpec {
        ifindex: ifindex(interface),
        interface: interface.to_owned(),
        queue,
    }
}
