//! Adding connections of which nothing is asked but to be there: of IPv4, under keys whose
//! places have room. Whatever else comes, [`ConnectionTable::insert`] adds.

use super::connection::mark;
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

/// Where its reply half can be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyVacancy {
    gap: Gap,
    /// Of its key.
    pub(crate) hash: u64,
}

/// A reply half of IPv4.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyHalf {
    pub(crate) key: PlainKey,
    pub(crate) deltas: (Delta, Delta),
    pub(crate) way: WayWord,
    pub(crate) place: ReplyVacancy,
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
        let gap = self.index.gap(place, None).ok_or(NoVacancy::Unclear)?;
        if self.free == NONE {
            return Err(NoVacancy::Full);
        }
        Ok(Vacancy { table: self, gap })
    }
}

impl<'a> Vacancy<'a> {
    /// Where the reply half can be, whose key this is; `None` if a closer look is needed.
    #[inline(always)]
    pub(crate) fn for_reply(&self, key: &PlainKey) -> Option<ReplyVacancy> {
        let hash = self.table.hasher.hash_plain(key);
        let place = self.table.index.buckets().place(hash);
        let gap = self.table.index.gap(place, Some(self.gap))?;
        Some(ReplyVacancy { gap, hash })
    }

    /// Adds a connection with the key whose place that is, without a reply half.
    #[inline(always)]
    pub(crate) fn fill(self, key: PlainKey, server: ServerId, beginning: &Beginning) {
        self.add(key, server, beginning, 0, mark::SENT);
    }

    /// The same with a reply half, which is not particular.
    #[inline(always)]
    pub(crate) fn fill_both(
        self,
        key: PlainKey,
        reply: ReplyHalf,
        server: ServerId,
        beginning: &Beginning,
    ) -> EntryIndex {
        let entry = self.table.free;
        let table = self.add(key, server, beginning, mark::TRANSLATED, mark::EXCHANGED);
        table.index.fill(reply.place.gap, entry | REPLY);
        let connection = &mut table.entries[entry as usize];
        connection.begin_replies(reply.key, reply.way, reply.deltas);
        EntryIndex(entry)
    }

    /// `straight` is the mark it has besides, once packets do not change its state.
    #[inline(always)]
    fn add(
        self,
        key: PlainKey,
        server: ServerId,
        beginning: &Beginning,
        marks: u8,
        straight: u8,
    ) -> &'a mut ConnectionTable {
        let Beginning { state, list, now } = *beginning;
        let table = self.table;
        let entry = table.free;
        let connection = &mut table.entries[entry as usize];
        table.free = connection.next;
        let marks = match state.is_kept() {
            true => marks | straight,
            false => marks,
        };
        connection.begin(key, marks);
        connection.server = server;
        connection.last_seen = truncate(now);
        connection.state = state;
        table.index.fill(self.gap, entry);
        table.used += 1;
        append(&mut table.entries, table.wheel.list_mut(list), list, entry);
        // The next one's line comes while this one's packet is sent.
        prefetch(&table.entries, table.free as usize);
        table
    }
}
