//! `wrr`: rounds from the highest weight down, each choosing the servers that
//! have at least the round's weight, so that choices are spread rather than bunched
//! (`ip_vs_wrr.c`).
//!
//! With weights 4, 3, 2 the rounds are A, AB, ABC, ABC.

use super::{Candidate, SchedulerState};
use crate::service::ServerId;

#[derive(Clone, Debug)]
pub struct WeightedRoundRobin {
    servers: Vec<Candidate>,
    highest: u32,
    /// Greatest common divisor of the weights: the step between rounds.
    step: u32,
}

impl WeightedRoundRobin {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        let servers: Vec<_> = candidates.collect();
        let weights = servers.iter().map(|candidate| candidate.weight);
        Self {
            highest: weights.clone().max().unwrap_or(0),
            step: weights.fold(0, greatest_common_divisor),
            servers,
        }
    }

    pub(super) fn schedule(&self, state: &mut SchedulerState) -> Option<ServerId> {
        if state.round_weight == 0 || state.round_weight > self.highest {
            state.round_weight = self.highest;
        }
        // At the latest the second pass over all servers is in a round that
        // the heaviest one takes part in.
        for _ in 0..=2 * self.servers.len() {
            let Some(candidate) = self.servers.get(state.position as usize) else {
                state.position = 0;
                state.round_weight = match state.round_weight.saturating_sub(self.step) {
                    0 => self.highest,
                    lower => lower,
                };
                continue;
            };
            state.position += 1;
            if candidate.weight >= state.round_weight {
                return Some(candidate.server);
            }
        }
        None
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}
