//! Any bytes as what a client of the control socket sends: each gets an answer or none, what is refused says
//! why in JSON, and what running configuration its edits lead to can be written to a file and read again.

#![no_main]

use std::path::Path;
use std::time::Instant;

use control::api::Query;
use control::api::edit::Edited;
use control::api::ipvs::{Ipvs, Timeouts};
use control::api::server::serve_client;
use control::api::view::ReloadRefused;
use control::config::{parse, to_toml};
use control::controller::{Controller, Port};
use dataplane::service::PortIndex;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// The configuration that edits begin with.
const CONFIG: &str = r#"
[[virtual_server]]
address = "192.0.2.1:80"
protocol = "TCP"
lb_kind = "NAT"
[[virtual_server.real_server]]
address = "192.0.2.2:80"
"#;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
}

fuzz_target!(|bytes: &[u8]| RUNTIME.with(|runtime| runtime.block_on(converse(bytes))));

async fn converse(bytes: &[u8]) {
    let (queries, mut questions) = mpsc::channel(8);
    let (mut client, stream) = tokio::io::duplex(1 << 16);
    let mut answer = Vec::new();
    let asking = async {
        // The server may have heard enough before the end.
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        client.read_to_end(&mut answer).await.expect("memory");
    };
    let mut controller = controller();
    let answering = async {
        while let Some(query) = questions.recv().await {
            reply(&mut controller, query);
        }
    };
    tokio::join!(asking, answering, serve_client(stream, queries));
    check(&answer);
    let printed = to_toml(controller.config());
    parse(&printed, Path::new("printed.toml"))
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}\nin\n{printed}"));
}

fn controller() -> Controller {
    let config = parse(CONFIG, Path::new("begin.toml")).expect("a configuration");
    let port = Port {
        number: PortIndex(0),
        index: 2,
        name: "eth0".into(),
        mac: [2, 0, 0, 0, 0, 1],
        up: true,
        gone: false,
    };
    let mut controller = Controller::new(config.config, vec![port]);
    controller.start(Instant::now());
    controller
}

/// Clients that are gone are no failure, here as there.
fn reply(controller: &mut Controller, query: Query) {
    match query {
        Query::Ping(reply) => drop(reply.send(())),
        Query::Edit(edits, reply) => {
            let (results, _) = controller.edit(&edits.edits, Instant::now());
            assert_eq!(results.len(), edits.edits.len());
            let generation = controller.generation();
            drop(reply.send(Edited {
                results,
                generation,
            }));
        }
        Query::Reload(reply) => drop(reply.send(Err(ReloadRefused {
            diagnostics: vec!["a".into()],
        }))),
        Query::Services(reply) => drop(reply.send(Vec::new())),
        Query::Ipvs(reply) => drop(reply.send(Ipvs {
            timeouts: Timeouts {
                tcp: 900,
                tcpfin: 120,
                udp: 300,
            },
            virtual_servers: Vec::new(),
        })),
        // No answer, as of a control loop that ended.
        Query::Connections(_)
        | Query::Neighbors(_)
        | Query::Workers(_)
        | Query::Drops(_)
        | Query::Health(_)
        | Query::Vrrp(_)
        | Query::Config(_)
        | Query::PublicConfig(_)
        | Query::Explain(..) => {}
    }
}

/// What is no success has a body that says why, but for what was no HTTP.
fn check(answer: &[u8]) {
    if answer.is_empty() {
        return;
    }
    let text = String::from_utf8(answer.to_vec()).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    if status.starts_with('2') || body.is_empty() || head.contains("transfer-encoding") {
        return;
    }
    let said: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert!(said["error"].is_string(), "{text}");
}
