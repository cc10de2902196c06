use std::collections::HashSet;

use super::*;

fn plan(flows: u32, protocol: Protocol) -> Plan {
    Plan {
        flows,
        mode: Mode::Dr,
        protocol,
        scheduler: SchedulerKind::RoundRobin,
        new_flows_per_second: 0,
        duration: Duration::from_secs(1),
        packets: Some(5_000),
        stop: Arc::default(),
    }
}

/// What becomes of a plan that has no end but a signal, after `after`; it takes seconds at most.
fn stopped<T>(mut plan: Plan, after: Duration, run: impl FnOnce(&Plan) -> T) -> T {
    plan.packets = Some(u64::MAX / 1024);
    let stop = Arc::clone(&plan.stop);
    let signal = std::thread::spawn(move || {
        std::thread::sleep(after);
        stop.store(true, Ordering::Relaxed);
    });
    let result = run(&plan);
    signal.join().unwrap();
    result
}

#[test]
fn every_flow_is_one_connection_and_every_packet_is_forwarded() {
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        for flows in [1, 1000] {
            let measured = run(&plan(flows, protocol)).unwrap();
            assert_eq!(measured.packets, 5_000);
            assert_eq!(measured.connections, u64::from(flows), "{protocol}");
            assert!(measured.ns_per_packet() > 0.0);
        }
    }
}

#[test]
fn frames_leave_for_real_servers() {
    let mut ring = Ring::new(&plan(8, Protocol::Udp)).unwrap();
    ring.fill(8);
    ring.peer.send(&mut ring.sending);
    measured(&mut ring.worker, 0, 8);
    let mut out = Vec::new();
    ring.peer.receive(&mut out);
    let destinations: HashSet<Vec<u8>> = out
        .iter()
        .map(|frame| ring.umem.bytes(frame)[..6].to_vec())
        .collect();
    let expected = (1..=4).map(|last| vec![2, 0, 198, 51, 100, last]).collect();
    assert_eq!(destinations, expected);
}

#[test]
fn every_mode_forwards_every_packet() {
    for mode in [Mode::Nat, Mode::Tun, Mode::FullNat] {
        let plan = Plan {
            mode,
            ..plan(70_000, Protocol::Udp)
        };
        let measured = run(&plan).unwrap();
        assert_eq!(measured.connections, 70_000, "{mode:?}");
    }
}

#[test]
fn new_flows_make_connections() {
    let plan = Plan {
        new_flows_per_second: 100_000,
        packets: None,
        duration: Duration::from_millis(50),
        ..plan(100, Protocol::Tcp)
    };
    let measured = run(&plan).unwrap();
    assert!(measured.connections > 1000, "{measured:?}");
}

#[test]
fn the_table_is_filled_and_drained() {
    for (mode, protocol) in [(Mode::Dr, Protocol::Tcp), (Mode::FullNat, Protocol::Udp)] {
        let plan = Plan {
            mode,
            ..plan(3000, protocol)
        };
        let churned = churn::run(&plan).unwrap();
        // As often as it takes for 5000 packets.
        assert_eq!(churned.made.connections, 6000);
        assert_eq!(churned.fill.nanoseconds.len(), 2 * 3000_u64.div_ceil(64));
        assert_eq!(churned.drain.connections, 6000);
        assert!(
            churned.drain.nanoseconds.len() > 2 * 3000 / 256,
            "not at once"
        );
        assert!(churned.bytes_per_connection < 200.0, "{churned:?}");
    }
}

#[test]
fn a_flood_of_syns_costs_no_established_connection() {
    let plan = plan(500, Protocol::Tcp);
    let flooded = flood::run(&plan, 60).unwrap();
    assert_eq!((flooded.packets, flooded.syns), (2000, 3000));
    assert_eq!(flooded.evicted, 3000, "the table was full before");
}

#[test]
fn the_window_never_holds_a_flow_twice() {
    let mut window = Window {
        order: Flows::new("10.0.0.0/16".parse().unwrap(), 5)
            .unwrap()
            .order(),
        size: 5,
        replaced: 0,
    };
    let mut seen: HashSet<u32> = (0..5).map(|place| window.flow(place)).collect();
    for _ in 0..23 {
        let new = window.replace();
        assert!(seen.insert(new), "flow {new} came back");
        let now: HashSet<u32> = (0..5).map(|place| window.flow(place)).collect();
        assert_eq!(now.len(), 5);
        assert!(now.contains(&new));
    }
}

#[test]
fn too_many_flows_are_an_error() {
    let error = run(&plan(u32::MAX, Protocol::Udp)).unwrap_err();
    assert!(matches!(error, RingError::Flows(_)), "{error}");
}

#[test]
fn several_workers_forward_everything_also_answers_of_each_other() {
    for (mode, protocol) in [
        (Mode::Nat, Protocol::Tcp),
        (Mode::Nat, Protocol::Udp),
        (Mode::Dr, Protocol::Udp),
    ] {
        let plan = Plan {
            mode,
            ..plan(1000, protocol)
        };
        let compared = several::compare(&plan, 2).unwrap();
        assert_eq!((compared.workers, compared.packets), (2, 5_000));
        assert!(compared.speedups().iter().all(|speedup| *speedup > 0.0));
    }
}

#[test]
fn a_signal_ends_a_run_with_what_was_measured_until_then() {
    const SOON: Duration = Duration::from_millis(300);
    let tcp = || plan(1000, Protocol::Tcp);
    let measured = stopped(tcp(), SOON, run).unwrap();
    assert_eq!(measured.connections, 1000);
    assert!(measured.packets > 0 && measured.ns_per_packet() > 0.0);

    let churned = stopped(tcp(), SOON, churn::run).unwrap();
    assert!(churned.made.connections > 1000);
    assert_eq!(churned.made.packets, churned.made.connections);
    assert!(churned.drain.connections <= churned.made.connections);

    // In the middle of filling the table.
    let churned = stopped(plan(2_000_000, Protocol::Udp), SOON, churn::run).unwrap();
    assert!((1..2_000_000).contains(&churned.made.connections));
    assert_eq!(churned.drain.connections, 0);

    // What is compared with the flood would have no end, either.
    let error = stopped(tcp(), SOON, |plan| flood::run(plan, 50)).unwrap_err();
    assert!(matches!(error, RingError::Interrupted), "{error}");

    let nat = Plan {
        mode: Mode::Nat,
        ..tcp()
    };
    let error = stopped(nat, SOON, |plan| several::compare(plan, 2)).unwrap_err();
    assert!(matches!(error, RingError::Interrupted), "{error}");
}

#[test]
fn a_signal_before_the_first_packet_is_an_error() {
    let error = stopped(plan(2_000_000, Protocol::Udp), Duration::ZERO, run).unwrap_err();
    assert_eq!(error.to_string(), "interrupted before the first result");
}
