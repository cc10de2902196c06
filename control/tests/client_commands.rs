//! The `appliance` binary as a client: `show` and `reload` against a server
//! with a small control loop.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use control::api::server::{bind, serve};
use control::api::{Query, view};
use tokio::sync::mpsc;

/// More than fits into the buffers on the way.
const CONNECTIONS: u16 = 40_000;

/// Serves until the test's process ends.
fn appliance() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("appliance.sock");
    let listener = bind(&path).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (sender, mut queries) = mpsc::channel(8);
            tokio::spawn(serve(listener, sender));
            while let Some(query) = queries.recv().await {
                answer(query);
            }
        });
    });
    (directory, path)
}

fn answer(query: Query) {
    match query {
        Query::Ping(reply) => drop(reply.send(())),
        Query::Services(reply) => drop(reply.send(vec![])),
        Query::Connections(reply) => drop(reply.try_send(connections())),
        Query::Neighbors(reply) => drop(reply.send(vec![])),
        Query::Workers(reply) => drop(reply.send(vec![])),
        Query::Drops(reply) => drop(reply.send(vec![view::Drop {
            reason: "truncated".into(),
            description: "Short.".into(),
            packets_total: 0,
        }])),
        Query::Health(reply) => drop(reply.send(vec![])),
        Query::Vrrp(reply) => drop(reply.send(view::Vrrp {
            instances: vec![],
            refused: vec![],
            timer_slip: view::TimerSlip::default(),
        })),
        Query::Config(reply) => drop(reply.send(view::Config {
            toml: "[appliance]\n".to_owned(),
        })),
        Query::Ipvs(_) | Query::Edit(..) => {} // in ipvsadm.rs
        Query::PublicConfig(_) | Query::Explain(..) => {} // not by a command's file or table
        Query::Reload(reply) => drop(reply.send(Err(view::ReloadRefused {
            diagnostics: vec!["a.toml:1:1: x".to_owned(), "a.toml:2:1: y".to_owned()],
        }))),
    }
}

fn connections() -> Vec<view::Connection> {
    let connection = |port| view::Connection {
        protocol: "TCP".into(),
        client: ([10, 0, 0, 1], port).into(),
        virtual_server: ([192, 168, 1, 100], 80).into(),
        real_server: ([192, 168, 1, 101], 80).into(),
        state: "ESTABLISHED".into(),
        expires_seconds: 900,
        worker: Some(0),
    };
    (1..=CONNECTIONS).map(connection).collect()
}

fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_appliance"));
    command.env_remove("APPLIANCE_SOCKET").args(arguments);
    command.arg("--socket").arg(socket);
    command
}

fn run(socket: &Path, arguments: &[&str]) -> (i32, String, String) {
    outcome(command(socket, arguments).output().unwrap())
}

fn outcome(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let status = output.status.code().unwrap();
    (status, text(output.stdout), text(output.stderr))
}

fn success(stdout: &str) -> (i32, String, String) {
    (0, stdout.to_owned(), String::new())
}

#[test]
fn show_prints_tables_and_json() {
    let (_directory, socket) = appliance();
    let run = |arguments: &[&str]| run(&socket, arguments);
    assert_eq!(run(&["show"]), success("no virtual servers\n"));
    assert_eq!(run(&["show", "services", "--json"]), success("[]\n"));
    assert_eq!(run(&["show", "config"]), success("[appliance]\n"));
    assert_eq!(
        run(&["show", "config", "--json"]),
        success("{\"toml\":\"[appliance]\\n\"}\n")
    );
    assert_eq!(
        run(&["show", "drops"]),
        success("no packets were dropped\n")
    );
    let (_, all, _) = run(&["show", "drops", "--all"]);
    assert!(all.ends_with("      0  truncated  Short.\n"), "{all}");
}

#[test]
fn show_prints_every_connection() {
    let (_directory, socket) = appliance();
    let (status, table, _) = run(&socket, &["show", "connections"]);
    assert_eq!(status, 0);
    assert_eq!(table.lines().count(), usize::from(CONNECTIONS) + 2);
    let (status, json, _) = run(&socket, &["show", "connections", "--json"]);
    assert_eq!(status, 0);
    let listed: Vec<view::Connection> = serde_json::from_str(&json).unwrap();
    assert_eq!(listed, connections());
}

/// `appliance show connections | head -1`
#[test]
fn reader_may_leave_early() {
    let (_directory, socket) = appliance();
    for arguments in [
        &["show", "connections"][..],
        &["show", "connections", "--json"],
    ] {
        let mut child = command(&socket, arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(!line.is_empty());
        assert_eq!(outcome(child.wait_with_output().unwrap()), success(""));
    }
}

#[test]
fn refused_reload_exits_with_2() {
    let (_directory, socket) = appliance();
    let expected = "a.toml:1:1: x\na.toml:2:1: y\n\
                    appliance: the configuration was refused; nothing was changed\n";
    assert_eq!(
        run(&socket, &["reload"]),
        (2, String::new(), expected.to_owned())
    );
}

#[test]
fn nobody_answering_exits_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    let expected = format!(
        "appliance: no appliance answers at {}: start it with \"appliance run\", \
         or name its socket with --socket\n",
        socket.display()
    );
    for arguments in [
        &["show"][..],
        &["show", "connections", "--json"],
        &["reload"],
    ] {
        assert_eq!(
            run(&socket, arguments),
            (1, String::new(), expected.clone())
        );
    }
}

#[test]
fn environment_names_the_socket() {
    let (_directory, socket) = appliance();
    let output = Command::new(env!("CARGO_BIN_EXE_appliance"))
        .arg("show")
        .env("APPLIANCE_SOCKET", &socket)
        .output();
    assert_eq!(outcome(output.unwrap()), success("no virtual servers\n"));
}

#[test]
fn wrong_use_exits_with_2() {
    let nowhere = Path::new("/nonexistent/appliance.sock");
    for (arguments, expected) in [
        (&["show", "backends"][..], "services"),
        (&["show", "services", "--all"], "--all"),
        (
            &["explain", "198.51.100.7", "192.0.2.1:80"],
            "expected an address and a port, as 192.168.1.100:80",
        ),
        (
            &["explain", "[2001:db8::7]:1", "192.0.2.1:80"],
            "expected addresses of one IP version",
        ),
        (&["top", "--count", "0"], "0 is not in 1.."),
    ] {
        let (status, stdout, stderr) = run(nowhere, arguments);
        assert_eq!((status, &*stdout), (2, ""), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert!(!stderr.contains("no appliance answers"), "{stderr}");
    }
}
