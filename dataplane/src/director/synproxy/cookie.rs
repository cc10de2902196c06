//! Sequence numbers that remember a SYN in the client's place.
//!
//! ```text
//!  31                              8 7     5   4   3       0
//! +---------------------------------+-------+-----+---------+
//! |    keyed hash of connection,    | seg-  | se- | window  |
//! |  SYN's number, time, low byte   | ment  |lect.|  scale  |
//! +---------------------------------+-------+-----+---------+
//! ```
//!
//! Who never saw the SYN-ACK has to guess 24 bits of SipHash, keyed at random at each start: one
//! guess in eight million, for two periods are accepted. Made and checked without any memory; a cookie is
//! good for 64 to 128 seconds.
//!
//! Time stamps (RFC 7323) are not remembered, so they are not offered: they could not go on when the real
//! server takes over with others.

use crate::flow::{FlowHasher, FlowKey};
use crate::wire::tcp_offer::{MOST_SCALE, Offer};

/// How long the same hash is made, in milliseconds.
const PERIOD: u64 = 64_000;
/// Segment sizes that are remembered: those of IPv6's least MTU, tunnels, PPPoE and Ethernet.
const SIZES: [u16; 8] = [536, 1220, 1300, 1360, 1400, 1440, 1460, 8940];
/// Says that the client does not scale windows.
const NO_SCALE: u8 = 15;

/// Makes and checks cookies; those of one director are the same on all workers.
#[derive(Debug)]
pub(crate) struct Cookies {
    hasher: FlowHasher,
}

impl Cookies {
    pub(crate) fn new(hasher: &FlowHasher) -> Self {
        Self {
            hasher: hasher.derive("SYN cookies"),
        }
    }

    /// The number of the SYN-ACK that answers a SYN with the sequence number `syn` and these
    /// options. `now` is in milliseconds.
    pub(crate) fn make(&self, key: &FlowKey, syn: u32, offer: &Offer, now: u64) -> u32 {
        self.cookie(key, syn, pack(offer), now / PERIOD)
    }

    /// What the SYN offered whose SYN-ACK had the number `cookie`, if there was one.
    pub(crate) fn check(&self, key: &FlowKey, syn: u32, cookie: u32, now: u64) -> Option<Offer> {
        let [.., packed] = cookie.to_be_bytes();
        let period = now / PERIOD;
        let periods = [Some(period), period.checked_sub(1)];
        let mut periods = periods.into_iter().flatten();
        periods
            .any(|period| self.cookie(key, syn, packed, period) == cookie)
            .then(|| unpack(packed))
    }

    fn cookie(&self, key: &FlowKey, syn: u32, packed: u8, period: u64) -> u32 {
        let client = (key.source(), key.source_port());
        let service = (key.destination(), key.destination_port());
        let hash = self.hasher.hash_of(&(client, service, syn, packed, period));
        let [a, b, c, ..] = hash.to_be_bytes();
        u32::from_be_bytes([a, b, c, packed])
    }
}

/// What fits in a byte: never more than was offered, but for segments below 536 bytes, which every
/// host has to accept (RFC 9293 §3.7.1).
fn pack(offer: &Offer) -> u8 {
    let said = offer.maximum_segment_size.unwrap_or(SIZES[0]);
    let sizes = (0_u8..).zip(SIZES);
    let size = sizes.filter(|(_, size)| *size <= said).last();
    let size = size.map_or(0, |(index, _)| index);
    let scale = offer
        .window_scale
        .map_or(NO_SCALE, |scale| scale.min(MOST_SCALE));
    size << 5 | u8::from(offer.selective) << 4 | scale
}

fn unpack(packed: u8) -> Offer {
    let scale = packed & 0x0f;
    Offer {
        maximum_segment_size: SIZES.get(usize::from(packed >> 5)).copied(),
        window_scale: (scale <= MOST_SCALE).then_some(scale),
        selective: packed & 0x10 != 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::service::{Address, Protocol};

    fn key(client: u16) -> FlowKey {
        let [a, b] = client.to_be_bytes();
        let client = Address::v4([10, 0, a, b]);
        FlowKey::new(
            client,
            4000,
            Address::v4([192, 168, 1, 100]),
            80,
            Protocol::Tcp,
        )
    }

    proptest! {
        #[test]
        fn a_cookie_is_good_for_its_connection_and_time(
            (client, syn, now) in any::<(u16, u32, u32)>(),
            later in 0_u64..64_000,
            (maximum_segment_size, selective) in any::<(Option<u16>, bool)>(),
            window_scale in proptest::option::of(0_u8..=14),
            other in 1_u32..,
        ) {
            let cookies = Cookies::new(&FlowHasher::fixed());
            let offer = Offer { maximum_segment_size, window_scale, selective };
            let (key, now) = (key(client), u64::from(now));
            let cookie = cookies.make(&key, syn, &offer, now);
            let known = cookies.check(&key, syn, cookie, now + later).expect("good");
            prop_assert_eq!((known.window_scale, known.selective), (window_scale, selective));
            let size = known.maximum_segment_size.expect("always known");
            prop_assert!(size <= maximum_segment_size.unwrap_or(536).max(536));

            prop_assert_eq!(cookies.check(&key, syn, cookie, now + 2 * PERIOD), None);
            // By chance one of eight million is good, so that this would fail once in as many runs.
            let mut wrong = [
                cookies.check(&key, syn.wrapping_add(other), cookie, now),
                cookies.check(&key, syn, cookie.wrapping_add(other), now),
            ];
            if cookie == cookie.wrapping_add(other) {
                wrong[1] = None;
            }
            prop_assert!(wrong.iter().filter(|found| found.is_some()).count() < 2);
        }
    }

    /// Of a million guesses at most a few are right, for whatever is guessed.
    #[test]
    fn cookies_are_not_guessed() {
        let cookies = Cookies::new(&FlowHasher::fixed());
        let guesses = 1_u32 << 18;
        let right = |guess: &u32| {
            let cookie = guess.wrapping_mul(0x9e37_79b9);
            cookies.check(&key(7), 1000, cookie, 500_000).is_some()
        };
        // Expected are 2^18 / 2^23, a thirty-second.
        assert!((0..guesses).filter(right).count() <= 1);
        // Nor is there anything to learn of one connection's for the next's.
        let offer = Offer::default();
        let made: std::collections::BTreeSet<u32> = (0..4096)
            .map(|client| cookies.make(&key(client), 1000, &offer, 0) >> 8)
            .collect();
        assert!(made.len() > 4090, "{}", made.len());
    }

    #[test]
    fn other_secrets_make_other_cookies() {
        let cookie = |hasher| Cookies::new(&hasher).make(&key(1), 5, &Offer::default(), 0);
        assert_ne!(
            cookie(FlowHasher::random()) >> 8,
            cookie(FlowHasher::random()) >> 8
        );
    }
}
