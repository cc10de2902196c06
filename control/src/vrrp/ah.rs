//! The IP authentication header around a VRRPv2 advertisement (RFC 2338 §5.3.6.3, RFC 2402), with
//! HMAC-MD5-96 (RFC 2403), as keepalived makes it.
//!
//! ```text
//! |  Next header  | Payload len 4 |          reserved             |
//! |             Security parameters index: the source             |
//! |                        Sequence number                        |
//! |            Integrity check value, 12 bytes                    |
//! |                the advertisement, of auth type 2              |
//! ```
//!
//! The value covers the whole packet, with zero for what may change on the way: type of service, flags and
//! offset, checksum, and the value itself. keepalived covers the TTL as it is; RFC 2402 has zero for it.
//! Either is accepted, and keepalived's is sent.
//!
//! Invariant: a sequence number below the highest one seen from anybody is not accepted, and what is sent
//! has a higher one: directors of a virtual router count together.

use std::net::Ipv4Addr;

use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};

use super::packet;

/// The IP protocol number of the authentication header.
pub const PROTOCOL: u8 = 51;

const IPV4: usize = 20;
const LENGTH: usize = 24;
const ICV: usize = 12;
/// Words of 32 bits less two (RFC 2402 §2.2).
const PAYLOAD_LENGTH: u8 = 4;
/// Internetwork control (RFC 791): the precedence of routing protocols.
const TYPE_OF_SERVICE: u8 = 0xc0;

/// What a packet with an authentication header said beside its advertisement.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    pub sequence: u32,
    icv: [u8; ICV],
    /// The whole packet, with zeros where they belong, and the TTL.
    covered: Vec<u8>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sequence = self.sequence;
        f.debug_struct("Sealed")
            .field("sequence", &sequence)
            .finish_non_exhaustive()
    }
}

impl Sealed {
    /// Whether somebody made it who knows the password.
    #[must_use]
    pub fn is_by(&self, key: &[u8; 8]) -> bool {
        let mut without_ttl = self.covered.clone();
        if let Some(ttl) = without_ttl.get_mut(8) {
            *ttl = 0;
        }
        let made = |covered: &[u8]| icv(key, covered) == self.icv;
        made(&self.covered) || made(&without_ttl)
    }
}

/// Takes an IPv4 packet with such a header apart: what is sealed, and the length of the headers. `None`:
/// it is no such packet, or no advertisement is in it.
#[must_use]
pub fn open(packet: &[u8]) -> Option<(Sealed, usize)> {
    let ip_length = usize::from(packet.first()? & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let packet = packet.get(..total)?;
    let [next, length, _, _, _, _, _, _, a, b, c, d, ..] =
        *packet.get(ip_length.max(IPV4)..)?.first_chunk::<LENGTH>()?;
    if (next, length) != (packet::PROTOCOL, PAYLOAD_LENGTH) {
        return None;
    }
    let mut covered = packet.to_vec();
    let place = ip_length.max(IPV4) + LENGTH - ICV;
    let icv = *covered.get(place..)?.first_chunk::<ICV>()?;
    clear(&mut covered, place);
    let sealed = Sealed {
        sequence: u32::from_be_bytes([a, b, c, d]),
        icv,
        covered,
    };
    Some((sealed, ip_length.max(IPV4) + LENGTH))
}

/// The whole packet around a message. The kernel fills in the header's checksum.
#[must_use]
pub fn seal(
    message: &[u8],
    (source, destination): (Ipv4Addr, Ipv4Addr),
    ttl: u8,
    sequence: u32,
    key: &[u8; 8],
) -> Vec<u8> {
    let total = IPV4 + LENGTH + message.len();
    let [total_high, total_low] = u16::try_from(total).unwrap_or(u16::MAX).to_be_bytes();
    // The kernel would put another for 0, and the value covers it.
    let [.., id_high, id_low] = sequence.to_be_bytes();
    let id_low = if (id_high, id_low) == (0, 0) {
        1
    } else {
        id_low
    };
    let mut packet = vec![
        0x45,
        TYPE_OF_SERVICE,
        total_high,
        total_low,
        id_high,
        id_low,
    ];
    packet.extend([0, 0, ttl, PROTOCOL, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend([packet::PROTOCOL, PAYLOAD_LENGTH, 0, 0]);
    packet.extend(source.octets());
    packet.extend(sequence.to_be_bytes());
    let place = packet.len();
    packet.extend([0; ICV]);
    packet.extend(message);
    let mut covered = packet.clone();
    clear(&mut covered, place);
    packet[place..place + ICV].copy_from_slice(&icv(key, &covered));
    packet
}

/// Zero for what the value does not cover; it is at `place` itself.
fn clear(packet: &mut [u8], place: usize) {
    for range in [1..2, 6..8, 10..12, place..place + ICV] {
        if let Some(bytes) = packet.get_mut(range) {
            bytes.fill(0);
        }
    }
}

fn icv(key: &[u8], covered: &[u8]) -> [u8; ICV] {
    let mut first = [0; ICV];
    first.copy_from_slice(&hmac_md5(key, covered)[..ICV]);
    first
}

/// RFC 2104; keys of at most 64 bytes.
fn hmac_md5(key: &[u8], text: &[u8]) -> [u8; 16] {
    let pad = |with: u8| {
        let mut pad = [with; 64];
        for (byte, key) in pad.iter_mut().zip(key) {
            *byte ^= key;
        }
        pad
    };
    let inner = Md5::new().chain_update(pad(0x36)).chain_update(text);
    let outer = Md5::new().chain_update(pad(0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::super::packet::TTL;
    use super::*;

    const KEY: [u8; 8] = *b"1111\0\0\0\0";
    /// Recorded from keepalived 2.2.7, with `auth_pass 1111`.
    const RECORDED: [u8; 64] = [
        0x45, 0xc0, 0x00, 0x40, 0x00, 0x01, 0x00, 0x00, 0xff, 0x33, 0xd0, 0xb6, 0x0a, 0x00, 0x00,
        0x01, 0xe0, 0x00, 0x00, 0x12, 0x70, 0x04, 0x00, 0x00, 0x0a, 0x00, 0x00, 0x01, 0x00, 0x00,
        0x00, 0x01, 0x7a, 0x16, 0x4b, 0x53, 0x5c, 0x0e, 0x03, 0x07, 0xd2, 0xf7, 0x66, 0x93, 0x21,
        0x33, 0x64, 0x01, 0x02, 0x01, 0x6e, 0xc1, 0x0a, 0x00, 0x00, 0x09, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn hmac_as_in_rfc_2202() {
        let hex = |digest: [u8; 16]| u128::from_be_bytes(digest);
        let first = hmac_md5(&[0x0b; 16], b"Hi There");
        assert_eq!(hex(first), 0x9294_727a_3638_bb1c_13f4_8ef8_158b_fc9d);
        let second = hmac_md5(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(second), 0x750c_783e_6ab0_b503_eaa8_6e31_0a5d_b738);
    }

    #[test]
    fn as_keepalived_sends_them() {
        let (sealed, headers) = open(&RECORDED).unwrap();
        assert_eq!((sealed.sequence, headers), (1, 44));
        assert!(sealed.is_by(&KEY));
        assert!(!sealed.is_by(b"1112\0\0\0\0"));
        let ends = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(224, 0, 0, 18));
        let mut ours = seal(&RECORDED[44..], ends, TTL, 1, &KEY);
        ours[10..12].copy_from_slice(&RECORDED[10..12]); // the kernel's work
        assert_eq!(ours, RECORDED);
    }

    #[test]
    fn only_what_changes_on_the_way_may_change() {
        let ends = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(224, 0, 0, 18));
        let packet = seal(&RECORDED[44..], ends, TTL, 0x0012_0000, &KEY);
        assert_ne!(packet[4..6], [0, 0], "the kernel would fill it in");
        for place in 0..packet.len() {
            let mut changed = packet.clone();
            changed[place] ^= 4;
            let accepted = open(&changed).is_some_and(|(sealed, _)| sealed.is_by(&KEY));
            let may_change = matches!(place, 1 | 6 | 7 | 10 | 11);
            assert_eq!(accepted, may_change, "byte {place}");
            assert!(open(&packet[..place]).is_none());
        }
        // Made as RFC 2402 has it, without the TTL.
        let mut covered = packet.clone();
        clear(&mut covered, 32);
        covered[8] = 0;
        let mut other = packet;
        other[32..44].copy_from_slice(&icv(&KEY, &covered));
        other[8] = 254;
        assert!(open(&other).unwrap().0.is_by(&KEY));
    }
}
