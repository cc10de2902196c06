//! `rr`: each server in turn, whatever its weight (`ip_vs_rr.c`).

use super::memory::SchedulerState;
use super::{Candidate, Servers};
use crate::service::ServerId;

#[derive(Clone, Debug)]
pub struct RoundRobin {
    ids: Vec<ServerId>,
}

impl RoundRobin {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        Self {
            ids: candidates.map(|candidate| candidate.server).collect(),
        }
    }

    pub(super) fn schedule(
        &self,
        state: &mut SchedulerState,
        servers: &impl Servers,
    ) -> Option<ServerId> {
        for _ in 0..self.ids.len() {
            // The list may have become shorter since the last choice.
            let place = state.position as usize;
            let place = if place < self.ids.len() { place } else { 0 };
            state.position = u32::try_from(place + 1).unwrap_or(0);
            let server = self.ids[place];
            if !servers.is_overloaded(server) {
                return Some(server);
            }
        }
        None
    }
}
