//! The straight way of new connections: the first packets of TCP and UDP over IPv4 for virtual servers where
//! nobody but the scheduler has a say ([`Snapshot::plain_service`]), by DR. What it does not
//! take, and whatever there is to refuse, is for [`Flows::decide`], which comes to the same.

use super::choose::Connections;
use super::flows::Flows;
use super::straight::{Burst, L3, Others};
use super::{Slot, What};
use crate::conn::{Candidate, Signal, State};
use crate::forward::direct;
use crate::scheduler::Request;
use crate::snapshot::{Path, Service, Snapshot};
use crate::wire;
use crate::xsk::umem::Umem;

impl Flows {
    /// Makes connections of those frames of a burst that begin one, and sends them; returns the others,
    /// which are unchanged.
    #[inline(never)]
    pub(super) fn open_straight(
        &mut self,
        others: Others,
        burst: &mut Burst<'_>,
        snapshot: &Snapshot,
        umem: &Umem,
        now: u64,
    ) -> Others {
        let Self {
            table, schedulers, ..
        } = self;
        let connections = Connections::<false> {
            snapshot,
            own: &self.statistics,
            peers: &self.peer_load,
            overloaded: &self.overloaded,
        };
        let (servers, services) = (self.statistics.servers(), self.statistics.services());
        // Many are for one virtual server.
        let mut last: Option<(u64, &Service)> = None;
        let left = burst.each_of(others, |slot, frame| {
            let state = first_state(slot)?;
            let service = match last {
                Some((word, service)) if word == slot.key.service_word() => service,
                _ => {
                    let service = snapshot.plain_service(&slot.key)?;
                    last = Some((slot.key.service_word(), service));
                    service
                }
            };
            // Asked anew: another frame of the burst may have had the same key.
            let vacancy = table.vacancy(slot.place)?;
            let bytes = umem.bytes_mut(frame);
            // Before it takes a turn of the scheduler's.
            if !direct::may_go_on(bytes) {
                return None;
            }
            let length = (bytes.len() - L3) as u64;
            let request = || Request {
                client: slot.key.source(),
                client_port: slot.key.source_port(),
                destination: slot.key.destination(),
                now,
            };
            let scheduler = &service.scheduler;
            let server = scheduler.schedule_any(service.id, schedulers, request, &connections)?;
            let Path::Direct(hop) = snapshot.paths().get(server.0 as usize)? else {
                return None;
            };
            if !direct::forward_plain(bytes, &hop.addresses) {
                return None;
            }
            vacancy.fill(slot.key, server, state, now);
            if let Some(statistics) = servers.get(server.0 as usize) {
                statistics.count_connection();
                statistics.shift(None, Some(state.is_active()));
                statistics.count_packet(length);
            }
            if let Some(statistics) = services.get(service.id.0 as usize) {
                statistics.shift(None, Some(state.is_half_open()));
            }
            Some(hop.port)
        });
        self.counters.connections_created += u64::from(others.len() - left.len());
        left
    }
}

/// The state that a plain packet of no connection begins one in.
#[inline(always)]
fn first_state(slot: &Slot) -> Option<State> {
    // That is IPv4 without options.
    let is_plain =
        slot.l3_offset == wire::PLAIN_L3_OFFSET && slot.l4_offset == wire::PLAIN_L4_OFFSET;
    if slot.candidate != Candidate::NONE || !is_plain {
        return None;
    }
    if slot.key.is_tcp() {
        let is_request = slot.what == What::Packet && Signal::Tcp(slot.tcp_flags).is_request();
        return is_request.then_some(State::SynRecv);
    }
    // Plain is either of the two.
    (slot.what == What::Plain).then_some(State::Udp)
}
