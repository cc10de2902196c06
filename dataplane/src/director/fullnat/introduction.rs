//! How the real server of a connection is told who the client is, packet by packet: by TOA or by the PROXY
//! protocol.
//!
//! What is said takes room in the client's segments, so the server's SYN announces that much less
//! ([`Introduction::hear`]).

use super::super::{Slot, What};
use crate::counters::DropReason;
use crate::forward::packet_len;
use crate::forward::proxy::{Part, ProxyHeader, Splice};
use crate::forward::rewrite::Endpoints;
use crate::forward::sequence::is_after;
use crate::forward::toa::{self, ClientOption};
use crate::service::{ClientAddress, Protocol};
use crate::wire::tcp::{self, flags};
use crate::xsk::umem::{Frame, Umem};

/// What is still to be said of a connection, or was and changed its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::director) enum Introduction {
    #[default]
    None,
    /// TOA, in the SYN and in what begins at the client's first byte, until the server has that byte.
    Option { first: u32 },
    /// The PROXY protocol at the beginning of the stream.
    Stream(Splice),
    /// The PROXY protocol in each datagram.
    Datagrams,
}

/// What a packet gets on its way to the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Addition {
    None,
    Option(ClientOption),
    Header(ProxyHeader),
    /// Another sequence number.
    Shift(Splice),
}

impl Introduction {
    /// That of a new connection between `ends`, as the client sees them. `begins`: its server gets a SYN; of a stream
    /// that did not begin here it knows nothing, and resets it.
    pub(super) fn new(way: ClientAddress, ends: &Endpoints, slot: &Slot, begins: bool) -> Self {
        match way {
            ClientAddress::Proxy if !slot.key.is_tcp() => Self::Datagrams,
            ClientAddress::Proxy if begins => Self::Stream(Splice {
                first: 0,
                length: ProxyHeader::new(ends, Protocol::Tcp).len(),
                settled: false,
            }),
            ClientAddress::Toa if begins => Self::Option { first: 0 },
            ClientAddress::None | ClientAddress::Toa | ClientAddress::Proxy => Self::None,
        }
    }

    /// What a packet of the client gets. `begins`: it is a SYN, of a connection that is not
    /// established.
    ///
    /// # Errors
    /// It has to get something, and is a fragment; or it is broken.
    pub(super) fn addition(
        &mut self,
        ends: &Endpoints,
        slot: &Slot,
        frame: &[u8],
        begins: bool,
    ) -> Result<Addition, DropReason> {
        let header = || Addition::Header(ProxyHeader::new(ends, slot.key.protocol()));
        let addition = match self {
            Self::None => Addition::None,
            Self::Datagrams => header(),
            Self::Option { .. } | Self::Stream(_) if slot.what == What::LaterFragment => {
                Addition::None
            }
            Self::Option { first } => {
                let segment = Segment::read(slot, frame)?;
                if begins {
                    *first = segment.sequence.wrapping_add(1);
                }
                match begins || segment.sequence == *first {
                    true => Addition::Option(ClientOption::new(ends.source)),
                    false => Addition::None,
                }
            }
            Self::Stream(splice) => {
                let segment = Segment::read(slot, frame)?;
                if begins {
                    splice.first = segment.sequence.wrapping_add(1);
                }
                match splice.part(segment.sequence) {
                    // TCP Fast Open: the first byte is in the SYN.
                    Part::Before if begins && segment.has_payload => header(),
                    Part::Before => Addition::None,
                    Part::First => header(),
                    Part::After => Addition::Shift(*splice),
                }
            }
        };
        let is_fragment = matches!(slot.what, What::FirstFragment | What::LaterFragment);
        let is_reset = slot.tcp_flags & flags::RST != 0;
        match addition {
            Addition::Header(_) | Addition::Option(_) if is_reset => Ok(Addition::None),
            Addition::Option(_) if is_fragment => Ok(Addition::None),
            Addition::Header(_) if is_fragment => Err(DropReason::Fragment),
            Addition::None | Addition::Option(_) | Addition::Header(_) | Addition::Shift(_) => {
                Ok(addition)
            }
        }
    }

    /// What the server's packet in `frame`, whose transport header is at `l4`, says of what it was
    /// told; what it says to the client, at the other one of `ends`, changes accordingly. `most` is the
    /// longest segment that the way to the server takes.
    pub(super) fn hear(
        &mut self,
        ends: &Endpoints,
        slot: &Slot,
        frame: &mut [u8],
        l4: usize,
        most: u16,
    ) {
        if slot.what == What::LaterFragment {
            return;
        }
        let room = match self {
            Self::None | Self::Datagrams => return,
            Self::Option { .. } => ClientOption::new(ends.source).len(),
            Self::Stream(splice) => splice.length,
        };
        if slot.tcp_flags & flags::SYN != 0 {
            toa::lower_maximum_segment_size(frame, l4, most, room.into());
        }
        match self {
            Self::Option { first } => {
                let segment = frame.get(l4..).unwrap_or_default();
                let has_it = tcp::Packet::new_checked(segment)
                    .is_ok_and(|segment| is_after(segment.acknowledgment(), *first));
                if has_it && slot.tcp_flags & flags::ACK != 0 {
                    *self = Self::None;
                }
            }
            Self::Stream(splice) => splice.shift_acknowledgment(frame, l4),
            Self::None | Self::Datagrams => {}
        }
    }
}

impl Addition {
    /// Bytes that the packet gets longer, unless it can do without.
    pub(super) fn room(&self) -> u16 {
        match self {
            Self::Header(header) => header.len().into(),
            Self::None | Self::Option(_) | Self::Shift(_) => 0,
        }
    }

    /// Adds it to the packet, whose IP header is at `l3` and transport header at `l4`, and which may
    /// be up to `mtu` bytes long.
    pub(super) fn apply(
        &self,
        umem: &Umem,
        frame: &mut Frame,
        (l3, l4): (usize, usize),
        protocol: Protocol,
        mtu: u16,
    ) -> Result<(), DropReason> {
        match self {
            Self::None => {}
            // A segment without room for it goes without: the SYN had it, and others will.
            Self::Option(option) => {
                toa::insert(umem, frame, (l3, l4), option, mtu)?;
            }
            Self::Header(header) => {
                if !header.insert(umem, frame, (l3, l4), protocol, mtu)? {
                    return Err(DropReason::TooBig);
                }
            }
            Self::Shift(splice) => splice.shift_sequence(umem.bytes_mut(frame), l4),
        }
        Ok(())
    }
}

/// What matters of a segment.
struct Segment {
    sequence: u32,
    has_payload: bool,
}

impl Segment {
    fn read(slot: &Slot, frame: &[u8]) -> Result<Self, DropReason> {
        let [l3, l4] = [slot.l3_offset, slot.l4_offset].map(usize::from);
        let length = packet_len(frame, l3, slot.is_v4)?;
        let segment = frame.get(l4..l3 + length).unwrap_or_default();
        let segment = tcp::Packet::new_checked(segment)?;
        Ok(Self {
            sequence: segment.sequence(),
            has_payload: !segment.payload().is_empty(),
        })
    }
}
