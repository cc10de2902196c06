//! What the sender of a SYN offers by TCP options: segment size, window scale (RFC 7323 §2), selective
//! acknowledgments (RFC 2018 §2). Time stamps are not among it.

use super::tcp_options::{find, kind};

/// Largest shift of a window (RFC 7323 §2.3).
pub const MOST_SCALE: u8 = 14;
/// Bytes of all options.
const LENGTH: usize = 12;

/// The options of a SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Largest segment that it accepts; `None`: not said.
    pub maximum_segment_size: Option<u16>,
    /// By how many bits its windows are to be shifted, 0..=14; `None`: windows are not scaled.
    pub window_scale: Option<u8>,
    /// It accepts selective acknowledgments.
    pub selective: bool,
}

impl Offer {
    /// What the options of a SYN say.
    #[must_use]
    pub fn read(options: &[u8]) -> Self {
        let data = |wanted| find(options, wanted).and_then(|data| options.get(data));
        Self {
            maximum_segment_size: data(kind::MAXIMUM_SEGMENT_SIZE)
                .and_then(|data| data.try_into().ok())
                .map(u16::from_be_bytes),
            window_scale: match data(kind::WINDOW_SCALE) {
                Some([scale]) => Some(MOST_SCALE.min(*scale)),
                Some(_) | None => None,
            },
            selective: data(kind::SACK_PERMITTED).is_some(),
        }
    }

    /// The options, and how many bytes of them there are: a multiple of four.
    #[must_use]
    pub fn write(&self) -> ([u8; LENGTH], usize) {
        let mut options = [kind::NO_OPERATION; LENGTH];
        let mut length = 0;
        let mut put = |option: [u8; 4]| {
            options[length..length + 4].copy_from_slice(&option);
            length += 4;
        };
        if let Some(size) = self.maximum_segment_size {
            let [high, low] = size.to_be_bytes();
            put([kind::MAXIMUM_SEGMENT_SIZE, 4, high, low]);
        }
        if self.selective {
            let pad = kind::NO_OPERATION;
            put([pad, pad, kind::SACK_PERMITTED, 2]);
        }
        if let Some(scale) = self.window_scale {
            put([kind::NO_OPERATION, kind::WINDOW_SCALE, 3, scale]);
        }
        (options, length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_a_linux_client() {
        // MSS 1460, SACK permitted, time stamps, no-operation, window scale 7.
        let options = b"\x02\x04\x05\xb4\x04\x02\x08\x0a\x11\x22\x33\x44\0\0\0\0\x01\x03\x03\x07";
        let offer = Offer::read(options);
        assert_eq!(offer.maximum_segment_size, Some(1460));
        assert_eq!((offer.window_scale, offer.selective), (Some(7), true));
        let (written, length) = offer.write();
        assert_eq!(
            &written[..length],
            b"\x02\x04\x05\xb4\x01\x01\x04\x02\x01\x03\x03\x07"
        );
        assert_eq!(Offer::read(&[]).write().1, 0);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            maximum_segment_size in any::<Option<u16>>(),
            window_scale in proptest::option::of(0..=MOST_SCALE),
            selective: bool,
        ) {
            let offer = Offer { maximum_segment_size, window_scale, selective };
            let (options, length) = offer.write();
            prop_assert_eq!(Offer::read(&options[..length]), offer);
            prop_assert!(length % 4 == 0);
        }

        #[test]
        fn no_options_panic(options in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Offer::read(&options);
        }
    }
}
