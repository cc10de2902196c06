//! How frames leave that did not go the straight way, and what becomes of those that may not.

use super::flows::Flows;
use super::{Packet, Slot, Verdict, What};
use crate::conn::{Direction, EntryIndex, ONE_PACKET_TIMEOUT, Place};
use crate::counters::DropReason;
use crate::forward::fragment::{self, Oversize};
use crate::forward::tunnel::{self, Variation};
use crate::forward::{direct, icmp, reset};
use crate::fragments::{self, FragmentKey};
use crate::service::{Address, ForwardingMethod, Hop, PortIndex};
use crate::snapshot::Server;
use crate::wire;
use crate::xsk::umem::Frame;

/// ICMP errors that a worker sends at most in a second: Linux's `icmp_msgs_per_sec`.
pub(super) const ICMP_PER_SECOND: u32 = 1000;

/// How long more of a packet is awaited after its first fragment, or until it has a next hop, if its connection is for it
/// alone, in milliseconds: as long as a frame waits. What comes later goes the same way only if no other packet
/// of the socket came in between.
const AWAITED: u32 = 1000;

/// Why a packet goes no further, and what is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Drop(DropReason),
    /// Its sender is told by a RST.
    Reset,
    /// It is a SYN, which the SYN proxy answers.
    AnswerSyn,
    /// It is a real server's SYN-ACK, which the SYN proxy answers, with this window.
    AnswerSynAck {
        window: u16,
    },
    /// The sender is told by an ICMP error, if that is allowed now.
    Answer(DropReason, icmp::Error),
    /// It may go later, and is dropped for this reason if it cannot.
    Wait(DropReason),
    /// It is longer than its way allows: to be cut into fragments of at most so many bytes.
    Cut(u16),
    /// No connection's and no virtual server's: the kernel's, if there is a way back to it.
    NotOurs(DropReason),
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        if reason == DropReason::TtlExceeded {
            Self::Answer(reason, icmp::Error::TimeExceeded)
        } else {
            Self::Drop(reason)
        }
    }
}

impl From<Oversize> for Refusal {
    fn from(oversize: Oversize) -> Self {
        match oversize {
            Oversize::TooBig { mtu } => {
                Self::Answer(DropReason::TooBig, icmp::Error::TooBig { mtu })
            }
            Oversize::Fragment { mtu } => Self::Cut(mtu),
        }
    }
}

impl From<tunnel::NotWrapped> for Refusal {
    fn from(refused: tunnel::NotWrapped) -> Self {
        match refused {
            tunnel::NotWrapped::Oversize(oversize) => oversize.into(),
            tunnel::NotWrapped::Drop(reason) => reason.into(),
        }
    }
}

impl Flows {
    /// Sends a packet of a connection, whose state has been seen to.
    pub(super) fn forward(
        &mut self,
        entry: EntryIndex,
        direction: Direction,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<PortIndex, Refusal> {
        if self.table.get(entry).is_translated() {
            return self.forward_translated(entry, direction, packet, frame);
        }
        let id = self.table.get(entry).server();
        let Some(server) = packet.snapshot.server(id) else {
            return Err(Refusal::Drop(DropReason::ServerUnavailable));
        };
        let Some(hop) = &server.next_hop else {
            return Err(Refusal::Wait(DropReason::NextHopUnresolved));
        };
        let bytes = (frame.len() - usize::from(packet.slot.l3_offset)) as u64;
        match server.method {
            ForwardingMethod::Tunnel(_) => self.send_wrapped(server, hop, packet, frame)?,
            ForwardingMethod::Direct => send_direct(hop, packet, frame)?,
            // Not when the connection began.
            ForwardingMethod::Nat | ForwardingMethod::FullNat => {
                return Err(Refusal::Drop(DropReason::ServerUnavailable));
            }
        }
        if let Some(statistics) = self.statistics.server(id) {
            statistics.count_packet(bytes);
        }
        Ok(hop.port)
    }

    fn send_wrapped(
        &mut self,
        server: &Server,
        hop: &Hop,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<(), Refusal> {
        let Some(template) = packet.snapshot.tunnel(server) else {
            return Err(Refusal::Wait(DropReason::NextHopUnresolved));
        };
        let variation = variation(&mut self.identification, packet.slot.place);
        let l3 = usize::from(packet.slot.l3_offset);
        template.forward(packet.umem, frame, l3, &hop.addresses, variation)?;
        Ok(())
    }

    /// A first fragment has ports and goes as a packet would; those of its datagram that follow, or
    /// wait, go the same way.
    pub(super) fn forward_first_fragment(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<PortIndex, Refusal> {
        self.note_first_fragment(packet, frame)?;
        let (entry, direction) = self.connection_of(packet, frame)?;
        if self.table.get(entry).is_for_one_packet() {
            self.await_more(entry, AWAITED, packet.now);
        }
        self.forward(entry, direction, packet, frame)
    }

    /// A connection for one packet ends with that, unless it waits or is cut: then more of it is awaited.
    pub(super) fn end_or_await(
        &mut self,
        entry: EntryIndex,
        sent: &Result<PortIndex, Refusal>,
        packet: &Packet<'_>,
    ) {
        match sent {
            Err(Refusal::Wait(_)) => self.await_more(entry, AWAITED, packet.now),
            // Its pieces are sent as soon as the burst is decided.
            Err(Refusal::Cut(_)) => self.await_more(entry, 1, packet.now),
            // A packet that came while another one is awaited, or an answer, does not end what is that one's.
            Ok(_) | Err(_) if self.awaited(entry) > 0 => {}
            Ok(_) | Err(_) => {
                self.remove(packet.snapshot, entry, packet.now);
                self.counters.connections_expired += 1;
            }
        }
    }

    /// More comes of a packet that has a connection for itself: for so many milliseconds, others with its key go the same
    /// way. Never for longer than the connection may stay, or a client could keep its server for ever.
    fn await_more(&mut self, entry: EntryIndex, time: u32, now: u64) {
        let until = self.table.get(entry).idle(now).saturating_add(time);
        if let Some(awaited) = self.awaited.get_mut(entry.number()) {
            *awaited = until.min(ONE_PACKET_TIMEOUT).max(*awaited);
        }
    }

    /// Up to which age of a connection for one packet more of that is awaited, in milliseconds.
    pub(super) fn awaited(&self, entry: EntryIndex) -> u32 {
        self.awaited.get(entry.number()).copied().unwrap_or(0)
    }

    /// Before it is rewritten.
    fn note_first_fragment(&mut self, packet: &Packet<'_>, frame: &Frame) -> Result<(), Refusal> {
        let key = fragment_key(packet, frame)?;
        let evicts = self.fragments.insert(key, packet.slot.key, packet.now);
        self.counters.fragments_evicted += u64::from(evicts);
        self.news = true;
        Ok(())
    }

    /// A later fragment belongs to the connection of its datagram's first one, and waits for that.
    pub(super) fn forward_later_fragment(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<PortIndex, Refusal> {
        let key = fragment_key(packet, frame)?;
        let Some(flow) = self.fragments.get(&key, packet.now) else {
            return Err(Refusal::Wait(DropReason::Fragment));
        };
        let Some((entry, direction)) = self.table.find(self.table.place(&flow), &flow) else {
            return Err(Refusal::NotOurs(DropReason::NoVirtualServer));
        };
        // Before it is rewritten.
        let (slot, bytes) = (packet.slot, packet.umem.bytes(frame));
        let is_last = fragments::is_last(bytes, slot.l3_offset, slot.is_v4);
        let sent = self.forward(entry, direction, packet, frame);
        if is_last && sent.is_ok() {
            self.fragments.pass(&key, packet.now);
        }
        sent
    }

    /// Sends a frame that waited, if that is possible now.
    pub(super) fn retry(&mut self, packet: &Packet<'_>, frame: &mut Frame) -> Verdict {
        let decided = self.forward_again(packet, frame);
        self.carry_out(decided, packet, frame)
    }

    /// Its connection, if it is not a later fragment, has seen it already.
    fn forward_again(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<PortIndex, Refusal> {
        let slot = packet.slot;
        match slot.what {
            What::LaterFragment => return self.forward_later_fragment(packet, frame),
            What::FirstFragment => self.note_first_fragment(packet, frame)?,
            What::TunnelError => return self.relay_tunnel_error(packet, frame),
            What::Plain | What::Packet | What::IcmpError | What::Unwanted(_) => {}
        }
        match self.table.find(slot.place, &slot.key) {
            // Its state has not: it waits for the server.
            Some((entry, _)) if self.table.handshake(entry).is_some() => {
                let (entry, direction) = self.connection_of(packet, frame)?;
                self.forward(entry, direction, packet, frame)
            }
            Some((entry, direction)) => self.forward(entry, direction, packet, frame),
            None => Err(Refusal::Drop(DropReason::ServerUnavailable)),
        }
    }

    /// What was decided becomes a verdict; a frame that goes no further may become an answer.
    pub(super) fn carry_out(
        &mut self,
        decided: Result<PortIndex, Refusal>,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Verdict {
        let (umem, slot) = (packet.umem, packet.slot);
        match decided {
            Ok(egress) => Verdict::Transmit(egress),
            Err(Refusal::Drop(reason)) => Verdict::Drop(reason),
            Err(Refusal::Wait(reason)) => Verdict::Wait(reason),
            Err(Refusal::Cut(mtu)) => Verdict::Cut(mtu),
            Err(Refusal::NotOurs(reason)) => match (self.elsewhere(packet, frame), self.kernel) {
                (Some(verdict), _) => verdict,
                (None, Some(port)) => {
                    self.counters.returned_to_kernel += 1;
                    Verdict::Transmit(port)
                }
                (None, None) => Verdict::Drop(reason),
            },
            Err(Refusal::Reset) => match reset::answer(umem, frame) {
                Ok(()) => {
                    self.counters.resets_sent += 1;
                    Verdict::Transmit(packet.ingress)
                }
                Err(reason) => Verdict::Drop(reason),
            },
            Err(Refusal::AnswerSyn) => match self.answer_syn(packet, frame) {
                Ok(()) => Verdict::Transmit(packet.ingress),
                Err(reason) => Verdict::Drop(reason),
            },
            Err(Refusal::AnswerSynAck { window }) => {
                match self.answer_syn_ack(packet, frame, window) {
                    Ok(()) => Verdict::Transmit(packet.ingress),
                    Err(reason) => Verdict::Drop(reason),
                }
            }
            Err(Refusal::Answer(reason, error)) => {
                let l3 = usize::from(slot.l3_offset);
                let local = self.local_address(slot);
                if self.icmp_left == 0 || !icmp::answer(umem, frame, l3, local, error) {
                    return Verdict::Drop(reason);
                }
                self.icmp_left -= 1;
                self.counters.icmp_sent += 1;
                Verdict::Transmit(packet.ingress)
            }
        }
    }

    /// Whom an ICMP error comes from: the virtual server, also for a real server's packet; but what
    /// came to a local address comes from that.
    fn local_address(&self, slot: &Slot) -> Address {
        match self.table.find(slot.place, &slot.key) {
            Some((entry, Direction::Reply)) => {
                let local = self.local_address_of(entry);
                local.unwrap_or_else(|| self.table.get(entry).key().destination())
            }
            Some((_, Direction::Request)) | None => slot.key.destination(),
        }
    }
}

/// What differs between the outer headers of tunnelled packets; `last` is the last identification.
#[inline(always)]
pub(super) fn variation(last: &mut u16, place: Place) -> Variation {
    *last = last.wrapping_add(1);
    Variation {
        identification: *last,
        entropy: place.entropy(),
    }
}

/// Last stage of DR: addresses the frame to its real server.
fn send_direct(hop: &Hop, packet: &Packet<'_>, frame: &mut Frame) -> Result<(), Refusal> {
    let Packet {
        snapshot,
        slot,
        umem,
        ..
    } = *packet;
    let l3 = usize::from(slot.l3_offset);
    let mtu = snapshot.routes.mtu(hop.port);
    fragment::check_size(umem.bytes(frame), l3, slot.is_v4, mtu)?;
    direct::forward(umem.bytes_mut(frame), l3, slot.is_v4, &hop.addresses)?;
    Ok(())
}

pub(super) fn fragment_key(packet: &Packet<'_>, frame: &Frame) -> Result<FragmentKey, Refusal> {
    let bytes = packet.umem.bytes(frame);
    let parsed = wire::parse(bytes).map_err(DropReason::from)?;
    FragmentKey::new(bytes, &parsed).ok_or(Refusal::Drop(DropReason::Fragment))
}
