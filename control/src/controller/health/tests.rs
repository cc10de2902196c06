use std::path::Path;
use std::time::Instant;

use dataplane::snapshot::Snapshot;

use super::super::Controller;
use super::*;
use crate::event::Event;

/// Both take no new connections, but the one with `inhibit_on_failure` keeps those that it has.
#[test]
fn a_server_that_is_down_keeps_its_connections_with_inhibit_on_failure() {
    let file = r#"
        [[virtual_server]]
        address = "10.0.0.100:80"
        lb_kind = "DR"
        [[virtual_server.real_server]]
        address = "10.0.0.1:80"
        weight = 3
        inhibit_on_failure = true
        TCP_CHECK = {}
        [[virtual_server.real_server]]
        address = "10.0.0.2:80"
        TCP_CHECK = {}
    "#;
    let now = Instant::now();
    let config = crate::config::parse(file, Path::new("file"))
        .unwrap()
        .config;
    let mut controller = Controller::new(config, Vec::new());
    controller.start(now);
    let mut states = Vec::new();
    for healthy in [false, true] {
        for server in ["10.0.0.1:80", "10.0.0.2:80"] {
            let id = CheckId {
                virtual_server: "TCP 10.0.0.100:80".into(),
                real_server: server.parse().unwrap(),
                check: 0,
            };
            let number = controller.server_id(&id).unwrap();
            let event = Event::Health {
                id,
                healthy,
                reason: "told so".into(),
                weight: None,
            };
            controller.handle(event, now);
            let snapshot = controller.snapshot(&Snapshot::empty());
            let server = snapshot.server(number).unwrap();
            states.push((server.weight, server.available));
        }
    }
    assert_eq!(states, [(0, true), (0, false), (3, true), (1, true)]);
}
