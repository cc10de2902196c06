use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use dataplane::snapshot::Snapshot;
use tokio::sync::mpsc;

use super::super::Controller;
use super::*;
use crate::api::edit::Edit;
use crate::event::Event;
use crate::health::Checker;
use crate::scripts::{Policy, Runner};

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

/// What becomes of the first server of three when clients get no answer from it: the second has this weight and may be
/// drained, the third is down.
fn unanswered(weight: u32, is_drained: bool) -> bool {
    let file = format!(
        r#"
        [[virtual_server]]
        address = "10.0.0.100:80"
        lb_kind = "DR"
        max_fails = 2
        [[virtual_server.real_server]]
        address = "10.0.0.1:80"
        [[virtual_server.real_server]]
        address = "10.0.0.2:80"
        weight = {weight}
        [[virtual_server.real_server]]
        address = "10.0.0.3:80"
        TCP_CHECK = {{}}
        "#
    );
    let now = Instant::now();
    let config = crate::config::parse(&file, Path::new("file"));
    let mut controller = Controller::new(config.unwrap().config, Vec::new());
    controller.start(now);
    let id = CheckId {
        virtual_server: "TCP 10.0.0.100:80".into(),
        real_server: "10.0.0.3:80".parse().unwrap(),
        check: 0,
    };
    controller.handle(
        Event::Health {
            id,
            healthy: false,
            reason: "told so".into(),
            weight: None,
        },
        now,
    );
    if is_drained {
        let drain = Edit::Drain {
            address: "10.0.0.2".parse().unwrap(),
            port: None,
            deadline_milliseconds: None,
        };
        assert_eq!(controller.edit(&[drain], now).0, [None]);
    }
    let service = &controller.config().virtual_servers[0];
    let (key, first) = (service.key, service.real_servers[0].clone());
    let silent = controller.servers().id(key, first.address).unwrap();
    for second in 0..3 {
        let totals = |id| ServerTotals {
            unanswered: if id == silent { second * 9 } else { 0 },
            ..ServerTotals::default()
        };
        controller.observe(now + Duration::from_secs(second), totals);
    }
    controller.is_up(key, &first)
}

#[test]
fn the_last_server_that_takes_connections_is_never_taken_out() {
    assert!(!unanswered(1, false), "another takes its clients");
    assert!(unanswered(0, false), "the other has weight 0");
    assert!(unanswered(1, true), "the other is drained");
}

/// Real checks of a server at 127.0.0.1, and the controller that they report to.
struct Live {
    controller: Controller,
    checker: Checker,
    events: mpsc::Receiver<Event>,
    server: SocketAddr,
    /// The check that was started last.
    check: Option<CheckId>,
}

impl Live {
    fn start(server: SocketAddr, of_service: &str) -> Self {
        let (sender, events) = mpsc::channel(8);
        let mut live = Self {
            controller: Controller::new(Self::config(server, of_service), Vec::new()),
            checker: Checker::new(sender, Runner::new(Policy::default())),
            events,
            server,
            check: None,
        };
        let actions = live.controller.start(Instant::now());
        live.carry_out(actions);
        live
    }

    fn config(server: SocketAddr, of_service: &str) -> Config {
        let (address, port) = (server.ip(), server.port());
        let file = format!(
            "[[virtual_server]]\naddress = '10.0.0.100:80'\nlb_kind = 'DR'\n\
             delay_loop = 0.03\nretry = 0\nwarmup = 0\n{of_service}\n\
             [[virtual_server.real_server]]\naddress = '10.0.0.1:80'\n\
             TCP_CHECK = {{ connect_ip = '{address}', connect_port = {port} }}\n"
        );
        let checked = crate::config::parse(&file, Path::new("file"));
        checked.unwrap().config
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            if let Action::StartCheck { id, check } = action {
                self.check = Some(id.clone());
                self.checker.start(id, *check, None);
            } else if let Action::StopCheck { id } = action {
                self.checker.stop(&id);
            }
        }
    }

    fn reload(&mut self, of_service: &str) {
        let config = Self::config(self.server, of_service);
        let reloaded = self.controller.reload(config, Vec::new(), Instant::now());
        self.carry_out(reloaded.unwrap().1);
    }

    fn is_up(&self) -> bool {
        let service = &self.controller.config().virtual_servers[0];
        self.controller.is_up(service.key, &service.real_servers[0])
    }

    /// Goes on until the server is up or down.
    async fn wait_for(&mut self, up: bool) {
        let patience = Duration::from_secs(10);
        while self.is_up() != up {
            let event = tokio::time::timeout(patience, self.events.recv()).await;
            let event = event.expect("no event").unwrap();
            let actions = self.controller.handle(event, Instant::now());
            self.carry_out(actions);
        }
    }
}

#[tokio::test]
async fn a_changed_check_says_when_the_server_changes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    drop(listener);
    let mut live = Live::start(server, "");
    live.wait_for(false).await;
    live.reload("connect_timeout = 2");
    assert!(!live.is_up());
    let listener = TcpListener::bind(server).unwrap();
    live.wait_for(true).await;
    live.reload("alpha = true");
    assert!(live.is_up(), "its check has passed");
    drop(listener);
    live.wait_for(false).await;
}

/// What the former check found out is on its way when another begins in its place.
#[tokio::test]
async fn a_result_that_came_too_late_is_corrected() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut live = Live::start(listener.local_addr().unwrap(), "");
    live.reload("connect_timeout = 2");
    let late = Event::Health {
        id: live.check.clone().unwrap(),
        healthy: false,
        reason: "too late".to_owned(),
        weight: None,
    };
    live.controller.handle(late, Instant::now());
    assert!(!live.is_up());
    live.wait_for(true).await;
}
