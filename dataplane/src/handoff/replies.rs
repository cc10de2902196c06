//! What a worker shares of its connections, so that others translate replies which reach them: a table
//! that all workers share without locks, one cache line a connection.
//!
//! A connection's owner writes its line when plain replies may go straight on, and empties it when they may not
//! any more, above all when the connection ends. Others copy a line in one go and compare the key in
//! the copy with the packet's, so that whatever led them there need not be right. The line says how often it
//! was written: a copy during which it was written is none (a sequence lock). So nothing is ever translated
//! by half of one connection and half of another, nor by one that was gone when the copy began: a key has one
//! line at most, as its owner has it once.
//!
//! The other way there is one thing to say: when such a reply was last heard. Who translates it stores that
//! time, and the owner looks at it before the connection would end as idle. All workers' clocks begin at once.
//!
//! IPv4 only, for whose keys a line has room. 64 bytes a connection, allocated with the
//! directory.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::directory::Listed;
use crate::conn::{Connection, WayWord};
use crate::flow::PlainKey;
use crate::processor::prefetch;
use crate::service::ServerId;
use crate::wire::checksum::Delta;

/// All that becomes of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedReply {
    /// Real server and client, or local address: that of the reply.
    pub(crate) key: PlainKey,
    /// Client and virtual server, between which it goes on, turned round.
    pub(crate) client: PlainKey,
    /// What translating it does to the checksum of its IPv4 header (without the hop), and of its TCP or
    /// UDP header.
    pub(crate) deltas: (Delta, Delta),
    pub(crate) way: WayWord,
    /// Who counts it.
    pub(crate) server: ServerId,
}

/// Words of a line that are the connection's.
const WORDS: usize = 6;

impl SharedReply {
    /// Of a connection that is shared.
    #[inline(always)]
    pub(crate) fn of(connection: &Connection) -> Self {
        let (network, transport) = connection.deltas();
        Self {
            key: connection.plain_reply_key(),
            client: connection.plain_key(),
            deltas: (network.inverse(), transport.inverse()),
            way: connection.way(),
            server: connection.server(),
        }
    }

    fn encode(&self) -> [u64; WORDS] {
        let ([k0, k1], [c0, c1]) = (self.key.words(), self.client.words());
        let (network, transport) = self.deltas;
        let ([n0, n1], [t0, t1]) = (network.to_bytes(), transport.to_bytes());
        let [s0, s1, s2, s3] = self.server.0.to_le_bytes();
        let numbers = u64::from_le_bytes([n0, n1, t0, t1, s0, s1, s2, s3]);
        [k0, k1, c0, c1, self.way.word(), numbers]
    }

    #[inline(always)]
    fn decode([k0, k1, c0, c1, way, numbers]: [u64; WORDS]) -> Self {
        let [n0, n1, t0, t1, s0, s1, s2, s3] = numbers.to_le_bytes();
        Self {
            key: PlainKey::from_words([k0, k1]),
            client: PlainKey::from_words([c0, c1]),
            deltas: (Delta::from_bytes([n0, n1]), Delta::from_bytes([t0, t1])),
            way: WayWord::from_word(way),
            server: ServerId(u32::from_le_bytes([s0, s1, s2, s3])),
        }
    }
}

/// Of an empty line: no packet has the key.
const EMPTY: [u64; WORDS] = [0; WORDS];

/// One connection's.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Line {
    /// How often `words` were written, twice; odd meanwhile. Written by the owner only, as they are.
    writes: AtomicU32,
    /// When a reply was translated by who is not the owner: low 32 bits of the workers' milliseconds.
    heard: AtomicU32,
    words: [AtomicU64; WORDS],
}

const _: () = assert!(size_of::<Line>() == 64);

impl Line {
    /// By the owner.
    fn write(&self, words: [u64; WORDS]) {
        let writes = self.writes.load(Ordering::Relaxed);
        self.writes.store(writes.wrapping_add(1), Ordering::Relaxed);
        // Who sees one of the words below sees that it is odd.
        fence(Ordering::Release);
        for (shared, word) in self.words.iter().zip(words) {
            shared.store(word, Ordering::Relaxed);
        }
        // Who sees this sees all of the words.
        self.writes.store(writes.wrapping_add(2), Ordering::Release);
    }

    /// By anyone: what it says of replies with this key. `None` while it is written.
    #[inline(always)]
    fn read(&self, key: &PlainKey) -> Option<SharedReply> {
        let before = self.writes.load(Ordering::Acquire);
        let words = self
            .words
            .each_ref()
            .map(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let after = self.writes.load(Ordering::Relaxed);
        let reply = SharedReply::decode(words);
        (reply.key == *key && before == after && before.is_multiple_of(2)).then_some(reply)
    }
}

/// How far one worker's clock may be ahead of another's, in milliseconds: far more than ever.
const LEAD: u32 = 60_000;

/// What all workers share of their connections' replies.
#[derive(Debug)]
pub(super) struct SharedReplies {
    lines: OnceLock<Box<[Line]>>,
    /// How many there are to be.
    size: u32,
}

impl SharedReplies {
    /// For `connections`, over all workers. Takes no memory yet.
    pub(super) fn new(connections: u32) -> Self {
        Self {
            lines: OnceLock::new(),
            size: connections,
        }
    }

    /// Takes the memory; nothing the second time.
    pub(super) fn allocate(&self) {
        self.lines
            .get_or_init(|| (0..self.size).map(|_| Line::default()).collect());
    }

    fn line(&self, Listed(number): Listed) -> Option<&Line> {
        self.lines.get()?.get(number as usize)
    }

    /// Shares a connection, or what is new of it. By its owner only.
    pub(super) fn share(&self, listed: Listed, reply: &SharedReply, now: u64) {
        if let Some(line) = self.line(listed) {
            line.heard.store(low_half(now), Ordering::Relaxed);
            line.write(reply.encode());
        }
    }

    /// From now on nobody copies it. By its owner only.
    pub(super) fn withdraw(&self, listed: Listed) {
        if let Some(line) = self.line(listed) {
            line.write(EMPTY);
        }
    }

    /// What all workers share, once there is memory for it.
    #[inline(always)]
    pub(super) fn look(&self) -> Option<Replies<'_>> {
        Some(Replies(self.lines.get()?))
    }

    /// Milliseconds since the last one, or since it was shared, of a connection that is.
    pub(super) fn idle(&self, listed: Listed, now: u64) -> Option<u32> {
        let heard = self.line(listed)?.heard.load(Ordering::Relaxed);
        let idle = low_half(now).wrapping_sub(heard);
        // The other worker may have looked at the clock later, by no more than a burst takes.
        Some(if idle > u32::MAX - LEAD { 0 } else { idle })
    }
}

/// The same for a loop, which has it in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replies<'a>(&'a [Line]);

impl<'a> Replies<'a> {
    /// Fetches what [`find`](Self::find) will read.
    #[inline(always)]
    pub(super) fn prefetch(self, Listed(number): Listed) {
        prefetch(self.0, number as usize);
    }

    /// A copy, if the connection is shared and its replies have this key; and who hears that one was sent.
    #[inline(always)]
    pub(super) fn find(
        self,
        Listed(number): Listed,
        key: &PlainKey,
    ) -> Option<(SharedReply, Heard<'a>)> {
        let line = self.0.get(number as usize)?;
        Some((line.read(key)?, Heard(&line.heard)))
    }
}

/// Whom a worker tells that it sent a reply of another one's connection.
#[derive(Debug)]
pub(crate) struct Heard<'a>(&'a AtomicU32);

impl Heard<'_> {
    /// Now, in the workers' milliseconds.
    #[inline(always)]
    pub(crate) fn at(self, now: u64) {
        self.0.store(low_half(now), Ordering::Relaxed);
    }
}

/// Enough of a time, as in the connection table.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
fn low_half(now: u64) -> u32 {
    now as u32
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::conn::Way;
    use crate::flow::FlowKey;
    use crate::service::{Address, MacAddress, PortIndex, Protocol};

    const LINE: Listed = Listed(1);

    /// A connection, all of whose fields depend on `number`.
    fn reply(number: u8) -> SharedReply {
        let key = |from: [u8; 4], to: [u8; 4]| {
            let (from, to) = (Address::v4(from), Address::v4(to));
            let key = FlowKey::new(from, number.into(), to, 80, Protocol::Udp);
            key.plain()
        };
        SharedReply {
            key: key([10, 0, 0, number], [10, 0, 1, number]),
            client: key([10, 0, 2, number], [10, 0, 3, number]),
            deltas: (
                Delta::from_bytes([number, 1]),
                Delta::from_bytes([number, 2]),
            ),
            way: WayWord::from(Way::Neighbor {
                port: PortIndex(number.into()),
                mac: MacAddress([number, 1, 2, 3, 4, 5]),
            }),
            server: ServerId(0x0102_0300 + u32::from(number)),
        }
    }

    fn table() -> SharedReplies {
        let replies = SharedReplies::new(2);
        replies.allocate();
        replies
    }

    /// What a worker copies.
    fn find(replies: &SharedReplies, listed: Listed, key: &PlainKey) -> Option<SharedReply> {
        replies.look()?.find(listed, key).map(|(reply, _)| reply)
    }

    #[test]
    fn what_is_shared_is_found_as_it_is_until_it_is_withdrawn() {
        let replies = table();
        for number in [3, 4] {
            let (shared, other) = (reply(number), reply(number + 2));
            assert_eq!(find(&replies, LINE, &shared.key), None);
            replies.share(LINE, &shared, 0);
            assert_eq!(find(&replies, LINE, &shared.key), Some(shared));
            assert_eq!(find(&replies, LINE, &other.key), None, "another key");
            assert_eq!(find(&replies, Listed(0), &shared.key), None, "another line");
            replies.withdraw(LINE);
            assert_eq!(find(&replies, LINE, &shared.key), None);
        }
    }

    #[test]
    fn without_memory_and_beyond_it_nothing_is_shared() {
        let replies = SharedReplies::new(2);
        replies.share(LINE, &reply(1), 0);
        assert_eq!(find(&replies, LINE, &reply(1).key), None);
        replies.allocate();
        replies.share(Listed(2), &reply(1), 0);
        assert_eq!(find(&replies, Listed(2), &reply(1).key), None);
        assert_eq!(replies.idle(Listed(2), 0), None);
    }

    #[test]
    fn time_passes_since_the_last_reply_also_where_clocks_wrap() {
        let replies = table();
        let start = u64::from(u32::MAX) - 100;
        replies.share(LINE, &reply(1), start);
        assert_eq!(replies.idle(LINE, start + 500), Some(500));
        let look = replies.look().expect("memory");
        let (_, heard) = look.find(LINE, &reply(1).key).expect("shared");
        heard.at(start + 400);
        assert_eq!(replies.idle(LINE, start + 500), Some(100));
        assert_eq!(replies.idle(LINE, start + 399), Some(0), "not yet");
        let month = 30 * 24 * 3600 * 1000;
        let idle = replies.idle(LINE, start + 400 + month);
        assert_eq!(idle.map(u64::from), Some(month));
    }

    /// The owner gives a line to one connection after the other, while another worker looks for each.
    #[test]
    fn no_copy_is_of_two_connections() {
        let replies = table();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut found = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    for number in 0..8 {
                        let expected = reply(number);
                        if let Some(copy) = find(&replies, LINE, &expected.key) {
                            assert_eq!(copy, expected);
                            found += 1;
                        }
                    }
                    std::thread::yield_now();
                }
                found
            });
            let mut round = 0;
            // At least so long that the reader had its turns.
            while round < 50_000 {
                for number in 0..8 {
                    replies.share(LINE, &reply(number), 0);
                    if round % 3 == 0 {
                        replies.withdraw(LINE);
                    }
                }
                if round % 500 == 0 {
                    std::thread::yield_now();
                }
                round += 1;
            }
            stop.store(true, Ordering::Relaxed);
            assert!(reader.join().expect("no panic") > 0);
        });
    }
}
