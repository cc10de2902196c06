//! The machines of several directors in simulated time, on a network that
//! loses, delays, reorders and duplicates, that falls apart and heals, while
//! directors crash, stop, start and are paused. Ten thousand seeds:
//!
//! - an address is held in state MASTER and in no other;
//! - when the network is fit, there is exactly one master for each part of it,
//!   and it is the one that should be;
//! - it is there within RFC 9568's bounds, Master_Down_Interval after a crash and a skew time after a
//!   stop, and stays;
//! - who should not be master does not try, where skew times tell directors apart;
//! - at a steady loss of 20 %, the master stays master.
//!
//! `VRRP_SEED=7 cargo test -p control --test vrrp_simulation` runs one seed,
//! `VRRP_SEEDS=1000000` more of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use control::vrrp::machine::State;

use world::{Random, World};

const SEEDS: u64 = 10_000;

/// Backup intervals at a loss of 20 %, and how often one took the silence of
/// the network for that of the master.
#[derive(Default)]
struct Loss {
    intervals: AtomicU64,
    mistaken: AtomicU64,
}

#[test]
fn directors_agree() {
    let loss = Loss::default();
    if let Ok(seed) = env::var("VRRP_SEED") {
        run(seed.parse().unwrap(), &loss);
        return;
    }
    let seeds = env::var("VRRP_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().unwrap().get().min(8);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let result = std::panic::catch_unwind(|| run(seed, &loss));
                    if let Err(why) = result {
                        eprintln!(
                            "again: VRRP_SEED={seed} cargo test -p control --test vrrp_simulation"
                        );
                        std::panic::resume_unwind(why);
                    }
                }
            });
        }
    });
    // Three advertisements lost in a row: 0.8 % of the intervals.
    let [intervals, mistaken] = [loss.intervals, loss.mistaken].map(AtomicU64::into_inner);
    assert!(
        mistaken * 1000 <= intervals * 9,
        "{mistaken} mistaken masters in {intervals} intervals"
    );
}

/// One story of a few directors.
fn run(seed: u64, loss: &Loss) {
    let mut random = Random::new(seed);
    let mut world = World::new(&mut random);
    chaos(&mut world, &mut random);
    heal(&mut world, "after the chaos");
    stays(&mut world, &mut random);
    crash(&mut world);
    stop(&mut world);
    parts(&mut world, &mut random);
    heal(&mut world, "after the network fell apart");
    steady_loss(&mut world, loss);
}

fn chaos(world: &mut World, random: &mut Random) {
    let end = world.intervals(8 + random.below(12));
    while world.elapsed() < end {
        match random.below(8) {
            0 => world.crash(random.index(world.len())),
            1 => world.stop(random.index(world.len())),
            2 | 3 => world.start(random.index(world.len())),
            4 => {
                let time = world.intervals(random.below(7));
                world.pause(random.index(world.len()), time);
            }
            5 => world.split(random.below(4)),
            6 => world.unsplit(),
            _ => {
                world.loss = random.below(60);
                world.duplicates = random.below(30);
                world.longest_delay = world.intervals(random.below(16)) / 10;
            }
        }
        world.run_for(world.intervals(random.below(200)) / 100);
    }
}

/// Everybody is there and hears everybody: there is one master, the right one.
fn heal(world: &mut World, when: &str) {
    world.repair();
    world.run_for(world.longest_election());
    let masters = world.masters();
    assert_eq!(masters.len(), 1, "masters {when}: {masters:?}\n{world}");
    if world.all_preempt() {
        // Of equal ones, whoever was first: none preempts the other.
        let best = world.best();
        assert!(best.contains(&masters[0]), "the master {when}\n{world}");
    }
}

fn stays(world: &mut World, random: &mut Random) {
    let changes = world.changes;
    world.run_for(world.intervals(3 + random.below(5)));
    assert_eq!(world.changes, changes, "changes without a cause\n{world}");
}

/// The master is silent: another is there within Master_Down_Interval, and if skew times tell the rest
/// apart, nobody else tries.
fn crash(world: &mut World) {
    let master = world.masters()[0];
    let bound = world.longest_master_down();
    let became = world.became_master();
    world.crash(master);
    world.run_for(bound + 2 * world.longest_delay);
    let masters = world.masters();
    assert_eq!(masters.len(), 1, "masters {bound:?} after a crash\n{world}");
    if world.has_clear_successor(master) {
        let tried = world.became_master() - became;
        assert_eq!(tried, 1, "masters one after the other\n{world}");
    }
    world.start(master);
    world.run_for(world.longest_election());
    assert_eq!(world.masters().len(), 1, "masters after a return\n{world}");
}

/// The master is stopped: another is there within a skew time.
fn stop(world: &mut World) {
    let master = world.masters()[0];
    let bound = world.longest_skew();
    world.settle(); // One before it that arrives after the last one would revoke it.
    world.stop(master);
    world.run_for(bound + 2 * world.longest_delay);
    let masters = world.masters();
    assert_eq!(masters.len(), 1, "masters {bound:?} after a stop\n{world}");
    assert_ne!(masters, [master], "it was stopped\n{world}");
    world.start(master);
    world.run_for(world.longest_election());
    assert_eq!(world.masters().len(), 1, "masters after a return\n{world}");
}

/// Each part of the network that has a director has one master.
fn parts(world: &mut World, random: &mut Random) {
    world.split(random.below(1 << world.len().min(16)));
    world.run_for(world.longest_election());
    for part in world.parts() {
        let masters = part.iter().filter(|place| world.is_master(**place));
        assert_eq!(masters.count(), 1, "masters of {part:?}\n{world}");
    }
}

fn steady_loss(world: &mut World, loss: &Loss) {
    const INTERVALS: u64 = 20;
    world.loss = 20;
    let master = world.masters()[0];
    let (became, released) = (world.became_master(), world.released_master(master));
    world.run_for(world.intervals(INTERVALS));
    // A mistaken equal with a higher address would win.
    if world.best() == [master] {
        assert_eq!(world.state(master), State::Master, "at 20 % loss\n{world}");
        assert_eq!(world.released_master(master), released, "flapped\n{world}");
    }
    if world.equal_intervals() {
        let backups = u64::try_from(world.len() - 1).unwrap();
        loss.intervals
            .fetch_add(INTERVALS * backups, Ordering::Relaxed);
        let mistaken = world.became_master() - became;
        loss.mistaken.fetch_add(mistaken, Ordering::Relaxed);
    }
    // Whoever was mistaken is put right by the next advertisement.
    world.loss = 0;
    world.run_for(world.interval() + 2 * world.longest_delay + Duration::from_millis(1));
    assert_eq!(world.masters().len(), 1, "masters after the loss\n{world}");
}
