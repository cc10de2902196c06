//! What each forwarding method does with the first packet of a connection.

use super::Opening;
use crate::conn::{Beginning, ConnectionTable, Place, Vacancy};
use crate::device::BURST;
use crate::director::burst::Others;
use crate::director::sending::variation;
use crate::director::straight::L3;
use crate::flow::PlainKey;
use crate::forward::direct;
use crate::forward::tunnel::Outers;
use crate::service::{PortIndex, ServerId};
use crate::snapshot::{Path, TunnelPath};
use crate::wire::ipv4::Life;
use crate::xsk::umem::{Frame, Packets, Umem};

/// A packet that begins a connection.
pub(super) struct First<'a> {
    /// In the burst.
    pub(super) number: usize,
    pub(super) key: PlainKey,
    pub(super) place: Place,
    /// What the packet leaves with.
    pub(super) life: Life,
    /// Who was chosen.
    pub(super) server: ServerId,
    pub(super) beginning: &'a Beginning,
}

/// One way to the real servers.
pub(super) trait Method {
    /// Packets are sent, and counted, before [`finish`](Self::finish).
    const SENDS: bool = true;

    /// Adds the connection, and sends the packet if `SENDS`. Returns where that leaves, and the bytes of the IP packet that
    /// came; `None`, and nothing changed, if a closer look is needed.
    fn open(&mut self, first: &First<'_>, vacancy: Vacancy<'_>) -> Option<(PortIndex, u64)>;

    /// Does what was left for when all of them are `opened`. Those that it returns need a closer look: their packets are
    /// unchanged, and their connections are gone.
    #[inline(always)]
    fn finish(
        &mut self,
        _opened: Others,
        _table: &mut ConnectionTable,
        _opening: &Opening<'_>,
    ) -> Others {
        Others::NONE
    }
}

/// DR.
pub(super) struct Direct<'a> {
    pub(super) paths: &'a [Path],
    pub(super) packets: Packets<'a>,
}

impl Method for Direct<'_> {
    #[inline(always)]
    fn open(&mut self, first: &First<'_>, vacancy: Vacancy<'_>) -> Option<(PortIndex, u64)> {
        let Path::Direct(hop) = self.paths.get(first.server.0 as usize)? else {
            return None;
        };
        let bytes = bytes(&self.packets, first.number);
        let head = self.packets.head_mut(first.number);
        direct::forward_plain(head, first.life, &hop.addresses);
        vacancy.fill(first.key, first.server, first.beginning);
        Some((hop.port, bytes))
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
    fn open(&mut self, first: &First<'_>, vacancy: Vacancy<'_>) -> Option<(PortIndex, u64)> {
        let Path::Wrapped(path) = self.paths.get(first.server.0 as usize)? else {
            return None;
        };
        let TunnelPath { front, hop, .. } = self.tunnels.get(*path as usize)?;
        let bytes = bytes(&self.packets, first.number);
        let front = front.as_ref()?;
        if !front.wrap(&mut self.packets, first.number, first.life, self.outers) {
            return None;
        }
        vacancy.fill(first.key, first.server, first.beginning);
        Some((hop.port, bytes))
    }
}

/// TUN with any headers.
pub(super) struct WrappedOtherwise<'a> {
    pub(super) paths: &'a [Path],
    pub(super) tunnels: &'a [TunnelPath],
    pub(super) umem: &'a Umem,
    pub(super) frames: &'a mut [Frame],
    pub(super) identification: &'a mut u16,
    pub(super) tx_bytes: &'a mut u64,
}

impl Method for WrappedOtherwise<'_> {
    #[inline(always)]
    fn open(&mut self, first: &First<'_>, vacancy: Vacancy<'_>) -> Option<(PortIndex, u64)> {
        let Path::Wrapped(number) = self.paths.get(first.server.0 as usize)? else {
            return None;
        };
        let TunnelPath { template, hop, .. } = self.tunnels.get(*number as usize)?;
        let frame = self.frames.get_mut(first.number)?;
        let bytes = (frame.len() - L3) as u64;
        let before = *self.identification;
        let variation = variation(self.identification, first.place);
        if !template.forward_plain(self.umem, frame, &hop.addresses, variation) {
            *self.identification = before;
            return None;
        }
        *self.tx_bytes += u64::from(template.overhead());
        vacancy.fill(first.key, first.server, first.beginning);
        Some((hop.port, bytes))
    }
}

/// Of the IP packet.
#[inline(always)]
pub(super) fn bytes(packets: &Packets<'_>, number: usize) -> u64 {
    u64::from(packets.length(number)) - L3 as u64
}
