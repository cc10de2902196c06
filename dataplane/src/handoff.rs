//! Packets that arrive at one worker and belong to a connection of another.
//!
//! A connection belongs to the worker on whose queue its client's packets arrive. What a network card
//! makes of the real server's answers is another matter: their addresses differ, so they come by any queue.
//!
//! ```text
//!   worker 0                                              worker 1
//!     rx ─► not mine: what the owner shares ─► rewrite, tx
//!     rx ─► not mine: the directory says 1 ── frame ────► copy ─► look up, rewrite, tx
//!     pool ◄────────────────────────────── same frame ────┘
//! ```
//!
//! - **Nearly all of them**, plain replies of connections that go on as before, the worker that gets
//!   them translates itself, by what the owner shares (`replies`): a copy of 64 bytes, none of a frame.
//! - **The others** it hands to the owner, which does with them what it does with its own: SYN, FIN and RST, which change the
//!   connection's state; fragments, ICMP errors, IPv6, and what it takes more than two keys to translate.
//! - **Who owns it** is asked of a table that all share (`directory`). Where that has no answer, the
//!   workers are asked in turn, each of them once; who is asked last gives the packet to the kernel.
//!   So fragments, a client's as well, ICMP errors and what the table had no room for reach their connection, too; a first
//!   fragment that nobody knows comes back to who received it, and may begin one there.
//!   An alternative without a table would be to choose the owner by a hash of the client's
//!   address and port, which a reply has as well: then no queue is the right one for requests either, and
//!   with *n* workers all but one in *n* of all packets are handed over, with DR as well.
//! - **Two rings between each pair of workers**, of one sender and one receiver each: frames there, and the same
//!   frames back. Each worker has its own umem, so the receiver copies the packet into a frame of its
//!   own: once, while it is about to read it anyway. What is on loan is bounded, and the memory
//!   for it is set aside ([`frames`]), so that no worker can starve another of frames to receive into.
//! - **A full ring** is [`DropReason::HandoffRingFull`](crate::counters::DropReason::HandoffRingFull).
//!   Packets that are offered in turn may only fill it by half: replies come first.
//! - **A worker that sleeps** is woken by an eventfd, once a burst and only if it sleeps (`bell`).
//!
//! With one worker there is none of this.
//!
//! Not done here: deciding which packets are another worker's, and sending them (`director/elsewhere.rs`).

mod bell;
mod directory;
mod replies;

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use self::bell::Bell;
pub(crate) use self::directory::Listed;
use self::directory::{Directory, Lines};
pub(crate) use self::replies::{Heard, SharedReply};
use self::replies::{Replies, SharedReplies};
use crate::conn::EntryIndex;
use crate::device::BURST;
use crate::flow::PlainKey;
use crate::processor::prefetch_address;
use crate::service::PortIndex;
use crate::spsc::{Receiver, Sender, ring};
use crate::xsk::umem::{Frame, FramePool, Umem};

/// Frames that a worker has set aside for others to copy from, with few workers.
const LOAN: usize = 1024;
/// The same for each other worker, however many there are.
const LEAST_LOAN: usize = BURST;

/// The number of a worker, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerIndex(pub u16);

/// Where a packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The interface, whichever worker received it.
    pub ingress: PortIndex,
    /// Workers that looked for its connection, the present one included; 0: received by the present one.
    pub asked: u16,
}

impl Arrival {
    /// Received by the worker itself.
    #[must_use]
    pub const fn by(ingress: PortIndex) -> Self {
        Self { ingress, asked: 0 }
    }
}

/// What a director knows of the other workers: who has which connection, and what becomes of its replies.
#[derive(Clone, Debug)]
pub struct Owners {
    directory: Arc<Directory>,
    replies: Arc<SharedReplies>,
    /// Its own worker.
    pub worker: WorkerIndex,
    /// How many there are, itself included.
    pub workers: u16,
    /// Most connections of each.
    share: u32,
}

impl Owners {
    /// Makes room for connections, when the first ones can come whose replies are translated.
    pub(crate) fn allocate(&self) {
        self.directory.allocate();
        self.replies.allocate();
    }

    /// The numbers of its own connections.
    #[inline(always)]
    fn own(&self) -> Range<u32> {
        let first = u32::from(self.worker.0).saturating_mul(self.share);
        first..first.saturating_add(self.share)
    }

    /// `None` if it has more connections than it said.
    fn listed(&self, entry: EntryIndex) -> Option<Listed> {
        let number = u32::try_from(entry.number()).ok()?;
        (number < self.share).then(|| Listed(self.own().start + number))
    }

    /// The own worker has a connection with this hash of its reply key.
    pub(crate) fn list(&self, hash: u64, entry: EntryIndex) {
        if let Some(listed) = self.listed(entry) {
            // Without room for it the others are asked in turn.
            let _ = self.directory.list(hash, listed);
        }
    }

    /// It has it no more.
    pub(crate) fn unlist(&self, hash: u64, entry: EntryIndex) {
        if let Some(listed) = self.listed(entry) {
            self.directory.unlist(hash, listed);
        }
    }

    /// From now on others translate replies of an own connection so.
    pub(crate) fn share(&self, entry: EntryIndex, reply: &SharedReply, now: u64) {
        if let Some(listed) = self.listed(entry) {
            self.replies.share(listed, reply, now);
        }
    }

    /// From now on they do not.
    pub(crate) fn withdraw(&self, entry: EntryIndex) {
        if let Some(listed) = self.listed(entry) {
            self.replies.withdraw(listed);
        }
    }

    /// Milliseconds since others translated a reply of an own connection that is shared.
    pub(crate) fn idle(&self, entry: EntryIndex, now: u64) -> Option<u32> {
        self.replies.idle(self.listed(entry)?, now)
    }

    /// What the others have and share; `None` before [`allocate`](Self::allocate).
    #[inline(always)]
    pub(crate) fn look(&self) -> Option<Elsewhere<'_>> {
        Some(Elsewhere {
            directory: self.directory.look()?,
            replies: self.replies.look()?,
            own: self.own(),
        })
    }

    /// Whose connection it is.
    #[must_use]
    pub(crate) fn owner(&self, Listed(number): Listed) -> WorkerIndex {
        let worker = number.checked_div(self.share).unwrap_or(0);
        // There are as many workers as a `u16` says.
        WorkerIndex(u16::try_from(worker).unwrap_or(u16::MAX))
    }
}

/// What the other workers have and share; a loop has it in registers.
#[derive(Clone, Debug)]
pub(crate) struct Elsewhere<'a> {
    directory: Lines<'a>,
    replies: Replies<'a>,
    own: Range<u32>,
}

impl<'a> Elsewhere<'a> {
    /// Fetches what [`find`](Self::find) will read.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        self.directory.prefetch(hash);
    }

    /// Which connection of another worker it may be whose reply key has this hash.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u64) -> Option<Listed> {
        self.directory.find(hash, &self.own)
    }

    /// Fetches what [`reply`](Self::reply) will read.
    #[inline(always)]
    pub(crate) fn prefetch_reply(&self, listed: Listed) {
        self.replies.prefetch(listed);
    }

    /// What becomes of a reply with this key, if it is this connection's and that is shared; and who hears that it
    /// was sent.
    #[inline(always)]
    pub(crate) fn reply(&self, listed: Listed, key: &PlainKey) -> Option<(SharedReply, Heard<'a>)> {
        self.replies.find(listed, key)
    }
}

impl Elsewhere<'_> {
    /// True if replies with this key, which has this hash, are those of another worker's connection, whose requests have
    /// another key than this one; of those connections that are shared. A client whose own connection it is has come to
    /// another worker, as when a card is given other queues: there it goes on.
    #[inline]
    pub(crate) fn is_of_others(&self, hash: u64, key: &PlainKey, client: &PlainKey) -> bool {
        let found = self.find(hash).and_then(|listed| self.reply(listed, key));
        found.is_some_and(|(reply, _)| reply.client != *client)
    }
}

/// A frame on its way, which stays its sender's.
#[derive(Debug)]
struct Handed {
    frame: Frame,
    arrival: Arrival,
}

/// What a worker shares with one other worker.
#[derive(Debug)]
struct Link {
    to: Sender<Handed>,
    /// Own frames that the other one is done with.
    returned: Receiver<Frame>,
    from: Receiver<Handed>,
    give_back: Sender<Frame>,
    /// Where the other one's frames are.
    umem: Arc<Umem>,
    /// The other one's.
    bell: Arc<Bell>,
    /// Own frames that have not come back, at most the rings' capacity.
    lent: usize,
    /// Frames were put on a ring and not shown to the other one yet.
    pushed: bool,
}

/// One worker's ends of the rings to all others.
#[derive(Debug)]
pub struct Handoff {
    owners: Owners,
    /// By the number of the worker; none to itself.
    links: Vec<Option<Link>>,
    bell: Arc<Bell>,
    /// Own frames that have not come back, of all links.
    lent: usize,
    /// Frames that each ring holds.
    capacity: usize,
    /// Between two calls these are empty: no call allocates.
    taken: Vec<Handed>,
    back: Vec<Frame>,
}

/// Frames that a worker of `workers` has to have more than without handing over.
#[must_use]
pub fn frames(workers: u32) -> u32 {
    let others = workers.saturating_sub(1);
    let capacity = capacity(workers as usize);
    others.saturating_mul(u32::try_from(capacity).unwrap_or(u32::MAX))
}

/// Frames in a ring.
fn capacity(workers: usize) -> usize {
    let others = workers.saturating_sub(1).max(1);
    (LOAN / others).next_power_of_two().max(LEAST_LOAN)
}

/// Connects workers, whose packets are in `umems`, and which together have at most so many connections.
/// One worker needs none of it and gets none.
///
/// # Errors
/// There are more than 65535 workers, their frames are of different sizes, or an eventfd cannot be had: too
/// many open files.
pub fn connect(umems: &[Arc<Umem>], connections: u32) -> io::Result<Vec<Handoff>> {
    let workers = match u16::try_from(umems.len()) {
        Ok(0 | 1) => return Ok(Vec::new()),
        Ok(workers) => workers,
        Err(_) => return Err(io::Error::other("too many workers")),
    };
    if umems
        .windows(2)
        .any(|pair| pair[0].frame_size() != pair[1].frame_size())
    {
        return Err(io::Error::other("workers with frames of different sizes"));
    }
    let capacity = capacity(umems.len());
    let share = connections.div_ceil(workers.into());
    let directory = Arc::new(Directory::new(connections));
    let replies = Arc::new(SharedReplies::new(share.saturating_mul(workers.into())));
    let bells: Vec<Arc<Bell>> = (0..workers)
        .map(|_| Bell::new().map(Arc::new))
        .collect::<io::Result<_>>()?;
    let mut all: Vec<Handoff> = (0..workers)
        .zip(&bells)
        .map(|(worker, bell)| Handoff {
            owners: Owners {
                directory: Arc::clone(&directory),
                replies: Arc::clone(&replies),
                worker: WorkerIndex(worker),
                workers,
                share,
            },
            links: (0..workers).map(|_| None).collect(),
            bell: Arc::clone(bell),
            lent: 0,
            capacity,
            taken: Vec::with_capacity(BURST),
            back: Vec::with_capacity(capacity),
        })
        .collect();
    for first in 0..umems.len() {
        for second in first + 1..umems.len() {
            let (out, inward) = ring(capacity);
            let (other_out, other_inward) = ring(capacity);
            let (give_back, returned) = ring(capacity);
            let (other_give_back, other_returned) = ring(capacity);
            let link = |to, returned, from, give_back, number: usize| Link {
                to,
                returned,
                from,
                give_back,
                umem: Arc::clone(&umems[number]),
                bell: Arc::clone(&bells[number]),
                lent: 0,
                pushed: false,
            };
            all[first].links[second] =
                Some(link(out, returned, other_inward, other_give_back, second));
            all[second].links[first] =
                Some(link(other_out, other_returned, inward, give_back, first));
        }
    }
    Ok(all)
}

impl Handoff {
    /// What the director of this worker is to know.
    #[must_use]
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Puts a frame on the way to its connection's worker, seen there after [`flush`](Self::flush).
    ///
    /// # Errors
    /// Gives the frame back when too many are on their way, or there is no such worker.
    #[inline(always)]
    pub fn send(&mut self, to: WorkerIndex, frame: Frame, ingress: PortIndex) -> Result<(), Frame> {
        let arrival = Arrival { ingress, asked: 1 };
        self.push(to, Handed { frame, arrival }, self.capacity)
    }

    /// Asks the next worker in turn, which knows by `arrival` who has been asked.
    ///
    /// # Errors
    /// As [`send`](Self::send), and already when half as many are on their way.
    pub fn offer(&mut self, frame: Frame, arrival: Arrival) -> Result<(), Frame> {
        let next = (self.owners.worker.0 + 1) % self.owners.workers;
        let arrival = Arrival {
            // Who received it was the first to be asked.
            asked: arrival.asked.max(1) + 1,
            ..arrival
        };
        self.push(
            WorkerIndex(next),
            Handed { frame, arrival },
            self.capacity / 2,
        )
    }

    #[inline(always)]
    fn push(&mut self, to: WorkerIndex, handed: Handed, most: usize) -> Result<(), Frame> {
        let Some(Some(link)) = self.links.get_mut(usize::from(to.0)) else {
            return Err(handed.frame);
        };
        if link.lent >= most {
            return Err(handed.frame);
        }
        // Not full: it holds as many as may be lent.
        link.to.push(handed).map_err(|handed| handed.frame)?;
        link.lent += 1;
        link.pushed = true;
        self.lent += 1;
        Ok(())
    }

    /// Once a turn: shows the others what is there for them, waking those that sleep, and gives
    /// frames that came back to `pool`.
    #[inline]
    pub fn flush(&mut self, pool: &mut FramePool) {
        if self.lent > 0 {
            self.flush_links(pool);
        }
    }

    fn flush_links(&mut self, pool: &mut FramePool) {
        for link in self.links.iter_mut().flatten() {
            if link.pushed {
                link.pushed = false;
                link.to.publish();
                link.bell.ring();
                // They come home when it is quiet, or many are away: a look at the ring takes a cache line
                // from the other worker.
                if link.lent * 4 < self.capacity {
                    continue;
                }
            }
            let came = link.returned.pop(&mut self.back, link.lent);
            link.lent -= came;
            self.lent -= came;
            for frame in self.back.drain(..) {
                pool.give(frame);
            }
        }
    }

    /// Once a turn: true if there is something for this worker.
    #[inline]
    pub fn has_frames(&self) -> bool {
        self.links
            .iter()
            .flatten()
            .any(|link| !link.from.is_empty())
    }

    /// Appends up to [`BURST`] packets that one other worker handed over, each copied to a frame of
    /// `pool`, which is of `umem`, and where each came from; returns how many. While the pool is empty
    /// they stay where they are.
    pub fn receive(
        &mut self,
        from: WorkerIndex,
        umem: &Umem,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        arrivals: &mut Vec<Arrival>,
    ) -> usize {
        let Some(Some(link)) = self.links.get_mut(usize::from(from.0)) else {
            return 0;
        };
        let most = BURST.min(pool.len());
        let received = link.from.pop(&mut self.taken, most);
        if received == 0 {
            return 0;
        }
        for handed in &self.taken {
            prefetch_address(link.umem.start(&handed.frame));
        }
        for Handed { frame, arrival } in self.taken.drain(..) {
            if let Some(mut own) = pool.take() {
                // Frames of all workers are of one size. One that could not be filled would stay empty,
                // which is dropped as truncated.
                let filled = umem.fill(&mut own, link.umem.bytes(&frame));
                debug_assert!(filled.is_ok());
                burst.push(own);
                arrivals.push(arrival);
            }
            let pushed = link.give_back.push(frame);
            debug_assert!(pushed.is_ok(), "the ring holds all that may be lent");
        }
        link.give_back.publish();
        received
    }

    /// Before a sleep, which [`poll_fd`](Self::poll_fd) ends. False if there is something to do.
    pub(crate) fn lie_down(&self) -> bool {
        self.bell.lie_down();
        let quiet = !self.has_frames();
        if !quiet {
            self.bell.get_up(false);
        }
        quiet
    }

    /// After a sleep; `ready` is what `poll` said of [`poll_fd`](Self::poll_fd).
    pub(crate) fn get_up(&self, ready: bool) {
        self.bell.get_up(ready);
    }

    /// Ready when another worker hands something over while this one sleeps.
    pub(crate) fn poll_fd(&self) -> BorrowedFd<'_> {
        self.bell.poll_fd()
    }
}

#[cfg(test)]
mod tests;
