//! Interfaces that a reload adds or removes, while workers forward by the others.
//!
//! An [`Addition`] is made completely, program attached and sockets open, before
//! anything else changes, and undoes itself when it is dropped. Its sockets share the memory of
//! the workers, whose frames are divided anew: every queue has fewer in its fill ring than it
//! would have after a restart.
//!
//! All of it waits for the kernel or for workers: to be called from a thread that may.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use dataplane::bpf::Steering;
use dataplane::device::af_xdp::{self, AfXdp, Sharing, fill_share};
use dataplane::device::any::AnyDevice;
use dataplane::service::PortIndex;
use dataplane::worker::{Port, Request};
use dataplane::xsk::socket::BindMode;
use dataplane::xsk::umem::FrameSize;
use tracing::warn;

use super::interfaces::{self, Interface};
use super::workers::{self, Queue, Workers};
use crate::controller;

/// Fewest frames in a fill ring. With at least as many for every queue, a newcomer finds frames
/// although idle queues still have as many as when they were alone.
const LEAST_FILL: u32 = 768;
/// How long a worker may take to look at a request; it does so 20 times a second at least.
const WORKER_PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a worker that takes queues in.
#[derive(Clone, Debug)]
pub(super) struct Taker {
    requests: mpsc::Sender<Request<AnyDevice>>,
    sharing: Sharing,
    frames: u32,
    queues: usize,
    zero_copy: bool,
}

/// An interface that is ready to be used.
#[derive(Debug)]
pub(super) struct Addition {
    interface: Interface,
    steering: Steering,
    /// For each worker, until they are handed over.
    devices: Vec<Vec<AfXdp>>,
    queues: Vec<Vec<Queue>>,
    sharing: Vec<Option<Sharing>>,
}

impl Addition {
    pub(super) fn number(&self) -> PortIndex {
        self.interface.number
    }
}

/// Opens all that the new interfaces need, for workers that run.
///
/// # Errors
/// What could not be done, on which interface, and the remedy. Nothing is left behind.
pub(super) fn prepare(
    takers: &[Taker],
    frame_size: FrameSize,
    new: Vec<Interface>,
) -> anyhow::Result<Vec<Addition>> {
    let mut more = vec![0; takers.len()];
    let mut additions = Vec::with_capacity(new.len());
    for interface in new {
        refuse_misfits(&interface, takers, frame_size)?;
        let name = interface.link.name.clone();
        let link = &interface.link;
        let mut steering = Steering::attach(link.index, &link.name, interface.mode)?;
        let number_of_workers = u32::try_from(takers.len()).context("too many workers")?;
        let mut devices = Vec::with_capacity(takers.len());
        let mut queues = Vec::with_capacity(takers.len());
        let mut sharing = Vec::with_capacity(takers.len());
        for ((worker, taker), more) in (0..).zip(takers).zip(&mut more) {
            let own = std::slice::from_ref(&interface);
            let specs = workers::queues_of(worker, number_of_workers, own);
            let specs: Vec<_> = specs.into_iter().map(|(_, spec)| spec).collect();
            *more += specs.len();
            ensure!(
                fill_share(taker.frames, taker.queues + *more) >= LEAST_FILL,
                "interface {name}: the packet memory of worker {worker} was allocated for fewer queues: \
                 restart the appliance to add it"
            );
            let opened = af_xdp::open_more(&taker.sharing, &specs, interface.mode)?;
            let described = opened
                .iter()
                .map(|device| workers::register(&mut steering, device));
            queues.push(described.collect::<Result<_, _>>()?);
            sharing.push(opened.first().map(AfXdp::sharing));
            devices.push(opened);
        }
        additions.push(Addition {
            interface,
            steering,
            devices,
            queues,
            sharing,
        });
    }
    Ok(additions)
}

/// What the memory that workers have cannot be used for.
fn refuse_misfits(
    interface: &Interface,
    takers: &[Taker],
    frame_size: FrameSize,
) -> anyhow::Result<()> {
    let Interface {
        link, queues, mode, ..
    } = interface;
    let name = &link.name;
    let needed = interfaces::frame_size(std::slice::from_ref(interface))?;
    ensure!(
        needed as u32 <= frame_size as u32,
        "interface {name}: MTU {} is longer than the frames of the running workers: lower it to {}, or restart the appliance",
        link.mtu,
        interfaces::longest_mtu(frame_size)
    );
    ensure!(
        queues.len() >= takers.len(),
        "interface {name}: it has {}, and {} run, each of which needs one: \
         add queues (ethtool -L {name} combined {}), or restart the appliance",
        crate::in_words::count(queues.len(), "receive queue"),
        crate::in_words::count(takers.len(), "worker"),
        takers.len(),
    );
    let zero_copy = takers.iter().any(|taker| taker.zero_copy);
    match mode {
        BindMode::ZeroCopy if !zero_copy => bail!(
            "interface {name}: mode zero-copy: the running workers' memory is in copy mode: restart the appliance, or set mode to auto"
        ),
        BindMode::Copy | BindMode::Generic if zero_copy => bail!(
            "interface {name}: mode {mode}: the running workers' memory is in zero-copy mode: restart the appliance, or set mode to auto"
        ),
        BindMode::Auto | BindMode::ZeroCopy | BindMode::Copy | BindMode::Generic => Ok(()),
    }
}

/// Gives workers the sockets of additions; they serve them when this returns. Nothing is steered to them yet.
///
/// # Errors
/// A worker does not answer.
pub(super) fn hand_over(takers: &[Taker], additions: &mut [Addition]) -> anyhow::Result<()> {
    let mut of_worker: Vec<Vec<Port<AnyDevice>>> = takers.iter().map(|_| Vec::new()).collect();
    for addition in &mut *additions {
        let index = addition.interface.number;
        let devices = std::mem::take(&mut addition.devices);
        for (ports, devices) in of_worker.iter_mut().zip(devices) {
            let devices = devices.into_iter().map(AnyDevice::AfXdp);
            ports.extend(devices.map(|device| Port { index, device }));
        }
    }
    let mut answers = Vec::with_capacity(takers.len());
    for (taker, ports) in takers.iter().zip(of_worker) {
        let (served, answer) = mpsc::channel();
        let request = Request::Add(ports, served);
        // One that has ended drops the request, which looks like an answer; the tick finds it.
        drop(taker.requests.send(request));
        answers.push(answer);
    }
    let silent = answers.into_iter().position(|answer| {
        answer.recv_timeout(WORKER_PATIENCE) != Err(mpsc::RecvTimeoutError::Disconnected)
    });
    if let Some(worker) = silent {
        // The others have their sockets already; left to them, the interface could not be taken up again.
        let requests: Vec<_> = takers.iter().map(|taker| taker.requests.clone()).collect();
        for addition in additions {
            take_back(&requests, addition.number());
        }
        bail!("worker {worker} does not answer");
    }
    Ok(())
}

/// Takes an interface's devices from workers, closes them, and returns their frames.
pub(super) fn take_back(requests: &[mpsc::Sender<Request<AnyDevice>>], index: PortIndex) {
    let mut answers = Vec::with_capacity(requests.len());
    for requests in requests {
        let (reply, answer) = mpsc::channel();
        drop(requests.send(Request::Remove(index, reply)));
        answers.push((requests, answer));
    }
    for (requests, answer) in answers {
        let ports = match answer.recv_timeout(WORKER_PATIENCE) {
            Ok(ports) => ports,
            // It has ended, and its sockets with it.
            Err(mpsc::RecvTimeoutError::Disconnected) => continue,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                warn!(
                    "a worker did not give back its sockets of an interface in {WORKER_PATIENCE:?}: their frames are lost"
                );
                continue;
            }
        };
        for port in ports {
            if let AnyDevice::AfXdp(device) = port.device {
                drop(requests.send(Request::Frames(device.close())));
            }
        }
    }
}

impl Workers {
    /// What is needed to give more queues to each worker.
    pub(super) fn takers(&self) -> Vec<Taker> {
        let handles = self.handles.iter();
        let taker = handles.filter_map(|handle| {
            Some(Taker {
                requests: handle.requests.clone(),
                sharing: handle.sharing.values().next()?.clone(),
                frames: handle.frames,
                queues: handle.queues.len(),
                zero_copy: handle.queues.iter().any(|queue| queue.zero_copy),
            })
        });
        taker.collect()
    }

    /// Counts additions, which were handed over, among the interfaces.
    pub(super) fn adopt(&mut self, additions: Vec<Addition>) {
        for addition in additions {
            let number = addition.interface.number;
            let mut steering = BTreeMap::from([(number, addition.steering)]);
            let queues = addition.queues.iter().flatten();
            workers::say_modes(&[addition.interface], &steering, queues);
            self.steering.append(&mut steering);
            let handles = self.handles.iter_mut();
            for ((handle, own), sharing) in handles.zip(addition.queues).zip(addition.sharing) {
                handle.queues.extend(own);
                handle
                    .sharing
                    .extend(sharing.map(|sharing| (number, sharing)));
            }
        }
    }

    /// Detaches the program from an interface and forgets it; what workers still have of it is
    /// to be taken back.
    pub(super) fn forget(&mut self, port: &controller::Port) {
        self.steering.remove(&port.number);
        for handle in &mut self.handles {
            handle.sharing.remove(&port.number);
            let queues = &mut handle.queues;
            queues.retain(|queue| queue.interface != port.name);
        }
    }

    /// By these, workers are asked.
    pub(super) fn requests(&self) -> Vec<mpsc::Sender<Request<AnyDevice>>> {
        let handles = self.handles.iter();
        handles.map(|handle| handle.requests.clone()).collect()
    }
}
