//! The workers' threads, one for each CPU of `cores`, and how a reload changes them.
//!
//! There are as many workers as were made at the start, because queues, packet memory and connections are
//! divided among them. Which thread runs which of them is another matter: a reload starts threads on the new
//! CPUs, ends the old ones, and gives their workers to the new ones. Packets wait in the receive rings for
//! that moment, and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, ensure};
use dataplane::device::any::AnyDevice;
use dataplane::worker::{self, Idle, Worker};
use tracing::{info, warn};

use super::workers::Workers;
use crate::{config, in_words};

/// A worker and its number.
type Numbered = (usize, Worker<AnyDevice>);

/// The CPUs that the process may run on.
#[derive(Clone, Debug)]
pub(super) struct Cpus(Vec<usize>);

impl Cpus {
    /// To be asked before the calling thread is pinned: afterwards it sees its own CPU only.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(super) fn of_this_process() -> anyhow::Result<Self> {
        let cpus = core_affinity::get_core_ids().context("cannot read the CPUs of this process")?;
        Ok(Self(cpus.into_iter().map(|cpu| cpu.id).collect()))
    }

    /// Those that workers are pinned to: those of the configuration, or all but the first, or the only
    /// one.
    ///
    /// # Errors
    /// A configured one does not exist.
    pub(super) fn for_workers(&self, configured: &[usize]) -> anyhow::Result<Vec<usize>> {
        for core in configured {
            ensure!(
                self.0.contains(core),
                "appliance.cores: found {core}, this process may run on: {}",
                list(&self.0)
            );
        }
        if !configured.is_empty() {
            return Ok(configured.to_vec());
        }
        Ok(match self.0.as_slice() {
            [_, rest @ ..] if !rest.is_empty() => rest.to_vec(),
            all => all.to_vec(),
        })
    }

    /// Keeps the calling thread, the control thread, off the workers' CPUs, if there is another one.
    pub(super) fn keep_off(&self, cores: &[usize]) {
        match self.0.iter().find(|cpu| !cores.contains(cpu)) {
            Some(cpu) if pin(*cpu) => {}
            Some(cpu) => warn!("cannot pin the control thread to CPU {cpu}"),
            None => {
                info!("the control thread shares a CPU with a worker: this machine has no other");
            }
        }
    }
}

fn pin(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

fn list(cpus: &[usize]) -> String {
    let cpus: Vec<_> = cpus.iter().map(usize::to_string).collect();
    cpus.join(", ")
}

/// A pinned thread, which runs the workers that it is sent.
#[derive(Debug)]
pub(super) struct Thread {
    core: usize,
    stop: Arc<AtomicBool>,
    workers: mpsc::Sender<Numbered>,
    handle: JoinHandle<Vec<Numbered>>,
}

impl Thread {
    fn start(number: usize, core: usize, idle: config::Idle) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (workers, arriving) = mpsc::channel();
        let idle = match idle {
            config::Idle::Adaptive => Idle::Adaptive,
            config::Idle::Busy => Idle::Busy,
            config::Idle::Interrupt => Idle::Interrupt,
        };
        let is_told = Arc::clone(&stop);
        let body = move || {
            if !pin(core) {
                warn!("worker {number}: cannot be pinned to CPU {core}");
            }
            worker::run(&arriving, idle, &is_told)
        };
        let handle = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(body)
            .with_context(|| format!("cannot start worker {number}"))?;
        Ok(Self {
            core,
            stop,
            workers,
            handle,
        })
    }

    /// One for each of `cores`, without workers.
    ///
    /// # Errors
    /// The kernel has no more threads. Those that were started end.
    pub(super) fn start_all(cores: &[usize], idle: config::Idle) -> anyhow::Result<Vec<Self>> {
        let numbered = cores.iter().enumerate();
        numbered
            .map(|(number, core)| Self::start(number, *core, idle))
            .collect()
    }

    pub(super) fn is_running(&self) -> bool {
        !self.handle.is_finished()
    }
}

/// Gives each worker to the thread that has it by its number.
pub(super) fn hand_out(workers: impl IntoIterator<Item = Numbered>, threads: &[Thread]) {
    for worker in workers {
        // One that has ended drops the worker; the tick finds out.
        drop(threads[place(worker.0, threads.len())].workers.send(worker));
    }
}

/// The CPU that runs a worker.
pub(super) fn core(worker: usize, threads: &[Thread]) -> usize {
    threads[place(worker, threads.len())].core
}

/// Which of so many threads runs a worker.
fn place(worker: usize, threads: usize) -> usize {
    worker % threads
}

/// Ends threads and returns their workers, to be given to others at once. Takes up to 50 ms while no
/// packets come; waits for threads, so it is to be called from one that may.
pub(super) fn stop(threads: Vec<Thread>, mut taken: impl FnMut(Numbered)) {
    for thread in &threads {
        thread.stop.store(true, Ordering::Relaxed);
    }
    for Thread { core, handle, .. } in threads {
        match handle.join() {
            Ok(workers) => workers.into_iter().for_each(&mut taken),
            Err(_) => warn!("a worker on CPU {core} had panicked"),
        }
    }
}

/// Threads for the cores of a new configuration, without workers yet.
#[derive(Debug)]
pub(super) struct Shift {
    threads: Vec<Thread>,
}

impl Workers {
    /// Makes the threads of a new configuration, if they are others; see [`relieve`](Self::relieve).
    ///
    /// # Errors
    /// Why its CPUs cannot be used without a restart.
    pub(super) fn shift(
        &self,
        cpus: &Cpus,
        old: &config::Appliance,
        new: &config::Appliance,
    ) -> anyhow::Result<Option<Shift>> {
        let wanted = self.wanted;
        if let Some(number) = new.workers.filter(|number| *number != wanted) {
            anyhow::bail!(
                "appliance.workers: found {number}, and the appliance was started with {wanted}: restart it, \
                 or undo the change"
            );
        }
        let mut cores = cpus.for_workers(&new.cores)?;
        if cores == cpus.for_workers(&old.cores)? && new.idle == old.idle {
            return Ok(None);
        }
        ensure!(
            cores.len() <= wanted as usize,
            "appliance.cores: found {}, and the appliance was started with {}, each of which is run by one: \
             list {wanted} or fewer, or restart it (appliance.workers leaves room for more)",
            in_words::count(cores.len(), "CPU"),
            in_words::count(wanted as usize, "worker"),
        );
        cores.truncate(self.handles.len());
        let threads = Thread::start_all(&cores, new.idle)?;
        Ok(Some(Shift { threads }))
    }

    /// Lets the threads of a shift take over from those that run: returns what is to be done in a thread
    /// that may wait for them.
    pub(super) fn relieve(&mut self, shift: Shift) -> impl FnOnce() + Send + 'static + use<> {
        let Shift { threads } = shift;
        for (number, handle) in self.handles.iter_mut().enumerate() {
            handle.core = core(number, &threads);
        }
        let seats: Vec<_> = threads.iter().map(|new| new.workers.clone()).collect();
        let old = std::mem::replace(&mut self.threads, threads);
        move || {
            stop(old, |worker| {
                drop(seats[place(worker.0, seats.len())].send(worker));
            });
        }
    }
}
