//! The control plane of the appliance: everything but the packets of virtual servers.
//!
//! In reading order:
//! - [`cli`]: a command a file; [`config`]: what a file says, checked, of TOML and of keepalived.conf.
//! - [`run`]: the control thread's loop. It does all I/O: reads events ([`event`]), asks the controller
//!   what to do about each, and does that.
//! - [`controller`]: what to do; no I/O, no clock. It makes the data plane's snapshots.
//! - What events come from: [`health`] checks, [`vrrp`], [`netlink`] and [`routing`], [`track`] (files and
//!   processes). What actions are carried out by: [`announce`] (gratuitous ARP), [`notify`], [`scripts`].
//! - What others see: [`api`] (control socket, HTTP, metrics), [`ipvsadm`], [`explain`].
//! - Apart from a running director: [`lab`], [`realserver`], [`replay`].
//!
//! Packets are the crate `dataplane`'s: this one makes none but VRRP's, ARP's, neighbour discovery's
//! and those of its checks.
pub mod announce;
pub mod api;
pub mod cli;
pub mod config;
pub mod controller;
pub mod event;
mod explain;
pub mod health;
mod in_words;
mod ipvsadm;
pub mod lab;
pub mod netlink;
mod notify;
mod probe;
mod realserver;
pub mod replay;
pub mod routing;
mod run;
pub mod scripts;
mod smtp;
mod track;
pub mod vrrp;
