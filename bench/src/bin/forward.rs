//! The bare forwarder: AF_XDP in, Ethernet addresses rewritten, AF_XDP out.
//!
//! What the appliance is measured against: no parsing, no table, no balancing. It stands on the xsk-rs
//! crate (libxdp underneath), not on our own rings, so that a mistake in those cannot hide in both.
//!
//! One shared umem, copy mode, need_wakeup, bursts of 64, spinning on one CPU: the same as a worker
//! of the appliance with `idle = "busy"`.

#![expect(
    unsafe_code,
    reason = "the queues of xsk-rs are unsafe to call, because it cannot see whose a frame is"
)]

use std::num::NonZeroU32;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use aya::Ebpf;
use aya::maps::XskMap;
use aya::programs::{Xdp, XdpMode};
use clap::Parser;
use dataplane::service::MacAddress;
use pktgen::interface::{Interface, parse_mac};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use xsk_rs::config::{BindFlags, FrameSize, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue, Umem};

const BURST: usize = 64;
/// Twice the rings of a port and some, so that neither direction starves.
const FRAMES: u32 = 8192;
const RING: u32 = 2048;
const QUEUE: u32 = 0;
/// Frames that one kick may send; the appliance asks for the same.
const TX_BUDGET: libc::c_int = 256;

/// Forwards everything from one interface to another, or back out of the same.
#[derive(Debug, Parser)]
struct Arguments {
    /// Interface to receive from
    #[arg(long, value_name = "IF")]
    rx: String,
    /// Interface to send from [default: the receiving one]
    #[arg(long, value_name = "IF")]
    tx: Option<String>,
    /// Ethernet address to send to [default: whoever sent the frame]
    #[arg(long, value_name = "MAC", value_parser = parse_mac)]
    dst_mac: Option<MacAddress>,
    /// CPU to run on
    #[arg(long, value_name = "CPU")]
    core: usize,
}

/// What was done, as JSON.
#[derive(Debug, Serialize)]
struct Report {
    forwarded: u64,
    seconds: f64,
    rx_ring_full: u64,
    rx_dropped: u64,
    rx_fill_ring_empty: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    pktgen::cpu::pin(arguments.core)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut forwarder = Forwarder::open(&arguments)?;
    eprintln!("ready");
    let start = Instant::now();
    let mut forwarded = 0;
    while !stop.load(Ordering::Relaxed) {
        forwarded += forwarder.turn()?;
    }
    let statistics = forwarder.ports[0].receive.fd().xdp_statistics()?;
    let report = Report {
        forwarded,
        seconds: start.elapsed().as_secs_f64(),
        rx_ring_full: statistics.rx_ring_full(),
        rx_dropped: statistics.rx_dropped(),
        rx_fill_ring_empty: statistics.rx_fill_ring_empty_descs(),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// The first port receives, the last sends; they may be the same.
struct Forwarder {
    umem: Umem,
    ports: Vec<Port>,
    free: Vec<FrameDesc>,
    source: MacAddress,
    destination: Option<MacAddress>,
}

impl Forwarder {
    fn open(arguments: &Arguments) -> anyhow::Result<Self> {
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(2048)?)
            .fill_queue_size(QueueSize::new(2 * RING)?)
            .comp_queue_size(QueueSize::new(RING)?)
            .build()?;
        let frames = NonZeroU32::new(FRAMES).context("no frames")?;
        let (umem, mut free) = Umem::new(config, frames, false)?;
        let rx = Interface::find(&arguments.rx)?;
        let mut ports = vec![Port::open(&umem, &rx)?];
        let mut source = rx.mac;
        if let Some(name) = &arguments.tx {
            let tx = Interface::find(name)?;
            ports.push(Port::open(&umem, &tx)?);
            source = tx.mac;
        }
        let fill = free.split_off(free.len() - RING as usize);
        // SAFETY: the frames are of this umem and in nobody else's hands.
        let filled = unsafe { ports[0].fill.produce(&fill) };
        if filled != fill.len() {
            bail!("the fill ring took {filled} of {} frames", fill.len());
        }
        Ok(Self {
            umem,
            ports,
            free,
            source,
            destination: arguments.dst_mac,
        })
    }

    /// One burst: reap, receive, rewrite, send, refill. Returns the frames forwarded.
    #[inline(always)]
    fn turn(&mut self) -> anyhow::Result<u64> {
        let last = self.ports.len() - 1;
        self.ports[last].reap(&mut self.free);
        let mut burst = [FrameDesc::default(); BURST];
        // SAFETY: only frames of `umem` are ever given to the sockets.
        let received = unsafe { self.ports[0].receive.consume(&mut burst) };
        if received == 0 {
            self.ports[last].kick()?;
            return Ok(0);
        }
        let burst = &mut burst[..received];
        for frame in burst.iter_mut() {
            // SAFETY: the frame was just received, so it is of `umem` and ours alone.
            let mut data = unsafe { self.umem.data_mut(frame) };
            self.rewrite(data.contents_mut());
        }
        let output = &mut self.ports[last];
        // SAFETY: received and not yet handed on. The whole burst is taken or none of it.
        while unsafe { output.transmit.produce(burst) } == 0 {
            output.kick()?;
            output.reap(&mut self.free);
        }
        output.outstanding += received;
        output.kick()?;
        let refill = self.free.len() - received.min(self.free.len());
        // SAFETY: free frames are of `umem` and in nobody else's hands.
        if unsafe { self.ports[0].fill.produce(&self.free[refill..]) } > 0 {
            self.free.truncate(refill);
        }
        Ok(u64::try_from(received)?)
    }

    /// Sets the Ethernet addresses; without a destination the frame goes back to its sender.
    #[inline(always)]
    fn rewrite(&self, packet: &mut [u8]) {
        if let Some(addresses) = packet.first_chunk_mut::<12>() {
            let (destination, source) = addresses.split_at_mut(6);
            match self.destination {
                Some(mac) => destination.copy_from_slice(&mac.0),
                None => destination.copy_from_slice(source),
            }
            source.copy_from_slice(&self.source.0);
        }
    }
}

/// An AF_XDP socket and the program that steers to it, which is detached when dropped.
struct Port {
    transmit: TxQueue,
    receive: RxQueue,
    fill: FillQueue,
    completion: CompQueue,
    /// Frames given to `transmit` that have not come back.
    outstanding: usize,
    _program: Ebpf,
}

impl Port {
    fn open(umem: &Umem, interface: &Interface) -> anyhow::Result<Self> {
        let config = SocketConfig::builder()
            .rx_queue_size(QueueSize::new(RING)?)
            .tx_queue_size(QueueSize::new(RING)?)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        let name = interface.name.parse().context("interface name")?;
        // SAFETY: each (interface, queue) is opened once, and libxdp loads no program.
        let opened = unsafe { Socket::new(config, umem, &name, QUEUE) };
        let (transmit, receive, rings) =
            opened.with_context(|| format!("AF_XDP socket on {}", interface.name))?;
        let (fill, completion) = rings.context("no rings of its own: queue opened twice")?;
        set_tx_budget(&transmit);

        let mut program = Ebpf::load(aya::include_bytes_aligned!("../../bpf/forward.bpf.o"))?;
        let map = program.map_mut("SOCKETS").context("no map SOCKETS")?;
        XskMap::try_from(map)?.set(QUEUE, receive.fd().as_raw_fd(), 0)?;
        let xdp: &mut Xdp = program
            .program_mut("forward")
            .context("no program forward")?
            .try_into()?;
        xdp.load()?;
        xdp.attach(&interface.name, XdpMode::Driver)
            .with_context(|| format!("native XDP on {}", interface.name))?;
        Ok(Self {
            transmit,
            receive,
            fill,
            completion,
            outstanding: 0,
            _program: program,
        })
    }

    /// Takes back the frames that were sent.
    #[inline(always)]
    fn reap(&mut self, free: &mut Vec<FrameDesc>) {
        let mut sent = [FrameDesc::default(); BURST];
        // SAFETY: only frames of one umem are ever given to the sockets.
        let count = unsafe { self.completion.consume(&mut sent) };
        self.outstanding -= count;
        free.extend_from_slice(&sent[..count]);
    }

    /// Makes the kernel send, if it wants to be told.
    #[inline(always)]
    fn kick(&self) -> std::io::Result<()> {
        if self.outstanding > 0 && self.transmit.needs_wakeup() {
            self.transmit.wakeup()?;
        }
        Ok(())
    }
}

/// Raises the frames sent per kick from 32 to [`TX_BUDGET`]; a kernel before 6.17 keeps 32.
fn set_tx_budget(transmit: &TxQueue) {
    const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9; // linux/if_xdp.h
    let budget = TX_BUDGET;
    let length = libc::socklen_t::try_from(size_of_val(&budget)).unwrap_or(0);
    // SAFETY: the pointer is to an int that outlives the call, the length is its own.
    unsafe {
        libc::setsockopt(
            transmit.fd().as_raw_fd(),
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            (&raw const budget).cast(),
            length,
        );
    }
}
