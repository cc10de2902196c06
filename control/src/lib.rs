//! The control plane of the appliance.
pub mod announce;
pub mod api;
pub mod cli;
pub mod config;
pub mod controller;
pub mod event;
pub mod explain;
pub mod health;
mod in_words;
pub mod ipvsadm;
pub mod lab;
pub mod netlink;
mod probe;
pub mod realserver;
pub mod replay;
pub mod run;
pub mod scripts;
pub mod vrrp;
