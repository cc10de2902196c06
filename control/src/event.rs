//! What reaches the controller, and what it wants done.
//!
//! The controller does no I/O: `run` feeds it [`Event`]s and carries out its
//! [`Action`]s. Both serialise, so that a test case is a pair of files of
//! JSON lines.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A dampened change of a real server's health. `virtual_server` is a
    /// `ServiceKey` as displayed: `TCP 192.168.1.100:80`.
    Health {
        virtual_server: String,
        real_server: SocketAddr,
        check: usize,
        healthy: bool,
        reason: String,
    },
    /// The kernel's view of the network changed.
    Network(NetworkEvent),
}

/// A change of links, addresses, routes or neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkEvent {
    Link {
        index: u32,
        name: String,
        mac: [u8; 6],
        up: bool,
        mtu: u32,
    },
    LinkGone {
        index: u32,
    },
    Address {
        index: u32,
        address: IpAddr,
        prefix_length: u8,
        ours: bool,
        present: bool,
    },
    /// `mac: None`: the neighbour is not reachable (failed, incomplete or gone).
    Neighbor {
        index: u32,
        address: IpAddr,
        mac: Option<[u8; 6]>,
    },
    /// Some route changed: next hops have to be looked up again.
    RoutesChanged,
}
