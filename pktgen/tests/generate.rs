//! The kernel's generator makes the same frames as [`Template::frame`]: run by the kernel on a buffer,
//! nothing is sent. Needs root.

#![expect(clippy::unwrap_used, reason = "a test")]

use dataplane::service::{MacAddress, Protocol};
use pktgen::flows::Flows;
use pktgen::frame::{Layout, STAMP, Stamp, TAG};
use pktgen::interface::Interface;
use pktgen::live::{Plan, Source};
use pktgen::units::{Rate, Size};

fn plan(destination: &str, protocol: Protocol, flows: u32, size: Size) -> Plan {
    let layout = Layout {
        source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        destination: destination.parse().unwrap(),
        protocol,
    };
    let prefix = if layout.destination.is_ipv4() {
        "10.255.254.0/29"
    } else {
        "2001:db8:1:2:3:4:ffff:fff0/125"
    };
    Plan {
        layout,
        flows: Flows::new(prefix.parse().unwrap(), flows).unwrap(),
        size,
        rate: Rate::Max,
        vlan: None,
        run: 0x9c,
        syn_only: false,
    }
}

/// Compares `count` frames that the kernel makes with those that they should be.
fn compare(plan: &Plan, count: usize) {
    let interface = Interface {
        name: "none".to_owned(),
        index: 1,
        mac: plan.layout.source_mac,
        mtu: 1500,
    };
    let templates = plan.templates(&interface, false).unwrap();
    let source = Source::load(interface, plan).unwrap();
    let mut last = 0;
    let payload = plan.layout.payload() + if plan.vlan.is_some() { TAG } else { 0 };
    for ((flow, round), template) in plan.flows.order().zip(templates.iter().cycle()).take(count) {
        let made = source.sample().unwrap();
        let stamp = made.get(payload..).and_then(Stamp::read);
        let now = stamp.map_or(0, |stamp| stamp.time);
        assert!(now >= last, "time runs backwards");
        last = now;
        let expected = template.frame(&plan.flows, flow, round, now);
        assert_eq!(made, expected, "flow {flow} round {round} of {plan:?}");
    }
    let stamped = templates[0].length() >= payload + STAMP;
    assert_eq!(last > 0, stamped);
}

#[test]
fn the_kernel_makes_the_same_frames() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped, because loading a BPF program needs root");
        return;
    }
    for destination in ["192.0.2.1:80", "[2001:db8:ffff::1]:443"] {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            for flows in [1, 2, 7, 100] {
                for size in [80, 91, 1514] {
                    compare(&plan(destination, protocol, flows, Size::Fixed(size)), 120);
                }
                compare(&plan(destination, protocol, flows, Size::Imix), 120);
            }
            let untagged = plan(destination, protocol, 7, Size::Imix);
            let vlan = Some(0x2064);
            compare(&Plan { vlan, ..untagged }, 60);
        }
    }
    let all = plan("192.0.2.1:80", Protocol::Udp, 1000, Size::Fixed(60));
    let flows = all.flows.part(1, 3).unwrap();
    compare(&Plan { flows, ..all }, 60);
    let all = plan("192.0.2.1:80", Protocol::Tcp, 5, Size::Fixed(80));
    let syn_only = true;
    compare(&Plan { syn_only, ..all }, 20);
    compare(
        &plan("192.0.2.1:80", Protocol::Udp, 50_000, Size::Fixed(60)),
        300,
    );
    compare(
        &plan("192.0.2.1:80", Protocol::Tcp, 50_000, Size::Fixed(60)),
        300,
    );
}
