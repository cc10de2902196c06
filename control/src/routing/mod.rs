//! Routes and rules that move with a `vrrp_instance`: `virtual_routes` and `virtual_rules`, in the
//! words of `ip route` and `ip rule`.
//!
//! Read by [`str::parse`], written by `Display`; what one writes the other reads. The kernel is told
//! by `netlink`, when by the controller. Multipath routes, metrics other than the preference, and
//! selectors by ports or users are not known.

mod route;
mod rule;
mod words;

pub use route::{RouteKind, VirtualRoute, scope_name, scope_of};
pub use rule::{RuleAction, VirtualRule};

/// Why a text is none: what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Expected(pub String);

/// The main routing table (`RT_TABLE_MAIN`).
pub const MAIN_TABLE: u32 = 254;

/// Names that the kernel's tables have everywhere; the others are in files of the system.
const TABLES: [(&str, u32); 3] = [("default", 253), ("main", MAIN_TABLE), ("local", 255)];

#[cfg(test)]
mod tests;
