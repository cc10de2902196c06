//! The third step of a lookup, for packets that may go straight on.

use super::connection::mark;
use super::{Candidate, Connection, REPLY};
use crate::xsk::umem::HEAD;

/// The connections of a table, for packets that may go straight on.
#[derive(Debug)]
pub(crate) struct StraightConnections<'a>(pub(super) &'a mut [Connection]);

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
        let connection = self.0.get_mut(candidate.0 as usize)?;
        (connection.is(mark::SENT) && connection.plain_key().is_of(head)).then_some(connection)
    }

    /// The same of a request that is translated.
    #[inline(always)]
    #[must_use]
    pub(crate) fn request(
        &mut self,
        candidate: Candidate,
        head: &[u8; HEAD],
    ) -> Option<&mut Connection> {
        // No candidate, and that of a reply, are beyond the end.
        let connection = self.0.get_mut(candidate.0 as usize)?;
        (connection.is(mark::EXCHANGED) && connection.plain_key().is_of(head)).then_some(connection)
    }

    /// The same of a reply.
    #[inline(always)]
    #[must_use]
    pub(crate) fn reply(
        &mut self,
        candidate: Candidate,
        head: &[u8; HEAD],
    ) -> Option<&mut Connection> {
        // The candidate of a request is beyond the end then.
        let connection = self.0.get_mut((candidate.0 ^ REPLY) as usize)?;
        (connection.is(mark::EXCHANGED) && connection.plain_reply_key().is_of(head))
            .then_some(connection)
    }
}
