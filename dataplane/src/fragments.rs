//! Which connection a fragment belongs to.
//!
//! Only the first fragment of a datagram has ports. What was decided for it is kept here for the
//! others. Nothing is put together: each fragment is forwarded by itself, and the real server
//! reassembles.
//!
//! The size is fixed, so that an attack costs a bounded amount of memory and time: first fragments of
//! datagrams that never end push out the oldest decision of their set.
//!
//! Not done here: waiting for a first fragment that comes late is the worker's; overlapping fragments (RFC 5722) are the real server's to refuse, and fragments of
//! one datagram that arrive at different workers do not meet.

use std::hash::{BuildHasher, RandomState};

use crate::service::Address;
use crate::wire::{Kind, Parsed, ipv4, ipv6};

/// Decisions that share a place; the oldest of them goes when one too many comes.
const WAYS: usize = 8;

/// What the fragments of one datagram have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FragmentKey {
    source: Address,
    destination: Address,
    identification: u32,
    /// IP protocol number; 0 for IPv6, where it does not count: headers between the fragment header
    /// and the transport's are in the first fragment only.
    protocol: u8,
}

impl FragmentKey {
    /// Of a frame that was parsed as a fragment; `None` for any other.
    #[must_use]
    pub(crate) fn new(frame: &[u8], parsed: &Parsed) -> Option<Self> {
        if !matches!(parsed.kind, Kind::FirstFragment | Kind::LaterFragment) {
            return None;
        }
        let packet = frame.get(usize::from(parsed.l3_offset)..)?;
        let (identification, protocol) = if parsed.destination.is_v4() {
            let ip = ipv4::Packet::new_header(packet).ok()?;
            (u32::from(ip.identification()), parsed.protocol)
        } else {
            (ipv6::fragment_header(packet)?.identification, 0)
        };
        Some(Self {
            source: parsed.source,
            destination: parsed.destination,
            identification,
            protocol,
        })
    }
}

/// True for the last fragment of a datagram, by its place in that: `frame`, with the IP header at `l3_offset`, is a
/// fragment.
#[must_use]
pub(crate) fn is_last(frame: &[u8], l3_offset: u16, is_v4: bool) -> bool {
    let packet = frame.get(usize::from(l3_offset)..).unwrap_or_default();
    match is_v4 {
        true => ipv4::Packet::new_header(packet).is_ok_and(|ip| !ip.more_fragments()),
        false => ipv6::fragment_header(packet).is_some_and(|header| !header.more),
    }
}

/// Sizes and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentOptions {
    /// Most datagrams whose decision is kept; rounded up to a power of two, at least 8.
    pub datagrams: usize,
    /// How long a decision is kept, in milliseconds from the first fragment on.
    pub timeout: u64,
    /// The same from the last fragment on, which others may have fallen behind.
    pub linger: u64,
}

impl Default for FragmentOptions {
    /// 30 seconds as Linux reassembles (`ipfrag_time`); a second is much longer than a network reorders packets.
    fn default() -> Self {
        Self {
            datagrams: 4096,
            timeout: 30_000,
            linger: 1000,
        }
    }
}

/// The decisions of one worker, `T`.
#[derive(Debug)]
pub(crate) struct FragmentTable<T> {
    /// Sets of [`WAYS`].
    decisions: Box<[Option<Decision<T>>]>,
    options: FragmentOptions,
    /// Keyed at random, so that nobody can aim at one set.
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Decision<T> {
    key: FragmentKey,
    value: T,
    deadline: u64,
    /// The datagram's last fragment was there.
    passed: bool,
}

impl<T: Copy> FragmentTable<T> {
    /// An empty table. All memory is allocated here.
    #[must_use]
    pub(crate) fn new(options: FragmentOptions) -> Self {
        let slots = options.datagrams.max(WAYS).next_power_of_two();
        Self {
            decisions: vec![None; slots].into_boxed_slice(),
            options,
            hasher: RandomState::new(),
        }
    }

    /// Notes what was decided for a first fragment. One that comes twice is decided anew. True if that pushed
    /// out the decision of another datagram, before its time and before its last fragment.
    pub(crate) fn insert(&mut self, key: FragmentKey, value: T, now: u64) -> bool {
        let deadline = now.saturating_add(self.options.timeout);
        let set = Self::set(&mut self.decisions, &self.hasher, &key);
        // The same datagram's slot, else one that is free or over, else one whose last fragment was there, else the oldest.
        let rank = |slot: &Option<Decision<T>>| match slot {
            Some(old) if old.key == key => (0, 0),
            Some(old) if old.deadline > now => (if old.passed { 2 } else { 3 }, old.deadline),
            Some(_) | None => (1, 0),
        };
        let Some(slot) = set.iter_mut().min_by_key(|slot| rank(slot)) else {
            return false;
        };
        let evicts = rank(slot) > (2, u64::MAX);
        *slot = Some(Decision {
            key,
            value,
            deadline,
            passed: false,
        });
        evicts
    }

    /// The datagram's last fragment went where its first one did. Those that it overtook may still come.
    pub(crate) fn pass(&mut self, key: &FragmentKey, now: u64) {
        let linger = now.saturating_add(self.options.linger);
        let set = Self::set(&mut self.decisions, &self.hasher, key);
        if let Some(decision) = set.iter_mut().flatten().find(|slot| slot.key == *key) {
            decision.deadline = decision.deadline.min(linger);
            decision.passed = true;
        }
    }

    /// What was decided for the datagram of a later fragment.
    #[must_use]
    pub(crate) fn get(&mut self, key: &FragmentKey, now: u64) -> Option<T> {
        let set = Self::set(&mut self.decisions, &self.hasher, key);
        set.iter()
            .flatten()
            .find(|decision| decision.key == *key && decision.deadline > now)
            .map(|decision| decision.value)
    }

    fn set<'a>(
        decisions: &'a mut [Option<Decision<T>>],
        hasher: &RandomState,
        key: &FragmentKey,
    ) -> &'a mut [Option<Decision<T>>] {
        let (sets, _) = decisions.as_chunks_mut::<WAYS>();
        let hash = hasher.hash_one(key);
        // The number of sets is a power of two, at least one, and fits in memory.
        let at = usize::try_from(hash & (sets.len() as u64 - 1)).unwrap_or(0);
        sets.get_mut(at).map_or(&mut [], <[_; WAYS]>::as_mut_slice)
    }
}

#[cfg(test)]
mod tests;
