//! `appliance ipvsadm` and `ipvsadm` against a controller behind a control
//! socket: everything but the network.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Instant;

use control::api::Query;
use control::api::edit::Edited;
use control::api::server::{bind, serve};
use control::api::view;
use control::config;
use control::controller::Controller;
use dataplane::counters::ServerTotals;
use tokio::sync::mpsc;

/// A controller that starts without a configuration; its workers counted
/// nothing.
struct Appliance {
    directory: tempfile::TempDir,
}

impl Appliance {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = bind(&directory.path().join("socket")).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_appliance"));
        std::os::unix::fs::symlink(binary, directory.path().join("ipvsadm")).unwrap();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let config = config::parse("", Path::new("none")).unwrap().config;
            let mut controller = Controller::new(config, Vec::new());
            controller.start(Instant::now());
            runtime.block_on(async {
                let (sender, mut queries) = mpsc::channel(8);
                tokio::spawn(serve(listener, sender));
                while let Some(query) = queries.recv().await {
                    answer(&mut controller, query);
                }
            });
        });
        Self { directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Runs the program under the name `ipvsadm`.
    fn ipvsadm_with(&self, line: &str, stdin: impl AsRef<[u8]>) -> Output {
        let mut child = Command::new(self.directory.path().join("ipvsadm"))
            .args(line.split_whitespace())
            .env("APPLIANCE_SOCKET", self.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(stdin.as_ref())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    fn ipvsadm(&self, line: &str) -> Output {
        self.ipvsadm_with(line, "")
    }

    /// The output of a command that has to succeed.
    fn ok(&self, line: &str) -> String {
        let output = self.ipvsadm(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn answer(controller: &mut Controller, query: Query) {
    match query {
        Query::Ping(reply) => drop(reply.send(())),
        Query::Connections(reply) => drop(reply.try_send(Vec::<view::Connection>::new())),
        Query::Ipvs(reply) => drop(reply.send(controller.ipvs(|_| ServerTotals::default(), 0))),
        Query::Edit(edits, reply) => {
            let (results, _) = controller.edit(&edits.edits, Instant::now());
            let generation = controller.generation();
            drop(reply.send(Edited {
                results,
                generation,
            }));
        }
        Query::Services(_)
        | Query::Neighbors(_)
        | Query::Workers(_)
        | Query::Drops(_)
        | Query::Health(_)
        | Query::Vrrp(_)
        | Query::Config(_)
        | Query::PublicConfig(_)
        | Query::Explain(..)
        | Query::Reload(_) => {}
    }
}

fn golden(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/ipvsadm");
    fs::read_to_string(root.join(path)).unwrap()
}

/// What failed on the real director, after what had been set up there.
#[test]
fn every_error_is_ipvsadms() {
    let appliance = Appliance::start();
    appliance.ok("-A -t 192.168.1.110:80 -s rr");
    appliance.ok("-a -t 192.168.1.110:80 -r 192.168.1.11:80 -g -w 1");
    appliance.ok("-a -t 192.168.1.110:80 -r 192.168.1.12:80 -g -w 1");
    let index = golden("INDEX.tsv");
    let mut compared = 0;
    for line in index.lines().filter(|line| line.starts_with("err/")) {
        let [path, status, command] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let output = appliance.ipvsadm(command.strip_prefix("ipvsadm ").unwrap());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert_eq!(
            output.status.code().unwrap().to_string(),
            status,
            "{command}"
        );
        assert_eq!(
            text(output.stdout),
            golden(&format!("{path}.txt")),
            "{command}"
        );
        let stderr = match status {
            "0" => String::new(),
            _ => golden(&format!("{path}.err")),
        };
        assert_eq!(text(output.stderr), stderr, "{command}");
        compared += 1;
    }
    assert_eq!(compared, 18);
}

#[test]
fn an_empty_table_is_as_with_ipvsadm() {
    let appliance = Appliance::start();
    let index = golden("INDEX.tsv");
    let mut compared = 0;
    for line in index.lines().filter(|line| line.starts_with("empty/")) {
        let [path, _, command] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let found = appliance.ok(command.strip_prefix("ipvsadm ").unwrap());
        assert_eq!(found, golden(&format!("{path}.txt")), "{command}");
        compared += 1;
    }
    assert_eq!(compared, 7);
}

#[test]
fn real_servers_come_change_and_go() {
    let appliance = Appliance::start();
    appliance.ok("-A -t 10.0.0.100:80 -s wrr");
    appliance.ok("-a -t 10.0.0.100:80 -r 10.0.0.1 -g -w 3");
    appliance.ok("-a -t 10.0.0.100:80 -r 10.0.0.2:8080 -m");
    appliance.ok("-a -t 10.0.0.100:80 -r 10.0.0.3 -i --tun-type gue --tun-port 6080");
    appliance.ok("-A -u [2001:db8::1]:53 -s mh -b mh-port");
    let saved = "\
        -A -t 10.0.0.100:80 -s wrr\n\
        -a -t 10.0.0.100:80 -r 10.0.0.1:80 -g -w 3\n\
        -a -t 10.0.0.100:80 -r 10.0.0.2:8080 -m -w 1\n\
        -a -t 10.0.0.100:80 -r 10.0.0.3:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum\n\
        -A -u [2001:db8::1]:53 -s mh -b mh-port\n";
    assert_eq!(appliance.ok("-Sn"), saved);

    appliance.ok("-E -t 10.0.0.100:80 -s rr");
    appliance.ok("-e -t 10.0.0.100:80 -r 10.0.0.1:80 -g -w 0");
    appliance.ok("-d -t 10.0.0.100:80 -r 10.0.0.3");
    appliance.ok("-D -u [2001:db8::1]:53");
    let edited = "\
        -A -t 10.0.0.100:80 -s rr\n\
        -a -t 10.0.0.100:80 -r 10.0.0.1:80 -g -w 0\n\
        -a -t 10.0.0.100:80 -r 10.0.0.2:8080 -m -w 1\n";
    assert_eq!(appliance.ok("-Sn"), edited);

    // What was saved is restored.
    appliance.ok("-C");
    assert_eq!(appliance.ok("-Sn"), "");
    assert!(appliance.ipvsadm_with("-R", saved).status.success());
    assert_eq!(appliance.ok("-Sn"), saved);
}

#[test]
fn persistence_comes_changes_and_goes() {
    let appliance = Appliance::start();
    appliance.ok("-A -t 10.0.0.100:0 -s sh -p 50 -M 255.255.255.0 -b sh-port,sh-fallback");
    appliance.ok("-a -t 10.0.0.100:0 -r 10.0.0.1 -g -x 100 -y 80");
    appliance.ok("-a -t 10.0.0.100:0 -r 10.0.0.2:8080 -m");
    appliance.ok("-A -u 10.0.0.100:53 -s rr -o");
    appliance.ok("-A -t [2001:db8::1]:80 -p -M 64");
    let saved = "\
        -A -t 10.0.0.100:0 -s sh -p 50 -M 255.255.255.0 -b sh-fallback,sh-port\n\
        -a -t 10.0.0.100:0 -r 10.0.0.1:0 -g -w 1\n\
        -a -t 10.0.0.100:0 -r 10.0.0.2:8080 -m -w 1\n\
        -A -u 10.0.0.100:53 -s rr -o\n\
        -A -t [2001:db8::1]:80 -s wlc -p 360 -M 64\n";
    assert_eq!(appliance.ok("-Sn"), saved);
    assert_eq!(
        appliance.ok("-Ln -t 10.0.0.100:0 --thresholds"),
        "\
        Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n  \
          -> RemoteAddress:Port\n\
        TCP  10.0.0.100:0 sh (sh-fallback,sh-port) persistent 50 mask 255.255.255.0\n  \
          -> 10.0.0.1:0                   100        80         0          0         \n  \
          -> 10.0.0.2:8080                0          0          0          0         \n"
    );
    assert!(
        appliance
            .ok("-Ln -u 10.0.0.100:53")
            .ends_with("UDP  10.0.0.100:53 rr ops\n")
    );

    // As IPVS does, an edit replaces everything that it could have said.
    appliance.ok("-E -u 10.0.0.100:53 -s wrr -p 5");
    appliance.ok("-E -t 10.0.0.100:0 -s sh -p 10");
    appliance.ok("-E -t [2001:db8::1]:80");
    appliance.ok("-e -t 10.0.0.100:0 -r 10.0.0.1 -g -w 3");
    appliance.ok("-e -t 10.0.0.100:0 -r 10.0.0.2:8080 -m -x 7");
    let edited = "\
        -A -t 10.0.0.100:0 -s sh -p 10\n\
        -a -t 10.0.0.100:0 -r 10.0.0.1:0 -g -w 3\n\
        -a -t 10.0.0.100:0 -r 10.0.0.2:8080 -m -w 1\n\
        -A -u 10.0.0.100:53 -s wrr -p 5\n\
        -A -t [2001:db8::1]:80 -s wlc\n";
    assert_eq!(appliance.ok("-Sn"), edited);
    let thresholds = appliance.ok("-Ln -t 10.0.0.100:0 --thresholds");
    let servers: Vec<&str> = thresholds.lines().skip(3).collect();
    assert_eq!(
        servers,
        [
            "  -> 10.0.0.1:0                   0          0          0          0         ",
            "  -> 10.0.0.2:8080                7          0          0          0         ",
        ]
    );

    appliance.ok("-C");
    assert!(appliance.ipvsadm_with("-R", saved).status.success());
    assert_eq!(appliance.ok("-Sn"), saved);
}

#[test]
fn restoring_goes_on_after_a_failure_and_ends_at_a_mistake() {
    let appliance = Appliance::start();
    let output = appliance.ipvsadm_with(
        "-R",
        "-A -t 10.0.0.100:80 -s rr\n-A -t 10.0.0.100:80 -s rr\n\nipvsadm -A -u 10.0.0.100:53 -s rr\n",
    );
    assert!(output.status.success(), "the last one's: {output:?}");
    assert_eq!(output.stderr, b"Service already exists\n");
    let output = appliance.ipvsadm_with(
        "-R",
        "-D -t 10.0.0.100:80\n-D -u 10.0.0.100:53 -w 1\n-D -u 10.0.0.100:53\n",
    );
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "Illegal 'weight' option with the 'delete-service' command\n"
    );
    assert_eq!(appliance.ok("-Sn"), "-A -u 10.0.0.100:53 -s rr\n");
}

#[test]
fn restoring_goes_on_after_an_option_that_cannot_be_read() {
    let appliance = Appliance::start();
    let rules = "-A -t 10.0.0.100:80 --foo\n-A -t 10.0.0.100:81 -s\n-A -t 10.0.0.100:82 -o=1\n";
    let output = appliance.ipvsadm_with("-R", rules);
    assert_eq!(output.status.code(), Some(255), "the last one's");
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "--foo: unknown option\n-s: missing argument\n-o=1: option does not take an argument\n"
    );
    let output =
        appliance.ipvsadm_with("-R", format!("{rules}-A -t 10.0.0.100:83 -s rr\n-h\n-C\n"));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(appliance.ok("-Sn"), "-A -t 10.0.0.100:83 -s rr\n");
}

#[test]
fn what_is_no_text_spoils_only_its_own_line() {
    let appliance = Appliance::start();
    let output = appliance.ipvsadm_with(
        "-R",
        b"-A -t 10.0.0.100:80 -s rr\n-A -t 10.0.0.\xff:80\n-A -t 10.0.0.100:81\n",
    );
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        output.stderr,
        b"illegal virtual server address[:port] specified\n"
    );
    assert_eq!(appliance.ok("-Sn"), "-A -t 10.0.0.100:80 -s rr\n");
}

#[test]
fn an_ipv4_address_as_ipv6_is_refused() {
    let appliance = Appliance::start();
    let output = appliance.ipvsadm("-A -t [::ffff:10.0.0.100]:80");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(appliance.ok("-Sn"), "");
}

#[test]
fn timeouts_are_set_and_zero_keeps_them() {
    let appliance = Appliance::start();
    appliance.ok("--set 100 0 50");
    assert_eq!(
        appliance.ok("-L --timeout"),
        "Timeout (tcp tcpfin udp): 100 120 50\n"
    );
    let output = appliance.ipvsadm("--set 2678400 0 0");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn sctp_services_come_and_go() {
    let appliance = Appliance::start();
    appliance.ok("-A --sctp-service 10.0.0.100:36412 -s rr");
    appliance.ok("-a --sctp-service 10.0.0.100:36412 -r 10.0.0.1:36412 -m");
    let listed = appliance.ok("-Ln --sctp-service 10.0.0.100:36412");
    let lines: Vec<&str> = listed.lines().skip(2).collect();
    assert_eq!(lines[0], "SCTP 10.0.0.100:36412 rr");
    assert!(lines[1].starts_with("  -> 10.0.0.1:36412  "), "{listed}");
    appliance.ok("-D --sctp-service 10.0.0.100:36412");
    assert_eq!(appliance.ok("-Sn"), "");
}

#[test]
fn what_the_appliance_cannot_do_is_said() {
    let appliance = Appliance::start();
    appliance.ok("-A -t 10.0.0.100:80");
    for (line, said) in [
        ("-A -f 7", "firewall mark"),
        ("-a -t 10.0.0.100:80 -r 10.0.0.1 -w 70000", "65535"),
        ("-a -t 10.0.0.100:80 -r 127.0.0.1 -m", "by DR"),
        (
            "-a -t 10.0.0.100:80 -r 10.0.0.1 -i --tun-type gre --tun-csum",
            "--tun-csum",
        ),
        ("--start-daemon master", "daemon"),
    ] {
        let output = appliance.ipvsadm(line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {stderr}");
        assert!(stderr.starts_with("ipvsadm: "), "{line}: {stderr}");
        assert!(stderr.contains(said), "{line}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{line}: {stderr}");
    }
    assert_eq!(appliance.ok("-Sn"), "-A -t 10.0.0.100:80 -s wlc\n");
}

#[test]
fn what_was_saved_is_imported() {
    let import = |saved: &str, arguments: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_appliance"))
            .args(["import", "/dev/stdin"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(saved.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    };
    let appliance = Appliance::start();
    appliance.ok("-A -t 10.0.0.100:0 -s sh -p 50");
    appliance.ok("-a -t 10.0.0.100:0 -r 10.0.0.1 -g -w 4");
    let output = import(&appliance.ok("-Sn"), &["--strict"]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let toml = String::from_utf8(output.stdout).unwrap();
    let config = config::parse(&toml, Path::new("imported")).unwrap().config;
    let service = &config.virtual_servers[0];
    assert_eq!(service.key.to_string(), "TCP 10.0.0.100:0");
    assert!(service.options.persistence.is_some());
    assert_eq!(service.real_servers[0].weight, 4);

    let mark = "-A -f 7 -s rr\n";
    assert_eq!(import(mark, &[]).status.code(), Some(0));
    assert_eq!(import(mark, &["--strict"]).status.code(), Some(1));
    let from = ["--from", "keepalived"];
    assert_eq!(import(mark, &from).status.code(), Some(2));
}

/// Sends a body as it is; the status line and the error.
fn post(appliance: &Appliance, body: &str) -> (String, String) {
    let mut stream = std::os::unix::net::UnixStream::connect(appliance.socket()).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /api/v1/edit HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.lines().next().unwrap().to_owned();
    (status, body.to_owned())
}

#[test]
fn garbage_is_refused_and_changes_nothing() {
    let appliance = Appliance::start();
    for body in [
        "",
        "{",
        "[]",
        r#"{"edits": [{"format_disk": {}}]}"#,
        r#"{"edits": ["clear"], "more": 1}"#,
        r#"{"edits": [{"delete_service": {"virtual_server": 7}}]}"#,
    ] {
        let (status, answer) = post(&appliance, body);
        assert_eq!(status, "HTTP/1.1 400 Bad Request", "{body}: {answer}");
        assert!(answer.starts_with(r#"{"error":""#), "{body}: {answer}");
    }
    let body = r#"{"edits": [{"delete_service": {"virtual_server": "no name"}}, "clear"]}"#;
    let (status, answer) = post(&appliance, body);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(
        answer.starts_with(r#"{"results":[{"refused":"expected a protocol"#)
            && answer.contains("},null]"),
        "{answer}"
    );
}

#[test]
fn as_a_command_of_the_appliance() {
    let appliance = Appliance::start();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_appliance"));
        command.env_remove("APPLIANCE_SOCKET");
        command
            .arg("--socket")
            .arg(appliance.socket())
            .arg("ipvsadm");
        command.args(arguments).output().unwrap()
    };
    assert!(
        run(&["-A", "-t", "10.0.0.100:80", "-s", "rr"])
            .status
            .success()
    );
    let listed = run(&["-Ln"]);
    assert!(
        listed.stdout.ends_with(b"TCP  10.0.0.100:80 rr\n"),
        "{listed:?}"
    );
    assert!(run(&["-h"]).stdout.starts_with(b"ipvsadm v1.31"));
    assert!(run(&["--version"]).stdout.starts_with(b"ipvsadm v1.31"));
    assert_eq!(run(&["--nosuch"]).status.code(), Some(255));
}

#[test]
fn without_an_appliance_it_ends_as_without_ipvs() {
    let directory = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_appliance"));
        command.arg("--socket").arg(directory.path().join("none"));
        command
            .arg("ipvsadm")
            .args(line.split(' '))
            .output()
            .unwrap()
    };
    for line in ["-Ln", "-Lnc", "-L --timeout", "-L --daemon", "-C", "-Sn"] {
        let output = run(line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(output.stdout.is_empty(), "{line}");
        assert!(
            stderr.starts_with("Can't initialize ipvs: no appliance answers at"),
            "{line}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1);
    }
    assert!(run("-h").status.success());
}
