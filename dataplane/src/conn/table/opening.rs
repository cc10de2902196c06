//! Adding connections of which nothing is asked but to be there: of IPv4, without a reply half, under a key whose
//! place has room. Whatever else comes, [`ConnectionTable::insert`] adds.

use super::straight::Straight;
use super::{Connection, ConnectionTable, NONE, append, truncate};
use crate::conn::wheel::{ListId, Wheel};
use crate::conn::{Place, State, index};
use crate::flow::FlowKey;
use crate::processor::prefetch;
use crate::service::ServerId;

/// What is the same for all connections that begin in one state at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    state: State,
    straight: Straight,
    list: ListId,
    now: u64,
}

/// Where a connection that is not in the table can be added.
#[derive(Debug)]
pub(crate) struct Vacancy<'a> {
    index: index::Vacancy<'a>,
    entries: &'a mut [Connection],
    wheel: &'a mut Wheel,
    free: &'a mut u32,
    used: &'a mut u32,
}

/// Why there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoVacancy {
    /// The table is full.
    Full,
    /// A closer look is needed: the key may be in the table, or its bucket is full.
    Unclear,
}

impl ConnectionTable {
    /// For connections of IPv4 in this state.
    #[must_use]
    pub(crate) fn beginning(&self, state: State, now: u64) -> Beginning {
        let timeout = self.timeouts[state.index()];
        Beginning {
            state,
            straight: match state.is_kept() {
                true => Straight::Sent,
                false => Straight::No,
            },
            list: self.wheel.list_of(state, timeout, now),
            now,
        }
    }

    /// Where a connection with a key of this place can be added.
    ///
    /// # Errors
    /// There may be no such place.
    #[inline(always)]
    pub(crate) fn vacancy(&mut self, place: Place) -> Result<Vacancy<'_>, NoVacancy> {
        let index = self.index.vacancy(place).ok_or(NoVacancy::Unclear)?;
        if self.free == NONE {
            return Err(NoVacancy::Full);
        }
        Ok(Vacancy {
            index,
            entries: &mut self.entries,
            wheel: &mut self.wheel,
            free: &mut self.free,
            used: &mut self.used,
        })
    }
}

impl Vacancy<'_> {
    /// Adds a connection with the key whose place that is.
    #[inline(always)]
    pub(crate) fn fill(self, key: FlowKey, server: ServerId, beginning: &Beginning) {
        let Beginning {
            state,
            straight,
            list,
            now,
        } = *beginning;
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
        connection.straight = straight;
        self.index.fill(entry);
        *self.used += 1;
        append(self.entries, self.wheel.list_mut(list), list, entry);
        // The next one's line comes while this one's packet is sent.
        prefetch(self.entries, *self.free as usize);
    }
}
