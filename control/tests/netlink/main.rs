//! Netlink, announcements and probes against the real kernel.
//!
//! Each test makes two network namespaces joined by a veth pair, `v0` here and
//! `v1` at the peer's, and runs itself again inside the first. Without root it
//! says `skipped` and passes.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod announce;
mod harness;
mod routing;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use control::event::{Event, NetworkEvent};
use control::netlink::{Monitor, NewAddress, NextHop, Requests, Route};
use dataplane::service::MacAddress;
use tokio::sync::mpsc;
use tokio::time::timeout;

use harness::{Events, HERE, THERE, THERE6, index, inside, ip, peers_mac, sh, there};

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
            scope: Some(253),
            nodad: false,
        };
        assert!(requests.add_address(&vip).await.unwrap());
        events.wait_for(event("10.9.0.100", 32, true, true)).await;
        assert!(!requests.add_address(&vip).await.unwrap(), "added twice");
        assert!(sh("ip -4 addr show dev v0").contains("10.9.0.100/32 scope link v0:vip"));

        let vip6 = NewAddress {
            index: v0,
            address: ip("fd09::100"),
            prefix_length: 128,
            label: None,
            scope: None,
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

        // An administrator's entry stays one, though nobody answers for it.
        sh("ip neigh add 10.93.0.77 lladdr 02:00:00:00:00:77 dev v0 nud permanent");
        requests.verify(v0, ip("10.93.0.77")).await.unwrap();
        let shown = sh("ip neigh show 10.93.0.77");
        assert!(shown.contains("PERMANENT"), "{shown}");

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
