//! One AF_XDP socket: made, given its rings and its memory, and bound to a
//! queue of an interface.
//!
//! The sockets of a worker share one [`Umem`]: the first registers it, the later
//! ones bind with `XDP_SHARED_UMEM` and inherit the first one's mode. Each has
//! all four rings, so that chunks lent through one socket come back through it.
//!
//! Not done here: moving frames (`device/af_xdp.rs`) and the XDP program that
//! sends packets to the socket (`bpf.rs`).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XDP_PGOFF_RX_RING,
    XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpDesc,
    XdpOptionsFlags, XdpStatistics, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::ring::{Consumer, Producer};
use super::umem::{HEADROOM, Umem};

/// Entries of each of the four rings.
pub const RING_SIZE: u32 = 2048;

/// Frames the kernel sends in one system call, if it lets us choose
/// (`XDP_MAX_TX_SKB_BUDGET`, Linux 6.17; otherwise 32): four full bursts.
const TX_BUDGET: libc::c_int = 256;

/// Send buffer in bytes: room for a full tx ring of long packets, so that copy mode is limited by
/// the ring and not by the default of 208 KiB (90 packets).
const SEND_BUFFER: usize = 8 << 20;

/// How long a bind is tried again while the queue is busy: the kernel gives up
/// a closed socket's queue only after an RCU grace period.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How packets get from an interface to its sockets. All but `Auto` are a demand,
/// and an error where the interface cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum BindMode {
    /// The best that works: native XDP with zero-copy, native XDP with copies,
    /// generic XDP.
    #[default]
    Auto,
    /// Native XDP, and the driver writes packets straight into our memory.
    ZeroCopy,
    /// Native XDP, and the kernel copies packets.
    Copy,
    /// XDP in the network stack, for drivers without XDP; copies.
    Generic,
}

impl BindMode {
    /// Every mode with the name that the configuration has for it.
    pub const NAMES: [(&str, Self); 4] = [
        ("auto", Self::Auto),
        ("zero-copy", Self::ZeroCopy),
        ("copy", Self::Copy),
        ("generic", Self::Generic),
    ];

    fn flags(self) -> SocketAddrXdpFlags {
        match self {
            Self::Auto => SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP,
            Self::ZeroCopy => {
                SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP | SocketAddrXdpFlags::XDP_ZEROCOPY
            }
            Self::Copy | Self::Generic => {
                SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP | SocketAddrXdpFlags::XDP_COPY
            }
        }
    }
}

impl fmt::Display for BindMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
            Self::Generic => "generic",
        })
    }
}

/// One receive and transmit queue of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// The interface's index in the network namespace of the calling thread.
    pub ifindex: u32,
    /// The interface's name, for messages.
    pub interface: String,
    /// Queue number, from 0.
    pub queue: u32,
}

/// An open socket, bound to its queue, with its rings.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) rx: Consumer<XdpDesc>,
    pub(crate) tx: Producer<XdpDesc>,
    pub(crate) fill: Producer<u64>,
    pub(crate) completion: Consumer<u64>,
    shared: Shared,
    zero_copy: bool,
}

/// What the sockets of one umem need of each other: one that is bound, and the memory, which the
/// kernel uses as long as it is open.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    fd: Arc<OwnedFd>,
    umem: Arc<Umem>,
}

impl Shared {
    pub(crate) fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }
}

impl Socket {
    /// Opens a socket for `spec` and registers `umem` with it.
    pub(crate) fn open(
        umem: &Arc<Umem>,
        spec: &QueueSpec,
        mode: BindMode,
    ) -> Result<Self, OpenError> {
        let fd = create(spec)?;
        register(fd.as_fd(), umem).map_err(OpenError::at(Step::Register, spec))?;
        let address = SocketAddrXdp::new(mode.flags(), spec.ifindex, spec.queue);
        Self::with_rings(fd, umem, spec, mode, |fd| rustix::net::bind(fd, &address))
    }

    /// Opens a socket for `spec` on the memory that `first` registered, and in
    /// `first`'s mode.
    pub(crate) fn share(
        first: &Shared,
        spec: &QueueSpec,
        mode: BindMode,
    ) -> Result<Self, OpenError> {
        let fd = create(spec)?;
        let flags = SocketAddrXdpFlags::XDP_SHARED_UMEM;
        let address = SocketAddrXdpWithSharedUmem {
            addr: SocketAddrXdp::new(flags, spec.ifindex, spec.queue),
            shared_umem_fd: first.fd.as_fd(),
        };
        Self::with_rings(fd, &first.umem, spec, mode, |fd| {
            rustix::net::bind(fd, &address)
        })
    }

    fn with_rings(
        fd: OwnedFd,
        umem: &Arc<Umem>,
        spec: &QueueSpec,
        mode: BindMode,
        bind: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<()>,
    ) -> Result<Self, OpenError> {
        size_rings(fd.as_fd()).map_err(OpenError::at(Step::Rings, spec))?;
        let at = sockopt::xdp_mmap_offsets(&fd).map_err(OpenError::at(Step::Rings, spec))?;
        let failed = |error: io::Error| OpenError {
            interface: spec.interface.clone(),
            queue: spec.queue,
            step: Step::Rings,
            source: error,
        };
        let rx = Consumer::map(fd.as_fd(), XDP_PGOFF_RX_RING, &at.rx, RING_SIZE);
        let tx = Producer::map(fd.as_fd(), XDP_PGOFF_TX_RING, &at.tx, RING_SIZE);
        let fill = Producer::map(fd.as_fd(), XDP_UMEM_PGOFF_FILL_RING, &at.fr, RING_SIZE);
        let completion = Consumer::map(
            fd.as_fd(),
            XDP_UMEM_PGOFF_COMPLETION_RING,
            &at.cr,
            RING_SIZE,
        );
        let (rx, tx) = (rx.map_err(failed)?, tx.map_err(failed)?);
        let (fill, completion) = (fill.map_err(failed)?, completion.map_err(failed)?);

        bind_patiently(|| bind(fd.as_fd())).map_err(OpenError::at(Step::Bind(mode), spec))?;
        tune(fd.as_fd());
        let options = sockopt::xdp_options(&fd).map_err(OpenError::at(Step::Bind(mode), spec))?;
        Ok(Self {
            rx,
            tx,
            fill,
            completion,
            zero_copy: options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY),
            shared: Shared {
                fd: Arc::new(fd),
                umem: Arc::clone(umem),
            },
        })
    }

    /// True when the driver reads and writes the umem itself.
    pub(crate) fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// What the kernel counted for this socket.
    pub(crate) fn statistics(&self) -> rustix::io::Result<XdpStatistics> {
        sockopt::xdp_statistics(&self.shared.fd)
    }

    /// By this, more sockets are opened on the same memory.
    pub(crate) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Closes the socket. True when the kernel is done with the memory it was lent by this
    /// socket: not while a [`Shared`] keeps it open, and not of a zero-copy socket, whose driver
    /// is stopped later (`xp_release_deferred` in `net/xdp/xsk_buff_pool.c`). In copy mode close(2) itself waits
    /// until nobody writes any more (`xsk_unbind_dev` in `net/xdp/xsk.c`).
    pub(crate) fn close(self) -> bool {
        let zero_copy = self.zero_copy;
        let Self { shared, .. } = self;
        Arc::into_inner(shared.fd).is_some() && !zero_copy
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.fd.as_fd()
    }
}

fn create(spec: &QueueSpec) -> Result<OwnedFd, OpenError> {
    let (family, flags) = (AddressFamily::XDP, SocketFlags::CLOEXEC);
    rustix::net::socket_with(family, SocketType::RAW, flags, None)
        .map_err(OpenError::at(Step::Create, spec))
}

/// Registers `umem`. Where the limit on locked memory counts and is too low, it
/// is raised if we may, as BPF loaders do.
fn register(fd: BorrowedFd<'_>, umem: &Umem) -> rustix::io::Result<()> {
    let registration = || XdpUmemReg {
        addr: umem.base().addr() as u64,
        len: umem.length() as u64,
        chunk_size: umem.frame_size(),
        headroom: u32::from(HEADROOM),
        flags: XdpUmemRegFlags::empty(),
        tx_metadata_len: 0,
    };
    match sockopt::set_xdp_umem_reg(fd, registration()) {
        Err(Errno::NOBUFS) => {
            let unlimited = rustix::process::Rlimit {
                current: None,
                maximum: None,
            };
            // Not allowed: the second attempt reports what the first did.
            let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
            sockopt::set_xdp_umem_reg(fd, registration())
        }
        done => done,
    }
}

fn size_rings(fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    sockopt::set_xdp_umem_fill_ring_size(fd, RING_SIZE)?;
    sockopt::set_xdp_umem_completion_ring_size(fd, RING_SIZE)?;
    sockopt::set_xdp_rx_ring_size(fd, RING_SIZE)?;
    sockopt::set_xdp_tx_ring_size(fd, RING_SIZE)
}

/// Binds, trying again for a while when the queue is still busy.
fn bind_patiently(bind: impl Fn() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    let start = Instant::now();
    loop {
        match bind() {
            Err(Errno::BUSY) if start.elapsed() < BUSY_LIMIT => std::thread::sleep(BUSY_PAUSE),
            done => return done,
        }
    }
}

/// Options that only make sending faster; a kernel or a user without them works
/// as well, so their failures are ignored.
fn tune(fd: BorrowedFd<'_>) {
    /// Not in libc yet; `include/uapi/linux/if_xdp.h`.
    const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
    let budget = TX_BUDGET;
    #[expect(clippy::cast_possible_truncation, reason = "the size of an int")]
    let size = size_of_val(&budget) as libc::socklen_t;
    // SAFETY: the option's value is an int, and its address and size are passed.
    let _ = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            (&raw const budget).cast(),
            size,
        )
    };
    let _ = sockopt::set_socket_send_buffer_size_force(fd, SEND_BUFFER);
}

/// What was being done when opening failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Register,
    Rings,
    Bind(BindMode),
}

/// An AF_XDP socket could not be opened; the source is the kernel's error.
#[derive(Debug)]
pub struct OpenError {
    interface: String,
    queue: u32,
    step: Step,
    source: io::Error,
}

impl OpenError {
    fn at(step: Step, spec: &QueueSpec) -> impl FnOnce(Errno) -> Self {
        move |errno| Self {
            interface: spec.interface.clone(),
            queue: spec.queue,
            step,
            source: errno.into(),
        }
    }

    fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }

    /// True when the interface's driver has no zero-copy.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self.step, Step::Bind(_)) && self.errno() == Some(Errno::OPNOTSUPP)
    }

    /// True when the socket whose memory was to be shared is bound to nothing any more: the kernel unbinds the
    /// sockets of an interface that is deleted.
    pub(crate) fn is_unbound(&self) -> bool {
        matches!(self.step, Step::Bind(_)) && self.errno() == Some(Errno::BADF)
    }

    /// The likely cause and what to do about it.
    fn remedy(&self) -> Option<&'static str> {
        Some(match (self.step, self.errno()?) {
            (_, Errno::PERM | Errno::ACCESS) => {
                "needs CAP_NET_RAW and CAP_NET_ADMIN: run as root or grant them"
            }
            (Step::Create, Errno::AFNOSUPPORT) => {
                "this kernel is built without AF_XDP (CONFIG_XDP_SOCKETS)"
            }
            (Step::Register, Errno::NOBUFS) => {
                "the packet memory exceeds the limit on locked memory: raise `ulimit -l` \
                 (LimitMEMLOCK= in a systemd unit) or grant CAP_IPC_LOCK"
            }
            (_, Errno::MFILE) => {
                "too many open files: raise `ulimit -n` (LimitNOFILE= in a systemd unit)"
            }
            (_, Errno::NOMEM) => "not enough memory: use fewer queues or free some",
            (Step::Bind(_), Errno::BUSY) => {
                "the queue is in use by another AF_XDP program: stop it (`ss --xdp -p` names it)"
            }
            (Step::Bind(BindMode::ZeroCopy), Errno::OPNOTSUPP) => {
                "the driver has no zero-copy: use mode \"auto\" or \"copy\""
            }
            (Step::Bind(_), Errno::INVAL) => {
                "the interface has no such queue, or its MTU is too big for a frame: \
                 see `ethtool -l` and `ip link`"
            }
            (Step::Bind(_), Errno::NODEV) => "the interface is gone",
            (Step::Bind(_), Errno::NETDOWN) => "the interface is down: `ip link set dev … up`",
            _ => return None,
        })
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, queue {}: cannot ", self.interface, self.queue)?;
        match self.step {
            Step::Create => write!(f, "make an AF_XDP socket")?,
            Step::Register => write!(f, "register the packet memory")?,
            Step::Rings => write!(f, "make the rings of the AF_XDP socket")?,
            Step::Bind(mode) => write!(f, "bind the AF_XDP socket in mode {mode}")?,
        }
        match self.remedy() {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
