//! `appliance check` as a user runs it: what is printed where, and the exit
//! status.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn appliance(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_appliance"));
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    command
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

#[track_caller]
fn assert_output(output: &Output, status: i32, stdout: &str, stderr: &str) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert_eq!(text(&output.stdout), stdout);
    assert_eq!(text(&output.stderr), stderr);
    assert_eq!(output.status.code(), Some(status));
}

#[test]
fn a_valid_file_is_summed_up() {
    let output = appliance(&["check", "configs/dr.toml"]);
    let summary = "configs/dr.toml: valid, 2 virtual servers, 6 real servers, 6 health checks\n";
    assert_output(&output, 0, summary, "");
}

#[test]
fn warnings_do_not_change_the_exit_status() {
    let file = "control/tests/diagnostics/no-real-server.toml";
    let output = appliance(&["check", file]);
    let stdout = format!("{file}: valid, 1 virtual server, 0 real servers, 0 health checks\n");
    let stderr = format!(
        "{file}:1:1: warning: virtual_server 192.168.1.100:80: no real_server: \
         every packet to it will be dropped\n"
    );
    assert_output(&output, 0, &stdout, &stderr);
}

#[test]
fn print_gives_a_file_that_prints_itself() {
    let output = appliance(&["check", "--print", "configs/ipv6.toml"]);
    assert_eq!(output.status.code(), Some(0));
    let directory = tempfile::tempdir().unwrap();
    // Not called *.toml, so that --format is needed.
    let path = directory.path().join("printed");
    fs::write(&path, &output.stdout).unwrap();
    let path = path.to_str().unwrap();
    let again = appliance(&["check", "--print", "--format", "toml", path]);
    assert_eq!(again.stdout, output.stdout);
    assert_eq!(again.status.code(), Some(0));
}

#[test]
fn errors_are_on_stderr_and_exit_2() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wrong.toml");
    fs::write(&path, "[appliance]\nidle = \"bsy\"\n").unwrap();
    let path = path.to_str().unwrap();
    let expected = format!(
        "{path}:2:8: appliance: idle: found \"bsy\", \
         expected \"adaptive\", \"busy\" or \"interrupt\": did you mean \"busy\"?\n"
    );
    assert_output(&appliance(&["check", "--print", path]), 2, "", &expected);
}

#[test]
fn files_that_cannot_be_used_exit_2() {
    let output = appliance(&["check", "configs"]);
    let expected = "configs: found a directory, expected a file: name a file in it\n";
    assert_output(&output, 2, "", expected);

    let output = appliance(&["check", "--format", "keepalived", "configs/dr.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let first = stderr.lines().next().unwrap();
    let problem = ":1: found the unknown keyword \"[[interface]]\"";
    assert!(first.starts_with("configs/dr.toml:"), "{stderr}");
    assert!(first.contains(problem), "{stderr}");
}

#[test]
fn a_wrong_command_line_exits_2() {
    for arguments in [&["check"][..], &["chekc", "configs/dr.toml"], &[]] {
        assert_eq!(appliance(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_appliance"))
        .args(["check", "--print", "../configs/dr.toml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_output(&output, 0, "", "");
}

#[test]
fn a_full_disk_exits_1() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_appliance"))
        .args(["check", "../configs/dr.toml"])
        .stdout(full)
        .output()
        .unwrap();
    let expected = "appliance: cannot write to stdout (No space left on device (os error 28))\n";
    assert_output(&output, 1, "", expected);
}
