//! What a `vrrp_script` watches stops on the master, and returns.

use std::time::{Duration, Instant};

use super::Script;
use super::masters::Noticed;
use crate::lab::directors::addresses;
use crate::lab::script::load::Load;
use crate::lab::watched_services;

impl Script<'_> {
    /// Two steps, if the lab serves something whose stop moves the master.
    pub(super) async fn watched(&mut self, step: u32, load: &mut Load<'_>) -> anyhow::Result<()> {
        let watched = self.plan.watched.iter();
        let Some(out_within) = watched.clone().filter_map(|w| w.out_within).max() else {
            return Ok(());
        };
        let back_within = watched.clone().map(|w| w.back_within).max();
        let Some(master) = self.directors.master(self.directory).await? else {
            return Ok(());
        };
        let director = &self.plan.directors[master];
        let scripts: Vec<String> = watched
            .map(|w| format!("vrrp_script {} watches ({})", w.script, w.address))
            .collect();
        self.screen.say(&format!(
            "\n{step}. What {} stops on the master director {}",
            scripts.join(" and "),
            addresses(director)
        ))?;
        if let Some(services) = self.watched[master].take() {
            services.kill();
        }
        self.until_master(load, out_within, "another is master", |now| {
            now.is_some_and(|now| now != master)
        })
        .await?;

        self.screen.say(&format!("\n{}. It returns", step + 1))?;
        let mut services = watched_services(
            self.directors.program(),
            self.network,
            self.directory,
            director,
            &self.plan.watched,
        )?;
        services.ready().await?;
        self.watched[master] = Some(services);
        let back_within = back_within.unwrap_or_default();
        self.until_master(load, back_within, "master again", |now| now == Some(master))
            .await
    }

    /// Waits until the right director is master. Requests that are made before may fail at the
    /// moment in which another takes over, and at no other.
    async fn until_master(
        &mut self,
        load: &mut Load<'_>,
        within: Duration,
        what: &str,
        is_right: impl Fn(Option<usize>) -> bool,
    ) -> anyhow::Result<()> {
        let since = Instant::now();
        let mut noticed = Noticed::default();
        let took = self
            .watch_for_master(load, since, &mut noticed, within, is_right)
            .await?;
        let allowed = within.as_secs_f64();
        self.screen.say(&match took {
            Some(took) => format!(
                "   {what} after {:.2} s; it may take {allowed:.2} s",
                took.as_secs_f64()
            ),
            None => format!("   not {what} after {allowed:.2} s, which it may take"),
        })?;
        self.screen.say(&noticed.line())?;
        let is_ok = took.is_some_and(|took| !noticed.failed_after(since + took));
        self.verdict(is_ok)
    }
}
