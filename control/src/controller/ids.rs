//! Ids of virtual and real servers.
//!
//! Invariant: a [`ServerId`] belongs to one (virtual server, real server) pair until no worker has
//! a connection of it and every worker works with a snapshot that does not
//! name it. A server that comes back before that gets its old id, and with
//! it its connections, as IPVS's destination trash does.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use dataplane::counters::ServerTotals;
use dataplane::service::{MAX_SERVERS, MAX_VIRTUAL_SERVERS, ServerId, ServiceKey, VirtualServerId};

use super::ServerKey;
use super::diff::Touched;
use crate::config::Config;

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: ServerId,
    /// Generation at whose time the server was removed; `None` while it is configured.
    removed: Option<u64>,
}

/// Who has which id.
#[derive(Debug, Default)]
pub struct Servers {
    entries: HashMap<ServerKey, Entry>,
    used: BTreeSet<u32>,
    /// What the workers had counted for an id before it was given to its
    /// present server.
    baselines: BTreeMap<u32, ServerTotals>,
    virtual_servers: BTreeMap<ServiceKey, VirtualServerId>,
    /// The configuration changed since ids were last freed.
    removed_any: bool,
}

impl Servers {
    /// Of the virtual servers in `touched`: gives an id to every server of `config` and marks the others removed.
    pub(super) fn keep_only(&mut self, config: &Config, touched: &Touched) {
        let services = config.virtual_servers.iter();
        let servers = services
            .filter(|service| touched.contains(&service.key))
            .flat_map(|service| {
                let servers = service.all_servers();
                servers.map(|server| (service.key, server.address))
            });
        let configured: BTreeSet<ServerKey> = servers.collect();
        for (key, entry) in &mut self.entries {
            if !touched.contains(&key.0) {
                continue;
            }
            if configured.contains(key) {
                entry.removed = None;
            } else if entry.removed.is_none() {
                // The snapshot that is published next is the first without it.
                entry.removed = Some(u64::MAX);
                self.removed_any = true;
            }
        }
        let mut next = 0;
        for key in configured {
            if self.entries.contains_key(&key) {
                continue;
            }
            if let Some(id) = lowest_free(&self.used, &mut next, MAX_SERVERS) {
                self.used.insert(id);
                self.entries.insert(
                    key,
                    Entry {
                        id: ServerId(id),
                        removed: None,
                    },
                );
            }
        }
        let keys: BTreeSet<ServiceKey> = config
            .virtual_servers
            .iter()
            .map(|service| service.key)
            .collect();
        // What workers count for it has to end, too: with the last connection of its servers.
        let has_servers: BTreeSet<ServiceKey> = self.entries.keys().map(|(key, _)| *key).collect();
        self.virtual_servers
            .retain(|key, _| keys.contains(key) || has_servers.contains(key));
        let mut used: BTreeSet<u32> = self.virtual_servers.values().map(|id| id.0).collect();
        next = 0;
        for key in keys {
            if self.virtual_servers.contains_key(&key) {
                continue;
            }
            if let Some(id) = lowest_free(&used, &mut next, MAX_VIRTUAL_SERVERS) {
                used.insert(id);
                self.virtual_servers.insert(key, VirtualServerId(id));
            }
        }
    }

    /// Frees ids of removed servers without connections, and says which. `oldest` is the
    /// oldest generation any worker works with, `newest` the last published.
    pub(super) fn free(
        &mut self,
        oldest: u64,
        newest: u64,
        totals: impl Fn(ServerId) -> ServerTotals,
    ) -> HashSet<ServerId> {
        let mut freed = HashSet::new();
        if !self.removed_any {
            return freed;
        }
        let mut waiting = false;
        self.entries.retain(|_, entry| {
            let Some(removed) = &mut entry.removed else {
                return true;
            };
            // Seen for the first time since the removal: the snapshot published
            // since then does not name it, nor will any later one.
            *removed = (*removed).min(newest);
            let totals = totals(entry.id);
            if oldest >= *removed && totals.active == 0 && totals.inactive == 0 {
                self.used.remove(&entry.id.0);
                self.baselines.insert(entry.id.0, totals);
                freed.insert(entry.id);
                return false;
            }
            waiting = true;
            true
        });
        self.removed_any = waiting;
        freed
    }

    /// Those that are not configured any more, and still have their ids.
    pub(super) fn removed(&self) -> impl Iterator<Item = ServerKey> {
        let removed = self.entries.iter();
        removed.filter_map(|(key, entry)| entry.removed.map(|_| *key))
    }

    #[must_use]
    pub fn id(&self, service: ServiceKey, server: SocketAddr) -> Option<ServerId> {
        self.entries.get(&(service, server)).map(|entry| entry.id)
    }

    #[must_use]
    pub fn virtual_server_id(&self, service: ServiceKey) -> Option<VirtualServerId> {
        self.virtual_servers.get(&service).copied()
    }

    /// The server that has an id, configured or not.
    #[must_use]
    pub fn by_id(&self) -> BTreeMap<ServerId, ServerKey> {
        self.entries
            .iter()
            .map(|(key, entry)| (entry.id, *key))
            .collect()
    }

    /// What was counted for the id's present server, given all that was ever
    /// counted for the id.
    #[must_use]
    pub fn since_baseline(&self, id: ServerId, totals: ServerTotals) -> ServerTotals {
        let before = self.baselines.get(&id.0).copied().unwrap_or_default();
        ServerTotals {
            active: totals.active,
            inactive: totals.inactive,
            connections: totals.connections.saturating_sub(before.connections),
            packets: totals.packets.saturating_sub(before.packets),
            bytes: totals.bytes.saturating_sub(before.bytes),
            reply_packets: totals.reply_packets.saturating_sub(before.reply_packets),
            reply_bytes: totals.reply_bytes.saturating_sub(before.reply_bytes),
            unanswered: totals.unanswered.saturating_sub(before.unanswered),
            answered: totals.answered.saturating_sub(before.answered),
        }
    }
}

/// The lowest free id from `next` on, which then is where to go on.
fn lowest_free(used: &BTreeSet<u32>, next: &mut u32, limit: usize) -> Option<u32> {
    while used.contains(next) {
        *next += 1;
    }
    ((*next as usize) < limit).then_some(*next)
}
