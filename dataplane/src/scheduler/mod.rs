//! Choosing a real server for a new connection.
//!
//! A [`Scheduler`] is the immutable part of an algorithm, built by the control
//! plane for one virtual server and carried in the snapshot; its
//! [`Memory`] is the worker's own. One algorithm a file, each
//! following the IPVS module of the same name.
//!
//! Only servers that are available and have a weight are offered to a
//! scheduler, except to `sh`, `dh` and `mh`, whose tables do not move when a weight becomes 0.
//! One that is overloaded (see [`Servers::is_overloaded`]) is never chosen.
//!
//! Not done here: looking at existing connections, deciding that a server is
//! overloaded, persistence.

mod candidates;
mod dh;
mod fo;
mod hash;
mod lblc;
mod lblcr;
mod lc;
mod locality;
mod memory;
mod mh;
mod nq;
mod ovf;
mod rr;
mod sed;
mod sh;
#[cfg(test)]
mod tests;
mod twos;
mod wlc;
mod wrr;

pub use memory::Memory;

use crate::service::{Address, RealServer, SchedulerKind, ServerId, VirtualServerId};

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

/// What a scheduler may ask about real servers.
pub trait Servers {
    /// The connections of a server.
    fn load(&self, server: ServerId) -> Load;

    /// True if a server takes no connection because it has as many as its
    /// threshold allows.
    fn is_overloaded(&self, server: ServerId) -> bool;
}

/// The connection that a server is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub client: Address,
    /// Host byte order.
    pub client_port: u16,
    /// Where the client's packet goes: an address of the virtual server.
    pub destination: Address,
    /// Milliseconds since the worker's start.
    pub now: u64,
}

impl Request {
    /// Seconds since the worker's start.
    fn seconds(&self) -> u32 {
        u32::try_from(self.now / 1000).unwrap_or(u32::MAX)
    }
}

/// An algorithm with its tables for one set of real servers.
#[derive(Clone, Debug)]
pub enum Scheduler {
    RoundRobin(rr::RoundRobin),
    WeightedRoundRobin(wrr::WeightedRoundRobin),
    LeastConnection(lc::LeastConnection),
    WeightedLeastConnection(wlc::WeightedLeastConnection),
    Locality(lblc::Locality),
    ReplicatedLocality(lblcr::ReplicatedLocality),
    DestinationHash(dh::DestinationHash),
    SourceHash(sh::SourceHash),
    ShortestExpectedDelay(sed::ShortestExpectedDelay),
    NeverQueue(nq::NeverQueue),
    Failover(fo::Failover),
    Overflow(ovf::Overflow),
    MaglevHash(mh::MaglevHash),
    TwoChoices(twos::TwoChoices),
}

impl Scheduler {
    /// Builds the tables of `kind` for servers in the order of configuration.
    ///
    /// `before` is the scheduler that this one replaces: what is the same is
    /// shared with it.
    #[must_use]
    pub fn new(kind: SchedulerKind, servers: &[RealServer], before: Option<&Self>) -> Self {
        let available = servers.iter().filter(|server| server.available);
        let candidates = available.clone().map(|server| Candidate {
            server: server.id,
            weight: server.weight,
        });
        let weighted = candidates.clone().filter(|candidate| candidate.weight > 0);
        match kind {
            SchedulerKind::RoundRobin => Self::RoundRobin(rr::RoundRobin::new(weighted)),
            SchedulerKind::WeightedRoundRobin => {
                Self::WeightedRoundRobin(wrr::WeightedRoundRobin::new(weighted))
            }
            SchedulerKind::LeastConnection => {
                Self::LeastConnection(lc::LeastConnection::new(weighted))
            }
            SchedulerKind::WeightedLeastConnection => {
                Self::WeightedLeastConnection(wlc::WeightedLeastConnection::new(weighted))
            }
            SchedulerKind::Locality => Self::Locality(lblc::Locality::new(weighted)),
            SchedulerKind::ReplicatedLocality => {
                Self::ReplicatedLocality(lblcr::ReplicatedLocality::new(weighted))
            }
            SchedulerKind::DestinationHash => {
                Self::DestinationHash(dh::DestinationHash::new(candidates))
            }
            SchedulerKind::SourceHash(flags) => {
                Self::SourceHash(sh::SourceHash::new(flags, candidates))
            }
            SchedulerKind::ShortestExpectedDelay => {
                Self::ShortestExpectedDelay(sed::ShortestExpectedDelay::new(weighted))
            }
            SchedulerKind::NeverQueue => Self::NeverQueue(nq::NeverQueue::new(weighted)),
            SchedulerKind::Failover => Self::Failover(fo::Failover::new(weighted)),
            SchedulerKind::Overflow => Self::Overflow(ovf::Overflow::new(weighted)),
            SchedulerKind::MaglevHash(flags) => {
                let before = match before {
                    Some(Self::MaglevHash(before)) => Some(before),
                    Some(_) | None => None,
                };
                Self::MaglevHash(mh::MaglevHash::new(flags, available, before))
            }
            SchedulerKind::TwoChoices => Self::TwoChoices(twos::TwoChoices::new(weighted)),
        }
    }

    /// The server for a new connection to virtual server `service`, whose
    /// scheduler this is; `None` when no server takes one.
    #[must_use]
    pub fn schedule(
        &self,
        service: VirtualServerId,
        memory: &mut Memory,
        request: &Request,
        servers: &impl Servers,
    ) -> Option<ServerId> {
        match self {
            Self::RoundRobin(scheduler) => scheduler.schedule(memory.state(service)?, servers),
            Self::WeightedRoundRobin(scheduler) => {
                scheduler.schedule(memory.state(service)?, servers)
            }
            Self::LeastConnection(scheduler) => scheduler.schedule(servers),
            Self::WeightedLeastConnection(scheduler) => scheduler.schedule(servers),
            Self::Locality(scheduler) => {
                scheduler.schedule(service, &mut memory.localities, request, servers)
            }
            Self::ReplicatedLocality(scheduler) => {
                scheduler.schedule(service, &mut memory.localities, request, servers)
            }
            Self::DestinationHash(scheduler) => scheduler.schedule(request, servers),
            Self::SourceHash(scheduler) => scheduler.schedule(request, servers),
            Self::ShortestExpectedDelay(scheduler) => scheduler.schedule(servers),
            Self::NeverQueue(scheduler) => scheduler.schedule(servers),
            Self::Failover(scheduler) => scheduler.schedule(servers),
            Self::Overflow(scheduler) => scheduler.schedule(servers),
            Self::MaglevHash(scheduler) => scheduler.schedule(request, servers),
            Self::TwoChoices(scheduler) => scheduler.schedule(&mut memory.random, servers),
        }
    }

    /// True if the algorithm looks at the servers' connections.
    #[must_use]
    pub fn counts_connections(&self) -> bool {
        match self {
            Self::LeastConnection(_)
            | Self::WeightedLeastConnection(_)
            | Self::Locality(_)
            | Self::ReplicatedLocality(_)
            | Self::ShortestExpectedDelay(_)
            | Self::NeverQueue(_)
            | Self::Overflow(_)
            | Self::TwoChoices(_) => true,
            Self::RoundRobin(_)
            | Self::WeightedRoundRobin(_)
            | Self::DestinationHash(_)
            | Self::SourceHash(_)
            | Self::Failover(_)
            | Self::MaglevHash(_) => false,
        }
    }

    /// True if the worker has to [make room](Memory::remember_destinations)
    /// for where destinations went.
    #[must_use]
    pub fn remembers_destinations(&self) -> bool {
        matches!(self, Self::Locality(_) | Self::ReplicatedLocality(_))
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}
