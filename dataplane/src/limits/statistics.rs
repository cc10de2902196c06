//! What a worker counts for each virtual server. Written by that worker only, so that plain loads
//! and stores are enough.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::counters::DropReason;

/// Which limit refused new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RefusedBy {
    Connections,
    Rate,
    SourceConnections,
    SourceRate,
}

impl RefusedBy {
    /// Every limit, in order of its value.
    pub const ALL: [Self; 4] = [
        Self::Connections,
        Self::Rate,
        Self::SourceConnections,
        Self::SourceRate,
    ];

    /// Why the packet that asked for the connection is dropped.
    #[must_use]
    pub const fn reason(self) -> DropReason {
        match self {
            Self::Connections => DropReason::MaxConnections,
            Self::Rate => DropReason::ConnectionRate,
            Self::SourceConnections => DropReason::SourceMaxConnections,
            Self::SourceRate => DropReason::SourceConnectionRate,
        }
    }
}

/// One virtual server on one worker.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ServiceStatistics {
    /// Connections in the table (gauge).
    connections: AtomicU32,
    /// Of these, half-open ones (gauge).
    half_open: AtomicU32,
    /// There are so many of these that the SYN proxy answers (gauge).
    under_attack: AtomicBool,
    /// Indexed by [`RefusedBy`].
    refused: [AtomicU64; RefusedBy::ALL.len()],
}

/// A copy of a [`ServiceStatistics`], or the sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTotals {
    pub connections: u32,
    pub half_open: u32,
    /// On some worker.
    pub under_attack: bool,
    /// Indexed by [`RefusedBy`].
    pub refused: [u64; RefusedBy::ALL.len()],
}

impl AddAssign for ServiceTotals {
    fn add_assign(&mut self, other: Self) {
        // Whole, so that a new counter is not forgotten.
        let Self {
            connections,
            half_open,
            under_attack,
            refused,
        } = other;
        // Read at different times, so that their sum may be anything for a moment.
        self.connections = self.connections.saturating_add(connections);
        self.half_open = self.half_open.saturating_add(half_open);
        self.under_attack |= under_attack;
        for (sum, refused) in self.refused.iter_mut().zip(refused) {
            *sum += refused;
        }
    }
}

impl ServiceStatistics {
    /// A copy.
    #[must_use]
    pub fn totals(&self) -> ServiceTotals {
        ServiceTotals {
            connections: self.connections.load(Ordering::Relaxed),
            half_open: self.half_open.load(Ordering::Relaxed),
            under_attack: self.under_attack.load(Ordering::Relaxed),
            refused: self
                .refused
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed)),
        }
    }

    /// Moves the gauges when a connection begins (`from: None`), changes between half open
    /// (`Some(true)`) and not, or ends (`to: None`).
    pub(crate) fn shift(&self, from: Option<bool>, to: Option<bool>) {
        let moved = |gauge: &AtomicU32, from: bool, to: bool| {
            let change = u32::from(to).wrapping_sub(from.into());
            let value = gauge.load(Ordering::Relaxed).wrapping_add(change);
            gauge.store(value, Ordering::Relaxed);
        };
        moved(&self.connections, from.is_some(), to.is_some());
        moved(&self.half_open, from == Some(true), to == Some(true));
    }

    /// So many connections begin, all of them half open or none.
    pub(crate) fn begin(&self, count: u32, half_open: bool) {
        let grow = |gauge: &AtomicU32, by: u32| {
            gauge.store(
                gauge.load(Ordering::Relaxed).wrapping_add(by),
                Ordering::Relaxed,
            );
        };
        grow(&self.connections, count);
        grow(&self.half_open, if half_open { count } else { 0 });
    }

    /// Whether the SYN proxy answers because of an attack.
    pub(crate) fn set_under_attack(&self, under_attack: bool) {
        self.under_attack.store(under_attack, Ordering::Relaxed);
    }

    /// Counts a new connection that was refused.
    pub(crate) fn count_refused(&self, by: RefusedBy) {
        let counter = &self.refused[by as usize];
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_follow_a_connection() {
        let service = ServiceStatistics::default();
        let gauges = || (service.totals().connections, service.totals().half_open);
        service.shift(None, Some(true));
        service.shift(None, Some(false));
        assert_eq!(gauges(), (2, 1));
        service.shift(Some(true), Some(false));
        assert_eq!(gauges(), (2, 0));
        service.shift(Some(false), None);
        service.shift(Some(false), None);
        assert_eq!(gauges(), (0, 0));
        service.begin(3, true);
        service.begin(2, false);
        assert_eq!(gauges(), (5, 3));
    }

    #[test]
    fn sums_have_everything() {
        let service = ServiceStatistics::default();
        service.shift(None, Some(true));
        service.set_under_attack(true);
        for (number, by) in RefusedBy::ALL.into_iter().enumerate() {
            assert_eq!(by as usize, number);
            service.count_refused(by);
        }
        let mut sum = ServiceTotals::default();
        sum += service.totals();
        assert_eq!(sum, service.totals());
        sum += service.totals();
        assert_eq!(
            (sum.connections, sum.half_open, sum.refused),
            (2, 2, [2; 4])
        );
    }
}
