//! Giving up what the configuration does not name any more, once no connection needs it.

use std::collections::HashSet;
use std::sync::mpsc::{self, TryRecvError};

use dataplane::service::Address;
use dataplane::worker::Request;

use super::Appliance;

/// Workers' answers, for which nobody waits: the next tick looks at them.
#[derive(Debug)]
pub(super) struct Used {
    /// What of the controller's they are about.
    since: u64,
    answers: Vec<mpsc::Receiver<Vec<Address>>>,
}

impl Appliance {
    /// Once a second. `oldest` is the oldest generation any worker works with.
    pub(super) async fn free_what_is_unused(&mut self, oldest: u64) {
        let workers = &self.workers;
        let actions = self.controller.free_ids(oldest, |id| workers.totals(id));
        self.carry_out(actions).await;
        let Some(since) = self.controller.leaving_since() else {
            self.used = None;
            return;
        };
        // Answers from before may miss connections that began since.
        let used = self.used.take().filter(|used| used.since == since);
        if let Some(used) = used {
            if let Some(used) = used.all() {
                let actions = self.controller.free_local_addresses(&used);
                self.carry_out(actions).await;
            }
        } else if oldest >= since {
            let requests = self.workers.requests().into_iter();
            let answers = requests.map(|worker| {
                let (reply, answer) = mpsc::channel();
                // The tick finds one that has ended.
                drop(worker.send(Request::LocalAddresses(reply)));
                answer
            });
            self.used = Some(Used {
                since,
                answers: answers.collect(),
            });
        }
    }
}

impl Used {
    /// What all of them use; `None` if one has not answered.
    fn all(self) -> Option<HashSet<Address>> {
        let answers = self.answers.iter().map(mpsc::Receiver::try_recv);
        let answers: Result<Vec<_>, TryRecvError> = answers.collect();
        Some(answers.ok()?.into_iter().flatten().collect())
    }
}
