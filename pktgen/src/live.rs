//! Sending with frames made in the kernel.
//!
//! `bpf/generate.bpf.c` is run by `BPF_PROG_TEST_RUN` in live-frames mode: each run makes one frame and
//! redirects it out of the interface. One system call does the whole run, because each call
//! has a fixed cost of about 25 ms; a signal ends it early (the kernel looks once a batch).
//!
//! The interface's other end must take redirected frames. A veth does only when NAPI is on at its
//! *receiving* end: by an XDP program there or by `ethtool -K DEV gro on`; otherwise the frames
//! vanish, which [`are_taken`] finds out and [`Sent::dropped`] shows.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData, MapError};
use aya::programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use dataplane::service::Protocol;
use signal_hook::consts::{SIGALRM, SIGINT, SIGTERM};

use crate::flows::{FIRST_PORT, Flows, FlowsError, Prefix, stride};
use crate::frame::{ETHERNET, FrameError, Layout, MOST_FLOWS, TEMPLATE, Template};
use crate::interface::{Interface, InterfaceError};
use crate::receive::now;
use crate::units::{Rate, Size};

/// Frames that the kernel makes before it sends them together.
const BATCH: u32 = 64;
/// `MAX_SHAPES` of the program.
const MAX_SHAPES: usize = 12;
/// `struct shape` of the program, in bytes.
const SHAPE: usize = TEMPLATE + 16;
/// `struct config` of the program, in bytes.
const CONFIG: usize = 72 + MAX_SHAPES * SHAPE;
/// `struct state` of the program, in words of 8 bytes.
const STATE_WORDS: usize = 8;
/// Longest frame, in bytes: a page without the kernel's own headers, headroom and tailroom.
const LONGEST: usize = 3300;

/// The header that IPv6 fragments have, in bytes (RFC 8200 §4.5).
const IPV6_FRAGMENT: usize = 8;

/// What to send.
#[derive(Clone, Debug)]
pub struct Plan {
    pub layout: Layout,
    pub flows: Flows,
    /// Without the tag.
    pub size: Size,
    pub rate: Rate,
    /// The VLAN tag's control information.
    pub vlan: Option<u16>,
    /// In every stamp.
    pub run: u8,
    /// Of TCP, every frame opens a connection.
    pub syn_only: bool,
}

impl Plan {
    /// The frames of each length, in the order in which they are sent, in turn. If they are sent as fragments of
    /// so many bytes, those must fit, and not the frames.
    ///
    /// # Errors
    /// They cannot be made, are longer than `interface` takes, or have more flows than stamps can name.
    pub fn templates(
        &self,
        interface: &Interface,
        fragment: Option<u16>,
    ) -> Result<Vec<Template>, LiveError> {
        let flows = self.flows.offset().saturating_add(self.flows.count());
        if flows > MOST_FLOWS {
            return Err(LiveError::Flows(flows));
        }
        let template = |length| {
            fits(interface, self.longest_sent(length, fragment))?;
            let mut template = Template::new(self.layout, &self.flows, length)?.of_run(self.run);
            if self.syn_only {
                template = template.syn_only();
            }
            Ok(match self.vlan {
                Some(vlan) => template.tagged(vlan),
                None => template,
            })
        };
        let lengths = self.size.lengths(&self.layout);
        lengths.into_iter().map(template).collect()
    }

    /// Of a frame of `length` bytes, what is sent as one.
    fn longest_sent(&self, length: usize, fragment: Option<u16>) -> usize {
        let Some(bytes) = fragment else {
            return length;
        };
        let l4 = self.layout.l4();
        let own = if self.layout.destination.is_ipv6() {
            IPV6_FRAGMENT
        } else {
            0
        };
        l4 + own + length.saturating_sub(l4).min(bytes.into())
    }
}

/// # Errors
/// `interface` takes no frames of `length` bytes, or they cannot be made.
fn fits(interface: &Interface, length: usize) -> Result<(), LiveError> {
    let longest = interface.mtu + ETHERNET;
    if length > LONGEST && longest > LONGEST {
        return Err(LiveError::BeyondPage(length));
    }
    if length > longest {
        return Err(LiveError::TooLong {
            length,
            longest,
            interface: interface.name.clone(),
            mtu: interface.mtu,
        });
    }
    Ok(())
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Frames handed to the interface.
    pub frames: u64,
    /// Their bytes, without the frame check sequence.
    pub bytes: u64,
    /// From the first frame to when the one after the last would be due.
    pub elapsed: Duration,
    /// Frames that the interface did not take, by its own count; other traffic of the interface
    /// hides as many.
    pub dropped: u64,
}

impl Sent {
    /// Frames per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 {
            self.frames as f64 / seconds
        } else {
            0.0
        }
    }
}

/// Whether `interface` takes frames that the kernel makes. It is asked to send a few: of the EtherType for
/// experiments and to its own address, so that nobody takes notice.
///
/// # Errors
/// The kernel refuses to run the program.
pub fn are_taken(interface: &Interface) -> Result<bool, LiveError> {
    const EXPERIMENTAL: u16 = 0x88b5; // IEEE Std 802, Local Experimental Ethertype 1
    const FRAMES: u32 = 16;
    /// Some drivers count late.
    const PATIENCE: Duration = Duration::from_millis(100);
    let layout = Layout {
        source_mac: interface.mac,
        destination_mac: interface.mac,
        destination: SocketAddr::from(([192, 0, 2, 1], 9)),
        protocol: Protocol::Udp,
    };
    let source = Prefix::host(Ipv4Addr::new(192, 0, 2, 2).into());
    let plan = Plan {
        layout,
        flows: Flows::new(source, 1)?,
        size: Size::Fixed(layout.shortest()),
        rate: Rate::Max,
        vlan: None,
        run: 0,
        syn_only: false,
    };
    let templates = plan.templates(interface, None)?.into_iter();
    let templates = templates.map(|template| template.of_ethertype(EXPERIMENTAL));
    let templates = templates.collect::<Vec<_>>();
    let source = Source::of(interface.clone(), &plan, &templates, Duration::MAX)?;
    let before = interface.sent()?;
    source.run(FRAMES)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Not any at all: other programs send, too.
        if interface.sent()?.saturating_sub(before) >= u64::from(FRAMES) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A loaded source, ready to send.
#[derive(Debug)]
pub struct Source {
    program: Ebpf,
    interface: Interface,
    first: Vec<u8>,
    /// Between frames.
    gap: Duration,
    /// From the first frame to the end.
    duration: Duration,
}

impl Source {
    /// Prepares `plan` for `interface`, to be sent until `duration` has passed since the first frame.
    ///
    /// # Errors
    /// A frame of the plan cannot be made or is too long for the interface, or the kernel refuses
    /// the program.
    pub fn load(interface: Interface, plan: &Plan, duration: Duration) -> Result<Self, LiveError> {
        let templates = plan.templates(&interface, None)?;
        Self::of(interface, plan, &templates, duration)
    }

    fn of(
        interface: Interface,
        plan: &Plan,
        templates: &[Template],
        duration: Duration,
    ) -> Result<Self, LiveError> {
        let first = templates
            .iter()
            .max_by_key(|template| template.length())
            .map(|template| template.frame(&plan.flows, 0, 0, 0))
            .unwrap_or_default();
        let gap = Duration::from_nanos(gap_ps(plan.rate) / 1000);
        // The frame that would be due at the end is not sent any more.
        let duration = duration.saturating_sub(gap.min(Duration::from_millis(2)) / 2);
        let config = config(&interface, plan, templates, duration);
        let mut program = EbpfLoader::new()
            .override_global("CONFIG", &config[..], true)
            .load(aya::include_bytes_aligned!("../bpf/generate.bpf.o"))?;
        let xdp: &mut Xdp = program
            .program_mut("generate")
            .ok_or(LiveError::Object("program generate"))?
            .try_into()?;
        xdp.load()?;
        Ok(Self {
            program,
            interface,
            first,
            gap,
            duration,
        })
    }

    /// The frame that one run makes, for comparison with [`Template::frame`]; nothing is sent.
    ///
    /// # Errors
    /// The kernel refuses to run the program.
    pub fn sample(&self) -> Result<Vec<u8>, LiveError> {
        let mut made = vec![0; self.first.len()];
        let result = self.xdp()?.test_run(TestRunOptions {
            data_in: Some(&self.first),
            data_out: Some(&mut made),
            ..TestRunOptions::new()
        })?;
        made.truncate(usize::try_from(result.data_size_out).unwrap_or(0));
        Ok(made)
    }

    /// Sends until the duration has passed since the first frame or SIGINT or SIGTERM arrives. Once a second `progress` is
    /// told what was sent so far, from another thread.
    ///
    /// To be called on the main thread: it is the one that the kernel interrupts for a signal
    /// to the process.
    ///
    /// # Errors
    /// The kernel refuses to run the program.
    pub fn send(&mut self, mut progress: impl FnMut(Sent) + Send) -> Result<Sent, LiveError> {
        let stop = Arc::new(AtomicBool::new(false));
        let registered =
            [SIGINT, SIGTERM].map(|signal| signal_hook::flag::register(signal, Arc::clone(&stop)));
        // Only there to interrupt the system call.
        let alarm = signal_hook::flag::register(SIGALRM, Arc::default());
        for handler in registered.into_iter().chain([alarm]) {
            handler.map_err(LiveError::Signal)?;
        }

        let state = self
            .program
            .take_map(".bss")
            .ok_or(LiveError::Object("map .bss"))?;
        let state: Array<MapData, [u64; STATE_WORDS]> = state.try_into()?;
        let before = self.interface.sent()?;
        let done = AtomicBool::new(false);
        let duration = self.duration;
        let ran = thread::scope(|scope| {
            scope.spawn(|| {
                let mut start = None;
                let mut next = Duration::from_secs(1);
                while !done.load(Ordering::Acquire) {
                    // The kernel takes a while to begin.
                    start = start.or_else(|| state.get(&0, 0).ok().and_then(first_frame));
                    let elapsed = start.map_or(Duration::ZERO, since);
                    if elapsed >= duration || stop.load(Ordering::Relaxed) {
                        stop.store(true, Ordering::Release);
                        // Repeated, in case the call had not begun or just been begun anew.
                        let own = rustix::process::getpid();
                        let _ = rustix::process::kill_process(own, rustix::process::Signal::ALARM);
                        thread::sleep(Duration::from_millis(5));
                        continue;
                    }
                    if elapsed >= next {
                        next += Duration::from_secs(1);
                        if let Ok(words) = state.get(&0, 0) {
                            progress(sent(words, self.gap));
                        }
                    }
                    let pause = match start {
                        Some(_) => next.min(duration).saturating_sub(elapsed),
                        None => Duration::from_millis(1),
                    };
                    thread::park_timeout(pause.min(Duration::from_millis(50)));
                }
            });
            let ran = self.run_until(&stop);
            done.store(true, Ordering::Release);
            ran
        });
        ran?;
        let mut total = sent(state.get(&0, 0)?, self.gap);
        // The interface counts a batch when it has taken it.
        let taken = self.interface.sent()?.saturating_sub(before);
        total.dropped = total.frames.saturating_sub(taken);
        Ok(total)
    }

    fn run_until(&self, stop: &AtomicBool) -> Result<(), LiveError> {
        while !stop.load(Ordering::Acquire) {
            match self.run(1 << 30) {
                Err(LiveError::Program(ProgramError::SyscallError(error)))
                    if error.io_error.kind() == std::io::ErrorKind::Interrupted => {}
                ran => ran?,
            }
        }
        Ok(())
    }

    /// Runs the program so many times, each of which sends a frame or none.
    fn run(&self, times: u32) -> Result<(), LiveError> {
        self.xdp()?.test_run(TestRunOptions {
            data_in: Some(&self.first),
            repeat: times,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        })?;
        Ok(())
    }

    fn xdp(&self) -> Result<&Xdp, LiveError> {
        let program = self.program.program("generate");
        Ok(program
            .ok_or(LiveError::Object("program generate"))?
            .try_into()?)
    }
}

/// `struct state` as the program keeps it, of frames with this gap between them. The last frame's gap is part
/// of the time: else one frame a second for two seconds would be two a second.
fn sent(words: [u64; STATE_WORDS], gap: Duration) -> Sent {
    let [frames, bytes, _next, last, first, ..] = words;
    let gap = if frames > 0 { gap } else { Duration::ZERO };
    Sent {
        frames,
        bytes,
        elapsed: Duration::from_nanos(last.saturating_sub(first)) + gap,
        dropped: 0,
    }
}

/// When the first frame was sent, in nanoseconds of `CLOCK_MONOTONIC`.
fn first_frame(words: [u64; STATE_WORDS]) -> Option<u64> {
    let [_frames, _bytes, _next, _last, first, ..] = words;
    (first > 0).then_some(first)
}

fn since(time: u64) -> Duration {
    Duration::from_nanos(now().saturating_sub(time))
}

/// Picoseconds from frame to frame.
fn gap_ps(rate: Rate) -> u64 {
    match rate {
        Rate::Max => 0,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "1 to 100 million a second: 10^4 to 10^12 picoseconds"
        )]
        Rate::PerSecond(rate) => (1e12 / rate) as u64,
    }
}

/// `struct config` as the program reads it.
fn config(
    interface: &Interface,
    plan: &Plan,
    templates: &[Template],
    duration: Duration,
) -> Vec<u8> {
    let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let source = match plan.flows.first() {
        std::net::IpAddr::V4(v4) => v4.to_bits(),
        std::net::IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            u32::from_be_bytes([a, b, c, d])
        }
    };
    let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let layout = &plan.layout;
    let numbers = [
        interface.index,
        plan.flows.count(),
        stride(plan.flows.count()),
        plan.flows.hosts(),
        source,
        u32::from(FIRST_PORT),
        templates.first().map_or(0, |first| small(first.words())),
        small(templates.len()),
        u32::from(layout.destination.is_ipv6()),
        u32::from(layout.protocol == Protocol::Tcp),
        u32::from(plan.vlan.is_some()),
        u32::from(plan.run) << 24,
        plan.flows.offset(),
        u32::from(plan.syn_only),
    ];
    let mut bytes = Vec::with_capacity(CONFIG);
    for number in [gap_ps(plan.rate), duration_ns] {
        bytes.extend(number.to_ne_bytes());
    }
    for number in numbers {
        bytes.extend(number.to_ne_bytes());
    }
    for template in templates {
        bytes.extend(template.header());
        for number in [
            small(template.length()),
            template.ip_sum,
            template.l4_sum,
            0,
        ] {
            bytes.extend(number.to_ne_bytes());
        }
    }
    bytes.resize(CONFIG, 0);
    bytes
}

/// Sending failed.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Sources(#[from] FlowsError),
    #[error(
        "frames of {length} bytes: {interface} takes at most {longest} (MTU {mtu}): give a smaller --size or --fragment, or raise the MTU"
    )]
    TooLong {
        length: usize,
        longest: usize,
        interface: String,
        mtu: usize,
    },
    #[error(
        "frames of {0} bytes: the generator makes at most {LONGEST}, whatever the MTU: give a smaller --size, or --fragment"
    )]
    BeyondPage(usize),
    #[error(
        "{0} takes no frames made in the kernel. On a veth the other end must have an XDP program or \
         GRO: `ethtool -K PEER gro on`"
    )]
    Vanished(String),
    #[error("{0} flows: a frame's stamp can tell {MOST_FLOWS} apart: ask for at most so many")]
    Flows(u32),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error(
        "cannot load the generator program; it needs root (CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN)"
    )]
    Load(#[from] EbpfError),
    #[error(
        "the kernel refused the generator; it needs Linux 5.18 and root (CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN)"
    )]
    Program(#[from] ProgramError),
    #[error("cannot read the generator's counters")]
    Map(#[from] MapError),
    #[error("cannot handle signals")]
    Signal(#[source] std::io::Error),
    #[error("the built-in object lacks {0}: rebuild it with pktgen/bpf/build.sh")]
    Object(&'static str),
}

impl LiveError {
    /// It is the plan that is wrong, not what happened on the way.
    #[must_use]
    pub fn is_of_plan(&self) -> bool {
        match self {
            Self::Frame(_)
            | Self::Sources(_)
            | Self::TooLong { .. }
            | Self::BeyondPage(_)
            | Self::Flows(_) => true,
            Self::Vanished(_)
            | Self::Interface(_)
            | Self::Load(_)
            | Self::Program(_)
            | Self::Map(_)
            | Self::Signal(_)
            | Self::Object(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_gaps() {
        let second = 1_000_000_000;
        let two = sent(
            [2, 120, 0, 6 * second, 5 * second, 0, 0, 0],
            Duration::from_secs(1),
        );
        assert_eq!((two.elapsed, two.rate()), (Duration::from_secs(2), 1.0));
        let none = sent([0; STATE_WORDS], Duration::from_secs(1));
        assert_eq!((none.elapsed, none.rate()), (Duration::ZERO, 0.0));
    }
}
