//! `sh`, `dh` and `mh`: those that hash addresses.

use super::*;

const PLAIN: HashFlags = HashFlags::NONE;
const FALLBACK: HashFlags = HashFlags {
    port: false,
    fallback: true,
};
const PORT: HashFlags = HashFlags {
    port: true,
    fallback: false,
};

const BY_SOURCE: [fn(HashFlags) -> SchedulerKind; 2] =
    [SchedulerKind::SourceHash, SchedulerKind::MaglevHash];

#[test]
fn a_client_stays_and_weights_are_followed() {
    let weights = [1, 1, 2];
    for kind in BY_SOURCE.map(|kind| kind(PLAIN)) {
        let mut bench = Bench::new(kind, &weights);
        let chosen = bench.choices(40_000);
        assert_eq!(chosen, bench.choices(40_000), "{kind}");
        let counts = count(&chosen);
        for (id, weight) in (0..).zip(weights) {
            let expected = 10_000 * weight;
            let got = counts[&id];
            assert!(got.abs_diff(expected) < expected / 10, "{kind}: {counts:?}");
        }
    }
}

#[test]
fn the_port_counts_only_with_its_flag() {
    for kind in BY_SOURCE {
        for (flags, expected) in [(PLAIN, 1), (FALLBACK, 1), (PORT, 4)] {
            let mut bench = Bench::new(kind(flags), &[1; 4]);
            let choice = |client_port| {
                let request = Request {
                    client_port,
                    ..request(1)
                };
                bench.choose(&request, &Loads::default())
            };
            let counts = count(&(0..1000).map(choice).collect::<Vec<_>>());
            assert_eq!(counts.len(), expected, "{:?}", kind(flags));
        }
    }
}

#[test]
fn an_ipv6_client_is_hashed_whole() {
    for kind in BY_SOURCE.map(|kind| kind(PLAIN)) {
        let mut bench = Bench::new(kind, &[1; 4]);
        for word in 0..4 {
            let choices: Vec<_> = (1..200_u8)
                .map(|number| {
                    let mut octets = [0; 16];
                    octets[0] = 0x20;
                    octets[word * 4 + 3] = number;
                    let request = Request {
                        client: Address::from_octets(octets),
                        ..request(0)
                    };
                    bench.choose(&request, &Loads::default())
                })
                .collect();
            assert_eq!(count(&choices).len(), 4, "{kind} word {word}");
        }
    }
}

/// A server that takes no connections: its clients are refused or spread,
/// all others stay where they are.
#[test]
fn nobody_else_moves_when_a_weight_becomes_0() {
    for kind in BY_SOURCE {
        for flags in [PLAIN, FALLBACK] {
            let mut bench = Bench::new(kind(flags), &[1, 1, 1]);
            let before = bench.choices(10_000);
            bench.reweigh(&[1, 0, 1]);
            let after = bench.choices(10_000);
            bench.reweigh(&[1, 1, 1]);
            assert_eq!(bench.choices(10_000), before);
            let mut spread = HashMap::new();
            for (before, after) in before.into_iter().zip(after) {
                match before {
                    Some(1) => *spread.entry(after).or_insert(0) += 1,
                    stays => assert_eq!(after, stays),
                }
            }
            let mut places: Vec<_> = spread.keys().copied().collect();
            places.sort_unstable();
            let kind = kind(flags);
            if !flags.fallback {
                assert_eq!(places, [None], "{kind:?}");
            } else if kind == SchedulerKind::SourceHash(FALLBACK) {
                // IPVS looks from twice the bucket's number on: with three
                // servers in turn that is always the same neighbour's.
                assert_eq!(places, [Some(0)]);
            } else {
                assert_eq!(places, [0, 2].map(Some));
                // Neither of the two gets much more than half.
                assert!(spread.values().all(|count| *count < 2000), "{spread:?}");
            }
        }
    }
}

/// Computed by hand from `ip_vs_sh_hashkey` and `hash_32`: the bucket is the
/// upper byte of the address times 0x61C88647.
#[test]
fn sh_and_dh_use_ipvs_hash() {
    // 1.2.3.4 = 0x01020304; × 0x61C88647 = 0x…13c1a69c mod 2^32 → 0x13 = 19.
    let product = (0x0102_0304_u64 * 0x61C8_8647) % (1 << 32);
    let bucket = usize::try_from(product >> 24).unwrap();
    // Two servers of weight 1, newest first: even buckets are the second's.
    let expected = if bucket.is_multiple_of(2) { 1 } else { 0 };
    let request = Request {
        destination: client(0x0102_0304),
        ..request(0x0102_0304)
    };
    for kind in [
        SchedulerKind::SourceHash(PLAIN),
        SchedulerKind::DestinationHash,
    ] {
        let chosen = Bench::new(kind, &[1, 1]).choose(&request, &Loads::default());
        assert_eq!(chosen, Some(expected), "{kind}");
    }
}

#[test]
fn dh_looks_at_the_destination_only() {
    let mut bench = Bench::new(SchedulerKind::DestinationHash, &[1, 7, 1, 0]);
    let mut choose = |client_number, destination| {
        let request = Request {
            destination: client(destination),
            ..request(client_number)
        };
        bench.choose(&request, &Loads::default())
    };
    let mut counts = HashMap::new();
    for destination in 0..40_000 {
        let chosen = choose(1, destination);
        assert_eq!(chosen, choose(destination, destination));
        *counts.entry(chosen).or_insert(0_u32) += 1;
    }
    // A quarter each, whatever the weight; that of weight 0 is refused.
    for server in [None, Some(0), Some(1), Some(2)] {
        assert!(counts[&server].abs_diff(10_000) < 500, "{counts:?}");
    }
}

/// The table as the Maglev paper has it (§3.4, listing 1), from whole
/// permutations, one entry a turn; weights by turns.
fn paper_table(weights: &[u32], size: u64) -> Vec<usize> {
    use super::super::hash::siphash_1_3;
    let hash = |id: u32, key| u64::from(siphash_1_3(0x0a00_0001 + id + 80, key));
    let permutation = |id: u32| -> Vec<u64> {
        let offset = hash(id, 2_654_435_761) % size;
        let skip = hash(id, 2_654_446_892) % (size - 1) + 1;
        (0..size).map(|j| (offset + j * skip) % size).collect()
    };
    let permutations: Vec<_> = (0..).zip(weights).map(|(id, _)| permutation(id)).collect();
    let mut next = vec![0; weights.len()];
    let mut table = vec![usize::MAX; usize::try_from(size).unwrap()];
    let mut filled = 0;
    // IPVS lists the newest server first.
    let turns = (0..weights.len())
        .rev()
        .flat_map(|id| std::iter::repeat_n(id, weights[id] as usize));
    for id in turns.cycle() {
        let mut place = permutations[id][next[id]];
        while table[usize::try_from(place).unwrap()] != usize::MAX {
            next[id] += 1;
            place = permutations[id][next[id]];
        }
        table[usize::try_from(place).unwrap()] = id;
        next[id] += 1;
        filled += 1;
        if filled == size {
            break;
        }
    }
    table
}

#[test]
fn mh_has_the_table_of_the_paper() {
    use super::super::hash::siphash_1_3;
    for weights in [&[1, 1, 1][..], &[3, 0, 1, 2], &[5]] {
        let table = paper_table(weights, 4093);
        let mut bench = Bench::new(SchedulerKind::MaglevHash(PLAIN), weights);
        for number in 0..5000 {
            let bucket = siphash_1_3(number, 2_654_435_761) % 4093;
            let expected = u32::try_from(table[bucket as usize]).unwrap();
            assert_eq!(
                bench.choose(&request(number), &Loads::default()),
                Some(expected)
            );
        }
    }
}

/// Of 10 servers one goes: a tenth of the clients is its own; of the others
/// hardly anyone changes. `rr`-like tables such as that of `sh` move most.
#[test]
fn mh_disrupts_little() {
    let moved = |kind| {
        let mut bench = Bench::new(kind, &[1; 10]);
        let before = bench.choices(20_000);
        let mut rest = servers(&[1; 10]);
        rest.remove(4);
        bench.replace(&rest);
        let after = bench.choices(20_000);
        let pairs = before.iter().zip(&after);
        pairs
            .filter(|(before, after)| **before != Some(4) && before != after)
            .count()
    };
    let (mh, sh) = (
        moved(SchedulerKind::MaglevHash(PLAIN)),
        moved(SchedulerKind::SourceHash(PLAIN)),
    );
    assert!(mh < 20_000 / 25, "{mh} clients of other servers moved");
    assert!(sh > 20_000 / 3, "{sh}");
}

#[test]
fn mh_disrupts_little_when_a_weight_changes() {
    let mut bench = Bench::new(SchedulerKind::MaglevHash(PLAIN), &[4; 10]);
    let before = bench.choices(20_000);
    let mut weights = [4; 10];
    weights[3] = 2;
    bench.reweigh(&weights);
    let after = bench.choices(20_000);
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    // Half of a tenth has to move; the rest is the price of the turns.
    assert!((800..4000).contains(&moved), "{moved}");
}

/// With more servers than a small table serves evenly a larger one is taken.
#[test]
fn mh_is_even_with_many_servers() {
    let weights = vec![1; 1000];
    let counts = count(&Bench::new(SchedulerKind::MaglevHash(PLAIN), &weights).choices(1_000_000));
    let (least, most) = (
        counts.values().min().unwrap(),
        counts.values().max().unwrap(),
    );
    assert_eq!(counts.len(), 1000);
    assert!(*least > 750 && *most < 1250, "{least} to {most}");
}

#[test]
fn mh_scales_large_weights_down() {
    let counts =
        count(&Bench::new(SchedulerKind::MaglevHash(PLAIN), &[65_535, 65_534, 1]).choices(40_000));
    let share = |id| f64::from(counts.get(&id).copied().unwrap_or(0)) / 40_000.0;
    assert!(
        (share(0) - 0.5).abs() < 0.03 && (share(1) - 0.5).abs() < 0.03,
        "{counts:?}"
    );
    // Not nothing: as in IPVS at least one bucket in a round.
    assert!(share(2) > 0.001 && share(2) < 0.02, "{counts:?}");
}

#[test]
fn mh_is_shared_while_nothing_changes() {
    let mut bench = Bench::new(SchedulerKind::MaglevHash(PLAIN), &[1, 2]);
    let table = |bench: &Bench| {
        let Scheduler::MaglevHash(scheduler) = &bench.scheduler else {
            unreachable!("an mh scheduler")
        };
        scheduler.table_address()
    };
    let first = table(&bench);
    bench.reweigh(&[1, 2]);
    bench.reweigh(&[0, 2]);
    assert_eq!(table(&bench), first);
    bench.reweigh(&[3, 2]);
    assert_ne!(table(&bench), first);
}
