//! What happens in a rehearsal, in order: traffic, the death of a real
//! server, its return, the same of the master director, and of what a
//! `vrrp_script` watches there.

mod load;
mod masters;
mod table;
mod watched;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use super::client::{Answer, Client, Target};
use super::directors::{Directors, addresses};
use super::network::Network;
use super::outage::{Death, Progress, Return};
use super::plan::{Plan, RealServer, Service};
use super::process::Process;
use super::screen::Screen;
use super::tally::{Tally, failure_text};
use super::{Directory, Options, responder};
use crate::in_words::count;
use load::Load;

/// Requests of the first step that are under way at a time.
const CONCURRENCY: usize = 8;

/// How often the screen changes.
const REDRAW: Duration = Duration::from_millis(100);

/// Requests go on for so long after a real server is back, to see that its
/// return hurts nobody.
const AFTERMATH: Duration = Duration::from_secs(1);

/// What the steps work with.
#[derive(Debug)]
pub(super) struct Script<'a> {
    pub(super) plan: &'a Plan,
    pub(super) client: &'a Client,
    pub(super) directors: &'a Directors<'a>,
    pub(super) responders: &'a mut Vec<Option<Process>>,
    /// What scripts watch, on each director.
    pub(super) watched: &'a mut Vec<Option<Process>>,
    pub(super) network: &'a Network,
    pub(super) directory: &'a Directory,
    pub(super) screen: &'a mut Screen,
    /// Steps that did not go as they should.
    pub(super) failures: u32,
}

impl Script<'_> {
    /// Plays every step; true if all went as it should.
    pub(super) async fn play(&mut self, options: &Options) -> anyhow::Result<bool> {
        self.introduce()?;
        self.wait_for_master().await?;
        self.wait_for_first_checks().await?;
        let tallies = self.traffic(options.requests).await?;
        if options.break_things {
            if tallies.iter().any(|tally| tally.answered() == 0) {
                self.screen.say(
                    "\nA virtual server answers nothing: there is no point in breaking more.",
                )?;
            } else {
                self.death_and_return(&tallies).await?;
                self.masters().await?;
            }
        }
        let result = match self.failures {
            0 => "\nResult: all went as it should".to_string(),
            1 => "\nResult: FAILED in 1 place".to_string(),
            places => format!("\nResult: FAILED in {places} places"),
        };
        self.screen.say(&result)?;
        Ok(self.failures == 0)
    }

    fn introduce(&mut self) -> anyhow::Result<()> {
        let plan = self.plan;
        let each = |(number, director)| {
            let role = if number == 0 { "a director" } else { "another" };
            format!("{role} ({})", addresses(director))
        };
        let directors: Vec<String> = plan.directors.iter().enumerate().map(each).collect();
        self.screen.say(&format!(
            "A client behind a router, {}, {} on {}",
            directors.join(", "),
            count(plan.real_servers.len(), "real server"),
            if plan.is_divided() {
                "a network of their own"
            } else {
                "one segment"
            },
        ))?;
        for note in &plan.notes {
            self.screen.say(&format!("note: {note}"))?;
        }
        if plan
            .services
            .iter()
            .any(|service| service.address.port() == 443)
        {
            self.screen
                .say("note: on port 443 the built-in responder speaks plain HTTP")?;
        }
        Ok(())
    }

    /// With `alpha`, a real server is not used before a check has passed.
    async fn wait_for_first_checks(&mut self) -> anyhow::Result<()> {
        let waiting = self.plan.real_servers.iter().filter(|s| s.starts_down);
        let bounds = waiting.filter_map(|server| server.checks);
        if let Some(longest) = bounds.map(|bounds| bounds.back_within).max() {
            let seconds = longest.as_secs_f64();
            self.screen.say(&format!(
                "waiting {seconds:.1} s for the first checks (alpha)"
            ))?;
            tokio::time::sleep(longest).await;
        }
        Ok(())
    }

    /// Step 1: requests to one virtual server after the other.
    async fn traffic(&mut self, requests: u32) -> anyhow::Result<Vec<Tally>> {
        self.screen.say(&format!(
            "\n1. Traffic: {requests} requests to each virtual server"
        ))?;
        let mut tallies = Vec::new();
        for service in &self.plan.services {
            let client = self.client;
            let request = |_| client.request(target(service));
            let mut answers = stream::iter(0..requests)
                .map(request)
                .buffer_unordered(CONCURRENCY);
            let mut tally = Tally::default();
            let mut drawn = Instant::now();
            while let Some(answer) = answers.next().await {
                tally.record(&answer?);
                if drawn.elapsed() >= REDRAW {
                    self.screen.draw(&table::of(service, &tally, false))?;
                    drawn = Instant::now();
                }
            }
            for line in table::of(service, &tally, true) {
                self.screen.say(&line)?;
            }
            self.judge(tally.is_as_expected(service));
            tallies.push(tally);
        }
        Ok(tallies)
    }

    /// Steps 2 and 3, if the file has a real server that they make sense with.
    async fn death_and_return(&mut self, tallies: &[Tally]) -> anyhow::Result<()> {
        let Some(number) = self.victim(tallies) else {
            self.screen.say(
                "\n2. A real server's death is not rehearsed: the file has none with a check \
                 in every virtual server that it belongs to, and another beside it",
            )?;
            return Ok(());
        };
        let mut load = Load::start(self.client, &self.plan.services);
        self.death(number, &mut load).await?;
        self.comeback(number, &mut load, tallies).await
    }

    /// The real server to kill: one that a check can take out, that others can
    /// stand in for, and that served the client, preferably everywhere.
    fn victim(&self, tallies: &[Tally]) -> Option<usize> {
        let services = || self.plan.services.iter().zip(tallies);
        let is_fit = |server: &RealServer| {
            server.checks.is_some()
                && services()
                    .filter(|(service, _)| belongs(service, server))
                    .all(|(service, _)| others(service, server) > 0)
        };
        let served = |server: &RealServer| {
            let own = services().filter(|(service, _)| belongs(service, server));
            own.filter(|(_, tally)| tally.served_by(server.address) > 0)
                .count()
        };
        let numbered = self.plan.real_servers.iter().enumerate();
        let mut best: Option<(usize, usize)> = None;
        for (number, server) in numbered.filter(|(_, server)| is_fit(server)) {
            let score = served(server);
            // The first of equals.
            if score > best.map_or(0, |(_, best)| best) {
                best = Some((number, score));
            }
        }
        best.map(|(number, _)| number)
    }

    /// Step 2.
    async fn death(&mut self, number: usize, load: &mut Load<'_>) -> anyhow::Result<()> {
        let server = &self.plan.real_servers[number];
        let Some(bounds) = server.checks else {
            return Ok(());
        };
        self.screen.say(&format!(
            "\n2. Real server {} dies: its responder is killed and its cable pulled",
            server.address
        ))?;
        let affected = self.services_of(server);
        let since = Instant::now();
        if let Some(responder) = self.responders[number].take() {
            responder.kill();
        }
        self.network
            .set_cables(self.plan, &server.namespace, false)?;

        let mut death = Death::new(since, bounds.out_within, affected);
        let mut drawn = since;
        let progress = loop {
            if let Some((service, answer)) = load.next().await?
                && answer.started >= since
            {
                death.record(service, &answer);
            }
            let progress = death.progress(Instant::now());
            if progress != Progress::Waiting {
                break progress;
            }
            if drawn.elapsed() >= REDRAW {
                drawn = Instant::now();
                self.screen.draw(&[format!(
                    "   {:4.1} s: {} of {} requests failed",
                    since.elapsed().as_secs_f64(),
                    failure_text(&death.failed),
                    death.requests,
                )])?;
            }
        };
        let allowed = bounds.out_within.as_secs_f64();
        let is_ok = match progress {
            Progress::Done(took) => {
                self.screen.say(&format!(
                    "   taken out: no request failed any more after {:.1} s; \
                     its checks may take {allowed:.1} s",
                    took.as_secs_f64(),
                ))?;
                true
            }
            Progress::Waiting | Progress::Overdue => {
                self.screen.say(&format!(
                    "   requests still fail after {allowed:.1} s, which its checks may take"
                ))?;
                false
            }
        };
        self.screen.say(&format!(
            "   failed: {} of {} requests",
            failure_text(&death.failed),
            death.requests
        ))?;
        if death.failed_elsewhere > 0 {
            self.screen.say(&format!(
                "   failed: {} of virtual servers that it does not belong to",
                death.failed_elsewhere
            ))?;
        }
        self.verdict(is_ok && death.failed_elsewhere == 0)
    }

    /// Step 3.
    async fn comeback(
        &mut self,
        number: usize,
        load: &mut Load<'_>,
        tallies: &[Tally],
    ) -> anyhow::Result<()> {
        let server = &self.plan.real_servers[number];
        let Some(bounds) = server.checks else {
            return Ok(());
        };
        self.screen
            .say(&format!("\n3. Real server {} returns", server.address))?;
        let mut process = responder(
            self.directors.program(),
            self.network,
            self.directory,
            server,
        )?;
        process.ready().await?;
        self.responders[number] = Some(process);
        self.network
            .set_cables(self.plan, &server.namespace, true)?;
        let since = Instant::now();

        // A hash sends the client's connections elsewhere for ever, and persistence for longer than anybody waits.
        let mut expected = self.services_of(server);
        expected.retain(|service| {
            tallies[*service].served_by(server.address) > 0
                && !self.plan.services[*service].is_persistent
        });
        if expected.is_empty() {
            return self.screen.say(
                "   not to be seen: with persistence this client stays with the one that stood in",
            );
        }
        let mut back = Return::new(since, bounds.back_within, server.address, expected);
        let mut until = None;
        let mut drawn = since;
        loop {
            if let Some((service, answer)) = load.next().await?
                && answer.started >= since
            {
                back.record(service, &answer);
            }
            if back.progress(Instant::now()) != Progress::Waiting {
                let end = *until.get_or_insert_with(|| Instant::now() + AFTERMATH);
                if Instant::now() >= end {
                    break;
                }
            }
            if drawn.elapsed() >= REDRAW {
                drawn = Instant::now();
                let seconds = since.elapsed().as_secs_f64();
                let answered = back.requests;
                self.screen
                    .draw(&[format!("   {seconds:4.1} s: {answered} requests")])?;
            }
        }
        let allowed = bounds.back_within.as_secs_f64();
        let progress = back.progress(Instant::now());
        let line = match progress {
            Progress::Done(took) => format!(
                "   serves again after {:.1} s; its checks may take {allowed:.1} s",
                took.as_secs_f64()
            ),
            Progress::Waiting | Progress::Overdue => {
                format!(
                    "   does not serve again within the {allowed:.1} s that its checks may take"
                )
            }
        };
        self.screen.say(&line)?;
        self.screen.say(&format!(
            "   failed: {} of {} requests",
            failure_text(&back.failed),
            back.requests
        ))?;
        self.verdict(matches!(progress, Progress::Done(_)) && back.failed.is_empty())
    }

    /// Numbers of the virtual servers that use a real server.
    fn services_of(&self, server: &RealServer) -> BTreeSet<usize> {
        let numbered = self.plan.services.iter().enumerate();
        numbered
            .filter(|(_, service)| belongs(service, server))
            .map(|(number, _)| number)
            .collect()
    }

    fn verdict(&mut self, is_ok: bool) -> anyhow::Result<()> {
        self.judge(is_ok);
        self.screen.say(table::verdict(is_ok))
    }

    fn judge(&mut self, is_ok: bool) {
        self.failures += u32::from(!is_ok);
    }
}

/// True if a virtual server sends connections to a real server.
fn belongs(service: &Service, server: &RealServer) -> bool {
    let mut servers = service.servers.iter();
    servers.any(|(address, weight)| *address == server.address && *weight > 0)
}

/// How many others take connections of a virtual server.
fn others(service: &Service, server: &RealServer) -> usize {
    let takes =
        |(address, weight): &&(std::net::IpAddr, u32)| *address != server.address && *weight > 0;
    service.servers.iter().filter(takes).count()
}

fn target(service: &Service) -> Target {
    Target {
        protocol: service.protocol,
        address: service.address,
    }
}

/// An answer and the number of the virtual server that it came from.
type Numbered = (usize, Answer);
