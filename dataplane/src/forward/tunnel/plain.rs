//! The straight way of TUN: plain IPv4 packets inside IPv4. The same as [`Template::forward`], with all
//! offsets known and nothing asked that the configuration decides.

use super::{Inner, Outer, Shim, Template, Variation, fill_gue, write_outer_v4};
use crate::wire::ethernet::{self, Addresses, ethertype};
use crate::wire::{gre, ipv4};
use crate::xsk::umem::{Frame, Umem};

/// Where the outer IP header is.
const L3: usize = ethernet::HEADER_LEN;
/// Bytes from the frame's start to behind the inner header, without what is between the headers.
const PLAIN: usize = L3 + 2 * ipv4::HEADER_LEN;
/// Bytes of what may be there.
const GRE: usize = gre::HEADER_LEN;
const GUE: usize = super::GUE_LEN;

impl Template {
    /// [`forward`](Self::forward) for an untagged frame with an IPv4 header without options. False,
    /// and nothing changed, if the packet may not travel further, or not in one piece.
    #[inline(always)]
    #[must_use]
    pub(crate) fn forward_plain(
        &self,
        umem: &Umem,
        frame: &mut Frame,
        hop: &Addresses,
        variation: Variation,
    ) -> bool {
        match self.is_plain_ipip {
            true => self.forward_ipip(umem, frame, hop, variation),
            false => self.forward_other(umem, frame, hop, variation),
        }
    }

    /// Not inlined, as a loop around it would not have registers enough for both.
    #[inline(never)]
    fn forward_ipip(
        &self,
        umem: &Umem,
        frame: &mut Frame,
        hop: &Addresses,
        variation: Variation,
    ) -> bool {
        self.wrap_plain::<0, PLAIN>(umem, frame, hop, variation, |_| [])
    }

    #[inline(never)]
    fn forward_other(
        &self,
        umem: &Umem,
        frame: &mut Frame,
        hop: &Addresses,
        variation: Variation,
    ) -> bool {
        let is_plain = self.inner_is_v4 && self.source_mask == 0 && !self.checksum;
        match (&self.shim, &self.outer) {
            (Shim::Gre(header), Outer::V4 { .. }) if is_plain => {
                let shim = |_| *header;
                self.wrap_plain::<GRE, { PLAIN + GRE }>(umem, frame, hop, variation, shim)
            }
            (Shim::Gue(headers), Outer::V4 { .. }) if is_plain => {
                let shim = |inner_len| fill_gue(*headers, inner_len, variation);
                self.wrap_plain::<GUE, { PLAIN + GUE }>(umem, frame, hop, variation, shim)
            }
            _ => self.forward(umem, frame, L3, hop, variation).is_ok(),
        }
    }

    /// `shim` makes what is between the headers from the length of the packet; `N` bytes are looked at.
    #[inline(always)]
    fn wrap_plain<const SHIM: usize, const N: usize>(
        &self,
        umem: &Umem,
        frame: &mut Frame,
        hop: &Addresses,
        variation: Variation,
        shim: impl FnOnce(u16) -> [u8; SHIM],
    ) -> bool {
        const { assert!(N == PLAIN + SHIM) };
        let overhead = u16::try_from(ipv4::HEADER_LEN + SHIM).unwrap_or(0); // at most 32
        let is_short = frame.len() <= L3 + usize::from(self.inner_mtu);
        let Outer::V4 { header, sum } = &self.outer else {
            return false;
        };
        if !is_short || umem.prepend(frame, overhead).is_err() {
            return false;
        }
        if let Some(headers) = umem.bytes_mut(frame).first_chunk_mut::<N>()
            && let (room, packet) = headers.split_at_mut(N - ipv4::HEADER_LEN)
            && let Some(packet) = packet.first_chunk_mut()
            && let (link, room) = room.split_at_mut(L3)
            && let Some((outer, behind)) = room.split_first_chunk_mut()
            && let Some(link) = link.first_chunk_mut::<L3>()
            && let mut ip = ipv4::Packet::header_mut(packet)
            && ip.decrement_ttl()
        {
            let inner = Inner::v4(&ip);
            behind.copy_from_slice(&shim(inner.length));
            let (sum, identification) = (u32::from(*sum), variation.identification);
            write_outer_v4(outer, header, sum, overhead, &inner, identification);
            link[L3 - 2..].copy_from_slice(&ethertype::IPV4.to_be_bytes());
            hop.write(link);
            return true;
        }
        // It was lengthened by as much, and nothing was written.
        let _ = umem.cut_front(frame, overhead);
        false
    }
}
