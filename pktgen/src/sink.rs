//! The end of a measurement: a BPF program that counts and drops UDP, TCP and tunnels. All else, ARP above all,
//! passes to the kernel.

use aya::maps::{MapError, PerCpuArray};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfError};

use crate::interface::Interface;

/// Where a sink takes the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// In the driver, without socket buffers: the cheapest end there is for frames that XDP sent. A veth copies each
    /// frame that did not come from XDP once more for it.
    Xdp,
    /// At tc's ingress, where the network stack begins: what each receiver pays that has no XDP program.
    Tc,
}

/// A counting sink, detached when dropped.
#[derive(Debug)]
pub struct Sink {
    program: Ebpf,
}

impl Sink {
    /// Attaches the sink to `interface`; XDP in native mode, the driver's.
    ///
    /// # Errors
    /// The kernel refuses the program, or the interface has no native XDP or another program.
    pub fn attach(interface: &Interface, hook: Hook) -> Result<Self, SinkError> {
        let mut program = Ebpf::load(aya::include_bytes_aligned!("../bpf/sink.bpf.o"))?;
        match hook {
            Hook::Xdp => {
                let sink = program.program_mut("sink_xdp");
                let sink: &mut Xdp = sink
                    .ok_or(SinkError::Object("program sink_xdp"))?
                    .try_into()?;
                sink.load()?;
                sink.attach(&interface.name, XdpMode::Driver)?;
            }
            Hook::Tc => {
                let sink = program.program_mut("sink_tc");
                let sink: &mut SchedClassifier = sink
                    .ok_or(SinkError::Object("program sink_tc"))?
                    .try_into()?;
                sink.load()?;
                sink.attach(&interface.name, TcAttachType::Ingress)?;
            }
        }
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
    #[error("cannot load the sink program; it needs root (CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN)")]
    Load(#[from] EbpfError),
    #[error(
        "cannot attach the sink: it needs root (CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN), and the interface native XDP \
         and no other XDP program, or for tc Linux 6.6"
    )]
    Attach(#[from] ProgramError),
    #[error("cannot read the sink's counters")]
    Map(#[from] MapError),
    #[error("the built-in object lacks {0}: rebuild it with pktgen/bpf/build.sh")]
    Object(&'static str),
}
