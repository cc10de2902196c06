//! Frames made in this process, one after the other, for the AF_XDP engine: what the kernel's
//! generator sends, and what it cannot: fragments, broken frames, captures.

use std::path::Path;

use dataplane::device::pcap::{CaptureError, CaptureReader};
use dataplane::wire::checksum::Sum;

use crate::flows::{Flows, Order};
use crate::frame::{ETHERNET, TAG, Template};

/// Frames without end.
#[derive(Debug)]
pub struct Traffic {
    source: Source,
    damage: Option<Damage>,
    frame: Vec<u8>,
}

#[derive(Debug)]
enum Source {
    Flows(Flowing),
    Fragments(Fragments),
    Capture { frames: Vec<Vec<u8>>, next: usize },
}

impl Traffic {
    /// The frames of `templates`, which are not none, in turn, for each of `flows` in turn.
    #[must_use]
    pub fn of_flows(flows: Flows, templates: Vec<Template>) -> Self {
        Self::of(Source::Flows(Flowing::new(flows, templates)))
    }

    /// The same packets in IP fragments with `bytes` of payload each, rounded down to a multiple of 8
    /// (RFC 791 §3.2).
    #[must_use]
    pub fn fragments(flows: Flows, templates: Vec<Template>, bytes: u16) -> Self {
        Self::of(Source::Fragments(Fragments {
            packets: Flowing::new(flows, templates),
            packet: Vec::new(),
            size: usize::from(bytes / 8 * 8).max(8),
            at: 0,
            number: 0,
        }))
    }

    /// The frames of a capture, over and over, as they are.
    ///
    /// # Errors
    /// It cannot be read, or has no frame.
    pub fn capture(path: &Path) -> Result<Self, TrafficError> {
        let mut capture = CaptureReader::open(path)?;
        let mut frames = Vec::new();
        while let Some(packet) = capture.next_packet()? {
            frames.push(packet.data.into_owned());
        }
        if frames.is_empty() {
            return Err(TrafficError::Empty(path.display().to_string()));
        }
        Ok(Self::of(Source::Capture { frames, next: 0 }))
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            damage: None,
            frame: Vec::new(),
        }
    }

    /// The same with a share of the frames broken, 0 to 1, in each of the ways of `Damage` in turn.
    #[must_use]
    pub fn with_damage(mut self, share: f64) -> Self {
        self.damage = Some(Damage {
            share,
            due: 0.0,
            kind: 0,
        });
        self
    }

    /// The length of the longest frame in bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        match &self.source {
            Source::Flows(flowing) => flowing.longest(),
            // Headers: Ethernet with a tag, IPv6, the fragment's own.
            Source::Fragments(fragments) => fragments.size + ETHERNET + TAG + 48,
            Source::Capture { frames, .. } => frames.iter().map(Vec::len).max().unwrap_or(0),
        }
    }

    /// The next frame, stamped with `now` nanoseconds.
    pub fn next(&mut self, now: u64) -> &[u8] {
        match &mut self.source {
            Source::Flows(flowing) => flowing.write(now, &mut self.frame),
            Source::Fragments(fragments) => fragments.write(now, &mut self.frame),
            Source::Capture { frames, next } => {
                self.frame.clear();
                self.frame.extend(&frames[*next]);
                *next = (*next + 1) % frames.len();
            }
        }
        if let Some(damage) = &mut self.damage {
            damage.strike(&mut self.frame);
        }
        &self.frame
    }
}

/// Frames of templates.
#[derive(Debug)]
struct Flowing {
    flows: Flows,
    order: Order,
    templates: Vec<Template>,
    next: usize,
}

impl Flowing {
    fn new(flows: Flows, templates: Vec<Template>) -> Self {
        Self {
            flows,
            order: flows.order(),
            templates,
            next: 0,
        }
    }

    fn longest(&self) -> usize {
        let lengths = self.templates.iter().map(Template::length);
        lengths.max().unwrap_or(0)
    }

    fn write(&mut self, now: u64, frame: &mut Vec<u8>) {
        let template = &self.templates[self.next];
        self.next = (self.next + 1) % self.templates.len();
        let (flow, round) = self.order.next().unwrap_or_default();
        frame.clear();
        frame.resize(template.length(), 0);
        template.write(&self.flows, flow, round, now, frame);
    }
}

/// A packet in pieces.
#[derive(Debug)]
struct Fragments {
    packets: Flowing,
    /// The one under way, as a frame.
    packet: Vec<u8>,
    /// Of a piece's payload, a multiple of 8.
    size: usize,
    /// How much of the packet's payload was sent.
    at: usize,
    /// Identifies the packet.
    number: u16,
}

impl Fragments {
    const IPV6_FRAGMENT: u8 = 44;

    fn write(&mut self, now: u64, frame: &mut Vec<u8>) {
        let l3 = l3_offset(&self.packet);
        let header = l3 + ip_header(&self.packet, l3);
        if self.packet.len() <= header + self.at {
            self.packets.write(now, &mut self.packet);
            self.number = self.number.wrapping_add(1);
            self.at = 0;
        }
        let l3 = l3_offset(&self.packet);
        let header = l3 + ip_header(&self.packet, l3);
        let rest = &self.packet[header + self.at..];
        let piece = &rest[..rest.len().min(self.size)];
        // Offsets fit in 16 bits, as packets do.
        let offset = u16::try_from(self.at).unwrap_or(u16::MAX);
        let more = piece.len() < rest.len();
        frame.clear();
        frame.extend(&self.packet[..header]);
        if self.packet[l3] >> 4 == 4 {
            let total = u16::try_from(header - l3 + piece.len()).unwrap_or(u16::MAX);
            let ip = &mut frame[l3..];
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip[4..6].copy_from_slice(&self.number.to_be_bytes());
            let place = (offset / 8) | (u16::from(more) << 13);
            ip[6..8].copy_from_slice(&place.to_be_bytes());
            ip[10..12].fill(0);
            let checksum = Sum::ZERO.bytes(ip).checksum();
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            let protocol = std::mem::replace(&mut frame[l3 + 6], Self::IPV6_FRAGMENT);
            let length = u16::try_from(8 + piece.len()).unwrap_or(u16::MAX);
            frame[l3 + 4..l3 + 6].copy_from_slice(&length.to_be_bytes());
            frame.extend([protocol, 0]);
            frame.extend((offset | u16::from(more)).to_be_bytes());
            frame.extend(u32::from(self.number).to_be_bytes());
        }
        frame.extend(piece);
        self.at += piece.len();
    }
}

/// What makes frames wrong.
#[derive(Debug)]
struct Damage {
    share: f64,
    /// Frames that should have been broken and were not yet.
    due: f64,
    kind: u8,
}

impl Damage {
    /// Ways to break a frame.
    const KINDS: u8 = 6;

    fn strike(&mut self, frame: &mut Vec<u8>) {
        self.due += self.share;
        if self.due < 1.0 {
            return;
        }
        self.due -= 1.0;
        let kind = self.kind;
        self.kind = (kind + 1) % Self::KINDS;
        let l3 = l3_offset(frame);
        let l4 = l3 + ip_header(frame, l3);
        if frame.len() < l4 + 14 {
            return;
        }
        let is_v4 = frame[l3] >> 4 == 4;
        match kind {
            0 => frame[l3] = 0x50 | frame[l3] & 15, // no such version
            // A length beyond the end of the frame.
            1 if is_v4 => {
                frame[l3 + 2] = 0xff;
                renew(frame, l3);
            }
            1 => frame[l3 + 4] = 0xff,
            // A wrong checksum; IPv6 has none, and gets a wrong one behind it.
            2 if is_v4 => frame[l3 + 10] ^= 0xff,
            2 => frame[l4 + 6] ^= 0xff,
            // A header shorter than the shortest; a packet without room for its payload's header.
            3 if is_v4 => frame[l3] = 0x44,
            3 => frame[l3 + 4..l3 + 6].fill(0),
            // A UDP length or a TCP header length that cannot be.
            4 if is_udp(frame, l3) => frame[l4 + 4..l4 + 6].fill(0xff),
            4 => frame[l4 + 12] = 0x10,
            // The end of the headers is missing.
            _ => frame.truncate(l4 + 2),
        }
    }
}

fn is_udp(frame: &[u8], l3: usize) -> bool {
    let at = if frame[l3] >> 4 == 4 { 9 } else { 6 };
    frame.get(l3 + at) == Some(&17)
}

/// Makes an IPv4 header's checksum right.
fn renew(frame: &mut [u8], l3: usize) {
    frame[l3 + 10..l3 + 12].fill(0);
    let checksum = Sum::ZERO.bytes(&frame[l3..l3 + 20]).checksum();
    frame[l3 + 10..l3 + 12].copy_from_slice(&checksum.to_be_bytes());
}

/// Where the IP header begins.
fn l3_offset(frame: &[u8]) -> usize {
    let is_tagged = frame.get(12..14) == Some(&[0x81, 0x00]);
    ETHERNET + if is_tagged { TAG } else { 0 }
}

/// Length of the IP header.
fn ip_header(frame: &[u8], l3: usize) -> usize {
    match frame.get(l3).map(|first| first >> 4) {
        Some(4) => 20,
        _ => 40,
    }
}

/// There is nothing to send.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error("{0} has no packets")]
    Empty(String),
}

#[cfg(test)]
mod tests {
    use dataplane::service::{MacAddress, Protocol};
    use dataplane::wire::parse::{Kind, parse};

    use super::*;
    use crate::frame::Layout;

    fn flows_and_template(destination: &str, length: usize) -> (Flows, Template) {
        let layout = Layout {
            source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
            destination: destination.parse().unwrap(),
            protocol: Protocol::Udp,
        };
        let prefix = if layout.destination.is_ipv4() {
            "10.0.0.0/24"
        } else {
            "2001:db8::/64"
        };
        let flows = Flows::new(prefix.parse().unwrap(), 3).unwrap();
        let template = Template::new(layout, &flows, length).unwrap();
        (flows, template)
    }

    const DESTINATIONS: [&str; 2] = ["192.0.2.1:80", "[2001:db8:ffff::1]:80"];

    #[test]
    fn flows_are_visited_in_their_order() {
        let (flows, template) = flows_and_template(DESTINATIONS[0], 91);
        let mut traffic = Traffic::of_flows(flows, vec![template]);
        for (flow, round) in flows.order().take(7) {
            let expected = template.frame(&flows, flow, round, 5);
            assert_eq!(traffic.next(5), expected);
        }
    }

    #[test]
    fn fragments_together_are_the_packet() {
        for destination in DESTINATIONS {
            for vlan in [None, Some(7)] {
                let (flows, template) = flows_and_template(destination, 3000);
                let template = vlan.map_or(template, |vlan| template.tagged(vlan));
                let mut traffic = Traffic::fragments(flows, vec![template], 1001);
                let l3 = ETHERNET + if vlan.is_some() { TAG } else { 0 };
                for (flow, round) in flows.order().take(4) {
                    let whole = template.frame(&flows, flow, round, 9);
                    let header = l3 + ip_header(&whole, l3);
                    let mut payload: Vec<u8> = Vec::new();
                    let pieces = (whole.len() - header).div_ceil(1000);
                    for number in 0..pieces {
                        let frame = traffic.next(9).to_vec();
                        let parsed = parse(&frame).unwrap();
                        let kind = match number {
                            0 => Kind::FirstFragment,
                            _ => Kind::LaterFragment,
                        };
                        assert_eq!(parsed.kind, kind);
                        payload.extend(&frame[parsed.l4_offset.into()..]);
                    }
                    assert_eq!(payload, whole[header..], "{destination}");
                }
            }
        }
    }

    #[test]
    fn damage_is_noticed_and_as_frequent_as_wanted() {
        for destination in DESTINATIONS {
            let (flows, template) = flows_and_template(destination, 91);
            let mut traffic = Traffic::of_flows(flows, vec![template]).with_damage(0.25);
            let count = 4 * 6 * 10;
            let is_wrong = |frame: &[u8]| {
                let parsed = parse(frame);
                // Of IPv6, a wrong UDP checksum is for the receiver to notice.
                parsed.is_err() || template.frame(&flows, 0, 0, 0)[..14] != frame[..14]
            };
            let wrong = (0..count).filter(|_| is_wrong(traffic.next(0))).count();
            let expected = if destination == DESTINATIONS[0] {
                60
            } else {
                50
            };
            assert_eq!(wrong, expected, "{destination}");
        }
    }
}
