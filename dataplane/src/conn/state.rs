//! The states of a connection and what moves them.
//!
//! With DR and TUN the director sees only the client's half of a TCP connection and
//! follows the input-only transitions of IPVS; with NAT and FULLNAT it sees both and follows
//! the input and output ones (behaviour of `net/netfilter/ipvs/ip_vs_proto_tcp.c`; the states are
//! those of RFC 9293 §3.3.2 as far as a middlebox can tell).
//!
//! Not done here: sequence numbers. A packet's flags are believed.

use std::fmt;

use super::Association;
use crate::wire::sctp::Chunk;
use crate::wire::tcp::flags;

/// State of a connection: TCP's by IPVS's names, `Udp`, or an SCTP association's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Established,
    SynRecv,
    FinWait,
    TimeWait,
    Close,
    /// The client closed its half; seen where replies are.
    CloseWait,
    Udp,
    Sctp(Association),
}

const _: () = assert!(size_of::<State>() == 1);

/// What a packet says to the state of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// [`flags`] of a TCP segment.
    Tcp(u8),
    Udp,
    Sctp(Chunk),
}

impl Signal {
    /// The packet asks for a connection: a SYN with nothing set that contradicts it, an INIT, any
    /// datagram.
    #[inline]
    #[must_use]
    pub fn is_request(self) -> bool {
        match self {
            Self::Tcp(tcp_flags) => flags::is_request(tcp_flags),
            Self::Udp => true,
            Self::Sctp(chunk) => chunk == Chunk::Init,
        }
    }
}

/// Whose packet moves a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The client's, whose server answers past the director.
    ClientOnly,
    /// The client's, whose server's packets are seen too.
    Client,
    /// The real server's.
    Server,
}

impl State {
    const WITHOUT_SCTP: [Self; 7] = [
        Self::Established,
        Self::SynRecv,
        Self::FinWait,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::Udp,
    ];

    /// How many states there are.
    pub const COUNT: usize = Self::WITHOUT_SCTP.len() + Association::ALL.len();

    /// Every state, in order of [`index`](Self::index).
    #[must_use]
    pub fn all() -> [Self; Self::COUNT] {
        std::array::from_fn(|index| match Self::WITHOUT_SCTP.get(index) {
            Some(state) => *state,
            None => Self::Sctp(Association::ALL[index - Self::WITHOUT_SCTP.len()].0),
        })
    }

    /// Its place among [`all`](Self::all).
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Established => 0,
            Self::SynRecv => 1,
            Self::FinWait => 2,
            Self::TimeWait => 3,
            Self::Close => 4,
            Self::CloseWait => 5,
            Self::Udp => 6,
            Self::Sctp(association) => Self::WITHOUT_SCTP.len() + association as usize,
        }
    }

    /// State of a TCP connection whose first packet had these flags.
    #[must_use]
    pub fn first(flags: u8) -> Self {
        match Segment::of(flags) {
            Some(Segment::Syn) => Self::SynRecv,
            // Mid-stream, taken up because `tcp_midstream` says so.
            Some(Segment::Ack) => Self::Established,
            Some(Segment::Fin | Segment::Rst) | None => Self::Close,
        }
    }

    /// State after a packet of the connection that says `signal`.
    #[inline]
    #[must_use]
    pub fn after(self, seen: Seen, signal: Signal) -> Self {
        match (self, signal) {
            (Self::Sctp(association), Signal::Sctp(chunk)) => {
                Self::Sctp(association.after(seen, chunk))
            }
            (state, Signal::Tcp(flags)) => state.after_flags(seen, flags),
            (state, Signal::Udp | Signal::Sctp(_)) => state,
        }
    }

    /// The same for a TCP segment with these flags.
    fn after_flags(self, seen: Seen, flags: u8) -> Self {
        let Some(segment) = Segment::of(flags) else {
            // Without SYN, FIN, RST and ACK it is no segment of a connection.
            return self;
        };
        if seen == Seen::Server {
            return self.after_reply(segment);
        }
        match (self, segment) {
            (Self::Udp | Self::Sctp(_), _) => self,

            // A client that forgot the connection and begins another one:
            // `begins_anew` lets the director schedule it before this is asked.
            (
                Self::SynRecv | Self::FinWait | Self::TimeWait | Self::Close | Self::CloseWait,
                Segment::Syn,
            ) => Self::SynRecv,
            // RFC 9293 §3.10.7.4: the server challenges it with an ACK.
            (Self::Established, Segment::Syn) => Self::Established,

            (Self::Established, Segment::Fin) if seen == Seen::Client => Self::CloseWait,
            (Self::FinWait, Segment::Fin) if seen == Seen::Client => Self::TimeWait,
            (Self::Established | Self::FinWait, Segment::Fin) => Self::FinWait,
            (Self::SynRecv | Self::TimeWait, Segment::Fin) => Self::TimeWait,
            (Self::CloseWait, Segment::Fin | Segment::Ack) => Self::CloseWait,

            (Self::SynRecv | Self::Established, Segment::Ack) => Self::Established,
            (Self::FinWait, Segment::Ack) => Self::FinWait,
            (Self::TimeWait, Segment::Ack) => Self::TimeWait,

            // A RST in SYN_RECV may be forged by anyone who sees no SYN-ACK:
            // the state with its short timeout stays.
            (Self::SynRecv, Segment::Rst) => Self::SynRecv,
            (
                Self::Established | Self::FinWait | Self::TimeWait | Self::CloseWait,
                Segment::Rst,
            ) => Self::Close,
            (Self::Close, Segment::Fin | Segment::Ack | Segment::Rst) => Self::Close,
        }
    }

    /// State after a segment of the real server.
    fn after_reply(self, segment: Segment) -> Self {
        match (self, segment) {
            (Self::Udp | Self::Sctp(_), _) => self,
            // A SYN-ACK says nothing that the client's answer to it does not say better.
            (state, Segment::Syn | Segment::Ack) => state,
            (Self::Established | Self::FinWait, Segment::Fin) => Self::FinWait,
            (Self::SynRecv | Self::TimeWait | Self::CloseWait, Segment::Fin) => Self::TimeWait,
            (Self::TimeWait, Segment::Rst) => Self::TimeWait,
            (Self::Established | Self::SynRecv | Self::FinWait | Self::CloseWait, Segment::Rst) => {
                Self::Close
            }
            (Self::Close, Segment::Fin | Segment::Rst) => Self::Close,
        }
    }

    /// True if a packet without SYN, FIN and RST leaves the state as it is. Of SCTP, whose packets
    /// have no such flags, that is never known beforehand.
    #[inline(always)]
    #[must_use]
    pub fn is_kept(self) -> bool {
        !matches!(self, Self::SynRecv | Self::Sctp(_))
    }

    /// True if a SYN or INIT in this state is a new connection on the old tuple (the client reuses
    /// its port), which is scheduled anew at once. IPVS delays such a SYN by a second or sticks to
    /// the old server, which is known to hurt.
    #[inline]
    #[must_use]
    pub fn begins_anew(self, signal: Signal) -> bool {
        self.is_over() && signal.is_request()
    }

    /// At least one end closed the connection.
    #[inline]
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Self::FinWait | Self::TimeWait | Self::Close | Self::CloseWait => true,
            Self::Established | Self::SynRecv | Self::Udp => false,
            Self::Sctp(association) => association.is_over(),
        }
    }

    /// Counts as active (`ActiveConn`) rather than inactive: also while the handshake lasts, as IPVS
    /// has it since Linux 4.8; of SCTP only when it is over.
    #[inline]
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(
            self,
            Self::Established | Self::SynRecv | Self::Sctp(Association::Established)
        )
    }

    /// Half open: the client answered nothing yet, so its address may be forged; may be evicted when
    /// the table is full.
    #[inline]
    #[must_use]
    pub fn is_half_open(self) -> bool {
        use Association::{CookieSent, Init, Init1};
        matches!(self, Self::SynRecv | Self::Sctp(Init1 | Init | CookieSent))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Established => "ESTABLISHED",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::Udp => "UDP",
            Self::Sctp(association) => return association.fmt(f),
        })
    }
}

/// What a TCP packet is to the state machine: the strongest of its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    Rst,
    Syn,
    Fin,
    Ack,
}

impl Segment {
    #[inline]
    fn of(flags: u8) -> Option<Self> {
        if flags & flags::RST != 0 {
            Some(Self::Rst)
        } else if flags & flags::SYN != 0 {
            Some(Self::Syn)
        } else if flags & flags::FIN != 0 {
            Some(Self::Fin)
        } else if flags & flags::ACK != 0 {
            Some(Self::Ack)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wheel::ListId;
    use super::*;
    use crate::wire::tcp::flags::{ACK, FIN, PSH, RST, SYN};

    /// Walks a life of which only the client's half is seen, and names the states.
    fn walk(life: &[u8]) -> Vec<State> {
        let life: Vec<_> = life
            .iter()
            .map(|&flags| (Seen::ClientOnly, flags))
            .collect();
        walk_both(&life)
    }

    fn walk_both(life: &[(Seen, u8)]) -> Vec<State> {
        let mut state = State::first(life[0].1);
        let mut states = vec![state];
        for &(seen, flags) in &life[1..] {
            state = state.after(seen, Signal::Tcp(flags));
            states.push(state);
        }
        states
    }

    #[test]
    fn lives_of_which_both_halves_are_seen() {
        use Seen::{Client, Server};
        use State::{Close, CloseWait, Established, FinWait, SynRecv, TimeWait};
        let open = [(Client, SYN), (Server, SYN | ACK), (Client, ACK)];
        let life = |rest: &[(Seen, u8)]| walk_both(&[&open, rest].concat())[3..].to_vec();
        assert_eq!(walk_both(&open), [SynRecv, SynRecv, Established]);
        assert_eq!(
            life(&[
                (Client, FIN | ACK),
                (Server, ACK),
                (Server, FIN | ACK),
                (Client, ACK)
            ]),
            [CloseWait, CloseWait, TimeWait, TimeWait]
        );
        assert_eq!(
            life(&[
                (Server, FIN | ACK),
                (Client, ACK),
                (Client, FIN | ACK),
                (Server, ACK)
            ]),
            [FinWait, FinWait, TimeWait, TimeWait]
        );
        assert_eq!(life(&[(Server, RST), (Client, ACK)]), [Close, Close]);
        let refused = [(Client, SYN), (Server, RST | ACK)];
        assert_eq!(walk_both(&refused), [SynRecv, Close]);
    }

    const SEEN: [Seen; 3] = [Seen::ClientOnly, Seen::Client, Seen::Server];

    fn everything() -> impl Iterator<Item = (State, Seen)> {
        State::all()
            .into_iter()
            .flat_map(|state| SEEN.map(|seen| (state, seen)))
    }

    #[test]
    fn an_ordinary_life() {
        use State::{Established, FinWait, SynRecv};
        assert_eq!(
            walk(&[SYN, ACK, PSH | ACK, FIN | ACK, ACK]),
            [SynRecv, Established, Established, FinWait, FinWait]
        );
    }

    #[test]
    fn reset_and_refused() {
        use State::{Close, Established, SynRecv};
        assert_eq!(
            walk(&[SYN, ACK, RST, ACK]),
            [SynRecv, Established, Close, Close]
        );
        assert_eq!(walk(&[SYN, RST | ACK]), [SynRecv, SynRecv]);
    }

    #[test]
    fn a_syn_begins_anew_only_after_the_end() {
        for state in State::WITHOUT_SCTP {
            use State::{Close, CloseWait, FinWait, TimeWait};
            let begins_anew = |flags| state.begins_anew(Signal::Tcp(flags));
            let ended = matches!(state, FinWait | TimeWait | Close | CloseWait);
            assert_eq!(begins_anew(SYN), ended, "{state}");
            assert!(!begins_anew(SYN | ACK) && !begins_anew(ACK));
        }
    }

    #[test]
    fn flags_without_meaning_change_nothing() {
        for (state, seen) in everything() {
            assert_eq!(state.after(seen, Signal::Tcp(0)), state);
            assert_eq!(state.after(seen, Signal::Tcp(PSH)), state);
        }
    }

    #[test]
    fn what_is_kept_is_kept_by_flags_that_change_nothing() {
        for (state, seen) in everything().filter(|(state, _)| state.is_kept()) {
            for flags in (0..=u8::MAX).filter(|flags| !flags::changes_state(*flags)) {
                assert_eq!(state.after(seen, Signal::Tcp(flags)), state);
            }
        }
        assert!(State::Established.is_kept() && State::Udp.is_kept());
        assert!(!flags::changes_state(ACK | PSH));
    }

    #[test]
    fn udp_stays_udp() {
        for seen in SEEN {
            assert_eq!(State::Udp.after(seen, Signal::Udp), State::Udp);
        }
    }

    #[test]
    fn a_state_is_found_by_its_index_and_a_half_open_one_has_a_queue() {
        for (index, state) in State::all().into_iter().enumerate() {
            assert_eq!(state.index(), index, "{state}");
            let has_queue = ListId::of_half_open(state).is_some();
            assert_eq!(state.is_half_open(), has_queue, "{state}");
        }
    }
}
