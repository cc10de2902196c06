//! The connection table: fixed in size, one cache line an entry.
//!
//! Invariants:
//! - An entry is free (in the free list, in no index bucket, in no timer list)
//!   or used (in exactly one bucket chain and exactly one timer list).
//! - Entries never move, so an [`EntryIndex`] stays good until its removal.
//! - Nothing is allocated after [`ConnectionTable::new`] but what few directors need, once, when it is
//!   configured.
//!
//! Of a connection whose replies pass the director (NAT, FULLNAT) the key of its replies is kept as well, and it is
//! in the index under both. Either key, turned round, is what packets of the other direction are translated to, so
//! nothing else has to be kept for rewriting. Two keys of IPv4 have room in the entry; any others take a second line, at the
//! same number in `wide_replies`.
//!
//! Not done here: choosing servers, counting, deciding what a state means.

mod connection;
mod handshakes;
mod lookup;
mod opening;
mod reply;
mod straight;

pub use self::connection::Connection;
use self::connection::{Course, Standing, mark};
pub use self::lookup::Lookup;
pub(crate) use self::opening::{NoVacancy, ReplyHalf};
pub(crate) use self::reply::WayWord;
use self::reply::WideReply;
pub use self::reply::{Reply, Way};
pub(crate) use self::straight::StraightConnections;
use super::index::{Index, Place};
use super::wheel::{List, ListId, NONE, Wheel};
use super::{Handshake, State, Timeouts};
use crate::flow::{FlowHasher, FlowKey, PlainKey};
use crate::processor::prefetch;
use crate::service::{PortIndex, ServerId};

/// A place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryIndex(u32);

impl EntryIndex {
    /// One like any other, where there is none yet.
    pub(crate) const FIRST: Self = Self(0);

    /// For tables beside this one.
    pub(crate) fn number(self) -> usize {
        self.0 as usize
    }
}

/// What the index says of a key before anything is compared: an entry and which of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate(u32);

impl Candidate {
    /// There is none.
    pub const NONE: Self = Self(NONE);
}

/// Set in an entry number of the index that stands for the entry's reply key.
const REPLY: u32 = 1 << 31;

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Request,
    /// From the real server.
    Reply,
}

/// The table holds as many connections as it can, and none of them may be
/// evicted for the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection table is full")]
pub struct TableFull;

/// What a new connection is, besides its key.
#[derive(Clone, Copy, Debug)]
pub struct New {
    pub server: ServerId,
    pub state: State,
    /// For a method that translates replies.
    pub reply: Option<Reply>,
    /// A persistence template counts it.
    pub templated: bool,
    /// It ends when its first packet is sent.
    pub for_one_packet: bool,
}

/// The connections of one worker.
#[derive(Debug)]
pub struct ConnectionTable {
    entries: Vec<Connection>,
    /// Some connections are translated: [`translate_replies`](ConnectionTable::translate_replies).
    translates: bool,
    /// Empty until [`translate_wide_replies`](ConnectionTable::translate_wide_replies).
    wide_replies: Vec<WideReply>,
    /// Empty until [`remember_handshakes`](ConnectionTable::remember_handshakes).
    handshakes: Vec<Handshake>,
    index: Index,
    wheel: Wheel,
    hasher: FlowHasher,
    /// First free entry, chained by `next`.
    free: u32,
    used: u32,
    timeouts: [u32; State::COUNT],
}

impl ConnectionTable {
    /// A table for `capacity` connections (at least one), about 90 bytes each; every page is
    /// touched here rather than while forwarding.
    #[must_use]
    pub fn new(capacity: u32, hasher: FlowHasher, timeouts: &Timeouts) -> Self {
        let capacity = capacity.max(1);
        let entries = (1..=capacity)
            .map(|next| match next == capacity {
                true => Connection::free(NONE, FREE),
                false => Connection::free(next, FREE),
            })
            .collect();
        Self {
            entries,
            translates: false,
            wide_replies: Vec::new(),
            handshakes: Vec::new(),
            index: Index::new(capacity),
            wheel: Wheel::new(),
            hasher,
            free: 0,
            used: 0,
            timeouts: timeouts.by_state(),
        }
    }

    /// Connections in the table.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.used
    }

    /// How many more there is room for.
    pub(crate) fn free(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX) - self.used
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Most connections it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Bytes allocated.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.entries.len() * size_of::<Connection>()
            + self.wide_replies.len() * size_of::<WideReply>()
            + self.handshakes.len() * size_of::<Handshake>()
            + self.index.memory()
    }

    /// From now on lookups look for replies as well.
    pub fn translate_replies(&mut self) {
        self.translates = true;
    }

    /// Makes room for reply halves of connections of which not all addresses are IPv4, 64 bytes a connection; nothing the
    /// second time. A million connections take about 20 ms, once.
    pub fn translate_wide_replies(&mut self) {
        let room = self.entries.len();
        self.wide_replies.resize(room, WideReply::default());
    }

    /// New timeouts, for states entered and timers examined from now on: an
    /// idle connection notices a shorter one within four minutes.
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) {
        self.timeouts = timeouts.by_state();
    }

    /// Where a key belongs: what the other calls want.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, key: &FlowKey) -> Place {
        self.index.buckets().place(self.hasher.hash(key))
    }

    /// What a key comes to, the same in the tables of all workers.
    #[inline(always)]
    pub(crate) fn hash(&self, key: &FlowKey) -> u64 {
        self.hasher.hash(key)
    }

    /// The first two steps of a lookup, which many of them take before any takes the next.
    #[inline(always)]
    #[must_use]
    pub fn lookup(&self) -> Lookup<'_> {
        Lookup {
            buckets: self.index.buckets(),
            entries: &self.entries,
            wide_replies: &self.wide_replies,
            hasher: &self.hasher,
        }
    }

    /// True once a connection may have a reply half.
    #[inline(always)]
    #[must_use]
    pub fn has_replies(&self) -> bool {
        self.translates
    }

    /// Third step, for packets that may go straight on.
    #[inline(always)]
    #[must_use]
    pub(crate) fn straight(&mut self) -> StraightConnections<'_> {
        StraightConnections(&mut self.entries)
    }

    /// Third step, for connections whose replies are translated by nothing but their keys: the connection, its reply half
    /// and the packet's direction.
    #[must_use]
    pub fn translated(
        &self,
        candidate: Candidate,
        key: &FlowKey,
    ) -> Option<(EntryIndex, Reply, Direction)> {
        let entry = EntryIndex(candidate.0 & !REPLY);
        let connection = self.entries.get(entry.number())?;
        if connection.is(mark::PARTICULAR | mark::PROXIED | mark::FOR_ONE_PACKET) {
            return None;
        }
        let reply = self.reply(entry)?;
        let (own, direction) = match candidate.0 & REPLY {
            0 => (connection.key(), Direction::Request),
            _ => (reply.key, Direction::Reply),
        };
        own.same(key).then_some((entry, reply, direction))
    }

    /// The connection with this key, whatever the candidate is, and the direction of a packet with it.
    #[must_use]
    pub fn find(&self, place: Place, key: &FlowKey) -> Option<(EntryIndex, Direction)> {
        let number = self.index.find(place, |number| {
            let entry = EntryIndex(number & !REPLY);
            match number & REPLY {
                0 => self.get(entry).key().same(key),
                _ => self.reply(entry).is_some_and(|reply| reply.key.same(key)),
            }
        })?;
        let direction = match number & REPLY {
            0 => Direction::Request,
            _ => Direction::Reply,
        };
        Some((EntryIndex(number & !REPLY), direction))
    }

    /// The reply half of a connection that has one.
    #[inline(always)]
    #[must_use]
    pub fn reply(&self, entry: EntryIndex) -> Option<Reply> {
        self.get(entry).reply(self.wide_replies.get(entry.number()))
    }

    /// A request came by this port from the MAC address that these bytes of its frame end with
    /// ([`up_to_source`](crate::wire::ethernet::up_to_source)): a client that is a neighbour is answered there. True if
    /// that was elsewhere before.
    pub(crate) fn learn_way(
        &mut self,
        entry: EntryIndex,
        ingress: PortIndex,
        source: [u8; 8],
    ) -> bool {
        let connection = &mut self.entries[entry.number()];
        if !connection.is(mark::WIDE) {
            let learned = connection.way().learned(ingress, source);
            if let Some(way) = learned {
                connection.set_way(way);
            }
            return learned.is_some();
        }
        let Some(wide) = self.wide_replies.get_mut(entry.number()) else {
            return false;
        };
        let learned = wide.way.learned(ingress, source);
        wide.way = learned.unwrap_or(wide.way);
        learned.is_some()
    }

    /// From now on replies of a translated connection leave this way.
    pub(crate) fn set_way(&mut self, entry: EntryIndex, way: Way) {
        let connection = &mut self.entries[entry.number()];
        if !connection.is(mark::WIDE) {
            connection.set_way(way.into());
        } else if let Some(wide) = self.wide_replies.get_mut(entry.number()) {
            wide.way = way.into();
        }
    }

    /// From now on the keys of a translated connection say all that its packets become.
    pub(crate) fn make_ordinary(&mut self, entry: EntryIndex) {
        let connection = self.get_mut(entry);
        connection.set(mark::PARTICULAR, false);
        connection.find_straight();
    }

    /// What is in an entry.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, entry: EntryIndex) -> &Connection {
        &self.entries[entry.0 as usize]
    }

    /// The same, to be refreshed.
    #[inline(always)]
    pub fn get_mut(&mut self, entry: EntryIndex) -> &mut Connection {
        &mut self.entries[entry.0 as usize]
    }

    /// Changes the state (or repeats a half-open one), which restarts its timer.
    pub fn set_state(&mut self, entry: EntryIndex, state: State, now: u64) {
        let connection = &mut self.entries[entry.0 as usize];
        connection.standing.state = state;
        connection.last_seen = truncate(now);
        connection.find_straight();
        self.unlink(entry.0);
        self.link(entry.0, now);
    }

    /// The last packet of the connection was seen so many milliseconds ago, which restarts its timer.
    pub(crate) fn set_idle(&mut self, entry: EntryIndex, idle: u32, now: u64) {
        let connection = &mut self.entries[entry.0 as usize];
        connection.last_seen = truncate(now).wrapping_sub(idle);
        self.unlink(entry.0);
        self.link(entry.0, now);
    }

    /// Adds a connection that is not in the table, with its reply half if it has one, whose key must
    /// not be in the table either.
    ///
    /// # Errors
    /// The table is full. [`oldest_evictable`](Self::oldest_evictable) may
    /// then be removed to make room.
    pub fn insert(
        &mut self,
        place: Place,
        key: FlowKey,
        new: New,
        now: u64,
    ) -> Result<EntryIndex, TableFull> {
        let entry = self.free;
        if entry == NONE || !self.index.insert(place, entry) {
            return Err(TableFull);
        }
        let is_wide = !key.is_v4() || new.reply.is_some_and(|reply| !reply.key.is_v4());
        if let Some(reply) = new.reply {
            let has_room = !is_wide || self.wide_replies.len() == self.entries.len();
            if !has_room || !self.index.insert(self.place(&reply.key), entry | REPLY) {
                self.index.remove(place, entry);
                return Err(TableFull);
            }
        }
        let connection = &mut self.entries[entry as usize];
        self.free = connection.next;
        let reply = new.reply.unwrap_or_default();
        let deltas = (reply.network, reply.transport);
        if is_wide {
            connection.begin_wide(key, deltas, new.server);
            if let Some(wide) = self.wide_replies.get_mut(entry as usize) {
                (wide.key, wide.way) = (reply.key, reply.way.into());
            }
        } else {
            connection.begin(key.plain(), new.server, Course::None);
            if new.reply.is_some() {
                let key = reply.key.plain();
                connection.begin_replies(key, reply.way.into(), deltas);
            }
        }
        connection.standing.state = new.state;
        connection.set(mark::TRANSLATED, new.reply.is_some());
        connection.set(mark::PARTICULAR, reply.particular);
        connection.set(mark::TEMPLATED, new.templated);
        connection.set(mark::FOR_ONE_PACKET, new.for_one_packet);
        connection.find_straight();
        connection.last_seen = truncate(now);
        self.used += 1;
        self.link(entry, now);
        Ok(EntryIndex(entry))
    }

    /// Removes a connection and returns what it was.
    pub fn remove(&mut self, entry: EntryIndex) -> Connection {
        let number = entry.0;
        self.unlink(number);
        let connection = self.get(entry).clone();
        self.index.remove(self.place(&connection.key()), number);
        if let Some(reply) = self.reply(entry) {
            self.index.remove(self.place(&reply.key), number | REPLY);
        }
        self.entries[entry.number()] = Connection::free(self.free, FREE);
        self.free = number;
        self.used -= 1;
        connection
    }

    /// Of the connections that may be evicted the one that was silent for longest: half-open ones, of which nobody may
    /// know, and those for one packet, which have done their work but for fragments of it.
    #[must_use]
    pub fn oldest_evictable(&self, now: u64) -> Option<EntryIndex> {
        let oldest = self.queue_heads();
        oldest.max_by_key(|oldest| self.get(*oldest).idle(now))
    }

    /// The oldest of each half-open state, and for one packet.
    fn queue_heads(&self) -> impl Iterator<Item = EntryIndex> {
        let heads = ListId::QUEUES.map(|id| self.wheel.list(id).head);
        heads
            .into_iter()
            .filter(|head| *head != NONE)
            .map(EntryIndex)
    }

    /// Examines at most `budget` timers and returns one connection whose time is over, for the
    /// caller to remove; `None` when there is none or the budget is used up.
    pub fn expired(&mut self, now: u64, budget: &mut u32) -> Option<EntryIndex> {
        let mut oldest_ones = self.queue_heads();
        if let Some(oldest) = oldest_ones.find(|oldest| self.remaining(oldest.0, now) == 0) {
            *budget = budget.checked_sub(1)?;
            return Some(oldest);
        }
        drop(oldest_ones);
        while let Some(slot) = self.wheel.due(now) {
            *budget = budget.checked_sub(1)?;
            let entry = self.wheel.list(slot).head;
            if self.remaining(entry, now) == 0 {
                return Some(EntryIndex(entry));
            }
            self.unlink(entry);
            self.link(entry, now);
        }
        None
    }

    /// Fetches the buckets that it takes to remove an expired connection and, of the next [`EXPIRED_TOGETHER`] in its list,
    /// those whose time is over as well.
    pub(crate) fn prefetch_expired(&self, first: EntryIndex, now: u64) {
        let lookup = self.lookup();
        let fetch = |key: PlainKey| {
            let hash = lookup.hasher().hash_plain(&key);
            lookup.prefetch(lookup.buckets.place(hash));
        };
        let mut entry = first.0;
        for _ in 0..EXPIRED_TOGETHER {
            let Some(connection) = self.entries.get(entry as usize) else {
                return;
            };
            let is_plain = !connection.is(mark::WIDE);
            if is_plain && self.remaining(entry, now) == 0 {
                fetch(connection.plain_key());
                if connection.is_translated() {
                    fetch(connection.plain_reply_key());
                }
            }
            entry = connection.next;
        }
        prefetch(&self.entries, entry as usize);
    }

    /// Used entries at or after `start`, at most `limit` places further on:
    /// for listing the table piecemeal.
    pub fn scan(
        &self,
        start: usize,
        limit: usize,
    ) -> impl Iterator<Item = (EntryIndex, &Connection)> {
        let end = start.saturating_add(limit).min(self.entries.len());
        let start = start.min(end);
        // There are no more than a `u32` says.
        let numbers = u32::try_from(start).unwrap_or(u32::MAX)..;
        (numbers.map(EntryIndex))
            .zip(&self.entries[start..end])
            .filter(|(_, connection)| connection.standing.list != FREE)
    }

    /// Milliseconds that the connection may still be silent.
    fn remaining(&self, entry: u32, now: u64) -> u32 {
        let connection = &self.entries[entry as usize];
        let timeout = self.timeouts[connection.standing.state.index()];
        let timeout = match connection.is_for_one_packet() {
            true => timeout.min(ONE_PACKET_TIMEOUT),
            false => timeout,
        };
        timeout.saturating_sub(connection.idle(now))
    }

    fn link(&mut self, entry: u32, now: u64) {
        let connection = &self.entries[entry as usize];
        let id = match connection.is_for_one_packet() {
            true => ListId::ONE_PACKET,
            false => {
                let remaining = self.remaining(entry, now);
                self.wheel.list_of(connection.state(), remaining, now)
            }
        };
        append(&mut self.entries, self.wheel.list_mut(id), id, entry);
    }

    fn unlink(&mut self, entry: u32) {
        let Connection {
            next,
            previous,
            standing: Standing { list, .. },
            ..
        } = self.entries[entry as usize];
        let id = ListId::from_raw(list);
        match self.entries.get_mut(previous as usize) {
            Some(before) => before.next = next,
            None => self.wheel.list_mut(id).head = next,
        }
        match self.entries.get_mut(next as usize) {
            Some(after) => after.previous = previous,
            None => self.wheel.list_mut(id).tail = previous,
        }
    }
}

/// Links an entry at the end of a list.
#[inline(always)]
fn append(entries: &mut [Connection], list: &mut List, id: ListId, entry: u32) {
    let tail = std::mem::replace(&mut list.tail, entry);
    match entries.get_mut(tail as usize) {
        Some(before) => before.next = entry,
        // There is none.
        None => list.head = entry,
    }
    let connection = &mut entries[entry as usize];
    connection.standing.list = id.raw();
    connection.previous = tail;
    connection.next = NONE;
}

/// How many connections are removed with their buckets fetched at once: enough to hide a cache miss, few
/// enough to stay in the cache until then.
pub(crate) const EXPIRED_TOGETHER: u32 = 16;

/// How long a connection for one packet may stay, in milliseconds: as long as fragments of the packet wait for each
/// other ([`FragmentOptions`](crate::fragments::FragmentOptions)).
pub(crate) const ONE_PACKET_TIMEOUT: u32 = 30_000;

/// Value of `list` in a free entry.
const FREE: u16 = u16::MAX;

/// The low 32 bits of a time: enough, as an entry is examined long before
/// they repeat (49 days).
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
fn truncate(now: u64) -> u32 {
    now as u32
}
