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

mod attach;
pub mod decap;
mod error;
mod prefix;
mod rules;

pub use attach::{Attached, Mode};
pub use error::XdpError;
pub use prefix::{BadPrefix, Prefix};
pub use rules::Rule;

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::{Array, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::links::FdLink;

use self::attach::Object;
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
    /// Packets of no virtual server, passed to the kernel.
    pub passed: u64,
    /// Packets of a virtual server whose queue has no socket, passed to the kernel.
    pub no_socket: u64,
    /// Frames to another host or to a group, passed to the kernel.
    pub not_for_us: u64,
    /// Packets from a denied prefix, or to an address of `no_accept`: dropped.
    pub denied: u64,
}

// SAFETY: five integers: no padding, and every bit pattern is valid.
unsafe impl aya::Pod for SteeringCounters {}

/// Most MAC addresses of an interface, beside those of virtual routers.
pub const OWN_MACS: usize = 4;
/// Words of 64 bits for the virtual routers of VRRP, of IPv4 and of IPv6.
const ROUTER_WORDS: usize = 8;

/// The program on one interface; dropping it detaches it.
pub struct Steering {
    interface: String,
    attached: Attached,
    tables: Tables,
    own_macs: Array<MapData, [u64; OWN_MACS + ROUTER_WORDS]>,
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
    pub fn attach(ifindex: u32, interface: &str, mode: BindMode) -> Result<Self, XdpError> {
        let mut object = Object::load("steer", OBJECT, interface)?;
        let tables = object.tables()?;
        let own_macs = object.take("own_macs")?;
        let sockets = object.take("sockets")?;
        let counters = object.take("counters")?;
        let (attached, link) = object.attach(ifindex, mode)?;
        Ok(Self {
            interface: interface.to_owned(),
            attached,
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

    /// The MAC addresses that the interface answers to, at most [`OWN_MACS`]. Frames to others
    /// are the kernel's, whatever the rules say.
    ///
    /// # Errors
    /// There are more; nothing is changed then.
    pub fn set_macs(&mut self, macs: &[MacAddress]) -> Result<(), XdpError> {
        let mut own = [0; OWN_MACS + ROUTER_WORDS];
        let (first, routers) = own.split_at_mut(OWN_MACS);
        let mut first = first.iter_mut();
        for mac in macs {
            let MacAddress([a, b, c, d, e, f]) = *mac;
            // Virtual routers may be many (RFC 9568 §7.3).
            if let ([0, 0, 0x5e, 0], 1 | 2) = ([a, b, c, d], e) {
                let word = usize::from(e - 1) * 4 + usize::from(f >> 6);
                routers[word] |= 1 << (f & 63);
            } else if let Some(place) = first.next() {
                *place = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
            } else {
                return Err(XdpError {
                    interface: self.interface.clone(),
                    step: Step::SetMacs,
                    source: format!("{} of them, {OWN_MACS} at most", macs.len()).into(),
                });
            }
        }
        let set = self.own_macs.set(0, own, 0);
        set.map_err(|error| self.failed(Step::SetMacs, error))
    }

    /// Steers by this rule, too, from now on. Adding it again does nothing.
    ///
    /// # Errors
    /// The table of such rules is full.
    pub fn add(&mut self, rule: &Rule) -> Result<(), XdpError> {
        let added = self.tables.add(rule);
        added.map_err(|error| self.failed(Step::Add(*rule), error))
    }

    /// Does not steer by this rule from now on. Removing it again does nothing.
    ///
    /// # Errors
    /// What the kernel says; none is expected.
    pub fn remove(&mut self, rule: &Rule) -> Result<(), XdpError> {
        let removed = self.tables.remove(rule);
        removed.map_err(|error| self.failed(Step::Remove(*rule), error))
    }

    /// Gives the packets of a receive queue to an AF_XDP socket, which must be bound
    /// to that queue of this interface. The kernel takes the entry out when the
    /// socket is closed.
    ///
    /// # Errors
    /// The queue's number is above 1023, or the descriptor is no AF_XDP socket.
    pub fn register_socket(&mut self, queue: u32, socket: impl AsFd) -> Result<(), XdpError> {
        let fd = socket.as_fd().as_raw_fd();
        let set = self.sockets.set(queue, fd, 0);
        set.map_err(|error| self.failed(Step::RegisterSocket(queue), error))
    }

    /// What the program counted since it was loaded, all CPUs together.
    ///
    /// # Errors
    /// What the kernel says; none is expected.
    pub fn counters(&self) -> Result<SteeringCounters, XdpError> {
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

    fn failed(&self, step: Step, error: MapError) -> XdpError {
        XdpError {
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
