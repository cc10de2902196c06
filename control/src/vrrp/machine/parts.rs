//! What goes into the machine and what comes out of it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::packet::Version;

/// Where the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Not started, or stopped.
    Init,
    Backup,
    Master,
    /// Unfit to be master: the interface is down, something tracked failed.
    Fault,
}

impl State {
    /// keepalived's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Backup => "BACKUP",
            Self::Master => "MASTER",
            Self::Fault => "FAULT",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that makes an instance unfit to be master.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The interface of the instance.
    Link,
    /// The interface has no address to send from.
    NoAddress,
    /// Something that it tracks, by name.
    Tracked(String),
    /// Another member of its sync group is in [`State::Fault`].
    Group,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("the interface is down"),
            Self::NoAddress => f.write_str("the interface has no address to send from"),
            Self::Tracked(name) => write!(f, "{name} failed"),
            Self::Group => f.write_str("another instance of its vrrp_sync_group is in FAULT"),
        }
    }
}

/// How the addresses are announced (keepalived's `garp_*`); times of zero: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garp {
    /// From becoming master to the second burst.
    pub master_delay: Duration,
    /// Frames for each address in a burst.
    pub master_repeat: u32,
    /// Between bursts while master.
    pub master_refresh: Duration,
    pub master_refresh_repeat: u32,
    /// From a lower priority's advertisement to the second burst.
    pub lower_prio_delay: Duration,
    pub lower_prio_repeat: u32,
}

/// keepalived's defaults.
impl Default for Garp {
    fn default() -> Self {
        Self {
            master_delay: Duration::from_secs(5),
            master_repeat: 5,
            master_refresh: Duration::ZERO,
            master_refresh_repeat: 1,
            lower_prio_delay: Duration::from_secs(5),
            lower_prio_repeat: 5,
        }
    }
}

/// What an instance is configured to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    pub version: Version,
    /// 1 to 255; 255 is the owner of the addresses.
    pub priority: u8,
    /// Not zero.
    pub advert_int: Duration,
    /// Take over from a master of lower priority.
    pub preempt: bool,
    /// A master of lower priority is left alone for this time at first.
    pub preempt_delay: Duration,
    /// From the start to taking part.
    pub startup_delay: Duration,
    /// A master answers a lower priority's advertisement with its own.
    pub lower_prio_advert: bool,
    /// A master that yields sends a last advertisement, so that a peer that
    /// does not hear us well knows.
    pub higher_prio_send_advert: bool,
    pub garp: Garp,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send an advertisement with this priority.
    Send {
        priority: u8,
    },
    AddAddresses,
    /// Announcements under way end with it.
    RemoveAddresses,
    /// Send so many frames for each address.
    Announce {
        repeat: u32,
    },
    /// What is tracked changed the priority, while that matters: as backup or master.
    Priority {
        state: State,
        priority: u8,
    },
    /// For the log, scripts and the sync group.
    Changed {
        from: State,
        to: State,
        why: String,
    },
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub adverts_sent: u64,
    /// Those that were followed.
    pub adverts_received: u64,
    pub became_master: u64,
    pub released_master: u64,
    pub priority_zero_sent: u64,
    pub priority_zero_received: u64,
    /// Advertisements that were sent later than half an interval after their time.
    pub late_adverts: u64,
}
