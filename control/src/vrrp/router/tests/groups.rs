//! Sync groups.

use std::collections::VecDeque;

use super::*;

#[test]
fn a_group_is_told_once() {
    let mut bench = Bench::new(&format!("{TWO}{GROUP}"));
    let mut told = |name: &str, state| bench.router.group_change(name, state).map(|g| g.name);
    assert_eq!(told("VI_1", State::Backup).as_deref(), Some("VG"));
    assert_eq!(told("VI_2", State::Backup), None);
    assert_eq!(told("VI_2", State::Master).as_deref(), Some("VG"));
}

#[test]
fn a_sync_group_is_master_backup_and_at_fault_together() {
    let mut bench = Bench::new(&format!("{TWO}{GROUP}"));
    bench.run_for(Duration::from_secs(4));
    assert_eq!(bench.states(), [State::Master, State::Master]);
    bench.hear("VI_2", 200, "192.168.1.2");
    assert_eq!(bench.states(), [State::Backup, State::Backup]);
    bench.router.link(1, "eth1", false, bench.now);
    assert_eq!(bench.states(), [State::Fault, State::Fault]);
    bench.router.link(1, "eth1", true, bench.now);
    assert_eq!(bench.states(), [State::Backup, State::Backup]);
}

/// Else the group would go back and forth between two directors while one of its networks is cut.
#[test]
fn a_sync_group_is_master_when_all_of_it_wants_to_be() {
    let mut bench = Bench::new(&format!("{TWO}{GROUP}"));
    let (second, both) = (Duration::from_secs(1), [State::Backup, State::Backup]);
    for _ in 0..60 {
        bench.hear("VI_1", 200, "192.168.1.2");
        bench.run_for(second);
        assert_eq!(bench.states(), both, "only VI_2 wants to");
    }
    // VI_2 hears a master again: it does not want to any more.
    bench.hear("VI_2", 200, "192.168.1.2");
    bench.hear("VI_1", 0, "192.168.1.2");
    bench.run_for(second);
    assert_eq!(bench.states(), both, "only VI_1 wants to");
    bench.hear("VI_2", 0, "192.168.1.2");
    // Its priority is 105, by what it tracks.
    bench.run_for(second * 151 / 256 - Duration::from_millis(1));
    assert_eq!(bench.states(), both);
    bench.run_for(Duration::from_millis(1));
    assert_eq!(bench.states(), [State::Master, State::Master]);
}

/// It takes as long as for one instance.
#[test]
fn a_sync_group_preempts_together() {
    let mut bench = Bench::new(&format!("{TWO}{GROUP}"));
    for instance in ["VI_1", "VI_2"] {
        bench.hear(instance, 50, "192.168.1.2");
    }
    bench.run_for(Duration::from_millis(3609));
    assert_eq!(bench.states(), [State::Backup, State::Backup]);
    bench.run_for(Duration::from_millis(1));
    assert_eq!(bench.states(), [State::Master, State::Master]);
}

#[test]
fn owners_in_a_sync_group_do_not_wait() {
    let text = TWO.replace("virtual_router_id", "priority = 255\nvirtual_router_id");
    let mut bench = Bench::new(&format!("{text}{GROUP}"));
    assert_eq!(bench.states(), [State::Master, State::Master]);
    // One that is no owner, and has a master: once the two followed each other without an end.
    let one = text.replacen("priority = 255", "priority = 100", 1);
    let mut bench_of_one = Bench::new(&format!("{one}{GROUP}"));
    bench_of_one.hear("VI_1", 200, "192.168.1.2");
    bench_of_one.run_for(Duration::from_secs(3));
    assert_eq!(bench_of_one.states(), [State::Backup, State::Backup]);
    bench.router.link(1, "eth1", false, bench.now);
    bench.router.link(1, "eth1", true, bench.now);
    assert_eq!(bench.states(), [State::Master, State::Master]);
}

#[test]
fn the_fault_of_a_removed_member_goes_with_it() {
    let mut bench = Bench::new(&format!("{TWO}{GROUP}"));
    bench.router.link(1, "eth1", false, bench.now);
    assert_eq!(bench.states(), [State::Fault, State::Fault]);
    let second = TWO.rfind("[[vrrp_instance]]").unwrap();
    let without_first = format!("{}{}", &TWO[second..], GROUP.replace("\"VI_1\", ", ""));
    bench.router.take_up(&config(&without_first), bench.now);
    assert_eq!(bench.states(), [State::Backup]);
}

/// Two directors on one network that loses nothing and takes no time; every interface is eth0.
struct Pair {
    routers: [Router; 2],
    now: Instant,
}

const DIRECTORS: [&str; 2] = ["192.168.1.1", "192.168.1.2"];

impl Pair {
    fn new(texts: [&str; 2]) -> Self {
        let now = Instant::now();
        let mut pair = Self {
            routers: Default::default(),
            now,
        };
        for (router, address) in pair.routers.iter_mut().zip(DIRECTORS) {
            router.link(0, "eth0", true, now);
            router.address(0, ip(address), true, now);
        }
        pair.reload(texts);
        pair
    }

    /// Both at once: each has taken up its file before it hears the other.
    fn reload(&mut self, texts: [&str; 2]) {
        let mut sent = VecDeque::new();
        for (place, text) in texts.into_iter().enumerate() {
            let (_, outputs) = self.routers[place].take_up(&config(text), self.now);
            self.send(place, outputs, &mut sent);
        }
        self.deliver(sent);
    }

    fn send(&self, from: usize, outputs: Outputs, sent: &mut VecDeque<(usize, Datagram)>) {
        for (name, output) in outputs {
            let Output::Send { priority } = output else {
                continue;
            };
            let instance = self.routers[from].instance(&name).unwrap();
            for packet in instance.packets(priority) {
                let datagram = Datagram {
                    source: packet.source,
                    destination: packet.destination,
                    ttl: packet.ttl,
                    message: packet.message,
                    ah: None,
                };
                sent.push_back((1 - from, datagram));
            }
        }
    }

    fn deliver(&mut self, mut sent: VecDeque<(usize, Datagram)>) {
        while let Some((to, datagram)) = sent.pop_front() {
            let (outputs, _) = self.routers[to].datagram(0, &datagram, self.now);
            self.send(to, outputs, &mut sent);
        }
    }

    fn run_for(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let routers = self.routers.iter().enumerate();
            let due = routers.filter_map(|(place, router)| Some((router.deadline()?, place)));
            let Some((due, place)) = due.min().filter(|(due, _)| *due <= end) else {
                break;
            };
            self.now = due;
            let outputs = self.routers[place].timeout(due);
            let mut sent = VecDeque::new();
            self.send(place, outputs, &mut sent);
            self.deliver(sent);
        }
        self.now = end;
    }

    fn states(&self) -> [Vec<State>; 2] {
        let of = |router: &Router| {
            let instances = router.instances().iter();
            instances.map(|i| i.machine().state()).collect()
        };
        [of(&self.routers[0]), of(&self.routers[1])]
    }
}

/// Two instances that these priorities make master of different directors.
fn apart(priorities: [u8; 2], rest: &str) -> String {
    let instance = |number: usize, priority| {
        format!(
            "[[vrrp_instance]]\nname = \"VI_{number}\"\ninterface = \"eth0\"\n\
             virtual_router_id = {number}\npriority = {priority}\n{rest}\n\
             virtual_ipaddress = [\"192.168.1.10{number}/24\"]\n"
        )
    };
    instance(1, priorities[0]) + &instance(2, priorities[1])
}

const MASTERS: [State; 2] = [State::Master, State::Master];
const BACKUPS: [State; 2] = [State::Backup, State::Backup];

/// Its instances had masters on both directors; without a change of either, they kept them.
#[test]
fn a_reload_brings_a_new_group_together() {
    let (first, second) = (apart([150, 90], ""), apart([100, 100], ""));
    let mut pair = Pair::new([&first, &second]);
    pair.run_for(10);
    let [one, other] = [State::Master, State::Backup];
    assert_eq!(pair.states(), [[one, other], [other, one]]);
    pair.reload([&format!("{first}{GROUP}"), &format!("{second}{GROUP}")]);
    assert_eq!(pair.states(), [BACKUPS, BACKUPS]);
    pair.run_for(5);
    assert_eq!(pair.states(), [MASTERS, BACKUPS]);
    pair.run_for(60);
    assert_eq!(pair.states(), [MASTERS, BACKUPS]);
}

/// Nobody preempts anybody, so nobody may wait for the other for ever either.
#[test]
fn a_reload_brings_a_new_group_without_preemption_together() {
    let second = apart([100, 100], "nopreempt = true");
    let mut pair = Pair::new([&apart([150, 90], "nopreempt = true"), &second]);
    pair.run_for(10);
    let first = apart([150, 150], "nopreempt = true");
    pair.reload([&format!("{first}{GROUP}"), &format!("{second}{GROUP}")]);
    pair.run_for(5);
    assert_eq!(pair.states(), [MASTERS, BACKUPS]);

    // The same of equal priorities: whoever has waited first.
    let equal = apart([100, 100], "nopreempt = true");
    let mut pair = Pair::new([&apart([150, 90], "nopreempt = true"), &second]);
    pair.run_for(10);
    pair.reload([&format!("{equal}{GROUP}"), &format!("{second}{GROUP}")]);
    pair.run_for(10);
    let mut states = pair.states();
    states.sort_by_key(|of| of[0] == State::Backup);
    assert_eq!(states, [MASTERS, BACKUPS]);
}

/// The director that reloads first has nothing to gain by waiting for the other one's reload.
#[test]
fn one_director_alone_gives_a_new_group_to_the_other() {
    let (first, second) = (apart([150, 90], ""), apart([100, 100], ""));
    let mut pair = Pair::new([&first, &second]);
    pair.run_for(10);
    pair.reload([&format!("{first}{GROUP}"), &second]);
    pair.run_for(60);
    assert_eq!(pair.states(), [BACKUPS, MASTERS]);
    pair.reload([&format!("{first}{GROUP}"), &format!("{second}{GROUP}")]);
    assert_eq!(pair.states(), [BACKUPS, MASTERS]);
}

/// Clients of the first must not wait for a Master_Down_Interval.
#[test]
fn an_instance_that_lost_its_master_takes_nothing_from_its_new_group() {
    let mut bench = Bench::new(TWO);
    bench.hear("VI_2", 200, "192.168.1.2");
    bench.run_for(Duration::from_secs(3));
    bench.hear("VI_2", 200, "192.168.1.2");
    bench.run_for(Duration::from_secs(1));
    bench.hear("VI_2", 0, "192.168.1.2");
    assert_eq!(bench.states(), [State::Master, State::Backup]);
    let group = config(&format!("{TWO}{GROUP}"));
    let (_, outputs) = bench.router.take_up(&group, bench.now);
    assert_eq!(outputs, []);
    bench.run_for(Duration::from_secs(1));
    assert_eq!(bench.states(), MASTERS);

    // Unless it has found another one by then.
    bench.router.take_up(&config(TWO), bench.now);
    bench.hear("VI_2", 200, "192.168.1.2");
    bench.hear("VI_2", 0, "192.168.1.2");
    bench.router.take_up(&group, bench.now);
    assert_eq!(bench.states(), [State::Master, State::Backup]);
    bench.hear("VI_2", 200, "192.168.1.3");
    assert_eq!(bench.states(), BACKUPS);
}
