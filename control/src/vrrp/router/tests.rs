mod groups;

use std::path::Path;
use std::time::Duration;

use super::super::ah;
use super::super::packet::TTL;
use super::*;

const TWO: &str = r#"
[[vrrp_instance]]
name = "VI_1"
interface = "eth0"
virtual_router_id = 51
virtual_ipaddress = ["192.168.1.100/24"]
track_interface = ["eth1"]

[[vrrp_instance]]
name = "VI_2"
interface = "eth0"
virtual_router_id = 52
authentication = { auth_type = "PASS", auth_pass = "1111" }
virtual_ipaddress = ["192.168.1.101/24"]
track_interface = ["eth2 weight -20", "eth3 weight 5"]
"#;
const GROUP: &str = "[[vrrp_sync_group]]\nname = \"VG\"\ngroup = [\"VI_1\", \"VI_2\"]\n";

fn config(text: &str) -> Config {
    let checked = crate::config::parse(text, Path::new("test.toml"));
    checked.unwrap_or_else(|errors| panic!("{errors}")).config
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A router with eth0 (192.168.1.1) to eth3, all up, and its clock.
struct Bench {
    router: Router,
    now: Instant,
}

impl Bench {
    fn new(text: &str) -> Self {
        let now = Instant::now();
        let mut router = Router::default();
        for index in 0..4 {
            router.link(index, &format!("eth{index}"), true, now);
        }
        router.address(0, ip("192.168.1.100"), true, now);
        router.address(0, ip("192.168.1.1"), true, now);
        router.take_up(&config(text), now);
        Self { router, now }
    }

    fn states(&self) -> Vec<State> {
        let instances = self.router.instances().iter();
        instances.map(|i| i.machine().state()).collect()
    }

    fn run_for(&mut self, time: Duration) -> Outputs {
        let end = self.now + time;
        let mut all = Outputs::new();
        while let Some(due) = self.router.deadline().filter(|due| *due <= end) {
            all.extend(self.router.timeout(due));
        }
        self.now = end;
        all
    }

    fn hear(&mut self, instance: &str, priority: u8, source: &str) -> Option<Complaint> {
        let mut datagram = self.datagram(instance, priority, source);
        datagram.ttl = TTL;
        self.router.datagram(0, &datagram, self.now).1
    }

    /// What the instance would send, from another source.
    fn datagram(&self, instance: &str, priority: u8, source: &str) -> Datagram {
        let instance = self.router.instance(instance).unwrap();
        let packet = &instance.packets(priority)[0];
        // VRRPv2: the addresses of IP are not in the checksum.
        Datagram {
            source: ip(source),
            destination: packet.destination,
            ttl: TTL,
            message: packet.message.clone(),
            ah: None,
        }
    }
}

#[test]
fn the_source_is_the_first_address_that_is_not_virtual() {
    let bench = Bench::new(TWO);
    let packets = bench.router.instance("VI_1").unwrap().packets(100);
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].source, ip("192.168.1.1"));
    assert_eq!(packets[0].destination, ip("224.0.0.18"));
}

#[test]
fn each_advertisement_has_one_owner() {
    let mut bench = Bench::new(TWO);
    bench.run_for(Duration::from_secs(4));
    assert_eq!(bench.states(), [State::Master, State::Master]);
    assert_eq!(bench.hear("VI_1", 200, "192.168.1.2"), None);
    assert_eq!(bench.states(), [State::Backup, State::Master]);
}

#[test]
fn refusals_are_counted_and_said_once() {
    let mut bench = Bench::new(TWO);
    let mut datagram = bench.datagram("VI_2", 200, "192.168.1.2");
    datagram.ttl = 64;
    for time in 0..3 {
        let (outputs, complaint) = bench.router.datagram(0, &datagram, bench.now);
        assert!(outputs.is_empty());
        assert_eq!(complaint.is_some(), time == 0);
    }
    let refused = bench.router.instance("VI_2").unwrap().refused();
    assert_eq!(refused["ttl"].total, 3);
    assert_eq!(refused["ttl"].last, Some(ip("192.168.1.2")));

    let stranger = Bench::new(&TWO.replace("= 52", "= 53"));
    let datagram = stranger.datagram("VI_2", 200, "192.168.1.2");
    let (_, complaint) = bench.router.datagram(0, &datagram, bench.now);
    assert!(complaint.unwrap().0.contains("virtual_router_id 53"));
    assert_eq!(bench.router.refused()["virtual_router_id"].total, 1);

    let complaint = bench.hear("VI_2", 200, "192.168.1.1").unwrap();
    assert!(
        complaint.0.contains("its source address is ours"),
        "{complaint:?}"
    );
    // On another interface there is no such instance.
    let datagram = bench.datagram("VI_1", 200, "192.168.1.2");
    assert!(bench.router.datagram(1, &datagram, bench.now).0.is_empty());
    assert_eq!(bench.router.refused()["virtual_router_id"].total, 2);
}

#[test]
fn other_addresses_are_said_and_followed() {
    let mut bench = Bench::new(TWO);
    let other = Bench::new(&TWO.replace("1.101/24", "1.102/24"));
    let datagram = other.datagram("VI_2", 200, "192.168.1.2");
    let (_, complaint) = bench.router.datagram(0, &datagram, bench.now);
    assert!(complaint.unwrap().0.contains("192.168.1.102"));
    let master = bench.router.instance("VI_2").unwrap().machine().master();
    assert_eq!(master, Some((ip("192.168.1.2"), 200)));
}

#[test]
fn tracked_interfaces() {
    let mut bench = Bench::new(TWO);
    let priority = |bench: &Bench| bench.router.instances()[1].machine().priority();
    assert_eq!(priority(&bench), 105);
    bench.router.link(2, "eth2", false, bench.now);
    assert_eq!(priority(&bench), 85);
    bench.router.link(3, "eth3", false, bench.now);
    assert_eq!(priority(&bench), 80);
    assert_eq!(bench.states(), [State::Backup, State::Backup]);
    bench.router.link(1, "eth1", false, bench.now);
    assert_eq!(bench.states(), [State::Fault, State::Backup]);
    bench.router.link(1, "eth1", true, bench.now);
    assert_eq!(bench.states(), [State::Backup, State::Backup]);
    bench.router.link_gone(0, bench.now);
    assert_eq!(bench.states(), [State::Fault, State::Fault]);
}

/// A master whose addresses cannot be reached would keep another one from holding them.
#[test]
fn the_interfaces_of_addresses_and_routes() {
    let with = |rest: &str| {
        let mut bench = Bench::new(&format!(
            "[[vrrp_instance]]\nname = \"VI_1\"\ninterface = \"eth0\"\nvirtual_router_id = 51\n\
             virtual_ipaddress = [\"192.168.1.100/24\"]\n{rest}\n"
        ));
        bench.run_for(Duration::from_secs(4));
        assert_eq!(bench.states(), [State::Master], "{rest}");
        bench.router.link(1, "eth1", false, bench.now);
        let while_down = bench.states()[0];
        bench.router.link(1, "eth1", true, bench.now);
        bench.run_for(Duration::from_secs(4));
        assert_eq!(bench.states(), [State::Master], "{rest}");
        while_down
    };
    let tracked = [
        r#"virtual_ipaddress_excluded = ["10.0.0.1/24 dev eth1"]"#,
        r#"virtual_ipaddress_excluded = ["10.0.0.1 dev eth1 no_track", "10.0.0.2 dev eth1"]"#,
        r#"virtual_routes = ["10.1.0.0/16 dev eth1"]"#,
        r#"virtual_rules = ["iif eth1 table 7"]"#,
        r#"virtual_rules = ["oif eth1 prohibit"]"#,
        "dont_track_primary = true\nvirtual_routes = [\"10.1.0.0/16 dev eth1\"]",
    ];
    for rest in tracked {
        assert_eq!(with(rest), State::Fault, "{rest}");
    }
    let not_tracked = [
        r#"virtual_ipaddress_excluded = ["10.0.0.1/24 dev eth1 no_track"]"#,
        r#"virtual_ipaddress_excluded = ["10.0.0.1/24 dev eth2"]"#,
        r#"virtual_routes = ["10.1.0.0/16 dev eth1 no_track"]"#,
        r#"virtual_rules = ["iif eth1 table 7 no_track"]"#,
        // It is down until the instance is master.
        "use_vmac = \"eth9\"\nvirtual_routes = [\"10.1.0.0/16 dev eth9\"]",
    ];
    for rest in not_tracked {
        assert_eq!(with(rest), State::Master, "{rest}");
    }
    // The instance's own is its own matter.
    let text = TWO.replacen("/24\"]", "/24 dev eth0\"]\ndont_track_primary = true", 1);
    let mut bench = Bench::new(&text);
    bench.router.link(0, "eth0", false, bench.now);
    assert_eq!(bench.states()[0], State::Backup);
}

#[test]
fn authentication_headers_are_made_and_counted() {
    let text = TWO.replace("auth_type = \"PASS\"", "auth_type = \"AH\"");
    let mut bench = Bench::new(&text);
    let other = |password: &str, priority, sequence| {
        let text = text.replace("1111", password);
        let mut other = Bench::new(&text);
        other.router.address(0, ip("192.168.1.1"), false, other.now);
        other.router.address(0, ip("192.168.1.2"), true, other.now);
        let instance = &mut other.router.instances[1];
        instance.sequence = sequence;
        let packet = &instance.packets(priority)[0];
        assert!(packet.with_header);
        let (sealed, headers) = ah::open(&packet.message).unwrap();
        Datagram {
            source: packet.source,
            destination: packet.destination,
            ttl: TTL,
            message: packet.message[headers..].to_vec(),
            ah: Some(sealed),
        }
    };
    let mut hear = |datagram: &Datagram| {
        let (_, complaint) = bench.router.datagram(0, datagram, bench.now);
        let refused = &bench.router.instances()[1].refused();
        let refused: Vec<_> = refused
            .iter()
            .map(|(why, count)| (*why, count.total))
            .collect();
        (complaint.is_some(), refused)
    };
    assert_eq!(hear(&other("1111", 200, 7)), (false, vec![]));
    assert_eq!(
        hear(&other("1111", 200, 7)),
        (false, vec![]),
        "as old, but not older"
    );
    let old = other("1111", 200, 6);
    assert_eq!(hear(&old), (true, vec![("replayed", 1)]));
    assert_eq!(hear(&old), (false, vec![("replayed", 2)]));
    let forged = other("2222", 200, 99);
    assert_eq!(hear(&forged).1, [("integrity", 1), ("replayed", 2)]);
    let mut bare = other("1111", 200, 100);
    bare.ah = None;
    assert_eq!(hear(&bare).1[1], ("no_header", 1));
    // What is sent goes on from the highest number that was accepted.
    assert_eq!(bench.router.instances()[1].sequence, 7);
    bench.run_for(Duration::from_secs(5));
    assert_eq!(bench.states()[1], State::Master);
    assert!(bench.router.instances()[1].sequence > 7);
}

#[test]
fn unicast_ttl_is_for_peers_and_is_sealed() {
    let text = TWO.replace("PASS", "AH");
    let bench = Bench::new(&format!(
        "{text}unicast_peer = [\"192.168.1.2\"]\nunicast_ttl = 7\n"
    ));
    let packet = |instance: usize| bench.router.instances()[instance].packets(100).remove(0);
    assert_eq!(packet(0).ttl, TTL, "to the group");
    let to_peer = packet(1);
    // The message is a whole packet; its ninth byte is the TTL.
    assert_eq!((to_peer.ttl, to_peer.message[8]), (7, 7));
    assert!(ah::open(&to_peer.message).is_some());
}

#[test]
fn mcast_src_ip_is_the_source() {
    let text = format!("{TWO}mcast_src_ip = \"192.168.1.9\"\n");
    let bench = Bench::new(&text);
    let source = |instance: usize| bench.router.instances()[instance].packets(100)[0].source;
    assert_eq!(source(0), ip("192.168.1.1"));
    assert_eq!(source(1), ip("192.168.1.9"));
}

#[test]
fn dont_track_primary_goes_on_without_a_link() {
    let text = format!("{TWO}dont_track_primary = true\n");
    let mut bench = Bench::new(&text);
    bench.run_for(Duration::from_secs(5));
    assert_eq!(bench.states(), [State::Master, State::Master]);
    bench.router.link(0, "eth0", false, bench.now);
    assert_eq!(bench.states(), [State::Fault, State::Master]);
}

#[test]
fn tracked_scripts() {
    let script = "[[vrrp_script]]\nname = \"chk\"\nscript = \"/bin/true\"\nweight = -30\n";
    let text = format!("{script}{TWO}")
        .replace("track_interface = [\"eth1\"]", "track_script = [\"chk\"]");
    let mut bench = Bench::new(&text);
    let priority = |bench: &Bench| bench.router.instances()[0].machine().priority();
    assert_eq!(priority(&bench), 100);
    bench.router.script("chk", false, bench.now);
    assert_eq!(priority(&bench), 70);
    bench.router.script("chk", true, bench.now);
    assert_eq!(priority(&bench), 100);
}

/// Who was not asked yet has not succeeded.
#[test]
fn a_script_without_a_result() {
    let script = "[[vrrp_script]]\nname = \"chk\"\nscript = \"/bin/true\"\n";
    let tracked = TWO.replace("track_interface = [\"eth1\"]", "track_script = [\"chk\"]");
    let mut bench = Bench::new(&format!("{script}{tracked}"));
    bench.run_for(Duration::from_secs(10));
    assert_eq!(bench.states(), [State::Init, State::Master]);
    bench.router.script("chk", true, bench.now);
    assert_eq!(bench.states(), [State::Backup, State::Master]);
    bench.run_for(Duration::from_secs(4));
    assert_eq!(bench.states(), [State::Master, State::Master]);
    // One that a reload adds is waited for by nobody who takes part already.
    let other = script.replace("chk", "other");
    let both = tracked.replace("[\"chk\"]", "[\"chk\", \"other\"]");
    let text = format!("{script}{other}{both}");
    bench.router.take_up(&config(&text), bench.now);
    assert_eq!(bench.states(), [State::Master, State::Master]);
    bench.router.script("other", false, bench.now);
    assert_eq!(bench.states(), [State::Fault, State::Master]);

    let mut bench = Bench::new(&format!("{script}weight = 20\n{tracked}"));
    let priority = |bench: &Bench| bench.router.instances()[0].machine().priority();
    assert_eq!(bench.states(), [State::Backup, State::Backup]);
    assert_eq!(priority(&bench), 100);
    bench.router.script("chk", true, bench.now);
    assert_eq!(priority(&bench), 120);
}

/// keepalived multiplies the weight by -1: a success with 10 takes 10 off, a failure with -10 adds 10.
#[test]
fn reversed_weights() {
    for (weight, up, down) in [("10", 90, 100), ("-10", 100, 110)] {
        let text = TWO.replace("\"eth1\"", &format!("\"eth1 weight {weight} reverse\""));
        let mut bench = Bench::new(&text);
        let priority = |bench: &Bench| bench.router.instances()[0].machine().priority();
        assert_eq!(priority(&bench), up, "{weight}");
        bench.router.link(1, "eth1", false, bench.now);
        assert_eq!(priority(&bench), down, "{weight}");
    }
}

#[test]
fn a_script_may_fail_until_its_first_result() {
    let script = "[[vrrp_script]]\nname = \"chk\"\nscript = \"/bin/true\"\ninit_fail = true\n";
    let tracked = TWO.replace("track_interface = [\"eth1\"]", "track_script = [\"chk\"]");
    let mut bench = Bench::new(&format!("{script}{tracked}"));
    assert_eq!(bench.states(), [State::Fault, State::Backup]);
    bench.router.script("chk", true, bench.now);
    assert_eq!(bench.states(), [State::Backup, State::Backup]);
}

#[test]
fn a_script_that_cannot_be_run_does_not_count() {
    let tracked = TWO.replace("track_interface = [\"eth1\"]", "track_script = [\"chk\"]");
    let script = "[[vrrp_script]]\nname = \"chk\"\nscript = \"/bin/true\"\n";
    let mut bench = Bench::new(&format!("{script}init_fail = true\n{tracked}"));
    assert_eq!(bench.states(), [State::Fault, State::Backup]);
    bench.router.script_not_run("chk", bench.now);
    assert_eq!(bench.states(), [State::Backup, State::Backup]);
    bench.router.script("chk", false, bench.now);
    assert_eq!(bench.states(), [State::Fault, State::Backup]);

    let mut bench = Bench::new(&format!("{script}{tracked}"));
    assert_eq!(bench.states(), [State::Init, State::Backup]);
    bench.router.script_not_run("chk", bench.now);
    assert_eq!(bench.states(), [State::Backup, State::Backup]);

    // Nor is it a success that raises the priority.
    let mut bench = Bench::new(&format!("{script}weight = 20\n{tracked}"));
    let priority = |bench: &Bench| bench.router.instances()[0].machine().priority();
    bench.router.script("chk", true, bench.now);
    assert_eq!(priority(&bench), 120);
    bench.router.script_not_run("chk", bench.now);
    assert_eq!(priority(&bench), 100);
    bench.router.script("chk", true, bench.now);
    assert_eq!(priority(&bench), 120);
}

#[test]
fn tracked_files_and_processes() {
    let tracked = r#"
[[track_file]]
name = "load"
file = "/run/load"
weight = -2
[[vrrp_track_process]]
name = "nginx"
process = "nginx"
weight = 10
"#;
    let text = TWO
        .replace(
            "[\"eth1\"]",
            "[\"eth1 weight 0\"]\ntrack_file = [\"load\"]\ntrack_process = [\"nginx\"]",
        )
        .replace(
            "[\"eth2 weight -20\", \"eth3 weight 5\"]",
            "[\"eth2 weight 0\"]\ntrack_file = [\"load weight 0\"]\ntrack_process = [\"nginx weight 0 reverse\"]",
        );
    let mut bench = Bench::new(&format!("{tracked}{text}"));
    let priority = |bench: &Bench| bench.router.instances()[0].machine().priority();
    assert_eq!(priority(&bench), 100, "nobody has looked yet");
    assert_eq!(bench.states(), [State::Backup, State::Backup]);
    bench.router.process("nginx", true, bench.now);
    // The second one must not have it run.
    assert_eq!(priority(&bench), 110);
    assert_eq!(bench.states(), [State::Backup, State::Fault]);
    let outputs = bench.router.process("nginx", false, bench.now);
    assert_eq!(bench.states(), [State::Backup, State::Backup]);
    let told = Output::Priority {
        state: State::Backup,
        priority: 100,
    };
    assert_eq!(outputs[0], ("VI_1".to_owned(), told));
    for (number, expected, second) in [
        (7, 86, State::Fault),
        (-30, 160, State::Fault),
        (0, 100, State::Backup),
        (126, 1, State::Fault),
    ] {
        bench.router.file("load", number, bench.now);
        assert_eq!(
            (priority(&bench), bench.states()[1]),
            (expected, second),
            "{number}"
        );
        assert_eq!(bench.states()[0], State::Backup, "{number}");
    }
    bench.router.file("load", 127, bench.now);
    assert_eq!(bench.states()[0], State::Fault, "-254");
    bench.router.file("load", i32::MIN, bench.now);
    assert_eq!(bench.states()[0], State::Backup);
    assert_eq!(priority(&bench), 254);
    // Removed from the file and added again, they begin anew.
    bench.router.take_up(&config(TWO), bench.now);
    bench
        .router
        .take_up(&config(&format!("{tracked}{text}")), bench.now);
    assert_eq!(priority(&bench), 100);
}

#[test]
fn what_a_group_tracks_counts_for_all_of_it() {
    let group = format!("{GROUP}track_interface = [\"eth3 weight -7\"]\n");
    let mut bench = Bench::new(&format!("{TWO}{group}"));
    bench.router.link(3, "eth3", false, bench.now);
    let priorities = bench.router.instances().iter();
    let priorities: Vec<_> = priorities.map(|i| i.machine().priority()).collect();
    assert_eq!(priorities, [93, 93]);
}

#[test]
fn a_reload_keeps_the_state() {
    let mut bench = Bench::new(TWO);
    bench.run_for(Duration::from_secs(4));
    let text = TWO.replace(
        "virtual_router_id = 51",
        "virtual_router_id = 51\npriority = 50",
    );
    let (removed, outputs) = bench.router.take_up(&config(&text), bench.now);
    assert!(removed.is_empty());
    assert_eq!(outputs, []);
    assert_eq!(bench.states(), [State::Master, State::Master]);
    assert_eq!(bench.router.instances()[0].machine().priority(), 50);

    let (removed, outputs) = bench.router.take_up(&config(""), bench.now);
    assert_eq!(outputs, []);
    assert!(bench.router.instances().is_empty());
    for (instance, outputs) in removed {
        let name = &instance.config().name;
        let said = outputs.iter().map(|(of, output)| (of == name, output));
        let said: Vec<_> = said.collect();
        assert!(
            matches!(
                said[..],
                [
                    (true, Output::Send { priority: 0 }),
                    (true, Output::RemoveAddresses),
                    (
                        true,
                        Output::Changed {
                            from: State::Master,
                            to: State::Init,
                            ..
                        }
                    )
                ]
            ),
            "{said:?}"
        );
    }
}

#[test]
fn a_reload_changes_the_interval_at_once() {
    let slow = TWO.replace(
        "virtual_router_id = 51",
        "virtual_router_id = 51\nadvert_int = 3",
    );
    let mut bench = Bench::new(TWO);
    bench.hear("VI_1", 200, "192.168.1.2");
    bench.router.take_up(&config(&slow), bench.now);
    bench.run_for(Duration::from_secs(9));
    assert_eq!(bench.states()[0], State::Backup, "three of the new ones");
    bench.run_for(Duration::from_secs(1));
    assert_eq!(bench.states()[0], State::Master);

    // The others wait for the shorter time from now on.
    let (_, outputs) = bench.router.take_up(&config(TWO), bench.now);
    let sent = Output::Send { priority: 100 };
    assert_eq!(outputs, [("VI_1".to_owned(), sent)]);
    let (_, outputs) = bench.router.take_up(&config(&slow), bench.now);
    assert_eq!(outputs, []);
    bench.hear("VI_1", 200, "192.168.1.2");
    bench.router.take_up(&config(TWO), bench.now);
    bench.run_for(Duration::from_secs(4));
    assert_eq!(bench.states()[0], State::Master);
}

/// It is another virtual router, which was never master; the others of the old one are to know.
#[test]
fn another_virtual_router_of_the_same_name_begins_anew() {
    let mut bench = Bench::new(TWO);
    bench.run_for(Duration::from_secs(4));
    let text = TWO.replace("virtual_router_id = 51", "virtual_router_id = 61");
    let (removed, _) = bench.router.take_up(&config(&text), bench.now);
    let [(old, outputs)] = &removed[..] else {
        panic!("one is removed, not {}", removed.len());
    };
    assert_eq!(old.config().virtual_router_id, 51);
    assert_eq!(outputs[0].1, Output::Send { priority: 0 });
    assert_eq!(bench.states(), [State::Backup, State::Master]);
}
