//! By the forwarding state of configuration files.

use std::net::IpAddr;

use super::*;
use crate::config::{self, Config};
use crate::replay;

const FILE: &str = r#"
[[virtual_server]]
address = "192.168.1.100:80"
protocol = "TCP"
lb_algo = "wrr"
lb_kind = "NAT"
  [[virtual_server.real_server]]
  address = "192.168.1.101:8080"
  weight = 1
  [[virtual_server.real_server]]
  address = "192.168.1.102:8080"
  weight = 3
  [[virtual_server.real_server]]
  address = "192.168.1.103:8080"
  weight = 0

[[virtual_server]]
address = "192.168.1.100:53"
protocol = "UDP"
lb_algo = "sh"
lb_kind = "DR"
  [[virtual_server.real_server]]
  address = "192.168.1.101:53"
  [[virtual_server.real_server]]
  address = "192.168.1.102:53"

[[virtual_server]]
address = "192.168.1.100:443"
protocol = "TCP"
lb_algo = "wlc"
lb_kind = "TUN"
persistence_timeout = 50
  [[virtual_server.real_server]]
  address = "10.0.0.1:443"
  [[virtual_server.real_server]]
  address = "10.0.0.2:443"
"#;

fn file() -> Config {
    let checked = config::parse(FILE, std::path::Path::new("test.toml"));
    checked.unwrap().config
}

fn question(protocol: Protocol, virtual_server: &str) -> Question {
    Question {
        protocol,
        client: "198.51.100.7:40000".parse().unwrap(),
        virtual_server: virtual_server.parse().unwrap(),
    }
}

#[test]
fn a_packet_has_addresses_of_one_ip_version() {
    let new = |protocol, client: &str, virtual_server: &str| {
        let (client, virtual_server) = (client.parse(), virtual_server.parse());
        Question::new(protocol, client.unwrap(), virtual_server.unwrap())
    };
    assert!(new("udp", "192.0.2.1:1", "192.0.2.2:2").is_ok());
    assert!(new("TCP", "[2001:db8::1]:1", "[2001:db8::2]:2").is_ok());
    assert_eq!(
        new("tcp", "[2001:db8::1]:1", "192.0.2.2:2").unwrap_err(),
        "found [2001:db8::1]:1 and 192.0.2.2:2, expected addresses of one IP version: no packet has both"
    );
    assert_eq!(
        new("icmp", "192.0.2.1:1", "192.0.2.2:2").unwrap_err(),
        "found the protocol \"icmp\", expected tcp, udp or sctp"
    );
}

fn ask(question: &Question, known: &Known) -> Explanation {
    let snapshot = replay::snapshot(&file());
    explain(question, &snapshot, known, |service| {
        Some(service.id.0.to_string())
    })
}

fn says(answer: &Explanation, part: &str) {
    assert!(
        answer.why.iter().any(|why| why.contains(part)),
        "{part}: {answer:#?}"
    );
}

#[test]
fn what_matches_nothing_is_the_kernels() {
    let answer = ask(
        &question(Protocol::Udp, "192.168.1.100:80"),
        &Known::default(),
    );
    assert_eq!((&answer.virtual_server, answer.real_server), (&None, None));
    says(&answer, "no virtual server matches");
}

#[test]
fn a_new_connection_gets_what_the_scheduler_says() {
    let answer = ask(
        &question(Protocol::Tcp, "192.168.1.100:80"),
        &Known::default(),
    );
    assert_eq!(answer.virtual_server.as_deref(), Some("0"));
    assert_eq!(
        answer.real_server,
        Some("192.168.1.102:8080".parse().unwrap())
    );
    assert!(!answer.certain);
    says(&answer, "takes turns");
    says(&answer, "answered with a reset");
    let states: Vec<_> = answer.candidates.iter().map(|c| &*c.state).collect();
    assert_eq!(
        states,
        [
            "takes connections",
            "takes connections",
            "weight 0: takes no new connections"
        ]
    );
    assert!(
        answer.headers[0].contains("198.51.100.7:40000 → 192.168.1.102:8080"),
        "{answer:?}"
    );
}

#[test]
fn a_hash_is_certain_and_the_same_each_time() {
    let question = question(Protocol::Udp, "192.168.1.100:53");
    let answer = ask(&question, &Known::default());
    assert!(answer.certain && answer.real_server.is_some());
    assert_eq!(ask(&question, &Known::default()), answer);
}

#[test]
fn connections_decide_where_the_scheduler_counts_them() {
    let mut known = Known::default();
    let load = |active| Load {
        active,
        inactive: 0,
    };
    // The ids are in the order of the file: five real servers come before.
    known.loads.insert(ServerId(5), load(10));
    known.loads.insert(ServerId(6), load(2));
    let answer = ask(&question(Protocol::Tcp, "192.168.1.100:443"), &known);
    assert_eq!(answer.real_server, Some("10.0.0.2:443".parse().unwrap()));
    says(
        &answer,
        "persistence (50 s, /32) has nothing for this client yet",
    );
    assert_eq!(answer.candidates[0].active_connections, 10);
    assert!(answer.headers[0].starts_with("outer IP:"), "{answer:?}");
}

#[test]
fn an_existing_connection_stays_where_it_is() {
    let known = |server| Known {
        existing: Some(Existing {
            server: ServerId(server),
            state: State::Established,
            is_translated: true,
            worker: 3,
        }),
        interfaces: [(PortIndex(0), "eth0".to_owned())].into(),
        ..Known::default()
    };
    let question = question(Protocol::Tcp, "192.168.1.100:80");
    let answer = ask(&question, &known(0));
    assert!(answer.certain);
    assert_eq!(
        answer.real_server,
        Some("192.168.1.101:8080".parse().unwrap())
    );
    assert_eq!(answer.next_hop.unwrap().interface, "eth0");
    let gone = ask(&question, &known(900));
    assert_eq!(gone.real_server, None);
    says(
        &gone,
        "down or was removed: its packets are dropped as server_unavailable",
    );
}

#[test]
fn persistence_keeps_a_client() {
    let snapshot = replay::snapshot(&file());
    let question = question(Protocol::Tcp, "192.168.1.100:443");
    let client = Address::from(question.client.ip());
    let service = snapshot.service(client, &question.key()).unwrap();
    let persistence = service.persistence.unwrap();
    let key = persistence.key(service.id, client);
    let templates = &snapshot.templates;
    let bound = templates.bind(&key, ServerId(6), None, persistence.timeout, 0);
    assert!(!bound.evicted);
    let answer = explain(&question, &snapshot, &Known::default(), |_| None);
    assert!(answer.certain);
    assert_eq!(answer.real_server, Some("10.0.0.2:443".parse().unwrap()));
    says(&answer, "keeps this client at 10.0.0.2:443");
}

#[test]
fn a_connection_of_another_forwarding_method_is_not_served() {
    let known = |is_translated| Known {
        existing: Some(Existing {
            server: ServerId(0),
            state: State::Established,
            is_translated,
            worker: 0,
        }),
        ..Known::default()
    };
    let question = question(Protocol::Tcp, "192.168.1.100:80");
    assert!(ask(&question, &known(true)).real_server.is_some());
    // Before a reload its real server was one of DR or TUN.
    let changed = ask(&question, &known(false));
    assert_eq!((changed.real_server, changed.certain), (None, false));
    let found = changed.connection.as_ref().unwrap();
    assert_eq!(
        found.real_server,
        Some("192.168.1.101:8080".parse().unwrap())
    );
    says(
        &changed,
        "is one of NAT now, which is no way for a connection that began without translated replies: its \
         packets are dropped as server_unavailable",
    );
}

#[test]
fn a_real_server_of_every_port_gets_the_port_of_the_packet() {
    let text = r#"
[[virtual_server]]
address = "192.168.1.100:0"
protocol = "TCP"
lb_kind = "DR"
persistence_timeout = 50
  [[virtual_server.real_server]]
  address = "192.168.1.101:0"
"#;
    let config = config::parse(text, std::path::Path::new("test.toml"));
    let snapshot = replay::snapshot(&config.unwrap().config);
    let question = question(Protocol::Tcp, "192.168.1.100:8443");
    let real = "192.168.1.101:8443".parse().unwrap();
    let new = explain(&question, &snapshot, &Known::default(), |_| None);
    assert_eq!(new.real_server, Some(real));
    let configured = "192.168.1.101:0".parse().unwrap();
    assert_eq!(new.candidates[0].real_server, configured);
    let known = Known {
        existing: Some(Existing {
            server: ServerId(0),
            state: State::Established,
            is_translated: false,
            worker: 0,
        }),
        ..Known::default()
    };
    let old = explain(&question, &snapshot, &known, |_| None);
    assert_eq!(old.real_server, Some(real));
    assert_eq!(old.connection.unwrap().real_server, Some(real));
}

fn parsed(text: &str) -> Config {
    let checked = config::parse(text, std::path::Path::new("test.toml"));
    checked.unwrap().config
}

#[test]
fn a_denied_client_is_dropped_first_of_all() {
    let config = parsed(
        r#"
[appliance]
deny = ["198.51.0.0/16", "198.51.100.7/32"]
allow = ["198.51.100.0/24", "198.51.101.0/24"]
"#,
    );
    let denies = |client: &str| {
        let prefix = config.appliance.denies(client.parse().unwrap());
        prefix.map(|prefix| prefix.to_string())
    };
    assert_eq!(denies("198.51.1.1").as_deref(), Some("198.51.0.0/16"));
    // The longest decides.
    assert_eq!(denies("198.51.101.1"), None);
    assert!(denies("198.51.100.7").is_some());
    assert_eq!(denies("192.0.2.1"), None);
    let known = Known {
        denied: config.appliance.denies("198.51.100.7".parse().unwrap()),
        existing: Some(Existing {
            server: ServerId(0),
            state: State::Established,
            is_translated: true,
            worker: 0,
        }),
        ..Known::default()
    };
    for port in [80, 81] {
        let to = format!("192.168.1.100:{port}");
        let answer = ask(&question(Protocol::Tcp, &to), &known);
        assert_eq!((answer.real_server, answer.certain), (None, true));
        assert!(answer.connection.is_some() && answer.headers.is_empty());
        assert_eq!(answer.why.len(), 1, "{answer:?}");
        says(
            &answer,
            "of deny: the packet is dropped by the XDP program, and counted as denied",
        );
    }
}

#[test]
fn an_address_of_no_accept_takes_what_is_a_virtual_servers() {
    let instance = r#"
[[vrrp_instance]]
name = "VI_1"
interface = "eth0"
virtual_router_id = 51
no_accept = true
virtual_ipaddress = ["192.168.1.100"]
"#;
    let config = parsed(&format!("{FILE}{instance}"));
    let refuses = |text: &str| config.refuses_packets_to(&text.parse().unwrap());
    assert!(refuses("TCP 192.168.1.100:22") && refuses("UDP 192.168.1.100:80"));
    assert!(!refuses("TCP 192.168.1.100:80") && !refuses("TCP 192.168.1.101:22"));
    let known = Known {
        refused: true,
        ..Known::default()
    };
    let answer = ask(&question(Protocol::Tcp, "192.168.1.100:22"), &known);
    says(
        &answer,
        "(no_accept): the packet is dropped by the XDP program, and counted as denied",
    );
}

/// FULLNAT, a local address of which asks, with a SYN proxy and limits.
fn guarded(options: &str) -> Snapshot {
    replay::snapshot(&parsed(&format!(
        r#"
[[virtual_server]]
address = "192.168.1.100:80"
protocol = "TCP"
lb_algo = "sh"
lb_kind = "FULLNAT"
local_addresses = ["198.51.100.8"]
{options}
  [[virtual_server.real_server]]
  address = "192.168.1.101:80"
"#
    )))
}

fn ask_guarded(snapshot: &Snapshot, totals: Option<ServiceTotals>) -> Explanation {
    let question = question(Protocol::Tcp, "192.168.1.100:80");
    let known = Known {
        totals,
        ..Known::default()
    };
    explain(&question, snapshot, &known, |_| None)
}

#[test]
fn a_local_address_of_fullnat_is_no_client() {
    let snapshot = guarded("");
    let asked = Question {
        client: "198.51.100.8:40000".parse().unwrap(),
        ..question(Protocol::Tcp, "192.168.1.100:80")
    };
    let answer = explain(&asked, &snapshot, &Known::default(), |_| None);
    assert_eq!(answer.real_server, None);
    says(&answer, "dropped as local_source");
    assert!(ask_guarded(&snapshot, None).real_server.is_some());
}

#[test]
fn a_syn_is_answered_by_the_proxy() {
    let answer = ask_guarded(&guarded(r#"syn_proxy = "always""#), None);
    says(
        &answer,
        "a SYN is answered by the director itself and opens no connection (syn_proxy): the client's ACK",
    );
    assert!(answer.real_server.is_some());
    let snapshot = guarded("syn_proxy = \"under-attack\"\nsyn_proxy_threshold = 10");
    says(
        &ask_guarded(&snapshot, None),
        "a SYN opens one; but from 10 half-open connections on it is answered by the director",
    );
    let totals = |half_open, under_attack| {
        Some(ServiceTotals {
            half_open,
            under_attack,
            ..ServiceTotals::default()
        })
    };
    says(
        &ask_guarded(&snapshot, totals(9, false)),
        "a SYN opens one, for there are 9 half-open connections and the SYN proxy begins at 10",
    );
    // It ends at half of them.
    says(
        &ask_guarded(&snapshot, totals(5, true)),
        "there are 5 half-open connections, so that a SYN is answered by the director itself",
    );
}

#[test]
fn limits_may_leave_nothing() {
    let totals = |connections| {
        Some(ServiceTotals {
            connections,
            ..ServiceTotals::default()
        })
    };
    let snapshot = guarded("max_connections = 10");
    let offline = ask_guarded(&snapshot, None);
    assert!(offline.real_server.is_some() && !offline.certain);
    says(&offline, "limits apply, and how much of them is used up");
    says(
        &offline,
        "only a running appliance knows: max_connections 10",
    );
    let room = ask_guarded(&snapshot, totals(9));
    assert!(room.real_server.is_some());
    says(&room, "limits allow a new connection now");
    let full = ask_guarded(&snapshot, totals(10));
    assert_eq!((full.real_server, full.headers.len()), (None, 0));
    says(
        &full,
        "the virtual server has 10 connections, and max_connections is 10): the packet is dropped as \
         max_connections",
    );

    let client = Address::from(IpAddr::from([198, 51, 100, 7]));
    let snapshot = guarded("source_max_connections = 1");
    let key = question(Protocol::Tcp, "192.168.1.100:80").key();
    let service = snapshot.service(client, &key).unwrap();
    let limits = service.limits.source.unwrap();
    let source = limits.key(service.id, client);
    assert!(ask_guarded(&snapshot, totals(0)).real_server.is_some());
    assert!(snapshot.sources.admit(source, &limits, 0).is_ok());
    says(
        &ask_guarded(&snapshot, totals(1)),
        "dropped as source_max_connections",
    );

    let snapshot = guarded("new_connections_per_second = 1");
    let service = snapshot.service(client, &key).unwrap();
    // To ask takes nothing.
    for _ in 0..3 {
        assert!(ask_guarded(&snapshot, totals(0)).real_server.is_some());
    }
    assert!(service.bucket.take(&service.limits.rate.unwrap(), 0));
    says(
        &ask_guarded(&snapshot, totals(1)),
        "dropped as new_connection_rate",
    );
}
