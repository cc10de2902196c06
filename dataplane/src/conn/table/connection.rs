//! One connection: a cache line.

use super::reply::{Reply, WayWord, WideReply};
use super::truncate;
use crate::conn::State;
use crate::conn::wheel::NONE;
use crate::flow::{FlowKey, PlainKey};
use crate::service::{MAX_SERVERS, ServerId};
use crate::wire::checksum::Delta;

/// One connection.
///
/// Nearly always all of its addresses are IPv4 ones, and the whole of it is here: the key of its packets from the client,
/// and for a method that translates replies theirs and the way to the client. Any other connection is
/// *wide*: one key takes all of that room, and its reply half is elsewhere.
///
/// ```text
///  IPv4   the key (2 words)    the replies' key (2 words)    their way (1 word)
///  wide   the key (5 words)
/// ```
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Connection {
    words: [u64; 5],
    /// As in [`Reply`].
    network: Delta,
    transport: Delta,
    target: Target,
    /// Low 32 bits of the milliseconds since the worker's start.
    pub(super) last_seen: u32,
    pub(super) next: u32,
    pub(super) previous: u32,
    pub(super) standing: Standing,
}

/// Of connections that begin together it is the same: a word, so that it is copied at once.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4))]
pub(super) struct Standing {
    /// The timer list that it is in.
    pub(super) list: u16,
    pub(super) state: State,
    marks: u8,
}

impl Standing {
    /// Without a mark.
    pub(super) const fn new(list: u16, state: State) -> Self {
        Self {
            list,
            state,
            marks: 0,
        }
    }
}

const _: () = assert!(size_of::<Connection>() == 64);

/// What is marked of a connection, a bit each.
pub(super) mod mark {
    /// Not all of its addresses are IPv4.
    pub(in super::super) const WIDE: u8 = 1 << 0;
    /// It has a [`Reply`](super::Reply).
    pub(in super::super) const TRANSLATED: u8 = 1 << 1;
    /// A persistence template counts it.
    pub(in super::super) const TEMPLATED: u8 = 1 << 2;
    /// It ends when its first packet is sent.
    pub(in super::super) const FOR_ONE_PACKET: u8 = 1 << 3;
    /// The director itself is an end of it (SYN proxy): its line in `handshakes` is in use.
    pub(in super::super) const PROXIED: u8 = 1 << 4;
    /// As in [`Reply`](super::Reply).
    pub(in super::super) const PARTICULAR: u8 = 1 << 5;
}

/// How plain packets of a connection go on without a closer look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in super::super) enum Course {
    /// Requests go to the server as they are; replies do not come.
    Sent = 0,
    /// They go in either direction, translated.
    Exchanged = 1 << 30,
    /// They get one.
    None = 1 << 31,
}

/// The real server, and above its number the [`Course`]: one word, so that comparing it with how many servers
/// there are answers for both.
#[derive(Clone, Copy, Debug)]
struct Target(u32);

const _: () = assert!(MAX_SERVERS <= Course::Exchanged as usize);

impl Target {
    #[inline(always)]
    const fn new(ServerId(server): ServerId, course: Course) -> Self {
        Self(server | course as u32)
    }

    #[inline(always)]
    const fn server(self) -> ServerId {
        ServerId(self.0 & (Course::Exchanged as u32 - 1))
    }

    /// The server's number if it is this course; otherwise a number that no server has.
    #[inline(always)]
    const fn along(self, course: Course) -> u32 {
        self.0 ^ course as u32
    }
}

impl Connection {
    /// In the free list; `next` is what follows there.
    pub(super) const fn free(next: u32, list: u16) -> Self {
        Self {
            words: [0; 5],
            network: Delta::NONE,
            transport: Delta::NONE,
            target: Target::new(ServerId(0), Course::None),
            last_seen: 0,
            next,
            previous: NONE,
            standing: Standing::new(list, State::Close),
        }
    }

    /// Client, virtual server and protocol.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> FlowKey {
        match self.is(mark::WIDE) {
            true => FlowKey::from_words(self.words),
            false => self.plain_key().into(),
        }
    }

    /// The same of one that is not wide.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn plain_key(&self) -> PlainKey {
        let [first, second, ..] = self.words;
        PlainKey::from_words([first, second])
    }

    /// The key of its replies, if it is translated and not wide.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn plain_reply_key(&self) -> PlainKey {
        let [_, _, first, second, _] = self.words;
        PlainKey::from_words([first, second])
    }

    /// Of a translated connection over IPv4: what changes in checksums, as [`Reply::network`] and [`Reply::transport`].
    #[inline(always)]
    #[must_use]
    pub(crate) const fn deltas(&self) -> (Delta, Delta) {
        (self.network, self.transport)
    }

    /// Of a translated connection over IPv4: where its replies leave.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn way(&self) -> WayWord {
        let [.., way] = self.words;
        WayWord::from_word(way)
    }

    /// Of a translated connection over IPv4: from now on its replies leave this way.
    #[inline(always)]
    pub(crate) const fn set_way(&mut self, way: WayWord) {
        self.words[4] = way.word();
    }

    /// Where its packets go.
    #[inline(always)]
    #[must_use]
    pub const fn server(&self) -> ServerId {
        self.target.server()
    }

    /// The number of the server that its plain requests go straight to, as they are. If they do not, one that no
    /// server has.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn sends_to(&self) -> u32 {
        self.target.along(Course::Sent)
    }

    /// The same of requests that are translated.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn exchanges_with(&self) -> u32 {
        self.target.along(Course::Exchanged)
    }

    #[inline(always)]
    #[must_use]
    pub fn state(&self) -> State {
        self.standing.state
    }

    /// It ends when its first packet is sent, and no other one goes the same way but while more of that is awaited.
    #[must_use]
    pub fn is_for_one_packet(&self) -> bool {
        self.is(mark::FOR_ONE_PACKET)
    }

    /// A persistence template counts it.
    #[must_use]
    pub fn is_templated(&self) -> bool {
        self.is(mark::TEMPLATED)
    }

    /// It has a [`Reply`].
    #[must_use]
    pub fn is_translated(&self) -> bool {
        self.is(mark::TRANSLATED)
    }

    /// Other workers translate its plain replies as well, if there are any.
    #[inline(always)]
    pub(crate) const fn is_shared(&self) -> bool {
        self.exchanges_with() < Course::Exchanged as u32
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

    /// Any of these marks.
    #[inline(always)]
    pub(super) const fn is(&self, marks: u8) -> bool {
        self.standing.marks & marks != 0
    }

    #[inline(always)]
    pub(super) const fn set(&mut self, mark: u8, is_set: bool) {
        match is_set {
            true => self.standing.marks |= mark,
            false => self.standing.marks &= !mark,
        }
    }

    /// Becomes one of IPv4 without a reply half and without a mark.
    #[inline(always)]
    pub(super) const fn begin(&mut self, key: PlainKey, server: ServerId, course: Course) {
        [self.words[0], self.words[1]] = key.words();
        self.target = Target::new(server, course);
        self.standing.marks = 0;
    }

    /// Is given its reply half, whose addresses are IPv4 ones as well.
    #[inline(always)]
    pub(super) const fn begin_replies(
        &mut self,
        key: PlainKey,
        way: WayWord,
        (network, transport): (Delta, Delta),
    ) {
        self.standing.marks |= mark::TRANSLATED;
        [self.words[2], self.words[3]] = key.words();
        self.words[4] = way.word();
        (self.network, self.transport) = (network, transport);
    }

    /// Becomes a wide one.
    pub(super) fn begin_wide(
        &mut self,
        key: FlowKey,
        (network, transport): (Delta, Delta),
        server: ServerId,
    ) {
        self.words = key.words();
        self.target = Target::new(server, Course::None);
        (self.network, self.transport) = (network, transport);
        self.standing.marks = mark::WIDE;
    }

    /// Its reply half; `wide` is where that is of a wide one.
    pub(super) fn reply(&self, wide: Option<&WideReply>) -> Option<Reply> {
        let (key, way) = match self.is(mark::WIDE) {
            true => wide.map(|wide| (wide.key, wide.way))?,
            false => (self.plain_reply_key().into(), self.way()),
        };
        self.is_translated().then_some(Reply {
            key,
            network: self.network,
            transport: self.transport,
            way: way.into(),
            particular: self.is(mark::PARTICULAR),
        })
    }

    /// What lets packets go straight on, which is found when a connection changes, not for each of its packets: to be
    /// called after every change. A closer look is needed if not all addresses are IPv4, if any packet changes the state,
    /// if it ends with its first one, or if the director itself is an end of it.
    #[inline(always)]
    pub(super) fn find_straight(&mut self) {
        use mark::{FOR_ONE_PACKET, PARTICULAR, PROXIED, TRANSLATED, WIDE};
        let goes_on = !self.is(WIDE | FOR_ONE_PACKET | PROXIED) && self.standing.state.is_kept();
        let course = match (goes_on, self.is(TRANSLATED), self.is(PARTICULAR)) {
            (true, false, _) => Course::Sent,
            (true, true, false) => Course::Exchanged,
            _ => Course::None,
        };
        self.target = Target::new(self.server(), course);
    }
}
