//! `lblcr`, locality-based least connection with replication: as `lblc`, but
//! a destination that is too much for its server gets another one besides
//! (`ip_vs_lblcr.c`).
//!
//! Of a destination's servers the one with the least connections for its
//! weight is chosen. A set that did not change for a day loses the one with
//! the most. It has at most eight servers; IPVS knows no limit.

use super::candidates::{is_less, least, overhead};
use super::lblc::Locality;
use super::locality::{EXPIRATION, Localities};
use super::{Candidate, Request, Servers};
use crate::service::{ServerId, VirtualServerId};

#[derive(Clone, Debug)]
pub struct ReplicatedLocality {
    servers: Locality,
}

impl ReplicatedLocality {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        Self {
            servers: Locality::new(candidates),
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
        let Some(known) = localities.of(service, request.destination, now) else {
            return self.servers.least(servers);
        };
        let cost = |candidate: Candidate| overhead(servers.load(candidate.server));
        let before = known.clone();
        let set = before.servers().iter().filter_map(|server| {
            Some(Candidate {
                server: *server,
                weight: self.servers.weight(*server)?,
            })
        });
        let is_open = |candidate: &Candidate| !servers.is_overloaded(candidate.server);
        let chosen = least(set.clone().filter(is_open), cost).map(|candidate| candidate.server);
        if before.servers().len() > 1
            && before.unchanged(now) > EXPIRATION
            && let Some(most) = most(set, cost)
        {
            known.remove(most, now);
        }
        if let Some(chosen) = chosen
            && !self.servers.has_too_much(chosen, servers)
        {
            return Some(chosen);
        }
        let chosen = self.servers.least(servers)?;
        known.add(chosen, now);
        Some(chosen)
    }
}

/// The candidate with the highest cost for its weight; of equals the first.
fn most(
    mut candidates: impl Iterator<Item = Candidate>,
    cost: impl Fn(Candidate) -> u64,
) -> Option<ServerId> {
    let mut most = candidates.next()?;
    for candidate in candidates {
        if is_less(cost(most), most.weight, cost(candidate), candidate.weight) {
            most = candidate;
        }
    }
    Some(most.server)
}
