//! Who else is told of changes: FIFOs of the whole director, and people.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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
    /// `None`: no mails are sent.
    pub mail: Option<Mail>,
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

/// Who gets mails about what, and by which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// `notification_email`: at least one address.
    pub to: Vec<String>,
    /// `None`: `keepalived@` and the name of this host.
    pub from: Option<String>,
    pub server: MailServer,
    /// `None`: the name of this host.
    pub helo_name: Option<String>,
    /// For the connection, and for each answer.
    pub connect_timeout: Duration,
    /// `smtp_alert`: of everything that has none itself.
    pub alert: Option<bool>,
    /// `smtp_alert_vrrp`: the same of instances and groups.
    pub alert_vrrp: Option<bool>,
    /// `smtp_alert_checker`: the same of virtual servers and real servers.
    pub alert_checker: Option<bool>,
    /// No mails about the state FAULT.
    pub no_email_faults: bool,
}

impl Mail {
    /// Whether there are mails about an instance or group with this `smtp_alert`.
    #[must_use]
    pub fn is_for_vrrp(&self, own: Option<bool>) -> bool {
        own.or(self.alert_vrrp).or(self.alert).unwrap_or(false)
    }

    /// The same of the quorum of a virtual server.
    #[must_use]
    pub fn is_for_virtual_server(&self, own: Option<bool>) -> bool {
        own.or(self.alert_checker).or(self.alert).unwrap_or(false)
    }

    /// The same of a real server. Unlike the others, and as with keepalived,
    /// there are some if nothing else is said.
    #[must_use]
    pub fn is_for_real_server(&self, own: Option<bool>) -> bool {
        own.or(self.alert_checker).or(self.alert).unwrap_or(true)
    }
}

/// `smtp_server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailServer {
    /// An IP address, or a name that is looked up for each mail.
    pub host: String,
    /// 1..=65535
    pub port: u16,
}

impl fmt::Display for MailServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.host, self.port)
    }
}

/// This host's own mail server.
impl Default for MailServer {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 25,
        }
    }
}
