//! `rr`, `wrr`, `fo` and `ovf`: turns and precedence.

use super::*;

#[test]
fn rr_takes_turns_and_skips_weight_0() {
    let chosen = Bench::new(SchedulerKind::RoundRobin, &[1, 0, 7]).choices(5);
    assert_eq!(chosen, [0, 2, 0, 2, 0].map(Some));
}

#[test]
fn rr_goes_on_when_servers_go() {
    let mut bench = Bench::new(SchedulerKind::RoundRobin, &[1; 9]);
    bench.choices(8);
    bench.reweigh(&[1, 1]);
    assert_eq!(bench.choices(4), [0, 1, 0, 1].map(Some));
}

#[test]
fn workers_begin_at_different_servers() {
    for kind in [SchedulerKind::RoundRobin, SchedulerKind::WeightedRoundRobin] {
        let first = [0, 1, 2].map(|worker| {
            let mut bench = Bench::new(kind, &[1, 1, 1]);
            bench.memory = Memory::new(worker, &FlowHasher::fixed());
            bench.choices(1)[0]
        });
        assert_eq!(first, [0, 1, 2].map(Some), "{kind}");
    }
}

#[test]
fn wrr_interleaves_as_documented() {
    let chosen = Bench::new(SchedulerKind::WeightedRoundRobin, &[4, 3, 2]).choices(9);
    assert_eq!(chosen, [0, 0, 1, 0, 1, 2, 0, 1, 2].map(Some));
}

#[test]
fn wrr_shares_by_weight_beside_an_overloaded_server() {
    let mut bench = Bench::new(SchedulerKind::WeightedRoundRobin, &[60_000, 4, 2]);
    let heavy = Loads::overloaded(&[0]);
    let chosen: Vec<_> = (0..600)
        .map(|number| bench.choose(&request(number), &heavy))
        .collect();
    assert_eq!(count(&chosen), HashMap::from([(1, 400), (2, 200)]));
}

proptest! {
    /// Over any whole number of periods each server is chosen exactly by its weight.
    #[test]
    fn wrr_is_exact_over_a_period(weights in prop::collection::vec(0_u32..40, 1..8), periods in 1_u32..4) {
        prop_assume!(weights.iter().any(|&weight| weight > 0));
        let divisor = weights.iter().fold(0, |a, &b| (1..=40).rev().find(|d| a % d == 0 && b % d == 0).unwrap());
        let period: u32 = weights.iter().map(|weight| weight / divisor).sum();
        let mut bench = Bench::new(SchedulerKind::WeightedRoundRobin, &weights);
        let chosen = count(&bench.choices(period * periods));
        for (id, weight) in (0..).zip(&weights) {
            prop_assert_eq!(chosen.get(&id).copied().unwrap_or(0), weight / divisor * periods);
        }
    }

    /// A weight that changes in the middle takes effect, and no state stops the scheduler.
    #[test]
    fn wrr_survives_changing_weights(
        before in prop::collection::vec(0_u32..100, 1..6),
        after in prop::collection::vec(1_u32..100, 1..6),
        steps in 0_u32..500,
    ) {
        let mut bench = Bench::new(SchedulerKind::WeightedRoundRobin, &before);
        bench.choices(steps);
        bench.reweigh(&after);
        let total: u32 = after.iter().sum();
        let chosen = count(&bench.choices(total * 4));
        for (id, &weight) in (0..).zip(&after) {
            // One unfinished period at most.
            let got = chosen.get(&id).copied().unwrap_or(0);
            prop_assert!(got >= weight * 3 && got <= weight * 5 + 1, "{id}: {got} of {weight}");
        }
    }

    /// Everything goes to the first of the heaviest that is open.
    #[test]
    fn fo_chooses_the_heaviest(weights in prop::collection::vec(0_u32..5, 1..8), overloaded in 0_u32..8) {
        let mut bench = Bench::new(SchedulerKind::Failover, &weights);
        let chosen = bench.choose(&request(1), &Loads::overloaded(&[overloaded]));
        let mut expected: Option<u32> = None;
        for (id, &weight) in (0..).zip(&weights) {
            if weight > 0 && id != overloaded && expected.is_none_or(|best| weight > weights[best as usize]) {
                expected = Some(id);
            }
        }
        prop_assert_eq!(chosen, expected);
    }

    /// The same among those whose active connections do not exceed their weight.
    #[test]
    fn ovf_chooses_the_heaviest_with_room(servers in prop::collection::vec((0_u32..5, 0_u32..7), 1..8)) {
        let (weights, active): (Vec<_>, Vec<_>) = servers.iter().copied().unzip();
        let mut bench = Bench::new(SchedulerKind::Overflow, &weights);
        let chosen = bench.choose(&request(1), &Loads::active(&active));
        let with_room = (0_u32..).zip(&servers).filter(|(_, (weight, active))| *weight > 0 && active <= weight);
        let best = with_room.clone().map(|(_, (weight, _))| *weight).max();
        let expected = with_room.clone().find(|(_, (weight, _))| Some(*weight) == best).map(|(id, _)| id);
        prop_assert_eq!(chosen, expected);
    }
}

/// By hand: weights 2 and 1, connections that stay. A server takes one more
/// connection than its weight, as in IPVS, then nobody takes any.
#[test]
fn ovf_fills_one_server_after_the_other() {
    let mut bench = Bench::new(SchedulerKind::Overflow, &[1, 2]);
    let mut active = [0; 2];
    let mut chosen = Vec::new();
    for number in 0..6 {
        let choice = bench.choose(&request(number), &Loads::active(&active));
        choice
            .into_iter()
            .for_each(|server| active[server as usize] += 1);
        chosen.push(choice);
    }
    assert_eq!(chosen, [Some(1), Some(1), Some(1), Some(0), Some(0), None]);
}
