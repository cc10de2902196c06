//! Sequence numbers of TCP when the two sides of a connection count differently: the director
//! answered a SYN itself, or put bytes into the stream.
//!
//! One direction's sequence numbers and the other's acknowledgments change by the same amount, the
//! second the opposite way. Selective acknowledgments (RFC 2018) acknowledge too. Checksums follow
//! incrementally (RFC 1624): one that was wrong stays wrong.
//!
//! Numbers are those of RFC 9293 §3.4, which wrap; so does everything here. Time stamps (RFC 7323)
//! are not numbers of the stream and are left alone.

use super::toa::tcp_header;
use crate::wire::checksum::{Delta, Sum};
use crate::wire::tcp::{self, flags};
use crate::wire::tcp_options::{self, kind};

/// Adds `by` to the sequence number of the TCP segment at `l4`; of a frame that ends before its
/// checksum, nothing changes.
#[inline(always)]
pub fn shift_sequence(frame: &mut [u8], l4: usize, by: u32) {
    if let Some([_, _, _, _, a, b, c, d, .., c0, c1]) =
        frame.get_mut(l4..).and_then(<[u8]>::first_chunk_mut::<18>)
    {
        let before = [*a, *b, *c, *d];
        let after = u32::from_be_bytes(before).wrapping_add(by).to_be_bytes();
        [*a, *b, *c, *d] = after;
        let delta = Delta::between(Sum::ZERO.bytes(&before), Sum::ZERO.bytes(&after));
        [*c0, *c1] = delta.apply([*c0, *c1]);
    }
}

/// Adds `by` to what the TCP segment at `l4` acknowledges; nothing changes in one that acknowledges
/// nothing or is broken.
#[inline]
pub fn shift_acknowledgment(frame: &mut [u8], l4: usize, by: u32) {
    change_acknowledgment(frame, l4, |number| number.wrapping_add(by));
}

/// Shifts the window of the TCP segment at `l4` by so many bits, to the left if `by` is positive: a number
/// of other units. What does not fit is the most that does.
#[inline]
pub fn shift_window(frame: &mut [u8], l4: usize, by: i8) {
    if by == 0 {
        return;
    }
    if let Some([.., w0, w1, c0, c1]) = frame.get_mut(l4..).and_then(<[u8]>::first_chunk_mut::<18>)
    {
        let before = u16::from_be_bytes([*w0, *w1]);
        let bits = u32::from(by.unsigned_abs()).min(16);
        let after = match by > 0 {
            true => u16::try_from(u32::from(before) << bits).unwrap_or(u16::MAX),
            false => before.checked_shr(bits).unwrap_or(0),
        };
        [*w0, *w1] = after.to_be_bytes();
        let delta = Delta::between(Sum::ZERO.word(before), Sum::ZERO.word(after));
        [*c0, *c1] = delta.apply([*c0, *c1]);
    }
}

/// Adds `by` to the sequence number of the TCP segment that the ICMP error at `icmp` quotes: the
/// `quoted` header begins there. Nothing changes if it quotes less than that.
pub fn shift_quoted(frame: &mut [u8], icmp: usize, quoted: usize, by: u32) {
    // To the end of its checksum, if that much is quoted: all that changes, of even length.
    let changed = |frame: &[u8]| {
        let quote = frame.get(quoted..).unwrap_or_default();
        Sum::ZERO.bytes(&quote[..quote.len().min(18)])
    };
    let before = changed(frame);
    if frame.len() >= quoted + 18 {
        shift_sequence(frame, quoted, by);
    } else if let Some([_, _, _, _, number @ ..]) = frame
        .get_mut(quoted..)
        .and_then(<[u8]>::first_chunk_mut::<8>)
    {
        *number = u32::from_be_bytes(*number).wrapping_add(by).to_be_bytes();
    }
    let delta = Delta::between(before, changed(frame));
    if let Some([_, _, c0, c1]) = frame.get_mut(icmp..).and_then(<[u8]>::first_chunk_mut::<4>) {
        [*c0, *c1] = delta.apply([*c0, *c1]);
    }
}

/// Changes every number that the TCP segment at `l4` acknowledges: the acknowledgment, which comes
/// first, and both edges of each selective one.
#[inline]
pub(super) fn change_acknowledgment(
    frame: &mut [u8],
    l4: usize,
    mut change: impl FnMut(u32) -> u32,
) {
    let Some(header) = tcp_header(frame, l4) else {
        return;
    };
    let before = Sum::ZERO.bytes(header);
    let Some((fixed, options)) = header.split_first_chunk_mut::<{ tcp::HEADER_LEN }>() else {
        return;
    };
    let [_, _, _, _, _, _, _, _, a, b, c, d, _, flags_, ..] = fixed;
    if *flags_ & flags::ACK == 0 {
        return;
    }
    let mut changed = |number: [u8; 4]| change(u32::from_be_bytes(number)).to_be_bytes();
    [*a, *b, *c, *d] = changed([*a, *b, *c, *d]);
    if !options.is_empty()
        && let Some(blocks) = tcp_options::find(options, kind::SACK)
    {
        let (edges, _) = options[blocks].as_chunks_mut::<4>();
        for edge in edges {
            *edge = changed(*edge);
        }
    }
    // Options begin anywhere, so their numbers may be the halves of three words: sum all of them.
    let delta = Delta::between(before, Sum::ZERO.bytes(header));
    if let Some([.., c0, c1]) = header.first_chunk_mut::<18>() {
        [*c0, *c1] = delta.apply([*c0, *c1]);
    }
}

/// True if `number` comes after `other` (RFC 9293 §3.4).
#[inline(always)]
pub(crate) const fn is_after(number: u32, other: u32) -> bool {
    let distance = number.wrapping_sub(other);
    distance != 0 && distance < 1 << 31
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::forward::toa::tests::{any_ends, l4, segment};

    /// Options with these edges as selective acknowledgments, behind `pad` others.
    fn blocks(edges: &[u32], pad: usize) -> Vec<u8> {
        let edges = edges.as_chunks::<2>().0.as_flattened();
        let mut options = vec![1; pad];
        options.extend([5, 2 + u8::try_from(edges.len() * 4).unwrap()]);
        options.extend(edges.iter().flat_map(|edge| edge.to_be_bytes()));
        options.resize(options.len().next_multiple_of(4), 0);
        options
    }

    proptest! {
        #[test]
        fn a_shifted_segment_is_one_built_with_the_other_numbers(
            ends in any_ends(),
            (sequence, acknowledgment, by) in any::<(u32, u32, u32)>(),
            edges in vec(any::<u32>(), 0..=6),
            pad in 0_usize..4,
        ) {
            let built = |sequence, acknowledgment, by: u32| {
                let edges: Vec<u32> = edges.iter().map(|edge| edge.wrapping_add(by)).collect();
                segment(&ends, (sequence, acknowledgment), &blocks(&edges, pad), b"data")
            };
            let original = built(sequence, acknowledgment, 0);

            let mut frame = original.clone();
            shift_sequence(&mut frame, l4(&ends), by);
            prop_assert_eq!(&frame, &built(sequence.wrapping_add(by), acknowledgment, 0));
            shift_acknowledgment(&mut frame, l4(&ends), by);
            let both = (sequence.wrapping_add(by), acknowledgment.wrapping_add(by));
            prop_assert_eq!(&frame, &built(both.0, both.1, by));

            shift_acknowledgment(&mut frame, l4(&ends), by.wrapping_neg());
            shift_sequence(&mut frame, l4(&ends), by.wrapping_neg());
            prop_assert_eq!(frame, original);
        }

        #[test]
        fn no_bytes_panic(
            mut bytes in vec(any::<u8>(), 0..120),
            l4 in 0_usize..140,
            by in any::<u32>(),
        ) {
            shift_sequence(&mut bytes, l4, by);
            shift_acknowledgment(&mut bytes, l4, by);
            shift_window(&mut bytes, l4, by.to_le_bytes()[0].cast_signed());
            shift_quoted(&mut bytes, l4, l4 + 28, by);
        }

        #[test]
        fn a_window_in_other_units_has_a_right_checksum(
            ends in any_ends(),
            window: u16,
            by in -15_i8..=15,
        ) {
            let with = |window: u16| {
                let mut frame = segment(&ends, (1, 2), &[], b"data");
                let at = l4(&ends) + 14;
                let before = u16::from_be_bytes([frame[at], frame[at + 1]]);
                frame[at..at + 2].copy_from_slice(&window.to_be_bytes());
                let delta = Delta::between(Sum::ZERO.word(before), Sum::ZERO.word(window));
                let checksum = delta.apply([frame[at + 2], frame[at + 3]]);
                frame[at + 2..at + 4].copy_from_slice(&checksum);
                frame
            };
            let mut frame = with(window);
            shift_window(&mut frame, l4(&ends), by);
            let bits = by.unsigned_abs();
            let expected = match by >= 0 {
                true => (u64::from(window) << bits).min(65_535),
                false => u64::from(window) >> bits,
            };
            prop_assert_eq!(frame, with(u16::try_from(expected).unwrap()));
        }
    }

    #[test]
    fn what_acknowledges_nothing_is_left_alone() {
        // A RST without ACK, whose acknowledgment means nothing.
        let mut frame = [0; 54];
        frame[34 + 12] = 5 << 4;
        frame[34 + 13] = flags::RST;
        let before = frame;
        shift_acknowledgment(&mut frame, 34, 77);
        assert_eq!(frame, before);
    }

    #[test]
    fn numbers_wrap() {
        assert!(is_after(3, u32::MAX - 3) && !is_after(u32::MAX - 3, 3));
        assert!(!is_after(3, 3));
    }
}
