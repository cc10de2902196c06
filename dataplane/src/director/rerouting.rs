//! When routes change, connections whose replies pass the director go the new ways as well: as with LVS, where the kernel
//! looks up the route of every reply. Here none is looked up for a packet; instead all connections are gone through, some
//! in each turn of the worker.

use super::flows::Flows;
use crate::conn::{ConnectionTable, Way};
use crate::routes::{Routes, Via};
use crate::service::{Address, MacAddress};
use crate::snapshot::Snapshot;

/// Entries of the connection table looked at in a turn: some 20 µs.
const AT_ONCE: usize = 256;

/// How far that is.
#[derive(Debug, Default)]
pub(super) struct Rerouting {
    /// Of the routes that connections go by, or will when this is done.
    revision: u64,
    /// The entry that is next; `None` when all are done.
    next: Option<usize>,
}

impl Rerouting {
    /// There are these routes from now on.
    pub(super) fn adopt(&mut self, routes: &Routes) {
        if routes.revision() != self.revision {
            self.revision = routes.revision();
            self.next = Some(0);
        }
    }
}

impl Flows {
    /// Finds the ways of some more connections again, if routes changed; true if there are others left.
    #[inline(always)]
    pub(super) fn reroute(&mut self, snapshot: &Snapshot, now: u64) -> bool {
        match self.rerouting.next {
            Some(start) => self.reroute_from(start, snapshot, now),
            None => false,
        }
    }

    #[cold]
    fn reroute_from(&mut self, start: usize, snapshot: &Snapshot, now: u64) -> bool {
        let end = start + AT_ONCE;
        let first_from = |table: &ConnectionTable, next| {
            let first = table.scan(next, end - next).next();
            first.map(|(entry, connection)| (entry, connection.key().source()))
        };
        let mut next = start;
        while let Some((entry, client)) = first_from(&self.table, next) {
            next = entry.number() + 1;
            let Some(reply) = self.table.reply(entry) else {
                continue;
            };
            let way = way_anew(&snapshot.routes, client, reply.way);
            if way != reply.way {
                let last_seen = now.saturating_sub(self.idle(entry, now).into());
                self.table.set_way(entry, way);
                self.share(entry, last_seen);
                // Replies may wait for the gateway that was their way.
                self.news = true;
            }
        }
        let has_more = end < self.table.capacity() && !self.table.is_empty();
        self.rerouting.next = has_more.then_some(end);
        has_more
    }
}

/// How replies leave that left this way. A client without a route keeps the way that it had, for there is no other one.
fn way_anew(routes: &Routes, client: Address, before: Way) -> Way {
    match (routes.route(client), before) {
        (Some(Via::Gateway(gateway)), _) => Way::Gateway(gateway),
        // Where it is is learned from its next request. Until then the gateway may still know, which is at no other port
        // than its own.
        (Some(Via::Link(port)), Way::Gateway(gateway)) => match routes.gateway(gateway) {
            Some(hop) => Way::Neighbor {
                port: hop.port,
                mac: hop.addresses.destination(),
            },
            None => Way::Neighbor {
                port,
                mac: MacAddress::default(),
            },
        },
        (Some(Via::Link(_)), Way::Neighbor { .. }) | (None, _) => before,
    }
}
