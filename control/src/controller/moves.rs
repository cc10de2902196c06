//! What the log says of next hops that move from one MAC address to another: the first time at once, and
//! then, while it goes on, once in a while how often. Two hosts that have the same address, or one that
//! says so, move it with every frame of ARP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dataplane::service::MacAddress;

use crate::event::Action;
use crate::in_words::count;

/// Between two lines about the same next hop.
const PERIOD: Duration = Duration::from_secs(10);

/// What was not said yet.
#[derive(Debug)]
struct Silent {
    until: Instant,
    moves: usize,
    /// Where it is now.
    mac: MacAddress,
}

/// Next hops that moved a moment ago, by interface index and address.
#[derive(Debug, Default)]
pub(super) struct Moves(BTreeMap<(u32, IpAddr), Silent>);

impl Moves {
    /// A next hop moved to a MAC address. True if that is to be said now.
    pub(super) fn count(
        &mut self,
        index: u32,
        address: IpAddr,
        mac: MacAddress,
        now: Instant,
    ) -> bool {
        if let Some(silent) = self.0.get_mut(&(index, address)) {
            silent.moves += 1;
            silent.mac = mac;
            return false;
        }
        let silent = Silent {
            until: now + PERIOD,
            moves: 0,
            mac,
        };
        self.0.insert((index, address), silent);
        true
    }

    /// Says what was kept back for long enough; to be called once a second.
    pub(super) fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.0.retain(|(_, address), silent| {
            if now < silent.until {
                return true;
            }
            let moves = std::mem::take(&mut silent.moves);
            silent.until = now + PERIOD;
            if moves > 0 {
                actions.push(Action::Warn(format!(
                    "next hop {address} moved {} more within {} s, and is at {}: \
                     if it goes on, two hosts have this address (`ip neigh`)",
                    count(moves, "time"),
                    PERIOD.as_secs(),
                    silent.mac
                )));
            }
            moves > 0
        });
    }
}
