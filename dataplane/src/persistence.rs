//! Persistence: a client goes on going to the real server that it went to.
//!
//! A *template* says which server the clients of one address, or of one
//! network, are sent to by one virtual server (as IPVS's connection templates
//! do). It is made with the first connection, renewed with each new one, and lives on for its
//! timeout, and while it has connections.
//!
//! Shared by all workers, because a client's connections arrive at any of
//! them: sets of eight templates, each behind a lock that is held for a few
//! dozen instructions, and only for a new connection or the end of one, never for another packet.
//!
//! Fixed in size. In a full set the template that would end first gives way, one
//! without connections before one with.
//!
//! Templates that are over are found where they stand in the way, so no
//! timer runs. A template may name a server that is gone; who asks looks.
//!
//! Workers' clocks are one, read once a burst, which is more precise than
//! a timeout has to be.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;

use crate::flow::FlowHasher;
use crate::service::{Address, ServerId, VirtualServerId};

/// Templates of a set.
const WAYS: usize = 8;
/// Connections that there is room for with each template.
const CONNECTIONS_A_TEMPLATE: usize = 8;
/// Fewest templates.
const LEAST: usize = 1024;
/// How long a template whose time is over is kept while it has connections,
/// before it is looked at again (`ip_vs_conn_expire`), in milliseconds.
const KEPT_BY_CONNECTIONS: u64 = 60_000;

/// What a virtual server's persistence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// How long a template lives after the last new connection.
    pub timeout: Duration,
    /// Clients are told apart by this many leading bits of their address:
    /// 0..=32 with IPv4, 0..=128 with IPv6.
    pub granularity: u8,
}

impl Persistence {
    /// The key of a client's template.
    #[must_use]
    pub fn key(&self, service: VirtualServerId, client: Address) -> TemplateKey {
        TemplateKey {
            service,
            network: client.network(self.granularity),
        }
    }
}

/// What a template is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    pub service: VirtualServerId,
    /// The client's address without the bits that do not matter.
    pub network: Address,
}

/// A template as a listing shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    pub key: TemplateKey,
    pub server: ServerId,
    /// Connections that it was used for and that are not over.
    pub connections: u32,
    /// When it ends, if it has no connections then.
    expires: u64,
}

impl Template {
    const FREE: Self = Self {
        key: TemplateKey {
            service: VirtualServerId(0),
            network: Address::v4([0; 4]),
        },
        server: ServerId(0),
        connections: 0,
        expires: 0,
    };

    /// Time left if no new connection comes.
    #[must_use]
    pub fn remaining(&self, now: u64) -> Duration {
        Duration::from_millis(self.expires.saturating_sub(now))
    }

    fn is_over(&self, now: u64) -> bool {
        self.expires <= now && self.connections == 0
    }

    /// In order of who gives way first.
    fn rank(&self) -> (bool, u64) {
        (self.connections > 0, self.expires)
    }
}

type Set = [Template; WAYS];

/// What became of a [`Templates::bind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Where the connection goes.
    pub server: ServerId,
    /// Another client's template had to give way.
    pub evicted: bool,
}

/// The templates of all workers.
#[derive(Debug)]
pub struct Templates {
    sets: OnceLock<Vec<Mutex<Set>>>,
    count: usize,
    hasher: FlowHasher,
}

impl Templates {
    /// For a director with room for so many connections; allocates nothing.
    #[must_use]
    pub fn new(max_connections: u32, hasher: FlowHasher) -> Self {
        let wanted = max_connections as usize / CONNECTIONS_A_TEMPLATE;
        Self {
            sets: OnceLock::new(),
            count: wanted.max(LEAST) / WAYS,
            hasher,
        }
    }

    /// Allocates, once, when the first persistent virtual server is taken up:
    /// 6 bytes for each connection that the director has room for.
    pub fn allocate(&self) {
        self.sets.get_or_init(|| {
            (0..self.count)
                .map(|_| Mutex::new([Template::FREE; WAYS]))
                .collect()
        });
    }

    /// Most templates there can be.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.count * WAYS
    }

    /// The server of a client's template.
    #[must_use]
    pub fn server(&self, key: &TemplateKey, now: u64) -> Option<ServerId> {
        let set = self.set(key)?;
        let template = set.iter().find(|template| template.key == *key)?;
        (!template.is_over(now)).then_some(template.server)
    }

    /// A new connection of the client: its template is made or renewed, and
    /// counts it.
    ///
    /// `server` is what was chosen for it, `before` what [`server`](Self::server) had
    /// said: if another worker made a template since, that one stands.
    #[must_use]
    pub fn bind(
        &self,
        key: &TemplateKey,
        server: ServerId,
        before: Option<ServerId>,
        timeout: Duration,
        now: u64,
    ) -> Bound {
        let unkept = Bound {
            server,
            evicted: false,
        };
        let Some(mut set) = self.set(key) else {
            return unkept;
        };
        let known = set.iter().position(|template| template.key == *key);
        let place = known.unwrap_or_else(|| first_to_give_way(&set, now));
        let template = &mut set[place];
        let stands = known.is_some() && !template.is_over(now);
        let evicted = known.is_none() && !template.is_over(now);
        if !stands || before == Some(template.server) && server != template.server {
            // A server that is replaced takes its connections along.
            *template = Template {
                key: *key,
                server,
                ..Template::FREE
            };
        }
        template.connections = template.connections.saturating_add(1);
        let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        template.expires = now.saturating_add(milliseconds);
        Bound {
            server: template.server,
            evicted,
        }
    }

    /// A connection that was bound is over.
    pub fn release(&self, key: &TemplateKey, server: ServerId, now: u64) {
        let Some(mut set) = self.set(key) else {
            return;
        };
        let mut templates = set.iter_mut();
        if let Some(template) =
            templates.find(|template| template.key == *key && template.server == server)
        {
            template.connections = template.connections.saturating_sub(1);
            if template.connections == 0 && template.expires <= now {
                // IPVS looks once a minute whether the last one is gone.
                let over = now - template.expires;
                template.expires += over.next_multiple_of(KEPT_BY_CONNECTIONS);
            }
        }
    }

    /// These templates end, whatever they count. Looks at all of them: not for a worker.
    pub fn forget(&self, is_meant: impl Fn(&Template) -> bool) {
        for set in self.sets.get().into_iter().flatten() {
            let mut set = lock(set);
            let templates = set.iter_mut();
            templates
                .filter(|template| is_meant(template))
                .for_each(|template| *template = Template::FREE);
        }
    }

    /// Every template that is not over, for listings.
    pub fn for_each(&self, now: u64, mut visit: impl FnMut(&Template)) {
        for set in self.sets.get().into_iter().flatten() {
            // A copy, so that a worker never waits for a visitor.
            let copy = *lock(set);
            copy.iter()
                .filter(|template| !template.is_over(now))
                .for_each(&mut visit);
        }
    }

    /// How many templates lead to each server that has some.
    #[must_use]
    pub fn count(&self, now: u64) -> HashMap<ServerId, u64> {
        let mut counts = HashMap::new();
        self.for_each(now, |template| {
            *counts.entry(template.server).or_default() += 1;
        });
        counts
    }

    fn set(&self, key: &TemplateKey) -> Option<MutexGuard<'_, Set>> {
        let sets = self.sets.get()?;
        let hash = usize::try_from(self.hasher.hash_of(key)).unwrap_or(0);
        sets.get(hash.checked_rem(sets.len())?).map(lock)
    }
}

fn lock(set: &Mutex<Set>) -> MutexGuard<'_, Set> {
    // Nothing that holds the lock can panic half way.
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

fn first_to_give_way(set: &Set, now: u64) -> usize {
    let over = set.iter().position(|template| template.is_over(now));
    let first = || (0..).zip(set).min_by_key(|(_, template)| template.rank());
    over.or_else(|| first().map(|(place, _)| place))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
