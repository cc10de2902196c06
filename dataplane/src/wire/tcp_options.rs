//! TCP options (RFC 9293 §3.1): a kind, then a length that counts kind and length, then data; two
//! kinds are a single byte.

use std::ops::Range;

/// Most bytes of options that a header can have.
pub const MAX_LEN: usize = 40;

/// Option kinds.
pub mod kind {
    pub const END: u8 = 0;
    pub const NO_OPERATION: u8 = 1;
    /// Largest segment that the sender accepts (RFC 9293 §3.7.1).
    pub const MAXIMUM_SEGMENT_SIZE: u8 = 2;
    /// By how much windows are shifted (RFC 7323 §2).
    pub const WINDOW_SCALE: u8 = 3;
    /// Selective acknowledgments are understood (RFC 2018 §2).
    pub const SACK_PERMITTED: u8 = 4;
    /// Blocks that arrived beyond the acknowledgment (RFC 2018 §3).
    pub const SACK: u8 = 5;
    /// The address of a client behind FULLNAT: an experimental kind (RFC 3692) that DPVS and the
    /// `toa` kernel module use.
    pub const CLIENT_ADDRESS: u8 = 254;
}

/// Where the data of the first option of this kind is in `options`; `None` if there is none before
/// the end or something broken.
#[must_use]
pub fn find(options: &[u8], wanted: u8) -> Option<Range<usize>> {
    let mut at = 0;
    loop {
        match *options.get(at)? {
            kind::END => return None,
            kind::NO_OPERATION => at += 1,
            found => {
                let length = usize::from(*options.get(at + 1)?);
                let end = at + length;
                if length < 2 || end > options.len() {
                    return None;
                }
                if found == wanted {
                    return Some(at + 2..end);
                }
                at = end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn options_are_found_behind_others() {
        let options = [1, 2, 4, 5, 0xb4, 1, 3, 3, 7, 5, 2, 0, 254];
        assert_eq!(find(&options, kind::MAXIMUM_SEGMENT_SIZE), Some(3..5));
        assert_eq!(find(&options, 3), Some(8..9));
        assert_eq!(find(&options, kind::SACK), Some(11..11));
        assert_eq!(find(&options, 254), None, "behind the end");
        assert_eq!(find(&[2, 4, 5], 2), None, "cut off");
        assert_eq!(find(&[8, 0, 2, 2], 2), None, "no length at all");
    }

    proptest! {
        #[test]
        fn what_is_found_is_inside(options in vec(0_u8..8, 0..40), wanted in 0_u8..8) {
            if let Some(data) = find(&options, wanted) {
                prop_assert!(data.end <= options.len());
                prop_assert_eq!(options[data.start - 2], wanted);
            }
        }
    }
}
