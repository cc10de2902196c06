//! The receiving end: an XDP program that takes the generator's frames, and the AF_XDP sockets that
//! it hands them to.
//!
//! `bpf/receive.bpf.c` knows them by their stamp; all other frames go on to the kernel, so that hosts
//! behind the interface stay reachable. It counts each frame before anything can be lost on the
//! way to user space, and writes the time of arrival in front of it.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Array, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfError, EbpfLoader};
use dataplane::device::af_xdp::{AfXdp, BindMode, FRAMES_PER_QUEUE, QueueSpec, open_worker};
use dataplane::device::{BURST, Device as _, DeviceStatistics};
use dataplane::xsk::socket::OpenError;
use dataplane::xsk::umem::{Frame, FramePool, FrameSize, Umem};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use crate::frame::ETHERNET;
use crate::interface::{Interface, InterfaceError};

/// `ARRIVAL_MAGIC` of the program.
const ARRIVAL_MAGIC: u64 = 0x6c61_7669_7272_6100;
/// `struct arrival` of the program, in bytes.
const ARRIVAL: u16 = 16;
/// `SOCKETS` of the program.
const MOST_QUEUES: u32 = 64;

/// What becomes of a frame once it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// It is dropped, which costs the sender next to nothing.
    Count,
    /// It comes here.
    Deliver,
    /// Not the generator's frames but TCP segments from this port come here, in no tunnel.
    FromPort(u16),
    /// The same, to this port.
    ToPort(u16),
}

impl Take {
    /// `struct config` of the program.
    fn config(self) -> [u16; 4] {
        match self {
            Self::Count => [0, 0, 0, 0],
            Self::Deliver => [1, 0, 0, 0],
            Self::FromPort(port) => [1, port.to_be(), 0, 0],
            Self::ToPort(port) => [1, 0, port.to_be(), 0],
        }
    }
}

/// An attached receiver; detached when dropped.
#[derive(Debug)]
pub struct Receiver {
    program: Ebpf,
    umem: Arc<Umem>,
    pool: FramePool,
    devices: Vec<AfXdp>,
    burst: Vec<Frame>,
    /// To be sent.
    out: Vec<Frame>,
}

/// Takes frames that are to be sent by the queue that a frame came by.
#[derive(Debug)]
pub struct Outbox<'a> {
    umem: &'a Umem,
    pool: &'a mut FramePool,
    out: &'a mut Vec<Frame>,
}

impl Outbox<'_> {
    /// Queues a frame; false if all memory is in use, or the frame longer than the interface takes.
    pub fn send(&mut self, packet: &[u8]) -> bool {
        let Some(mut frame) = self.pool.take() else {
            return false;
        };
        if self.umem.fill(&mut frame, packet).is_err() {
            self.pool.give(frame);
            return false;
        }
        self.out.push(frame);
        true
    }
}

impl Receiver {
    /// Attaches to `interface`, all queues of it: in the driver, or in the network stack where the driver
    /// has no XDP.
    ///
    /// # Errors
    /// The kernel refuses the program or a socket, or another program is attached.
    pub fn attach(interface: &Interface, take: Take) -> Result<Self, ReceiveError> {
        let config = take.config();
        let mut program = EbpfLoader::new()
            .override_global("CONFIG", &config, true)
            .load(aya::include_bytes_aligned!("../bpf/receive.bpf.o"))?;
        let xdp: &mut Xdp = program
            .program_mut("receive")
            .ok_or(ReceiveError::Object("program receive"))?
            .try_into()?;
        xdp.load()?;
        let name = &interface.name;
        if let Err(native) = xdp.attach(name, XdpMode::Driver)
            && xdp.attach(name, XdpMode::Skb).is_err()
        {
            return Err(ReceiveError::Attach(name.clone(), native));
        }
        let queues = match take {
            Take::Count => 0,
            Take::Deliver | Take::FromPort(_) | Take::ToPort(_) => {
                interface.receive_queues()?.min(MOST_QUEUES)
            }
        };
        let size = if interface.mtu + ETHERNET > FrameSize::Bytes2048.max_packet() {
            FrameSize::Bytes4096
        } else {
            FrameSize::Bytes2048
        };
        let frames = FRAMES_PER_QUEUE * queues.max(1);
        let (umem, mut pool) = Umem::new(frames, size).map_err(ReceiveError::Memory)?;
        let queue = |queue| QueueSpec {
            ifindex: interface.index,
            interface: name.clone(),
            queue,
        };
        let specs: Vec<QueueSpec> = (0..queues).map(queue).collect();
        let devices = open_worker(&umem, &mut pool, &specs, BindMode::Auto)?;
        let sockets = program.map_mut("SOCKETS");
        let mut sockets = XskMap::try_from(sockets.ok_or(ReceiveError::Object("map SOCKETS"))?)?;
        for device in &devices {
            sockets.set(device.spec().queue, device.as_fd(), 0)?;
        }
        let mut receiver = Self {
            program,
            umem,
            pool,
            devices,
            burst: Vec::with_capacity(BURST),
            out: Vec::with_capacity(2 * BURST),
        };
        // The program comes first, as it may set queues up anew, and takes nothing until the sockets are there.
        receiver.open(true)?;
        Ok(receiver)
    }

    /// Takes no more frames: those that wait are the last ones.
    ///
    /// # Errors
    /// The kernel refuses to write the map.
    pub fn close(&mut self) -> Result<(), ReceiveError> {
        self.open(false)
    }

    fn open(&mut self, open: bool) -> Result<(), ReceiveError> {
        let map = self.program.map_mut(".bss");
        let mut map: Array<_, u32> = Array::try_from(map.ok_or(ReceiveError::Object("map .bss"))?)?;
        Ok(map.set(0, u32::from(open), 0)?)
    }

    /// Frames of the generator, and their bytes, that arrived since the start; more than came here if
    /// this process was too slow.
    ///
    /// # Errors
    /// The kernel refuses to read the counters.
    pub fn counted(&self) -> Result<(u64, u64), ReceiveError> {
        let map = self.program.map("COUNTED");
        let counted: PerCpuArray<_, u64> =
            PerCpuArray::try_from(map.ok_or(ReceiveError::Object("map COUNTED"))?)?;
        let sum = |index| -> Result<u64, MapError> { Ok(counted.get(&index, 0)?.iter().sum()) };
        Ok((sum(0)?, sum(1)?))
    }

    /// Hands each frame that waits to `each`, with the time of its arrival in nanoseconds of
    /// `CLOCK_MONOTONIC`. Returns how many there were.
    pub fn receive(&mut self, mut each: impl FnMut(&[u8], u64)) -> usize {
        self.exchange(|frame, arrived, _| each(frame, arrived))
    }

    /// The same, and sends what is answered.
    pub fn exchange(&mut self, mut each: impl FnMut(&[u8], u64, &mut Outbox<'_>)) -> usize {
        let mut received = 0;
        for device in &mut self.devices {
            received += device.receive(&mut self.burst);
            let now = now();
            for mut frame in self.burst.drain(..) {
                let arrived = arrival(&self.umem, &mut frame).unwrap_or(now);
                let mut outbox = Outbox {
                    umem: &self.umem,
                    pool: &mut self.pool,
                    out: &mut self.out,
                };
                each(self.umem.bytes(&frame), arrived, &mut outbox);
                self.pool.give(frame);
            }
            // What the ring has no room for waits in `out`, for the next queue or turn.
            device.transmit_burst(&mut self.out);
            device.flush(&mut self.pool);
        }
        received
    }

    /// Queues a frame, which the next [`exchange`](Self::exchange) sends; see [`Outbox::send`].
    pub fn send(&mut self, packet: &[u8]) -> bool {
        let mut outbox = Outbox {
            umem: &self.umem,
            pool: &mut self.pool,
            out: &mut self.out,
        };
        outbox.send(packet)
    }

    /// Sleeps until a frame is there, for `timeout` at most; a signal ends it, too.
    pub fn wait(&self, timeout: Duration) {
        let sockets = self.devices.iter();
        let mut sockets: Vec<PollFd<'_>> = sockets
            .map(|device| PollFd::new(device, PollFlags::IN))
            .collect();
        let timeout = Timespec::try_from(timeout).ok();
        // An interrupted wait is as good as one that is over.
        let _ = poll(&mut sockets, timeout.as_ref());
    }

    /// What the sockets lost, over all queues.
    #[must_use]
    pub fn statistics(&self) -> DeviceStatistics {
        let mut sum = DeviceStatistics::default();
        for device in &self.devices {
            let one = device.statistics();
            sum.rx_dropped += one.rx_dropped;
            sum.rx_ring_full += one.rx_ring_full;
            sum.rx_fill_ring_empty += one.rx_fill_ring_empty;
        }
        sum
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds.
#[must_use]
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// The time that the program wrote in front of the frame; `None` where the driver had no room for it.
fn arrival(umem: &Umem, frame: &mut Frame) -> Option<u64> {
    umem.prepend(frame, ARRIVAL).ok()?;
    let bytes = umem.bytes_mut(frame);
    let word = |bytes: &[u8]| bytes.first_chunk().map(|word| u64::from_ne_bytes(*word));
    let is_written = word(bytes) == Some(ARRIVAL_MAGIC);
    let time = word(&bytes[8..]);
    // The chunk comes back, and the next driver may not write into it.
    bytes[..8].fill(0);
    umem.cut_front(frame, ARRIVAL).ok()?;
    time.filter(|_| is_written)
}

/// Receiving does not work.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error(
        "cannot load the receiving program; it needs root (CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN)"
    )]
    Load(#[from] EbpfError),
    #[error(
        "the kernel refuses the receiving program; it needs root (CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN)"
    )]
    Program(#[from] ProgramError),
    #[error("cannot attach to {0}: another XDP program may be there: `ip link show {0}`")]
    Attach(String, #[source] ProgramError),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("no memory for received frames")]
    Memory(#[source] std::io::Error),
    #[error("cannot use the receiving program's maps")]
    Map(#[from] MapError),
    #[error("the built-in object lacks {0}: rebuild it with pktgen/bpf/build.sh")]
    Object(&'static str),
}
