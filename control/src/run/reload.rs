//! Reloading: the file again, as one transaction or not at all.
//!
//! In this order: everything that can be refused is refused; what can fail is made (sockets on
//! new interfaces) and undoes itself if something else fails; then the controller takes the
//! file up, which cannot fail.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use tracing::{error, info, warn};

use super::change::{self, Addition};
use super::clients::NextPage;
use super::interfaces::{self, Interface};
use super::threads::Shift;
use super::{Appliance, descriptors, notifier, start, systemd};
use crate::api::view;
use crate::config::{self, Config, Known};
use crate::controller::Port;

/// What a reload needs and could have failed to get. Dropped, it leaves nothing behind.
struct Prepared {
    ports: Vec<Port>,
    additions: Vec<Addition>,
    shift: Option<Shift>,
    page: NextPage,
}

impl Appliance {
    /// Reads the file and takes it up, and tells the service manager.
    pub(super) async fn reload(&mut self) -> Result<view::Reload, view::ReloadRefused> {
        systemd::reloading();
        let result = self.take_up_file().await;
        systemd::ready(&start::status(self.controller.config()));
        result
    }

    async fn take_up_file(&mut self) -> Result<view::Reload, view::ReloadRefused> {
        let refused = |diagnostics: Vec<String>| view::ReloadRefused { diagnostics };
        let Some((path, format)) = &self.file else {
            return Err(refused(vec![
                "the appliance was started without a configuration file: there is nothing to reload".into(),
            ]));
        };
        // A large file takes as long as several advertisements.
        let (path, format) = (path.clone(), format.clone());
        let known = self.known.clone();
        let load = move || config::load_after(&path, &format, known.as_ref());
        let loading = tokio::task::spawn_blocking(load);
        let loaded = self.meanwhile(loading).await;
        let loaded = loaded.map_err(|error| refused(vec![format!("a thread ended: {error}")]))?;
        let checked = loaded.map_err(|diagnostics| {
            refused(diagnostics.to_string().lines().map(str::to_owned).collect())
        })?;
        let warnings: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
        let config = Arc::new(checked.config);
        self.controller.can_reload(&config).map_err(refused)?;
        let prepared = self.prepare(&config).await;
        let Prepared {
            ports,
            additions,
            shift,
            page,
        } = prepared.map_err(|error| refused(vec![format!("{error:#}")]))?;
        let before = self.controller.ports().to_vec();
        let scripts = config.scripts.clone();
        self.measure();
        // What an advertisement waits for is one of these steps, and not their sum.
        self.meanwhile(tokio::task::yield_now()).await;
        let (changes, actions) = self
            .controller
            .reload(Arc::clone(&config), ports, Instant::now())
            .map_err(refused)?;
        self.known = checked.text.map(|text| Known { config, text });
        self.runner.set_policy(scripts);
        notifier::complain(&self.runner, self.controller.config());
        self.notifier.take_up(self.controller.config());
        descriptors::make_room(self.controller.config());
        self.forget_interfaces(&before).await;
        self.carry_out(actions).await;
        self.meanwhile(tokio::task::yield_now()).await;
        self.settle();
        self.adopt_interfaces(additions);
        self.shift_workers(shift).await;
        self.page.show(page);
        self.listen_to_vrrp();
        self.take_up_scripts();
        self.settle();
        for change in &changes {
            info!("reload: {change}");
        }
        for warning in &warnings {
            warn!("{warning}");
        }
        Ok(view::Reload {
            changes,
            warnings,
            generation: self.controller.generation(),
        })
    }

    /// The same for SIGHUP, where nobody waits for the answer.
    pub(super) async fn reload_on_signal(&mut self) {
        match self.reload().await {
            Ok(reload) => info!("SIGHUP: reloaded, {} changes", reload.changes.len()),
            Err(refused) => {
                error!("SIGHUP: the configuration is refused, nothing was changed:");
                for line in refused.diagnostics {
                    error!("{line}");
                }
            }
        }
    }

    /// The threads of new cores take the workers over.
    async fn shift_workers(&mut self, shift: Option<Shift>) {
        let Some(shift) = shift else { return };
        let relieve = self.workers.relieve(shift);
        let cores = self
            .cpus
            .for_workers(&self.controller.config().appliance.cores);
        if let Ok(cores) = cores {
            self.cpus.keep_off(&cores);
        }
        if let Err(error) = self.meanwhile(tokio::task::spawn_blocking(relieve)).await {
            error!("a thread ended: {error}");
        }
    }

    /// Refuses what cannot be taken up on this host at this moment, and makes what may fail. Workers
    /// have the sockets of new interfaces then, and nothing is steered to them.
    async fn prepare(&mut self, config: &Config) -> anyhow::Result<Prepared> {
        let old = &self.controller.config().appliance;
        let shift = self.workers.shift(&self.cpus, old, &config.appliance)?;
        let page = self.page.prepare(&config.appliance)?;
        let (ports, new) = self.wanted_interfaces(config).await?;
        start::refuse_unknown_interfaces(config, &ports)?;
        let in_use = start::refuse_addresses_in_use(&self.controller, config, &ports);
        self.meanwhile(in_use).await?;
        if new.is_empty() {
            return Ok(Prepared {
                ports,
                additions: Vec::new(),
                shift,
                page,
            });
        }
        // An interface that was elsewhere and returned has the program still, and takes none beside it. What
        // it steers to is dead whatever comes of this reload.
        let gone = self.controller.ports().iter().filter(|port| port.gone);
        for port in gone {
            self.workers.steering.remove(&port.number);
        }
        let takers = self.workers.takers();
        let frame_size = self.workers.frame_size;
        let prepared = tokio::task::spawn_blocking(move || {
            let mut additions = change::prepare(&takers, frame_size, new)?;
            change::hand_over(&takers, &mut additions)?;
            Ok(additions)
        });
        let additions: anyhow::Result<_> =
            self.meanwhile(prepared).await.context("a thread ended")?;
        Ok(Prepared {
            ports,
            additions: additions?,
            shift,
            page,
        })
    }

    /// The interfaces that a file wants, and which of them are new. If neither the running configuration nor the
    /// file names any, they are those in use, or what was made anew in their place.
    async fn wanted_interfaces(
        &mut self,
        config: &Config,
    ) -> anyhow::Result<(Vec<Port>, Vec<Interface>)> {
        // Asked for now: what was made a moment ago may not have been told yet.
        let links = interfaces::links(&self.requests.network().await?);
        let used = self.controller.ports();
        if config.interfaces.is_empty() && self.controller.config().interfaces.is_empty() {
            let new = interfaces::made_anew(&links, used)?;
            let successor = |port: &Port| {
                let mut new = new.iter();
                let found = new.find(|interface| interface.link.name == port.name);
                found.map_or_else(|| port.clone(), Interface::port)
            };
            return Ok((used.iter().map(successor).collect(), new));
        }
        let mut interfaces = interfaces::choose(&config.interfaces, &links, used)?;
        let ports = interfaces.iter().map(Interface::port).collect();
        let is_used = |interface: &Interface| {
            (used.iter()).any(|port| interfaces::is_it(port, &interface.link))
        };
        interfaces.retain(|interface| !is_used(interface));
        Ok((ports, interfaces))
    }

    /// Detaches from interfaces that are not used any more; workers give their sockets back.
    async fn forget_interfaces(&mut self, before: &[Port]) {
        let kept = self.controller.ports();
        let gone: Vec<_> = before
            .iter()
            .filter(|port| kept.iter().all(|kept| kept.number != port.number))
            .collect();
        for port in gone {
            self.workers.forget(port);
            let number = port.number;
            let requests = self.workers.requests();
            let closing = tokio::task::spawn_blocking(move || change::take_back(&requests, number));
            if let Err(error) = self.meanwhile(closing).await {
                error!("a thread ended: {error}");
            }
        }
    }

    /// Steers packets of new interfaces to the workers, who know all about them by now.
    fn adopt_interfaces(&mut self, additions: Vec<Addition>) {
        let new: Vec<_> = additions.iter().map(Addition::number).collect();
        self.workers.adopt(additions);
        for number in &new {
            let Some(steering) = self.workers.steering.get_mut(number) else {
                continue;
            };
            for rule in self.controller.steering_rules() {
                if let Err(error) = steering.add(rule) {
                    error!("{error:#}");
                }
            }
        }
        self.set_macs(|port| new.contains(&port.number));
    }
}
