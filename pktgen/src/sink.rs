//! The end of a measurement: an XDP program that counts and drops UDP and TCP. All else, ARP above all,
//! passes to the kernel.

use aya::maps::{MapError, PerCpuArray};
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfError};

use crate::interface::Interface;

/// A counting sink, detached when dropped.
#[derive(Debug)]
pub struct Sink {
    program: Ebpf,
}

impl Sink {
    /// Attaches the sink to `interface`, in native mode: the driver's, without socket buffers.
    ///
    /// # Errors
    /// The kernel refuses the program, or the interface has no native XDP or another program.
    pub fn attach(interface: &Interface) -> Result<Self, SinkError> {
        let mut program = Ebpf::load(aya::include_bytes_aligned!("../bpf/sink.bpf.o"))?;
        let xdp: &mut Xdp = program
            .program_mut("sink")
            .ok_or(SinkError::Object("program sink"))?
            .try_into()?;
        xdp.load()?;
        xdp.attach(&interface.name, XdpMode::Driver)?;
        Ok(Self { program })
    }

    /// Frames and bytes since the start.
    ///
    /// # Errors
    /// The kernel refuses to read the counters.
    pub fn counted(&self) -> Result<(u64, u64), SinkError> {
        let map = self.program.map("COUNTED");
        let counted: PerCpuArray<_, u64> =
            PerCpuArray::try_from(map.ok_or(SinkError::Object("map COUNTED"))?)?;
        let sum = |index| -> Result<u64, SinkError> { Ok(counted.get(&index, 0)?.iter().sum()) };
        Ok((sum(0)?, sum(1)?))
    }
}

/// The sink does not work.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("cannot load the sink program; it needs root (CAP_BPF, CAP_NET_ADMIN)")]
    Load(#[from] EbpfError),
    #[error("cannot attach the sink: the interface needs native XDP and no other XDP program")]
    Attach(#[from] ProgramError),
    #[error("cannot read the sink's counters")]
    Map(#[from] MapError),
    #[error("the built-in object lacks {0}: rebuild it with pktgen/bpf/build.sh")]
    Object(&'static str),
}
