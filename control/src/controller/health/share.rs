//! What real servers add to their virtual server.

use std::ops::{Add, Sub};

/// What one real server adds to the sums of its virtual server, or all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// Servers that are up.
    pub(super) up: usize,
    /// Of those, servers that get new connections.
    pub(super) taking: usize,
    /// Their weight.
    pub(super) weight: u64,
}

impl Add for Share {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            up: self.up + other.up,
            taking: self.taking + other.taking,
            weight: self.weight + other.weight,
        }
    }
}

impl Sub for Share {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            up: self.up - other.up,
            taking: self.taking - other.taking,
            weight: self.weight - other.weight,
        }
    }
}
