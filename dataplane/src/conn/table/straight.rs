//! What lets packets go straight on: it is found when a connection changes, not for each of its packets.

use super::{Candidate, Connection, REPLY, Reply};
use crate::xsk::umem::HEAD;

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
    /// Other workers translate its plain replies as well, if there are any.
    #[inline(always)]
    pub(crate) fn is_shared(&self) -> bool {
        self.straight == Straight::Translated
    }

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
    /// The connection of the plain request that begins like this, if the candidate is the one and it goes on as
    /// it is.
    #[inline(always)]
    #[must_use]
    pub(crate) fn sent(
        &mut self,
        candidate: Candidate,
        head: &[u8; HEAD],
    ) -> Option<&mut Connection> {
        // No candidate, and that of a reply, are beyond the end.
        let connection = self.entries.get_mut(candidate.0 as usize)?;
        (connection.straight == Straight::Sent && connection.key.is_of(head)).then_some(connection)
    }

    /// With as many entries as replies, so that in a loop one comparison answers for both.
    #[inline(always)]
    pub(crate) fn with_replies(self) -> Self {
        let both = self.entries.len().min(self.replies.len());
        Self {
            entries: &mut self.entries[..both],
            replies: &mut self.replies[..both],
        }
    }

    /// The connection of a request that is translated, and its reply half.
    #[inline(always)]
    #[must_use]
    pub(crate) fn request(
        &mut self,
        candidate: Candidate,
        head: &[u8; HEAD],
    ) -> Option<(&mut Connection, &mut Reply)> {
        // No candidate, and that of a reply, are beyond the end.
        let number = candidate.0 as usize;
        let connection = self.entries.get_mut(number)?;
        let reply = self.replies.get_mut(number)?;
        (connection.straight == Straight::Translated && connection.key.is_of(head))
            .then_some((connection, reply))
    }

    /// The same of a reply.
    #[inline(always)]
    #[must_use]
    pub(crate) fn reply(
        &mut self,
        candidate: Candidate,
        head: &[u8; HEAD],
    ) -> Option<(&mut Connection, &Reply)> {
        // The candidate of a request is beyond the end then.
        let number = (candidate.0 ^ REPLY) as usize;
        let connection = self.entries.get_mut(number)?;
        let reply = self.replies.get(number)?;
        (connection.straight == Straight::Translated && reply.key.is_of(head))
            .then_some((connection, reply))
    }
}
