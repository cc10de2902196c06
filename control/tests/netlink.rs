//! Netlink, announcements and probes against the real kernel.
//!
//! Each test makes two network namespaces joined by a veth pair, `v0` here and
//! `v1` at the peer's, and runs itself again inside the first. Without root it
//! says `skipped` and passes.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use control::announce::{Announcement, Announcer, Interface, Schedule, probe};
use control::event::{Event, NetworkEvent};
use control::netlink::{Monitor, NewAddress, NextHop, Requests, Route};
use dataplane::service::MacAddress;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// In the environment of the run inside: the name of the peer's namespace.
const PEER: &str = "CONTROL_TEST_PEER";

/// Addresses of this end and of the peer.
const HERE: &str = "10.9.0.1";
const THERE: &str = "10.9.0.2";
const THERE6: &str = "fd09::2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs a command and returns what it printed.
fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {text}{errors}");
    text
}

/// The same at the peer's.
fn there(command: &str) -> String {
    let peer = std::env::var(PEER).unwrap();
    sh(&format!("ip netns exec {peer} {command}"))
}

struct Namespaces(String, String);

impl Namespaces {
    fn new(test: &str) -> Self {
        let base = format!("control-{}-{test}", std::process::id());
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
fn inside<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    if std::env::var_os(PEER).is_some() {
        return tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(body());
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("{test} skipped: needs root");
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
struct Events {
    receiver: mpsc::Receiver<Event>,
    _monitor: Monitor,
}

impl Events {
    fn start() -> Self {
        let (sender, receiver) = mpsc::channel(16);
        let monitor = Monitor::start(sender).unwrap();
        Self {
            receiver,
            _monitor: monitor,
        }
    }

    async fn next(&mut self) -> NetworkEvent {
        match self.receiver.recv().await.unwrap() {
            Event::Network(event) => event,
            other => panic!("no network event: {other:?}"),
        }
    }

    /// What was there at the start.
    async fn dump(&mut self) -> Vec<NetworkEvent> {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                NetworkEvent::RoutesChanged => return events,
                event => events.push(event),
            }
        }
    }

    /// Waits for an event, and returns how long it took.
    async fn wait(
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

    async fn wait_for(&mut self, event: NetworkEvent) -> Duration {
        let what = format!("{event:?}");
        let wanted = |found: &NetworkEvent| *found == event;
        self.wait(&what, Duration::from_secs(1), wanted).await
    }
}

fn v0() -> Interface {
    Interface {
        index: index("v0"),
        name: "v0".into(),
        mac: mac_in(&sh("cat /sys/class/net/v0/address")),
    }
}

fn index(name: &str) -> u32 {
    sh(&format!("cat /sys/class/net/{name}/ifindex"))
        .trim()
        .parse()
        .unwrap()
}

fn mac_in(text: &str) -> MacAddress {
    let bytes: Vec<u8> = text
        .trim()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    MacAddress(bytes.try_into().unwrap())
}

fn peers_mac() -> MacAddress {
    mac_in(&there("cat /sys/class/net/v1/address"))
}

fn neighbor(address: &str, mac: Option<MacAddress>) -> NetworkEvent {
    NetworkEvent::Neighbor {
        index: index("v0"),
        address: ip(address),
        mac: mac.map(|mac| mac.0),
    }
}

#[test]
fn addresses_come_go_and_are_recognised() {
    inside("addresses_come_go_and_are_recognised", || async {
        let mut events = Events::start();
        let dump = events.dump().await;
        let (v0, lo) = (index("v0"), index("lo"));
        for (index, ethernet, kind) in [(v0, true, Some("veth")), (lo, false, None)] {
            assert!(
                dump.iter().any(|event| matches!(event, NetworkEvent::Link {
                    index: i, ethernet: e, kind: k, up: true, master: None, ..
                } if (*i, *e, k.as_deref()) == (index, ethernet, kind))),
                "{dump:?}"
            );
        }
        let event = |address: &str, prefix_length, ours, present| NetworkEvent::Address {
            index: v0,
            address: ip(address),
            prefix_length,
            ours,
            present,
        };
        assert!(dump.contains(&event(HERE, 24, false, true)), "{dump:?}");

        // Seen although this process made the change.
        let requests = Requests::open().unwrap();
        let vip = NewAddress {
            index: v0,
            address: ip("10.9.0.100"),
            prefix_length: 32,
            label: Some("v0:vip".into()),
            nodad: false,
        };
        assert!(requests.add_address(&vip).await.unwrap());
        events.wait_for(event("10.9.0.100", 32, true, true)).await;
        assert!(!requests.add_address(&vip).await.unwrap(), "added twice");
        assert!(sh("ip -4 addr show dev v0").contains("10.9.0.100/32 scope global v0:vip"));

        let vip6 = NewAddress {
            index: v0,
            address: ip("fd09::100"),
            prefix_length: 128,
            label: None,
            nodad: true,
        };
        assert!(requests.add_address(&vip6).await.unwrap());
        events.wait_for(event("fd09::100", 128, true, true)).await;
        let shown = sh("ip -6 addr show dev v0 to fd09::100");
        assert!(
            shown.contains("deprecated") && !shown.contains("tentative"),
            "{shown}"
        );
        // Not the source of what this host itself sends.
        let route = requests.route(ip(THERE6)).await.unwrap();
        assert!(
            matches!(route, Route::Forward(NextHop { source, .. }) if source != Some(ip("fd09::100"))),
            "{route:?}"
        );

        // A later start knows them as ours.
        let dump = Events::start().dump().await;
        assert!(
            dump.contains(&event("10.9.0.100", 32, true, true)),
            "{dump:?}"
        );
        assert!(
            dump.contains(&event("fd09::100", 128, true, true)),
            "{dump:?}"
        );

        for (address, prefix_length) in [("10.9.0.100", 32), ("fd09::100", 128)] {
            let remove = || requests.remove_address(v0, ip(address), prefix_length);
            assert!(remove().await.unwrap());
            events
                .wait_for(event(address, prefix_length, true, false))
                .await;
            assert!(!remove().await.unwrap(), "removed twice");
        }
        let error = requests
            .add_address(&NewAddress { index: 9999, ..vip })
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot add 10.9.0.100/32 to interface 9999: no such device"
        );
    });
}

#[test]
fn neighbours_are_resolved_followed_and_verified() {
    inside("neighbours_are_resolved_followed_and_verified", || async {
        let mut events = Events::start();
        events.dump().await;
        let requests = Requests::open().unwrap();
        let v0 = index("v0");
        let before = peers_mac();

        assert_eq!(requests.neighbor(v0, ip(THERE)).await.unwrap(), None);
        for address in [THERE, THERE6] {
            requests.resolve(v0, ip(address)).await.unwrap();
            events.wait_for(neighbor(address, Some(before))).await;
            let known = requests.neighbor(v0, ip(address)).await.unwrap();
            assert_eq!(known, Some(before.0));
        }

        // Its MAC changes, which it says by a gratuitous ARP.
        there("ip link set v1 address 02:00:00:00:00:99");
        let after = MacAddress([2, 0, 0, 0, 0, 0x99]);
        there(&format!("arping -q -A -c 1 -I v1 {THERE}"));
        let took = events.wait_for(neighbor(THERE, Some(after))).await;
        eprintln!("MAC change seen after {took:?}");

        // Alive: verification changes nothing, and the kernel is sure again.
        sh(&format!("ip neigh change {THERE} dev v0 nud stale"));
        requests.verify(v0, ip(THERE)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let shown = sh(&format!("ip neigh show {THERE}"));
        assert!(shown.contains("REACHABLE"), "{shown}");

        // Gone: found out without any traffic.
        there(&format!("ip addr del {THERE}/24 dev v1"));
        requests.verify(v0, ip(THERE)).await.unwrap();
        let gone = neighbor(THERE, None);
        let took = events
            .wait("loss", Duration::from_secs(5), |event| *event == gone)
            .await;
        eprintln!("loss seen after {took:?}");

        // Back, and verifying an unknown neighbour resolves it.
        there(&format!("ip addr add {THERE}/24 dev v1"));
        requests.verify(v0, ip(THERE)).await.unwrap();
        events.wait_for(neighbor(THERE, Some(after))).await;

        // The carrier goes, and with it the neighbours and routes.
        there("ip link set v1 down");
        let down = |event: &NetworkEvent| matches!(event, NetworkEvent::Link { up: false, index, .. } if *index == v0);
        events.wait("link down", Duration::from_secs(1), down).await;
        events.wait_for(NetworkEvent::RoutesChanged).await;
        sh("ip link del v0");
        events.wait_for(NetworkEvent::LinkGone { index: v0 }).await;
    });
}

#[test]
fn routes_are_looked_up() {
    inside("routes_are_looked_up", || async {
        let mut events = Events::start();
        events.dump().await;
        sh(&format!(
            "ip route add 192.0.2.0/24 via {THERE} src {HERE}
             ip route add blackhole 198.51.100.0/24
             ip route add prohibit 203.0.113.0/24
             ip route add 192.0.0.0/24 via inet6 {THERE6}
             ip -6 route add 2001:db8::/32 via {THERE6}"
        ));
        events.wait_for(NetworkEvent::RoutesChanged).await;
        let v0 = index("v0");
        let hop = |gateway: Option<&str>, source: &str| {
            Route::Forward(NextHop {
                gateway: gateway.map(ip),
                index: v0,
                source: Some(ip(source)),
            })
        };
        let requests = Requests::open().unwrap();
        for (destination, route) in [
            (THERE, hop(None, HERE)),
            ("192.0.2.7", hop(Some(THERE), HERE)),
            ("192.0.0.7", hop(Some(THERE6), HERE)),
            (THERE6, hop(None, "fd09::1")),
            ("2001:db8::7", hop(Some(THERE6), "fd09::1")),
            (HERE, Route::Local),
            ("127.0.0.1", Route::Local),
            ("fd09::1", Route::Local),
            ("8.8.8.8", Route::Unreachable),
            ("198.51.100.1", Route::Unreachable),
            ("203.0.113.1", Route::Unreachable),
            ("2002::1", Route::Unreachable),
        ] {
            assert_eq!(
                requests.route(ip(destination)).await.unwrap(),
                route,
                "{destination}"
            );
        }
    });
}

#[test]
fn a_storm_of_route_changes_is_told_a_few_times() {
    inside("a_storm_of_route_changes_is_told_a_few_times", || async {
        let mut events = Events::start();
        events.dump().await;
        let start = Instant::now();
        sh(
            "for i in $(seq 5000); do echo route add 172.16.$((i / 250)).$((i % 250))/32 dev v0; done | ip -batch -",
        );
        let took = start.elapsed();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut told = 0;
        while let Ok(event) = events.receiver.try_recv() {
            assert_eq!(event, Event::Network(NetworkEvent::RoutesChanged));
            told += 1;
        }
        let most = took.as_millis() / 100 + 3;
        assert!((1..=most).contains(&told), "told {told} times in {took:?}");
    });
}

#[test]
fn lost_messages_are_made_good() {
    inside("lost_messages_are_made_good", || async {
        let (sender, mut events) = mpsc::channel(1);
        let _monitor = Monitor::start(sender).unwrap();
        // The dump has begun; from here on nobody reads.
        events.recv().await.unwrap();
        let batch = |what: &str, from: u32, to: u32, step: u32| {
            sh(&format!(
                "for i in $(seq {from} {step} {to}); do echo neigh {what} 10.9.$((i / 250)).$((i % 250)) dev v0; done \
                 | sed '/ replace /s/$/ lladdr 02:00:00:00:00:05 nud permanent/' | ip -batch -"
            ));
        };
        sh("ip neigh replace 10.9.255.1 dev v0 lladdr 02:00:00:00:00:07 nud permanent");
        batch("replace", 1000, 20_000, 1);
        batch("del", 1000, 20_000, 2);
        let drops: u64 = sh("awk 'NR > 1 { drops += $9 } END { print drops }' /proc/net/netlink")
            .trim()
            .parse()
            .unwrap();
        assert!(drops > 0, "the kernel lost nothing, so nothing was tested");
        let mut known = BTreeMap::new();
        let expected = (20_000 - 1000) / 2 + 1;
        let caught_up = timeout(Duration::from_secs(20), async {
            while known.len() != expected || known.contains_key(&ip("10.9.4.0")) {
                if let Event::Network(NetworkEvent::Neighbor { address, mac, .. }) =
                    events.recv().await.unwrap()
                {
                    match mac {
                        Some(mac) => known.insert(address, mac),
                        None => known.remove(&address),
                    };
                }
            }
        })
        .await;
        assert!(caught_up.is_ok(), "{} known of {expected}", known.len());
        assert_eq!(known[&ip("10.9.4.1")], [2, 0, 0, 0, 0, 5]);
        assert_eq!(known[&ip("10.9.255.1")], [2, 0, 0, 0, 0, 7]);
    });
}

/// What tcpdump at the peer wrote of the next `count` frames.
fn capture(filter: &str, count: usize) -> impl FnOnce() -> Vec<u8> {
    let peer = std::env::var(PEER).unwrap();
    let mut tcpdump = Command::new("timeout")
        .args(["20", "ip", "netns", "exec", &peer, "tcpdump", "-i", "v1"])
        .args(["-U", "-w", "-", "-c", &count.to_string(), filter])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its first line says that it listens.
    let mut listening = [0; 1];
    std::io::Read::read_exact(tcpdump.stderr.as_mut().unwrap(), &mut listening).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    move || tcpdump.wait_with_output().unwrap().stdout
}

fn occurrences(haystack: &[u8], needle: &[u8]) -> usize {
    haystack
        .windows(needle.len())
        .filter(|w| *w == needle)
        .count()
}

#[test]
fn announcements_arrive_as_written() {
    inside("announcements_arrive_as_written", || async {
        let interface = v0();
        let captured = capture("arp or icmp6[0] == 136", 12);
        let announcements: Vec<_> = ["10.9.0.100", "10.9.0.101", "fd09::100"]
            .map(|address| Announcement {
                interface: interface.clone(),
                address: ip(address),
            })
            .into();
        let schedule = Schedule {
            repeat: 2,
            delay: Duration::from_millis(100),
            interval: Duration::from_millis(1),
        };
        let announcer = Announcer::open().unwrap();
        announcer.announce(&announcements, &schedule).await.unwrap();
        let captured = captured();

        let mac = interface.mac.0;
        for last in [100, 101] {
            let mut frame = vec![0xff; 6];
            frame.extend(mac);
            frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
            frame.extend(mac);
            frame.extend([10, 9, 0, last]);
            frame.extend([0xff; 6]);
            frame.extend([10, 9, 0, last]);
            assert_eq!(occurrences(&captured, &frame), 4, "10.9.0.{last}");
        }
        let mut advertisement = vec![0x33, 0x33, 0, 0, 0, 1];
        advertisement.extend(mac);
        advertisement.extend([0x86, 0xdd]);
        assert_eq!(occurrences(&captured, &advertisement), 4);
    });
}

#[test]
fn announcements_move_the_peers_neighbour_entries() {
    inside("announcements_move_the_peers_neighbour_entries", || async {
        // The peer believes that someone else has the addresses.
        let elsewhere = "lladdr 02:00:00:00:00:77 nud reachable";
        for address in ["10.9.0.100", "fd09::100"] {
            there(&format!("ip neigh replace {address} dev v1 {elsewhere}"));
        }
        // An entry younger than a second is not replaced (the kernel's locktime).
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let interface = v0();
        let announcements: Vec<_> = ["10.9.0.100", "fd09::100"]
            .map(|address| Announcement {
                interface: interface.clone(),
                address: ip(address),
            })
            .into();
        let once = Schedule {
            repeat: 1,
            delay: Duration::ZERO,
            ..Schedule::default()
        };
        let announcer = Announcer::open().unwrap();
        announcer.announce(&announcements, &once).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        for address in ["10.9.0.100", "fd09::100"] {
            let entry = there(&format!("ip neigh show {address} dev v1"));
            assert!(entry.contains(&interface.mac.to_string()), "{entry}");
        }
        let nowhere = Announcement {
            interface: Interface {
                index: 9999,
                name: "eth9".into(),
                ..interface
            },
            address: ip("10.9.0.100"),
        };
        let error = announcer.announce(&[nowhere], &once).await.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot announce 10.9.0.100 on eth9: "),
            "{error}"
        );
    });
}

#[test]
fn probes_find_another_holder() {
    inside("probes_find_another_holder", || async {
        let interface = v0();
        for address in [THERE, THERE6] {
            let start = Instant::now();
            let holder = probe(&interface, ip(address)).await.unwrap();
            let took = start.elapsed();
            assert_eq!(holder, Some(peers_mac()), "{address}");
            assert!(took < Duration::from_millis(900), "{address}: {took:?}");
        }
        for address in ["10.9.0.100", "fd09::100"] {
            let start = Instant::now();
            assert_eq!(probe(&interface, ip(address)).await.unwrap(), None);
            let took = start.elapsed();
            assert!(
                (Duration::from_millis(900)..Duration::from_millis(1500)).contains(&took),
                "{address}: {took:?}"
            );
        }
        // A real server with the VIP on lo: found unless its ARP is suppressed.
        there("ip addr add 10.9.0.100/32 dev lo");
        there("ip link set lo up");
        let vip = ip("10.9.0.100");
        assert_eq!(probe(&interface, vip).await.unwrap(), Some(peers_mac()));
        there("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
        assert_eq!(probe(&interface, vip).await.unwrap(), None);

        sh("ip link set v0 down");
        let error = probe(&interface, vip).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot ask on v0 who has 10.9.0.100: network is down"
        );
    });
}
