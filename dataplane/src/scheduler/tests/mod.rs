//! Each algorithm against an independent statement of it.

mod hashing;
mod least;
mod locality;
mod turns;

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::flow::FlowHasher;
use crate::service::{ForwardingMethod, HashFlags, Thresholds};

const SERVICE: VirtualServerId = VirtualServerId(0);

/// Real servers with ids from 0, each with an address of its own.
fn servers(weights: &[u32]) -> Vec<RealServer> {
    (0_u32..)
        .zip(weights)
        .map(|(id, &weight)| RealServer {
            id: ServerId(id),
            address: client(0x0a00_0001 + id),
            port: 80,
            method: ForwardingMethod::Direct,
            weight,
            available: true,
            drained: false,
            next_hop: None,
            thresholds: Thresholds::default(),
        })
        .collect()
}

fn client(number: u32) -> Address {
    Address::v4(number.to_be_bytes())
}

fn request(client_number: u32) -> Request {
    Request {
        client: client(client_number),
        client_port: 1024,
        destination: client(0xc0a8_0001),
        now: 0,
    }
}

/// Connections by server id; those beyond the list have none.
#[derive(Clone, Debug, Default)]
struct Loads {
    loads: Vec<Load>,
    overloaded: Vec<ServerId>,
}

impl Loads {
    fn active(active: &[u32]) -> Self {
        let load = |&active| Load {
            active,
            inactive: 0,
        };
        Self {
            loads: active.iter().map(load).collect(),
            overloaded: Vec::new(),
        }
    }

    fn overloaded(ids: &[u32]) -> Self {
        Self {
            loads: Vec::new(),
            overloaded: ids.iter().map(|id| ServerId(*id)).collect(),
        }
    }
}

impl Servers for Loads {
    fn load(&self, server: ServerId) -> Load {
        self.loads
            .get(server.0 as usize)
            .copied()
            .unwrap_or_default()
    }

    fn is_overloaded(&self, server: ServerId) -> bool {
        self.overloaded.contains(&server)
    }
}

/// A scheduler with a worker's memory.
struct Bench {
    kind: SchedulerKind,
    scheduler: Scheduler,
    memory: Memory,
}

impl Bench {
    fn new(kind: SchedulerKind, weights: &[u32]) -> Self {
        let mut memory = Memory::new(0, &FlowHasher::fixed());
        memory.remember_destinations();
        Self {
            kind,
            scheduler: Scheduler::new(kind, &servers(weights), None),
            memory,
        }
    }

    fn reweigh(&mut self, weights: &[u32]) {
        self.replace(&servers(weights));
    }

    fn replace(&mut self, servers: &[RealServer]) {
        self.scheduler = Scheduler::new(self.kind, servers, Some(&self.scheduler));
    }

    fn choose(&mut self, request: &Request, servers: &impl Servers) -> Option<u32> {
        let chosen = self
            .scheduler
            .schedule(SERVICE, &mut self.memory, request, servers);
        chosen.map(|server| server.0)
    }

    /// The choices for that many clients, without connections.
    fn choices(&mut self, count: u32) -> Vec<Option<u32>> {
        let nobody = Loads::default();
        (0..count)
            .map(|number| self.choose(&request(number), &nobody))
            .collect()
    }
}

fn count(choices: &[Option<u32>]) -> HashMap<u32, u32> {
    let mut counts = HashMap::new();
    for choice in choices {
        *counts.entry(choice.expect("a server")).or_default() += 1;
    }
    counts
}

/// Every kind, and those with flags.
fn every_kind() -> Vec<SchedulerKind> {
    let flags = [(false, true), (true, false), (true, true)];
    let flags = flags.map(|(port, fallback)| HashFlags { port, fallback });
    let flagged = flags.into_iter().flat_map(|flags| {
        [
            SchedulerKind::SourceHash(flags),
            SchedulerKind::MaglevHash(flags),
        ]
    });
    SchedulerKind::NAMES
        .map(|(_, kind)| kind)
        .into_iter()
        .chain(flagged)
        .collect()
}

/// True if a client whose server takes no connections gets none.
fn is_by_place(kind: SchedulerKind) -> bool {
    matches!(
        kind,
        SchedulerKind::SourceHash(HashFlags {
            fallback: false,
            ..
        }) | SchedulerKind::MaglevHash(HashFlags {
            fallback: false,
            ..
        }) | SchedulerKind::DestinationHash
    )
}

#[test]
fn nobody_to_choose() {
    for kind in every_kind() {
        for weights in [&[][..], &[0], &[0, 0, 0]] {
            let chosen = Bench::new(kind, weights).choices(5);
            assert_eq!(chosen, [None; 5], "{kind} {weights:?}");
        }
        let mut down = servers(&[1, 1]);
        down.iter_mut().for_each(|server| server.available = false);
        let mut bench = Bench::new(kind, &[1, 1]);
        bench.replace(&down);
        assert_eq!(bench.choices(5), [None; 5], "{kind}");
    }
}

#[test]
fn a_single_server_gets_everything() {
    for kind in every_kind() {
        for weight in [1, 2, 65_535] {
            let chosen = Bench::new(kind, &[weight]).choices(9);
            assert_eq!(chosen, [Some(0); 9], "{kind} weight {weight}");
        }
    }
}

#[test]
fn the_only_server_that_is_not_overloaded_gets_everything() {
    for kind in every_kind() {
        let mut bench = Bench::new(kind, &[9, 9, 1, 9]);
        let busy = Loads::overloaded(&[0, 1, 3]);
        for number in 0..50 {
            let chosen = bench.choose(&request(number), &busy);
            // The clients of the others may be refused.
            let refused = is_by_place(kind) && chosen.is_none();
            assert!(refused || chosen == Some(2), "{kind} client {number}");
        }
        assert_eq!(
            bench.choose(&request(1), &Loads::overloaded(&[0, 1, 2, 3])),
            None,
            "{kind}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever happens to weights and connections, only servers that take connections are
    /// chosen, and somebody is, as far as the algorithm allows.
    #[test]
    fn weights_change_under_load(
        steps in prop::collection::vec((prop::collection::vec(0_u32..6, 1..7), 0_u32..7, 1_u32..40), 1..12),
    ) {
        for kind in every_kind() {
            let mut bench = Bench::new(kind, &steps[0].0);
            let mut active = vec![0_u32; 8];
            for (weights, overloaded, connections) in &steps {
                bench.reweigh(weights);
                // Half of the connections end.
                active.iter_mut().for_each(|active| *active /= 2);
                for number in 0..*connections {
                    let mut loads = Loads::active(&active);
                    loads.overloaded = vec![ServerId(*overloaded)];
                    let takes = |server: u32| {
                        server != *overloaded && weights.get(server as usize).is_some_and(|weight| *weight > 0)
                    };
                    match bench.choose(&request(number), &loads) {
                        Some(server) => {
                            prop_assert!(takes(server), "{kind} chose {server} of {weights:?}");
                            active[server as usize] += 1;
                        }
                        None => {
                            let has_reason = is_by_place(kind) || kind == SchedulerKind::Overflow;
                            prop_assert!(has_reason || !(0..7).any(takes), "{kind} chose nobody of {weights:?}");
                        }
                    }
                }
            }
        }
    }
}
