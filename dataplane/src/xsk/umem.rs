//! Packet memory: one mapping of fixed-size chunks, and the frames in it.
//!
//! Invariants:
//! - Every chunk is, at any time, named by at most one [`Frame`] or is lent
//!   to the kernel (or to a ring peer). A `Frame` can be neither copied nor
//!   made outside this crate, so holding it is the right to its bytes.
//! - A frame's packet never leaves its chunk: `offset + length <= frame_size`.
//!
//! Not done here: registration with a socket (`socket.rs`), and the decision
//! how many frames there are.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Room in front of a packet for an outer header (TUN) or a tag, in bytes,
/// besides the 256 bytes that the kernel reserves itself (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: u16 = 64;

/// The kernel's own reserve in front of each received packet, in bytes.
pub const KERNEL_HEADROOM: u16 = 256;

/// Size of a chunk in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameSize {
    /// For an MTU up to 1500 (1700 bytes of packet).
    Bytes2048 = 2048,
    /// For an MTU up to 3500, the most that native XDP takes in one buffer.
    Bytes4096 = 4096,
}

impl FrameSize {
    /// The longest packet, in bytes with its Ethernet header, that fits.
    #[must_use]
    pub const fn max_packet(self) -> usize {
        self as usize - (KERNEL_HEADROOM + HEADROOM) as usize
    }
}

/// A mapping of `frames` chunks of one size, from which packets are received
/// and sent without copying.
#[derive(Debug)]
pub struct Umem {
    base: NonNull<u8>,
    frame_size: u32,
    frames: u32,
    id: u32,
}

// SAFETY: the mapping is reached only through `Frame`s, each of which is the
// only one for its chunk; two threads never hold the right to the same bytes.
unsafe impl Send for Umem {}
// SAFETY: as above: `&Umem` alone gives access to no byte.
unsafe impl Sync for Umem {}

impl Umem {
    /// Maps `frames` chunks, on huge pages where the kernel has them, and
    /// returns the memory with all of its frames.
    ///
    /// # Errors
    /// What `mmap` says, usually `ENOMEM`.
    pub fn new(frames: u32, frame_size: FrameSize) -> io::Result<(Arc<Self>, FramePool)> {
        static NEXT_ID: AtomicU32 = AtomicU32::new(0);
        let frame_size = frame_size as u32;
        let length = frames as usize * frame_size as usize;
        // SAFETY: an anonymous mapping at an address of the kernel's choice
        // aliases nothing.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                length,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::POPULATE,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let umem = Arc::new(Self {
            base,
            frame_size,
            frames,
            id,
        });
        let pool = FramePool {
            free: (0..frames)
                .rev()
                .map(|chunk| Frame {
                    chunk,
                    umem: id,
                    offset: KERNEL_HEADROOM + HEADROOM,
                    length: 0,
                })
                .collect(),
        };
        Ok((umem, pool))
    }

    /// The packet in `frame`.
    ///
    /// # Panics
    /// If the frame belongs to another `Umem`, which is a programming error.
    #[inline(always)]
    #[must_use]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        assert!(frame.umem == self.id, "a frame of another umem");
        // SAFETY: the frame is of this umem, so its chunk is below `frames` and
        // its packet inside the chunk (module invariants); the frame is
        // borrowed, so nobody writes to the chunk meanwhile.
        unsafe { std::slice::from_raw_parts(self.start(frame), usize::from(frame.length)) }
    }

    /// The packet in `frame`, to be changed.
    ///
    /// # Panics
    /// As [`bytes`](Self::bytes).
    #[inline(always)]
    #[must_use]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        assert!(frame.umem == self.id, "a frame of another umem");
        // SAFETY: as in `bytes`; the frame is borrowed mutably and is the only
        // one of its chunk, so the slice is unique.
        unsafe { std::slice::from_raw_parts_mut(self.start(frame), usize::from(frame.length)) }
    }

    /// Address of the first byte of the packet; a hint for a prefetch.
    #[inline(always)]
    pub(crate) fn start(&self, frame: &Frame) -> *mut u8 {
        self.base.as_ptr().wrapping_add(
            frame.chunk as usize * self.frame_size as usize + usize::from(frame.offset),
        )
    }

    /// Bytes in a chunk.
    #[must_use]
    pub fn frame_size(&self) -> u32 {
        self.frame_size
    }

    /// Number of chunks.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Sets the packet's length, in bytes, keeping its start.
    ///
    /// # Errors
    /// The frame is left as it is when the packet would not fit in its chunk.
    #[inline]
    pub fn set_length(&self, frame: &mut Frame, length: usize) -> Result<(), FrameTooShort> {
        let end = usize::from(frame.offset) + length;
        if end > self.frame_size as usize {
            return Err(FrameTooShort { wanted: length });
        }
        // The chunk is at most 4096 bytes, so a length that fits fits in u16.
        frame.length = u16::try_from(length).map_err(|_| FrameTooShort { wanted: length })?;
        Ok(())
    }

    /// Copies `packet` into `frame`, from its usual start.
    ///
    /// # Errors
    /// The packet is longer than a frame of this memory holds.
    pub fn fill(&self, frame: &mut Frame, packet: &[u8]) -> Result<(), FrameTooShort> {
        frame.offset = KERNEL_HEADROOM + HEADROOM;
        self.set_length(frame, packet.len())?;
        self.bytes_mut(frame).copy_from_slice(packet);
        Ok(())
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        let length = self.frames as usize * self.frame_size as usize;
        // SAFETY: `base` and `length` are those of the mapping made in `new`;
        // every socket and device keeps an `Arc` of the umem, so none is left.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), length) };
        debug_assert!(unmapped.is_ok(), "munmap of the umem: {unmapped:?}");
    }
}

/// A packet does not fit in a frame.
#[derive(Debug, thiserror::Error)]
#[error("a packet of {wanted} bytes does not fit in the frame")]
pub struct FrameTooShort {
    wanted: usize,
}

/// The right to one chunk of a [`Umem`] and the place of a packet in it.
///
/// Neither `Clone` nor `Copy`: dropping it leaks the chunk until the umem
/// goes, so it is always handed on, to a device or to the [`FramePool`].
#[derive(Debug)]
#[must_use = "a dropped frame is lost to the pool"]
pub struct Frame {
    chunk: u32,
    umem: u32,
    offset: u16,
    length: u16,
}

impl Frame {
    /// Length of the packet in bytes.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// True for a frame without a packet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// The free frames of a worker; last in, first out, so that a chunk is used
/// again while it is in the cache.
#[derive(Debug)]
pub struct FramePool {
    free: Vec<Frame>,
}

impl FramePool {
    /// A free frame, if there is one.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Returns a frame. Never allocates: the pool was made with room for every frame of its umem.
    #[inline(always)]
    pub fn give(&mut self, frame: Frame) {
        self.free.push(frame);
    }

    /// Number of free frames.
    #[must_use]
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// True when no frame is free.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }
}
