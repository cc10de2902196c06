//! The steering program (`bpf/steer.bpf.c`): loaded, attached to an interface,
//! told about services and sockets, and detached.
//!
//! Invariants:
//! - Each interface has its own copy of the program and of its maps: sockets are
//!   found by receive queue alone.
//! - The program hangs on a `bpf_link`, which the kernel takes away with the
//!   process: neither an exit nor a SIGKILL leaves anything attached.
//!
//! Needs Linux 5.10. Does not decide which packets are a service's: the program
//! does.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{Xdp, xdp::XdpMode};
use rustix::io::Errno;

use crate::service::ServiceKey;
use crate::xsk::socket::BindMode;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/steer.bpf.o");

/// `struct service_key` of the program.
#[derive(Clone, Copy)]
#[repr(C)]
struct Key {
    address: [u8; 16],
    /// Network byte order.
    port: [u8; 2],
    protocol: u8,
    zero: u8,
}

// SAFETY: bytes only: no padding, and every bit pattern is valid.
unsafe impl aya::Pod for Key {}

impl From<&ServiceKey> for Key {
    fn from(key: &ServiceKey) -> Self {
        Self {
            address: key.address.octets(),
            port: key.port.to_be_bytes(),
            protocol: key.protocol as u8,
            zero: 0,
        }
    }
}

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
}

// SAFETY: three integers: no padding, and every bit pattern is valid.
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

/// The program on one interface; dropping it detaches it.
pub struct Steering {
    interface: String,
    attached: Attached,
    services: HashMap<MapData, Key, u32>,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, SteeringCounters>,
    _link: FdLink,
}

impl Steering {
    /// Loads the program and attaches it to the interface, which is in the network
    /// namespace of the calling thread. It passes every packet to the kernel until
    /// it is told of services and sockets.
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
        let load = |source: Box<dyn Error + Send + Sync>| failed(Step::Load, source);

        let mut object = aya::Ebpf::load(OBJECT).map_err(|error| load(error.into()))?;
        let mut map = |name: &str| {
            let map = object.take_map(name);
            map.ok_or_else(|| load(format!("steer.bpf.o has no map {name}").into()))
        };
        fn typed<T: TryFrom<Map, Error = MapError>>(map: Map) -> Result<T, MapError> {
            map.try_into()
        }
        let services = typed(map("services")?).map_err(|error| load(error.into()))?;
        let sockets = typed(map("sockets")?).map_err(|error| load(error.into()))?;
        let counters = typed(map("counters")?).map_err(|error| load(error.into()))?;
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
            services,
            sockets,
            counters,
            _link: link,
        })
    }

    /// How the program is attached.
    #[must_use]
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// Steers the packets of a service from now on. Adding it again does nothing.
    ///
    /// # Errors
    /// The table of services is full (65,536 of them).
    pub fn add_service(&mut self, service: &ServiceKey) -> Result<(), SteeringError> {
        let added = self.services.insert(Key::from(service), 1, 0);
        added.map_err(|error| self.failed(Step::AddService(*service), error))
    }

    /// Leaves the packets of a service to the kernel from now on. Removing it
    /// again does nothing.
    ///
    /// # Errors
    /// What the kernel says; none is expected.
    pub fn remove_service(&mut self, service: &ServiceKey) -> Result<(), SteeringError> {
        match self.services.remove(&Key::from(service)) {
            Err(error) if errno(&error) != Some(Errno::NOENT) => {
                Err(self.failed(Step::RemoveService(*service), error))
            }
            _ => Ok(()),
        }
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

/// The kernel's error at the bottom of a chain of errors.
fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Errno::from_io_error(error);
        }
        next = error.source();
    }
    None
}

/// What was being done when it failed.
#[derive(Clone, Copy, Debug)]
enum Step {
    Load,
    Attach(Mode),
    AddService(ServiceKey),
    RemoveService(ServiceKey),
    RegisterSocket(u32),
    ReadCounters,
}

/// Something about the steering program failed; the source says what the kernel
/// or the loader said.
#[derive(Debug)]
pub struct SteeringError {
    interface: String,
    step: Step,
    source: Box<dyn Error + Send + Sync>,
}

impl SteeringError {
    fn errno(&self) -> Option<Errno> {
        errno(self.source.as_ref())
    }

    /// True when native mode failed for a reason that generic mode may not have.
    fn has_alternative(&self) -> bool {
        !matches!(
            self.errno(),
            Some(Errno::BUSY | Errno::EXIST | Errno::PERM | Errno::NODEV | Errno::NOMEM)
        )
    }

    /// Why native mode could not be had, in half a sentence.
    fn reason(&self) -> String {
        match self.errno() {
            Some(Errno::OPNOTSUPP) => "the driver has no native XDP".to_owned(),
            Some(errno) => format!("the driver refused native XDP: {errno}"),
            None => format!("native XDP failed: {}", self.source),
        }
    }

    /// The likely cause and what to do about it.
    fn remedy(&self) -> Option<String> {
        let interface = &self.interface;
        Some(match (self.step, self.errno()?) {
            (_, Errno::PERM | Errno::ACCESS) => {
                "needs CAP_BPF and CAP_NET_ADMIN: run as root or grant them".to_owned()
            }
            (_, Errno::NOMEM) => "not enough memory".to_owned(),
            (Step::Attach(_), Errno::BUSY | Errno::EXIST) => format!(
                "another XDP program is attached: stop its owner, or remove it by \
                 `ip link set dev {interface} xdp off`"
            ),
            (Step::Attach(_), Errno::NODEV) => "the interface is gone".to_owned(),
            (Step::Attach(Mode::Native), Errno::OPNOTSUPP) => {
                "the driver has no native XDP: use mode \"auto\" or \"generic\"".to_owned()
            }
            (Step::Attach(Mode::Native), _) => {
                "the driver refused it, most often for an MTU above 3500 or for LRO: \
                 lower the MTU, switch LRO off, or use mode \"auto\" or \"generic\""
                    .to_owned()
            }
            (Step::AddService(_), Errno::TOOBIG) => {
                "the table is full; it holds 65536 services".to_owned()
            }
            _ => return None,
        })
    }
}

impl fmt::Display for SteeringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = &self.interface;
        match self.step {
            Step::Load => write!(f, "{interface}: cannot load the XDP program"),
            Step::Attach(mode) => {
                write!(
                    f,
                    "{interface}: cannot attach the XDP program in {mode} mode"
                )
            }
            Step::AddService(key) => write!(f, "{interface}: cannot steer {key}"),
            Step::RemoveService(key) => write!(f, "{interface}: cannot stop steering {key}"),
            Step::RegisterSocket(queue) => {
                write!(
                    f,
                    "{interface}: cannot use the AF_XDP socket of queue {queue}"
                )
            }
            Step::ReadCounters => {
                write!(
                    f,
                    "{interface}: cannot read the counters of the XDP program"
                )
            }
        }?;
        match self.remedy() {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

impl Error for SteeringError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}
