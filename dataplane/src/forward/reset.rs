//! Answering a TCP segment of no connection with a RST, as its destination
//! would (RFC 9293 §3.10.7.1), in the frame that brought it.

use super::segment::{self, Heading, Segment};
use crate::counters::DropReason;
use crate::wire::{self, tcp};
use crate::xsk::umem::{Frame, Umem};

/// Turns a frame with a TCP segment into the RST that answers it.
///
/// # Errors
/// The frame holds no TCP segment, which does not happen.
#[cold]
pub(crate) fn answer(umem: &Umem, frame: &mut Frame) -> Result<(), DropReason> {
    let bytes = umem.bytes(frame);
    let parsed = &wire::parse(bytes)?;
    let (l3, l4) = (usize::from(parsed.l3_offset), usize::from(parsed.l4_offset));
    let came = segment::read(bytes, l3, l4, parsed.destination.is_v4())?;
    let acknowledges = came.flags() & tcp::flags::ACK != 0;
    let reset = Segment {
        sequence: match acknowledges {
            true => came.acknowledgment(),
            false => 0,
        },
        acknowledgment: match acknowledges {
            true => 0,
            false => came.sequence().wrapping_add(came.segment_len()),
        },
        flags: match acknowledges {
            true => tcp::flags::RST,
            false => tcp::flags::RST | tcp::flags::ACK,
        },
        window: 0,
        options: &[],
    };
    segment::replace(umem, frame, Heading::Back, &reset)
}
