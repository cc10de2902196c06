//! `twos`, power of two choices: two servers drawn by their weights, and of
//! these the one with less connections for its weight (`ip_vs_twos.c`; M. Mitzenmacher,
//! "The Power of Two Choices in Randomized Load Balancing").

use super::candidates::{Candidates, is_less, overhead};
use super::memory::Random;
use super::{Candidate, Servers};
use crate::service::ServerId;

#[derive(Clone, Debug)]
pub struct TwoChoices {
    candidates: Candidates,
}

impl TwoChoices {
    pub(super) fn new(candidates: impl Iterator<Item = Candidate>) -> Self {
        Self {
            candidates: Candidates::new(candidates),
        }
    }

    pub(super) fn schedule(&self, random: &mut Random, servers: &impl Servers) -> Option<ServerId> {
        let open = self.candidates.open(servers);
        let total = open.clone().map(|candidate| u64::from(candidate.weight));
        let total: u64 = total.sum();
        let first = draw(open.clone(), random.below(total))?;
        let second = draw(open, random.below(total))?;
        let cost = |candidate: Candidate| overhead(servers.load(candidate.server));
        let second_is_less = is_less(cost(second), second.weight, cost(first), first.weight);
        Some(if second_is_less { second } else { first }.server)
    }
}

/// The candidate whose part of the total weight `number` falls into.
fn draw(candidates: impl Iterator<Item = Candidate>, mut number: u64) -> Option<Candidate> {
    for candidate in candidates {
        match number.checked_sub(u64::from(candidate.weight)) {
            Some(rest) => number = rest,
            None => return Some(candidate),
        }
    }
    None
}
