//! What the SYN proxy makes of a packet, judged by etherparse and by what came in: SYN-ACKs, ACKs and SYNs of the
//! director's own, and segments with shifted numbers.

use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice};

use super::rewriting::{header_is_right, is_right};
use super::{Frame, full_nat};

/// True if `frame` is the director's answer to `cause`: a SYN-ACK to a SYN, an ACK to a SYN-ACK, to where that came from.
pub(super) fn is_handshake_answer(cause: &Frame, frame: &Frame) -> bool {
    judged(cause, frame, |asked, answered, before, after| {
        let expected = if asked.ack() {
            !answered.syn() && answered.sequence_number() == asked.acknowledgment_number()
        } else {
            answered.syn()
        };
        let back = ends(before).map(|(from, to)| (to, from));
        asked.syn()
            && expected
            && answered.ack()
            && !answered.fin()
            && !answered.rst()
            && answered.acknowledgment_number() == asked.sequence_number().wrapping_add(1)
            && answered.payload().is_empty()
            && back == ends(after)
    }) && cause.bytes[6..12] == frame.bytes[..6]
        && cause.time == frame.time
}

/// True if `frame` is the SYN of the client that sent `cause`, an ACK, which had the next number.
pub(super) fn is_syn_of(cause: &Frame, frame: &Frame) -> bool {
    judged(cause, frame, |ack, syn, before, after| {
        let first = ack.sequence_number().wrapping_sub(1);
        let repeated = [first, first.wrapping_sub(1), ack.sequence_number()];
        ack.ack()
            && !ack.syn()
            && syn.syn()
            && !syn.ack()
            && syn.payload().is_empty()
            && ends(before).map(|(source, _)| source) == ends(after).map(|(source, _)| source)
            && repeated.contains(&syn.sequence_number())
    })
}

/// True if `frame` is `cause` with other addresses, ports and numbers: flags and payload are the same.
pub(super) fn is_shifted(cause: &Frame, frame: &Frame) -> bool {
    judged(cause, frame, |before, after, from, to| {
        let one_end_stays = ends(from)
            .zip(ends(to))
            .is_some_and(|(from, to)| from.0 == to.0 || from.1 == to.1);
        one_end_stays
            && before.slice()[12..14] == after.slice()[12..14]
            && before.payload() == after.payload()
            && before.urgent_pointer() == after.urgent_pointer()
    }) && cause.time <= frame.time
        && cause.bytes.len() == frame.bytes.len()
}

/// As [`is_syn_of`], by FULLNAT, and the server is told who the client is.
pub(super) fn is_told_syn_of(cause: &Frame, frame: &Frame) -> bool {
    judged(cause, frame, |ack, syn, before, _| {
        ack.ack()
            && !ack.syn()
            && syn.syn()
            && !syn.ack()
            && syn.payload().is_empty()
            && syn.sequence_number() == ack.sequence_number().wrapping_sub(1)
            && syn.options().starts_with(&full_nat::option(before))
    })
}

/// As [`is_shifted`], by FULLNAT: the server may be told who the client is.
pub(super) fn is_shifted_between_others(cause: &Frame, frame: &Frame) -> bool {
    judged(cause, frame, |before, after, from, _| {
        let told = [&full_nat::option(from), before.options()].concat();
        before.slice()[13] == after.slice()[13]
            && (after.options() == before.options() || after.options() == told)
            && before.payload() == after.payload()
            && before.urgent_pointer() == after.urgent_pointer()
    }) && cause.time <= frame.time
}

type Judge = fn(&TcpSlice<'_>, &TcpSlice<'_>, &SlicedPacket<'_>, &SlicedPacket<'_>) -> bool;

/// Both are TCP, and all checksums of `frame` are right.
fn judged(cause: &Frame, frame: &Frame, judge: Judge) -> bool {
    let (Ok(before), Ok(after)) = (
        SlicedPacket::from_ethernet(&cause.bytes),
        SlicedPacket::from_ethernet(&frame.bytes),
    ) else {
        return false;
    };
    let (Some(TransportSlice::Tcp(from)), Some(TransportSlice::Tcp(to))) =
        (&before.transport, &after.transport)
    else {
        return false;
    };
    header_is_right(&after.net) && is_right(&after) && judge(from, to, &before, &after)
}

/// Addresses and ports.
fn ends(packet: &SlicedPacket<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else {
        return None;
    };
    let (source, destination) = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => (
            ip.header().source().to_vec(),
            ip.header().destination().to_vec(),
        ),
        NetSlice::Ipv6(ip) => (
            ip.header().source().to_vec(),
            ip.header().destination().to_vec(),
        ),
        NetSlice::Arp(_) => return None,
    };
    let with_port = |address: Vec<u8>, port: u16| [address, port.to_be_bytes().to_vec()].concat();
    Some((
        with_port(source, tcp.source_port()),
        with_port(destination, tcp.destination_port()),
    ))
}
