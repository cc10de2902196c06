//! Choosing a real server for a new connection.
//!
//! A [`Scheduler`] is the immutable part of an algorithm, built by the control
//! plane for one virtual server and carried in the snapshot; its
//! [`SchedulerState`] is the worker's own. One algorithm a file, each
//! following the IPVS module of the same name.
//!
//! Only servers that are available and have a weight are offered to a
//! scheduler, except to `sh`, whose table does not move when a weight becomes 0.
//!
//! Not done here: looking at existing connections, thresholds, persistence.

mod rr;
mod sh;
#[cfg(test)]
mod tests;
mod wlc;
mod wrr;

use crate::service::{Address, RealServer, SchedulerKind, ServerId};

/// A real server as schedulers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub server: ServerId,
    /// 1..=65535, or 0 where the algorithm keeps such servers in its table.
    pub weight: u32,
}

/// Connections of a real server, over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub active: u32,
    pub inactive: u32,
}

/// What a worker remembers between two choices of one virtual server. Starts
/// at zero and stays valid, if not fair for a moment, when the servers change.
#[derive(Clone, Copy, Debug, Default)]
pub struct SchedulerState {
    /// Place of the last choice.
    position: u32,
    /// `wrr` only: the weight that a server must have in this round.
    round_weight: u32,
}

impl SchedulerState {
    /// Starts at a place of its own, so that several workers do not all send
    /// their first connection to the same server.
    #[must_use]
    pub fn starting_at(position: u32) -> Self {
        Self {
            position,
            round_weight: 0,
        }
    }
}

/// An algorithm with its tables for one set of real servers.
#[derive(Clone, Debug)]
pub enum Scheduler {
    RoundRobin(rr::RoundRobin),
    WeightedRoundRobin(wrr::WeightedRoundRobin),
    WeightedLeastConnection(wlc::WeightedLeastConnection),
    SourceHash(sh::SourceHash),
}

impl Scheduler {
    /// Builds the tables of `kind` for servers in the order of configuration.
    #[must_use]
    pub fn new(kind: SchedulerKind, servers: &[RealServer]) -> Self {
        let available = servers.iter().filter(|server| server.available);
        let candidates = available.map(|server| Candidate {
            server: server.id,
            weight: server.weight,
        });
        let weighted = candidates.clone().filter(|candidate| candidate.weight > 0);
        match kind {
            SchedulerKind::RoundRobin => Self::RoundRobin(rr::RoundRobin::new(weighted)),
            SchedulerKind::WeightedRoundRobin => {
                Self::WeightedRoundRobin(wrr::WeightedRoundRobin::new(weighted))
            }
            SchedulerKind::WeightedLeastConnection => {
                Self::WeightedLeastConnection(wlc::WeightedLeastConnection::new(weighted))
            }
            SchedulerKind::SourceHash => Self::SourceHash(sh::SourceHash::new(candidates)),
        }
    }

    /// The server for a new connection of `client`; `None` when no server
    /// takes one.
    #[must_use]
    pub fn schedule(
        &self,
        state: &mut SchedulerState,
        client: Address,
        load: impl Fn(ServerId) -> Load,
    ) -> Option<ServerId> {
        match self {
            Self::RoundRobin(scheduler) => scheduler.schedule(state),
            Self::WeightedRoundRobin(scheduler) => scheduler.schedule(state),
            Self::WeightedLeastConnection(scheduler) => scheduler.schedule(load),
            Self::SourceHash(scheduler) => scheduler.schedule(client),
        }
    }

    /// True if the algorithm looks at the servers' connections.
    #[must_use]
    pub fn counts_connections(&self) -> bool {
        matches!(self, Self::WeightedLeastConnection(_))
    }
}
