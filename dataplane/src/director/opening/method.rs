//! What each forwarding method does with the first packet of a connection.

use super::Opening;
use crate::conn::{ConnectionTable, EntryIndex, Places};
use crate::device::BURST;
use crate::director::burst::FrameSet;
use crate::director::sending::variation;
use crate::director::straight::L3;
use crate::forward::direct;
use crate::forward::tunnel::Outers;
use crate::service::{PortIndex, ServerId};
use crate::snapshot::{Path, TunnelPath};
use crate::wire::ipv4::Life;
use crate::xsk::umem::{Frame, Packets, Umem};

/// A packet that begins a connection.
pub(super) struct First {
    /// In the burst.
    pub(super) number: usize,
    /// What the packet leaves with.
    pub(super) life: Life,
    /// Who was chosen.
    pub(super) server: ServerId,
    /// The connection's, when it begins.
    pub(super) entry: EntryIndex,
}

/// One way to the real servers.
pub(super) trait Method {
    /// The connections get reply halves, in [`finish`](Self::finish), where their packets are sent, and counted, as well.
    const REPLIES: bool = false;

    /// Sends the packet, or notes what `finish` needs. Returns where it leaves, and the bytes of the IP packet that came,
    /// unless it is counted in `finish`; `None`, and nothing changed, if a closer look is needed.
    fn open(&mut self, first: &First) -> Option<(PortIndex, u64)>;

    /// Does what was left for when all of them are `opened`. Those that it returns need a closer look: their packets are
    /// unchanged, and their connections are gone.
    #[inline(always)]
    fn finish(
        &mut self,
        _opened: FrameSet,
        _table: &mut ConnectionTable,
        _opening: &Opening<'_>,
    ) -> FrameSet {
        FrameSet::NONE
    }
}

/// DR.
pub(super) struct Direct<'a> {
    pub(super) paths: &'a [Path],
    pub(super) packets: Packets<'a>,
}

impl Method for Direct<'_> {
    #[inline(always)]
    fn open(&mut self, first: &First) -> Option<(PortIndex, u64)> {
        let Path::Direct(hop) = self.paths.get(first.server.0 as usize)? else {
            return None;
        };
        let (head, length) = self.packets.head_and_length(first.number);
        direct::forward_plain(head, first.life, &hop.addresses);
        Some((hop.port, bytes(length)))
    }
}

/// TUN, where nothing is between the headers.
pub(super) struct Wrapped<'a> {
    pub(super) paths: &'a [Path],
    pub(super) tunnels: &'a [TunnelPath],
    pub(super) packets: Packets<'a>,
    pub(super) outers: &'a Outers<BURST>,
}

impl Method for Wrapped<'_> {
    #[inline(always)]
    fn open(&mut self, first: &First) -> Option<(PortIndex, u64)> {
        let Path::Wrapped(path) = self.paths.get(first.server.0 as usize)? else {
            return None;
        };
        let TunnelPath { front, hop, .. } = self.tunnels.get(*path as usize)?;
        let bytes = bytes(self.packets.length(first.number));
        let front = front.as_ref()?;
        if !front.wrap(&mut self.packets, first.number, first.life, self.outers) {
            return None;
        }
        Some((hop.port, bytes))
    }
}

/// TUN with any headers.
pub(super) struct WrappedOtherwise<'a> {
    pub(super) paths: &'a [Path],
    pub(super) tunnels: &'a [TunnelPath],
    pub(super) places: &'a Places<BURST>,
    pub(super) umem: &'a Umem,
    pub(super) frames: &'a mut [Frame],
    pub(super) identification: &'a mut u16,
    pub(super) tx_bytes: &'a mut u64,
}

impl Method for WrappedOtherwise<'_> {
    #[inline(always)]
    fn open(&mut self, first: &First) -> Option<(PortIndex, u64)> {
        let Path::Wrapped(number) = self.paths.get(first.server.0 as usize)? else {
            return None;
        };
        let TunnelPath { template, hop, .. } = self.tunnels.get(*number as usize)?;
        let frame = self.frames.get_mut(first.number)?;
        let bytes = (frame.len() - L3) as u64;
        let before = *self.identification;
        let variation = variation(self.identification, self.places.get(first.number));
        if !template.forward_plain(self.umem, frame, &hop.addresses, variation) {
            *self.identification = before;
            return None;
        }
        *self.tx_bytes += u64::from(template.overhead());
        Some((hop.port, bytes))
    }
}

/// Of the IP packet in a frame of this length.
#[inline(always)]
pub(super) fn bytes(length: u16) -> u64 {
    u64::from(length) - L3 as u64
}
