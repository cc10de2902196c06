//! The states of an SCTP association as a middlebox sees them (RFC 9260 §4; behaviour of
//! `net/netfilter/ipvs/ip_vs_proto_sctp.c`).
//!
//! They are named by what was seen last: the client's INIT, the server's INIT ACK (`CookieSent`) and
//! so on; `CookieWait`, `Cookie` and `CookieEchoed` are the same for an association that the real
//! server begins. With DR and TUN only the client's chunks are seen, and a client that echoes a cookie is
//! believed to be established.
//!
//! Not done here: verification tags, which a middlebox that forgot would have to ask for.

use std::fmt;
use std::time::Duration;

use super::Seen;
use crate::wire::sctp::Chunk;

/// State of an association, by IPVS's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Association {
    /// The client's first INIT: kept shortly, for it may be forged or lost.
    Init1,
    /// The client sent INIT again.
    Init,
    CookieSent,
    CookieReplied,
    CookieWait,
    Cookie,
    CookieEchoed,
    Established,
    /// The real server began to end the association.
    ShutdownSent,
    /// The client began to end it.
    ShutdownReceived,
    ShutdownAckSent,
    /// An INIT was answered by ABORT.
    Rejected,
    Closed,
}

impl Association {
    /// Every state with its name in configuration and its default timeout, in order of its value.
    pub const ALL: [(Self, &str, Duration); 13] = [
        (Self::Init1, "sctp_init1", Duration::from_secs(4)),
        (Self::Init, "sctp_init", LONGEST_RTO),
        (Self::CookieSent, "sctp_cookie_sent", LONGEST_RTO),
        (Self::CookieReplied, "sctp_cookie_replied", LONGEST_RTO),
        (Self::CookieWait, "sctp_cookie_wait", LONGEST_RTO),
        (Self::Cookie, "sctp_cookie", LONGEST_RTO),
        (Self::CookieEchoed, "sctp_cookie_echoed", LONGEST_RTO),
        (
            Self::Established,
            "sctp_established",
            Duration::from_secs(15 * 60),
        ),
        (Self::ShutdownSent, "sctp_shutdown_sent", LONGEST_RTO),
        (
            Self::ShutdownReceived,
            "sctp_shutdown_received",
            LONGEST_RTO,
        ),
        (Self::ShutdownAckSent, "sctp_shutdown_ack_sent", LONGEST_RTO),
        (Self::Rejected, "sctp_rejected", Duration::from_secs(4)),
        (Self::Closed, "sctp_closed", LONGEST_RTO),
    ];

    /// State after a packet whose chunks say this.
    #[must_use]
    pub(super) fn after(self, seen: Seen, chunk: Chunk) -> Self {
        match seen {
            Seen::Client => self.after_client(chunk),
            Seen::ClientOnly => self.after_client_only(chunk),
            Seen::Server => self.after_server(chunk),
        }
    }

    /// The client's packet, whose server's packets are seen too.
    fn after_client(self, chunk: Chunk) -> Self {
        use Association::{
            Closed, Cookie, CookieEchoed, CookieReplied, CookieSent, CookieWait, Established, Init,
            Init1, Rejected, ShutdownAckSent, ShutdownReceived, ShutdownSent,
        };
        match (chunk, self) {
            (Chunk::Init, Init1 | Init | Rejected | Closed) => Init,
            (Chunk::InitAck, Init1 | Init) => CookieWait,
            (Chunk::InitAck, CookieWait) => Cookie,
            (Chunk::CookieEcho, CookieSent) => CookieReplied,
            // An echo, or an answer to a SHUTDOWN, that nothing asked for: what asked was lost on its way here.
            (Chunk::CookieEcho | Chunk::ShutdownAck, Init1) => Init,
            (Chunk::CookieAck, CookieEchoed) => Established,
            (Chunk::Shutdown, Established) => ShutdownReceived,
            (Chunk::ShutdownAck, ShutdownSent | ShutdownAckSent) => Closed,
            (Chunk::ShutdownComplete, Init1 | Init | ShutdownAckSent) => Closed,
            // A cookie that became stale.
            (Chunk::Error, CookieEchoed) => Closed,
            (Chunk::Abort, CookieWait) => Rejected,
            (Chunk::Abort, _) => Closed,
            (
                Chunk::Data
                | Chunk::Init
                | Chunk::InitAck
                | Chunk::CookieEcho
                | Chunk::CookieAck
                | Chunk::Shutdown
                | Chunk::ShutdownAck
                | Chunk::ShutdownComplete
                | Chunk::Error,
                state,
            ) => state,
        }
    }

    /// The client's packet, whose server answers past the director: of every answer only what the
    /// client makes of it is seen.
    fn after_client_only(self, chunk: Chunk) -> Self {
        use Association::{
            Closed, Cookie, CookieEchoed, CookieReplied, CookieSent, CookieWait, Established, Init,
            Init1, Rejected, ShutdownAckSent, ShutdownReceived, ShutdownSent,
        };
        let is_opening = matches!(self, Init1 | Init | CookieSent | CookieReplied | CookieWait);
        match (chunk, self) {
            (Chunk::Data, CookieWait) => Established,
            (Chunk::Init, _) if is_opening || matches!(self, Rejected | Closed) => Init,
            (Chunk::InitAck, _) if is_opening => CookieEchoed,
            (Chunk::CookieEcho, _) if is_opening => Established,
            (Chunk::CookieAck, CookieSent | CookieReplied | Cookie | CookieEchoed) => Established,
            (Chunk::Shutdown, Established) => ShutdownReceived,
            (Chunk::ShutdownAck, Init1) => Init,
            (Chunk::ShutdownAck, Established | ShutdownSent | ShutdownAckSent) => Closed,
            (
                Chunk::ShutdownComplete,
                Init1 | Init | CookieSent | CookieReplied | ShutdownReceived | ShutdownAckSent,
            ) => Closed,
            (Chunk::Abort, CookieWait) => Rejected,
            (Chunk::Abort, _) => Closed,
            (
                Chunk::Data
                | Chunk::Init
                | Chunk::InitAck
                | Chunk::CookieEcho
                | Chunk::CookieAck
                | Chunk::Shutdown
                | Chunk::ShutdownAck
                | Chunk::ShutdownComplete
                | Chunk::Error,
                state,
            ) => state,
        }
    }

    /// The real server's packet.
    fn after_server(self, chunk: Chunk) -> Self {
        use Association::{
            Closed, Cookie, CookieEchoed, CookieReplied, CookieSent, CookieWait, Established, Init,
            Init1, Rejected, ShutdownAckSent, ShutdownReceived, ShutdownSent,
        };
        let is_answering = matches!(self, Init1 | Init | CookieSent | CookieReplied);
        let is_opening = is_answering || matches!(self, CookieWait | Cookie | CookieEchoed);
        match (chunk, self) {
            (Chunk::Init, Established) => Established,
            (Chunk::Init, _) => CookieWait,
            (Chunk::InitAck, Init1 | Init) => CookieSent,
            (Chunk::CookieEcho, _) if is_opening => CookieEchoed,
            (Chunk::CookieAck, _) if is_opening => Established,
            (Chunk::Shutdown, _) if is_opening || self == Established => ShutdownSent,
            (Chunk::ShutdownAck, _)
                if is_answering || matches!(self, ShutdownSent | ShutdownReceived) =>
            {
                ShutdownAckSent
            }
            (Chunk::Error, _) if is_answering => Closed,
            (Chunk::Abort, Init1) => Rejected,
            (Chunk::Abort, _) => Closed,
            (
                Chunk::Data
                | Chunk::InitAck
                | Chunk::CookieEcho
                | Chunk::CookieAck
                | Chunk::Shutdown
                | Chunk::ShutdownAck
                | Chunk::ShutdownComplete
                | Chunk::Error,
                Init1 | Init | CookieSent | CookieReplied | CookieWait | Cookie | CookieEchoed
                | Established | ShutdownSent | ShutdownReceived | ShutdownAckSent | Rejected
                | Closed,
            ) => self,
        }
    }

    /// Neither end knows of it any more.
    #[must_use]
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Rejected | Self::Closed)
    }
}

/// The longest time until a packet is sent again, and a second.
const LONGEST_RTO: Duration = Duration::from_secs(60 + 1);

impl fmt::Display for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Init1 => "INIT1",
            Self::Init => "INIT",
            Self::CookieSent => "C-SENT",
            Self::CookieReplied => "C-REPLIED",
            Self::CookieWait => "C-WAIT",
            Self::Cookie => "COOKIE",
            Self::CookieEchoed => "C-ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "S-SENT",
            Self::ShutdownReceived => "S-RECEIVED",
            Self::ShutdownAckSent => "S-ACK-SENT",
            Self::Rejected => "REJECTED",
            Self::Closed => "CLOSED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Association::{
        Closed, CookieReplied, CookieSent, CookieWait, Established, Init, Init1, Rejected,
        ShutdownAckSent, ShutdownReceived, ShutdownSent,
    };
    use super::Seen::{Client, ClientOnly, Server};
    use super::*;

    fn walk(from: Association, life: &[(Seen, Chunk)]) -> Vec<Association> {
        life.iter()
            .scan(from, |state, &(seen, chunk)| {
                *state = state.after(seen, chunk);
                Some(*state)
            })
            .collect()
    }

    const OPEN: [(Seen, Chunk); 3] = [
        (Server, Chunk::InitAck),
        (Client, Chunk::CookieEcho),
        (Server, Chunk::CookieAck),
    ];

    #[test]
    fn lives_of_which_both_halves_are_seen() {
        assert_eq!(walk(Init1, &OPEN), [CookieSent, CookieReplied, Established]);
        assert_eq!(
            walk(
                Established,
                &[
                    (Client, Chunk::Data),
                    (Client, Chunk::Shutdown),
                    (Server, Chunk::ShutdownAck),
                    (Client, Chunk::ShutdownComplete),
                ]
            ),
            [Established, ShutdownReceived, ShutdownAckSent, Closed]
        );
        assert_eq!(
            walk(
                Established,
                &[
                    (Server, Chunk::Shutdown),
                    (Client, Chunk::ShutdownAck),
                    (Server, Chunk::ShutdownComplete),
                ]
            ),
            [ShutdownSent, Closed, Closed]
        );
        assert_eq!(walk(Init1, &[(Server, Chunk::Abort)]), [Rejected]);
        assert_eq!(walk(Established, &[(Server, Chunk::Abort)]), [Closed]);
        assert_eq!(walk(Closed, &[(Server, Chunk::Init)]), [CookieWait]);
    }

    #[test]
    fn lives_of_which_only_the_client_is_seen() {
        assert_eq!(
            walk(
                Init1,
                &[
                    (ClientOnly, Chunk::Init),
                    (ClientOnly, Chunk::CookieEcho),
                    (ClientOnly, Chunk::Data),
                    (ClientOnly, Chunk::Shutdown),
                    (ClientOnly, Chunk::ShutdownComplete),
                ]
            ),
            [Init, Established, Established, ShutdownReceived, Closed]
        );
        assert_eq!(
            walk(Established, &[(ClientOnly, Chunk::ShutdownAck)]),
            [Closed]
        );
        assert_eq!(walk(Established, &[(ClientOnly, Chunk::Abort)]), [Closed]);
    }

    #[test]
    fn data_keeps_an_association_and_an_abort_ends_it() {
        for (state, name, _) in Association::ALL {
            for seen in [Client, Server] {
                assert_eq!(state.after(seen, Chunk::Data), state, "{name}");
            }
            for seen in [Client, ClientOnly, Server] {
                assert!(state.after(seen, Chunk::Abort).is_over(), "{name}");
            }
        }
    }

    #[test]
    fn names_fit_the_column_of_listings_and_values_are_places() {
        for (place, (state, ..)) in Association::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, place);
            assert!(state.to_string().len() <= 11);
        }
    }
}
