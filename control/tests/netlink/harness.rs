//! Namespaces, commands and events for the tests.

use std::future::Future;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use control::announce::Interface;
use control::event::{Event, NetworkEvent};
use control::netlink::Monitor;
use dataplane::service::MacAddress;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// In the environment of the run inside: the name of the peer's namespace.
pub(crate) const PEER: &str = "CONTROL_TEST_PEER";

/// Addresses of this end and of the peer.
pub(crate) const HERE: &str = "10.9.0.1";
pub(crate) const THERE: &str = "10.9.0.2";
pub(crate) const THERE6: &str = "fd09::2";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs a command and returns what it printed.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {text}{errors}");
    text
}

/// The same at the peer's.
pub(crate) fn there(command: &str) -> String {
    let peer = std::env::var(PEER).unwrap();
    sh(&format!("ip netns exec {peer} {command}"))
}

struct Namespaces(String, String);

impl Namespaces {
    fn new(test: &str) -> Self {
        let base = format!("control-{}-{}", std::process::id(), test.replace("::", "-"));
        let made = Self(format!("{base}-a"), format!("{base}-b"));
        let (a, b) = (&made.0, &made.1);
        sh(&format!(
            "ip netns add {a} && ip netns add {b}
             for ns in {a} {b}; do
                 # Else link-local addresses need a second before neighbours can be asked.
                 ip netns exec $ns sysctl -qw net.ipv6.conf.default.accept_dad=0
             done
             ip -n {a} link add v0 type veth peer name v1 netns {b}
             ip -n {a} link set lo up && ip -n {a} link set v0 up && ip -n {b} link set v1 up
             ip -n {a} addr add {HERE}/24 dev v0 && ip -n {b} addr add {THERE}/24 dev v1
             ip -n {a} addr add fd09::1/64 dev v0 nodad
             ip -n {b} addr add {THERE6}/64 dev v1 nodad"
        ));
        made
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.0, &self.1] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs `body` inside a namespace of its own; `test` is the test's name.
pub(crate) fn inside<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    if std::env::var_os(PEER).is_some() {
        return tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(body());
    }
    if !rustix::process::geteuid().is_root() {
        skip::skipped("needs root");
        return;
    }
    let namespaces = Namespaces::new(test);
    let output = Command::new("ip")
        .args(["netns", "exec", &namespaces.0])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(PEER, &namespaces.1)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
    eprint!("{errors}");
}

/// Events as they come, each within a time.
pub(crate) struct Events {
    pub(crate) receiver: mpsc::Receiver<Event>,
    _monitor: Monitor,
}

impl Events {
    pub(crate) fn start() -> Self {
        let (sender, receiver) = mpsc::channel(16);
        let monitor = Monitor::start(sender).unwrap();
        Self {
            receiver,
            _monitor: monitor,
        }
    }

    pub(crate) async fn next(&mut self) -> NetworkEvent {
        let event = self.receiver.recv().await.unwrap();
        let Event::Network(event) = event else {
            panic!("no network event: {event:?}");
        };
        event
    }

    /// What was there at the start.
    pub(crate) async fn dump(&mut self) -> Vec<NetworkEvent> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await;
            if event == NetworkEvent::RoutesChanged {
                return events;
            }
            events.push(event);
        }
    }

    /// Waits for an event, and returns how long it took.
    pub(crate) async fn wait(
        &mut self,
        what: &str,
        at_most: Duration,
        wanted: impl Fn(&NetworkEvent) -> bool,
    ) -> Duration {
        let start = Instant::now();
        let found = timeout(at_most, async { while !wanted(&self.next().await) {} });
        assert!(found.await.is_ok(), "no {what} within {at_most:?}");
        start.elapsed()
    }

    pub(crate) async fn wait_for(&mut self, event: NetworkEvent) -> Duration {
        let what = format!("{event:?}");
        let wanted = |found: &NetworkEvent| *found == event;
        self.wait(&what, Duration::from_secs(1), wanted).await
    }
}

pub(crate) fn v0() -> Interface {
    Interface {
        index: index("v0"),
        name: "v0".into(),
        mac: mac_in(&sh("cat /sys/class/net/v0/address")),
    }
}

pub(crate) fn index(name: &str) -> u32 {
    sh(&format!("cat /sys/class/net/{name}/ifindex"))
        .trim()
        .parse()
        .unwrap()
}

pub(crate) fn mac_in(text: &str) -> MacAddress {
    let bytes: Vec<u8> = text
        .trim()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    MacAddress(bytes.try_into().unwrap())
}

pub(crate) fn peers_mac() -> MacAddress {
    mac_in(&there("cat /sys/class/net/v1/address"))
}
