//! A steady stream of requests to every virtual server in turn.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Client, Numbered, Service, target};

/// Time between two requests to one virtual server. Requests do not wait for
/// each other: a dead real server slows nothing down.
const PERIOD: Duration = Duration::from_millis(20);

/// The stream; it stops when this is dropped.
#[derive(Debug)]
pub(super) struct Load<'a> {
    client: &'a Client,
    services: &'a [Service],
    next: usize,
    ticks: Interval,
    under_way: JoinSet<anyhow::Result<Numbered>>,
}

impl<'a> Load<'a> {
    pub(super) fn start(client: &'a Client, services: &'a [Service]) -> Self {
        let number = u32::try_from(services.len()).unwrap_or(u32::MAX).max(1);
        let mut ticks = interval(PERIOD / number);
        // Never a burst after a pause: the numbers are to be per second.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            client,
            services,
            next: 0,
            ticks,
            under_way: JoinSet::new(),
        }
    }

    /// Sends requests until one of them is answered or a tick has gone by,
    /// which is `None`.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Numbered>> {
        tokio::select! {
            Some(answer) = self.under_way.join_next() => Ok(Some(answer??)),
            _ = self.ticks.tick() => {
                let number = self.next % self.services.len();
                self.next = number + 1;
                let request = self.client.request(target(&self.services[number]));
                self.under_way.spawn(async move { Ok((number, request.await?)) });
                Ok(None)
            }
        }
    }
}
