//! Needs of files, and findings on hosts, on paper.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::needs::NotHere;
use super::*;
use crate::config::{Config, parse};
use crate::netlink::{DefaultRoute, HostLink, NextHop, Route};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config(lb_kind: &str) -> Config {
    let text = format!(
        r#"
        [[virtual_server]]
        address = "10.0.0.100:80"
        {lb_kind}
        [[virtual_server.real_server]]
        address = "10.0.0.1:80"
        [[virtual_server.real_server]]
        address = "10.0.0.2:80"
        "#
    );
    parse(&text, "test.toml".as_ref()).unwrap().config
}

fn needs(lb_kind: &str) -> Needs {
    let own = BTreeSet::from([ip("127.0.0.1"), ip("10.0.0.1"), ip("10.9.9.9")]);
    Needs::of(&config(lb_kind), &own, &[]).unwrap()
}

fn replies_by(gateway: &str) -> BTreeMap<IpAddr, Route> {
    let hop = NextHop {
        index: 2,
        gateway: Some(ip(gateway)),
        source: None,
    };
    BTreeMap::from([(ip("10.0.0.1"), Route::Forward(hop))])
}

/// Set up for DR as it has to be.
fn host() -> Host {
    let link = |index, name: &str, addresses: &[(&str, u8)]| HostLink {
        index,
        name: name.to_owned(),
        up: true,
        loopback: name == "lo",
        addresses: addresses.iter().map(|(text, l)| (ip(text), *l)).collect(),
        ..HostLink::default()
    };
    let mut host = Host {
        links: vec![
            link(1, "lo", &[("127.0.0.1", 8), ("10.0.0.100", 32)]),
            link(2, "eth0", &[("10.0.0.1", 24)]),
        ],
        default_routes: vec![DefaultRoute {
            is_v4: true,
            gateway: Some(ip("10.0.0.254")),
            index: 2,
        }],
        replies: replies_by("10.0.0.254"),
        ..Host::default()
    };
    host.settings.insert(("all".into(), "arp_ignore"), 1);
    host.settings.insert(("all".into(), "arp_announce"), 2);
    host
}

/// What is wrong there, one line each.
fn wrong(lb_kind: &str, host: &Host) -> Vec<String> {
    let found = findings(&needs(lb_kind), host, &Record::default(), &[]);
    assert!(!found.is_empty(), "nothing was looked at");
    let wrong = found.iter().filter(|finding| finding.is_wrong());
    wrong.map(ToString::to_string).collect()
}

const DR: &str = r#"lb_kind = "DR""#;
const NAT: &str = r#"lb_kind = "NAT""#;
const TUN: &str = r#"lb_kind = "TUN""#;
const GUE: &str = "lb_kind = \"TUN\"\ntun_type = \"gue\"\ntun_port = 5555";

#[track_caller]
fn assert_one(lines: &[String], expected: &str) {
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains(expected), "{lines:#?}");
}

#[test]
fn a_host_is_found_by_its_address_or_named() {
    let own = |text| BTreeSet::from([ip(text)]);
    let config = config(DR);
    let found = Needs::of(&config, &own("10.0.0.2"), &[]).unwrap();
    assert_eq!(found.servers, own("10.0.0.2"));
    assert_eq!(found.virtuals, own("10.0.0.100"));
    let named = Needs::of(&config, &own("10.9.9.9"), &[ip("10.0.0.1")]).unwrap();
    assert_eq!(named.servers, own("10.0.0.1"));
    let error = Needs::of(&config, &own("10.9.9.9"), &[]).unwrap_err();
    assert!(error.to_string().contains("10.0.0.1, 10.0.0.2"), "{error}");
    let error = Needs::of(&config, &own("10.0.0.1"), &[ip("10.0.0.3")]).unwrap_err();
    assert!(matches!(error, NotHere::Unknown { .. }), "{error}");
}

#[test]
fn nothing_is_wrong_on_a_right_host() {
    assert_eq!(wrong(DR, &host()), [""; 0]);
}

#[test]
fn the_virtual_address_is_missing_or_on_a_network() {
    let mut absent = host();
    absent.links[0].addresses.pop();
    assert_one(&wrong(DR, &absent), "ip address add 10.0.0.100/32 dev lo");
    let mut on_network = absent.clone();
    on_network.links[1].addresses.push((ip("10.0.0.100"), 24));
    assert_one(&wrong(DR, &on_network), "eth0, which answers ARP");
    let mut whole_subnet = absent;
    whole_subnet.links[0].addresses.push((ip("10.0.0.100"), 24));
    assert_one(&wrong(DR, &whole_subnet), "10.0.0.100/24 on lo");
}

#[test]
fn arp_is_told_by_the_value_that_counts() {
    let mut host = host();
    host.settings.insert(("all".into(), "arp_ignore"), 0);
    assert_one(&wrong(DR, &host), "arp_ignore is 0");
    host.settings.insert(("eth0".into(), "arp_ignore"), 2);
    assert_eq!(wrong(DR, &host), [""; 0]);
    // By 3, addresses of scope global are answered for.
    host.settings.insert(("all".into(), "arp_ignore"), 3);
    assert_one(&wrong(DR, &host), "arp_ignore is 3");
    host.settings.insert(("all".into(), "arp_ignore"), 1);
    host.settings.insert(("all".into(), "arp_announce"), 1);
    assert_one(&wrong(DR, &host), "arp_announce is 1");
}

#[test]
fn a_strict_reverse_path_filter_matters_where_no_default_route_is() {
    let mut host = host();
    host.settings.insert(("all".into(), "rp_filter"), 1);
    assert_eq!(wrong(DR, &host), [""; 0]);
    host.default_routes[0].index = 3;
    assert_one(&wrong(DR, &host), "rp_filter is strict");
    host.settings.insert(("eth0".into(), "rp_filter"), 2);
    assert_eq!(wrong(DR, &host), [""; 0]);
}

#[test]
fn a_tunnel_needs_somebody_who_ends_it() {
    let mut host = host();
    assert_one(&wrong(TUN, &host), "IPIP to 10.0.0.1");
    // A decapsulator that no record has, and one for other tunnels.
    let mut attached = host.clone();
    let end = needs(TUN).tunnelled[0].end;
    attached.decapsulated.insert(2, vec![end]);
    assert_eq!(wrong(TUN, &attached), [""; 0]);
    assert_one(&wrong(GUE, &attached), "GUE to 10.0.0.1, UDP port 5555");
    host.links.push(HostLink {
        index: 3,
        name: "tunl0".to_owned(),
        kind: Some("ipip".to_owned()),
        ..HostLink::default()
    });
    assert_one(&wrong(TUN, &host), "IPIP to 10.0.0.1");
    host.links[2].up = true;
    assert_eq!(wrong(TUN, &host), [""; 0]);
    assert_one(&wrong(GUE, &host), "GUE to 10.0.0.1, UDP port 5555");
    host.udp_ports.insert(5555);
    assert_eq!(wrong(GUE, &host), [""; 0]);
    // Nobody's route leads back through a tunnel device.
    host.settings.insert(("tunl0".into(), "rp_filter"), 1);
    assert_one(&wrong(TUN, &host), "tunl0 drops packets of clients");
}

#[test]
fn replies_of_nat_pass_a_director() {
    let host = host();
    assert_one(&wrong(NAT, &host), "leave by 10.0.0.254");
    let needs = needs(NAT);
    assert!(needs.virtuals.is_empty());
    let named = findings(&needs, &host, &Record::default(), &[ip("10.0.0.254")]);
    assert!(named.iter().all(|finding| !finding.is_wrong()), "{named:?}");
    let mut by_virtual = host.clone();
    by_virtual.replies = replies_by("10.0.0.100");
    assert_eq!(wrong(NAT, &by_virtual), [""; 0]);
    let none = Host {
        replies: BTreeMap::from([(ip("10.0.0.1"), Route::Unreachable)]),
        ..host
    };
    assert_one(&wrong(NAT, &none), "leave by no gateway");
}

#[test]
fn a_record_is_kept_and_leaves_no_file_when_empty() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("record.json");
    assert_eq!(Record::load(&path).unwrap(), Record::default());
    let record = Record {
        settings: vec![super::record::Setting {
            link: "all".into(),
            name: "arp_ignore".into(),
            before: 0,
            set: 1,
        }],
        ..Record::default()
    };
    record.save(&path).unwrap();
    assert_eq!(Record::load(&path).unwrap(), record);
    Record::default().save(&path).unwrap();
    assert!(!path.exists());
    std::fs::write(&path, "{}").unwrap();
    let error = Record::load(&path).unwrap_err();
    assert!(error.to_string().contains("remove it"), "{error}");
}

#[test]
fn the_script_does_what_each_method_needs() {
    let text = script(&needs(GUE), "a\nb");
    for step in [
        "    tell all/arp_ignore 1\n",
        "    device ipip tunl0\n",
        "    loosen tunl0\n",
        "    gue 4 5555\n",
        "    hold 10.0.0.100/32\n",
        "10.0.0.1 of a?b.\n",
    ] {
        assert!(text.contains(step), "no {step:?} in {text}");
    }
    assert!(!script(&needs(DR), "x").contains("    device "));
    // A function of comments alone is a syntax error.
    assert!(script(&needs(NAT), "x").contains("director\n    :\n}\n"));
}
