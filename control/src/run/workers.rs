//! Starting and stopping the workers.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use anyhow::Context;
use dataplane::bpf::{Steering, XdpError};
use dataplane::counters::{Counters, ServerTotals, WorkerStatistics};
use dataplane::device::af_xdp::{self, AfXdp, FRAMES_PER_QUEUE, Sharing};
use dataplane::device::any::AnyDevice;
use dataplane::device::tap::{self, Tap, TapInterface};
use dataplane::director::{Director, DirectorOptions};
use dataplane::flow::FlowHasher;
use dataplane::handoff;
use dataplane::limits::ServiceTotals;
use dataplane::service::{MAX_SERVERS, PortIndex, ServerId, VirtualServerId};
use dataplane::snapshot::Published;
use dataplane::worker::{Port, Request, Worker};
use dataplane::xsk::socket::{BindMode, QueueSpec};
use dataplane::xsk::umem::{FramePool, FrameSize, Umem};
use tracing::{debug, info, warn};

use super::interfaces::{self, Interface, WAY_BACK};
use super::threads::{self, Thread};
use crate::{config, controller, in_words};

/// Frames of a worker besides those of its queues: for packets that wait.
const SPARE_FRAMES: u32 = 512;

/// Devices of a worker that are counted for.
const MOST_DEVICES: usize = 256;

/// A queue that a worker serves, as `show workers` tells it.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) interface: String,
    pub(super) queue: u32,
    pub(super) native: bool,
    pub(super) zero_copy: bool,
}

/// What is known of a running worker.
#[derive(Debug)]
pub(super) struct WorkerHandle {
    pub(super) core: usize,
    /// In the order of the worker's devices, of which the way back is the first, if there is one.
    pub(super) queues: Vec<Queue>,
    pub(super) statistics: Arc<WorkerStatistics>,
    pub(super) requests: mpsc::Sender<Request<AnyDevice>>,
    /// Of its packet memory.
    pub(super) frames: u32,
    /// By these, more queues are opened: of each interface the first of this worker's sockets.
    pub(super) sharing: BTreeMap<PortIndex, Sharing>,
}

/// The running workers and the steering programs that feed them.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) handles: Vec<WorkerHandle>,
    /// The interface that leads back to the kernel.
    pub(super) way_back: Option<controller::Port>,
    pub(super) steering: BTreeMap<PortIndex, Steering>,
    /// Of all workers' packet memory.
    pub(super) frame_size: FrameSize,
    /// How many there were to be, if interfaces had queues enough.
    pub(super) wanted: u32,
    /// Those that run them, each every so many.
    pub(super) threads: Vec<Thread>,
}

impl Workers {
    /// Attaches the steering program to every interface, opens all sockets
    /// and starts the workers. Nothing is steered yet.
    ///
    /// # Errors
    /// What could not be done, on which interface, and the remedy. Nothing is
    /// left behind.
    pub(super) fn start(
        interfaces: &[Interface],
        cores: &[usize],
        appliance: &config::Appliance,
        published: &Published,
    ) -> anyhow::Result<Self> {
        let wanted = u32::try_from(cores.len()).context("too many workers")?;
        let wanted = appliance.workers.unwrap_or(wanted).max(wanted);
        let workers = usable(wanted, interfaces);
        let cores = &cores[..cores.len().min(workers as usize)];
        let mode = interfaces::socket_mode(interfaces)?;
        let frame_size = interfaces::frame_size(interfaces)?;
        let mut steering = BTreeMap::new();
        for Interface {
            number, link, mode, ..
        } in interfaces
        {
            let attached = Steering::attach(link.index, &link.name, *mode)
                .inspect_err(|error| debug!("{error:?}"))?;
            steering.insert(*number, attached);
        }
        let way_back = way_back();
        let statistics: Vec<_> = (0..workers)
            .map(|_| Arc::new(WorkerStatistics::new(MAX_SERVERS, MOST_DEVICES)))
            .collect();
        let hasher = FlowHasher::random();
        let memory: Vec<_> = (0..workers)
            .map(|worker| {
                memory_of(
                    queues_of(worker, workers, interfaces).len(),
                    workers,
                    frame_size,
                )
            })
            .collect::<anyhow::Result<_>>()?;
        let umems: Vec<_> = memory.iter().map(|(umem, _)| Arc::clone(umem)).collect();
        let handoff = handoff::connect(&umems, appliance.max_connections)
            .context("cannot connect the workers")?;
        let mut handoff = handoff.into_iter();
        let mut prepared = Vec::with_capacity(memory.len());
        for (worker, (umem, mut pool)) in (0..).zip(memory) {
            let specs = queues_of(worker, workers, interfaces);
            let queues: Vec<QueueSpec> = specs.iter().map(|(_, spec)| spec.clone()).collect();
            let devices = af_xdp::open_worker(&umem, &mut pool, &queues, mode)?;
            let mut described = Vec::with_capacity(devices.len());
            let mut ports = Vec::with_capacity(devices.len() + 1);
            if let Some(interface) = &way_back {
                let device = AnyDevice::Tap(Tap::new(interface.try_clone()?, &umem));
                let index = WAY_BACK;
                ports.push(Port { index, device });
            }
            let mut sharing = BTreeMap::new();
            for ((index, _), device) in specs.into_iter().zip(devices) {
                let steering = steering.get_mut(&index).context("no steering program")?;
                described.push(register(steering, &device)?);
                sharing.entry(index).or_insert_with(|| device.sharing());
                let device = AnyDevice::AfXdp(device);
                ports.push(Port { index, device });
            }
            let options = DirectorOptions {
                max_connections: appliance.max_connections.div_ceil(workers),
                hasher: hasher.clone(),
                worker,
                kernel: way_back.is_some().then_some(WAY_BACK),
            };
            let director = Director::new(options, Arc::clone(published), &statistics);
            let (requests, receiver) = mpsc::channel();
            let frames = umem.frames();
            let mut worker = Worker::new(ports, umem, pool, director, receiver);
            if let Some(handoff) = handoff.next() {
                worker = worker.with_handoff(handoff);
            }
            prepared.push((described, sharing, frames, requests, worker));
        }
        say_modes(
            interfaces,
            &steering,
            prepared.iter().flat_map(|(queues, ..)| queues),
        );
        let mut this = Self {
            handles: Vec::with_capacity(prepared.len()),
            way_back: way_back.as_ref().map(|interface| controller::Port {
                number: WAY_BACK,
                // No route leads through it: to know when it is gone.
                index: nix::net::if_::if_nametoindex(interface.name()).unwrap_or(0),
                name: interface.name().to_owned(),
                mac: interface.mac().0,
                up: true,
                gone: false,
            }),
            steering,
            frame_size,
            wanted,
            threads: Thread::start_all(cores, appliance.idle)?,
        };
        let mut workers = Vec::with_capacity(prepared.len());
        for (number, (queues, sharing, frames, requests, worker)) in
            prepared.into_iter().enumerate()
        {
            workers.push((number, worker));
            this.handles.push(WorkerHandle {
                core: threads::core(number, &this.threads),
                queues,
                statistics: Arc::clone(&statistics[number]),
                requests,
                frames,
                sharing,
            });
        }
        threads::hand_out(workers, &this.threads);
        Ok(this)
    }

    /// The oldest snapshot generation that any worker works with.
    #[must_use]
    pub(super) fn oldest_generation(&self) -> u64 {
        let generations = self
            .handles
            .iter()
            .map(|handle| handle.statistics.generation.load(Ordering::Acquire));
        generations.min().unwrap_or(u64::MAX)
    }

    /// What all workers together counted for a server.
    #[must_use]
    pub(super) fn totals(&self, id: ServerId) -> ServerTotals {
        let mut sum = ServerTotals::default();
        for server in self
            .handles
            .iter()
            .filter_map(|handle| handle.statistics.server(id))
        {
            sum += server.totals();
        }
        sum
    }

    /// What all workers counted for a virtual server.
    pub(super) fn service_totals(&self, id: VirtualServerId) -> ServiceTotals {
        let mut sum = ServiceTotals::default();
        let services = self.handles.iter();
        for service in services.filter_map(|handle| handle.statistics.service(id)) {
            sum += service.totals();
        }
        sum
    }

    /// Every worker's counters.
    pub(super) fn counters(&self) -> impl Iterator<Item = Counters> {
        self.handles
            .iter()
            .map(|handle| handle.statistics.counters())
    }

    /// True while every worker's thread runs.
    #[must_use]
    pub(super) fn all_run(&self) -> bool {
        self.threads.iter().all(Thread::is_running)
    }
}

impl Drop for Workers {
    /// Detaches the programs first, so that packets go to the kernel again
    /// before nobody takes them, then ends the threads.
    fn drop(&mut self) {
        self.steering.clear();
        threads::stop(std::mem::take(&mut self.threads), drop);
    }
}

/// A worker needs a queue on every interface: it sends by that. With fewer queues there are fewer
/// workers, and it is said.
fn usable(wanted: u32, interfaces: &[Interface]) -> u32 {
    let fewest = interfaces
        .iter()
        .min_by_key(|interface| interface.queues.len());
    let Some(Interface { link, queues, .. }) = fewest else {
        return wanted;
    };
    let number = u32::try_from(queues.len()).unwrap_or(u32::MAX);
    if number < wanted {
        warn!(
            "interface {} has {}, so {} can run instead of {wanted}: add queues (ethtool -L {} combined N), \
             or list fewer cores",
            link.name,
            in_words::count(queues.len(), "receive queue"),
            in_words::count(queues.len(), "worker"),
            link.name
        );
    }
    number.min(wanted)
}

/// The interface by which workers give back what is not theirs. Without it the appliance works, and
/// drops that.
fn way_back() -> Option<TapInterface> {
    match tap::create() {
        Ok(interface) => Some(interface),
        Err(error) => {
            let error = anyhow::Error::new(error);
            warn!(
                "no way back to the kernel: {error:#}; dropped are: what real servers of NAT and FULLNAT \
                 send for themselves from the ports of their service, and fragments to other ports \
                 of a virtual address; is there /dev/net/tun (modprobe tun), and the right to use \
                 it (CAP_NET_ADMIN)?"
            );
            None
        }
    }
}

/// The packet memory of one worker of `workers`, with so many queues.
fn memory_of(
    queues: usize,
    workers: u32,
    frame_size: FrameSize,
) -> anyhow::Result<(Arc<Umem>, FramePool)> {
    let queues = u32::try_from(queues).context("too many queues")?;
    let frames = queues * FRAMES_PER_QUEUE + SPARE_FRAMES + handoff::frames(workers);
    Umem::new(frames, frame_size).context("cannot map the packet memory")
}

/// Has a queue's packets given to a socket from now on.
pub(super) fn register(steering: &mut Steering, device: &AfXdp) -> Result<Queue, XdpError> {
    let spec = device.spec();
    steering.register_socket(spec.queue, device)?;
    Ok(Queue {
        native: steering.attached().mode == dataplane::bpf::Mode::Native,
        zero_copy: device.is_zero_copy(),
        interface: spec.interface.clone(),
        queue: spec.queue,
    })
}

/// The queues of one worker: of each interface every `workers`-th.
pub(super) fn queues_of(
    worker: u32,
    workers: u32,
    interfaces: &[Interface],
) -> Vec<(PortIndex, QueueSpec)> {
    let mut specs = Vec::new();
    for Interface {
        number: index,
        link,
        queues,
        ..
    } in interfaces
    {
        for (number, queue) in (0..).zip(queues) {
            if number % workers == worker {
                let spec = QueueSpec {
                    ifindex: link.index,
                    interface: link.name.clone(),
                    queue: *queue,
                };
                specs.push((*index, spec));
            }
        }
    }
    specs
}

/// One line for each interface: how packets get in and out, and why not faster.
pub(super) fn say_modes<'a>(
    interfaces: &[Interface],
    steering: &BTreeMap<PortIndex, Steering>,
    queues: impl Iterator<Item = &'a Queue> + Clone,
) {
    for interface in interfaces {
        let Some(steering) = steering.get(&interface.number) else {
            continue;
        };
        let name = &interface.link.name;
        let mut own = queues.clone().filter(|queue| queue.interface == *name);
        let zero_copy = own.any(|queue| queue.zero_copy);
        let attached = steering.attached();
        let mode = match attached.mode {
            dataplane::bpf::Mode::Native => "native XDP",
            dataplane::bpf::Mode::Generic => "generic XDP",
        };
        let copy = if zero_copy { "zero-copy" } else { "copy mode" };
        let count = in_words::count(interface.queues.len(), "queue");
        match &attached.fallback {
            Some(why) => {
                warn!("interface {name}: {mode}, which is slow, since {why}; {copy}, {count}")
            }
            None if zero_copy || interface.mode != BindMode::Auto => {
                info!("interface {name}: {mode}, {copy}, {count}")
            }
            None => warn!(
                "interface {name}: {mode}, {copy}, since its driver, or that of another interface in use, has no zero-copy; {count}"
            ),
        }
        interfaces::say_traps(interface);
    }
}
