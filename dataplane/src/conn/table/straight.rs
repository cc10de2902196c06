//! What lets packets go straight on: it is found when a connection changes, not for each of its packets.

use super::{Candidate, Connection, Direction, REPLY, Reply};
use crate::flow::PlainKey;

/// What becomes of a packet that is plain (see the director) and of this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Straight {
    /// A closer look is needed: not all addresses are IPv4, any packet changes the state, it ends with its
    /// first one, or the director itself is an end of it (SYN proxy).
    No,
    /// A request goes straight to its server, as it is; replies do not come.
    Sent,
    /// Either direction goes on with what [`Reply`] says.
    Translated,
}

impl Connection {
    /// To be called after every change.
    #[inline(always)]
    pub(super) fn find_straight(&mut self, reply: Option<&Reply>) {
        let is_straight =
            self.key.is_v4() && !(self.for_one_packet || self.proxied) && self.state.is_kept();
        self.straight = match reply {
            _ if !is_straight => Straight::No,
            None => Straight::Sent,
            Some(reply) if reply.key.is_v4() && !reply.particular => Straight::Translated,
            Some(_) => Straight::No,
        };
    }
}

/// The connections of a table, for packets that may go straight on.
#[derive(Debug)]
pub(crate) struct StraightConnections<'a> {
    pub(super) entries: &'a mut [Connection],
    pub(super) replies: &'a mut [Reply],
}

impl StraightConnections<'_> {
    /// The connection of a request, if the candidate is the one and it goes on as it is.
    #[inline(always)]
    #[must_use]
    pub(crate) fn sent(&mut self, candidate: Candidate, key: &PlainKey) -> Option<&mut Connection> {
        // No candidate, and that of a reply, are beyond the end.
        let connection = self.entries.get_mut(candidate.0 as usize)?;
        (connection.straight == Straight::Sent && connection.key.same_plain(key))
            .then_some(connection)
    }

    /// The same for those that are translated: both halves and the packet's direction.
    #[inline(always)]
    #[must_use]
    pub(crate) fn translated(
        &mut self,
        candidate: Candidate,
        key: &PlainKey,
    ) -> Option<(&mut Connection, &mut Reply, Direction)> {
        let number = (candidate.0 & !REPLY) as usize;
        let connection = self.entries.get_mut(number)?;
        let reply = self.replies.get_mut(number)?;
        let (own, direction) = match candidate.0 & REPLY {
            0 => (&connection.key, Direction::Request),
            _ => (&reply.key, Direction::Reply),
        };
        (connection.straight == Straight::Translated && own.same_plain(key))
            .then_some((connection, reply, direction))
    }
}
