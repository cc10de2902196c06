//! A TCP connection that the director accepted in the real server's place: the SYN proxy's.
//!
//! ```text
//!  client            director            real server
//!    │── SYN ─────────►│                       │
//!    │◄─ SYN-ACK ──────│ a cookie, no memory   │
//!    │── ACK ─────────►│── SYN ───────────────►│  New ─► Asked
//!    │── data ────────►│ waits                 │
//!    │                 │◄─────────── SYN-ACK ──│  Asked ─► Open
//!    │                 │── ACK, data ─────────►│
//!    │◄────────────────│◄──────────────────────│  sequence numbers shifted
//! ```
//!
//! The client keeps its sequence numbers, since the director's SYN repeats the client's. The real server begins at
//! another number than the cookie was: its sequence numbers, and what acknowledges them, are
//! shifted. Windows are, too, where both sides scale them otherwise than they were told.

use crate::forward::sequence::{shift_acknowledgment, shift_sequence, shift_window};
use crate::wire::tcp::flags;
use crate::wire::tcp_offer::Offer;

/// By how many bits the client is told to shift the windows of a real server that is not known yet:
/// Linux's with its default buffers.
pub const SCALE: u8 = 7;

/// How far the real server has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// It has to be asked.
    #[default]
    New,
    /// It got a SYN.
    Asked,
    /// It answered: packets go on, shifted.
    Open,
}

/// What the SYN proxy knows of a connection: 24 bytes beside its entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// Sequence number of the client's SYN.
    client: u32,
    /// That of the SYN-ACK that the client got.
    cookie: u32,
    /// What is added to sequence numbers of the real server; once open.
    shift: u32,
    phase: Phase,
    /// What the client's SYN offered.
    offer: Offer,
    /// The client's, as in the header of its ACK.
    window: u16,
    /// Added to the shift of windows on their way to the client, and to the server.
    to_client: i8,
    to_server: i8,
}

/// What a packet of the real server comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It accepts, now or again: it is to get an ACK, with this window.
    Accepts { window: u16, is_news: bool },
    /// It refuses; its RST is to be shifted and goes to the client.
    Refuses,
    /// It still has another connection between these ports, and is to get a RST.
    Confused,
}

impl Handshake {
    /// After a client's ACK showed that it got the SYN-ACK with the number `cookie`; `window` is in the ACK's
    /// header.
    #[must_use]
    pub fn new(client: u32, cookie: u32, offer: Offer, window: u16) -> Self {
        Self {
            client,
            cookie,
            offer,
            window,
            ..Self::default()
        }
    }

    /// Packets go on, shifted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The real server got no SYN yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.phase == Phase::New
    }

    /// Sequence number, window and options of the SYN for the real server, which is noted as asked.
    pub fn ask(&mut self) -> (u32, u16, Offer) {
        self.phase = Phase::Asked;
        // The window of a SYN is not scaled (RFC 7323 §2.2).
        let scale = self.offer.window_scale.unwrap_or(0);
        let window = u32::from(self.window) << scale;
        let window = u16::try_from(window).unwrap_or(u16::MAX);
        (self.client, window, self.offer)
    }

    /// A packet of the real server that is no data of the open connection.
    pub fn answer(
        &mut self,
        sequence: u32,
        acknowledgment: u32,
        tcp_flags: u8,
        offer: &Offer,
    ) -> Answer {
        let is_mine = acknowledgment == self.client.wrapping_add(1);
        let kind = tcp_flags & (flags::SYN | flags::ACK | flags::RST);
        if kind == flags::SYN | flags::ACK && is_mine {
            let is_news = self.phase != Phase::Open;
            if is_news {
                self.open(sequence, offer);
            }
            return Answer::Accepts {
                window: self.window,
                is_news,
            };
        }
        if kind & flags::RST != 0 && is_mine && self.phase != Phase::Open {
            // To the client the connection is established: it believes no other number.
            let expected = self.cookie.wrapping_add(1);
            self.shift = expected.wrapping_sub(sequence);
            self.phase = Phase::Open;
            return Answer::Refuses;
        }
        Answer::Confused
    }

    fn open(&mut self, sequence: u32, server: &Offer) {
        self.shift = self.cookie.wrapping_sub(sequence);
        self.phase = Phase::Open;
        let Some(client_scale) = self.offer.window_scale else {
            return; // Nobody scales.
        };
        let signed = |scale: u8| i8::try_from(scale).unwrap_or(0);
        match server.window_scale {
            Some(scale) => self.to_client = signed(scale) - signed(SCALE),
            None => {
                self.to_client = -signed(SCALE);
                self.to_server = signed(client_scale);
            }
        }
        if self.to_server > 0 {
            let window = u32::from(self.window) << self.to_server;
            self.window = u16::try_from(window).unwrap_or(u16::MAX);
        }
    }

    /// Shifts a segment of the client, at `l4` in `frame`, for the real server.
    pub fn shift_request(&self, frame: &mut [u8], l4: usize) {
        shift_acknowledgment(frame, l4, self.shift.wrapping_neg());
        shift_window(frame, l4, self.to_server);
    }

    /// Shifts a segment of the real server for the client.
    pub fn shift_reply(&self, frame: &mut [u8], l4: usize) {
        shift_sequence(frame, l4, self.shift);
        shift_window(frame, l4, self.to_client);
    }

    /// What is added to the sequence number of a segment of the real server as the client saw it, so that it is the
    /// server's again: of what an ICMP error quotes.
    #[must_use]
    pub fn unshift(&self) -> u32 {
        self.shift.wrapping_neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::flags::{ACK, RST, SYN};

    const CLIENT: u32 = u32::MAX;
    const COOKIE: u32 = 0x1234_5678;

    fn offer(window_scale: Option<u8>) -> Offer {
        Offer {
            maximum_segment_size: Some(1460),
            window_scale,
            selective: true,
        }
    }

    fn asked(window_scale: Option<u8>, window: u16) -> Handshake {
        let mut handshake = Handshake::new(CLIENT, COOKIE, offer(window_scale), window);
        assert!(handshake.is_new() && !handshake.is_open());
        handshake.ask();
        assert!(!handshake.is_new() && !handshake.is_open());
        handshake
    }

    #[test]
    fn the_syn_is_the_clients() {
        let mut handshake = Handshake::new(CLIENT, COOKIE, offer(Some(7)), 502);
        assert_eq!(handshake.ask(), (CLIENT, 64_256, offer(Some(7))));
        let mut handshake = Handshake::new(CLIENT, COOKIE, offer(Some(9)), 502);
        assert_eq!(handshake.ask().1, 65_535, "as much as it can say");
        let mut handshake = Handshake::new(CLIENT, COOKIE, offer(None), 502);
        assert_eq!(handshake.ask().1, 502);
    }

    #[test]
    fn a_server_accepts_and_repeats_itself() {
        let mut handshake = asked(Some(7), 502);
        let mut answer = |sequence, acknowledgment, flags| {
            handshake.answer(sequence, acknowledgment, flags, &offer(Some(7)))
        };
        assert_eq!(answer(900, 5, SYN | ACK), Answer::Confused, "another SYN's");
        assert_eq!(answer(900, 0, ACK), Answer::Confused, "no SYN");
        let accepts = |is_news| Answer::Accepts {
            window: 502,
            is_news,
        };
        assert_eq!(answer(900, 0, SYN | ACK), accepts(true));
        assert_eq!(answer(900, 0, SYN | ACK), accepts(false));
        assert!(handshake.is_open());
        assert_eq!(900_u32.wrapping_sub(handshake.unshift()), COOKIE);
    }

    #[test]
    fn a_refusal_has_the_number_that_the_client_expects() {
        let mut handshake = asked(Some(7), 502);
        let answer = handshake.answer(0, 5, RST | ACK, &Offer::default());
        assert_eq!(answer, Answer::Confused, "anybody's");
        let answer = handshake.answer(0, 0, RST | ACK, &Offer::default());
        assert_eq!(answer, Answer::Refuses);
        assert_eq!(0_u32.wrapping_sub(handshake.unshift()), COOKIE + 1);
    }

    #[test]
    fn windows_are_told_as_each_side_scales_them() {
        let window = |client, server| {
            let mut handshake = asked(client, 100);
            let answer = handshake.answer(900, 0, SYN | ACK, &offer(server));
            let Answer::Accepts { window, .. } = answer else {
                panic!("{answer:?}")
            };
            (handshake.to_client, handshake.to_server, window)
        };
        assert_eq!(window(Some(8), Some(7)), (0, 0, 100));
        assert_eq!(window(Some(8), Some(9)), (2, 0, 100));
        assert_eq!(window(Some(8), Some(0)), (-7, 0, 100));
        assert_eq!(window(Some(8), None), (-7, 8, 25_600));
        assert_eq!(window(None, None), (0, 0, 100));
    }
}
