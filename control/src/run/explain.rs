//! Answering `explain`: what the control loop knows, and what the workers have.

use std::sync::Arc;
use std::sync::mpsc;

use dataplane::bpf::Rule;
use dataplane::scheduler::Load;
use dataplane::service::{Address, ServiceKey};
use dataplane::snapshot::Service;
use dataplane::worker::{self, Request};
use tokio::sync::oneshot;
use tracing::warn;

use super::Appliance;
use super::queries::LISTING_PATIENCE;
use crate::api::view::Explanation;
use crate::explain::{self, Existing, Known, Question};

impl Appliance {
    /// Looks for the connection on a thread of its own: workers list all that they have.
    pub(super) fn explain(&self, question: Question, reply: oneshot::Sender<Explanation>) {
        let snapshot = self.published.load_full();
        let client = Address::from(question.client.ip());
        let service = snapshot.service(client, &question.key());
        let name = service.and_then(|service| self.name_of(service));
        let config = self.controller.config();
        let refused = Rule::RefusedAddress(question.key().address);
        let mut known = Known {
            interfaces: (self.controller.ports().iter())
                .chain(&self.workers.way_back)
                .map(|port| (port.number, port.name.clone()))
                .collect(),
            now: worker::clock(),
            denied: config.appliance.denies(question.client.ip()),
            // While the address is here.
            refused: config.refuses_packets_to(&question.key())
                && (self.controller.steering_rules()).any(|rule| *rule == refused),
            totals: service.map(|service| self.workers.service_totals(service.id)),
            ..Known::default()
        };
        let names = self.controller.servers().by_id();
        for (id, _) in service
            .iter()
            .flat_map(|service| explain::servers_of(&snapshot, service))
        {
            let totals = self.workers.totals(id);
            let load = Load {
                active: totals.active,
                inactive: totals.inactive,
            };
            known.loads.insert(id, load);
            let states = names.get(&id).map(|name| self.controller.checks(*name));
            let failed = states.into_iter().flatten().find(|state| !state.passes());
            let reason = failed.and_then(|state| state.reason.clone());
            known.reasons.extend(reason.map(|reason| (id, reason)));
        }
        let mut listings = Vec::with_capacity(self.workers.handles.len());
        for handle in &self.workers.handles {
            let (sender, receiver) = mpsc::channel();
            // A worker that has ended drops the request, which ends the listing.
            drop(handle.requests.send(Request::Connections(sender)));
            listings.push(receiver);
        }
        let snapshot = Arc::clone(&snapshot);
        tokio::task::spawn_blocking(move || {
            known.existing = match find(&question, listings) {
                Ok(existing) => existing,
                Err(Silent(worker)) => {
                    warn!(
                        "worker {worker} did not go on listing its connections in {LISTING_PATIENCE:?}"
                    );
                    return;
                }
            };
            let answer = explain::explain(&question, &snapshot, &known, |_| name.clone());
            // The client may be gone.
            drop(reply.send(answer));
        });
    }

    fn name_of(&self, service: &Service) -> Option<String> {
        let ids = self.controller.servers();
        let mut services = self.controller.config().virtual_servers.iter();
        let found = services.find(|own| ids.virtual_server_id(own.key) == Some(service.id));
        found.map(|own| format!("{}, {}", own.key, own.scheduler))
    }
}

/// A worker that takes too long: whether it has the connection is not known.
#[derive(Debug)]
struct Silent(u32);

/// The connection of the client among all that workers have.
fn find(
    question: &Question,
    listings: Vec<mpsc::Receiver<Vec<dataplane::worker::ConnectionRecord>>>,
) -> Result<Option<Existing>, Silent> {
    let wanted: ServiceKey = question.key();
    for (worker, listing) in (0..).zip(listings) {
        loop {
            let records = match listing.recv_timeout(LISTING_PATIENCE) {
                Ok(records) => records,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(Silent(worker)),
            };
            let found = records.iter().find(|record| {
                record.key.client() == question.client && record.key.service() == wanted
            });
            if let Some(record) = found {
                return Ok(Some(Existing {
                    server: record.server,
                    state: record.state,
                    is_translated: record.is_translated,
                    worker,
                }));
            }
        }
    }
    Ok(None)
}
