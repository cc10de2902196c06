//! Each algorithm against an independent statement of it.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::service::ForwardingMethod;

fn servers(weights: &[u32]) -> Vec<RealServer> {
    (0..)
        .zip(weights)
        .map(|(id, &weight)| RealServer {
            id: ServerId(id),
            address: Address::v4([10, 0, 0, 1]),
            port: 80,
            method: ForwardingMethod::Direct,
            weight,
            available: true,
            next_hop: None,
        })
        .collect()
}

fn scheduler(kind: SchedulerKind, weights: &[u32]) -> Scheduler {
    Scheduler::new(kind, &servers(weights))
}

/// The first `count` choices, without connections.
fn choices(scheduler: &Scheduler, state: &mut SchedulerState, count: usize) -> Vec<Option<u32>> {
    let client = Address::v4([1, 2, 3, 4]);
    (0..count)
        .map(|_| {
            scheduler
                .schedule(state, client, |_| Load::default())
                .map(|id| id.0)
        })
        .collect()
}

fn count(choices: &[Option<u32>]) -> HashMap<u32, u32> {
    let mut counts = HashMap::new();
    for choice in choices {
        *counts.entry(choice.expect("a server")).or_default() += 1;
    }
    counts
}

fn client(number: u32) -> Address {
    Address::v4(number.to_be_bytes())
}

#[test]
fn nobody_to_choose() {
    for (_, kind) in SchedulerKind::NAMES {
        for weights in [&[][..], &[0], &[0, 0, 0]] {
            let scheduler = scheduler(kind, weights);
            let chosen = choices(&scheduler, &mut SchedulerState::default(), 5);
            assert_eq!(chosen, [None; 5], "{kind} {weights:?}");
        }
        let mut down = servers(&[1, 1]);
        down.iter_mut().for_each(|server| server.available = false);
        let chosen = choices(
            &Scheduler::new(kind, &down),
            &mut SchedulerState::default(),
            5,
        );
        assert_eq!(chosen, [None; 5], "{kind}");
    }
}

#[test]
fn a_single_server_gets_everything() {
    for (_, kind) in SchedulerKind::NAMES {
        for weight in [1, 2, 65_535] {
            let chosen = choices(
                &scheduler(kind, &[weight]),
                &mut SchedulerState::default(),
                9,
            );
            assert_eq!(chosen, [Some(0); 9], "{kind} weight {weight}");
        }
    }
}

#[test]
fn rr_takes_turns_and_skips_weight_0() {
    let chosen = choices(
        &scheduler(SchedulerKind::RoundRobin, &[1, 0, 7]),
        &mut SchedulerState::default(),
        5,
    );
    assert_eq!(chosen, [0, 2, 0, 2, 0].map(Some));
}

#[test]
fn rr_goes_on_when_servers_go() {
    let mut state = SchedulerState::default();
    choices(
        &scheduler(SchedulerKind::RoundRobin, &[1; 9]),
        &mut state,
        8,
    );
    let chosen = choices(
        &scheduler(SchedulerKind::RoundRobin, &[1, 1]),
        &mut state,
        4,
    );
    assert_eq!(chosen, [0, 1, 0, 1].map(Some));
}

#[test]
fn wrr_interleaves_as_documented() {
    let chosen = choices(
        &scheduler(SchedulerKind::WeightedRoundRobin, &[4, 3, 2]),
        &mut SchedulerState::default(),
        9,
    );
    assert_eq!(chosen, [0, 0, 1, 0, 1, 2, 0, 1, 2].map(Some));
}

proptest! {
    /// Over any whole number of periods each server is chosen exactly by its weight.
    #[test]
    fn wrr_is_exact_over_a_period(weights in prop::collection::vec(0_u32..40, 1..8), periods in 1_usize..4) {
        prop_assume!(weights.iter().any(|&weight| weight > 0));
        let divisor = weights.iter().fold(0, |a, &b| (1..=40).rev().find(|d| a % d == 0 && b % d == 0).unwrap());
        let period: u32 = weights.iter().map(|weight| weight / divisor).sum();
        let scheduler = scheduler(SchedulerKind::WeightedRoundRobin, &weights);
        let chosen = count(&choices(&scheduler, &mut SchedulerState::default(), period as usize * periods));
        for (id, weight) in (0..).zip(&weights) {
            let expected = weight / divisor * u32::try_from(periods).unwrap();
            prop_assert_eq!(chosen.get(&id).copied().unwrap_or(0), expected);
        }
    }

    /// A weight that changes in the middle takes effect, and no state stops the scheduler.
    #[test]
    fn wrr_survives_changing_weights(
        before in prop::collection::vec(0_u32..100, 1..6),
        after in prop::collection::vec(1_u32..100, 1..6),
        steps in 0_usize..500,
    ) {
        let mut state = SchedulerState::default();
        choices(&scheduler(SchedulerKind::WeightedRoundRobin, &before), &mut state, steps);
        let total: u32 = after.iter().sum();
        let chosen = count(&choices(&scheduler(SchedulerKind::WeightedRoundRobin, &after), &mut state, total as usize * 4));
        for (id, &weight) in (0..).zip(&after) {
            // One unfinished period at most.
            let got = chosen.get(&id).copied().unwrap_or(0);
            prop_assert!(got >= weight * 3 && got <= weight * 5 + 1, "{id}: {got} of {weight}");
        }
    }

    /// The chosen server is one that no other beats, by exact rational comparison.
    #[test]
    fn wlc_chooses_a_least_loaded(loads in prop::collection::vec((0_u32..1000, 0_u32..1000, 0_u32..20), 1..8)) {
        let weights: Vec<_> = loads.iter().map(|load| load.2).collect();
        let scheduler = scheduler(SchedulerKind::WeightedLeastConnection, &weights);
        let load = |id: ServerId| {
            let (active, inactive, _) = loads[id.0 as usize];
            Load { active, inactive }
        };
        let chosen = scheduler.schedule(&mut SchedulerState::default(), client(1), load);
        let cost = |index: usize| {
            let (active, inactive, weight) = loads[index];
            f64::from(active * 256 + inactive) / f64::from(weight)
        };
        let best = (0..loads.len()).filter(|&i| weights[i] > 0).min_by(|&a, &b| cost(a).total_cmp(&cost(b)));
        match (chosen, best) {
            (Some(chosen), Some(best)) => prop_assert!((cost(chosen.0 as usize) - cost(best)).abs() < 1e-9),
            (chosen, best) => prop_assert!(chosen.is_none() && best.is_none()),
        }
    }
}

#[test]
fn wlc_shares_long_connections_by_weight() {
    let weights = [1, 2, 5];
    let scheduler = scheduler(SchedulerKind::WeightedLeastConnection, &weights);
    let mut active = [0_u32; 3];
    for _ in 0..800 {
        let load = |id: ServerId| Load {
            active: active[id.0 as usize],
            inactive: 0,
        };
        let chosen = scheduler.schedule(&mut SchedulerState::default(), client(1), load);
        active[chosen.expect("a server").0 as usize] += 1;
    }
    assert_eq!(active, [100, 200, 500]);
}

#[test]
fn sh_is_sticky_and_follows_the_weights() {
    let weights = [1, 1, 2];
    let scheduler = scheduler(SchedulerKind::SourceHash, &weights);
    let choose = |number| {
        scheduler.schedule(&mut SchedulerState::default(), client(number), |_| {
            Load::default()
        })
    };
    let mut counts = [0_u32; 3];
    for number in 0..40_000 {
        let chosen = choose(number);
        assert_eq!(chosen, choose(number));
        counts[chosen.expect("a server").0 as usize] += 1;
    }
    for (count, weight) in counts.into_iter().zip(weights) {
        let expected = 10_000 * weight;
        assert!(count.abs_diff(expected) < expected / 10, "{counts:?}");
    }
}

/// Computed by hand from `ip_vs_sh_hashkey` and `hash_32`: the bucket is the
/// upper byte of the address times 0x61C88647.
#[test]
fn sh_uses_ipvs_hash() {
    // 1.2.3.4 = 0x01020304; × 0x61C88647 = 0x…13c1a69c mod 2^32 → 0x13 = 19.
    let product = (0x0102_0304_u64 * 0x61C8_8647) % (1 << 32);
    let bucket = usize::try_from(product >> 24).unwrap();
    // Two servers of weight 1, newest first: even buckets are the second's.
    let expected = if bucket.is_multiple_of(2) { 1 } else { 0 };
    let scheduler = scheduler(SchedulerKind::SourceHash, &[1, 1]);
    let chosen = scheduler.schedule(&mut SchedulerState::default(), client(0x0102_0304), |_| {
        Load::default()
    });
    assert_eq!(chosen, Some(ServerId(expected)));
}

#[test]
fn sh_moves_nobody_else_when_a_weight_becomes_0() {
    let before = scheduler(SchedulerKind::SourceHash, &[1, 1, 1]);
    let after = scheduler(SchedulerKind::SourceHash, &[1, 0, 1]);
    let choose = |scheduler: &Scheduler, number| {
        scheduler.schedule(&mut SchedulerState::default(), client(number), |_| {
            Load::default()
        })
    };
    for number in 0..10_000 {
        match choose(&before, number) {
            Some(ServerId(1)) => assert_eq!(choose(&after, number), None),
            other => assert_eq!(choose(&after, number), other),
        }
    }
}
