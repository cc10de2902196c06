//! From a compiled object to a program that is attached to an interface.

use std::error::Error;
use std::fmt;

use aya::Ebpf;
use aya::maps::{Map, MapError};
use aya::programs::links::FdLink;
use aya::programs::{Xdp, xdp::XdpMode};

use super::error::{Step, XdpError};
use super::rules::Tables;
use crate::xsk::socket::BindMode;

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

type Source = Box<dyn Error + Send + Sync>;

/// An object file that is about to be used on an interface.
pub(super) struct Object {
    /// That of the program; the file is `NAME.bpf.o`.
    name: &'static str,
    interface: String,
    inner: Ebpf,
}

impl Object {
    pub(super) fn load(
        name: &'static str,
        bytes: &[u8],
        interface: &str,
    ) -> Result<Self, XdpError> {
        let inner = Ebpf::load(bytes).map_err(|error| XdpError {
            interface: interface.to_owned(),
            step: Step::Load,
            source: error.into(),
        })?;
        Ok(Self {
            name,
            interface: interface.to_owned(),
            inner,
        })
    }

    fn failed(&self, step: Step, source: Source) -> XdpError {
        XdpError {
            interface: self.interface.clone(),
            step,
            source,
        }
    }

    /// One of its maps.
    pub(super) fn take<T>(&mut self, map: &str) -> Result<T, XdpError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        let taken = self.inner.take_map(map);
        let taken = taken.ok_or_else(|| format!("{}.bpf.o has no map {map}", self.name).into());
        let typed = taken.and_then(|taken| T::try_from(taken).map_err(Source::from));
        typed.map_err(|source| self.failed(Step::Load, source))
    }

    /// The maps that rules are written to.
    pub(super) fn tables(&mut self) -> Result<Tables, XdpError> {
        Tables::take(self)
    }

    /// Loads the program and attaches it, in the mode that is wanted: see
    /// [`Steering::attach`](super::Steering::attach).
    pub(super) fn attach(
        mut self,
        ifindex: u32,
        mode: BindMode,
    ) -> Result<(Attached, FdLink), XdpError> {
        self.program()
            .and_then(|program| Ok(program.load()?))
            .map_err(|source| self.failed(Step::Load, source))?;
        let mut attach = |mode| {
            let linked = self.program().and_then(|it| link(it, ifindex, mode));
            linked.map_err(|source| self.failed(Step::Attach(mode), source))
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
        Ok((Attached { mode, fallback }, link))
    }

    fn program(&mut self) -> Result<&mut Xdp, Source> {
        let program = self.inner.program_mut(self.name);
        let name = self.name;
        let program = program.ok_or_else(|| format!("{name}.bpf.o has no program {name}"))?;
        Ok(program.try_into()?)
    }
}

/// Attaches the program by a `bpf_link`.
fn link(program: &mut Xdp, ifindex: u32, mode: Mode) -> Result<FdLink, Source> {
    let mode = match mode {
        Mode::Native => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    let id = program.attach_to_if_index(ifindex, mode)?;
    // On kernels before 5.9 the library falls back to netlink, and what is
    // attached so would outlive a SIGKILL. Dropped here, it is detached.
    Ok(FdLink::try_from(program.take_link(id)?)?)
}
