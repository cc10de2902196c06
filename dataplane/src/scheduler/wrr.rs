//! `wrr`: rounds from the highest weight down, each choosing the servers that
//! have at least the round's weight, so that choices are spread rather than bunched
//! (`ip_vs_wrr.c`).
//!
//! With weights 4, 3, 2 the rounds are A, AB, ABC, ABC.

use super::memory::SchedulerState;
use super::{Candidate, Servers, greatest_common_divisor};
use crate::service::ServerId;

#[derive(Clone, Debug)]
pub struct WeightedRoundRobin {
    candidates: Vec<Candidate>,
    highest: u32,
    /// Greatest common divisor of the weights: the step between rounds.
    step: u32,
}

impl WeightedRoundRobin {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        let candidates: Vec<_> = candidates.collect();
        let weights = candidates.iter().map(|candidate| candidate.weight);
        Self {
            highest: weights.clone().max().unwrap_or(0),
            step: weights.fold(0, greatest_common_divisor),
            candidates,
        }
    }

    pub(super) fn schedule(
        &self,
        state: &mut SchedulerState,
        servers: &impl Servers,
    ) -> Option<ServerId> {
        if state.round_weight == 0 || state.round_weight > self.highest {
            state.round_weight = self.highest;
        }
        let chosen = self.walk(state, servers);
        if chosen.is_some() {
            return chosen;
        }
        // The heaviest servers are overloaded: on to the first round that
        // another one takes part in.
        let open = self
            .candidates
            .iter()
            .filter(|c| !servers.is_overloaded(c.server));
        state.round_weight = open.map(|candidate| candidate.weight).max()?;
        state.position = 0;
        self.walk(state, servers)
    }

    /// At the latest the second pass over all servers is in a round that the heaviest
    /// one takes part in.
    fn walk(&self, state: &mut SchedulerState, servers: &impl Servers) -> Option<ServerId> {
        for _ in 0..=2 * self.candidates.len() {
            let Some(candidate) = self.candidates.get(state.position as usize) else {
                state.position = 0;
                state.round_weight = match state.round_weight.saturating_sub(self.step) {
                    0 => self.highest,
                    lower => lower,
                };
                continue;
            };
            state.position += 1;
            if candidate.weight >= state.round_weight && !servers.is_overloaded(candidate.server) {
                return Some(candidate.server);
            }
        }
        None
    }
}
