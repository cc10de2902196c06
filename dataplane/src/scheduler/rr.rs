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
        let turns = (0..self.ids.len()).filter_map(|_| self.turn(state));
        let mut open = turns.filter(|server| !servers.is_overloaded(*server));
        open.next()
    }

    /// Whose turn it is, overloaded or not; `None` if there is no server.
    #[inline(always)]
    pub(crate) fn turn(&self, state: &mut SchedulerState) -> Option<ServerId> {
        // The list may have become shorter since the last choice.
        let next = state.position as usize;
        let place = if next < self.ids.len() { next } else { 0 };
        let server = self.ids.get(place)?;
        state.position = u32::try_from(place + 1).unwrap_or(0);
        Some(*server)
    }
}
