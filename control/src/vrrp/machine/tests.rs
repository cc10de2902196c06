use super::super::packet::Authentication;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const OWN: &str = "10.0.0.2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn parameters(priority: u8) -> Parameters {
    Parameters {
        version: Version::V2,
        priority,
        advert_int: SECOND,
        preempt: true,
        preempt_delay: Duration::ZERO,
        startup_delay: Duration::ZERO,
        lower_prio_advert: true,
        higher_prio_send_advert: false,
        garp: Garp::default(),
    }
}

fn advert(priority: u8) -> Advert {
    Advert {
        version: Version::V2,
        virtual_router_id: 51,
        priority,
        advert_int: SECOND,
        authentication: Authentication::None,
        addresses: Vec::new(),
    }
}

/// A machine with its clock, and what it wanted so far.
struct Bench {
    machine: Machine,
    begin: Instant,
    now: Instant,
    out: Vec<Output>,
}

impl Bench {
    fn new(parameters: Parameters) -> Self {
        let now = Instant::now();
        let mut machine = Machine::new(parameters);
        let mut out = Vec::new();
        machine.set_primary(Some(ip(OWN)), now, &mut out);
        machine.start(now, &mut out);
        Self {
            machine,
            begin: now,
            now,
            out,
        }
    }

    /// A master; what it wanted until then is forgotten.
    fn master(parameters: Parameters) -> Self {
        let mut bench = Self::new(parameters);
        let due = bench.machine.deadline().unwrap();
        bench.run_until(due - bench.begin);
        assert_eq!(bench.machine.state(), State::Master);
        bench.out.clear();
        bench
    }

    fn run_until(&mut self, time: Duration) {
        let end = self.begin + time;
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            self.now = due;
            self.machine.timeout(due, &mut self.out);
        }
        self.now = end;
    }

    fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time - self.begin);
    }

    fn hear(&mut self, priority: u8, source: &str) {
        self.machine
            .advert(&advert(priority), ip(source), self.now, &mut self.out);
    }

    fn sent(&self) -> Vec<u8> {
        let priority = |output: &Output| match output {
            Output::Send { priority } => Some(*priority),
            Output::AddAddresses
            | Output::RemoveAddresses
            | Output::Announce { .. }
            | Output::Priority { .. }
            | Output::Changed { .. } => None,
        };
        self.out.iter().filter_map(priority).collect()
    }

    fn bursts(&self) -> usize {
        let is_burst = |output: &&Output| matches!(output, Output::Announce { .. });
        self.out.iter().filter(is_burst).count()
    }
}

#[test]
fn becomes_master_after_the_master_down_interval() {
    let mut bench = Bench::new(parameters(100));
    let interval = 3 * SECOND + SECOND * 156 / 256;
    assert_eq!(bench.machine.master_down_interval(), interval);
    bench.run_until(interval - Duration::from_millis(1));
    assert_eq!(bench.machine.state(), State::Backup);
    assert!(bench.sent().is_empty());
    bench.out.clear();
    bench.run_until(interval);
    let wanted = [
        Output::Send { priority: 100 },
        Output::AddAddresses,
        Output::Announce { repeat: 5 },
        // Last: clients do not wait for scripts.
        Output::Changed {
            from: State::Backup,
            to: State::Master,
            why: "no advertisement of a higher priority".to_owned(),
        },
    ];
    assert_eq!(bench.out, wanted);
}

#[test]
fn the_owner_does_not_wait() {
    let bench = Bench::new(parameters(255));
    assert_eq!(bench.machine.state(), State::Master);
    assert_eq!(bench.sent(), [255]);
}

#[test]
fn a_master_advertises_and_announces_again() {
    let mut bench = Bench::master(Parameters {
        garp: Garp {
            master_refresh: 10 * SECOND,
            ..Garp::default()
        },
        ..parameters(100)
    });
    bench.run_for(20 * SECOND);
    assert_eq!(bench.sent().len(), 20);
    assert_eq!(bench.bursts(), 3, "after 5, 10 and 20 s");
}

#[test]
fn higher_priority_or_address_wins() {
    for (priority, source, wins) in [
        (101, "10.0.0.1", true),
        (100, "10.0.0.3", true),
        (100, "10.0.0.1", false),
        (99, "10.0.0.3", false),
    ] {
        let mut bench = Bench::master(parameters(100));
        bench.hear(priority, source);
        let state = if wins { State::Backup } else { State::Master };
        assert_eq!(bench.machine.state(), state, "{priority} {source}");
        if wins {
            assert!(bench.out.contains(&Output::RemoveAddresses));
            assert_eq!(bench.machine.master(), Some((ip(source), priority)));
        } else {
            assert_eq!(bench.sent(), [100], "asserts itself at once");
            assert_eq!(bench.bursts(), 1, "the loser has announced, too");
        }
    }
}

#[test]
fn a_flood_of_lower_priorities_is_not_answered_with_one() {
    let mut bench = Bench::master(parameters(100));
    for _ in 0..1000 {
        bench.hear(1, "10.0.0.1");
        bench.run_for(Duration::from_millis(1));
    }
    assert!(bench.sent().len() <= 11, "{}", bench.sent().len());
    assert_eq!(bench.bursts(), 1);
}

#[test]
fn priority_zero_shortens_the_wait_to_the_skew_time() {
    let mut bench = Bench::new(parameters(100));
    bench.hear(200, "10.0.0.3");
    bench.hear(0, "10.0.0.3");
    bench.run_for(SECOND * 156 / 256);
    assert_eq!(bench.machine.state(), State::Master);
    bench.out.clear();
    bench.hear(0, "10.0.0.3");
    assert_eq!(bench.sent(), [100], "a master answers at once");
}

#[test]
fn priority_zero_of_another_than_the_master_is_late() {
    let mut bench = Bench::new(parameters(100));
    bench.hear(200, "10.0.0.2");
    bench.hear(150, "10.0.0.3");
    bench.hear(0, "10.0.0.2");
    bench.run_for(3 * SECOND);
    assert_eq!(bench.machine.state(), State::Backup);
    assert_eq!(bench.machine.master(), Some((ip("10.0.0.3"), 150)));
}

#[test]
fn preemption() {
    let hear_lower_for_ten_seconds = |parameters| {
        let mut bench = Bench::new(parameters);
        for second in 1..=10_u32 {
            bench.hear(50, "10.0.0.1");
            bench.run_for(SECOND);
            if bench.machine.state() == State::Master {
                return Some(second);
            }
        }
        None
    };
    assert_eq!(hear_lower_for_ten_seconds(parameters(100)), Some(4));
    let never = Parameters {
        preempt: false,
        ..parameters(100)
    };
    assert_eq!(hear_lower_for_ten_seconds(never), None);
    let later = Parameters {
        preempt_delay: 4 * SECOND,
        ..parameters(100)
    };
    assert_eq!(hear_lower_for_ten_seconds(later), Some(7));
}

#[test]
fn the_interval_of_the_master_is_learned_in_version_3() {
    let mut bench = Bench::new(Parameters {
        version: Version::V3,
        advert_int: Duration::from_millis(100),
        ..parameters(128)
    });
    let slow = Advert {
        version: Version::V3,
        advert_int: 2 * SECOND,
        ..advert(200)
    };
    let Bench {
        machine, now, out, ..
    } = &mut bench;
    machine.advert(&slow, ip("10.0.0.3"), *now, out);
    assert_eq!(machine.master_down_interval(), 7 * SECOND);
    bench.run_for(6 * SECOND);
    assert_eq!(bench.machine.state(), State::Backup);
}

#[test]
fn a_stopping_master_answers_until_another_takes_over() {
    let mut bench = Bench::master(parameters(100));
    bench.machine.stop(bench.now, &mut bench.out);
    assert_eq!(bench.sent(), [0]);
    assert!(bench.machine.is_handing_over());
    assert!(!bench.out.contains(&Output::RemoveAddresses));
    bench.run_for(SECOND / 2);
    bench.hear(0, "10.0.0.1");
    assert_eq!(bench.machine.state(), State::Master);
    bench.hear(50, "10.0.0.1");
    assert!(bench.out.contains(&Output::RemoveAddresses));
    assert!(bench.machine.has_stopped());
    bench.run_for(5 * SECOND);
    assert_eq!(bench.sent(), [0], "it is silent from then on");
}

#[test]
fn a_stopping_master_does_not_wait_for_ever() {
    let mut bench = Bench::master(parameters(100));
    bench.machine.stop(bench.now, &mut bench.out);
    bench.run_for(SECOND);
    assert!(bench.machine.has_stopped());
    assert!(bench.out.contains(&Output::RemoveAddresses));
}

#[test]
fn faults() {
    let mut bench = Bench::master(parameters(100));
    let Bench {
        machine, now, out, ..
    } = &mut bench;
    machine.set_fault(Fault::Link, true, *now, out);
    machine.set_fault(Fault::Tracked("check".to_owned()), true, *now, out);
    assert_eq!(machine.state(), State::Fault);
    assert!(out.contains(&Output::RemoveAddresses));
    assert_eq!(machine.deadline(), None);
    machine.set_fault(Fault::Link, false, *now, out);
    assert_eq!(machine.state(), State::Fault);
    machine.set_fault(Fault::Tracked("check".to_owned()), false, *now, out);
    assert_eq!(machine.state(), State::Backup);
    assert_eq!(bench.sent(), [0]);
}

#[test]
fn a_fault_before_the_start() {
    let now = Instant::now();
    let mut machine = Machine::new(parameters(255));
    let mut out = Vec::new();
    machine.set_primary(None, now, &mut out);
    machine.start(now, &mut out);
    assert_eq!(machine.state(), State::Fault);
    machine.set_primary(Some(ip(OWN)), now, &mut out);
    assert_eq!(machine.state(), State::Master, "it is the owner");
}

#[test]
fn weights() {
    let mut machine = Machine::new(parameters(100));
    for (weight, priority) in [(0, 100), (-30, 70), (200, 254), (-200, 1), (i32::MAX, 254)] {
        machine.set_weight(weight, &mut Vec::new());
        assert_eq!(machine.priority(), priority, "{weight}");
    }
    let mut owner = Machine::new(parameters(255));
    owner.set_weight(-100, &mut Vec::new());
    assert_eq!(owner.priority(), 255);
}

#[test]
fn startup_delay() {
    let mut bench = Bench::new(Parameters {
        startup_delay: 10 * SECOND,
        ..parameters(100)
    });
    bench.hear(50, "10.0.0.1");
    bench.run_for(9 * SECOND);
    assert_eq!(bench.machine.state(), State::Init);
    bench.run_for(SECOND);
    assert_eq!(bench.machine.state(), State::Backup);
}

#[test]
fn a_late_advertisement_is_counted() {
    let mut bench = Bench::master(parameters(100));
    for late in [400, 600] {
        let due = bench.machine.deadline().unwrap();
        let now = due + Duration::from_millis(late);
        bench.machine.timeout(now, &mut bench.out);
    }
    assert_eq!(bench.machine.statistics().late_adverts, 1);
    assert_eq!(bench.sent().len(), 2);
}
