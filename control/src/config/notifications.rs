//! Who else is told of changes: FIFOs of the whole director.

use std::path::PathBuf;

use crate::scripts::{Script, ScriptUser};

/// What `[global_defs]` says about being told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notifications {
    /// `notify_fifo`: of all changes.
    pub fifo: Option<Fifo>,
    /// `vrrp_notify_fifo`: of instances and sync groups.
    pub vrrp_fifo: Option<Fifo>,
    /// `lvs_notify_fifo`: of virtual servers and real servers.
    pub lvs_fifo: Option<Fifo>,
}

impl Notifications {
    /// Whether anybody wants to know of instances and sync groups.
    #[must_use]
    pub fn want_vrrp(&self) -> bool {
        self.fifo.is_some() || self.vrrp_fifo.is_some()
    }

    /// Whether anybody wants to know of virtual servers and real servers.
    #[must_use]
    pub fn want_servers(&self) -> bool {
        self.fifo.is_some() || self.lvs_fifo.is_some()
    }

    /// All FIFOs.
    pub fn fifos(&self) -> impl Iterator<Item = &Fifo> {
        [&self.fifo, &self.vrrp_fifo, &self.lvs_fifo]
            .into_iter()
            .flatten()
    }
}

/// A FIFO that lines are written to. No two have the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fifo {
    pub path: PathBuf,
    /// Who may read it; `None`: as the policy of scripts says.
    pub owner: Option<ScriptUser>,
    /// Runs as long as the appliance, and reads the FIFO, whose path is its
    /// last argument.
    pub script: Option<Script>,
}
