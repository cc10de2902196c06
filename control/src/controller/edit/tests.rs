use std::path::Path;
use std::time::Instant;

use dataplane::counters::ServerTotals;
use dataplane::snapshot::Snapshot;

use super::*;
use crate::event::{CheckId, Event};
use crate::ipvsadm;
use crate::ipvsadm::names::System;
use crate::ipvsadm::table::Service;

const FILE: &str = r#"
[[virtual_server]]
address = "10.0.0.100:80"
lb_algo = "wrr"
lb_kind = "DR"
[[virtual_server.real_server]]
address = "10.0.0.1:80"
weight = 2
[[virtual_server.real_server]]
address = "10.0.0.2:80"
TCP_CHECK = {}
"#;
const NAME: &str = "TCP 10.0.0.100:80";

fn file() -> Config {
    config::parse(FILE, Path::new("file")).unwrap().config
}

fn controller() -> Controller {
    let mut controller = Controller::new(file(), Vec::new());
    controller.start(Instant::now());
    controller
}

fn server(address: &str, weight: u32) -> ServerEdit {
    ServerEdit {
        address: address.parse().unwrap(),
        lb_kind: "DR".to_owned(),
        tun_type: None,
        tun_port: None,
        weight,
        uthreshold: 0,
        lthreshold: 0,
    }
}

fn add(address: &str) -> Edit {
    Edit::AddServer {
        virtual_server: NAME.to_owned(),
        real_server: server(address, 1),
    }
}

fn edit(address: &str, weight: u32) -> Edit {
    Edit::EditServer {
        virtual_server: NAME.to_owned(),
        real_server: server(address, weight),
    }
}

fn delete(address: &str) -> Edit {
    Edit::DeleteServer {
        virtual_server: NAME.to_owned(),
        real_server: address.parse().unwrap(),
    }
}

fn one(controller: &mut Controller, edit: Edit) -> (Option<EditError>, Vec<Action>) {
    let (mut results, actions) = controller.edit(&[edit], Instant::now());
    assert_eq!(results.len(), 1);
    (results.remove(0), actions)
}

/// The checked server fails its check, or passes it.
fn health(controller: &mut Controller, healthy: bool) {
    let event = Event::Health {
        id: CheckId {
            virtual_server: NAME.to_owned(),
            real_server: "10.0.0.2:80".parse().unwrap(),
            check: 0,
        },
        healthy,
        reason: "test".to_owned(),
        weight: None,
    };
    controller.handle(event, Instant::now());
}

fn listed(controller: &mut Controller) -> Vec<(String, u32)> {
    let table = controller.ipvs(|_| ServerTotals::default(), 0);
    let servers = table.virtual_servers[0].real_servers.iter();
    servers
        .map(|server| (server.address.to_string(), server.weight))
        .collect()
}

#[test]
fn a_reload_restores_the_file_and_says_so() {
    let mut controller = controller();
    let edits = [
        edit("10.0.0.1:80", 7),
        add("10.0.0.3:80"),
        delete("10.0.0.2:80"),
    ];
    let (results, actions) = controller.edit(&edits, Instant::now());
    assert_eq!(results, [None, None, None]);
    let published = actions.iter().filter(|action| **action == Action::Publish);
    assert_eq!(published.count(), 1, "one snapshot for all");
    assert_ne!(*controller.config(), file());

    let (changes, _) = controller
        .reload(file(), controller.ports().to_vec(), Instant::now())
        .unwrap();
    assert_eq!(
        changes,
        [
            "virtual_server TCP 10.0.0.100:80: real_server 10.0.0.3:80 removed",
            "virtual_server TCP 10.0.0.100:80: real_server 10.0.0.1:80: weight 7 -> 2",
            "virtual_server TCP 10.0.0.100:80: real_server 10.0.0.2:80 added, weight 1",
        ]
    );
    assert_eq!(*controller.config(), file());
}

#[test]
fn an_edited_server_keeps_its_checks() {
    let mut controller = controller();
    let (result, actions) = one(&mut controller, edit("10.0.0.2:80", 9));
    assert_eq!(result, None);
    let checks =
        |action: &Action| matches!(action, Action::StopCheck { .. } | Action::StartCheck { .. });
    assert!(!actions.iter().any(checks), "{actions:?}");
    health(&mut controller, false);
    assert_eq!(listed(&mut controller), [("10.0.0.1:80".to_owned(), 2)]);
}

#[test]
fn a_server_that_is_down_is_not_in_the_table() {
    let mut controller = controller();
    health(&mut controller, false);
    assert_eq!(listed(&mut controller), [("10.0.0.1:80".to_owned(), 2)]);
    let no_such_server = Some(EditError::NoSuchServer);
    assert_eq!(
        one(&mut controller, delete("10.0.0.2:80")).0,
        no_such_server
    );
    assert_eq!(
        one(&mut controller, edit("10.0.0.2:80", 1)).0,
        no_such_server
    );
    // Added, it is up and has no check any more.
    assert_eq!(one(&mut controller, add("10.0.0.2:80")).0, None);
    assert_eq!(listed(&mut controller).len(), 2);
    assert_eq!(
        one(&mut controller, add("10.0.0.2:80")).0,
        Some(EditError::ServerExists)
    );
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut controller = controller();
    let generation = controller.generation();
    for (refused, why) in [
        (add("10.0.0.100:80"), "other than the virtual server's"),
        (add("10.0.0.3:81"), "DR does not change ports"),
        (add("[2001:db8::1]:80"), "an IPv4 address"),
    ] {
        let (result, actions) = one(&mut controller, refused);
        let Some(EditError::Refused(message)) = result else {
            panic!("{result:?}");
        };
        assert!(message.contains(why), "{message}");
        assert!(!message.contains('\n'));
        assert_eq!(actions, []);
    }
    let multicast = one(&mut controller, add("224.0.0.1:80")).0;
    assert_eq!(multicast, Some(EditError::NotUnicast));
    assert_eq!(*controller.config(), file());
    assert_eq!(controller.generation(), generation);
}

/// What an edit of one virtual server can contradict elsewhere in it and in the file.
const CROWDED: &str = r#"
[appliance]
http = "10.0.0.100:9180"
deny = ["10.0.9.0/24", "10.0.8.0/24"]
allow = ["10.0.8.7/32"]
[[virtual_server]]
address = "10.0.0.100:53"
protocol = "UDP"
lb_kind = "FULLNAT"
local_addresses = ["10.0.0.201"]
[[virtual_server.real_server]]
address = "10.0.0.4:53"
[[virtual_server]]
address = "10.0.0.100:81"
lb_kind = "DR"
local_addresses = ["10.0.0.202"]
[[virtual_server.real_server]]
address = "10.0.0.5:81"
[[virtual_server.real_server]]
address = "10.0.0.6:81"
lb_kind = "FULLNAT"
[[virtual_server.real_server]]
address = "10.0.0.7:81"
[virtual_server.real_server.TCP_CHECK]
through_vip = true
[[virtual_server]]
address = "10.0.0.100:80"
lb_kind = "DR"
sorry_server = "10.0.0.9:80"
"#;

#[test]
fn an_edit_is_checked_with_the_rest_of_the_file() {
    let checked = config::parse(CROWDED, Path::new("file")).unwrap();
    let mut controller = Controller::new(checked.config.clone(), Vec::new());
    controller.start(Instant::now());
    let other = "TCP 10.0.0.100:81".to_owned();
    let by_nat = |address: &str| ServerEdit {
        lb_kind: "NAT".to_owned(),
        ..server(address, 1)
    };
    let one_packet = ServiceEdit {
        ops: true,
        ..service("UDP 10.0.0.100:53")
    };
    for (refused, why) in [
        (Edit::EditService(one_packet), "ops: found true"),
        (add("10.0.0.9:80"), "none of the real servers'"),
        (
            Edit::AddService(service("TCP 10.0.0.100:9180")),
            "no virtual server's address",
        ),
        (
            Edit::AddService(service("TCP 10.0.0.201:80")),
            "other than that of virtual_server TCP 10.0.0.201:80",
        ),
        (
            add("10.0.0.202:80"),
            "other than that of real_server 10.0.0.202:80",
        ),
        (add("10.0.9.1:80"), "no prefix that holds the real server"),
        (
            Edit::EditServer {
                virtual_server: other.clone(),
                real_server: by_nat("10.0.0.7:81"),
            },
            "through_vip",
        ),
    ] {
        let (result, actions) = one(&mut controller, refused.clone());
        let Some(EditError::Refused(message)) = result else {
            panic!("{refused:?}: {result:?}");
        };
        assert!(message.contains(why), "{message}");
        assert_eq!(actions, []);
    }
    assert_eq!(*controller.config(), checked.config);
    for accepted in [
        Edit::AddService(service("UDP 10.0.0.100:9180")),
        add("10.0.8.7:80"),
        // Another server of it is reached by FULLNAT.
        Edit::AddServer {
            virtual_server: other.clone(),
            real_server: server("10.0.0.8:81", 1),
        },
        Edit::EditService(service(&other)),
    ] {
        assert_eq!(
            one(&mut controller, accepted.clone()).0,
            None,
            "{accepted:?}"
        );
    }
}

fn service(virtual_server: &str) -> ServiceEdit {
    ServiceEdit {
        virtual_server: virtual_server.to_owned(),
        lb_algo: "rr".to_owned(),
        flags: Vec::new(),
        persistence_timeout: None,
        persistence_granularity: None,
        persistence_engine: None,
        ops: false,
    }
}

#[test]
fn values_cannot_break_out_of_their_key() {
    let mut controller = controller();
    let service = ServiceEdit {
        flags: vec!["x\" = true\n[appliance]\nidle = \"busy\" #".to_owned()],
        ..service("TCP 10.0.0.101:80")
    };
    let (result, _) = one(&mut controller, Edit::AddService(service));
    assert!(matches!(result, Some(EditError::Refused(_))), "{result:?}");
    assert_eq!(*controller.config(), file());
}

#[test]
fn a_drain_outlives_a_reload_and_has_a_deadline() {
    let mut controller = controller();
    let now = Instant::now();
    let drain = Edit::Drain {
        address: "10.0.0.1".parse().unwrap(),
        port: None,
        deadline_milliseconds: Some(1000),
    };
    controller.edit(&[drain], now);
    let drained = ("10.0.0.1:80".to_owned(), 0);
    assert_eq!(listed(&mut controller)[0], drained);
    let table = controller.ipvs(|_| ServerTotals::default(), 0);
    let saved = Service::from(&table.virtual_servers[0]);
    let saved = ipvsadm::save(&[saved], true, &System);
    assert!(saved.contains("-r 10.0.0.1:80 -g -w 2"), "{saved}");
    controller
        .reload(file(), controller.ports().to_vec(), Instant::now())
        .unwrap();
    assert_eq!(listed(&mut controller)[0], drained);
    // So is what is deleted and added again.
    for edit in [delete("10.0.0.1:80"), add("10.0.0.1:80")] {
        assert_eq!(one(&mut controller, edit).0, None);
    }
    assert!(listed(&mut controller).contains(&drained));
    let logged = |actions: Vec<Action>| actions.contains(&Action::Publish);
    assert!(!logged(controller.handle(Event::Tick, now)));
    let later = now + Duration::from_secs(1);
    assert_eq!(controller.drain_deadline(), Some(later));
    let server = "10.0.0.1:80".parse().unwrap();
    let before = controller.snapshot(&Snapshot::empty());
    assert!(logged(controller.handle(Event::Tick, later)));
    assert_eq!(controller.drain_deadline(), None);
    // Only once workers have a snapshot that says so.
    assert!(!controller.is_given_up(server, before.generation));
    let after = controller.snapshot(&before);
    assert!(controller.is_given_up(server, after.generation));
}

/// Without a quorum real servers weigh nothing, but the one whose drain costs it is saved with what it would weigh.
#[test]
fn a_drain_that_brings_the_sorry_server_in_is_saved_without_it() {
    let text = r#"
        [[virtual_server]]
        address = "10.0.0.100:80"
        lb_kind = "DR"
        sorry_server = "10.0.0.9:80"
        [[virtual_server.real_server]]
        address = "10.0.0.1:80"
        weight = 2
    "#;
    let config = config::parse(text, Path::new("file")).unwrap().config;
    let mut controller = Controller::new(config, Vec::new());
    controller.start(Instant::now());
    let weights = |controller: &mut Controller| {
        let table = controller.ipvs(|_| ServerTotals::default(), 0);
        let servers = table.virtual_servers[0].real_servers.iter();
        let weights = servers.map(|server| (server.weight, server.undrained_weight));
        weights.collect::<Vec<_>>()
    };
    let (address, port) = ("10.0.0.1".parse().unwrap(), None);
    let drain = Edit::Drain {
        address,
        port,
        deadline_milliseconds: None,
    };
    assert_eq!(one(&mut controller, drain).0, None);
    assert_eq!(weights(&mut controller), [(0, 2), (1, 1)]);
    let undrain = Edit::Undrain { address, port };
    assert_eq!(one(&mut controller, undrain).0, None);
    assert_eq!(weights(&mut controller), [(2, 2)]);
}
