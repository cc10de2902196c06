//! What holds for every case, whatever was recorded for it.
//!
//! - Every packet is accounted for: rx = tx + Σ drops, and both ends agree with the captures.
//! - A frame that leaves is a frame that came, in order, at the same time, the same to the byte but for its MAC
//!   addresses and one hop less to live, with a right IPv4 checksum; it goes to a real server of the
//!   configuration.
//! - Or, where there is a SYN proxy, it is a segment of that: with right checksums.
//! - Or it is a RST to where a TCP segment came from, an ICMP error that quotes a packet, a translated packet, which
//!   may also tell the server who the client is, one in a tunnel, or a fragment: with right checksums, and otherwise what came in.
//! - A real server of FULLNAT sees local addresses only, and nobody else sees one.

use anyhow::{Context, bail, ensure};
use control::config::{Config, VirtualServer};
use dataplane::counters::{Counters, DropReason};
use dataplane::service::ForwardingMethod;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::{Frame, full_nat, proxying, rewriting};
use crate::script::{DIRECTOR, Mac, mac_of};

pub(super) fn check(
    config: &Config,
    sent: &[Frame],
    received: &[Frame],
    counters: &Counters,
) -> anyhow::Result<()> {
    accounts(sent, received, counters)?;
    let servers: Vec<Mac> = config
        .virtual_servers
        .iter()
        .flat_map(|service| &service.real_servers)
        .map(|server| mac_of(server.address.ip()))
        .collect();
    let is_proxied =
        (config.virtual_servers.iter()).any(|service| service.options.syn_proxy.is_some());
    let is_full_nat =
        (config.virtual_servers.iter()).any(|service| service.local_addresses().next().is_some());
    let mut unused: Vec<_> = sent.iter().map(Some).collect();
    let (mut last, mut resets, mut answers) = (0, 0, 0);
    for (number, frame) in (1..).zip(received) {
        let (at, cause, what) = unused
            .iter()
            .enumerate()
            .find_map(|(at, cause)| {
                let proxied = |cause| is_proxied.then(|| proxied_as(cause, frame, is_full_nat))?;
                let what = |cause| leaves_as(cause, frame).or_else(|| proxied(cause));
                cause.and_then(|cause| Some((at, cause, what(cause)?)))
            })
            .with_context(|| {
                format!("out.pcap: packet {number} is nothing that a packet of in.pcap may become")
            })?;
        // Of a packet that is cut, more than one fragment leaves.
        if what != Leaving::Piece {
            unused[at] = None;
        }
        if !is_fragment(&cause.bytes) && what != Leaving::Shifted {
            ensure!(at >= last, "out.pcap: packet {number} overtook another one");
            last = at;
        }
        let (destination, source) = (&frame.bytes[..6], &frame.bytes[6..12]);
        ensure!(
            source == DIRECTOR,
            "out.pcap: packet {number} is not from the director's MAC address"
        );
        local_addresses(config, frame).with_context(|| format!("out.pcap: packet {number}"))?;
        let to_server = servers.iter().any(|server| server == destination);
        match what {
            Leaving::Forwarded | Leaving::Wrapped => ensure!(
                to_server,
                "out.pcap: packet {number} goes to a MAC address of no real server"
            ),
            Leaving::Translated | Leaving::Piece | Leaving::Shifted => ensure!(
                to_server || sent.iter().any(|other| other.bytes[6..12] == *destination),
                "out.pcap: packet {number} goes to a MAC address that nobody has"
            ),
            Leaving::HandshakeAnswer => {}
            Leaving::Reset => resets += 1,
            Leaving::Answer => answers += 1,
        }
    }
    ensure!(
        resets == counters.resets_sent,
        "resets_sent is {}, and out.pcap has {resets}",
        counters.resets_sent
    );
    ensure!(
        answers == counters.icmp_sent,
        "icmp_sent is {}, and out.pcap has {answers}",
        counters.icmp_sent
    );
    Ok(())
}

/// A real server of FULLNAT sees local addresses only, and nobody else ever sees one.
fn local_addresses(config: &Config, frame: &Frame) -> anyhow::Result<()> {
    let services = config.virtual_servers.iter();
    let locals: Vec<_> = services
        .clone()
        .flat_map(VirtualServer::local_addresses)
        .collect();
    let Some([source, destination]) = rewriting::addresses(frame).filter(|_| !locals.is_empty())
    else {
        return Ok(());
    };
    let to_server = services
        .flat_map(|service| &service.real_servers)
        .filter(|server| server.lb_kind == ForwardingMethod::FullNat)
        .any(|server| server.address.ip() == destination);
    ensure!(
        locals.contains(&source) == to_server,
        "from {source} to {destination}: a local address, and a real server of FULLNAT, go together"
    );
    ensure!(
        !locals.contains(&destination),
        "to {destination}, a local address"
    );
    Ok(())
}

/// What a frame that leaves is of the one that came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Forwarded,
    Translated,
    Wrapped,
    Reset,
    Answer,
    /// One fragment of it.
    Piece,
    /// A SYN-ACK or an ACK of the SYN proxy.
    HandshakeAnswer,
    /// A SYN of the SYN proxy, or what it let wait, or with other numbers.
    Shifted,
}

type IsIt = fn(&Frame, &Frame) -> bool;

fn leaves_as(cause: &Frame, frame: &Frame) -> Option<Leaving> {
    let candidates: [(Leaving, IsIt); 10] = [
        (Leaving::Forwarded, is_forwarded),
        (Leaving::Reset, is_reset_of),
        (Leaving::Answer, rewriting::is_answer),
        (Leaving::Answer, rewriting::is_relayed),
        (Leaving::Translated, rewriting::is_translated),
        (Leaving::Translated, rewriting::is_translated_fragment),
        (Leaving::Translated, full_nat::is_told),
        (Leaving::Piece, rewriting::is_piece),
        (Leaving::Wrapped, |cause, frame| {
            rewriting::unwrapped(frame).is_some_and(|inner| is_forwarded(cause, &inner))
        }),
        (Leaving::Piece, |cause, frame| {
            rewriting::unwrapped(frame).is_some_and(|inner| rewriting::is_piece(cause, &inner))
        }),
    ];
    let mut candidates = candidates.into_iter();
    candidates
        .find(|(_, is_it)| is_it(cause, frame))
        .map(|(what, _)| what)
}

fn proxied_as(cause: &Frame, frame: &Frame, is_full_nat: bool) -> Option<Leaving> {
    let candidates: [(Leaving, IsIt); 5] = [
        (Leaving::HandshakeAnswer, proxying::is_handshake_answer),
        (Leaving::Shifted, proxying::is_syn_of),
        (Leaving::Shifted, proxying::is_shifted),
        (Leaving::Shifted, proxying::is_told_syn_of),
        (Leaving::Shifted, proxying::is_shifted_between_others),
    ];
    // The last two are of FULLNAT.
    let mut candidates = candidates.into_iter().take(if is_full_nat { 5 } else { 3 });
    candidates
        .find(|(_, is_it)| is_it(cause, frame))
        .map(|(what, _)| what)
}

fn accounts(sent: &[Frame], received: &[Frame], counters: &Counters) -> anyhow::Result<()> {
    let bytes = |frames: &[Frame]| {
        frames
            .iter()
            .map(|frame| frame.bytes.len() as u64)
            .sum::<u64>()
    };
    let drops: u64 = counters.drops.iter().sum();
    ensure!(
        counters.drops.len() == DropReason::ALL.len(),
        "a drop reason is not counted"
    );
    for (name, counted, is) in [
        ("rx_packets", counters.rx_packets, sent.len() as u64),
        ("rx_bytes", counters.rx_bytes, bytes(sent)),
        ("tx_packets", counters.tx_packets, received.len() as u64),
        ("tx_bytes", counters.tx_bytes, bytes(received)),
        (
            "tx_packets + drops",
            counters.tx_packets + drops,
            counters.rx_packets + counters.fragments_made,
        ),
        ("waiting", counters.waiting, 0),
    ] {
        ensure!(counted == is, "{name} is {counted}, and should be {is}");
    }
    let created = counters.connections_expired
        + counters.connections_evicted
        + counters.connections_reused
        + counters.connections;
    ensure!(
        counters.connections_created == created,
        "connections_created is {}, and {created} expired, were evicted, reused or are still there",
        counters.connections_created
    );
    Ok(())
}

/// True if `frame` is `cause` on its way to a real server.
fn is_forwarded(cause: &Frame, frame: &Frame) -> bool {
    let mut expected = cause.bytes.clone();
    let late = is_fragment(&cause.bytes) && cause.time <= frame.time;
    if !(cause.time == frame.time || late) || expected.len() != frame.bytes.len() {
        return false;
    }
    let Ok(at) = l3_offset(&expected) else {
        return false;
    };
    expected[..12].copy_from_slice(&frame.bytes[..12]);
    if expected[at] >> 4 == 6 {
        expected[at + 7] = expected[at + 7].wrapping_sub(1);
        return expected == frame.bytes;
    }
    expected[at + 8] = expected[at + 8].wrapping_sub(1);
    // The checksum is looked at for itself, not by how it was updated.
    expected[at + 10..at + 12].copy_from_slice(&frame.bytes[at + 10..at + 12]);
    let header_len = usize::from(expected[at] & 0x0f) * 4;
    expected == frame.bytes && sum(&frame.bytes[at..at + header_len]) == 0xffff
}

/// True for a fragment of an IPv4 or IPv6 datagram.
fn is_fragment(frame: &[u8]) -> bool {
    let packet = l3_offset(frame).ok().and_then(|at| frame.get(at..));
    match packet {
        Some(ip) if ip[0] >> 4 == 4 => u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0,
        Some(ip) => ip[6] == 44,
        None => false,
    }
}

/// Where the IP header begins.
pub(super) fn l3_offset(frame: &[u8]) -> anyhow::Result<usize> {
    let mut at = 12;
    loop {
        match frame.get(at..at + 2) {
            Some([0x81, 0x00] | [0x88, 0xa8]) => at += 4,
            Some([0x08, 0x00] | [0x86, 0xdd]) if frame.len() >= at + 22 => return Ok(at + 2),
            _ => bail!("not IP"),
        }
    }
}

pub(super) fn sum(words: &[u8]) -> u32 {
    let words = words
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

/// True if `frame` is a RST that goes to where the TCP segment in `cause` came from.
fn is_reset_of(cause: &Frame, frame: &Frame) -> bool {
    let (Ok(asked), Ok(answered)) = (
        SlicedPacket::from_ethernet(&cause.bytes),
        SlicedPacket::from_ethernet(&frame.bytes),
    ) else {
        return false;
    };
    let (Some(TransportSlice::Tcp(segment)), Some(TransportSlice::Tcp(reset))) =
        (&asked.transport, &answered.transport)
    else {
        return false;
    };
    let checksums = match (&asked.net, &answered.net) {
        (Some(NetSlice::Ipv4(from)), Some(NetSlice::Ipv4(to))) => {
            let (from, to) = (from.header(), to.header());
            from.source() == to.destination()
                && from.destination() == to.source()
                && to.to_header().calc_header_checksum() == to.header_checksum()
                && reset.calc_checksum_ipv4(to.source(), to.destination()) == Ok(reset.checksum())
        }
        (Some(NetSlice::Ipv6(from)), Some(NetSlice::Ipv6(to))) => {
            let (from, to) = (from.header(), to.header());
            from.source() == to.destination()
                && from.destination() == to.source()
                && reset.calc_checksum_ipv6(to.source(), to.destination()) == Ok(reset.checksum())
        }
        _ => false,
    };
    checksums
        && cause.time == frame.time
        && cause.bytes[6..12] == frame.bytes[..6]
        && asked.vlan_ids() == answered.vlan_ids()
        && segment.source_port() == reset.destination_port()
        && segment.destination_port() == reset.source_port()
        && numbers_answer(segment, reset)
}

/// RFC 9293 §3.10.7.1: "If the ACK bit is off, sequence number zero is used […] If the ACK bit is
/// on, <SEQ=SEG.ACK><CTL=RST>".
fn numbers_answer(segment: &etherparse::TcpSlice<'_>, reset: &etherparse::TcpSlice<'_>) -> bool {
    if !reset.rst() || !reset.payload().is_empty() {
        return false;
    }
    if segment.ack() {
        return !reset.ack() && reset.sequence_number() == segment.acknowledgment_number();
    }
    let length = u32::try_from(segment.payload().len()).unwrap_or(u32::MAX)
        + u32::from(segment.syn())
        + u32::from(segment.fin());
    let acknowledges = segment.sequence_number().wrapping_add(length);
    reset.ack() && reset.sequence_number() == 0 && reset.acknowledgment_number() == acknowledges
}
