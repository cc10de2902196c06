use std::os::unix::fs::PermissionsExt as _;

use clap::Parser as _;

use super::*;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    let words = ["rfc2544"].into_iter().chain(line.split(' '));
    Line::try_parse_from(words).map(|line| line.arguments)
}

#[test]
fn options_that_would_change_nothing_are_refused() {
    assert!(parse("dns.toml --protocol tcp").is_ok());
    assert!(
        parse("--tx-interface a --rx-interface b --dst 192.0.2.1:53 --protocol tcp --mode nat")
            .is_ok()
    );
    for line in [
        "dns.toml --mode nat",
        "--from run.json --mode nat",
        "--from run.json --protocol tcp",
        "--from run.json --frames 64",
        "--from run.json --tolerance 1",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn tolerance_and_resolution_are_parts_of_a_hundred() {
    for option in ["--tolerance", "--resolution"] {
        for value in ["nan", "-1", "100"] {
            assert!(parse(&format!("dns.toml {option}={value}")).is_err());
        }
    }
}

#[test]
fn frames_are_as_short_as_a_stamp_and_as_long_as_a_tunnel_takes() {
    let v4 = "192.0.2.1:53".parse().unwrap();
    let v6 = "[2001:db8::1]:53".parse().unwrap();
    let wanted = [0, 10, 62, 63, 1518];
    let tun = lengths(&wanted, v4, Protocol::Udp, Mode::Tun);
    assert_eq!(tun, [64, 1466]);
    let lengths = |destination, protocol| lengths(&wanted, destination, protocol, Mode::Dr);
    assert_eq!(lengths(v4, Protocol::Udp), [64, 1518]);
    assert_eq!(lengths(v4, Protocol::Tcp), [74, 1518]);
    assert_eq!(lengths(v6, Protocol::Udp), [82, 1518]);
    assert_eq!(lengths(v6, Protocol::Tcp), [94, 1518]);
}

/// A stand-in for `pktgen tx` and `sink`, which can send everything but frames of 508 and of 8996 bytes.
const STAND_IN: &str = r#"#!/bin/bash
case $* in
sink*)
    trap 'echo "{\"interface\":\"b\",\"received\":1000,\"bytes\":60000,\"seconds\":1,\"mpps\":0.001,
        \"gbit_per_second\":0,\"missed\":0,\"answered\":null,\"found\":null}"; exit' INT
    echo ready >&2
    while :; do sleep 0.05; done
    ;;
*" --size 508 "* | *" --size 8996 "*)
    echo 'pktgen: too long' >&2
    exit 1
    ;;
*)
    echo '{"interface":"a","destination":"","protocol":"udp","flows":1,"size":"60","sent":1000,"dropped":0,
        "bytes":60000,"seconds":1,"mpps":0.001,"gbit_per_second":0,"connections":null}'
    ;;
esac
"#;

/// What comes of measuring with the stand-in.
fn measured(options: &str) -> anyhow::Result<Outcome> {
    measured_until(options, Arc::default())
}

fn measured_until(options: &str, stop: Arc<AtomicBool>) -> anyhow::Result<Outcome> {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("pktgen");
    std::fs::write(&program, STAND_IN).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let line = format!("--tx-interface a --rx-interface b --dst 192.0.2.1:53 {options}");
    let arguments = parse(&line).unwrap();
    let place = |interface: &str| Place {
        namespace: None,
        interface: interface.to_owned(),
    };
    let tester = Tester {
        program,
        send: place("a"),
        receive: place("b"),
        destination: "192.0.2.1:53".parse().unwrap(),
        destination_mac: None,
        sources: None,
        protocol: Protocol::Udp,
        mode: Mode::Dr,
        servers: Vec::new(),
        core: None,
        stop,
    };
    measure(
        &arguments,
        &tester,
        setup(&arguments, &tester, String::new()),
    )
}

#[test]
fn an_error_keeps_what_was_measured_until_then() {
    let outcome = measured("--frames 64,512,1518 --flows 1").unwrap();
    let frames: Vec<usize> = outcome.results.frames();
    assert_eq!(frames, [64]);
    let failed = format!("{:#}", outcome.failed.unwrap());
    assert_eq!(failed, "2/3: 512 bytes, flows: 1: pktgen tx: too long");
}

#[test]
fn what_cannot_be_sent_is_known_before_anything_is_measured() {
    let Err(error) = measured("--frames 64,9000 --flows 1,10k") else {
        panic!("9000 bytes were sent");
    };
    let error = format!("{error:#}");
    assert_eq!(error, "9000 bytes, flows: 10k: pktgen tx: too long");
}

#[test]
fn a_signal_before_the_first_result_is_an_error() {
    let stop = Arc::new(AtomicBool::new(true));
    let error = measured_until("--frames 64 --flows 1", stop).err().unwrap();
    assert_eq!(format!("{error:#}"), "interrupted before the first result");
}

#[test]
fn results_are_printed_even_if_the_page_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("is/not/there.html");
    let arguments = parse(&format!("dns.toml --html {}", page.display())).unwrap();
    assert!(can_be_written(&page).is_err());
    assert!(can_be_written(&directory.path().join("new.html")).is_ok());
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    let results = Results {
        program: String::new(),
        date: String::new(),
        machine: Machine::here(),
        setup: Setup {
            virtual_server: "192.0.2.1:53".to_owned(),
            protocol: "UDP".to_owned(),
            method: "DR".to_owned(),
            scheduler: None,
            real_servers: 0,
            network: String::new(),
            seconds: 1.0,
            tolerance: 0.0,
            resolution: 0.0,
        },
        measurements: vec![Measurement::new(1, 64, 1e6)],
    };
    let mut out = Vec::new();
    let error = report(&arguments, &results, None, &mut out).unwrap_err();
    assert!(error.to_string().starts_with("cannot write "), "{error}");
    assert!(String::from_utf8(out).unwrap().contains("1.000"));
}
