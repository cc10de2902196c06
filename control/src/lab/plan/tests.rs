use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config;

fn plan_of(text: &str) -> Result<Plan, PlanError> {
    let checked = config::parse(text, Path::new("lab.toml")).expect("a valid file");
    Plan::of(&checked.config)
}

fn shipped(name: &str) -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../configs")
        .join(name);
    let checked = config::load(&path).expect("a shipped file is valid");
    Plan::of(&checked.config).expect("a shipped file can be rehearsed")
}

fn namespace<'a>(plan: &'a Plan, name: &str) -> &'a Namespace {
    let mut namespaces = plan.namespaces.iter();
    namespaces.find(|known| known.name == name).expect(name)
}

/// `interface address/prefix` of each address of a namespace.
fn held(plan: &Plan, name: &str) -> Vec<String> {
    let addresses = &namespace(plan, name).addresses;
    let show = |a: &InterfaceAddress| format!("{} {}/{}", a.interface, a.address, a.prefix_length);
    addresses.iter().map(show).collect()
}

fn server(vip: &str, protocol: &str, real_servers: &[&str]) -> String {
    let mut text = format!(
        "[[virtual_server]]\naddress = \"{vip}\"\nprotocol = \"{protocol}\"\n\
         lb_algo = \"rr\"\nlb_kind = \"DR\"\n"
    );
    for address in real_servers {
        text += &format!("[[virtual_server.real_server]]\naddress = \"{address}\"\nweight = 1\n");
    }
    text
}

#[test]
fn dr_toml_becomes_one_segment_behind_a_router() {
    let plan = shipped("dr.toml");
    let names: Vec<&str> = plan.namespaces.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "client", "router", "switch", "director", "rs1", "rs2", "rs3"
        ]
    );
    assert_eq!(held(&plan, "client"), ["eth0 198.51.100.253/24"]);
    assert_eq!(
        held(&plan, "router"),
        ["client 198.51.100.254/24", "segment 192.168.1.254/24"]
    );
    assert_eq!(held(&plan, "director"), ["eth0 192.168.1.253/24"]);
    assert_eq!(
        held(&plan, "rs1"),
        ["eth0 192.168.1.101/24", "lo 192.168.1.100/32"],
        "two virtual servers with one address need it once"
    );
    let gateway: IpAddr = "192.168.1.254".parse().unwrap();
    for host in ["director", "rs1", "rs2", "rs3"] {
        assert_eq!(namespace(&plan, host).gateways, [gateway], "{host}");
    }
    assert!(plan.notes.is_empty(), "{:?}", plan.notes);
    // The client and the router, the router, the director, three real servers.
    assert_eq!(plan.links.len(), 1 + 1 + 1 + 3);
    assert!(namespace(&plan, "switch").bridge);
}

#[test]
fn real_servers_keep_silent_about_the_vip_and_the_director_does_not() {
    let plan = shipped("dr.toml");
    let silent = |name: &str| {
        let settings = &namespace(&plan, name).settings;
        settings.contains(&("ipv4/conf/all/arp_ignore", "1"))
            && settings.contains(&("ipv4/conf/all/arp_announce", "2"))
    };
    assert!(["rs1", "rs2", "rs3"].into_iter().all(silent));
    assert!(!silent("director") && !silent("router"));
}

#[test]
fn a_responder_listens_for_requests_and_for_checks() {
    let plan = shipped("dr.toml");
    let listen: Vec<String> = plan.real_servers[1]
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        listen,
        [
            "tcp:192.168.1.100:80",
            "tcp:192.168.1.100:443",
            "tcp:192.168.1.102:80",
            "tcp:192.168.1.102:443"
        ]
    );
}

#[test]
fn bounds_follow_the_slowest_virtual_server() {
    let plan = shipped("dr.toml");
    // delay_loop 2, connect_timeout 1, retry 1, delay_before_retry 1, and the slack.
    let bounds = plan.real_servers[0].checks.expect("it has checks");
    assert_eq!(bounds.out_within, Duration::from_secs(2 + 2 + 1 + 1));
    assert_eq!(bounds.back_within, Duration::from_secs(2 + 2 + 1));
}

#[test]
fn a_real_server_without_a_check_somewhere_has_no_bounds() {
    let text = server("10.0.0.1:80", "TCP", &["10.0.0.2:80"])
        + "TCP_CHECK = {}\n"
        + &server("10.0.0.1:81", "TCP", &["10.0.0.2:81"]);
    let plan = plan_of(&text).unwrap();
    assert_eq!(plan.real_servers.len(), 1, "united by address");
    assert_eq!(plan.real_servers[0].checks, None);
    assert_eq!(plan.services.len(), 2);
}

#[test]
fn statuses_that_checks_want_are_answered() {
    let text = server("10.0.0.1:80", "TCP", &["10.0.0.2:80"])
        + "HTTP_GET = { url = [{ path = \"/gone\", status_code = 410 }, { path = \"/\" }] }\n";
    let plan = plan_of(&text).unwrap();
    assert_eq!(plan.real_servers[0].statuses, [("/gone".to_string(), 410)]);
}

#[test]
fn ipv6_has_its_own_addresses_and_settings() {
    let plan = shipped("ipv6.toml");
    let real = &plan.real_servers[0];
    assert!(real.address.is_ipv6());
    let lo = held(&plan, "rs1")
        .into_iter()
        .find(|a| a.starts_with("lo "));
    assert!(lo.is_some_and(|address| address.ends_with("/128")));
    assert!(
        namespace(&plan, "router")
            .settings
            .contains(&("ipv6/conf/all/forwarding", "1"))
    );
    assert!(
        namespace(&plan, "rs1")
            .settings
            .contains(&("ipv6/conf/default/accept_dad", "0"))
    );
}

#[test]
fn a_given_prefix_is_used_and_names_the_interface() {
    let text = "[[interface]]\nname = \"wan7\"\nqueues = [0, 3]\n\
         [[vrrp_instance]]\nname = \"VI_1\"\nstate = \"MASTER\"\ninterface = \"lan7\"\n\
         virtual_router_id = 51\npriority = 100\n\
         virtual_ipaddress = [\"10.1.0.1/16\"]\n"
        .to_string()
        + &server("10.1.0.1:80", "TCP", &["10.1.200.2:80"]);
    let plan = plan_of(&text).unwrap();
    assert_eq!(held(&plan, "director"), ["lan7 10.1.255.253/16"]);
    assert!(plan.notes.is_empty(), "one subnet: {:?}", plan.notes);
    let queues: Vec<(&str, u32)> = plan
        .links
        .iter()
        .filter(|link| link.ends[0].namespace == DIRECTOR)
        .map(|link| (link.ends[0].interface.as_str(), link.queues))
        .collect();
    assert_eq!(queues, [("lan7", 1), ("wan7", 4)]);
}

#[test]
fn one_queue_for_each_worker() {
    let text = "[appliance]\ncores = [0, 1]\n".to_string()
        + &server("10.0.0.1:80", "TCP", &["10.0.0.2:80"]);
    let plan = plan_of(&text).unwrap();
    let to_director = |link: &&Link| link.ends[0].namespace == DIRECTOR;
    assert_eq!(plan.links.iter().find(to_director).unwrap().queues, 2);
}

#[test]
fn several_subnets_give_the_director_an_address_in_each_and_a_note() {
    let plan = plan_of(&server("10.0.0.1:80", "TCP", &["10.0.1.2:80"])).unwrap();
    assert_eq!(
        held(&plan, "director"),
        ["eth0 10.0.0.253/24", "eth0 10.0.1.253/24"]
    );
    assert_eq!(namespace(&plan, "director").gateways.len(), 1);
    let gateway: IpAddr = "10.0.1.254".parse().unwrap();
    assert_eq!(namespace(&plan, "rs1").gateways, [gateway]);
    assert_eq!(plan.notes.len(), 1);
    assert!(
        plan.notes[0].contains("10.0.0.0/24, 10.0.1.0/24"),
        "{:?}",
        plan.notes
    );
}

#[test]
fn the_client_keeps_out_of_the_files_subnets() {
    let plan = plan_of(&server("198.51.100.1:80", "TCP", &["198.51.100.2:80"])).unwrap();
    assert_eq!(held(&plan, "client"), ["eth0 203.0.113.253/24"]);
}

#[test]
fn taken_addresses_are_not_given_away() {
    let plan = plan_of(&server(
        "10.0.0.254:80",
        "UDP",
        &["10.0.0.253:80", "10.0.0.252:80"],
    ))
    .unwrap();
    assert_eq!(
        held(&plan, "router"),
        ["client 198.51.100.254/24", "segment 10.0.0.251/24"]
    );
    assert_eq!(held(&plan, "director"), ["eth0 10.0.0.250/24"]);
}

#[test]
fn impossible_files_are_refused_with_the_address() {
    let nothing = plan_of("").unwrap_err();
    assert_eq!(nothing, PlanError::NothingToDo);

    let own = plan_of(&server("10.0.0.1:80", "TCP", &["10.0.0.2:80"])).unwrap();
    assert_eq!(own.real_servers.len(), 1);
    let both = server("10.0.0.1:80", "TCP", &["10.0.0.2:80"])
        + &server("10.0.0.2:81", "TCP", &["10.0.0.3:81"]);
    assert_eq!(
        plan_of(&both).unwrap_err(),
        PlanError::VirtualAndReal("10.0.0.2".parse().unwrap())
    );

    let local = plan_of(&server("10.0.0.1:80", "TCP", &["169.254.0.2:80"])).unwrap_err();
    assert_eq!(local, PlanError::Unroutable("169.254.0.2".parse().unwrap()));

    let narrow = "[[vrrp_instance]]\nname = \"VI_1\"\nstate = \"MASTER\"\ninterface = \"eth0\"\n\
         virtual_router_id = 51\npriority = 100\n\
         virtual_ipaddress = [\"10.0.0.1/30\"]\n"
        .to_string()
        + &server("10.0.0.1:80", "TCP", &["10.0.0.2:80"]);
    let full = plan_of(&narrow).unwrap_err().to_string();
    assert!(
        full.contains("10.0.0.0/30") && full.contains("shorter prefix"),
        "{full}"
    );
}

#[test]
fn fullnat_toml_keeps_local_addresses_free_and_leaves_real_servers_alone() {
    let plan = shipped("fullnat.toml");
    assert!(!plan.is_divided());
    assert_eq!(
        held(&plan, "rs1"),
        ["eth0 192.168.1.101/24"],
        "nothing on lo"
    );
    let router: IpAddr = "192.168.1.254".parse().unwrap();
    assert_eq!(namespace(&plan, "rs1").gateways, [router]);
    let listen = plan.real_servers[0].listen.iter();
    let listen: Vec<String> = listen.map(ToString::to_string).collect();
    assert_eq!(listen, ["tcp:192.168.1.101:8080"]);
    let own: IpAddr = "192.168.1.201".parse().unwrap();
    let mut addresses = plan.namespaces.iter().flat_map(|one| &one.addresses);
    assert!(
        addresses.all(|given| given.address != own),
        "for the director to add"
    );
}

fn nat(text: String) -> String {
    text.replace("\"DR\"", "\"NAT\"")
}

#[test]
fn nat_toml_puts_the_director_between_two_switches() {
    let plan = shipped("nat.toml");
    assert!(plan.is_divided());
    assert_eq!(
        held(&plan, "director"),
        ["eth1 10.0.0.253/24", "eth0 192.168.1.253/24"]
    );
    assert_eq!(
        held(&plan, "router"),
        ["client 198.51.100.254/24", "segment 192.168.1.254/24"],
        "nothing but the director leads to the real servers"
    );
    assert_eq!(
        held(&plan, "rs1"),
        ["eth0 10.0.0.101/24"],
        "no virtual address"
    );
    let gateway: IpAddr = "10.0.0.253".parse().unwrap();
    assert_eq!(namespace(&plan, "rs1").gateways, [gateway]);
    let listen: Vec<String> = plan.real_servers[0]
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(listen, ["tcp:10.0.0.101:8080"]);
    let switches: Vec<(&str, &str)> = plan
        .links
        .iter()
        .map(|link| (&link.ends[0], &link.ends[1]))
        .filter(|(own, _)| own.namespace == DIRECTOR || own.namespace == "rs1")
        .map(|(own, port)| (own.interface.as_str(), port.namespace.as_str()))
        .collect();
    assert_eq!(
        switches,
        [
            ("eth0", SWITCH),
            ("eth1", INSIDE_SWITCH),
            ("eth0", INSIDE_SWITCH)
        ]
    );
}

#[test]
fn nat_with_one_interface_is_on_one_segment() {
    let plan = plan_of(&nat(server("10.0.0.1:80", "TCP", &["10.0.0.2:8080"]))).unwrap();
    assert!(!plan.is_divided());
    let director: IpAddr = "10.0.0.253".parse().unwrap();
    assert_eq!(namespace(&plan, "rs1").gateways, [director]);
}

#[test]
fn an_address_that_the_master_holds_is_the_better_gateway() {
    let text = "[[vrrp_instance]]\nname = \"VI_1\"\nstate = \"MASTER\"\ninterface = \"eth0\"\n\
         virtual_router_id = 51\npriority = 100\n\
         virtual_ipaddress = [\"192.168.1.1/24\", \"10.0.0.1/24 dev eth1\"]\n"
        .to_string()
        + &nat(server("192.168.1.1:80", "TCP", &["10.0.0.2:8080"]));
    let plan = plan_of(&text).unwrap();
    assert!(plan.is_divided());
    let held: IpAddr = "10.0.0.1".parse().unwrap();
    assert_eq!(namespace(&plan, "rs1").gateways, [held]);
}

#[test]
fn real_servers_of_tun_are_where_tunnels_end() {
    let plan = shipped("tun.toml");
    let [first, second] = &plan.real_servers[..] else {
        panic!("{:?}", plan.real_servers)
    };
    assert_eq!(
        held(&plan, "rs1"),
        ["eth0 10.20.0.101/24", "lo 192.168.1.100/32"]
    );
    let ends = |server: &RealServer| -> Vec<_> {
        let ends = server.tunnel_ends.iter();
        ends.map(ToString::to_string).collect()
    };
    assert_eq!(
        ends(first),
        ["IPIP to 10.20.0.101", "GUE to 10.20.0.101, UDP port 6080"]
    );
    assert_eq!(ends(second).len(), 2);
    let listen = |text| first.listen.iter().any(|one| one.to_string() == text);
    assert!(listen("tcp:192.168.1.100:80") && listen("tcp:10.20.0.101:443"));
    assert!(!first.behind_director);
}

#[test]
fn out_of_a_tunnel_comes_another_ip_version() {
    let tunnel = server("10.0.0.1:80", "TCP", &["[fd00::2]:80"]).replace("\"DR\"", "\"TUN\"");
    let plan = plan_of(&tunnel).unwrap();
    assert_eq!(
        held(&plan, "rs1"),
        ["eth0 fd00::2/64", "eth0 10.0.0.252/24", "lo 10.0.0.1/32"]
    );
    let gateways = &namespace(&plan, "rs1").gateways;
    assert!(gateways.iter().any(IpAddr::is_ipv4) && gateways.iter().any(IpAddr::is_ipv6));
}

#[test]
fn what_the_lab_cannot_do_is_said() {
    let both = nat(server("10.0.0.1:80", "TCP", &["10.0.0.2:80"]))
        + &server("10.0.0.1:81", "TCP", &["10.0.0.2:81"]);
    assert_eq!(
        plan_of(&both).unwrap_err(),
        PlanError::TwoGateways("10.0.0.2".parse().unwrap())
    );
}

#[test]
fn a_vrrp_instance_makes_a_pair() {
    let plan = shipped("ha-pair.toml");
    let names: Vec<&str> = plan.directors.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["director", "director2"]);
    assert_eq!(plan.directors[0].file, None, "the file itself");
    let copy = plan.directors[1]
        .file
        .as_deref()
        .expect("a file of its own");
    let copy = config::parse(copy, Path::new("director2.toml")).expect("a valid file");
    let instance = &copy.config.vrrp_instances[0];
    assert_eq!(instance.priority, 99);
    assert_eq!(instance.state, config::VrrpState::Backup);
    // Four times 100 ms, and the slack.
    let failover = plan.failover.expect("there are two");
    assert_eq!(failover.out_within, Duration::from_millis(1400));
    assert_eq!(failover.back_within, Some(failover.out_within));
    assert_eq!(shipped("dr.toml").failover, None);
}

#[test]
fn unicast_directors_have_the_addresses_of_the_file() {
    let text = "[[vrrp_instance]]\nname = \"VI_1\"\ninterface = \"eth0\"\n\
         virtual_router_id = 51\npriority = 100\nnopreempt = true\n\
         unicast_src_ip = \"10.0.0.8\"\nunicast_peer = [\"10.0.0.9\"]\n\
         virtual_ipaddress = [\"10.0.0.1/24\"]\n"
        .to_string()
        + &server("10.0.0.1:80", "TCP", &["10.0.0.2:80"]);
    let plan = plan_of(&text).unwrap();
    assert_eq!(held(&plan, "director"), ["eth0 10.0.0.8/24"]);
    assert_eq!(held(&plan, "director2"), ["eth0 10.0.0.9/24"]);
    let copy = plan.directors[1].file.as_deref().unwrap();
    let copy = config::parse(copy, Path::new("director2.toml")).unwrap();
    let instance = &copy.config.vrrp_instances[0];
    let [own, other] = ["10.0.0.9", "10.0.0.8"].map(|ip| ip.parse::<IpAddr>().unwrap());
    assert_eq!(instance.unicast_src_ip, Some(own));
    assert_eq!(instance.unicast_peer[0].address, other);
    assert_eq!(plan.failover.unwrap().back_within, None, "nopreempt");
}

#[test]
fn unicast_peers_are_directors_and_a_url_is_served() {
    let plan = shipped("three-node.toml");
    let hosts = ["director", "director2", "director3"];
    assert_eq!(
        hosts.map(|host| held(&plan, host).concat()),
        [
            "eth0 192.168.1.2/24",
            "eth0 192.168.1.3/24",
            "eth0 192.168.1.4/24"
        ]
    );
    let copies = plan.directors.iter().filter_map(|d| d.file.as_deref());
    let copies = copies.map(|text| config::parse(text, Path::new("copy.toml")).unwrap());
    let seen = copies.map(|copy| {
        let one = &copy.config.vrrp_instances[0];
        let peers: Vec<_> = one.unicast_peer.iter().map(|p| p.address).collect();
        (one.priority, one.unicast_src_ip.unwrap(), peers)
    });
    let [a, b, c] = [2, 3, 4].map(|last| IpAddr::from([192, 168, 1, last]));
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [(99, b, vec![a, c]), (98, c, vec![b, a])]
    );
    let [watched] = &plan.watched[..] else {
        panic!("{:?}", plan.watched);
    };
    assert_eq!(watched.address, "127.0.0.1:80".parse().unwrap());
    let run = Duration::from_secs(2 + 2);
    let failover = plan.failover.unwrap();
    assert_eq!(watched.out_within, Some(failover.out_within + run));
}
