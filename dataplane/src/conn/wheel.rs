//! Which connection is to be looked at when: a timer wheel with bounded work,
//! and the queues of connections that may be evicted.
//!
//! A wheel slot holds the connections whose deadline falls into its 256 ms.
//! Refreshing a connection moves nothing: when its slot comes up, the table
//! computes the deadline from `last_seen` and links it again if it is still
//! alive. A deadline beyond the horizon (about 4 minutes) goes into the
//! farthest slot and is looked at there.
//!
//! All connections of one half-open state have the same timeout, so a queue in the order
//! of last packet is timer and eviction order in one. There is one for each such state, and one of connections
//! for one packet.
//!
//! Links are entry numbers kept in the entries themselves; this file only
//! knows the heads. Time is milliseconds since the worker's start.

use super::{Association, State};

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

/// Slots of the wheel.
const SLOTS: u16 = 1024;
/// log2 of the length of a slot in milliseconds.
const SLOT_SHIFT: u32 = 8;
/// Farthest slot that a deadline is put into, from now.
const HORIZON: u64 = SLOTS as u64 - 2;

/// A list that an entry is linked in: a wheel slot or a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListId(u16);

impl ListId {
    /// Those of the half-open states, and [`ONE_PACKET`](Self::ONE_PACKET).
    pub(super) const QUEUES: [Self; 5] = [
        Self(SLOTS),
        Self(SLOTS + 1),
        Self(SLOTS + 2),
        Self(SLOTS + 3),
        Self::ONE_PACKET,
    ];

    /// The queue of connections for one packet.
    pub(super) const ONE_PACKET: Self = Self(SLOTS + 4);

    /// The queue of a half-open state; `None` for other states.
    pub(super) fn of_half_open(state: State) -> Option<Self> {
        let [syn_recv, init1, init, cookie_sent, _] = Self::QUEUES;
        match state {
            State::SynRecv => Some(syn_recv),
            State::Sctp(Association::Init1) => Some(init1),
            State::Sctp(Association::Init) => Some(init),
            State::Sctp(Association::CookieSent) => Some(cookie_sent),
            State::Established
            | State::FinWait
            | State::TimeWait
            | State::Close
            | State::CloseWait
            | State::Udp
            | State::Sctp(_) => None,
        }
    }

    pub(super) fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    pub(super) fn raw(self) -> u16 {
        self.0
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) head: u32,
    pub(super) tail: u32,
}

const EMPTY: List = List {
    head: NONE,
    tail: NONE,
};

/// The heads of all lists and how far the wheel has turned.
#[derive(Debug)]
pub(super) struct Wheel {
    lists: Vec<List>,
    /// The slot, counted from the start of time, that is being emptied.
    turn: u64,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self {
            lists: vec![EMPTY; usize::from(SLOTS) + ListId::QUEUES.len()],
            turn: 0,
        }
    }

    /// The slot for a deadline. Never the one being emptied.
    pub(super) fn slot(&self, deadline: u64) -> ListId {
        let turn = (deadline >> SLOT_SHIFT).clamp(self.turn + 1, self.turn + HORIZON);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the remainder is below SLOTS"
        )]
        ListId((turn % u64::from(SLOTS)) as u16)
    }

    /// The list for a connection in this state that may be silent for so long, in milliseconds.
    #[inline(always)]
    pub(super) fn list_of(&self, state: State, remaining: u32, now: u64) -> ListId {
        ListId::of_half_open(state).unwrap_or_else(|| self.slot(now + u64::from(remaining)))
    }

    #[inline(always)]
    pub(super) fn list_mut(&mut self, id: ListId) -> &mut List {
        &mut self.lists[usize::from(id.0)]
    }

    pub(super) fn list(&self, id: ListId) -> List {
        self.lists[usize::from(id.0)]
    }

    /// The next slot all of whose deadlines have passed, and which still has entries; `None`
    /// when the wheel has caught up with `now`.
    pub(super) fn due(&mut self, now: u64) -> Option<ListId> {
        let current = now >> SLOT_SHIFT;
        // After a long pause one full turn visits every slot.
        self.turn = self.turn.max(current.saturating_sub(u64::from(SLOTS)));
        while self.turn < current {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the remainder is below SLOTS"
            )]
            let id = ListId((self.turn % u64::from(SLOTS)) as u16);
            if self.list(id).head != NONE {
                return Some(id);
            }
            self.turn += 1;
        }
        None
    }
}
