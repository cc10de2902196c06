//! Sending with frames made in the kernel.
//!
//! `bpf/generate.bpf.c` is run by `BPF_PROG_TEST_RUN` in live-frames mode: each run makes one frame and
//! redirects it out of the interface. One system call does the whole run, because each call
//! has a fixed cost of about 25 ms; a signal ends it early (the kernel looks once a batch).
//!
//! The interface's other end must take redirected frames. A veth does only when NAPI is on at its
//! *receiving* end: by an XDP program there or by `ethtool -K DEV gro on`; otherwise the frames
//! vanish, which [`Sent::dropped`] shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData, MapError};
use aya::programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use signal_hook::consts::{SIGALRM, SIGINT, SIGTERM};

use crate::flows::{FIRST_PORT, Flows, stride};
use crate::frame::{FrameError, Layout, MOST_FLOWS, TEMPLATE, Template};
use crate::interface::{Interface, InterfaceError};
use crate::units::{Rate, Size};

/// Frames that the kernel makes before it sends them together.
const BATCH: u32 = 64;
/// `MAX_SHAPES` of the program.
const MAX_SHAPES: usize = 12;
/// `struct shape` of the program, in bytes.
const SHAPE: usize = TEMPLATE + 16;
/// `struct config` of the program, in bytes.
const CONFIG: usize = 64 + MAX_SHAPES * SHAPE;
/// `struct state` of the program, in words of 8 bytes.
const STATE_WORDS: usize = 8;
/// Longest frame, in bytes: a page without the kernel's own headers, headroom and tailroom.
const LONGEST: usize = 3300;

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
    /// The frames of each length, in the order in which they are sent, in turn. If they are to be
    /// `fragmented`, they may be longer than the interface's MTU.
    ///
    /// # Errors
    /// They cannot be made, are longer than `interface` takes, or have more flows than stamps can name.
    pub fn templates(
        &self,
        interface: &Interface,
        fragmented: bool,
    ) -> Result<Vec<Template>, LiveError> {
        if self.flows.count() > MOST_FLOWS {
            return Err(LiveError::Flows(self.flows.count()));
        }
        let longest = LONGEST.min(interface.mtu + crate::frame::ETHERNET);
        let template = |length| {
            if length > longest && !fragmented {
                return Err(LiveError::TooLong {
                    length,
                    longest,
                    interface: interface.name.clone(),
                    mtu: interface.mtu,
                });
            }
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
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Frames handed to the interface.
    pub frames: u64,
    /// Their bytes, without the frame check sequence.
    pub bytes: u64,
    /// From the first frame to the last.
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

/// What to do about frames that the interface takes none of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vanished {
    /// They are counted.
    Count,
    /// Nothing more is sent.
    Refuse,
}

/// A loaded source, ready to send.
#[derive(Debug)]
pub struct Source {
    program: Ebpf,
    interface: Interface,
    first: Vec<u8>,
}

impl Source {
    /// Prepares `plan` for `interface`.
    ///
    /// # Errors
    /// A frame of the plan cannot be made or is too long for the interface, or the kernel refuses
    /// the program.
    pub fn load(interface: Interface, plan: &Plan) -> Result<Self, LiveError> {
        let templates = plan.templates(&interface, false)?;
        let first = templates
            .iter()
            .max_by_key(|template| template.length())
            .map(|template| template.frame(&plan.flows, 0, 0, 0))
            .unwrap_or_default();
        let config = config(&interface, plan, &templates);
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

    /// Sends until `duration` has passed or SIGINT or SIGTERM arrives. Once a second `progress` is
    /// told what was sent so far, from another thread.
    ///
    /// With [`Vanished::Refuse`], frames that the interface does not take are an error after a moment.
    ///
    /// To be called on the main thread: it is the one that the kernel interrupts for a signal
    /// to the process.
    ///
    /// # Errors
    /// The kernel refuses to run the program; [`LiveError::Vanished`].
    pub fn send(
        &mut self,
        duration: Duration,
        vanished: Vanished,
        mut progress: impl FnMut(Sent) + Send,
    ) -> Result<Sent, LiveError> {
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
        let vanish = AtomicBool::new(false);
        let ran = thread::scope(|scope| {
            scope.spawn(|| {
                let start = Instant::now();
                let mut next = Duration::from_secs(1);
                let mut looked = vanished == Vanished::Count;
                while !done.load(Ordering::Acquire) {
                    let elapsed = start.elapsed();
                    if elapsed >= duration || stop.load(Ordering::Relaxed) {
                        stop.store(true, Ordering::Release);
                        // Repeated, in case the call had not begun or just been begun anew.
                        let own = rustix::process::getpid();
                        let _ = rustix::process::kill_process(own, rustix::process::Signal::ALARM);
                        thread::sleep(Duration::from_millis(5));
                        continue;
                    }
                    if !looked && let Ok(words) = state.get(&0, 0) {
                        let sent = sent(words).frames;
                        // A batch is counted by the interface when it has taken it.
                        if sent > 2 * u64::from(BATCH) {
                            looked = true;
                            if self.interface.sent().is_ok_and(|taken| taken == before) {
                                vanish.store(true, Ordering::Relaxed);
                                stop.store(true, Ordering::Release);
                                continue;
                            }
                        }
                    }
                    if elapsed >= next {
                        next += Duration::from_secs(1);
                        if let Ok(words) = state.get(&0, 0) {
                            progress(sent(words));
                        }
                    }
                    let pause = next.min(duration).saturating_sub(elapsed);
                    thread::park_timeout(pause.min(Duration::from_millis(50)));
                }
            });
            let ran = self.run_until(&stop);
            done.store(true, Ordering::Release);
            ran
        });
        ran?;
        if vanish.into_inner() {
            return Err(LiveError::Vanished(self.interface.name.clone()));
        }
        let mut total = sent(state.get(&0, 0)?);
        // The interface counts a batch when it has taken it.
        let taken = self.interface.sent()?.saturating_sub(before);
        total.dropped = total.frames.saturating_sub(taken);
        Ok(total)
    }

    fn run_until(&self, stop: &AtomicBool) -> Result<(), LiveError> {
        while !stop.load(Ordering::Acquire) {
            let run = self.xdp()?.test_run(TestRunOptions {
                data_in: Some(&self.first),
                repeat: 1 << 30,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            });
            match run {
                Ok(_) => {}
                Err(ProgramError::SyscallError(error))
                    if error.io_error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn xdp(&self) -> Result<&Xdp, LiveError> {
        let program = self.program.program("generate");
        Ok(program
            .ok_or(LiveError::Object("program generate"))?
            .try_into()?)
    }
}

/// `struct state` as the program keeps it.
fn sent(words: [u64; STATE_WORDS]) -> Sent {
    let [frames, bytes, _next, last, first, ..] = words;
    Sent {
        frames,
        bytes,
        elapsed: Duration::from_nanos(last.saturating_sub(first)),
        dropped: 0,
    }
}

/// `struct config` as the program reads it.
fn config(interface: &Interface, plan: &Plan, templates: &[Template]) -> Vec<u8> {
    let gap_ps: u64 = match plan.rate {
        Rate::Max => 0,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "1 to 100 million a second: 10^4 to 10^12 picoseconds"
        )]
        Rate::PerSecond(rate) => (1e12 / rate) as u64,
    };
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
        u32::from(layout.protocol == dataplane::service::Protocol::Tcp),
        u32::from(plan.vlan.is_some()),
        u32::from(plan.run) << 24,
        plan.flows.offset(),
        u32::from(plan.syn_only),
    ];
    let mut bytes = Vec::with_capacity(CONFIG);
    bytes.extend(gap_ps.to_ne_bytes());
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
    #[error(
        "frames of {length} bytes: {interface} takes at most {longest} (MTU {mtu}): give a smaller --size or raise the MTU"
    )]
    TooLong {
        length: usize,
        longest: usize,
        interface: String,
        mtu: usize,
    },
    #[error(
        "{0} takes no frames made in the kernel. On a veth the other end must have an XDP program or \
         GRO: `ethtool -K PEER gro on`"
    )]
    Vanished(String),
    #[error("{0} flows: a frame's stamp can tell {MOST_FLOWS} apart: ask for at most so many")]
    Flows(u32),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error("cannot load the generator program; it needs root (CAP_BPF, CAP_NET_ADMIN)")]
    Load(#[from] EbpfError),
    #[error(
        "the kernel refused the generator; it needs Linux 5.18 and root (CAP_BPF, CAP_NET_ADMIN)"
    )]
    Program(#[from] ProgramError),
    #[error("cannot read the generator's counters")]
    Map(#[from] MapError),
    #[error("cannot handle signals")]
    Signal(#[source] std::io::Error),
    #[error("the built-in object lacks {0}: rebuild it with pktgen/bpf/build.sh")]
    Object(&'static str),
}
