//! Which real server a new connection gets: by persistence, else by the
//! scheduler; and which servers are overloaded.

use std::cell::Cell;

use super::Slot;
use super::flows::Flows;
use crate::counters::{ServerStatistics, WorkerStatistics};
use crate::scheduler::{Load, Request, Servers};
use crate::service::{Address, ServerId};
use crate::snapshot::{Service, Snapshot};

/// The server of a new connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    pub(super) server: ServerId,
    /// A persistence template counts the connection.
    pub(super) templated: bool,
}

impl Flows {
    /// The server for the client that sent the packet; `None` if nobody takes
    /// it.
    pub(super) fn choose(
        &mut self,
        snapshot: &Snapshot,
        service: &Service,
        slot: &Slot,
        now: u64,
    ) -> Option<Chosen> {
        let Some(persistence) = &service.persistence else {
            let server = self.schedule(snapshot, service, slot, now)?;
            return Some(Chosen {
                server,
                templated: false,
            });
        };
        let templates = &snapshot.templates;
        let key = persistence.key(service.id, slot.key.source());
        let before = templates.server(&key, now);
        let kept = before.filter(|server| is_kept(snapshot, service, *server));
        let server = match kept {
            Some(server) => server,
            None => self.schedule(snapshot, service, slot, now)?,
        };
        let bound = templates.bind(&key, server, before, persistence.timeout, now);
        self.counters.templates_evicted += u64::from(bound.evicted);
        Some(Chosen {
            server: bound.server,
            templated: true,
        })
    }

    fn schedule(
        &mut self,
        snapshot: &Snapshot,
        service: &Service,
        slot: &Slot,
        now: u64,
    ) -> Option<ServerId> {
        let request = Request {
            client: slot.key.source(),
            client_port: slot.key.source_port(),
            destination: slot.key.destination(),
            now,
        };
        let servers = ServerLoads::<true> {
            snapshot,
            own: &self.statistics,
            peers: &self.peer_load,
            overloaded: &self.overloaded,
        };
        service
            .scheduler
            .schedule(service.id, &mut self.schedulers, &request, &servers)
    }

    /// A server got a connection: it may be overloaded from now on, even when
    /// connections end before it is looked at again.
    pub(super) fn note_load(&self, snapshot: &Snapshot, server: ServerId) {
        let servers = ServerLoads::<true> {
            snapshot,
            own: &self.statistics,
            peers: &self.peer_load,
            overloaded: &self.overloaded,
        };
        servers.update_overload(server);
    }

    /// A connection ended, or was not made: its template counts it no more.
    pub(super) fn release(&self, snapshot: &Snapshot, chosen: Chosen, client: Address, now: u64) {
        let Chosen { server, templated } = chosen;
        if templated && let Some(key) = self.limits.template(server, client) {
            snapshot.templates.release(&key, server, now);
        }
    }
}

/// True if a template may go on leading to this server (`ip_vs_check_template`,
/// which knows no drain).
fn is_kept(snapshot: &Snapshot, service: &Service, id: ServerId) -> bool {
    snapshot.server(id).is_some_and(|server| {
        let is_ours = snapshot.service_of(server).map(|own| own.id) == Some(service.id);
        let is_quiescent = server.weight == 0 && snapshot.expiry.quiescent_template;
        is_ours && server.available && !server.drained && !is_quiescent
    })
}

/// What schedulers may know of the servers; without `THRESHOLDS`, none is ever overloaded.
pub(super) struct ServerLoads<'f, const THRESHOLDS: bool> {
    pub(super) snapshot: &'f Snapshot,
    pub(super) own: &'f WorkerStatistics,
    pub(super) peers: &'f [Load],
    pub(super) overloaded: &'f [Cell<bool>],
}

impl<const THRESHOLDS: bool> Servers for ServerLoads<'_, THRESHOLDS> {
    fn load(&self, id: ServerId) -> Load {
        let own = self
            .own
            .server(id)
            .map(ServerStatistics::totals)
            .unwrap_or_default();
        let others = self.peers.get(id.0 as usize).copied().unwrap_or_default();
        Load {
            active: own.active.saturating_add(others.active),
            inactive: own.inactive.saturating_add(others.inactive),
        }
    }

    fn is_overloaded(&self, id: ServerId) -> bool {
        self.update_overload(id)
    }
}

impl<const THRESHOLDS: bool> ServerLoads<'_, THRESHOLDS> {
    /// Takes note if the server has reached its upper threshold, or come below the lower one; true if it is to get nothing
    /// until then.
    fn update_overload(&self, id: ServerId) -> bool {
        if !THRESHOLDS {
            return false;
        }
        let Some(server) = self.snapshot.server(id) else {
            return true;
        };
        if server.thresholds.upper == 0 {
            return false;
        }
        let Load { active, inactive } = self.load(id);
        let Some(overloaded) = self.overloaded.get(id.0 as usize) else {
            return false;
        };
        let connections = active.saturating_add(inactive);
        overloaded.set(server.thresholds.overloads(connections, overloaded.get()));
        overloaded.get()
    }
}
