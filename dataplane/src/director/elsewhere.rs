//! Packets of other workers' connections: how a director knows them, and whom it gives them to.

use super::burst::Others;
use super::flows::Flows;
use super::sending::fragment_key;
use super::{Packet, Slot, Verdict, What};
use crate::conn::Candidate;
use crate::device::BURST;
use crate::xsk::umem::Frame;

impl Flows {
    /// Nearly all of them: plain replies that a burst has brought here, which the directory knows. Says
    /// and counts to whom they go; returns the others.
    #[inline(never)]
    pub(super) fn hand_over(
        &mut self,
        slots: &[Slot; BURST],
        others: Others,
        frames: &[Frame],
        verdicts: &mut [Verdict],
    ) -> Others {
        let Some(owners) = &self.owners else {
            return others;
        };
        let mut hashes = [0; BURST];
        let mut unknown = Others::NONE;
        for number in others.numbers() {
            let slot = &slots[number];
            if slot.what == What::Plain && slot.candidate == Candidate::NONE {
                hashes[number] = self.table.hash(&slot.key);
                owners.prefetch(hashes[number]);
                unknown.add(number);
            }
        }
        let mut left = others;
        for number in unknown.numbers() {
            if let Some(owner) = owners.owner(hashes[number]) {
                verdicts[number] = Verdict::HandOff(owner);
                left.remove(number);
                self.counters.handed_off_tx += 1;
                self.counters.tx_bytes -= frames[number].len() as u64;
            }
        }
        left
    }

    /// What no connection and no virtual server of this worker's is another worker's, or may be: until
    /// each of them was asked.
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
            if let Some(owner) = owners.owner(self.table.hash(&key)) {
                return Some(Verdict::HandOff(owner));
            }
        }
        (packet.asked.max(1) < owners.workers).then_some(Verdict::Offer)
    }
}
