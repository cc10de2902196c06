//! The last steps: the master director dies, and returns. Of more than two
//! each but one dies, one after the other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{AFTERMATH, REDRAW, Script, table};
use crate::lab::client::{Answer, PATIENCE};
use crate::lab::directors::addresses;
use crate::lab::plan::Failover;
use crate::lab::script::load::Load;
use crate::lab::tally::failure_text;

/// What clients notice of a change of master.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    /// From the change to the first answer.
    first_answer: Option<Duration>,
    requests: u32,
    failed: BTreeMap<String, u32>,
    /// When the last request that failed was made.
    last_failure: Option<Instant>,
    /// The longest that an answered request took.
    slowest: Duration,
}

impl Noticed {
    /// Counts an answer, which came `now`, if it was asked for after the change.
    fn record(&mut self, since: Instant, answer: &Answer, now: Instant) {
        if answer.started < since {
            return;
        }
        self.requests += 1;
        match &answer.outcome {
            Ok(_) => {
                let after = now.saturating_duration_since(since);
                self.first_answer.get_or_insert(after);
                let took = now.saturating_duration_since(answer.started);
                self.slowest = self.slowest.max(took);
            }
            Err(reason) => {
                *self.failed.entry(reason.clone()).or_default() += 1;
                self.last_failure = self.last_failure.max(Some(answer.started));
            }
        }
    }

    /// True if a change of master that was over at `end` is no excuse for a
    /// failure. What is under way during it may fail: the other director does
    /// not know the connection.
    pub(super) fn failed_after(&self, end: Instant) -> bool {
        self.last_failure.is_some_and(|last| last > end)
    }

    pub(super) fn line(&self) -> String {
        format!(
            "   failed: {} of {} requests; the slowest answer took {} ms",
            failure_text(&self.failed),
            self.requests,
            self.slowest.as_millis(),
        )
    }
}

impl Script<'_> {
    /// Before any traffic: somebody has to be master.
    pub(super) async fn wait_for_master(&mut self) -> anyhow::Result<()> {
        let Some(failover) = self.plan.failover else {
            return Ok(());
        };
        let patience = failover.out_within;
        let directors = self.directors;
        let master = directors.wait_for_master(self.directory, patience).await?;
        if let Some(master) = master {
            let address = addresses(&self.plan.directors[master]);
            self.screen.say(&format!("master is {address}"))?;
        } else {
            let seconds = patience.as_secs_f64();
            self.screen.say(&format!(
                "no director is master of every vrrp_instance after {seconds:.1} s"
            ))?;
            self.judge(false);
        }
        Ok(())
    }

    /// Steps 4 and 5, and more of them with more directors.
    pub(super) async fn masters(&mut self) -> anyhow::Result<()> {
        let Some(failover) = self.plan.failover else {
            return Ok(());
        };
        let mut load = Load::start(self.client, &self.plan.services);
        let mut dead = Vec::new();
        let mut step = 4;
        while dead.len() + 1 < self.plan.directors.len() {
            let Some(master) = self.directors.master(self.directory).await? else {
                return Ok(());
            };
            self.master_dies(step, master, failover, &mut load).await?;
            dead.push(master);
            step += 1;
        }
        while let Some(director) = dead.pop() {
            self.master_returns(step, director, failover, &mut load)
                .await?;
            step += 1;
        }
        self.watched(step, &mut load).await
    }

    async fn master_dies(
        &mut self,
        step: u32,
        master: usize,
        failover: Failover,
        load: &mut Load<'_>,
    ) -> anyhow::Result<()> {
        let director = &self.plan.directors[master];
        self.screen.say(&format!(
            "\n{step}. The master director {} dies: its cable is pulled and it is killed",
            addresses(director)
        ))?;
        // The cable first: a dead machine's kernel refuses no connections.
        self.network.set_cables(self.plan, &director.name, false)?;
        let since = Instant::now();
        self.directors.kill(master);

        let mut noticed = Noticed::default();
        // Whatever was asked for before the takeover is known by then.
        let end = since + failover.out_within + PATIENCE;
        self.watch(load, since, &mut noticed, end).await?;
        let allowed = failover.out_within.as_secs_f64();
        let is_ok = match noticed.first_answer {
            Some(took) => {
                self.screen.say(&format!(
                    "   another took over: the first answer came after {:.2} s; \
                     it may take {allowed:.2} s",
                    took.as_secs_f64()
                ))?;
                took <= failover.out_within && !noticed.failed_after(since + failover.out_within)
            }
            None => {
                self.screen.say(&format!(
                    "   no answer any more; another may take {allowed:.2} s"
                ))?;
                false
            }
        };
        self.screen.say(&noticed.line())?;
        self.verdict(is_ok)
    }

    async fn master_returns(
        &mut self,
        step: u32,
        master: usize,
        failover: Failover,
        load: &mut Load<'_>,
    ) -> anyhow::Result<()> {
        let director = &self.plan.directors[master];
        self.screen.say(&format!(
            "\n{step}. The director {} returns",
            addresses(director)
        ))?;
        self.network.reboot(self.plan, &director.name)?;
        self.network.set_cables(self.plan, &director.name, true)?;
        let directors = self.directors;
        let restarted = directors.restart(master, self.network, self.directory);
        // The load stands still meanwhile; the director is not in yet.
        restarted.await?;
        let since = Instant::now();

        let mut noticed = Noticed::default();
        let expected = failover.back_within;
        let patience = expected.unwrap_or(failover.out_within);
        let back = self
            .watch_for_master(load, since, &mut noticed, patience, |now| {
                now == Some(master)
            })
            .await?;
        let allowed = patience.as_secs_f64();
        let line = match back {
            Some(took) => format!(
                "   master again after {:.2} s; it may take {allowed:.2} s",
                took.as_secs_f64()
            ),
            None if expected.is_none() => "   another stays master (nopreempt)".into(),
            None => format!("   not master again after {allowed:.2} s, which it may take"),
        };
        self.screen.say(&line)?;
        self.screen.say(&noticed.line())?;
        let is_ok = back.is_some() == expected.is_some()
            && !noticed.failed_after(since + back.unwrap_or_default());
        self.screen.say(table::verdict(is_ok))?;
        self.judge(is_ok);
        Ok(())
    }

    /// Counts answers until the right director is master, `patience` after `since` at
    /// most, and some more. Returns how long that took.
    pub(super) async fn watch_for_master(
        &mut self,
        load: &mut Load<'_>,
        since: Instant,
        noticed: &mut Noticed,
        patience: Duration,
        is_right: impl Fn(Option<usize>) -> bool,
    ) -> anyhow::Result<Option<Duration>> {
        let mut took = None;
        while took.is_none() && since.elapsed() < patience {
            let end = Instant::now() + REDRAW / 5;
            self.watch(load, since, noticed, end).await?;
            if is_right(self.directors.master(self.directory).await?) {
                took = Some(since.elapsed());
            }
        }
        let end = Instant::now() + AFTERMATH.max(PATIENCE);
        self.watch(load, since, noticed, end).await?;
        Ok(took)
    }

    /// Counts answers until `end`.
    async fn watch(
        &mut self,
        load: &mut Load<'_>,
        since: Instant,
        noticed: &mut Noticed,
        end: Instant,
    ) -> anyhow::Result<()> {
        let mut drawn = Instant::now();
        while Instant::now() < end {
            if let Some((_, answer)) = load.next().await? {
                noticed.record(since, &answer, Instant::now());
            }
            if drawn.elapsed() >= REDRAW {
                drawn = Instant::now();
                let seconds = since.elapsed().as_secs_f64();
                let line = format!("   {seconds:4.1} s: {} requests", noticed.requests);
                self.screen.draw(&[line])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_is_timed_by_the_first_request_after_it() {
        let since = Instant::now();
        let at = |milliseconds| since + Duration::from_millis(milliseconds);
        let answer = |started, is_answered: bool| Answer {
            started,
            outcome: if is_answered {
                Ok([10, 0, 0, 2].into())
            } else {
                Err("refused".into())
            },
        };
        let mut noticed = Noticed::default();
        let before = since.checked_sub(Duration::from_millis(5)).unwrap();
        noticed.record(since, &answer(before, true), at(1));
        assert_eq!(noticed.requests, 0, "the dead one answered that");
        noticed.record(since, &answer(at(10), false), at(11));
        noticed.record(since, &answer(at(400), true), at(401));
        noticed.record(since, &answer(at(20), true), at(1020));
        assert!(noticed.failed_after(at(9)) && !noticed.failed_after(at(10)));
        assert_eq!(noticed.first_answer, Some(Duration::from_millis(401)));
        assert_eq!(
            noticed.line(),
            "   failed: 1 (1 refused) of 3 requests; the slowest answer took 1000 ms"
        );
    }
}
