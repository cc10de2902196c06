//! Reloading: the file again, as one transaction or not at all.

use std::time::Instant;

use tracing::{error, info};

use super::{Appliance, descriptors, notifier, service, start};
use crate::api::view;
use crate::config;

impl Appliance {
    /// Reads the file and takes it up, and tells the service manager.
    pub(super) async fn reload(&mut self) -> Result<view::Reload, view::Refused> {
        service::reloading();
        let result = self.take_up_file().await;
        service::ready(&start::status(self.controller.config()));
        result
    }

    async fn take_up_file(&mut self) -> Result<view::Reload, view::Refused> {
        let refused = |diagnostics: Vec<String>| view::Refused { diagnostics };
        let Some((path, format)) = &self.file else {
            return Err(refused(vec![
                "the appliance was started without a configuration file: there is nothing to reload".into(),
            ]));
        };
        let checked = config::load_as(path, format).map_err(|diagnostics| {
            refused(diagnostics.to_string().lines().map(str::to_owned).collect())
        })?;
        let config = checked.config;
        let refuse = |error: anyhow::Error| refused(vec![error.to_string()]);
        start::refuse_unknown_interfaces(&config, self.controller.ports()).map_err(refuse)?;
        let in_use = start::refuse_addresses_in_use(&self.controller, &config);
        self.meanwhile(in_use).await.map_err(refuse)?;
        let scripts = config.scripts.clone();
        self.measure();
        let (changes, actions) = self
            .controller
            .reload(config, Instant::now())
            .map_err(refused)?;
        self.runner.set_policy(scripts);
        notifier::complain(&self.runner, self.controller.config());
        descriptors::make_room(self.controller.config());
        self.carry_out(actions).await;
        self.listen_to_vrrp();
        self.take_up_scripts();
        self.settle();
        for change in &changes {
            info!("reload: {change}");
        }
        Ok(view::Reload {
            changes,
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
}
