//! What is sent when an address is taken, and asked before.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::announce::{Announcement, Announcer, Interface, Schedule, probe};

use crate::harness::{PEER, THERE, THERE6, inside, ip, peers_mac, sh, there, v0};

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
    inside("announce::announcements_arrive_as_written", || async {
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
        let announcer = Arc::new(Announcer::open().unwrap());
        announcer.announce(announcements, schedule).await.unwrap();
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

/// Flags and target of an advertisement.
fn flags_and_target(flags: u8) -> Vec<u8> {
    let mut expected = vec![flags, 0, 0, 0];
    expected.extend([0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    expected
}

#[test]
fn a_router_advertises_that_it_is_one() {
    inside("announce::a_router_advertises_that_it_is_one", || async {
        let announcer = Arc::new(Announcer::open().unwrap());
        let once = Schedule {
            repeat: 1,
            delay: Duration::ZERO,
            ..Schedule::default()
        };
        let captured = capture("icmp6[0] == 136 and icmp6[4] & 0x20 != 0", 2);
        for forwarding in [0, 1] {
            sh(&format!(
                "sysctl -qw net.ipv6.conf.v0.forwarding={forwarding}"
            ));
            let announcements = vec![Announcement {
                interface: v0(),
                address: ip("fd09::100"),
            }];
            let announced = announcer.announce(announcements, once.clone());
            announced.await.unwrap();
        }
        let captured = captured();
        for flags in [0x20, 0xa0] {
            let expected = flags_and_target(flags);
            assert_eq!(occurrences(&captured, &expected), 1, "{flags:#x}");
        }
    });
}

#[test]
fn what_is_given_up_is_not_announced_again() {
    inside(
        "announce::what_is_given_up_is_not_announced_again",
        || async {
            let announcer = Arc::new(Announcer::open().unwrap());
            let schedule = Schedule {
                repeat: 1,
                delay: Duration::from_millis(300),
                ..Schedule::default()
            };
            let announce = |address: &str| {
                let announcement = Announcement {
                    interface: v0(),
                    address: ip(address),
                };
                tokio::spawn(announcer.announce(vec![announcement], schedule.clone()))
            };
            let captured = capture("arp[6:2] == 1 and arp[14:4] == arp[24:4]", 7);
            let first = ["10.9.0.100", "10.9.0.101", "10.9.0.102"].map(announce);
            // Before the first burst, and between the two; one comes back.
            announcer.give_up(ip("10.9.0.102"));
            tokio::time::sleep(Duration::from_millis(100)).await;
            announcer.give_up(ip("10.9.0.101"));
            for announced in first {
                announced.await.unwrap().unwrap();
            }
            for address in ["10.9.0.102", "10.9.0.103"] {
                announce(address).await.unwrap().unwrap();
            }
            let captured = captured();
            let sent = |last| occurrences(&captured, &[10, 9, 0, last, 0xff, 0xff]);
            assert_eq!([100, 101, 102, 103].map(sent), [2, 1, 2, 2]);
        },
    );
}

#[test]
fn announcements_move_the_peers_neighbour_entries() {
    inside(
        "announce::announcements_move_the_peers_neighbour_entries",
        || async {
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
            let announcer = Arc::new(Announcer::open().unwrap());
            let announced = announcer.announce(announcements, once.clone());
            announced.await.unwrap();
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
            let error = announcer.announce(vec![nowhere], once).await.unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("cannot announce 10.9.0.100 on eth9: "),
                "{error}"
            );
        },
    );
}

#[test]
fn probes_find_another_holder() {
    inside("announce::probes_find_another_holder", || async {
        let interface = v0();
        for address in [THERE, THERE6] {
            let start = Instant::now();
            let holders = probe(&interface, &[ip(address)]).await.unwrap();
            let took = start.elapsed();
            assert_eq!(holders, [(ip(address), peers_mac())].into(), "{address}");
            assert!(took < Duration::from_millis(900), "{address}: {took:?}");
        }
        for address in ["10.9.0.100", "fd09::100"] {
            let start = Instant::now();
            let holders = probe(&interface, &[ip(address)]).await.unwrap();
            assert_eq!(holders, [].into());
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
        let holder = async || probe(&interface, &[vip]).await.unwrap().remove(&vip);
        assert_eq!(holder().await, Some(peers_mac()));
        there("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
        assert_eq!(holder().await, None);

        // A thousand take no longer, and the one that somebody has is found.
        let many = (0..1000).map(|n| ip(&format!("10.8.{}.{}", n / 250, n % 250)));
        let many: Vec<_> = many.chain([ip(THERE)]).collect();
        let start = Instant::now();
        let holders = probe(&interface, &many).await.unwrap();
        assert_eq!(holders, [(ip(THERE), peers_mac())].into());
        assert!(start.elapsed() < Duration::from_millis(1500));

        sh("ip link set v0 down");
        let error = probe(&interface, &[vip]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot ask on v0 who has 10.9.0.100: network is down"
        );
    });
}
