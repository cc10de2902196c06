//! What the server asks the control loop.

use tokio::sync::{mpsc, oneshot};

use super::{edit, ipvs, view};
use crate::explain::Question;

/// A question to the control loop. It answers each by sending on the channel
/// inside; the client may be gone by then, so a failed send is no error.
/// Dropping the channel instead tells the client that there is no answer.
#[derive(Debug)]
pub enum Query {
    /// Is the loop alive?
    Ping(oneshot::Sender<()>),
    Services(oneshot::Sender<Vec<view::Service>>),
    /// Answered in any number of batches, at least one, which may be empty;
    /// dropping the sender ends the listing. The first `try_send` always finds
    /// room. Later ones find none when the client reads slowly: the control
    /// loop must not wait then, but leave the rest to a task or to a later turn.
    Connections(mpsc::Sender<Vec<view::Connection>>),
    Neighbors(oneshot::Sender<Vec<view::Neighbor>>),
    Workers(oneshot::Sender<Vec<view::Worker>>),
    /// Every drop reason, those that never happened included.
    Drops(oneshot::Sender<Vec<view::Drop>>),
    Health(oneshot::Sender<Vec<view::HealthCheck>>),
    Vrrp(oneshot::Sender<view::Vrrp>),
    Config(oneshot::Sender<view::Config>),
    /// The same without passwords.
    PublicConfig(oneshot::Sender<view::Config>),
    /// What a packet would meet.
    Explain(Question, oneshot::Sender<view::Explanation>),
    /// The table as ipvsadm shows it.
    Ipvs(oneshot::Sender<ipvs::Ipvs>),
    /// Change what is running, until the next reload.
    Edit(edit::Edits, oneshot::Sender<edit::Edited>),
    /// Read the configuration file again and apply it as a whole or not at all.
    Reload(oneshot::Sender<Result<view::Reload, view::ReloadRefused>>),
}
