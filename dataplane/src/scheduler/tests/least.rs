//! `lc`, `wlc`, `sed`, `nq` and `twos`: those that compare connections.

use super::*;

/// One server's active and inactive connections and weight.
type Figures = (u32, u32, u32);

fn figures() -> impl Strategy<Value = Vec<Figures>> {
    prop::collection::vec((0_u32..1000, 0_u32..1000, 0_u32..20), 1..8)
}

fn loads(figures: &[Figures]) -> Loads {
    let load = |&(active, inactive, _): &Figures| Load { active, inactive };
    Loads {
        loads: figures.iter().map(load).collect(),
        overloaded: Vec::new(),
    }
}

/// The chosen server and the first of those with the lowest cost, by
/// floating point.
fn chosen_and_least(
    kind: SchedulerKind,
    figures: &[Figures],
    cost: impl Fn(Figures) -> f64,
) -> (Option<u32>, Option<u32>) {
    let weights: Vec<_> = figures.iter().map(|figures| figures.2).collect();
    let chosen = Bench::new(kind, &weights).choose(&request(1), &loads(figures));
    let weighted = (0_u32..).zip(figures).filter(|(_, figures)| figures.2 > 0);
    let least = weighted
        .clone()
        .map(|(_, figures)| cost(*figures))
        .min_by(f64::total_cmp);
    let mut nearly = weighted
        .filter(|(_, figures)| least.is_some_and(|least| cost(**figures) <= least * (1.0 + 1e-12)));
    (chosen, nearly.next().map(|(id, _)| id))
}

fn overhead((active, inactive, _): Figures) -> f64 {
    f64::from(active) * 256.0 + f64::from(inactive)
}

proptest! {
    #[test]
    fn lc_chooses_the_least_connections(figures in figures()) {
        let (chosen, least) = chosen_and_least(SchedulerKind::LeastConnection, &figures, overhead);
        prop_assert_eq!(chosen, least);
    }

    #[test]
    fn wlc_chooses_the_least_connections_for_the_weight(figures in figures()) {
        let cost = |figures: Figures| overhead(figures) / f64::from(figures.2);
        let (chosen, least) = chosen_and_least(SchedulerKind::WeightedLeastConnection, &figures, cost);
        prop_assert_eq!(chosen, least);
    }

    #[test]
    fn sed_chooses_the_shortest_expected_delay(figures in figures()) {
        let cost = |(active, _, weight): Figures| (f64::from(active) + 1.0) / f64::from(weight);
        let (chosen, least) = chosen_and_least(SchedulerKind::ShortestExpectedDelay, &figures, cost);
        prop_assert_eq!(chosen, least);
    }

    #[test]
    fn nq_prefers_the_idle(mut figures in figures(), idle in 0_usize..16) {
        if let Some(server) = figures.get_mut(idle) {
            server.0 = 0;
        }
        // No delay at all on a server without active connections.
        let cost = |(active, _, weight): Figures| match active {
            0 => 0.0,
            _ => (f64::from(active) + 1.0) / f64::from(weight),
        };
        let (chosen, least) = chosen_and_least(SchedulerKind::NeverQueue, &figures, cost);
        prop_assert_eq!(chosen, least);
    }
}

/// The choices for connections that stay.
fn filled(kind: SchedulerKind, weights: &[u32], count: u32) -> Vec<u32> {
    let mut bench = Bench::new(kind, weights);
    let mut active = vec![0_u32; weights.len()];
    for number in 0..count {
        let chosen = bench.choose(&request(number), &Loads::active(&active));
        active[chosen.expect("a server") as usize] += 1;
    }
    active
}

#[test]
fn long_connections_are_shared_by_weight() {
    let weights = [1, 2, 5];
    for kind in [
        SchedulerKind::WeightedLeastConnection,
        SchedulerKind::ShortestExpectedDelay,
        SchedulerKind::NeverQueue,
    ] {
        assert_eq!(filled(kind, &weights, 800), [100, 200, 500], "{kind}");
    }
    let alike = filled(SchedulerKind::LeastConnection, &weights, 900);
    assert_eq!(alike, [300, 300, 300]);
}

/// A weight that is raised under load: new connections even it out.
#[test]
fn a_changed_weight_is_made_up_for() {
    for kind in [
        SchedulerKind::WeightedLeastConnection,
        SchedulerKind::ShortestExpectedDelay,
    ] {
        let mut bench = Bench::new(kind, &[1, 1]);
        let mut active = [100_u32, 100];
        bench.reweigh(&[1, 4]);
        for number in 0..300 {
            let chosen = bench.choose(&request(number), &Loads::active(&active));
            active[chosen.expect("a server") as usize] += 1;
        }
        assert_eq!(active, [100, 400], "{kind}");
    }
}

/// By hand, from (active + 1) / weight: with weights 1 and 3 the second server
/// gets three connections before the first gets one; `nq` sends the first
/// two connections to idle servers.
#[test]
fn sed_and_nq_differ_when_servers_are_idle() {
    let sequence = |kind| {
        let mut bench = Bench::new(kind, &[1, 3]);
        let mut active = [0; 2];
        let mut chosen = Vec::new();
        for number in 0..4 {
            let server = bench
                .choose(&request(number), &Loads::active(&active))
                .unwrap();
            active[server as usize] += 1;
            chosen.push(server);
        }
        chosen
    };
    // 1/1 and 1/3; 1/1 and 2/3; 1/1 and 3/3: the first of equals; 2/1 and 3/3.
    assert_eq!(sequence(SchedulerKind::ShortestExpectedDelay), [1, 1, 0, 1]);
    // Idle, idle; 2/1 and 2/3; 2/1 and 3/3.
    assert_eq!(sequence(SchedulerKind::NeverQueue), [0, 1, 1, 1]);
}

/// Without connections the first draw stands: shares are the weights'. With
/// one server that is far busier, it is taken only if drawn twice.
#[test]
fn twos_draws_by_weight_and_takes_the_less_busy() {
    const COUNT: u32 = 100_000;
    let shares = |loads: &Loads| {
        let mut bench = Bench::new(SchedulerKind::TwoChoices, &[1, 2, 5]);
        let choices: Vec<_> = (0..COUNT)
            .map(|number| bench.choose(&request(number), loads))
            .collect();
        let counts = count(&choices);
        [0, 1, 2].map(|id| f64::from(counts[&id]) / f64::from(COUNT))
    };
    let near = |got: [f64; 3], expected: [f64; 3]| {
        let off = (0..3)
            .map(|i| (got[i] - expected[i]).abs())
            .fold(0.0, f64::max);
        assert!(off < 0.01, "{got:?}, expected {expected:?}");
    };
    near(shares(&Loads::default()), [0.125, 0.25, 0.625]);
    // Server 2 is busy: 5/8 · 5/8. Server 0 with server 1: the first drawn stands.
    let both = 0.625 * 0.625;
    let rest = 1.0 - both;
    near(
        shares(&Loads::active(&[0, 0, 1000])),
        [rest / 3.0, rest * 2.0 / 3.0, both],
    );
}

/// Each worker draws its own numbers.
#[test]
fn twos_differs_between_workers() {
    let draws = [0, 1].map(|worker| {
        let mut bench = Bench::new(SchedulerKind::TwoChoices, &[1; 8]);
        bench.memory = Memory::new(worker, &FlowHasher::fixed());
        bench.choices(50)
    });
    assert_ne!(draws[0], draws[1]);
}
