//! How many connections a virtual server, and each source of clients, may have and begin.
//!
//! Only what begins a connection is looked at: a limit ends none that exist, and costs packets of
//! known connections nothing.
//!
//! A limit is for the whole director, not for each worker, because a client's connections arrive at
//! any of them. So what limits need is shared, and written only when a connection is admitted or ends:
//!
//! | Limit | Kept in | Error |
//! |---|---|---|
//! | rate of a virtual server | [`SharedBucket`], one word | none but the clock's millisecond |
//! | connections of a virtual server | [`ServiceStatistics`], a gauge a worker; the others' are added up once a millisecond | what the other workers admit in a millisecond |
//! | rate and connections of a source | [`Sources`], a table of fixed size | a source that is pushed out begins anew: admitted too often, never refused wrongly |
//!
//! Not done here: dropping whole prefixes, which the steering program does (`deny`), and SYNs that
//! are answered without a connection (the director's SYN proxy).

mod bucket;
mod sources;
mod statistics;

pub use bucket::{Rate, SharedBucket};
pub use sources::{Admitted, SourceKey, SourceRefusal, Sources};
pub use statistics::{RefusedBy, ServiceStatistics, ServiceTotals};

use crate::service::{Address, VirtualServerId};

/// The limits of a virtual server; the default limits nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections in any state at a time.
    pub max_connections: Option<u32>,
    /// New connections.
    pub rate: Option<Rate>,
    /// The same for each source.
    pub source: Option<SourceLimits>,
}

/// When SYNs of a virtual server are answered by the director, so that clients which do not
/// exist get no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SynProxy {
    Always,
    /// While there is an attack: from so many half-open connections on, over all workers, until there
    /// are less than half as many.
    UnderAttack {
        half_open: u32,
    },
}

/// What a new connection gets when the table is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The place of the half-open connection that was silent for longest; nothing if there is none.
    /// Established ones are never evicted.
    #[default]
    EvictHalfOpen,
    /// Nothing: it is dropped.
    DropNew,
}

/// The limits of each source of a virtual server's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceLimits {
    /// Connections in any state at a time.
    pub max_connections: Option<u32>,
    /// New connections.
    pub rate: Option<Rate>,
    /// Clients with the same so many leading bits are one source: 0..=32 with IPv4, 0..=128 with
    /// IPv6.
    pub granularity: u8,
}

impl SourceLimits {
    /// What a client's source is found by.
    #[must_use]
    pub fn key(&self, service: VirtualServerId, client: Address) -> SourceKey {
        SourceKey {
            service,
            network: client.network(self.granularity),
        }
    }

    /// True if what was counted for `other` is right for these.
    pub(crate) fn counts_like(&self, other: &Self) -> bool {
        self.granularity == other.granularity
            && self.max_connections.is_some() == other.max_connections.is_some()
    }
}
