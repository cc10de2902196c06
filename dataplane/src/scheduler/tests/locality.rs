//! `lblc` and `lblcr`: those that remember destinations.

use super::*;
use crate::scheduler::locality::EXPIRATION;

const KINDS: [SchedulerKind; 2] = [SchedulerKind::Locality, SchedulerKind::ReplicatedLocality];

/// The choice for a connection to a destination at a time in seconds.
fn to(bench: &mut Bench, destination: u32, seconds: u32, active: &[u32]) -> Option<u32> {
    let request = Request {
        destination: client(destination),
        now: u64::from(seconds) * 1000,
        ..request(seconds)
    };
    bench.choose(&request, &Loads::active(active))
}

#[test]
fn a_destination_keeps_its_server() {
    for kind in KINDS {
        let mut bench = Bench::new(kind, &[10, 10]);
        assert_eq!(to(&mut bench, 1, 0, &[0, 1]), Some(0), "{kind}");
        assert_eq!(to(&mut bench, 2, 0, &[1, 0]), Some(1), "{kind}");
        // Whatever the load, as long as nobody is overloaded.
        assert_eq!(to(&mut bench, 1, 1, &[10, 0]), Some(0), "{kind}");
        assert_eq!(
            to(&mut bench, 1, 2, &[99, 5]),
            Some(0),
            "{kind}: nobody has less than half"
        );
    }
}

#[test]
fn a_server_with_too_much_loses_the_destination() {
    let mut bench = Bench::new(SchedulerKind::Locality, &[10, 10]);
    to(&mut bench, 1, 0, &[0, 1]);
    assert_eq!(to(&mut bench, 1, 1, &[11, 4]), Some(1));
    // It stays with the new one.
    assert_eq!(to(&mut bench, 1, 2, &[0, 10]), Some(1));
}

#[test]
fn a_server_that_is_gone_loses_the_destination() {
    for kind in KINDS {
        let mut bench = Bench::new(kind, &[10, 10]);
        to(&mut bench, 1, 0, &[0, 1]);
        bench.reweigh(&[0, 10]);
        assert_eq!(to(&mut bench, 1, 1, &[0, 9]), Some(1), "{kind}");
        bench.replace(&servers(&[10, 10])[1..]);
        assert_eq!(to(&mut bench, 1, 1, &[0, 9]), Some(1), "{kind}");
    }
}

#[test]
fn a_destination_that_is_too_much_is_replicated() {
    let mut bench = Bench::new(SchedulerKind::ReplicatedLocality, &[10, 10, 10]);
    to(&mut bench, 1, 0, &[0, 1, 1]);
    assert_eq!(to(&mut bench, 1, 1, &[11, 4, 5]), Some(1));
    // Both serve it now, the less busy first, and the third does not.
    assert_eq!(to(&mut bench, 1, 2, &[3, 5, 0]), Some(0));
    assert_eq!(to(&mut bench, 1, 3, &[5, 3, 0]), Some(1));
}

#[test]
fn a_set_that_does_not_grow_shrinks_after_a_day() {
    let mut bench = Bench::new(SchedulerKind::ReplicatedLocality, &[10, 10, 10]);
    to(&mut bench, 1, 0, &[0, 1, 1]);
    to(&mut bench, 1, 1, &[11, 4, 5]);
    // Used all the time, or it would be forgotten altogether.
    let half = EXPIRATION / 2;
    assert_eq!(to(&mut bench, 1, half, &[3, 5, 0]), Some(0));
    // Server 1 has the most: after this it is out.
    assert_eq!(to(&mut bench, 1, EXPIRATION + 2, &[3, 5, 0]), Some(0));
    assert_eq!(to(&mut bench, 1, EXPIRATION + 3, &[5, 3, 0]), Some(0));
}

#[test]
fn without_memory_they_choose_as_wlc() {
    for kind in KINDS {
        let mut bench = Bench::new(kind, &[1, 1]);
        bench.memory = Memory::new(0, &FlowHasher::fixed());
        assert_eq!(to(&mut bench, 1, 0, &[0, 1]), Some(0), "{kind}");
        assert_eq!(to(&mut bench, 1, 0, &[1, 0]), Some(1), "{kind}");
    }
}
