//! `rr`: each server in turn, whatever its weight (`ip_vs_rr.c`).

use super::{Candidate, SchedulerState};
use crate::service::ServerId;

#[derive(Clone, Debug)]
pub struct RoundRobin {
    servers: Vec<ServerId>,
}

impl RoundRobin {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        Self {
            servers: candidates.map(|candidate| candidate.server).collect(),
        }
    }

    pub(super) fn schedule(&self, state: &mut SchedulerState) -> Option<ServerId> {
        // The list may have become shorter since the last choice.
        let place = if (state.position as usize) < self.servers.len() {
            state.position
        } else {
            0
        };
        state.position = place + 1;
        self.servers.get(place as usize).copied()
    }
}
