//! The kernel's generator makes the same frames as [`Template::frame`]: run by the kernel on a buffer,
//! nothing is sent. Needs root.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use dataplane::service::{MacAddress, Protocol};
use pktgen::flows::Flows;
use pktgen::frame::{Layout, MOST_FLOWS, STAMP, Stamp, TAG};
use pktgen::interface::Interface;
use pktgen::live::{LiveError, Plan, Source};
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

fn interface(plan: &Plan) -> Interface {
    Interface {
        name: "none".to_owned(),
        index: 1,
        mac: plan.layout.source_mac,
        mtu: 1500,
    }
}

/// Compares `count` frames that the kernel makes with those that they should be.
fn compare(plan: &Plan, count: usize) {
    let interface = interface(plan);
    let templates = plan.templates(&interface, None).unwrap();
    let source = Source::load(interface, plan, Duration::MAX).unwrap();
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
fn no_part_has_flows_that_stamps_cannot_tell_apart() {
    let all = plan("192.0.2.1:80", Protocol::Udp, 1, Size::Fixed(60));
    let flows = Flows::new("10.0.0.0/8".parse().unwrap(), MOST_FLOWS + 2).unwrap();
    let refused = [0, 1].map(|number| {
        let flows = flows.part(number, 2).unwrap();
        let templates = Plan {
            flows,
            ..all.clone()
        }
        .templates(&interface(&all), None);
        matches!(templates, Err(LiveError::Flows(_)))
    });
    assert_eq!(refused, [false, true]);
}

#[test]
fn frames_or_their_fragments_fit_the_interface() {
    let fits = |destination, mtu, length, fragment| {
        let plan = plan(destination, Protocol::Udp, 1, Size::Fixed(length));
        let interface = Interface {
            mtu,
            ..interface(&plan)
        };
        plan.templates(&interface, fragment).map(|_| ())
    };
    let [v4, v6] = ["192.0.2.1:80", "[2001:db8:ffff::1]:443"];
    for (destination, fragment) in [(v4, 1480), (v6, 1448)] {
        assert!(fits(destination, 1500, 1514, None).is_ok());
        assert!(fits(destination, 1500, 6000, Some(fragment)).is_ok());
        let refused = [
            fits(destination, 1500, 1515, None),
            fits(destination, 1500, 6000, Some(fragment + 8)),
        ];
        for error in refused.map(Result::unwrap_err) {
            assert!(
                matches!(error, LiveError::TooLong { mtu: 1500, .. }),
                "{error}"
            );
        }
    }
    // A packet shorter than a fragment is one.
    assert!(fits(v4, 1500, 1000, Some(3200)).is_ok());
    let error = fits(v4, 9000, 5000, None).unwrap_err().to_string();
    assert!(
        error.contains("at most 3300") && !error.contains("raise"),
        "{error}"
    );
}

#[test]
fn the_kernel_makes_the_same_frames() {
    if !rustix::process::geteuid().is_root() {
        skip::skipped("needs root, to load a BPF program");
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
