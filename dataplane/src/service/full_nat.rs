//! What FULLNAT has besides what NAT has.

use super::Address;

/// How a virtual server's connections reach real servers by FULLNAT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FullNat {
    /// Where real servers see connections come from; those of the server's IP version are used.
    pub local_addresses: Vec<Address>,
    pub client_address: ClientAddress,
}

/// How a real server of FULLNAT learns who the client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    /// Not at all.
    #[default]
    None,
    /// By a TCP option: [`toa`](crate::forward::toa).
    Toa,
    /// By bytes before the client's own: [`proxy`](crate::forward::proxy).
    Proxy,
}

impl ClientAddress {
    /// Every way with its name in configuration.
    pub const NAMES: [(&str, Self); 3] = [
        ("none", Self::None),
        ("toa", Self::Toa),
        ("proxy", Self::Proxy),
    ];
}
