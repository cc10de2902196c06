//! Whether a virtual server takes one more connection, and what it has: see [`limits`](crate::limits).

use super::flows::Flows;
use super::sending::Refusal;
use crate::limits::{RefusedBy, ServiceTotals, SourceLimits, SourceRefusal, SynProxy};
use crate::persistence::{Persistence, TemplateKey};
use crate::service::{Address, ServerId, VirtualServerId};
use crate::snapshot::{Service, Snapshot};

/// What a worker keeps for the limits of virtual servers.
#[derive(Debug, Default)]
pub(super) struct ServiceLimits {
    /// Indexed by `VirtualServerId`.
    services: Vec<State>,
    /// Indexed by `ServerId`: also of servers that were removed and have connections left, for an id
    /// gets no other server before they are over.
    memberships: Vec<Option<VirtualServerId>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// By what a source's connections are counted.
    counted_by: Option<SourceLimits>,
    /// What its templates are found by: what was last heard of it, as long as they count connections.
    persistence: Option<Persistence>,
    /// What all other workers have, and when that was added up, in milliseconds.
    others: ServiceTotals,
    added_up: Option<u64>,
    under_attack: bool,
}

/// Whether SYNs are answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SynDefence {
    On,
    Off,
}

impl ServiceLimits {
    pub(super) fn adopt(&mut self, snapshot: &Snapshot) {
        for state in &mut self.services {
            state.counted_by = None;
        }
        for service in snapshot.services() {
            let at = service.id.0 as usize;
            if self.services.len() <= at {
                self.services.resize(at + 1, State::default());
            }
            let counts = |limits: &SourceLimits| limits.max_connections.is_some();
            let state = &mut self.services[at];
            state.counted_by = service.limits.source.filter(counts);
            state.persistence = service.persistence.or(state.persistence);
        }
        for (server, service) in snapshot.memberships() {
            let at = server.0 as usize;
            if self.memberships.len() <= at {
                self.memberships.resize(at + 1, None);
            }
            self.memberships[at] = Some(service);
        }
    }

    fn service_of(&self, server: ServerId) -> Option<VirtualServerId> {
        self.memberships.get(server.0 as usize).copied().flatten()
    }

    /// The template of a client that a server's virtual server bound to it, whether either is configured any more or not.
    pub(super) fn template(&self, server: ServerId, client: Address) -> Option<TemplateKey> {
        let service = self.service_of(server)?;
        let state = self.services.get(service.0 as usize)?;
        Some(state.persistence?.key(service, client))
    }
}

impl Flows {
    /// Counts a new connection of a client against the limits of a virtual server.
    ///
    /// # Errors
    /// They allow none: it is counted as refused and nowhere else.
    pub(super) fn admit(
        &mut self,
        snapshot: &Snapshot,
        service: &Service,
        client: Address,
        now: u64,
    ) -> Result<(), Refusal> {
        let admitted = self.admitted(snapshot, service, client, now);
        admitted.map_err(|by| {
            if let Some(statistics) = self.statistics.service(service.id) {
                statistics.count_refused(by);
            }
            Refusal::Drop(by.reason())
        })
    }

    fn admitted(
        &mut self,
        snapshot: &Snapshot,
        service: &Service,
        client: Address,
        now: u64,
    ) -> Result<(), RefusedBy> {
        let limits = &service.limits;
        if let Some(most) = limits.max_connections
            && self.service_totals(service.id, now).connections >= most
        {
            return Err(RefusedBy::Connections);
        }
        // A source that is refused takes nothing from the others' rate.
        if let Some(source) = &limits.source {
            let key = source.key(service.id, client);
            let admitted = snapshot.sources.admit(key, source, now);
            let admitted = admitted.map_err(|refusal| match refusal {
                SourceRefusal::Connections => RefusedBy::SourceConnections,
                SourceRefusal::Rate => RefusedBy::SourceRate,
            })?;
            self.counters.sources_evicted += u64::from(admitted.evicted);
        }
        if let Some(rate) = &limits.rate
            && !service.bucket.take(rate, now)
        {
            self.release_source(snapshot, service.id, client);
            return Err(RefusedBy::Rate);
        }
        Ok(())
    }

    /// A connection that was admitted ended, or was not made.
    pub(super) fn release_source(
        &self,
        snapshot: &Snapshot,
        service: VirtualServerId,
        client: Address,
    ) {
        let state = self.limits.services.get(service.0 as usize);
        if let Some(source) = state.and_then(|state| state.counted_by) {
            snapshot.sources.release(source.key(service, client));
        }
    }

    /// The gauges of a server's virtual server follow a connection, as
    /// [`ServiceStatistics::shift`](crate::limits::ServiceStatistics) says. Returns the virtual server.
    pub(super) fn shift_service(
        &self,
        server: ServerId,
        from: Option<bool>,
        to: Option<bool>,
    ) -> Option<VirtualServerId> {
        let id = self.limits.service_of(server)?;
        if let Some(statistics) = self.statistics.service(id) {
            statistics.shift(from, to);
        }
        Some(id)
    }

    /// Whether the SYNs of a virtual server are answered here now.
    pub(super) fn syn_defence(
        &mut self,
        id: VirtualServerId,
        proxy: SynProxy,
        now: u64,
    ) -> SynDefence {
        let SynProxy::UnderAttack { half_open: most } = proxy else {
            return SynDefence::On;
        };
        let half_open = self.service_totals(id, now).half_open;
        let Some(state) = self.limits.services.get_mut(id.0 as usize) else {
            return SynDefence::Off;
        };
        let least = if state.under_attack { most / 2 } else { most };
        let under_attack = half_open >= least;
        if under_attack != state.under_attack {
            state.under_attack = under_attack;
            if let Some(statistics) = self.statistics.service(id) {
                statistics.set_under_attack(under_attack);
            }
        }
        match under_attack {
            true => SynDefence::On,
            false => SynDefence::Off,
        }
    }

    /// What a virtual server has on all workers; of the others, up to a millisecond ago.
    fn service_totals(&mut self, id: VirtualServerId, now: u64) -> ServiceTotals {
        let own = self.statistics.service(id);
        let mut totals = own.map(|own| own.totals()).unwrap_or_default();
        let Some(state) = self.limits.services.get_mut(id.0 as usize) else {
            return totals;
        };
        if state.added_up != Some(now) {
            state.added_up = Some(now);
            state.others = ServiceTotals::default();
            for peer in &self.peers {
                state.others += peer
                    .service(id)
                    .map(|peer| peer.totals())
                    .unwrap_or_default();
            }
        }
        totals += state.others;
        totals
    }
}
