//! Adding connections of which nothing is asked but to be there: of IPv4, under keys whose
//! places have room. Whatever else comes, [`ConnectionTable::insert`] adds.

use std::hint::cold_path;

use super::connection::Course;
use super::reply::WayWord;
use super::{ConnectionTable, EntryIndex, NONE, REPLY, append, truncate};
use crate::conn::index::Gap;
use crate::conn::wheel::ListId;
use crate::conn::{Place, State};
use crate::flow::PlainKey;
use crate::processor::prefetch;
use crate::service::ServerId;
use crate::wire::checksum::Delta;

/// What is the same for all connections that begin in one state at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    state: State,
    list: ListId,
    now: u64,
}

/// Where a connection that is not in the table can be added.
#[derive(Debug)]
pub(crate) struct Vacancy<'a> {
    table: &'a mut ConnectionTable,
    gap: Gap,
}

/// A reply half of IPv4.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyHalf {
    pub(crate) key: PlainKey,
    pub(crate) deltas: (Delta, Delta),
    pub(crate) way: WayWord,
}

/// Why there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoVacancy {
    /// The table is full.
    Full,
    /// A closer look is needed: the key may be in the table, or its bucket is full.
    Unclear,
}

impl Beginning {
    /// Since when, in the workers' milliseconds, plain packets of such a connection go straight on; `None` if they do
    /// not yet.
    pub(crate) fn straight_since(&self) -> Option<u64> {
        self.state.is_kept().then_some(self.now)
    }

    /// The course, if plain packets of such a connection go straight on: what `find_straight` would come to.
    fn once_kept(&self, course: Course) -> Course {
        match self.state.is_kept() {
            true => course,
            false => Course::None,
        }
    }
}

impl ConnectionTable {
    /// For connections of IPv4 in this state.
    #[must_use]
    pub(crate) fn beginning(&self, state: State, now: u64) -> Beginning {
        let timeout = self.timeouts[state.index()];
        Beginning {
            state,
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
        let gap = self.index.gap(place).ok_or(NoVacancy::Unclear)?;
        if self.free == NONE {
            return Err(NoVacancy::Full);
        }
        Ok(Vacancy { table: self, gap })
    }

    /// Adds the reply half of a connection that was begun, whose key has this place. False, and nothing changed, if
    /// another connection has that key, or there is no room for it.
    #[inline(always)]
    #[must_use]
    pub(crate) fn add_reply(&mut self, entry: EntryIndex, place: Place, reply: &ReplyHalf) -> bool {
        let number = entry.0 | REPLY;
        if !self.index.fill_gap(place, number) {
            cold_path();
            let is_there = self.find(place, &reply.key.into()).is_some();
            if is_there || !self.index.insert(place, number) {
                return false;
            }
        }
        self.get_mut(entry)
            .begin_replies(reply.key, reply.way, reply.deltas);
        true
    }
}

impl Vacancy<'_> {
    /// Adds a connection with the key whose place that is, without a reply half.
    #[inline(always)]
    pub(crate) fn fill(self, key: PlainKey, server: ServerId, beginning: &Beginning) {
        self.add(key, server, beginning, beginning.once_kept(Course::Sent));
    }

    /// Adds one whose reply half comes next ([`ConnectionTable::add_reply`]), or which is removed.
    #[inline(always)]
    pub(crate) fn begin(
        self,
        key: PlainKey,
        server: ServerId,
        beginning: &Beginning,
    ) -> EntryIndex {
        self.add(
            key,
            server,
            beginning,
            beginning.once_kept(Course::Exchanged),
        )
    }

    #[inline(always)]
    fn add(
        self,
        key: PlainKey,
        server: ServerId,
        beginning: &Beginning,
        course: Course,
    ) -> EntryIndex {
        let Beginning { state, list, now } = *beginning;
        let table = self.table;
        let entry = table.free;
        let connection = &mut table.entries[entry as usize];
        table.free = connection.next;
        connection.begin(key, server, course);
        connection.last_seen = truncate(now);
        connection.state = state;
        table.index.fill(self.gap, entry);
        table.used += 1;
        append(&mut table.entries, table.wheel.list_mut(list), list, entry);
        // The next one's line comes while this one's packet is sent.
        prefetch(&table.entries, table.free as usize);
        EntryIndex(entry)
    }
}
