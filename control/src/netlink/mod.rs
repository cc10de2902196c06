//! The netlink module.
