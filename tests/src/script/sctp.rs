//! SCTP packets in words (RFC 9260 §3): the chunks by their names, the payload in the last of them.

use std::fmt::Write as _;

use super::pattern;
use super::words::Wrong;

/// An SCTP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sctp {
    pub source_port: u16,
    pub destination_port: u16,
    /// Verification tag.
    pub tag: u32,
    /// Types of the chunks; what they must hold is made up.
    pub chunks: Vec<u8>,
    /// At the end of the last chunk.
    pub payload: Vec<u8>,
}

/// A kind of chunk: word, type, flags, and what it must hold at least.
type Kind = (&'static str, u8, u8, &'static [u8]);

/// What a chunk without a word of its own holds: nothing.
const NOTHING: (u8, &[u8]) = (0, &[]);

/// Initiate tag 1, a window of 64 KiB, one stream each way, TSN 1.
const INIT: &[u8] = &[0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
/// The same with a cookie of four bytes.
const INIT_ACK: &[u8] = &[
    0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 7, 0, 8, 1, 2, 3, 4,
];
/// TSN 1, stream 0, number 0, protocol 0.
const DATA: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
/// TSN 1 is acknowledged, a window of 64 KiB, no gaps.
const SACK: &[u8] = &[0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0];
/// Heartbeat information of four bytes.
const HEARTBEAT: &[u8] = &[0, 1, 0, 8, 0, 0, 0, 1];
/// TSN 1 is acknowledged.
const SHUTDOWN: &[u8] = &[0, 0, 0, 1];

const KINDS: [Kind; 13] = [
    ("data", 0, 3, DATA), // a whole message
    ("init", 1, 0, INIT),
    ("init-ack", 2, 0, INIT_ACK),
    ("sack", 3, 0, SACK),
    ("heartbeat", 4, 0, HEARTBEAT),
    ("heartbeat-ack", 5, 0, HEARTBEAT),
    ("abort", 6, 0, &[]),
    ("shutdown", 7, 0, SHUTDOWN),
    ("shutdown-ack", 8, 0, &[]),
    ("error", 9, 0, &[]),
    ("cookie-echo", 10, 0, &[]),
    ("cookie-ack", 11, 0, &[]),
    ("shutdown-complete", 14, 0, &[]),
];

/// `init`, or `cookie-echo,data`.
pub(super) fn chunks(word: &str) -> Result<Vec<u8>, Wrong> {
    let chunk = |word: &str| {
        let known = KINDS.iter().find(|(known, ..)| *known == word);
        let number = known.map(|(_, number, ..)| *number);
        number.or_else(|| word.parse().ok()).ok_or_else(|| {
            let names = KINDS.map(|(name, ..)| name).join(", ");
            format!("`{word}` is no chunk: expected a number or one of {names}")
        })
    };
    word.split(',').map(chunk).collect()
}

fn held(chunk: u8) -> (u8, &'static [u8]) {
    let known = KINDS.iter().find(|(_, number, ..)| *number == chunk);
    known.map_or(NOTHING, |(_, _, flags, held)| (*flags, held))
}

impl Sctp {
    /// The packet with its checksum.
    pub(super) fn to_bytes(&self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = [self.source_port, self.destination_port]
            .map(u16::to_be_bytes)
            .concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        for (left, &chunk) in (0..self.chunks.len()).rev().zip(&self.chunks) {
            let (flags, held) = held(chunk);
            let payload: &[u8] = if left == 0 { &self.payload } else { &[] };
            let length = u16::try_from(4 + held.len() + payload.len())?;
            bytes.extend([chunk, flags]);
            bytes.extend(length.to_be_bytes());
            bytes.extend(held);
            bytes.extend(payload);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let checksum = crc32c(&bytes);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    /// What the bytes say, if [`to_bytes`](Self::to_bytes) may make them again.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[s0, s1, d0, d1, t0, t1, t2, t3, ..], mut rest) = bytes.split_first_chunk::<12>()?;
        let mut chunks = Vec::new();
        let mut payload = Vec::new();
        while let Some(&[chunk, _, high, low]) = rest.first_chunk() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            let value = rest.get(4..length)?;
            payload = value.get(held(chunk).1.len()..)?.to_vec();
            chunks.push(chunk);
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
        (!chunks.is_empty()).then_some(Self {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            tag: u32::from_be_bytes([t0, t1, t2, t3]),
            chunks,
            payload,
        })
    }

    /// What stands behind an IP header if `length` bytes do, for a quote that ends in the common header.
    pub(super) fn guess(length: usize) -> Option<Vec<u8>> {
        let (flags, held) = held(0);
        let chunk = u16::try_from(length.checked_sub(12)?).ok()?;
        let payload = pattern(usize::from(chunk).checked_sub(4 + held.len())?);
        let [high, low] = chunk.to_be_bytes();
        Some([&[0; 12][..], &[0, flags, high, low], held, &payload].concat())
    }

    /// `sctp cookie-echo,data`.
    pub(super) fn write(&self, words: &mut String) {
        let name = |chunk: &u8| {
            let known = KINDS.iter().find(|(_, number, ..)| number == chunk);
            known.map_or_else(|| chunk.to_string(), |(name, ..)| (*name).to_owned())
        };
        let names: Vec<_> = self.chunks.iter().map(name).collect();
        let _ = write!(words, "sctp {}", names.join(","));
    }
}

/// CRC32c bit by bit (RFC 9260 appendix A): slow, and other than the product's.
pub fn crc32c(bytes: &[u8]) -> u32 {
    const REFLECTED: u32 = 0x82f6_3b78;
    let shift = |crc: u32, _| (crc >> 1) ^ (REFLECTED & 0_u32.wrapping_sub(crc & 1));
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}
