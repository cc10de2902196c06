//! `mh`: Maglev hash of the source address (`ip_vs_mh.c`; D. Eisenbud and
//! others, "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI
//! 2016, §3.4), with IPVS's hash functions and table.
//!
//! Each server walks the table in an order of its own, which its address and
//! port decide, and takes the next free bucket in its turn, or as many in a
//! row as its weight. So a server that comes or goes changes the server of few
//! clients besides its own, and two directors with the same servers agree.
//!
//! A server whose weight becomes 0 keeps its buckets, by the weight that it
//! had before: its clients are refused, or served by another one with `mh-fallback`, and nobody
//! else's server changes, now and when it returns. With `mh-port` the client's port is hashed, too.

use std::sync::Arc;

use super::hash::{fold, siphash_1_3};
use super::{Candidate, Request, Servers};
use crate::service::{Address, HashFlags, RealServer, ServerId};

/// Sizes of the table: primes, so that every step visits every bucket.
/// The first one is IPVS's default (`CONFIG_IP_VS_MH_TAB_INDEX` 12).
const SIZES: [u32; 6] = [4093, 8191, 16_381, 32_749, 65_521, 131_071];
/// A larger table is taken when a server would have fewer buckets on average.
const BUCKETS_A_SERVER: usize = 20;
/// Weights are scaled down until the largest, after division by their
/// greatest common divisor, is below 2 to this power (`IP_VS_MH_TAB_BITS`).
const WEIGHT_BITS: u32 = 6;
/// Keys of the two hash functions in `ip_vs_mh.c`.
const KEYS: [u64; 2] = [2_654_435_761, 2_654_446_892];

#[derive(Clone, Debug)]
pub struct MaglevHash {
    /// As they are now.
    candidates: Vec<Candidate>,
    /// Shared with the scheduler before if it did not change.
    table: Arc<Table>,
    flags: HashFlags,
}

/// The buckets and what they were made of.
#[derive(Debug)]
struct Table {
    /// In the order of `candidates`.
    shares: Vec<Share>,
    /// Indices of `shares`; empty if no server ever had a weight.
    buckets: Vec<u16>,
}

/// What decides a server's buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    server: ServerId,
    address: Address,
    port: u16,
    /// The last one that was not 0; 0 if there never was one.
    weight: u32,
}

impl MaglevHash {
    /// `before` is the scheduler that this one replaces.
    pub(super) fn new<'s>(
        flags: HashFlags,
        servers: impl Iterator<Item = &'s RealServer>,
        before: Option<&Self>,
    ) -> Self {
        let known = before.map_or(&[][..], |before| &before.table.shares);
        let mut candidates = Vec::new();
        let mut shares = Vec::new();
        for server in servers {
            candidates.push(Candidate {
                server: server.id,
                weight: server.weight,
            });
            let last = || known.iter().find(|share| share.server == server.id);
            shares.push(Share {
                server: server.id,
                address: server.address,
                port: server.port,
                weight: match server.weight {
                    0 => last().map_or(0, |share| share.weight),
                    weight => weight,
                },
            });
        }
        let table = match before {
            Some(before) if before.table.shares == shares => Arc::clone(&before.table),
            Some(_) | None => Arc::new(Table::new(shares)),
        };
        Self {
            candidates,
            table,
            flags,
        }
    }

    pub(super) fn schedule(&self, request: &Request, servers: &impl Servers) -> Option<ServerId> {
        let port = if self.flags.port {
            request.client_port
        } else {
            0
        };
        let value = fold(request.client).wrapping_add(u32::from(port));
        let chosen = self.bucket(value, servers);
        if chosen.is_some() || !self.flags.fallback || self.table.buckets.is_empty() {
            return chosen;
        }
        let size = self.table.size();
        let first = siphash_1_3(value, KEYS[0]) % size;
        let offsets = (0..size).map(|offset| (offset + first) % size);
        offsets
            .map(|offset| value.wrapping_add(offset))
            .find_map(|value| self.bucket(value, servers))
    }

    fn bucket(&self, value: u32, servers: &impl Servers) -> Option<ServerId> {
        let bucket = siphash_1_3(value, KEYS[0]).checked_rem(self.table.size())?;
        let place = *self.table.buckets.get(bucket as usize)?;
        let candidate = self.candidates.get(usize::from(place))?;
        let takes = candidate.weight > 0 && !servers.is_overloaded(candidate.server);
        takes.then_some(candidate.server)
    }
}

impl Table {
    fn new(shares: Vec<Share>) -> Self {
        let buckets = fill(&shares);
        Self { shares, buckets }
    }

    fn size(&self) -> u32 {
        u32::try_from(self.buckets.len()).unwrap_or(u32::MAX)
    }
}

/// A server's walk through the table while it is filled.
struct Walk {
    /// Index of the server.
    place: u16,
    position: u32,
    step: u32,
    /// Buckets that it takes in a row.
    turns: u32,
}

impl Walk {
    fn new(place: u16, share: &Share, size: u32, turns: u32) -> Self {
        let value = fold(share.address).wrapping_add(u32::from(share.port));
        Self {
            place,
            position: siphash_1_3(value, KEYS[0]) % size,
            step: siphash_1_3(value, KEYS[1]) % (size - 1) + 1,
            turns,
        }
    }
}

/// A bucket that nobody has: more servers than that do not exist.
const FREE: u16 = u16::MAX;

/// Whose each bucket is.
fn fill(shares: &[Share]) -> Vec<u16> {
    let weights = shares.iter().map(|share| share.weight);
    let divisor = weights.clone().fold(0, super::greatest_common_divisor);
    if divisor == 0 {
        return Vec::new();
    }
    let heaviest = weights.max().unwrap_or(0) / divisor;
    let shift = (u32::BITS - heaviest.leading_zeros()).saturating_sub(WEIGHT_BITS);
    let wanted = shares.len() * BUCKETS_A_SERVER;
    let size = SIZES.into_iter().find(|size| *size as usize >= wanted);
    let size = size.unwrap_or(SIZES[SIZES.len() - 1]);
    // Newest first, as IPVS lists them.
    let mut walks: Vec<_> = (0..FREE)
        .zip(shares)
        .filter(|(_, share)| share.weight > 0)
        .map(|(place, share)| {
            let turns = ((share.weight / divisor) >> shift).max(1);
            Walk::new(place, share, size, turns)
        })
        .collect();
    walks.reverse();
    let mut buckets = vec![FREE; size as usize];
    let mut left = size;
    loop {
        for walk in &mut walks {
            for _ in 0..walk.turns {
                while buckets[walk.position as usize] != FREE {
                    walk.position = (walk.position + walk.step) % size;
                }
                buckets[walk.position as usize] = walk.place;
                left -= 1;
                if left == 0 {
                    return buckets;
                }
            }
        }
    }
}

#[cfg(test)]
impl MaglevHash {
    /// Tells one table from another.
    pub(super) fn table_address(&self) -> *const u16 {
        self.table.buckets.as_ptr()
    }
}
