//! Adding connections of which nothing is asked but to be there: of IPv4, without a reply half, under a key whose
//! place has room. Whatever else comes, [`ConnectionTable::insert`] adds.

use super::straight::Straight;
use super::{Connection, ConnectionTable, NONE, append, truncate};
use crate::conn::wheel::Wheel;
use crate::conn::{Place, State, index};
use crate::flow::FlowKey;
use crate::processor::prefetch;
use crate::service::ServerId;

/// Where a connection that is not in the table can be added.
#[derive(Debug)]
pub(crate) struct Vacancy<'a> {
    index: index::Vacancy<'a>,
    entries: &'a mut [Connection],
    wheel: &'a mut Wheel,
    timeouts: &'a [u32; State::COUNT],
    free: &'a mut u32,
    used: &'a mut u32,
}

impl ConnectionTable {
    /// `None` if the table is full, or a closer look is needed.
    #[inline(always)]
    #[must_use]
    pub(crate) fn vacancy(&mut self, place: Place) -> Option<Vacancy<'_>> {
        let index = self.index.vacancy(place)?;
        (self.free != NONE).then_some(Vacancy {
            index,
            entries: &mut self.entries,
            wheel: &mut self.wheel,
            timeouts: &self.timeouts,
            free: &mut self.free,
            used: &mut self.used,
        })
    }
}

impl Vacancy<'_> {
    /// Adds a connection with the key whose place that is, of IPv4.
    #[inline(always)]
    pub(crate) fn fill(self, key: FlowKey, server: ServerId, state: State, now: u64) {
        let entry = *self.free;
        let connection = &mut self.entries[entry as usize];
        *self.free = connection.next;
        connection.key = key;
        connection.server = server;
        connection.last_seen = truncate(now);
        connection.state = state;
        connection.translated = false;
        connection.templated = false;
        connection.for_one_packet = false;
        connection.straight = match state.is_kept() {
            true => Straight::Sent,
            false => Straight::No,
        };
        self.index.fill(entry);
        *self.used += 1;
        let id = self.wheel.list_of(state, self.timeouts[state.index()], now);
        append(self.entries, self.wheel.list_mut(id), id, entry);
        // The next one's line comes while this one's packet is sent.
        prefetch(self.entries, *self.free as usize);
    }
}
