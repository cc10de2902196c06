//! The SYN proxy: SYNs are answered by the director, and only clients that got the answer get a connection
//! and a real server. For NAT and FULLNAT, because the real server's packets have to pass here, too.
//!
//! A SYN costs no memory: what it said is in the number of its answer ([`cookie`]). How a connection goes on is
//! decided by [`Handshake`], which does no I/O; here frames become what it says. One frame comes and one goes, so
//! what a client sends before its server has answered waits among the frames that wait.
//!
//! Not done here: the director repeats its SYN only when the client sends something. A client that waits
//! for the server to speak first, and whose server lost that SYN, has to give up and try again.

pub(super) mod cookie;

use super::flows::Flows;
use super::limits::SynDefence;
use super::sending::Refusal;
use super::{Packet, Slot, What};
use crate::conn::{Answer, Direction, EntryIndex, Handshake, SCALE, Seen, Signal};
use crate::counters::DropReason;
use crate::forward::rewrite::Endpoint;
use crate::forward::segment::{self, Heading, Segment};
use crate::forward::sequence;
use crate::forward::toa::ClientOption;
use crate::service::ClientAddress;
use crate::snapshot::Service;
use crate::wire::tcp::{self, flags};
use crate::wire::tcp_offer::Offer;
use crate::wire::{Malformed, icmp, ipv4, ipv6};
use crate::xsk::umem::{Frame, Umem};

/// What a client may send before its server has answered: a request or the first message of TLS, which
/// waits here.
const WINDOW: u16 = 5840;
/// Largest segment that clients are asked for: Ethernet's, less both headers.
const LARGEST: [u16; 2] = [1460, 1440];
/// How long a server is waited for before a packet of the client becomes another SYN, in
/// milliseconds: Linux's shortest time for a repetition.
const REPEAT: u32 = 200;

impl Flows {
    /// What becomes of a packet of no connection, for a virtual server with a SYN proxy: a
    /// handshake if it shows that its sender got a SYN-ACK, `None` if it goes the usual way.
    ///
    /// # Errors
    /// It is a SYN, to be answered.
    pub(super) fn proxied(
        &mut self,
        service: &Service,
        packet: &Packet<'_>,
        frame: &Frame,
    ) -> Result<Option<Handshake>, Refusal> {
        let (slot, now) = (packet.slot, packet.now);
        let defence = match service.syn_proxy {
            Some(proxy) if slot.key.is_tcp() => self.syn_defence(service.id, proxy, now),
            Some(_) | None => return Ok(None),
        };
        if Signal::Tcp(slot.tcp_flags).is_request() {
            return match defence {
                SynDefence::Off => Ok(None),
                SynDefence::On if slot.what == What::FirstFragment => {
                    Err(Refusal::Drop(DropReason::SynFragment))
                }
                SynDefence::On => Err(Refusal::AnswerSyn),
            };
        }
        let kind = slot.tcp_flags & (flags::SYN | flags::ACK | flags::RST);
        if kind != flags::ACK || slot.what == What::FirstFragment {
            return Ok(None);
        }
        let came = read(packet, frame)?;
        let handshake = self.checked(packet, &came);
        if handshake.is_none() && defence == SynDefence::On {
            self.counters.syn_cookies_refused += 1;
        }
        Ok(handshake)
    }

    /// What the ACK of a client shows, if it acknowledges a SYN-ACK made here.
    fn checked(&self, packet: &Packet<'_>, came: &tcp::Packet<&[u8]>) -> Option<Handshake> {
        let client = came.sequence().wrapping_sub(1);
        let cookie = came.acknowledgment().wrapping_sub(1);
        let offer = self
            .cookies
            .check(&packet.slot.key, client, cookie, packet.now)?;
        Some(Handshake::new(client, cookie, offer, came.window()))
    }

    /// A packet of a connection whose server has not answered yet, or answers again.
    ///
    /// # Errors
    /// It waits, or is answered.
    pub(super) fn opening(
        &mut self,
        (entry, direction): (EntryIndex, Direction),
        handshake: Handshake,
        packet: &Packet<'_>,
        frame: &Frame,
    ) -> Result<(EntryIndex, Direction), Refusal> {
        match packet.slot.what {
            What::IcmpError | What::TunnelError => return Ok((entry, direction)),
            What::FirstFragment => return Err(Refusal::Drop(DropReason::ServerSilent)),
            What::Plain | What::Packet | What::LaterFragment | What::Unwanted(_) => {}
        }
        let came = read(packet, frame)?;
        match direction {
            Direction::Request => self.client_waits(entry, handshake, packet, &came)?,
            Direction::Reply => self.server_answers(entry, handshake, packet, &came)?,
        }
        Ok((entry, direction))
    }

    /// The client's packet goes on as a SYN, if another one is due.
    fn client_waits(
        &mut self,
        entry: EntryIndex,
        handshake: Handshake,
        packet: &Packet<'_>,
        came: &tcp::Packet<&[u8]>,
    ) -> Result<(), Refusal> {
        if came.flags() & flags::RST != 0 {
            return Ok(());
        }
        if Signal::Tcp(came.flags()).is_request() {
            return Err(Refusal::AnswerSyn);
        }
        let connection = self.table.get(entry);
        let is_due = handshake.is_new() || connection.idle(packet.now) >= REPEAT;
        if !is_due {
            return Err(Refusal::Wait(DropReason::ServerSilent));
        }
        if !handshake.is_new()
            && let Some(server) = self.statistics.server(connection.server())
        {
            server.count_unanswered();
        }
        // The client may have begun anew, with another number.
        if let Some(newer) = self.checked(packet, came) {
            self.table.set_handshake(entry, newer);
        }
        Ok(())
    }

    fn server_answers(
        &mut self,
        entry: EntryIndex,
        mut handshake: Handshake,
        packet: &Packet<'_>,
        came: &tcp::Packet<&[u8]>,
    ) -> Result<(), Refusal> {
        let (sequence, acknowledgment) = (came.sequence(), came.acknowledgment());
        let offer = Offer::read(came.options());
        let answer = handshake.answer(sequence, acknowledgment, came.flags(), &offer);
        self.table.set_handshake(entry, handshake);
        match answer {
            Answer::Accepts { window, is_news } => {
                if is_news {
                    self.advance(entry, Seen::Client, Signal::Tcp(flags::ACK), packet.now);
                    self.news = true;
                }
                Err(Refusal::AnswerSynAck { window })
            }
            Answer::Refuses => {
                self.advance(entry, Seen::Server, Signal::Tcp(flags::RST), packet.now);
                Ok(())
            }
            Answer::Confused if came.flags() & flags::RST == 0 => Err(Refusal::Reset),
            Answer::Confused => Err(Refusal::Drop(DropReason::ServerSilent)),
        }
    }

    /// Makes the SYN in `frame` the SYN-ACK that answers it.
    pub(super) fn answer_syn(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<(), DropReason> {
        let came = read(packet, frame)?;
        let (client, offered) = (came.sequence(), Offer::read(came.options()));
        let [v4, v6] = LARGEST;
        let (largest, headers) = if packet.slot.is_v4 {
            (v4, 40)
        } else {
            (v6, 60)
        };
        let mtu = packet.snapshot.routes.mtu(packet.ingress);
        let longest = largest.min(mtu.saturating_sub(headers));
        let offer = Offer {
            maximum_segment_size: Some(longest.saturating_sub(introduction_len(packet))),
            window_scale: offered.window_scale.map(|_| SCALE),
            selective: offered.selective,
        };
        let (options, length) = offer.write();
        let answer = Segment {
            sequence: self
                .cookies
                .make(&packet.slot.key, client, &offered, packet.now),
            acknowledgment: client.wrapping_add(1),
            flags: flags::SYN | flags::ACK,
            window: WINDOW,
            options: &options[..length],
        };
        segment::replace(packet.umem, frame, Heading::Back, &answer)?;
        self.counters.syn_cookies_sent += 1;
        Ok(())
    }

    /// Makes the packet of a client in `frame` the SYN for its server.
    pub(super) fn ask_server(
        &mut self,
        entry: EntryIndex,
        mut handshake: Handshake,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<(), DropReason> {
        let (sequence, window, offer) = handshake.ask();
        let (options, length) = offer.write();
        let syn = Segment {
            sequence,
            acknowledgment: 0,
            flags: flags::SYN,
            window,
            options: &options[..length],
        };
        segment::replace(packet.umem, frame, Heading::Onward, &syn)?;
        self.table.set_handshake(entry, handshake);
        // Those of one half-open state are in the order of their last packets.
        let state = self.table.get(entry).state();
        self.table.set_state(entry, state, packet.now);
        Ok(())
    }

    /// Makes the SYN-ACK of a real server in `frame` the ACK that answers it. A server that is told who the client is by TOA
    /// reads that there.
    pub(super) fn answer_syn_ack(
        &self,
        packet: &Packet<'_>,
        frame: &mut Frame,
        window: u16,
    ) -> Result<(), DropReason> {
        let came = read(packet, frame)?;
        let found = self.table.find(packet.slot.place, &packet.slot.key);
        let option = found.and_then(|(entry, _)| self.client_option(entry));
        let ack = Segment {
            sequence: came.acknowledgment(),
            acknowledgment: came.sequence().wrapping_add(1),
            flags: flags::ACK,
            window,
            options: option.as_ref().map_or(&[], ClientOption::bytes),
        };
        segment::replace(packet.umem, frame, Heading::Back, &ack)
    }
}

/// What is added to the client's segments on their way to the server, in bytes.
fn introduction_len(Packet { snapshot, slot, .. }: &Packet<'_>) -> u16 {
    let client = slot.key.source();
    let service = snapshot.service(client, &slot.key.service());
    match service.map(|service| service.full_nat.client_address) {
        Some(ClientAddress::Toa) => ClientOption::new(Endpoint {
            address: client,
            port: slot.key.source_port(),
        })
        .len()
        .into(),
        // The two do not go together.
        Some(ClientAddress::None | ClientAddress::Proxy) | None => 0,
    }
}

/// True if a packet that goes on becomes the SYN for the server.
pub(super) fn asks(handshake: &Handshake, direction: Direction, slot: &Slot) -> bool {
    !handshake.is_open()
        && direction == Direction::Request
        && matches!(slot.what, What::Plain | What::Packet)
        && slot.tcp_flags & flags::RST == 0
}

/// Shifts a packet of an open connection that has its new addresses.
pub(super) fn shift(
    handshake: &Handshake,
    direction: Direction,
    slot: &Slot,
    umem: &Umem,
    frame: &mut Frame,
) {
    let (bytes, l4) = (umem.bytes_mut(frame), usize::from(slot.l4_offset));
    match (slot.what, direction) {
        (What::IcmpError, Direction::Request) => {
            // About a packet of the server, which is quoted behind the header.
            if let Ok(quoted) = quoted_segment(bytes, l4 + icmp::HEADER_LEN, slot.is_v4) {
                sequence::shift_quoted(bytes, l4, quoted, handshake.unshift());
            }
        }
        (What::IcmpError, Direction::Reply)
        | (What::TunnelError | What::LaterFragment | What::Unwanted(_), _) => {}
        (_, Direction::Request) => handshake.shift_request(bytes, l4),
        (_, Direction::Reply) => handshake.shift_reply(bytes, l4),
    }
}

/// Where the segment of the IP packet that is quoted at `l3` begins.
fn quoted_segment(bytes: &[u8], l3: usize, is_v4: bool) -> Result<usize, Malformed> {
    if is_v4 {
        return Ok(l3 + ipv4::Packet::header(bytes, l3)?.header_len());
    }
    let next_header = ipv6::Packet::header(bytes, l3)?.next_header();
    Ok(ipv6::walk(bytes, l3, next_header)?.offset)
}

fn read<'a>(packet: &Packet<'a>, frame: &'a Frame) -> Result<tcp::Packet<&'a [u8]>, DropReason> {
    let [l3, l4] = [packet.slot.l3_offset, packet.slot.l4_offset].map(usize::from);
    segment::read(packet.umem.bytes(frame), l3, l4, packet.slot.is_v4)
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv6RawExtHeader, PacketBuilder, ip_number};

    use super::*;

    #[test]
    fn a_quoted_segment_is_behind_all_headers_of_ip() {
        let v4 = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let v6 = PacketBuilder::ipv6([0xfd; 16], [0xfc; 16], 64);
        let write = |builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>| {
            let mut bytes = vec![0; 3];
            let segment = builder.tcp(80, 40_000, 1, 2);
            segment.write(&mut bytes, b"").expect("a packet");
            bytes
        };
        let (v4, v6) = (write(v4), write(v6));
        assert_eq!(quoted_segment(&v4, 3, true), Ok(3 + 20));
        assert_eq!(quoted_segment(&v6, 3, false), Ok(3 + 40));
        // A hop-by-hop header in between.
        let mut extended = v6;
        let options = Ipv6RawExtHeader::new_raw(ip_number::TCP, &[0; 6]).expect("a header");
        extended[3 + 6] = 0;
        extended.splice(43..43, options.to_bytes());
        assert_eq!(quoted_segment(&extended, 3, false), Ok(3 + 48));
        assert!(quoted_segment(&extended[..45], 3, false).is_err());
    }
}
