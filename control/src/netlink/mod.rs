//! The kernel's links, addresses, routes and neighbours, by rtnetlink.
//!
//! [`Monitor`] tells what is there and what changes; [`Requests`] asks and
//! changes. They are separate sockets, because the kernel does not report a
//! change to the socket that asked for it. [`view`] is the pure part: it turns
//! messages into [`NetworkEvent`](crate::event::NetworkEvent)s where they make a
//! difference.
//!
//! Not done here: deciding anything. The controller does.

mod host;
mod monitor;
mod netdev;
mod requests;
pub mod view;

use std::io;
use std::time::Duration;

pub use host::{DefaultRoute, HostLink};
pub use monitor::Monitor;
pub use netdev::{XdpFeatures, xdp_features};
pub use requests::{LeftRouting, NewAddress, NextHop, Requests, Route};

use crate::in_words::in_words;

/// The `IFA_PROTO` (Linux 5.18, `include/uapi/linux/if_addr.h`) of addresses
/// that this program added: a later start recognises what a killed one left.
/// Older kernels ignore it, and then nothing is recognised.
pub const ADDRESS_PROTOCOL: u8 = 0xa9;

/// How long the kernel may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing}: {}{}", in_words(.error), remedy(.error))]
    Refused { doing: String, error: io::Error },
    #[error("cannot {doing}: the kernel did not answer within {ANSWER_TIMEOUT:?}")]
    Silent { doing: String },
    #[error("cannot {doing}: the netlink connection is closed")]
    Closed { doing: String },
}

impl Error {
    /// The kernel's error number, when it gave one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Refused { error, .. } => error.raw_os_error(),
            Self::Silent { .. } | Self::Closed { .. } => None,
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        ": run it as root or with CAP_NET_ADMIN"
    } else {
        ""
    }
}

/// The interface's name, or its number once it is gone.
fn interface_name(index: u32) -> String {
    nix::net::if_::if_indextoname(index)
        .ok()
        .and_then(|name| name.into_string().ok())
        // nix 0.31 takes the null pointer of a failure for success.
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("interface {index}"))
}
