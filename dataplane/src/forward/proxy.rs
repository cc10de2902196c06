//! PROXY protocol version 2 (the HAProxy project's specification, §2.2): FULLNAT tells the real
//! server who the client is by bytes in front of the client's own.
//!
//! ```text
//! +---------------------------------------------------------------+
//! |          signature: \r\n \r\n \0 \r\n QUIT \n, 12 bytes       |
//! +-------+-------+-------+-------+-------------------------------+
//! | ver 2 | PROXY |  AF   | proto |  length of what follows       |
//! +-------+-------+-------+-------+-------------------------------+
//! |  client's address, virtual server's address, both ports       |
//! +---------------------------------------------------------------+
//! ```
//!
//! The server's stream of bytes then is longer than the client's, by [`Splice`]'s length from the
//! first byte on: sequence numbers on the way to the server and acknowledgments on the way back are
//! shifted. The header comes with the segment that ends the handshake, for a server may want it before
//! it says anything, and with whatever begins there until the server has acknowledged it.

use super::insert::{Insertion, packet_len};
use super::rewrite::Endpoints;
use super::sequence::{self, is_after};
use crate::counters::DropReason;
use crate::service::Protocol;
use crate::wire::tcp;
use crate::wire::udp;
use crate::xsk::umem::{Frame, Umem};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, on behalf of another.
const VERSION_AND_COMMAND: u8 = 0x21;
const LENGTH_V4: usize = 28;
const LENGTH_V6: usize = 52;

/// The header for one connection: plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    bytes: [u8; LENGTH_V6],
    length: u8,
}

impl ProxyHeader {
    /// For a connection between a client and a virtual server, `ends` as the client sees them. If
    /// one address is of IPv6, both are written as such.
    #[must_use]
    pub fn new(ends: &Endpoints, protocol: Protocol) -> Self {
        let (client, server) = (ends.source.address, ends.destination.address);
        let is_v4 = client.is_v4() && server.is_v4();
        let length = if is_v4 { LENGTH_V4 } else { LENGTH_V6 };
        let mut bytes = [0; LENGTH_V6];
        bytes[..12].copy_from_slice(&SIGNATURE);
        bytes[12] = VERSION_AND_COMMAND;
        let family = if is_v4 { 0x10 } else { 0x20 };
        bytes[13] = family
            | match protocol {
                Protocol::Tcp | Protocol::Sctp => 1,
                Protocol::Udp => 2,
            };
        bytes[15] = u8::try_from(length - 16).unwrap_or(0); // 12 or 36
        if is_v4 {
            bytes[16..20].copy_from_slice(&client.last_octets());
            bytes[20..24].copy_from_slice(&server.last_octets());
        } else {
            bytes[16..32].copy_from_slice(&client.octets());
            bytes[32..48].copy_from_slice(&server.octets());
        }
        bytes[length - 4..length].copy_from_slice(&ends.ports());
        let length = u8::try_from(length).unwrap_or(0); // 28 or 52
        Self { bytes, length }
    }

    /// As it goes before the payload: 28 or 52 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// How many bytes that are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> u8 {
        self.length
    }

    /// Inserts the header before the payload of the whole TCP segment or UDP datagram at `l4`, in
    /// the IP packet at `l3`. False, and nothing changed, if it would be longer than `mtu` bytes with
    /// its IP header.
    ///
    /// # Errors
    /// The packet is broken.
    #[cold]
    pub fn insert(
        &self,
        umem: &Umem,
        frame: &mut Frame,
        (l3, l4): (usize, usize),
        protocol: Protocol,
        mtu: u16,
    ) -> Result<bool, DropReason> {
        let packet = umem.bytes(frame);
        let is_v4 = packet.get(l3).is_some_and(|first| first >> 4 == 4);
        let length = packet_len(packet, l3, is_v4)?;
        let transport = packet.get(l4..l3 + length).unwrap_or_default();
        let at = match protocol {
            Protocol::Tcp => tcp::Packet::new_checked(transport)?.header_len(),
            Protocol::Udp => {
                udp::Packet::new_checked(transport)?;
                udp::HEADER_LEN
            }
            Protocol::Sctp => return Err(DropReason::OtherProtocol),
        };
        if length + self.bytes().len() > usize::from(mtu) {
            return Ok(false);
        }
        let insertion = Insertion {
            l3,
            l4,
            at,
            bytes: self.bytes(),
            protocol,
            are_options: false,
        };
        insertion.apply(umem, frame, is_v4)?;
        Ok(true)
    }
}

/// How the streams of client and server differ: from the sequence number of the first byte on, the
/// server's is longer. Plain data of 8 bytes, kept with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Sequence number of the client's first byte: the SYN's plus one.
    pub first: u32,
    /// Bytes of the header.
    pub length: u8,
    /// The server has acknowledged the header: it is not sent again, and all numbers are shifted. Without
    /// this, those of a stream would be taken for earlier ones once it is 2 GiB long.
    pub settled: bool,
}

/// What becomes of a segment of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From before the first byte: it goes as it is.
    Before,
    /// It begins at the first byte, which may not be in it yet: the header goes before its payload.
    First,
    /// Its sequence number is to be shifted.
    After,
}

impl Splice {
    /// Where in the stream a segment of the client is, by its sequence number.
    #[inline(always)]
    #[must_use]
    pub fn part(&self, sequence: u32) -> Part {
        if self.settled {
            Part::After
        } else if sequence == self.first {
            Part::First
        } else if is_after(sequence, self.first) {
            Part::After
        } else {
            Part::Before
        }
    }

    /// Shifts the sequence number of the client's segment at `l4`.
    #[inline(always)]
    pub fn shift_sequence(&self, frame: &mut [u8], l4: usize) {
        sequence::shift_sequence(frame, l4, self.length.into());
    }

    /// Shifts what the server's segment at `l4` says of the client's bytes back: acknowledgment and
    /// selective acknowledgments (RFC 2018). Notes when the splice is settled.
    #[inline]
    pub fn shift_acknowledgment(&mut self, frame: &mut [u8], l4: usize) {
        let mut is_first = true;
        sequence::change_acknowledgment(frame, l4, |number| {
            if std::mem::take(&mut is_first) {
                let data = self.first.wrapping_add(self.length.into());
                self.settled |= !is_after(data, number);
            }
            self.back(number)
        });
    }

    /// A number of the server's stream in the client's; those inside the header are the first byte's.
    fn back(&self, number: u32) -> u32 {
        let shifted = number.wrapping_sub(self.length.into());
        if self.settled {
            shifted
        } else if !is_after(number, self.first) {
            number
        } else if is_after(shifted, self.first) {
            shifted
        } else {
            self.first
        }
    }
}

#[cfg(test)]
mod tests;
