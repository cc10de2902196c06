//! The third step of a lookup, for packets that may go straight on.

use super::{Candidate, Connection, REPLY};
use crate::xsk::umem::HEAD;

/// The connections of a table, for packets that may go straight on.
#[derive(Debug)]
pub(crate) struct StraightConnections<'a>(pub(super) &'a mut [Connection]);

impl StraightConnections<'_> {
    /// The connection of the plain request that begins like this, if the candidate is the one. How it goes on, the
    /// connection says ([`Connection::sends_to`]).
    #[inline(always)]
    #[must_use]
    pub(crate) fn request(
        &mut self,
        candidate: Candidate,
        head: &[u8; HEAD],
    ) -> Option<&mut Connection> {
        // No candidate, and that of a reply, are beyond the end.
        let connection = self.0.get_mut(candidate.0 as usize)?;
        connection.plain_key().is_of(head).then_some(connection)
    }

    /// The connection of the plain reply, if it is translated.
    #[inline(always)]
    #[must_use]
    pub(crate) fn reply(
        &mut self,
        candidate: Candidate,
        head: &[u8; HEAD],
    ) -> Option<&mut Connection> {
        // The candidate of a request is beyond the end then.
        let connection = self.0.get_mut((candidate.0 ^ REPLY) as usize)?;
        (connection.is_shared() && connection.plain_reply_key().is_of(head)).then_some(connection)
    }
}
