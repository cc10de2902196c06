//! Telling others of changes: what there is to tell, the FIFOs that it is
//! written to, and the mails that it is sent by.
//!
//! Invariant: nothing here waits for a reader or for a mail server. Who does not
//! read misses lines; what cannot be sent is lost. Both are said.
//!
//! Not done here: when there is something to tell (`controller`), and the
//! scripts that are run at changes (`run`).

mod fifo;
mod fifos;
mod letter;
mod post;

use std::fmt;

use dataplane::service::ServiceKey;
use serde::{Deserialize, Serialize};

pub(crate) use fifos::Fifos;
pub(crate) use post::Post;

use crate::vrrp::machine::State;

/// A change that others may want to know of. Displayed it is the line that
/// keepalived writes to its FIFOs (keepalived.conf(5), `notify_fifo`), without
/// its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    Instance {
        name: String,
        state: State,
        priority: u8,
    },
    /// An instance that stays backup or master has another priority.
    Priority {
        name: String,
        state: State,
        priority: u8,
    },
    Group {
        name: String,
        state: State,
    },
    /// It gained or lost its quorum.
    VirtualServer {
        name: String,
        up: bool,
    },
    RealServer {
        name: String,
        virtual_server: String,
        up: bool,
    },
}

/// A mail about a change: `smtp_alert`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// In keepalived's words, without `[router_id]` before it.
    pub subject: String,
    /// Lines.
    pub text: String,
}

impl Notice {
    /// The mail about it; `why`: the line of the log.
    #[must_use]
    pub fn message(&self, why: &str) -> Message {
        let subject = match self {
            Self::Instance { name, state, .. } => {
                format!(
                    "VRRP Instance {name} - Entering {} state",
                    state_word(*state)
                )
            }
            Self::Priority { name, priority, .. } => {
                format!("VRRP Instance {name} - Priority {priority}")
            }
            Self::Group { name, state } => {
                format!("VRRP Group {name} - Entering {} state", state_word(*state))
            }
            Self::VirtualServer { name, up } => {
                format!("Virtualserver {name} - {}", up_word(*up))
            }
            Self::RealServer {
                name,
                virtual_server,
                up,
            } => format!(
                "Realserver {name} of virtual server {virtual_server} - {}",
                up_word(*up)
            ),
        };
        Message {
            subject,
            text: why.to_owned(),
        }
    }

    /// Whether it is of VRRP, and not of the servers.
    #[must_use]
    pub const fn is_vrrp(&self) -> bool {
        match self {
            Self::Instance { .. } | Self::Priority { .. } | Self::Group { .. } => true,
            Self::VirtualServer { .. } | Self::RealServer { .. } => false,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance {
                name,
                state,
                priority,
            } => write!(f, "INSTANCE \"{name}\" {} {priority}", state_word(*state)),
            Self::Priority {
                name,
                state,
                priority,
            } => write!(
                f,
                "INSTANCE \"{name}\" {}_PRIORITY {priority}",
                state_word(*state)
            ),
            // A group has no priority; keepalived writes 0.
            Self::Group { name, state } => write!(f, "GROUP \"{name}\" {} 0", state_word(*state)),
            Self::VirtualServer { name, up } => write!(f, "VS {name} {}", up_word(*up)),
            Self::RealServer {
                name,
                virtual_server,
                up,
            } => write!(f, "RS {name} {virtual_server} {}", up_word(*up)),
        }
    }
}

/// What those who are told call a state.
#[must_use]
pub(crate) const fn state_word(state: State) -> &'static str {
    match state {
        State::Init => "STOP",
        State::Master | State::Backup | State::Fault => state.as_str(),
    }
}

const fn up_word(up: bool) -> &'static str {
    if up { "UP" } else { "DOWN" }
}

/// Address, protocol and port in keepalived's notation: `[192.0.2.1]:tcp:80`.
#[must_use]
pub(crate) fn server_name(key: ServiceKey) -> String {
    let address = std::net::IpAddr::from(key.address);
    let protocol = key.protocol.to_string().to_lowercase();
    format!("[{address}]:{protocol}:{}", key.port)
}

#[cfg(test)]
mod tests;
