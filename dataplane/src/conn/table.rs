//! The connection table: fixed in size, one cache line an entry.
//!
//! Invariants:
//! - An entry is free (in the free list, in no index bucket, in no timer list)
//!   or used (in exactly one bucket chain and exactly one timer list).
//! - Entries never move, so an [`EntryIndex`] stays good until its removal.
//! - Nothing is allocated after [`ConnectionTable::new`] but the replies, once, when the first
//!   forwarding method that translates them is configured.
//!
//! A connection whose replies pass the director (NAT, FULLNAT) has a second line, at the same number in
//! `replies`: the key of its replies. Either key, turned round, is what packets of the other
//! direction are translated to, so nothing else has to be kept for rewriting.
//!
//! Not done here: choosing servers, counting, deciding what a state means.

mod handshakes;
mod lookup;
mod opening;
mod reply;
mod straight;

pub use self::lookup::Lookup;
pub(crate) use self::opening::{Beginning, NoVacancy, ReplyHalf, Vacancy};
pub use self::reply::{Reply, Way};
use self::straight::Straight;
pub(crate) use self::straight::StraightConnections;
use super::index::{Index, Place};
use super::wheel::{List, ListId, NONE, Wheel};
use super::{Handshake, State, Timeouts};
use crate::flow::{FlowHasher, FlowKey};
use crate::service::ServerId;

/// A place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryIndex(u32);

impl EntryIndex {
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

/// One connection.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Connection {
    key: FlowKey,
    server: ServerId,
    /// Low 32 bits of the milliseconds since the worker's start.
    last_seen: u32,
    next: u32,
    previous: u32,
    list: u16,
    state: State,
    /// Its line in `replies` is in use.
    translated: bool,
    straight: Straight,
    /// A persistence template counts it.
    templated: bool,
    /// It ends when its first packet is sent.
    for_one_packet: bool,
    /// Its line in `handshakes` is in use.
    proxied: bool,
}

const _: () = assert!(size_of::<Connection>() == 64);

impl Connection {
    /// Client, virtual server and protocol.
    #[must_use]
    pub fn key(&self) -> &FlowKey {
        &self.key
    }

    /// Where its packets go.
    #[inline(always)]
    #[must_use]
    pub fn server(&self) -> ServerId {
        self.server
    }

    #[inline(always)]
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// It ends when its first packet is sent, and no other one goes the same way.
    #[must_use]
    pub fn is_for_one_packet(&self) -> bool {
        self.for_one_packet
    }

    /// A persistence template counts it.
    #[must_use]
    pub fn is_templated(&self) -> bool {
        self.templated
    }

    /// It has a [`Reply`].
    #[must_use]
    pub fn is_translated(&self) -> bool {
        self.translated
    }

    /// A packet of the connection was seen; timers move lazily.
    #[inline(always)]
    pub fn refresh(&mut self, now: u64) {
        self.last_seen = truncate(now);
    }

    /// Milliseconds since the last packet that the connection's own worker saw.
    #[must_use]
    pub fn idle(&self, now: u64) -> u32 {
        truncate(now).wrapping_sub(self.last_seen)
    }
}

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
    /// Empty until [`translate_replies`](ConnectionTable::translate_replies).
    replies: Vec<Reply>,
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
            .map(|next| Connection {
                key: FlowKey::default(),
                server: ServerId(0),
                last_seen: 0,
                next: if next == capacity { NONE } else { next },
                previous: NONE,
                list: FREE,
                state: State::Close,
                translated: false,
                straight: Straight::No,
                templated: false,
                for_one_packet: false,
                proxied: false,
            })
            .collect();
        Self {
            entries,
            replies: Vec::new(),
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
            + self.replies.len() * size_of::<Reply>()
            + self.handshakes.len() * size_of::<Handshake>()
            + self.index.memory()
    }

    /// Makes room for replies, 64 bytes a connection; nothing the second time. A million connections
    /// take about 20 ms, once.
    pub fn translate_replies(&mut self) {
        self.replies.resize(self.entries.len(), Reply::default());
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
            replies: &self.replies,
            hasher: &self.hasher,
        }
    }

    /// True once a connection may have a reply half, which is then worth fetching as well.
    #[must_use]
    pub fn has_replies(&self) -> bool {
        !self.replies.is_empty()
    }

    /// Third step, for packets that may go straight on.
    #[inline(always)]
    #[must_use]
    pub(crate) fn straight(&mut self) -> StraightConnections<'_> {
        StraightConnections {
            entries: &mut self.entries,
            replies: &mut self.replies,
        }
    }

    /// Third step, for connections whose replies are translated and not shifted: both halves and the packet's direction.
    #[inline(always)]
    #[must_use]
    pub fn translated(
        &mut self,
        candidate: Candidate,
        key: &FlowKey,
    ) -> Option<(&mut Connection, &mut Reply, Direction)> {
        let number = (candidate.0 & !REPLY) as usize;
        let reply = self.replies.get_mut(number)?;
        let connection = self.entries.get_mut(number)?;
        let is_reply = candidate.0 & REPLY != 0;
        let own = if is_reply {
            &reply.key
        } else {
            &connection.key
        };
        if !own.same(key) || !connection.translated || reply.particular || connection.proxied {
            return None;
        }
        let direction = if is_reply {
            Direction::Reply
        } else {
            Direction::Request
        };
        Some((connection, reply, direction))
    }

    /// The connection with this key, whatever the candidate is, and the direction of a packet with it.
    #[must_use]
    pub fn find(&self, place: Place, key: &FlowKey) -> Option<(EntryIndex, Direction)> {
        let number = self.index.find(place, |number| match number & REPLY {
            0 => self.entries[number as usize].key.same(key),
            _ => self.replies[(number & !REPLY) as usize].key.same(key),
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
    pub fn reply_mut(&mut self, entry: EntryIndex) -> Option<&mut Reply> {
        let translated = self.entries[entry.0 as usize].translated;
        self.replies
            .get_mut(entry.0 as usize)
            .filter(|_| translated)
    }

    /// The same to be read.
    #[must_use]
    pub fn reply(&self, entry: EntryIndex) -> Option<&Reply> {
        let translated = self.entries[entry.0 as usize].translated;
        self.replies.get(entry.0 as usize).filter(|_| translated)
    }

    /// From now on the keys of a translated connection say all that its packets become.
    pub(crate) fn make_ordinary(&mut self, entry: EntryIndex) {
        if let Some(reply) = self.replies.get_mut(entry.number()) {
            reply.particular = false;
            self.entries[entry.number()].find_straight(Some(reply));
        }
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
        connection.state = state;
        connection.last_seen = truncate(now);
        let reply = self.replies.get(entry.0 as usize);
        connection.find_straight(reply.filter(|_| connection.translated));
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
    /// The table is full. [`oldest_half_open`](Self::oldest_half_open) may
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
        if let Some(reply) = new.reply {
            let inserted = match self.replies.get_mut(entry as usize) {
                Some(line) => {
                    *line = reply;
                    let place = self.place(&reply.key);
                    self.index.insert(place, entry | REPLY)
                }
                None => false,
            };
            if !inserted {
                self.index.remove(place, entry);
                return Err(TableFull);
            }
        }
        let connection = &mut self.entries[entry as usize];
        self.free = connection.next;
        connection.key = key;
        connection.server = new.server;
        connection.state = new.state;
        connection.translated = new.reply.is_some();
        connection.templated = new.templated;
        connection.for_one_packet = new.for_one_packet;
        connection.find_straight(new.reply.as_ref());
        connection.last_seen = truncate(now);
        self.used += 1;
        self.link(entry, now);
        Ok(EntryIndex(entry))
    }

    /// Removes a connection and returns what it was.
    pub fn remove(&mut self, entry: EntryIndex) -> Connection {
        let number = entry.0;
        self.unlink(number);
        let connection = self.entries[number as usize].clone();
        self.index.remove(self.place(&connection.key), number);
        if connection.translated {
            let place = self.place(&self.replies[number as usize].key);
            self.index.remove(place, number | REPLY);
        }
        let freed = &mut self.entries[number as usize];
        freed.key = FlowKey::default();
        freed.list = FREE;
        freed.next = self.free;
        freed.translated = false;
        freed.proxied = false;
        self.free = number;
        self.used -= 1;
        connection
    }

    /// The half-open connection that was silent for longest.
    #[must_use]
    pub fn oldest_half_open(&self, now: u64) -> Option<EntryIndex> {
        let oldest = self.half_open_heads();
        oldest.max_by_key(|oldest| self.get(*oldest).idle(now))
    }

    /// The oldest of each half-open state.
    fn half_open_heads(&self) -> impl Iterator<Item = EntryIndex> {
        let heads = ListId::HALF_OPEN.map(|id| self.wheel.list(id).head);
        heads
            .into_iter()
            .filter(|head| *head != NONE)
            .map(EntryIndex)
    }

    /// Examines at most `budget` timers and returns one connection whose time is over, for the
    /// caller to remove; `None` when there is none or the budget is used up.
    pub fn expired(&mut self, now: u64, budget: &mut u32) -> Option<EntryIndex> {
        let mut half_open = self.half_open_heads();
        if let Some(oldest) = half_open.find(|oldest| self.remaining(oldest.0, now) == 0) {
            *budget = budget.checked_sub(1)?;
            return Some(oldest);
        }
        drop(half_open);
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
            .filter(|(_, connection)| connection.list != FREE)
    }

    /// Milliseconds that the connection may still be silent.
    fn remaining(&self, entry: u32, now: u64) -> u32 {
        let connection = &self.entries[entry as usize];
        self.timeouts[connection.state.index()].saturating_sub(connection.idle(now))
    }

    fn link(&mut self, entry: u32, now: u64) {
        let state = self.entries[entry as usize].state;
        let id = self.wheel.list_of(state, self.remaining(entry, now), now);
        append(&mut self.entries, self.wheel.list_mut(id), id, entry);
    }

    fn unlink(&mut self, entry: u32) {
        let Connection {
            next,
            previous,
            list,
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
    connection.list = id.raw();
    connection.previous = tail;
    connection.next = NONE;
}

/// Value of `list` in a free entry.
const FREE: u16 = u16::MAX;

/// The low 32 bits of a time: enough, as an entry is examined long before
/// they repeat (49 days).
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
fn truncate(now: u64) -> u32 {
    now as u32
}
