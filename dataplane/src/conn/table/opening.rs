//! Adding connections of which nothing is asked but to be there: of IPv4, under keys whose
//! places have room. Whatever else comes, [`ConnectionTable::insert`] adds.
//!
//! Those that begin together end up in one timer list, in the order in which they leave the free list. They are linked
//! there already, so that only the ends of the list are changed, once for all ([`Newcomers::end`]).

use std::hint::cold_path;

use super::connection::{Course, Standing, mark};
use super::reply::WayWord;
use super::{ConnectionTable, EntryIndex, NONE, REPLY, truncate};
use crate::conn::index::Index;
use crate::conn::wheel::List;
use crate::conn::{Connection, Place, Places, State};
use crate::flow::PlainKey;
use crate::processor::prefetch;
use crate::service::ServerId;
use crate::wire::checksum::Delta;

/// Connections that begin in one state at one time. Until [`end`](Self::end), the table has them in no list.
#[derive(Debug)]
#[must_use]
pub(crate) struct Newcomers<'a> {
    entries: &'a mut [Connection],
    index: &'a mut Index,
    /// The first one's entry, if there is one.
    first: u32,
    /// The last one's entry, or before there is one, that of who is last in the list.
    last: u32,
    /// The next one's entry; [`NONE`] if there is none.
    next: u32,
    standing: Standing,
    course: Course,
    now: u32,
    ends: &'a mut List,
    free: &'a mut u32,
    used: &'a mut u32,
}

/// A reply half of IPv4.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyHalf {
    pub(crate) key: PlainKey,
    pub(crate) deltas: (Delta, Delta),
    pub(crate) way: WayWord,
}

/// Why a connection cannot be added.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoVacancy {
    /// The table is full.
    Full,
    /// A closer look is needed: the key may be in the table, or its bucket is full.
    Unclear,
}

impl ConnectionTable {
    /// For connections of IPv4 in this state, without reply halves, or such that get one next
    /// ([`begin_replies`](Self::begin_replies)).
    #[inline(always)]
    pub(crate) fn newcomers(&mut self, state: State, replies: bool, now: u64) -> Newcomers<'_> {
        let timeout = self.timeouts[state.index()];
        let list = self.wheel.list_of(state, timeout, now);
        let ends = self.wheel.list_mut(list);
        // What `find_straight` would come to.
        let course = match (state.is_kept(), replies) {
            (true, false) => Course::Sent,
            (true, true) => Course::Exchanged,
            (false, _) => Course::None,
        };
        Newcomers {
            entries: &mut self.entries,
            index: &mut self.index,
            first: self.free,
            last: ends.tail,
            next: self.free,
            standing: Standing::new(list.raw(), state),
            course,
            now: truncate(now),
            ends,
            free: &mut self.free,
            used: &mut self.used,
        }
    }

    /// Gives a connection that was begun its reply half. What comes next is [`add_replies`](Self::add_replies).
    #[inline(always)]
    pub(crate) fn begin_replies(&mut self, entry: EntryIndex, reply: &ReplyHalf) {
        self.get_mut(entry)
            .begin_replies(reply.key, reply.way, reply.deltas);
    }

    /// Puts the reply half's key into the index, which has this place. If another connection has that key, or there is
    /// no room for it, false: then the connection has no reply half any more.
    #[inline(always)]
    #[must_use]
    pub(crate) fn add_replies(&mut self, entry: EntryIndex, place: Place) -> bool {
        self.index.insert_new(place, entry.0 | REPLY) || self.add_replies_after_all(entry)
    }

    /// The tag was there, or there is no room.
    #[cold]
    fn add_replies_after_all(&mut self, entry: EntryIndex) -> bool {
        let key = self.get(entry).plain_reply_key().into();
        let place = self.place(&key);
        let is_added =
            self.find(place, &key).is_none() && self.index.insert(place, entry.0 | REPLY);
        if !is_added {
            self.get_mut(entry).set(mark::TRANSLATED, false);
        }
        is_added
    }
}

impl Newcomers<'_> {
    /// Puts the next one into the index, under a key of this place. What comes next is [`begin`](Self::begin) or
    /// [`give_up`](Self::give_up).
    ///
    /// # Errors
    /// It cannot be added; nothing has changed.
    #[inline(always)]
    pub(crate) fn prepare(&mut self, place: Place) -> Result<EntryIndex, NoVacancy> {
        let entry = self.next;
        if entry == NONE {
            cold_path();
            return Err(match self.index.has_room_for_new(place) {
                true => NoVacancy::Full,
                false => NoVacancy::Unclear,
            });
        }
        match self.index.insert_new(place, entry) {
            true => Ok(EntryIndex(entry)),
            false => Err(NoVacancy::Unclear),
        }
    }

    /// The one that was prepared begins, with the key of the place.
    #[inline(always)]
    pub(crate) fn begin(&mut self, key: PlainKey, server: ServerId) {
        let entry = self.next;
        let connection = &mut self.entries[entry as usize];
        self.next = connection.next;
        connection.begin(key, server, self.course);
        connection.last_seen = self.now;
        connection.previous = self.last;
        connection.standing = self.standing;
        self.last = entry;
        // The next one's line comes while this one's packet is sent.
        prefetch(self.entries, self.next as usize);
    }

    /// The one that was prepared with this place does not begin.
    #[cold]
    #[inline(never)]
    pub(crate) fn give_up<const N: usize>(&mut self, places: &Places<N>, number: usize) {
        self.index.remove(places.get(number), self.next);
    }

    /// So many have begun ([`begin`](Self::begin)): from now on the table knows them.
    #[inline(always)]
    pub(crate) fn end(self, count: u32) {
        if count == 0 {
            return;
        }
        match self.entries.get_mut(self.ends.tail as usize) {
            Some(before) => before.next = self.first,
            // There is none.
            None => self.ends.head = self.first,
        }
        self.entries[self.last as usize].next = NONE;
        self.ends.tail = self.last;
        *self.free = self.next;
        *self.used += count;
    }
}
