//! TCP without state: every segment is answered by what it says itself, so that the number of
//! connections a second is the director's limit and not that of whoever remembers them.
//!
//! ```text
//!  client                      responder
//!    SYN            ──────────►
//!                   ◄──────────  SYN ACK
//!    ACK, FIN ACK   ──────────►
//!                   ◄──────────  FIN ACK
//!    ACK            ──────────►
//! ```
//!
//! Nothing is sent again: what is lost, is a connection that was not closed.

use std::net::IpAddr;

use dataplane::service::{Address, MacAddress};
use dataplane::wire::checksum::Sum;
use dataplane::wire::parse::{Kind, Parsed, parse};
use dataplane::wire::{ethernet, tcp};
use serde::{Deserialize, Serialize};

use crate::frame::{ETHERNET, SHORTEST};

const TCP: u8 = 6;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A TCP segment without payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub source_mac: MacAddress,
    pub destination_mac: MacAddress,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgment: u32,
}

impl Segment {
    /// The first segment of a connection, from these ends.
    #[must_use]
    pub fn opening(
        macs: [MacAddress; 2],
        from: (IpAddr, u16),
        to: (IpAddr, u16),
        sequence: u32,
    ) -> Self {
        let [source_mac, destination_mac] = macs;
        Self {
            source_mac,
            destination_mac,
            source: from.0,
            destination: to.0,
            source_port: from.1,
            destination_port: to.1,
            flags: SYN,
            sequence,
            acknowledgment: 0,
        }
    }

    /// The segment in a frame; `None` if that is no whole TCP packet. A payload is not looked at.
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let parsed: Parsed = parse(frame).ok()?;
        if parsed.kind != Kind::Packet || parsed.protocol != TCP {
            return None;
        }
        let segment = tcp::Packet::new_checked(frame.get(parsed.l4_offset.into()..)?).ok()?;
        Some(Self {
            source_mac: ethernet::source(frame)?,
            destination_mac: ethernet::destination(frame)?,
            source: parsed.source.into(),
            destination: parsed.destination.into(),
            source_port: parsed.source_port,
            destination_port: parsed.destination_port,
            flags: parsed.tcp_flags,
            sequence: segment.sequence(),
            acknowledgment: segment.acknowledgment(),
        })
    }

    /// What goes back: the ends exchanged, what came acknowledged.
    fn answer(&self, flags: u8) -> Self {
        Self {
            source_mac: self.destination_mac,
            destination_mac: self.source_mac,
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            flags,
            sequence: self.acknowledgment,
            acknowledgment: self.sequence.wrapping_add(1),
        }
    }

    /// Writes the frame, both checksums right.
    pub fn write(&self, frame: &mut Vec<u8>) {
        let mut segment = [0; 20];
        segment[..2].copy_from_slice(&self.source_port.to_be_bytes());
        segment[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        segment[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        segment[8..12].copy_from_slice(&self.acknowledgment.to_be_bytes());
        segment[12] = 5 << 4; // header length in words of 4 bytes
        segment[13] = self.flags;
        segment[14..16].copy_from_slice(&u16::MAX.to_be_bytes()); // window
        let (source, destination) = (Address::from(self.source), Address::from(self.destination));
        let sum = Sum::ZERO.pseudo_header(source, destination, TCP, 20);
        let checksum = sum.bytes(&segment).checksum();
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());

        frame.clear();
        frame.extend(self.destination_mac.0);
        frame.extend(self.source_mac.0);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                // Don't fragment, TTL 64.
                let mut header = [
                    0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                ];
                header[12..16].copy_from_slice(&source.octets());
                header[16..].copy_from_slice(&destination.octets());
                let checksum = Sum::ZERO.bytes(&header).checksum();
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                frame.extend(ethernet::ethertype::IPV4.to_be_bytes());
                frame.extend(header);
            }
            _ => {
                frame.extend(ethernet::ethertype::IPV6.to_be_bytes());
                frame.extend([0x60, 0, 0, 0, 0, 20, TCP, 64]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
        }
        frame.extend(segment);
        frame.resize(frame.len().max(SHORTEST), 0);
    }

    /// Length of the frame in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        let ip = if self.source.is_ipv4() { 20 } else { 40 };
        SHORTEST.max(ETHERNET + ip + 20)
    }
}

/// What became of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    pub opened: u64,
    /// The responder took it.
    pub answered: u64,
    /// Reset by the director or a server.
    pub refused: u64,
    /// Opened, used and closed by both ends.
    pub closed: u64,
    /// Of those closed.
    pub per_second: f64,
}

/// What the responder says; `None` for what needs no answer.
#[must_use]
pub fn respond(segment: &Segment) -> Option<Segment> {
    if segment.flags & RST != 0 {
        None
    } else if segment.flags & (SYN | ACK) == SYN {
        // Any number will do, but another connection should have another one.
        let sequence = segment.sequence ^ u32::from(segment.source_port) << 16;
        Some(Segment {
            sequence,
            ..segment.answer(SYN | ACK)
        })
    } else if segment.flags & FIN != 0 {
        Some(segment.answer(FIN | ACK))
    } else {
        None
    }
}

/// What the client says, one after the other, and takes note of in `connections`.
#[must_use]
pub fn proceed(segment: &Segment, connections: &mut Connections) -> [Option<Segment>; 2] {
    if segment.flags & RST != 0 {
        connections.refused += 1;
        [None, None]
    } else if segment.flags & (SYN | ACK) == SYN | ACK {
        connections.answered += 1;
        let (taken, closed) = (segment.answer(ACK), segment.answer(FIN | ACK));
        [Some(taken), Some(closed)]
    } else if segment.flags & FIN != 0 {
        connections.closed += 1;
        [Some(segment.answer(ACK)), None]
    } else {
        [None, None]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(server: &str) -> Segment {
        let server: std::net::SocketAddr = server.parse().unwrap();
        let client = if server.is_ipv4() {
            "10.0.0.1"
        } else {
            "2001:db8::1"
        };
        Segment::opening(
            [
                MacAddress([2, 0, 0, 0, 0, 1]),
                MacAddress([2, 0, 0, 0, 0, 2]),
            ],
            (client.parse().unwrap(), 1024),
            (server.ip(), server.port()),
            77,
        )
    }

    #[test]
    fn frames_are_read_back_and_checksums_are_right() {
        for server in ["192.0.2.1:80", "[2001:db8::2]:443"] {
            let segment = opening(server);
            let mut frame = vec![1, 2, 3];
            segment.write(&mut frame);
            assert_eq!(frame.len(), segment.length());
            assert_eq!(Segment::read(&frame), Some(segment));
            let at = usize::from(parse(&frame).unwrap().l4_offset);
            let (source, destination) = (segment.source.into(), segment.destination.into());
            let sum = Sum::ZERO.pseudo_header(source, destination, TCP, 20);
            assert_eq!(sum.bytes(&frame[at..at + 20]).fold(), 0xffff);
            assert_eq!(Segment::read(&frame[..at + 10]), None);
        }
    }

    #[test]
    fn a_connection_opens_and_closes() {
        let mut connections = Connections::default();
        let syn = opening("192.0.2.1:80");
        let taken = respond(&syn).unwrap();
        assert_eq!((taken.flags, taken.acknowledgment), (SYN | ACK, 78));
        assert_eq!(
            (taken.source, taken.destination_port),
            (syn.destination, 1024)
        );
        let [Some(ack), Some(fin)] = proceed(&taken, &mut connections) else {
            panic!("no answer to a SYN ACK");
        };
        assert_eq!((ack.flags, ack.sequence), (ACK, 78));
        assert_eq!(respond(&ack), None);
        let closing = respond(&fin).unwrap();
        assert_eq!(
            (closing.sequence, closing.acknowledgment),
            (taken.sequence + 1, 79)
        );
        let [Some(last), None] = proceed(&closing, &mut connections) else {
            panic!("one answer to a FIN");
        };
        assert_eq!((last.flags, last.acknowledgment), (ACK, taken.sequence + 2));
        assert_eq!(respond(&last), None);
        assert_eq!(
            (
                connections.answered,
                connections.closed,
                connections.refused
            ),
            (1, 1, 0)
        );
    }

    #[test]
    fn resets_are_counted_and_not_answered() {
        let mut connections = Connections::default();
        let reset = Segment {
            flags: RST | ACK,
            ..opening("192.0.2.1:80")
        };
        assert_eq!(proceed(&reset, &mut connections), [None, None]);
        assert_eq!((respond(&reset), connections.refused), (None, 1));
    }
}
