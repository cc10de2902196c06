//! The steering program (`bpf/steer.bpf.c`): loaded, attached to an interface,
//! told what to steer and to which sockets, and detached.
//!
//! Invariants:
//! - Each interface has its own copy of the program and of its maps: sockets are
//!   found by receive queue alone.
//! - The program hangs on a `bpf_link`, which the kernel takes away with the
//!   process: neither an exit nor a SIGKILL leaves anything attached.
//!
//! Needs Linux 5.10. Does not look at packets: the program does, by the [`Rule`]s it
//! is given.

mod error;
mod prefix;
mod rules;

pub use error::SteeringError;
pub use prefix::{BadPrefix, Prefix};
pub use rules::Rule;

use std::error::Error;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{Xdp, xdp::XdpMode};

use self::error::Step;
use self::rules::Tables;
use crate::service::MacAddress;
use crate::xsk::socket::BindMode;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/steer.bpf.o");

/// What the program counts, and the `struct counters` of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SteeringCounters {
    /// Packets given to a socket. What a full ring drops after that, the socket
    /// counts.
    pub steered: u64,
    /// Packets of no service, passed to the kernel.
    pub passed: u64,
    /// Packets of a service whose queue has no socket, passed to the kernel.
    pub no_socket: u64,
    /// Frames to another host or to a group, passed to the kernel.
    pub not_for_us: u64,
    /// Packets from a denied prefix, dropped.
    pub denied: u64,
}

// SAFETY: five integers: no padding, and every bit pattern is valid.
unsafe impl aya::Pod for SteeringCounters {}

/// Where in the receive path the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack: slower, and on a veth every packet counts as of queue 0.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// How the program got attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// What was chosen.
    pub mode: Mode,
    /// Why it is not native, when that was tried; to be said aloud.
    pub fallback: Option<String>,
}

/// Most MAC addresses of an interface.
pub const OWN_MACS: usize = 4;

/// The program on one interface; dropping it detaches it.
pub struct Steering {
    interface: String,
    attached: Attached,
    tables: Tables,
    own_macs: Array<MapData, [u64; OWN_MACS]>,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, SteeringCounters>,
    _link: FdLink,
}

impl Steering {
    /// Loads the program and attaches it to the interface, which is in the network
    /// namespace of the calling thread. It passes every packet to the kernel until
    /// it is told of the interface's MAC addresses, of rules and of sockets.
    ///
    /// Mode `Generic` attaches in the network stack, `Copy` and `ZeroCopy` in the
    /// driver, `Auto` in the driver or, where it cannot, in the network stack.
    ///
    /// # Errors
    /// No rights, another XDP program on the interface, or a driver without native
    /// XDP where that was demanded; each with what to do.
    pub fn attach(ifindex: u32, interface: &str, mode: BindMode) -> Result<Self, SteeringError> {
        let failed = |step, source| SteeringError {
            interface: interface.to_owned(),
            step,
            source,
        };
        let load = |source: LoadError| failed(Step::Load, source);

        let mut object = Ebpf::load(OBJECT).map_err(|error| load(error.into()))?;
        let tables = Tables::take(&mut object).map_err(load)?;
        let own_macs = take(&mut object, "own_macs").map_err(load)?;
        let sockets = take(&mut object, "sockets").map_err(load)?;
        let counters = take(&mut object, "counters").map_err(load)?;
        let program: &mut Xdp = object
            .program_mut("steer")
            .ok_or_else(|| load("steer.bpf.o has no program steer".into()))?
            .try_into()
            .map_err(|error: aya::programs::ProgramError| load(error.into()))?;
        program.load().map_err(|error| load(error.into()))?;

        let mut attach = |mode| {
            link(program, ifindex, mode).map_err(|source| failed(Step::Attach(mode), source))
        };
        let (mode, fallback, link) = match mode {
            BindMode::Generic => (Mode::Generic, None, attach(Mode::Generic)?),
            BindMode::Copy | BindMode::ZeroCopy => (Mode::Native, None, attach(Mode::Native)?),
            BindMode::Auto => match attach(Mode::Native) {
                Ok(link) => (Mode::Native, None, link),
                Err(error) if error.has_alternative() => {
                    let link = attach(Mode::Generic)?;
                    (Mode::Generic, Some(error.reason()), link)
                }
                Err(error) => return Err(error),
            },
        };
        Ok(Self {
            interface: interface.to_owned(),
            attached: Attached { mode, fallback },
            tables,
            own_macs,
            sockets,
            counters,
            _link: link,
        })
    }

    /// The interface's name when it was attached.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// How the program is attached.
    #[must_use]
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// The MAC addresses that the interface answers to, at most [`OWN_MACS`]; those
    /// beyond are ignored. Frames to others are the kernel's, whatever the rules say.
    ///
    /// # Errors
    /// What the kernel says; none is expected.
    pub fn set_macs(&mut self, macs: &[MacAddress]) -> Result<(), SteeringError> {
        let mut own = [0; OWN_MACS];
        for (own, MacAddress([a, b, c, d, e, f])) in own.iter_mut().zip(macs) {
            *own = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, 0, 0]);
        }
        let set = self.own_macs.set(0, own, 0);
        set.map_err(|error| self.failed(Step::SetMacs, error))
    }

    /// Steers by this rule, too, from now on. Adding it again does nothing.
    ///
    /// # Errors
    /// The table of such rules is full.
    pub fn add(&mut self, rule: &Rule) -> Result<(), SteeringError> {
        let added = self.tables.add(rule);
        added.map_err(|error| self.failed(Step::Add(*rule), error))
    }

    /// Does not steer by this rule from now on. Removing it again does nothing.
    ///
    /// # Errors
    /// What the kernel says; none is expected.
    pub fn remove(&mut self, rule: &Rule) -> Result<(), SteeringError> {
        let removed = self.tables.remove(rule);
        removed.map_err(|error| self.failed(Step::Remove(*rule), error))
    }

    /// Gives the packets of a receive queue to an AF_XDP socket, which must be bound
    /// to that queue of this interface. The kernel takes the entry out when the
    /// socket is closed.
    ///
    /// # Errors
    /// The queue's number is above 1023, or the descriptor is no AF_XDP socket.
    pub fn register_socket(&mut self, queue: u32, socket: impl AsFd) -> Result<(), SteeringError> {
        let fd = socket.as_fd().as_raw_fd();
        let set = self.sockets.set(queue, fd, 0);
        set.map_err(|error| self.failed(Step::RegisterSocket(queue), error))
    }

    /// What the program counted since it was loaded, all CPUs together.
    ///
    /// # Errors
    /// What the kernel says; none is expected.
    pub fn counters(&self) -> Result<SteeringCounters, SteeringError> {
        let per_cpu = self.counters.get(&0, 0);
        let per_cpu = per_cpu.map_err(|error| self.failed(Step::ReadCounters, error))?;
        let mut total = SteeringCounters::default();
        for cpu in per_cpu.iter() {
            total.steered += cpu.steered;
            total.passed += cpu.passed;
            total.no_socket += cpu.no_socket;
            total.not_for_us += cpu.not_for_us;
            total.denied += cpu.denied;
        }
        Ok(total)
    }

    fn failed(&self, step: Step, error: MapError) -> SteeringError {
        SteeringError {
            interface: self.interface.clone(),
            step,
            source: error.into(),
        }
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering")
            .field("interface", &self.interface)
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}

/// Why the object could not be used.
type LoadError = Box<dyn Error + Send + Sync>;

/// A map of the object.
fn take<T>(object: &mut Ebpf, name: &str) -> Result<T, LoadError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = object.take_map(name);
    let map = map.ok_or_else(|| format!("steer.bpf.o has no map {name}"))?;
    Ok(T::try_from(map)?)
}

/// Attaches the program by a `bpf_link`.
fn link(
    program: &mut Xdp,
    ifindex: u32,
    mode: Mode,
) -> Result<FdLink, Box<dyn Error + Send + Sync>> {
    let mode = match mode {
        Mode::Native => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    let id = program.attach_to_if_index(ifindex, mode)?;
    // On kernels before 5.9 the library falls back to netlink, and what is
    // attached so would outlive a SIGKILL. Dropped here, it is detached.
    Ok(FdLink::try_from(program.take_link(id)?)?)
}
