//! Starting and stopping the workers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, ensure};
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
use dataplane::worker::{Idle, Port, Request, Worker};
use dataplane::xsk::socket::{BindMode, QueueSpec};
use dataplane::xsk::umem::{FramePool, FrameSize, Umem};
use tracing::{info, warn};

use super::interfaces::{self, Interface, WAY_BACK};
use crate::{config, in_words};

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
    /// In the order of the worker's devices, of which the way back is the first.
    pub(super) queues: Vec<Queue>,
    /// The interface that leads back to the kernel.
    pub(super) way_back: Option<String>,
    pub(super) statistics: Arc<WorkerStatistics>,
    pub(super) requests: mpsc::Sender<Request<AnyDevice>>,
    /// Of its packet memory.
    pub(super) frames: u32,
    /// By these, more queues are opened: of each interface the first of this worker's sockets.
    pub(super) sharing: BTreeMap<PortIndex, Sharing>,
    thread: Option<JoinHandle<()>>,
}

/// The running workers and the steering programs that feed them.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) handles: Vec<WorkerHandle>,
    pub(super) steering: BTreeMap<PortIndex, Steering>,
    /// Of all workers' packet memory.
    pub(super) frame_size: FrameSize,
    stop: Arc<AtomicBool>,
    started: Instant,
}

/// The cores that workers are pinned to: those of the configuration, or all
/// but the first, or the only one.
///
/// # Errors
/// A configured core does not exist.
pub(super) fn cores(configured: &[usize]) -> anyhow::Result<Vec<usize>> {
    let available =
        core_affinity::get_core_ids().context("cannot read the CPUs of this process")?;
    let available: Vec<usize> = available.into_iter().map(|core| core.id).collect();
    let list = || {
        available
            .iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    for core in configured {
        ensure!(
            available.contains(core),
            "appliance.cores: found {core}, this process may run on: {}",
            list()
        );
    }
    if !configured.is_empty() {
        return Ok(configured.to_vec());
    }
    Ok(match available.as_slice() {
        [_, rest @ ..] if !rest.is_empty() => rest.to_vec(),
        all => all.to_vec(),
    })
}

/// Keeps the calling thread, the control thread, off the workers' cores, if
/// there is another one.
pub(super) fn keep_off(worker_cores: &[usize]) {
    let all = core_affinity::get_core_ids().unwrap_or_default();
    match all.iter().find(|core| !worker_cores.contains(&core.id)) {
        Some(core) if core_affinity::set_for_current(*core) => {}
        Some(core) => warn!("cannot pin the control thread to CPU {}", core.id),
        None => info!("the control thread shares a CPU with a worker: this machine has no other"),
    }
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
        cores: Vec<usize>,
        appliance: &config::Appliance,
        published: &Published,
    ) -> anyhow::Result<Self> {
        let cores = usable_cores(cores, interfaces);
        let mode = interfaces::socket_mode(interfaces)?;
        let frame_size = interfaces::frame_size(interfaces)?;
        let mut steering = BTreeMap::new();
        for Interface {
            number, link, mode, ..
        } in interfaces
        {
            let attached = Steering::attach(link.index, &link.name, *mode)?;
            steering.insert(*number, attached);
        }
        let workers = u32::try_from(cores.len()).context("too many workers")?;
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
        let mut prepared = Vec::with_capacity(cores.len());
        for ((worker, core), (umem, mut pool)) in (0..).zip(cores).zip(memory) {
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
            prepared.push((core, described, sharing, frames, requests, worker));
        }
        say_modes(
            interfaces,
            &steering,
            prepared.iter().flat_map(|(_, queues, ..)| queues),
        );
        let stop = Arc::new(AtomicBool::new(false));
        let mut this = Self {
            handles: Vec::new(),
            steering,
            frame_size,
            stop,
            started: Instant::now(),
        };
        for (number, (core, queues, sharing, frames, requests, worker)) in
            prepared.into_iter().enumerate()
        {
            let thread = this.spawn(number, core, worker, appliance.idle)?;
            this.handles.push(WorkerHandle {
                core,
                queues,
                way_back: way_back
                    .as_ref()
                    .map(|interface| interface.name().to_owned()),
                statistics: Arc::clone(&statistics[number]),
                requests,
                frames,
                sharing,
                thread: Some(thread),
            });
        }
        Ok(this)
    }

    fn spawn(
        &self,
        number: usize,
        core: usize,
        worker: Worker<AnyDevice>,
        idle: config::Idle,
    ) -> anyhow::Result<JoinHandle<()>> {
        let stop = Arc::clone(&self.stop);
        let idle = match idle {
            config::Idle::Adaptive => Idle::Adaptive,
            config::Idle::Busy => Idle::Busy,
            config::Idle::Interrupt => Idle::Interrupt,
        };
        let body = move || {
            if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
                warn!("worker {number}: cannot be pinned to CPU {core}");
            }
            worker.run(idle, &stop);
        };
        std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(body)
            .with_context(|| format!("cannot start worker {number}"))
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

    /// The workers' time, in milliseconds; each one's own is up to a second
    /// behind.
    #[must_use]
    pub(super) fn clock(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
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
        self.handles.iter().all(|handle| {
            handle
                .thread
                .as_ref()
                .is_some_and(|thread| !thread.is_finished())
        })
    }
}

impl Drop for Workers {
    /// Detaches the programs first, so that packets go to the kernel again
    /// before nobody takes them, then ends the threads.
    fn drop(&mut self) {
        self.steering.clear();
        self.stop.store(true, Ordering::Relaxed);
        for handle in &mut self.handles {
            if let Some(thread) = handle.thread.take()
                && thread.join().is_err()
            {
                warn!("a worker on CPU {} had panicked", handle.core);
            }
        }
    }
}

/// A worker needs a queue on every interface: it sends by that. With fewer
/// queues than cores the rest of the cores is not used, and said.
fn usable_cores(mut cores: Vec<usize>, interfaces: &[Interface]) -> Vec<usize> {
    let fewest = interfaces
        .iter()
        .min_by_key(|interface| interface.queues.len());
    if let Some(Interface { link, queues, .. }) = fewest
        && queues.len() < cores.len()
    {
        let unused: Vec<String> = cores
            .split_off(queues.len())
            .iter()
            .map(usize::to_string)
            .collect();
        warn!(
            "interface {} has {}, so {} can run and CPU {} stays unused: \
             add queues (ethtool -L {} combined N) or list fewer cores",
            link.name,
            in_words::count(queues.len(), "receive queue"),
            in_words::count(cores.len(), "worker"),
            unused.join(", "),
            link.name
        );
    }
    cores
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
