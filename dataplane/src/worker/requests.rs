//! What others ask of a running worker: a listing of its connections or of what they use, and to
//! take devices into use or give them back while it forwards.
//!
//! Requests are looked at after the bursts of a turn; while bursts are full, once a millisecond. An answer may be older than
//! the newest snapshot: who needs it newer asks when the worker has reported that generation
//! (`control/src/run/leaving.rs`).

use std::sync::mpsc::Sender;
use std::time::Duration;

use super::{ConnectionRecord, ListConnections, Port, Worker};
use crate::device::Device;
use crate::device::af_xdp::fill_share;
use crate::service::{Address, PortIndex};
use crate::xsk::umem::Frame;

/// Entries of the connection table looked at between two bursts while it is
/// being listed.
const SCAN: usize = 1024;

/// What a worker can be asked for.
#[derive(Debug)]
pub enum Request<D> {
    /// Its connections.
    Connections(ListConnections),
    /// The local addresses of FULLNAT that its connections use.
    LocalAddresses(Sender<Vec<Address>>),
    /// Serves these devices as well, whose frames are of its umem. The sender is dropped when it does.
    Add(Vec<Port<D>>, Sender<()>),
    /// Gives the devices of an interface back.
    Remove(PortIndex, Sender<Vec<Port<D>>>),
    /// Takes free frames of its umem back.
    Frames(Vec<Frame>),
}

impl<D: Device> Worker<D> {
    /// Takes note of new requests, and lists a part of the connections for whoever asked. A part without
    /// any is sent, too: it shows that the listing goes on.
    pub(super) fn answer_requests(&mut self, now: u64) {
        while let Ok(request) = self.requests.try_recv() {
            self.take_up(request);
        }
        if self.listing.is_none() {
            self.listing = self.listings.pop_front().map(|reply| (reply, 0));
        }
        let Some((reply, start)) = self.listing.take() else {
            return;
        };
        let table = self.director.table();
        let records: Vec<_> = table
            .scan(start, SCAN)
            .map(|(entry, connection)| ConnectionRecord {
                key: connection.key(),
                server: connection.server(),
                state: connection.state(),
                is_translated: connection.is_translated(),
                idle: Duration::from_millis(self.director.idle(entry, now).into()),
            })
            .collect();
        let next = start + SCAN;
        // A send fails when nobody waits for the answer any more.
        let wanted = reply.send(records).is_ok();
        if wanted && next < table.capacity() {
            self.listing = Some((reply, next));
        }
    }

    #[cold]
    fn take_up(&mut self, request: Request<D>) {
        match request {
            Request::Connections(reply) => self.listings.push_back(reply),
            // Who asked may be gone.
            Request::LocalAddresses(reply) => {
                drop(reply.send(self.director.local_addresses().collect()));
            }
            Request::Add(ports, _served) => {
                self.ports.extend(ports);
                self.ports_changed();
            }
            Request::Remove(index, reply) => {
                let ports = std::mem::take(&mut self.ports);
                let (gone, kept) = ports.into_iter().partition(|port| port.index == index);
                self.ports = kept;
                self.ports_changed();
                // Who asked is gone: the devices are closed here, and their frames are lost.
                drop(reply.send(gone));
            }
            Request::Frames(frames) => {
                for frame in frames {
                    self.pool.give(frame);
                }
            }
        }
    }

    /// Finds devices by interface again, and divides the frames anew.
    pub(super) fn ports_changed(&mut self) {
        self.egress = egress(&self.ports);
        let devices = self.ports.iter_mut().map(|port| &mut port.device);
        let levels: Vec<_> = devices.filter_map(Device::fill_level).collect();
        let share = fill_share(self.umem.frames(), levels.len());
        for level in levels {
            *level = share;
        }
        for port in &mut self.ports {
            port.device.flush(&mut self.pool);
        }
        self.device_statistics_due = 0;
    }
}

/// The device that frames for an interface leave by, by `PortIndex`.
pub(super) fn egress<D>(ports: &[Port<D>]) -> Vec<Option<usize>> {
    let interfaces = ports.iter().map(|port| usize::from(port.index.0) + 1);
    let mut egress = vec![None; interfaces.max().unwrap_or(0)];
    for (device, port) in ports.iter().enumerate() {
        egress[usize::from(port.index.0)].get_or_insert(device);
    }
    egress
}
