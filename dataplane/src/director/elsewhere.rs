//! Packets of other workers' connections: how a director knows them, which of them it sends itself, and whom it
//! gives the others to.
//!
//! What goes on by itself are plain replies, by what the connection's owner shares of it; the owner sees whatever
//! changes a connection's state, and whatever it takes more than two keys to translate.

use super::burst::{FrameSet, Notes, PlainNotes};
use super::flows::Flows;
use super::sending::fragment_key;
use super::straight::L3;
use super::translate::way_out;
use super::{Packet, Verdict, What};
use crate::conn::{Candidate, EntryIndex};
use crate::counters::ServerStatistics;
use crate::device::BURST;
use crate::flow::{FlowKey, PlainKey};
use crate::forward::rewrite::PlainRewrite;
use crate::handoff::{Elsewhere, Listed, Owners, SharedReply};
use crate::processor::Loop;
use crate::routes::Routes;
use crate::snapshot::Snapshot;
use crate::xsk::umem::{Frame, Packets};

impl Flows {
    /// There are other workers, and connections may be whose replies reach the wrong one.
    #[inline(always)]
    pub(super) fn shares_replies(&self) -> bool {
        self.owners.is_some() && self.table.has_replies()
    }

    /// Nearly all of them: plain replies that a burst has brought here, which the directory knows. Sends
    /// them, or says to whom they go. Returns those of `plain` that were sent, and those that have this verdict.
    #[inline(never)]
    pub(super) fn serve_others(
        &mut self,
        plain: FrameSet,
        notes: &mut Notes,
        mut packets: Packets<'_>,
        verdicts: &mut [Verdict],
        snapshot: &Snapshot,
        now: u64,
    ) -> (FrameSet, FrameSet) {
        let Some((owners, elsewhere)) = self
            .owners
            .as_ref()
            .and_then(|owners| Some((owners, owners.look()?)))
        else {
            return (FrameSet::NONE, FrameSet::NONE);
        };
        let mut listed = [Listed::FIRST; BURST];
        let (sent, known) = notes.processor.run(SendShared {
            elsewhere,
            routes: &snapshot.routes,
            statistics: self.statistics.servers(),
            plain: &mut notes.plain,
            packets: packets.reborrow(),
            unknown: plain,
            listed: &mut listed,
            now,
        });
        let handed = known.without(sent);
        for number in handed.numbers() {
            verdicts[number] = Verdict::HandOff(owners.owner(listed[number]));
            self.counters.tx_bytes -= u64::from(packets.length(number));
        }
        self.counters.handed_off_tx += u64::from(handed.len());
        self.counters.replies_for_others += u64::from(sent.len());
        (sent, handed)
    }

    /// What no connection and no virtual server of this worker's is another worker's, or may be: until
    /// each of them was asked. So is a first fragment of no connection, whoever's virtual server it is for.
    pub(super) fn elsewhere(&mut self, packet: &Packet<'_>, frame: &Frame) -> Option<Verdict> {
        let owners = self.owners.as_ref()?;
        if packet.asked == 0 {
            let key = match packet.slot.what {
                What::LaterFragment => {
                    let key = fragment_key(packet, frame).ok()?;
                    self.fragments.get(&key, packet.now)?
                }
                What::Plain
                | What::Packet
                | What::FirstFragment
                | What::IcmpError
                | What::TunnelError
                | What::Unwanted(_) => packet.slot.key,
            };
            let elsewhere = owners.look();
            if let Some(listed) = elsewhere.and_then(|all| all.find(self.table.hash(&key))) {
                return Some(Verdict::HandOff(owners.owner(listed)));
            }
        }
        self.may_be_elsewhere(packet).then_some(Verdict::Offer)
    }

    /// Not all workers have been asked whose it is. A first fragment that nobody knows comes back to who received it: the
    /// card gives that worker its datagram's others, and those of the next one.
    pub(super) fn may_be_elsewhere(&self, packet: &Packet<'_>) -> bool {
        let back = u16::from(packet.slot.what == What::FirstFragment);
        (self.owners.as_ref()).is_some_and(|owners| packet.asked.max(1) < owners.workers + back)
    }

    /// True if replies with this key are those of another client's connection, or to another virtual server, that another
    /// worker has and shares.
    pub(super) fn is_taken_elsewhere(&self, client: &FlowKey, key: &FlowKey) -> bool {
        let elsewhere = self.owners.as_ref().and_then(Owners::look);
        elsewhere.is_some_and(|elsewhere| {
            // What is not of IPv4 is not shared.
            key.is_v4() && client.is_v4() && {
                let hash = self.table.hash(key);
                elsewhere.is_of_others(hash, &key.plain(), &client.plain())
            }
        })
    }

    /// Shares an own connection with the other workers, if there are any and its plain packets go straight on:
    /// to be called when they do so from now on, or its way to the client changed.
    pub(super) fn share(&self, entry: EntryIndex, now: u64) {
        let connection = self.table.get(entry);
        if let Some(owners) = &self.owners
            && connection.is_shared()
        {
            owners.share(entry, &SharedReply::of(connection), now);
        }
    }

    /// The same the other way: when they do not go straight on any more, or the connection ends.
    pub(super) fn withdraw(&self, entry: EntryIndex) {
        if let Some(owners) = &self.owners {
            owners.withdraw(entry);
        }
    }

    /// Milliseconds since a connection's last packet, whichever worker it passed.
    pub(super) fn idle(&self, entry: EntryIndex, now: u64) -> u32 {
        let connection = self.table.get(entry);
        let own = connection.idle(now);
        match &self.owners {
            Some(owners) if connection.is_shared() => {
                owners.idle(entry, now).map_or(own, |idle| idle.min(own))
            }
            Some(_) | None => own,
        }
    }
}

/// Sends replies by what other workers share.
struct SendShared<'a> {
    elsewhere: Elsewhere<'a>,
    routes: &'a Routes,
    statistics: &'a [ServerStatistics],
    plain: &'a mut PlainNotes,
    packets: Packets<'a>,
    /// Plain packets.
    unknown: FrameSet,
    /// What the directory says of them.
    listed: &'a mut [Listed; BURST],
    now: u64,
}

impl Loop for SendShared<'_> {
    /// Which were sent, and of which it is known that they are other workers'.
    type Result = (FrameSet, FrameSet);

    #[inline(always)]
    fn run(self) -> (FrameSet, FrameSet) {
        let Self {
            elsewhere,
            routes,
            statistics,
            plain,
            mut packets,
            now,
            ..
        } = self;
        let mut unknown = FrameSet::NONE;
        for number in self.unknown.numbers() {
            // Any other one is of an own connection, which is not shared, or would be sent by now.
            if plain.candidates[number] == Candidate::NONE {
                elsewhere.prefetch(plain.headers.hashes.get(number));
                unknown.add(number);
            }
        }
        let mut known = FrameSet::NONE;
        for number in unknown.numbers() {
            if let Some(found) = elsewhere.find(plain.headers.hashes.get(number)) {
                elsewhere.prefetch_reply(found);
                self.listed[number] = found;
                known.add(number);
            }
        }
        let mut sent = FrameSet::NONE;
        for number in known.numbers() {
            let length = usize::from(packets.length(number));
            let head = packets.head_mut(number);
            let key = PlainKey::of(head);
            let Some((reply, heard)) = elsewhere.reply(self.listed[number], &key) else {
                continue;
            };
            let Some(hop) = way_out(routes, reply.way.into(), head) else {
                continue;
            };
            if length > L3 + usize::from(routes.mtu(hop.port)) {
                continue;
            }
            let rewrite = PlainRewrite::opposite(reply.client, reply.deltas);
            rewrite.forward(head, plain.headers.lives[number], &hop.addresses);
            heard.at(now);
            if let Some(server) = statistics.get(reply.server.0 as usize) {
                server.count_reply((length - L3) as u64);
            }
            plain.ports[number] = hop.port;
            sent.add(number);
        }
        (sent, known)
    }
}
