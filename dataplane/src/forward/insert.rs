//! Putting bytes into a packet: everything in front of them moves into the headroom, and lengths
//! and checksums follow. What [`toa`](super::toa) and [`proxy`](super::proxy) have in common.

use super::rewrite::{at_mut, udp_checksum};
use crate::counters::DropReason;
use crate::service::Protocol;
use crate::wire::checksum::{Delta, Sum};
use crate::wire::{ipv4, ipv6, tcp};
use crate::xsk::umem::{Frame, Umem};

/// What is put where in a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Insertion<'a> {
    /// Where the IP header begins in the frame, in bytes.
    pub(super) l3: usize,
    /// Where the transport header begins, in bytes.
    pub(super) l4: usize,
    /// Where the bytes go, from the transport header on: behind its fixed part, an even number.
    pub(super) at: usize,
    /// An even number of bytes, at most 64.
    pub(super) bytes: &'a [u8],
    pub(super) protocol: Protocol,
    /// They are TCP options, not payload.
    pub(super) are_options: bool,
}

/// Bytes of the IP packet at `l3`, header included.
pub(crate) fn packet_len(frame: &[u8], l3: usize, is_v4: bool) -> Result<usize, DropReason> {
    let packet = frame.get(l3..).unwrap_or_default();
    Ok(if is_v4 {
        ipv4::Packet::new_checked(packet)?.total_len()
    } else {
        ipv6::Packet::new_checked(packet)?.total_len()
    })
}

impl Insertion<'_> {
    /// Inserts the bytes. The caller has seen that the packet may be so long.
    pub(super) fn apply(
        &self,
        umem: &Umem,
        frame: &mut Frame,
        is_v4: bool,
    ) -> Result<(), DropReason> {
        let added = u16::try_from(self.bytes.len()).map_err(|_| DropReason::BadIpTotalLength)?;
        let moved = self.l4 + self.at;
        if moved > frame.len() {
            return Err(DropReason::Truncated);
        }
        umem.prepend(frame, added)
            .map_err(|_| DropReason::BadIpTotalLength)?;
        let frame = umem.bytes_mut(frame);
        frame.copy_within(self.bytes.len()..self.bytes.len() + moved, 0);
        frame
            .get_mut(moved..moved + self.bytes.len())
            .ok_or(DropReason::Truncated)?
            .copy_from_slice(self.bytes);
        lengthen_network(frame, self.l3, is_v4, added)?;
        self.lengthen_transport(frame, added)
    }

    fn lengthen_transport(&self, frame: &mut [u8], added: u16) -> Result<(), DropReason> {
        // The bytes, and their length in the pseudo-header.
        let mut sum = Sum::ZERO.bytes(self.bytes).word(added);
        match self.protocol {
            Protocol::Tcp => {
                let header = at_mut::<{ tcp::HEADER_LEN }>(frame, self.l4)?;
                let [.., offset, _, _, _, c0, c1, _, _] = header;
                if self.are_options {
                    // In words of four bytes, in the upper half of the upper byte of its word.
                    let words = u8::try_from(added / 4).unwrap_or(0) << 4;
                    *offset = offset.wrapping_add(words);
                    sum = sum.word(u16::from(words) << 8);
                }
                [*c0, *c1] = Delta::between(Sum::ZERO, sum).apply([*c0, *c1]);
            }
            Protocol::Udp => {
                let header = at_mut::<8>(frame, self.l4)?;
                let [_, _, _, _, l0, l1, c0, c1] = header;
                let length = u16::from_be_bytes([*l0, *l1]).wrapping_add(added);
                [*l0, *l1] = length.to_be_bytes();
                let delta = Delta::between(Sum::ZERO, sum.word(added));
                [*c0, *c1] = udp_checksum([*c0, *c1], delta);
            }
            // What it carries is in chunks.
            Protocol::Sctp => return Err(DropReason::OtherProtocol),
        }
        Ok(())
    }
}

/// Adds to the length in the IP header at `l3`.
fn lengthen_network(
    frame: &mut [u8],
    l3: usize,
    is_v4: bool,
    added: u16,
) -> Result<(), DropReason> {
    if is_v4 {
        let mut ip = ipv4::Packet::header_mut(at_mut(frame, l3)?);
        ip.set_total_len(ip.total_len_u16().wrapping_add(added));
        ip.adjust_checksum(Delta::between(Sum::ZERO, Sum::ZERO.word(added)));
    } else {
        let mut ip = ipv6::Packet::header_mut(at_mut(frame, l3)?);
        ip.set_payload_len(ip.payload_len_u16().wrapping_add(added));
    }
    Ok(())
}
