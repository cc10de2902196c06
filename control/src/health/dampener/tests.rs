use proptest::prelude::*;

use super::*;
use crate::config::{CheckKind, CheckSource};

fn check(retry: u32, alpha: bool) -> Check {
    Check {
        kind: CheckKind::TcpCheck,
        target: "10.0.0.1:80".parse().unwrap(),
        source: CheckSource::default(),
        through_vip: false,
        connect_timeout: Duration::from_secs(3),
        delay_loop: Duration::from_secs(6),
        retry,
        rise: 1,
        delay_before_retry: Duration::from_secs(2),
        warmup: Duration::from_secs(10),
        alpha,
    }
}

/// Feeds tries (`P`assed, `F`ailed, `?` inconclusive), each taking no time and
/// made when due; returns one character per try (`U`p, `D`own, `.` no change)
/// and the seconds at which the tries were made.
fn play(check: &Check, tries: &str) -> (String, Vec<u64>) {
    let start = Instant::now();
    let mut dampener = Dampener::new(check, start, 0);
    let mut changes = String::new();
    let mut times = Vec::new();
    for result in tries.chars() {
        let now = dampener.next();
        times.push((now - start).as_secs());
        let change = match result {
            'P' => dampener.passed(now),
            'F' => dampener.failed(now),
            '?' => {
                dampener.inconclusive(now);
                None
            }
            other => panic!("no such result {other}"),
        };
        changes.push(match change {
            Some(Change::Up) => 'U',
            Some(Change::Down) => 'D',
            None => '.',
        });
    }
    (changes, times)
}

#[test]
fn checks_that_begin_late_and_together_are_spread_again() {
    let start = Instant::now();
    let seconds = |seconds: f64| start + Duration::from_secs_f64(seconds);
    let wanted = check(0, false);
    // In a warm-up of ten seconds: each part of it, and the loops of six seconds that follow.
    for (part, due, loops) in [
        (1, 0.5, 2),
        (5, 2.5, 2),
        (9, 4.5, 2),
        (13, 6.5, 1),
        (17, 8.5, 1),
    ] {
        let mut dampener = Dampener::new(&wanted, start, u32::MAX / 20 * part);
        // All begin after nine seconds, and each takes a second.
        dampener.begin(seconds(9.0));
        dampener.passed(seconds(10.0));
        let next = (dampener.next() - start).as_secs_f64();
        let expected = due + 1.0 + 6.0 * f64::from(loops);
        assert!((next - expected).abs() < 0.01, "{next}, not {expected}");
    }
}

#[test]
fn a_server_that_is_down_rises_after_successes_in_a_row() {
    let mut wanted = check(0, true);
    wanted.rise = 3;
    let (changes, times) = play(&wanted, "PPFPPPF");
    assert_eq!(changes, ".....UD");
    // Successes that are not enough are confirmed after delay_before_retry.
    assert_eq!(times, [0, 2, 4, 10, 12, 14, 20]);
}

#[test]
fn changes_and_times_are_keepaliveds() {
    // retry, alpha, tries, changes, seconds of the tries
    let table: [(u32, bool, &str, &str, &[u64]); 9] = [
        // Passing: every delay_loop.
        (3, false, "PPP", "...", &[0, 6, 12]),
        // Down at failure retry + 1, tries delay_before_retry apart.
        (3, false, "FFFF", "...D", &[0, 2, 4, 6]),
        (1, false, "PFFP", "..DU", &[0, 6, 8, 14]),
        // No retries: the first failure counts.
        (0, false, "FP", "DU", &[0, 6]),
        // A success in between starts the count again.
        (1, false, "FPFPFF", ".....D", &[0, 2, 8, 10, 16, 18]),
        // Down: every delay_loop, without retries.
        (2, false, "FFFFFP", "..D..U", &[0, 2, 4, 10, 16, 22]),
        // alpha: down until the first success, failures say nothing new.
        (1, true, "FFP", "..U", &[0, 6, 12]),
        (1, true, "PFF", "U.D", &[0, 6, 8]),
        // Inconclusive tries neither count nor excuse.
        (1, false, "F??FP", "...DU", &[0, 2, 8, 14, 20]),
    ];
    for (retry, alpha, tries, changes, times) in table {
        let (found, at) = play(&check(retry, alpha), tries);
        assert_eq!(found, changes, "retry {retry} alpha {alpha} {tries}");
        assert_eq!(at, times, "retry {retry} alpha {alpha} {tries}");
    }
}

#[test]
fn warmup_spreads_first_tries_evenly() {
    let check = check(0, false);
    let now = Instant::now();
    let mut per_second = [0; 10];
    for i in 0..10_000_u32 {
        let first = Dampener::new(&check, now, i * (u32::MAX / 10_000)).next() - now;
        assert!(first < check.warmup);
        per_second[usize::try_from(first.as_secs()).unwrap()] += 1;
    }
    assert!(per_second.iter().all(|n| (990..=1010).contains(n)));
}

#[test]
fn extreme_durations_do_not_panic() {
    let mut check = check(1, false);
    check.delay_loop = Duration::MAX;
    check.delay_before_retry = Duration::ZERO;
    check.warmup = Duration::MAX;
    let now = Instant::now();
    let mut dampener = Dampener::new(&check, now, u32::MAX);
    assert_eq!(dampener.failed(now), None);
    assert_eq!(dampener.next(), now + SHORTEST_DELAY);
    assert_eq!(dampener.passed(now), None);
    assert_eq!(dampener.next(), now + A_YEAR);
}

#[test]
fn resume_keeps_what_was_known() {
    let now = Instant::now();
    let mut down = Dampener::resume(&check(3, false), false, now, 0);
    assert_eq!(down.failed(now), None);
    assert_eq!(down.passed(now), Some(Change::Up));
    let mut up = Dampener::resume(&check(0, true), true, now, 0);
    assert_eq!(up.failed(now), Some(Change::Down));
}

proptest! {
    /// Against the rule in one sentence: down exactly when the last retry + 1
    /// conclusive tries failed since it was up, up at every success.
    #[test]
    fn agrees_with_the_rule(retry in 0_u32..5, alpha: bool, tries in "[PF?]{0,60}") {
        let (changes, times) = play(&check(retry, alpha), &tries);
        let mut up = !alpha;
        let mut run = 0;
        for (result, change) in tries.chars().zip(changes.chars()) {
            let before = up;
            match result {
                'P' => { run = 0; up = true; }
                'F' => { run += 1; if run > retry { up = false; } }
                _ => {}
            }
            let expected = match (before, up) {
                (false, true) => 'U',
                (true, false) => 'D',
                (false, false) | (true, true) => '.',
            };
            prop_assert_eq!(change, expected);
        }
        prop_assert!(times.windows(2).all(|w| [2, 6].contains(&(w[1] - w[0]))));
    }
}
