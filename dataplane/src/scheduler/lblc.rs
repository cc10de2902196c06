//! `lblc`, locality-based least connection: what goes to one destination
//! address goes to one server, a cache that has it (`ip_vs_lblc.c`).
//!
//! The first connection to a destination chooses a server as `wlc` does. It
//! keeps that server until the server is gone or has more active connections
//! than its weight while another has less than half.

use super::candidates::{Candidates, least, overhead, weight_of};
use super::locality::Localities;
use super::{Candidate, Request, Servers};
use crate::service::{ServerId, VirtualServerId};

#[derive(Clone, Debug)]
pub struct Locality {
    candidates: Candidates,
}

impl Locality {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        Self {
            candidates: Candidates::new(candidates),
        }
    }

    pub(super) fn schedule(
        &self,
        service: VirtualServerId,
        localities: &mut Localities,
        request: &Request,
        servers: &impl Servers,
    ) -> Option<ServerId> {
        let now = request.seconds();
        let mut known = localities.of(service, request.destination, now);
        let last = known
            .as_ref()
            .and_then(|entry| entry.servers().first().copied());
        if let Some(last) = last
            && self.takes(last, servers)
            && !self.has_too_much(last, servers)
        {
            return Some(last);
        }
        let chosen = self.least(servers)?;
        if let Some(entry) = &mut known {
            entry.set(chosen, now);
        }
        Some(chosen)
    }

    /// What `wlc` would choose.
    pub(super) fn least(&self, servers: &impl Servers) -> Option<ServerId> {
        let cost = |candidate: Candidate| overhead(servers.load(candidate.server));
        least(self.candidates.open(servers), cost).map(|candidate| candidate.server)
    }

    /// True if `server` is one of ours that takes connections.
    pub(super) fn takes(&self, server: ServerId, servers: &impl Servers) -> bool {
        self.weight(server).is_some() && !servers.is_overloaded(server)
    }

    pub(super) fn weight(&self, server: ServerId) -> Option<u32> {
        weight_of(self.candidates.iter(), server)
    }

    /// True if a server has more active connections than its weight, and
    /// another one less than half of its own.
    pub(super) fn has_too_much(&self, server: ServerId, servers: &impl Servers) -> bool {
        let active = |server| u64::from(servers.load(server).active);
        let weight = self.weight(server).map_or(0, u64::from);
        active(server) > weight
            && self
                .candidates
                .iter()
                .any(|other| active(other.server) * 2 < u64::from(other.weight))
    }
}
