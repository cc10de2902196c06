//! The decapsulating program (`bpf/decap.bpf.c`) of a real server that gets its
//! packets through a tunnel: where the kernel has no tunnel module, or none
//! is wanted.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use aya::maps::{HashMap, Map, MapData, MapError, MapInfo, PerCpuArray};
use aya::programs::links::FdLink;
use aya::programs::{ProgramInfo, loaded_programs};

use super::attach::{Attached, Object};
use super::error::{Step, XdpError};
use super::rules::{End, ends_of};
use crate::service::Tunnel;
use crate::xsk::socket::BindMode;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/decap.bpf.o");

/// Of the program.
const NAME: &str = "decap";
/// Of its map of tunnels' ends.
const ENDS: &str = "ends";

/// The end of a tunnel: an address of this host, to which a director sends its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelEnd {
    pub address: IpAddr,
    pub tunnel: Tunnel,
}

impl fmt::Display for TunnelEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tunnel {
            Tunnel::Ipip => write!(f, "IPIP to {}", self.address),
            Tunnel::Gre => write!(f, "GRE to {}", self.address),
            Tunnel::Gue { port } => write!(f, "GUE to {}, UDP port {port}", self.address),
        }
    }
}

/// What the program counts, and the `struct counters` of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DecapCounters {
    /// Packets that lost their outer headers.
    pub decapsulated: u64,
    /// Packets in no tunnel that ends here, untouched.
    pub passed: u64,
    /// Tunnelled packets that met congestion and cannot be told so (RFC 6040 §4.2).
    pub dropped: u64,
}

// SAFETY: three integers: no padding, and every bit pattern is valid.
unsafe impl aya::Pod for DecapCounters {}

/// The program on one interface. Dropping this detaches it, unless it is [kept](Self::keep).
pub struct Decapsulator {
    interface: String,
    attached: Attached,
    counters: PerCpuArray<MapData, DecapCounters>,
    link: FdLink,
}

/// Attaches the program to an interface, which is in the network namespace of the calling
/// thread. From then on, packets to `ends` reach the kernel without their outer headers.
///
/// `mode` is as in [`Steering::attach`](super::Steering::attach).
///
/// # Errors
/// No rights, another XDP program on the interface, a driver without native XDP where that
/// was demanded, or more ends than the program has room for; each with what to do.
pub fn attach(
    ifindex: u32,
    interface: &str,
    mode: BindMode,
    ends: &[TunnelEnd],
) -> Result<Decapsulator, XdpError> {
    let mut object = Object::load(NAME, OBJECT, interface)?;
    let mut map: HashMap<MapData, End, u32> = object.take(ENDS)?;
    let counters = object.take("counters")?;
    for end in ends {
        let mut keys = ends_of(end.address.into(), end.tunnel);
        let added = keys.try_for_each(|key| map.insert(key, 1, 0));
        added.map_err(|error| failed(interface, Step::AddEnd(*end), error))?;
    }
    let (attached, link) = object.attach(ifindex, mode)?;
    Ok(Decapsulator {
        interface: interface.to_owned(),
        attached,
        counters,
        link,
    })
}

fn failed(interface: &str, step: Step, error: MapError) -> XdpError {
    XdpError {
        interface: interface.to_owned(),
        step,
        source: error.into(),
    }
}

impl Decapsulator {
    /// How the program is attached.
    #[must_use]
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// What the program counted since it was attached, all CPUs together.
    ///
    /// # Errors
    /// What the kernel says; none is expected.
    pub fn counters(&self) -> Result<DecapCounters, XdpError> {
        let per_cpu = self.counters.get(&0, 0);
        let per_cpu =
            per_cpu.map_err(|error| failed(&self.interface, Step::ReadCounters, error))?;
        let mut total = DecapCounters::default();
        for cpu in per_cpu.iter() {
            total.decapsulated += cpu.decapsulated;
            total.passed += cpu.passed;
            total.dropped += cpu.dropped;
        }
        Ok(total)
    }

    /// Leaves the program attached beyond the end of this process: until [`release`], or the end of
    /// the interface. `path` is a new file in a BPF file system, such as `/sys/fs/bpf/NAME`.
    ///
    /// # Errors
    /// The path is elsewhere, or there is a file. The program is detached then.
    pub fn keep(self, path: &Path) -> Result<(), XdpError> {
        match self.link.pin(path) {
            Ok(_) => Ok(()),
            Err(error) => Err(XdpError {
                interface: self.interface,
                step: Step::Keep,
                source: error.into(),
            }),
        }
    }
}

impl fmt::Debug for Decapsulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decapsulator")
            .field("interface", &self.interface)
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}

/// Which of `ends` an attached program takes packets out of, whoever attached it; none if it is no decapsulator. `program` is
/// the number that the kernel gave it (`IFLA_XDP_PROG_ID`).
///
/// # Errors
/// No rights to look, or the program is gone.
pub fn ends_of_program(program: u32, ends: &[TunnelEnd]) -> io::Result<Vec<TunnelEnd>> {
    let mut programs = loaded_programs();
    let is_it = |info: &Result<ProgramInfo, _>| match info {
        Ok(info) => info.id() == program,
        Err(_) => false,
    };
    let info = programs.find(is_it);
    let info = info.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let info = info.map_err(io::Error::other)?;
    if info.name_as_str() != Some(NAME) {
        return Ok(Vec::new());
    }
    for id in info
        .map_ids()
        .map_err(io::Error::other)?
        .unwrap_or_default()
    {
        let map = MapInfo::from_id(id).map_err(io::Error::other)?;
        if map.name_as_str() == Some(ENDS) {
            let map = Map::HashMap(MapData::from_id(id).map_err(io::Error::other)?);
            let map = HashMap::<_, End, u32>::try_from(map).map_err(io::Error::other)?;
            let has = |end: &&TunnelEnd| {
                let mut keys = ends_of(end.address.into(), end.tunnel);
                keys.all(|key| map.get(&key, 0).is_ok())
            };
            return Ok(ends.iter().filter(has).copied().collect());
        }
    }
    // Somebody else's program of that name.
    Ok(Vec::new())
}

/// Detaches a program that was [kept](Decapsulator::keep). False: there is none.
///
/// # Errors
/// The file cannot be removed.
pub fn release(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
