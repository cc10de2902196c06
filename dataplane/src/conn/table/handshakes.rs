//! What the table keeps for the SYN proxy, beside its entries.

use super::connection::mark;
use super::{ConnectionTable, EntryIndex, Handshake};

impl ConnectionTable {
    /// Makes room for what the SYN proxy keeps of connections, 24 bytes each; nothing the second time.
    pub fn remember_handshakes(&mut self) {
        self.handshakes
            .resize(self.entries.len(), Handshake::default());
    }

    /// The connection is one of the SYN proxy from now on.
    pub fn set_handshake(&mut self, entry: EntryIndex, handshake: Handshake) {
        if let Some(place) = self.handshakes.get_mut(entry.0 as usize) {
            *place = handshake;
            let connection = &mut self.entries[entry.0 as usize];
            connection.set(mark::PROXIED, true);
            connection.find_straight();
        }
    }

    /// What the SYN proxy knows of a connection; `None` if it is not one of its.
    #[must_use]
    pub fn handshake(&self, entry: EntryIndex) -> Option<Handshake> {
        let proxied = self.entries[entry.0 as usize].is(mark::PROXIED);
        let handshake = self.handshakes.get(entry.0 as usize);
        handshake.copied().filter(|_| proxied)
    }
}
