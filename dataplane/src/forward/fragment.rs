//! Packets longer than their way allows: refused or cut into fragments (RFC 791 §3.2,
//! `ensure_mtu_is_adequate` and `ip_do_fragment`).
//!
//! Not done here: IPv6 packets are never fragmented on the way (RFC 8200 §4.5), and fragments that
//! arrive are matched to their connection elsewhere (`crate::fragments`).

use crate::counters::DropReason;
use crate::wire::{Malformed, ipv4, ipv6};

/// What to do with a packet that is longer than its way allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oversize {
    /// Its sender is to be told ([`icmp`](super::icmp)) that it may be `mtu` bytes long, IP header
    /// included.
    TooBig { mtu: u16 },
    /// It is to be cut ([`Fragments`]) into packets of at most `mtu` bytes.
    Fragment { mtu: u16 },
}

/// Compares the IP packet at `l3` with `mtu`, the most bytes of one, IP header included.
///
/// # Errors
/// [`Oversize`].
#[inline(always)]
pub fn check_size(frame: &[u8], l3: usize, is_v4: bool, mtu: u16) -> Result<(), Oversize> {
    // No IP packet is longer than its frame, so nothing needs to be read to pass most of them.
    if frame.len() <= l3 + usize::from(mtu) {
        return Ok(());
    }
    check_packet_size(frame.get(l3..).unwrap_or_default(), is_v4, mtu)
}

/// The same from the packet itself; what cannot be read passes.
#[cold]
fn check_packet_size(packet: &[u8], is_v4: bool, mtu: u16) -> Result<(), Oversize> {
    let too_big = Err(Oversize::TooBig { mtu });
    if is_v4 {
        match ipv4::Packet::new_checked(packet) {
            Ok(ip) if ip.total_len() <= usize::from(mtu) => Ok(()),
            Ok(ip) if ip.dont_fragment() => too_big,
            Ok(_) => Err(Oversize::Fragment { mtu }),
            Err(_) => Ok(()),
        }
    } else {
        match ipv6::Packet::new_checked(packet) {
            Ok(ip) if ip.total_len() > usize::from(mtu) => too_big,
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The fragments of an IPv4 packet, in order, as frames with its link header.
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    /// Up to the IP header.
    link: &'a [u8],
    header: &'a [u8],
    /// What is left to be sent.
    payload: &'a [u8],
    /// Most bytes of payload in a fragment, a multiple of eight.
    step: usize,
    /// Of what is left, in the payload of the datagram.
    offset: u16,
    /// The packet is itself a fragment, and not the last.
    more_follow: bool,
}

impl<'a> Fragments<'a> {
    /// Cuts the IPv4 packet at `l3` into pieces of at most `mtu` bytes, IP header included.
    ///
    /// # Errors
    /// A header is broken, or the MTU has no room for a header and eight bytes.
    pub fn new(frame: &'a [u8], l3: usize, mtu: u16) -> Result<Self, DropReason> {
        let (link, packet) = frame.split_at_checked(l3).ok_or(Malformed::Truncated)?;
        let ip = ipv4::Packet::new_checked(packet)?;
        let (header, rest) = packet
            .split_at_checked(ip.header_len())
            .ok_or(Malformed::BadIpHeaderLength)?;
        let payload = rest
            .get(..ip.total_len() - ip.header_len())
            .ok_or(Malformed::BadIpTotalLength)?;
        let step = usize::from(mtu).saturating_sub(header.len()) & !7;
        if step == 0 {
            return Err(DropReason::BadIpTotalLength);
        }
        Ok(Self {
            link,
            header,
            payload,
            step,
            offset: ip.fragment_offset(),
            more_follow: ip.more_fragments(),
        })
    }
}

impl<'a> Iterator for Fragments<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.payload.is_empty() {
            return None;
        }
        let (payload, left) = self.payload.split_at(self.step.min(self.payload.len()));
        let piece = Piece {
            link: self.link,
            header: self.header,
            payload,
            offset: self.offset,
            more: self.more_follow || !left.is_empty(),
        };
        // A fragment beyond 64 KiB is of a datagram that nobody can put together.
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        self.offset = self.offset.saturating_add(length);
        self.payload = left;
        Some(piece)
    }
}

/// One fragment, not written yet.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    link: &'a [u8],
    header: &'a [u8],
    payload: &'a [u8],
    offset: u16,
    more: bool,
}

impl Piece<'_> {
    /// Bytes of the frame.
    #[expect(clippy::len_without_is_empty, reason = "it has a header")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.link.len() + self.header.len() + self.payload.len()
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// `frame` is not [`len`](Self::len) bytes long.
    pub fn write(&self, frame: &mut [u8]) -> Result<(), DropReason> {
        let (link, packet) = frame
            .split_at_mut_checked(self.link.len())
            .ok_or(Malformed::Truncated)?;
        let (header, payload) = packet
            .split_at_mut_checked(self.header.len())
            .ok_or(Malformed::Truncated)?;
        if payload.len() != self.payload.len() {
            return Err(DropReason::Truncated);
        }
        link.copy_from_slice(self.link);
        header.copy_from_slice(self.header);
        payload.copy_from_slice(self.payload);
        if self.offset > 0 {
            remove_uncopied_options(header.get_mut(ipv4::HEADER_LEN..).unwrap_or_default());
        }
        let length = u16::try_from(packet.len()).map_err(|_| Malformed::BadIpTotalLength)?;
        let mut ip = ipv4::Packet::new_header(packet)?;
        ip.set_total_len(length);
        ip.set_fragment(false, self.more, self.offset);
        ip.fill_checksum();
        Ok(())
    }
}

/// Overwrites options that belong to the first fragment only, those without the copied flag, by
/// no-operations (RFC 791 §3.1), as Linux does: the header keeps its length.
fn remove_uncopied_options(mut options: &mut [u8]) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    while let [kind, ..] = *options {
        let length = match (kind, options.get(1)) {
            (END, _) => return,
            (NO_OPERATION, _) => 1,
            (_, Some(length)) => usize::from(*length).max(2),
            (_, None) => return,
        };
        let Some((option, rest)) = options.split_at_mut_checked(length) else {
            return;
        };
        if kind & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        options = rest;
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{IpFragOffset, Ipv4Header, Ipv4HeaderSlice, PacketBuilder, defrag};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn frame(header: Ipv4Header, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
            .write(&mut frame, etherparse::IpNumber::UDP, payload)
            .unwrap();
        frame
    }

    fn header() -> Ipv4Header {
        Ipv4Header {
            dont_fragment: false,
            identification: 77,
            time_to_live: 64,
            source: [10, 0, 0, 1],
            destination: [10, 0, 0, 2],
            ..Ipv4Header::default()
        }
    }

    fn pieces(frame: &[u8], mtu: u16) -> Vec<Vec<u8>> {
        let write = |piece: Piece<'_>| {
            let mut frame = vec![0; piece.len()];
            piece.write(&mut frame).unwrap();
            frame
        };
        Fragments::new(frame, 14, mtu).unwrap().map(write).collect()
    }

    proptest! {
        #[test]
        fn etherparse_puts_the_fragments_together_again(
            payload in vec(any::<u8>(), 1..4000),
            mtu in 68_u16..1600,
            more_fragments in any::<bool>(),
            first in 0_u16..100,
        ) {
            let mut original = header();
            original.more_fragments = more_fragments;
            original.fragment_offset = IpFragOffset::try_new(first).unwrap();
            // A fragment that is not the last has a payload of a multiple of eight.
            let whole = if more_fragments { payload.len().next_multiple_of(8) } else { payload.len() };
            let mut payload = payload;
            payload.resize(whole, 0);
            let mut buffer = defrag::IpDefragBuf::new(
                etherparse::IpNumber::UDP, Vec::new(), Vec::new());
            // What came before and what comes after the packet, if it is a fragment itself.
            if first > 0 {
                buffer.add(IpFragOffset::ZERO, true, &vec![0; usize::from(first) * 8]).unwrap();
            }
            for piece in pieces(&frame(original.clone(), &payload), mtu) {
                prop_assert!(piece.len() <= 14 + usize::from(mtu));
                let slice = Ipv4HeaderSlice::from_slice(&piece[14..]).unwrap();
                let ip = slice.to_header();
                prop_assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
                prop_assert_eq!(usize::from(ip.total_len), piece.len() - 14);
                prop_assert_eq!(
                    (ip.identification, ip.time_to_live, ip.source, ip.destination),
                    (77, 64, original.source, original.destination)
                );
                buffer.add(ip.fragment_offset, ip.more_fragments, &piece[34..]).unwrap();
            }
            if more_fragments {
                let end = first + u16::try_from(payload.len() / 8).unwrap();
                buffer.add(IpFragOffset::try_new(end).unwrap(), false, b"end").unwrap();
                payload.extend(b"end");
            }
            prop_assert!(buffer.is_complete());
            let (together, _) = buffer.take_bufs();
            prop_assert_eq!(&together[usize::from(first) * 8..], &payload[..]);
        }

        #[test]
        fn no_bytes_panic(bytes in vec(any::<u8>(), 0..100), l3 in 0_usize..120, mtu in any::<u16>()) {
            let mut bytes = bytes;
            if let Some(version) = bytes.get_mut(l3) {
                *version = 0x40 | *version & 0x0f;
            }
            let _ = check_size(&bytes, l3, true, mtu);
            let _ = check_size(&bytes, l3, false, mtu);
            for piece in Fragments::new(&bytes, l3, mtu).into_iter().flatten() {
                let mut frame = vec![0; piece.len()];
                piece.write(&mut frame).unwrap();
            }
        }
    }

    #[test]
    fn options_without_the_copied_flag_stay_in_the_first_fragment() {
        let mut original = header();
        // Record route (not copied), loose source route (copied), end.
        let options = [7, 3, 4, 131, 3, 4, 1, 0];
        original.options = etherparse::Ipv4Options::from(options);
        let sent = pieces(&frame(original, &[5; 100]), 28 + 64);
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[0][34..42], options);
        assert_eq!(sent[1][34..42], [1, 1, 1, 131, 3, 4, 1, 0]);
    }

    #[test]
    fn who_may_be_fragmented() {
        let mut frame_ = frame(header(), &[0; 100]);
        assert_eq!(check_size(&frame_, 14, true, 120), Ok(()));
        let cut = Err(Oversize::Fragment { mtu: 119 });
        assert_eq!(check_size(&frame_, 14, true, 119), cut);
        ipv4::Packet::new_checked(&mut frame_[14..])
            .unwrap()
            .set_whole(true);
        let too_big = Err(Oversize::TooBig { mtu: 119 });
        assert_eq!(check_size(&frame_, 14, true, 119), too_big);
        frame_.resize(200, 0); // padding is not of the packet
        assert_eq!(check_size(&frame_, 14, true, 120), Ok(()));
    }
}
