//! What a worker remembers between two choices: positions, random numbers,
//! and which server a destination went to.

use super::locality::Localities;
use crate::flow::FlowHasher;
use crate::service::{MAX_VIRTUAL_SERVERS, VirtualServerId};

/// The memory of one virtual server's scheduler. Starts at zero and stays
/// valid, if not fair for a moment, when the servers change.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SchedulerState {
    /// Place of the last choice.
    pub(super) position: u32,
    /// `wrr` only: the weight that a server must have in this round.
    pub(super) round_weight: u32,
}

/// The memory of all schedulers of a worker.
#[derive(Debug)]
pub struct Memory {
    /// By `VirtualServerId`.
    states: Vec<SchedulerState>,
    pub(super) localities: Localities,
    pub(super) random: Random,
}

impl Memory {
    /// That of worker number `worker`. Each starts at a place of its own, so
    /// that several workers do not all send their first connection to the same server.
    #[must_use]
    pub fn new(worker: u32, hasher: &FlowHasher) -> Self {
        let state = SchedulerState {
            position: worker,
            round_weight: 0,
        };
        Self {
            states: vec![state; MAX_VIRTUAL_SERVERS],
            localities: Localities::new(hasher.clone()),
            random: Random::new(hasher.hash_of(&worker)),
        }
    }

    /// Makes room for where destinations went, if a scheduler of a new
    /// snapshot [remembers](super::Scheduler::remembers_destinations) that. Allocates, once.
    pub fn remember_destinations(&mut self) {
        self.localities.allocate();
    }

    pub(crate) fn state(&mut self, service: VirtualServerId) -> Option<&mut SchedulerState> {
        self.states.get_mut(service.0 as usize)
    }
}

/// Random numbers for sampling, not for secrets (xorshift64*).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// A number of 0 to `limit` − 1; 0 if the limit is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        // Limits are sums of weights: with few servers far below 2^32, with
        // many the multiplication needs the room of 128 bits.
        let scaled = (u128::from(number) * u128::from(limit)) >> 32;
        u64::try_from(scaled).unwrap_or(0)
    }
}
