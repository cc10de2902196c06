//! What is wrong with a command line is said before anything else, with exit status 2. Needs neither root nor an
//! interface.

use std::process::Command;

/// Exit status and stderr of `pktgen`.
fn pktgen(arguments: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pktgen"));
    command.args(arguments.split_whitespace());
    let output = command.output().expect("pktgen starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn options_that_would_do_nothing_are_refused() {
    for (arguments, said) in [
        ("--pcap in.pcap --malformed 10", "cannot be used with"),
        ("--pcap in.pcap --flows 7", "cannot be used with"),
        ("--pcap in.pcap --syn", "cannot be used with"),
        ("--pcap in.pcap --protocol tcp", "cannot be used with"),
        ("--dst 192.0.2.1:9 --fragment 1001", "multiple of 8"),
        ("--dst 192.0.2.1:9 --fragment 4000", "8 to 3200"),
    ] {
        let (status, stderr) = pktgen(&format!("tx --interface none0 {arguments}"));
        assert_eq!(status, Some(2), "{arguments}: {stderr}");
        assert!(stderr.contains(said), "{arguments}: {stderr}");
    }
}

#[test]
fn several_workers_need_a_cpu_that_is_there() {
    for workers in [1, 2] {
        let (_, stderr) = pktgen(&format!(
            "tx --interface none0 --dst 192.0.2.1:9 --core 9999 --workers {workers}"
        ));
        assert!(stderr.contains("CPU 9999"), "{stderr}");
    }
}

#[test]
fn what_is_wrong_with_the_command_line_or_a_file_has_status_2() {
    for (arguments, said) in [
        ("tx --interface none0 --dst 192.0.2.1:0", "the port not 0"),
        (
            "tx --interface none0 --dst 192.0.2.1:9 --malformed 200",
            "0 to 100",
        ),
        (
            "tx --interface none0 --dst 192.0.2.1:9 --core 9999",
            "CPU 9999",
        ),
        ("ring --syn-flood 50", "add --protocol tcp"),
        ("rfc2544 /nonexistent/nope.toml", "nope.toml"),
        (
            "sink --interface none0 --mode dr --server 10.0.0.1=1",
            "10.0.0.1",
        ),
    ] {
        let (status, stderr) = pktgen(arguments);
        assert_eq!(status, Some(2), "{arguments}: {stderr}");
        assert!(stderr.contains(said), "{arguments}: {stderr}");
    }
    let (status, stderr) = pktgen("tx --interface none0 --dst 192.0.2.1:9");
    assert_eq!(status, Some(1), "the interface is not there: {stderr}");
}
