//! The frames of a run: Ethernet, IPv4 or IPv6, UDP or TCP, and a stamp.
//!
//! ```text
//!  0          14             34 or 54        + 8 or 20
//!  | Ethernet | IPv4 or IPv6 | UDP or TCP    | stamp of 16 bytes | zeros
//! ```
//!
//! With a VLAN tag everything behind Ethernet's addresses is 4 bytes further. What the [`Stamp`]
//! says is described there. A frame too short for it carries none. TCP has SYN in round 0 and ACK afterwards: a
//! balancer sees each connection opened and then used.
//!
//! Lengths are those of a capture: with the Ethernet header, without the frame check sequence. The
//! 64 bytes of RFC 2544 are 60 here.

use std::net::{IpAddr, SocketAddr};

use dataplane::service::{MacAddress, Protocol};

use crate::flows::{FIRST_PORT, Flows};

/// Length of the Ethernet header in bytes.
pub const ETHERNET: usize = 14;
/// Length of the stamp in bytes.
pub const STAMP: usize = 16;
/// Length of a VLAN tag in bytes.
pub const TAG: usize = 4;
/// Flows that a stamp can tell apart.
pub const MOST_FLOWS: u32 = 1 << 24;
/// Shortest Ethernet frame in bytes, without the frame check sequence.
pub const SHORTEST: usize = 60;
/// The longest header in whole words of 8 bytes, in bytes: Ethernet, a VLAN tag, IPv6, TCP.
pub const TEMPLATE: usize = 80;

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// What a frame says about itself, at the start of its payload, in network byte order.
///
/// ```text
///  0      1                4           8       10                16
///  | run  | flow           | round     | "pg"  | time             |
/// ```
///
/// The two letters in the middle tell it from other payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which run of the generator it is of, by chance unlike the one before.
    pub run: u8,
    /// Number of the flow, below [`MOST_FLOWS`].
    pub flow: u32,
    /// Counts within the flow, from 0.
    pub round: u32,
    /// When it was sent: `CLOCK_MONOTONIC` in nanoseconds, the lower 48 bits of it, which are 78 hours.
    pub time: u64,
}

impl Stamp {
    const MAGIC: u64 = 0x7067;
    const TIME_BITS: u32 = 48;
    const TIME: u64 = (1 << Self::TIME_BITS) - 1;

    /// As it is in a frame.
    #[must_use]
    pub const fn bytes(self) -> [u8; STAMP] {
        let who = (self.run as u32) << 24 | self.flow & (MOST_FLOWS - 1);
        let when = Self::MAGIC << Self::TIME_BITS | self.time & Self::TIME;
        let all = (who as u128) << 96 | (self.round as u128) << 64 | when as u128;
        all.to_be_bytes()
    }

    /// The stamp at the start of `payload`, if there is one.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; STAMP] = payload.first_chunk()?;
        let [run, flow @ ..] = *bytes.first_chunk::<4>()?;
        let [a, b, c] = flow;
        let round = u32::from_be_bytes(*bytes[4..].first_chunk()?);
        let when = u64::from_be_bytes(*bytes[8..].first_chunk()?);
        (when >> Self::TIME_BITS == Self::MAGIC).then_some(Self {
            run,
            flow: u32::from_be_bytes([0, a, b, c]),
            round,
            time: when & Self::TIME,
        })
    }

    /// Nanoseconds from the sending to `now`, by the same clock; `None` for one that is still to come,
    /// as other clocks would have it.
    #[must_use]
    pub const fn age(self, now: u64) -> Option<u64> {
        let age = now.wrapping_sub(self.time) & Self::TIME;
        if age < 1 << (Self::TIME_BITS - 1) {
            Some(age)
        } else {
            None
        }
    }
}

/// Where frames go and what they are.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Of the sending interface.
    pub source_mac: MacAddress,
    /// Of the next hop.
    pub destination_mac: MacAddress,
    /// Address and port of the virtual server.
    pub destination: SocketAddr,
    pub protocol: Protocol,
}

impl Layout {
    /// Where the layer 4 header begins, in bytes from the start of the frame.
    #[must_use]
    pub fn l4(&self) -> usize {
        ETHERNET + if self.destination.is_ipv6() { 40 } else { 20 }
    }

    /// Where the payload begins, in bytes from the start of the frame.
    #[must_use]
    pub fn payload(&self) -> usize {
        self.l4()
            + match self.protocol {
                Protocol::Udp => 8,
                Protocol::Tcp => 20,
                Protocol::Sctp => 12,
            }
    }

    /// The headers in whole words of 8 bytes.
    #[must_use]
    pub fn words(&self) -> usize {
        self.payload().div_ceil(8)
    }

    /// Shortest frame of this kind, in bytes.
    #[must_use]
    pub fn shortest(&self) -> usize {
        SHORTEST.max(self.words() * 8)
    }

    /// Shortest frame of this kind that has room for its stamp, in bytes.
    #[must_use]
    pub fn shortest_stamped(&self) -> usize {
        self.shortest().max(self.payload() + STAMP)
    }
}

/// A frame of one length with everything that does not vary from flow to flow, and the checksum
/// sums of it.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    layout: Layout,
    tagged: bool,
    run: u8,
    syn_only: bool,
    length: usize,
    header: [u8; TEMPLATE],
    /// Sum of the IPv4 header without the source address; folded to 16 bits, host order.
    pub ip_sum: u32,
    /// Sum of pseudo header and layer 4 header without source address and port, TCP flags and
    /// stamp; folded, host order. The rest of the payload is zero.
    pub l4_sum: u32,
}

impl Template {
    /// The template for frames of `length` bytes from sources of `flows`.
    ///
    /// # Errors
    /// The addresses are not of one family, or the length is too short or too long for the headers.
    pub fn new(layout: Layout, flows: &Flows, length: usize) -> Result<Self, FrameError> {
        let (destination, source) = (layout.destination.ip(), flows.first());
        if destination.is_ipv4() != source.is_ipv4() {
            return Err(FrameError::Families {
                destination,
                first: source,
            });
        }
        let shortest = layout.shortest();
        let total = u16::try_from(length.saturating_sub(ETHERNET))
            .ok()
            .filter(|_| length >= shortest)
            .ok_or(FrameError::Length { length, shortest })?;
        let mut header = [0; TEMPLATE];
        header[..6].copy_from_slice(&layout.destination_mac.0);
        header[6..12].copy_from_slice(&layout.source_mac.0);
        let l4 = layout.l4();
        let l4_length = total - if destination.is_ipv6() { 40 } else { 20 };
        match (source, destination) {
            (IpAddr::V4(_), IpAddr::V4(destination)) => {
                header[12..14].copy_from_slice(&[0x08, 0x00]);
                header[14] = 0x45;
                header[16..18].copy_from_slice(&total.to_be_bytes());
                header[20] = 0x40; // don't fragment
                header[22] = 64; // TTL
                header[23] = layout.protocol as u8;
                header[30..34].copy_from_slice(&destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header[12..14].copy_from_slice(&[0x86, 0xdd]);
                header[14] = 0x60;
                header[18..20].copy_from_slice(&l4_length.to_be_bytes());
                header[20] = layout.protocol as u8;
                header[21] = 64; // hop limit
                // The last 32 bits are the flow's.
                header[22..34].copy_from_slice(&source.octets()[..12]);
                header[38..54].copy_from_slice(&destination.octets());
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                return Err(FrameError::Families {
                    destination,
                    first: source,
                });
            }
        }
        header[l4 + 2..l4 + 4].copy_from_slice(&layout.destination.port().to_be_bytes());
        match layout.protocol {
            Protocol::Udp => header[l4 + 4..l4 + 6].copy_from_slice(&l4_length.to_be_bytes()),
            Protocol::Tcp => {
                header[l4 + 12] = 5 << 4; // header length in words of 4 bytes
                header[l4 + 14..l4 + 16].copy_from_slice(&u16::MAX.to_be_bytes()); // window
            }
            Protocol::Sctp => return Err(FrameError::Sctp),
        }
        let addresses = match destination {
            IpAddr::V4(_) => &header[30..34], // the source is the flow's
            IpAddr::V6(_) => &header[22..54], // of the source all but the last 32 bits, still zero
        };
        let l4_sum = fold(
            sum(addresses)
                + u32::from(layout.protocol as u8)
                + u32::from(l4_length)
                + sum(&header[l4..layout.payload()]),
        );
        let ip_sum = match destination {
            IpAddr::V4(_) => fold(sum(&header[ETHERNET..l4])),
            IpAddr::V6(_) => 0,
        };
        Ok(Self {
            layout,
            tagged: false,
            run: 0,
            syn_only: false,
            length,
            header,
            ip_sum,
            l4_sum,
        })
    }

    /// The same frames with a VLAN tag, [`TAG`] bytes longer.
    #[must_use]
    pub fn tagged(mut self, vlan: u16) -> Self {
        let [high, low] = vlan.to_be_bytes();
        self.header.copy_within(12..TEMPLATE - TAG, 12 + TAG);
        self.header[12..12 + TAG].copy_from_slice(&[0x81, 0x00, high, low]);
        self.length += TAG;
        self.tagged = true;
        self
    }

    /// The same frames, said to be of another protocol.
    #[must_use]
    pub fn of_ethertype(mut self, ethertype: u16) -> Self {
        self.header[12..14].copy_from_slice(&ethertype.to_be_bytes());
        self
    }

    /// The same frames with stamps of this run.
    #[must_use]
    pub fn of_run(mut self, run: u8) -> Self {
        self.run = run;
        self
    }

    /// The same frames, of which every one opens a connection.
    #[must_use]
    pub fn syn_only(mut self) -> Self {
        self.syn_only = true;
        self
    }

    /// Bytes by which all is further back than the layout says.
    fn shift(&self) -> usize {
        if self.tagged { TAG } else { 0 }
    }

    /// The headers in whole words of 8 bytes.
    #[must_use]
    pub fn words(&self) -> usize {
        (self.layout.payload() + self.shift()).div_ceil(8)
    }

    /// Length of the frame in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The headers, rounded up to whole words, without what varies from flow to flow.
    #[must_use]
    pub fn header(&self) -> &[u8; TEMPLATE] {
        &self.header
    }

    /// The frame of `flow` in `round`, sent at `now` nanoseconds, with both checksums right.
    #[must_use]
    pub fn frame(&self, flows: &Flows, flow: u32, round: u32, now: u64) -> Vec<u8> {
        let mut frame = vec![0; self.length];
        self.write(flows, flow, round, now, &mut frame);
        frame
    }

    /// The same, into a buffer of [`length`](Self::length) bytes whose payload behind the stamp is
    /// zero.
    ///
    /// # Panics
    /// If the buffer is shorter.
    pub fn write(&self, flows: &Flows, flow: u32, round: u32, now: u64, frame: &mut [u8]) {
        let shift = self.shift();
        let (l4, payload) = (self.layout.l4() + shift, self.layout.payload() + shift);
        frame[..payload].copy_from_slice(&self.header[..payload]);
        let (source, port) = flows.source(flow);
        debug_assert!(port >= FIRST_PORT);
        frame[l4..l4 + 2].copy_from_slice(&port.to_be_bytes());
        let mut l4_sum = self.l4_sum + u32::from(port);
        let ip = &mut frame[ETHERNET + shift..];
        let varying = match source {
            IpAddr::V4(source) => {
                ip[12..16].copy_from_slice(&source.octets());
                let checksum = !fold(self.ip_sum + sum(&source.octets()));
                ip[10..12].copy_from_slice(&low_half(checksum));
                source.octets()
            }
            IpAddr::V6(source) => {
                ip[8..24].copy_from_slice(&source.octets());
                let [.., a, b, c, d] = source.octets();
                [a, b, c, d]
            }
        };
        l4_sum += sum(&varying);
        if let Some(place) = frame.get_mut(payload..payload + STAMP) {
            let stamp = Stamp {
                run: self.run,
                flow: flows.offset() + flow,
                round,
                time: now,
            };
            place.copy_from_slice(&stamp.bytes());
            l4_sum += sum(place);
        }
        match self.layout.protocol {
            Protocol::Tcp => {
                let flags = if round == 0 || self.syn_only {
                    TCP_SYN
                } else {
                    TCP_ACK
                };
                frame[l4 + 13] = flags;
                let checksum = !fold(l4_sum + u32::from(flags));
                frame[l4 + 16..l4 + 18].copy_from_slice(&low_half(checksum));
            }
            Protocol::Udp => {
                let checksum = match low_half(!fold(l4_sum)) {
                    [0, 0] => [0xff, 0xff], // 0 would say "no checksum" (RFC 768)
                    other => other,
                };
                frame[l4 + 6..l4 + 8].copy_from_slice(&checksum);
            }
            // There is no template of it.
            Protocol::Sctp => {}
        }
    }
}

/// Sum of the 16-bit words of `bytes`, of which there is an even number below 2^16 (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

/// Folds the carries of a sum into 16 bits.
fn fold(sum: u32) -> u32 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

fn low_half(value: u32) -> [u8; 2] {
    let [.., high, low] = value.to_be_bytes();
    [high, low]
}

/// The wanted frame cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error(
        "destination {destination} and source {first} are of different families: give a --src of the destination's"
    )]
    Families { destination: IpAddr, first: IpAddr },
    #[error("frames of {length} bytes: this protocol needs {shortest} to 65535")]
    Length { length: usize, shortest: usize },
    #[error("SCTP is not generated: choose UDP or TCP")]
    Sctp,
}

#[cfg(test)]
#[path = "frame/tests.rs"]
mod tests;
