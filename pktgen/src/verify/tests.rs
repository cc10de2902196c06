use dataplane::service::Protocol;

use super::*;
use crate::flows::Flows;
use crate::frame::{Layout, Template};

const MAC: [MacAddress; 2] = [
    MacAddress([2, 0, 0, 0, 1, 1]),
    MacAddress([2, 0, 0, 0, 1, 2]),
];

fn frame(server: usize, flow: u32, round: u32) -> Vec<u8> {
    frame_of_run(7, server, flow, round)
}

fn frame_of_run(run: u8, server: usize, flow: u32, round: u32) -> Vec<u8> {
    let layout = Layout {
        source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        destination_mac: MAC[server],
        destination: "192.0.2.1:80".parse().unwrap(),
        protocol: Protocol::Udp,
    };
    let flows = Flows::new("10.0.0.0/16".parse().unwrap(), 1000).unwrap();
    let template = Template::new(layout, &flows, 91).unwrap().of_run(run);
    template.frame(&flows, flow, round, 1_000)
}

/// What is found in `(server, flow, round)`, each a microsecond under way.
fn found(frames: &[(usize, u32, u32)]) -> Found {
    let mut verifier = Verifier::new(Mode::Dr, &[]);
    for &(server, flow, round) in frames {
        verifier.look(&frame(server, flow, round), 2_000);
    }
    verifier.found()
}

#[test]
fn all_is_well() {
    let found = found(&[(0, 0, 0), (1, 1, 0), (0, 0, 1), (1, 1, 1)]);
    let [first, second] = &found.servers[..] else {
        panic!("{found:?}");
    };
    assert_eq!((first.flows, first.frames, first.share), (1, 2, 0.5));
    assert_eq!(second.server, MAC[1].to_string());
    let Latency { frames, p50, .. } = found.latency.unwrap();
    assert_eq!((frames, p50), (4, 1.0));
    assert!(found.spread.unwrap().fits);
    let bad = [
        found.malformed,
        found.bad_ip_checksums,
        found.bad_l4_checksums,
    ];
    assert_eq!(bad, [0; 3]);
    let unsteady = [
        found.moved_flows,
        found.lost,
        found.duplicates,
        found.reordered,
    ];
    assert_eq!(unsteady, [0; 4]);
}

#[test]
fn a_flow_that_moves_is_seen() {
    let found = found(&[(0, 0, 0), (1, 0, 1), (1, 0, 2), (0, 0, 3)]);
    assert_eq!(
        (found.flows, found.moved_flows, found.moved_frames),
        (1, 1, 2)
    );
}

#[test]
fn loss_duplicates_and_order_are_per_flow() {
    let found = found(&[(0, 0, 0), (0, 2, 0), (0, 0, 3), (0, 0, 1), (0, 0, 1)]);
    assert_eq!((found.lost, found.reordered, found.duplicates), (1, 1, 1));
    assert_eq!((found.flows, found.silent_flows), (2, 1));
}

#[test]
fn a_flow_is_silent_only_when_it_had_its_turn() {
    let silent = |frames: &[(usize, u32, u32)]| found(frames).silent_flows;
    assert_eq!(silent(&[(0, 0, 0), (0, 2, 0)]), 0);
    assert_eq!(silent(&[(0, 0, 0), (0, 2, 0), (0, 0, 1)]), 1);
    // Of a run under way, a part of the first round went by.
    assert_eq!(silent(&[(0, 2, 5), (0, 0, 6)]), 0);
    assert_eq!(silent(&[(0, 2, 5), (0, 0, 6), (0, 2, 7)]), 1);
}

#[test]
fn of_a_run_under_way_each_flow_begins_with_its_first_frame() {
    // Flows 0 and 1 are of one worker, 2 and 3 of another, which is two rounds ahead.
    let rounds = [(0, 1, 5), (0, 2, 7), (0, 0, 6), (0, 3, 7), (0, 1, 6)];
    let clean = found(&rounds);
    assert_eq!((clean.lost, clean.reordered, clean.flows), (0, 0, 4));
    let gap = found(&[&rounds[..], &[(0, 2, 9), (0, 1, 7)]].concat());
    assert_eq!((gap.lost, gap.reordered), (1, 0));
}

#[test]
fn another_run_begins_anew() {
    let mut verifier = Verifier::new(Mode::Dr, &[]);
    for run in [1, 2] {
        verifier.look(&frame_of_run(run, 0, 0, 0), 0);
    }
    let found = verifier.found();
    assert_eq!((found.flows, found.duplicates, found.lost), (2, 0, 0));
}

#[test]
fn a_frame_with_a_wrong_checksum_is_of_no_flow() {
    let mut verifier = Verifier::new(Mode::Dr, &[]);
    let mut frame = frame(0, 0, 0);
    frame[43] = 0xff; // the flow's number: memory for millions of them, were it believed
    verifier.look(&frame, 0);
    let found = verifier.found();
    assert_eq!(
        (found.bad_l4_checksums, found.flows, found.silent_flows),
        (1, 0, 0)
    );
}

#[test]
fn each_changed_byte_is_noticed() {
    for at in ETHERNET..91 {
        let mut frame = frame(0, 0, 0);
        frame[at] ^= 0x40;
        let mut verifier = Verifier::new(Mode::Dr, &[]);
        verifier.look(&frame, 0);
        let found = verifier.found();
        let noticed = found.malformed + found.bad_ip_checksums + found.bad_l4_checksums;
        assert!(noticed > 0, "byte {at}: {found:?}");
    }
}

#[test]
fn no_input_panics() {
    let whole = frame(0, 0, 0);
    for mode in [Mode::Dr, Mode::Nat, Mode::FullNat, Mode::Tun] {
        let mut verifier = Verifier::new(mode, &[]);
        for length in 0..whole.len() {
            verifier.look(&whole[..length], 0);
        }
        assert_eq!(verifier.found().flows, 0);
    }
}

#[test]
fn servers_to_expect_are_named_as_the_mode_does() {
    let names = ["02:00:00:00:00:01=2", "10.0.0.101:8080=2", "10.0.0.101"];
    let modes = [Mode::Dr, Mode::Nat, Mode::FullNat, Mode::Tun];
    let fits = |name: &str| {
        let expected: Expected = name.parse().unwrap();
        modes.map(|mode| expected.check(mode).is_ok())
    };
    assert_eq!(fits(names[0]), [true, false, false, false]);
    assert_eq!(fits(names[1]), [false, true, true, false]);
    assert_eq!(fits(names[2]), [false, false, false, true]);
    let expected: Expected = "10.0.0.1=1".parse().unwrap();
    assert_eq!(
        expected.check(Mode::Dr).unwrap_err().to_string(),
        "--server 10.0.0.1: with --mode dr frames name a real server by its Ethernet address: write that"
    );
}

#[test]
fn modes_are_written_as_they_are_read() {
    for name in ["dr", "nat", "fullnat", "tun"] {
        assert_eq!(name.parse::<Mode>().unwrap().to_string(), name);
    }
}

#[test]
fn servers_are_named_as_the_mode_does() {
    let mut verifier = Verifier::new(Mode::Nat, &[]);
    verifier.look(&frame(0, 0, 0), 0);
    assert_eq!(verifier.found().servers[0].server, "192.0.2.1:80");

    // IPIP: another header of 20 bytes in front.
    let plain = frame(0, 0, 0);
    let mut outer = plain[ETHERNET..ETHERNET + 20].to_vec();
    let total = u16::try_from(plain.len() - ETHERNET + 20).unwrap();
    outer[2..4].copy_from_slice(&total.to_be_bytes());
    outer[9] = IPIP;
    outer[16..20].copy_from_slice(&[198, 51, 100, 7]);
    outer[10..12].fill(0);
    let checksum = Sum::ZERO.bytes(&outer).checksum();
    outer[10..12].copy_from_slice(&checksum.to_be_bytes());
    let tunnelled = [&plain[..ETHERNET], &outer, &plain[ETHERNET..]].concat();
    let mut verifier = Verifier::new(Mode::Tun, &[]);
    verifier.look(&tunnelled, 0);
    let found = verifier.found();
    assert_eq!(found.servers[0].server, "198.51.100.7");
    assert_eq!((found.malformed, found.bad_l4_checksums), (0, 0));
    // A frame without a tunnel is none of a director's with TUN.
    verifier.look(&plain, 0);
    assert_eq!(verifier.found().malformed, 1);
}

#[test]
fn expected_servers_are_read() {
    let expected = |text: &str| text.parse::<Expected>().map(|it| (it.server, it.weight));
    assert_eq!(
        expected("02:00:00:00:01:01=2"),
        Ok((Server::Mac(MAC[0].0), 2.0))
    );
    let socket = Server::Socket("[2001:db8::1]:80".parse().unwrap());
    assert_eq!(expected("[2001:db8::1]:80=0"), Ok((socket, 0.0)));
    let host = Server::Host("10.0.0.1".parse().unwrap());
    assert_eq!(expected("10.0.0.1"), Ok((host, 1.0)));
    for text in ["", "10.0.0.1=", "10.0.0.1=-1", "10.0.0=1", "=1"] {
        assert!(expected(text).is_err(), "{text}");
    }
}

#[test]
fn weights_decide_what_fits() {
    let expected = [format!("{}=3", MAC[0]), format!("{}=1", MAC[1])];
    let expected: Vec<Expected> = expected.iter().map(|text| text.parse().unwrap()).collect();
    let fits = |first: u32, second: u32| {
        let mut verifier = Verifier::new(Mode::Dr, &expected);
        (0..first).for_each(|flow| verifier.look(&frame(0, flow, 0), 0));
        (first..first + second).for_each(|flow| verifier.look(&frame(1, flow, 0), 0));
        verifier.found().spread.unwrap().fits
    };
    assert!(fits(300, 100));
    assert!(!fits(200, 200));
}
