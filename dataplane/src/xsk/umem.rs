//! Packet memory: one mapping of fixed-size chunks, and the frames in it.
//!
//! Invariants:
//! - Every chunk is, at any time, named by at most one [`Frame`] or is lent
//!   to the kernel and noted in one `Ledger`. A `Frame` cannot be copied and is
//!   made in two places only: [`Umem::new`], one for each chunk, and the
//!   ledger's `reclaim` and `reclaim_all`, for a chunk that it knows to be lent. So
//!   holding a frame is the right to its bytes, whatever addresses the kernel
//!   writes into its rings.
//! - A frame's packet never leaves its chunk: its address and its last byte have one chunk number.
//!   Nor do the [`HEAD`] bytes from its address on, however short the packet is.
//!
//! Not done here: registration with a socket (`socket.rs`), and the decision
//! how many frames there are.

mod packets;

pub use self::packets::{HEAD, Packets};

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::io::Errno;
use rustix::mm;

/// Room in front of a packet for an outer header (TUN) or a tag, in bytes,
/// besides the 256 bytes that the kernel reserves itself (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: u16 = 64;

/// The kernel's own reserve in front of each received packet, in bytes.
pub const KERNEL_HEADROOM: u16 = 256;

/// Where in its chunk a packet starts.
const START: u32 = (KERNEL_HEADROOM + HEADROOM) as u32;

/// What a chunk has from a packet's start on at least.
#[expect(clippy::cast_possible_truncation, reason = "it is 64")]
const LEAST: u32 = HEAD as u32;

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
    /// Binary logarithm of the chunk size: addresses become chunks by a shift.
    shift: u32,
    frames: u32,
    id: u16,
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
    /// What `mmap` says, usually `ENOMEM`. That 4 GiB are not enough for `frames`, or that this process has
    /// made 65535 of these already.
    pub fn new(frames: u32, frame_size: FrameSize) -> io::Result<(Arc<Self>, FramePool)> {
        static NEXT_ID: AtomicU16 = AtomicU16::new(0);
        let id = NEXT_ID
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| id.checked_add(1))
            .map_err(|_| io::Error::other("too many umems in one process"))?;
        let shift = (frame_size as u32).trailing_zeros();
        if frames > u32::MAX >> shift {
            return Err(io::Error::other("a umem of more than 4 GiB"));
        }
        let length = (frames as usize) << shift;
        // SAFETY: an anonymous mapping at an address of the kernel's choice
        // aliases nothing.
        let base = unsafe {
            mm::mmap_anonymous(
                std::ptr::null_mut(),
                length,
                mm::ProtFlags::READ | mm::ProtFlags::WRITE,
                mm::MapFlags::PRIVATE,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let umem = Arc::new(Self {
            base,
            shift,
            frames,
            id,
        });
        umem.populate()?;
        let pool = FramePool {
            free: (0..frames)
                .rev()
                .map(|chunk| Frame {
                    address: (chunk << shift) + START,
                    length: 0,
                    umem: id,
                })
                .collect(),
            chunk_mask: !(frame_size as u32 - 1),
            umem: id,
        };
        Ok((umem, pool))
    }

    /// Backs the mapping with memory now, so that forwarding never waits for a
    /// page fault. The advice for huge pages comes before the first touch, or
    /// it would come too late.
    fn populate(&self) -> io::Result<()> {
        let advise = |advice| {
            // SAFETY: the range is this mapping, whole; neither advice changes
            // its contents, and no frame has been handed out yet.
            unsafe { mm::madvise(self.base.as_ptr().cast(), self.length(), advice) }
        };
        // A kernel without huge pages says EINVAL: small pages work as well.
        match advise(mm::Advice::LinuxHugepage) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Before Linux 5.14 this advice is unknown; then registering the umem
        // with a socket populates it.
        match advise(mm::Advice::LinuxPopulateWrite) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
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
        self.base.as_ptr().wrapping_add(frame.address as usize)
    }

    /// Where in its chunk the packet starts.
    fn offset(&self, frame: &Frame) -> usize {
        (frame.address & (self.frame_size() - 1)) as usize
    }

    /// First byte of the mapping, for its registration with a socket.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Length of the mapping in bytes.
    pub(crate) fn length(&self) -> usize {
        (self.frames as usize) << self.shift
    }

    /// Bytes in a chunk.
    #[must_use]
    pub fn frame_size(&self) -> u32 {
        1 << self.shift
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
    ///
    /// # Panics
    /// As [`bytes`](Self::bytes).
    #[inline]
    pub fn set_length(&self, frame: &mut Frame, length: usize) -> Result<(), FrameTooShort> {
        assert!(frame.umem == self.id, "a frame of another umem");
        let end = self.offset(frame) + length;
        if end > self.frame_size() as usize {
            return Err(FrameTooShort { wanted: length });
        }
        // The chunk is at most 4096 bytes, so a length that fits fits in u16.
        frame.length = u16::try_from(length).map_err(|_| FrameTooShort { wanted: length })?;
        Ok(())
    }

    /// Lengthens the packet by `bytes` in front, which hold anything: [`HEADROOM`] is there for it.
    ///
    /// # Errors
    /// The frame is left as it is when its chunk has no such room in front of the packet.
    ///
    /// # Panics
    /// As [`bytes`](Self::bytes).
    #[inline(always)]
    pub fn prepend(&self, frame: &mut Frame, bytes: u16) -> Result<(), FrameTooShort> {
        assert!(frame.umem == self.id, "a frame of another umem");
        let wanted = usize::from(frame.length) + usize::from(bytes);
        let too_short = FrameTooShort { wanted };
        if self.offset(frame) < usize::from(bytes) {
            return Err(too_short);
        }
        // No overflow: the longer packet still ends where it did, below 4096.
        frame.address -= u32::from(bytes);
        frame.length += bytes;
        Ok(())
    }

    /// Cuts `bytes` off the packet's front.
    ///
    /// # Errors
    /// The frame is left as it is when the packet is shorter than that, or would start less than [`HEAD`]
    /// bytes before the end of its chunk.
    ///
    /// # Panics
    /// As [`bytes`](Self::bytes).
    #[inline]
    pub fn cut_front(&self, frame: &mut Frame, bytes: u16) -> Result<(), FrameTooShort> {
        assert!(frame.umem == self.id, "a frame of another umem");
        let too_short = FrameTooShort {
            wanted: usize::from(bytes),
        };
        let Some(length) = frame.length.checked_sub(bytes) else {
            return Err(too_short);
        };
        if self.offset(frame) + usize::from(bytes) + HEAD > self.frame_size() as usize {
            return Err(too_short);
        }
        frame.length = length;
        frame.address += u32::from(bytes);
        Ok(())
    }

    /// Copies `packet` into `frame`, from its usual start.
    ///
    /// # Errors
    /// The packet is longer than a frame of this memory holds.
    ///
    /// # Panics
    /// As [`bytes`](Self::bytes).
    pub fn fill(&self, frame: &mut Frame, packet: &[u8]) -> Result<(), FrameTooShort> {
        assert!(frame.umem == self.id, "a frame of another umem");
        frame.address = (frame.address & !(self.frame_size() - 1)) + START;
        self.set_length(frame, packet.len())?;
        self.bytes_mut(frame).copy_from_slice(packet);
        Ok(())
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: `base` and `length` are those of the mapping made in `new`;
        // every socket and device keeps an `Arc` of the umem, so none is left.
        let unmapped = unsafe { mm::munmap(self.base.as_ptr().cast(), self.length()) };
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
#[repr(C, align(8))]
pub struct Frame {
    /// Of the packet's first byte, in bytes from the start of the umem.
    address: u32,
    length: u16,
    umem: u16,
}

// Frames are moved from ring to ring as one word.
const _: () = assert!(size_of::<Frame>() == 8);

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

/// Which chunks of a umem one socket has lent to the kernel.
///
/// The kernel returns chunks as bare numbers in shared memory. The ledger turns
/// a number into a [`Frame`] again only if it lent that chunk and has not had
/// it back: a wrong or repeated number is refused, and can never become a
/// second frame of a chunk.
#[derive(Debug)]
pub(crate) struct Ledger {
    umem: Arc<Umem>,
    /// One bit for each chunk: 1 KiB for 8192 of them, which stays in the cache.
    lent: Box<[u64]>,
}

impl Ledger {
    /// A ledger of `umem` with nothing lent.
    pub(crate) fn new(umem: &Arc<Umem>) -> Self {
        Self {
            umem: Arc::clone(umem),
            lent: vec![0; umem.frames.div_ceil(u64::BITS) as usize].into_boxed_slice(),
        }
    }

    /// Notes the frame's chunk as lent and returns the address of its packet,
    /// in bytes from the start of the umem, and the packet's length.
    ///
    /// # Panics
    /// If the frame belongs to another `Umem`, which is a programming error.
    #[inline(always)]
    pub(crate) fn lend(&mut self, frame: Frame) -> (u64, u32) {
        assert!(frame.umem == self.umem.id, "a frame of another umem");
        let chunk = frame.address >> self.umem.shift;
        self.lent[(chunk / u64::BITS) as usize] |= 1 << (chunk % u64::BITS);
        (u64::from(frame.address), u32::from(frame.length))
    }

    /// The frame whose packet of `length` bytes is at `address`; `None` unless
    /// its chunk is lent and the packet lies in the chunk, as do [`HEAD`] bytes.
    #[inline(always)]
    pub(crate) fn reclaim(&mut self, address: u64, length: u32) -> Option<Frame> {
        let frame_size = self.umem.frame_size();
        let address = u32::try_from(address).ok()?;
        let chunk = address >> self.umem.shift;
        if length.max(LEAST) > frame_size - (address & (frame_size - 1)) {
            return None;
        }
        // The last word may have bits beyond the last chunk: they are never
        // set, because `lend` gets frames of existing chunks only.
        let word = self.lent.get_mut((chunk / u64::BITS) as usize)?;
        let bit = 1 << (chunk % u64::BITS);
        if *word & bit == 0 {
            return None;
        }
        *word &= !bit;
        Some(Frame {
            address,
            length: u16::try_from(length).ok()?,
            umem: self.umem.id,
        })
    }

    /// Every frame that is lent, when the kernel has nothing of them any more: the socket is closed.
    pub(crate) fn reclaim_all(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        for chunk in 0..self.umem.frames {
            let address = u64::from(chunk) << self.umem.shift;
            frames.extend(self.reclaim(address, 0));
        }
        frames
    }
}

/// The free frames of a worker; last in, first out, so that a chunk is used
/// again while it is in the cache.
#[derive(Debug)]
pub struct FramePool {
    free: Vec<Frame>,
    /// Clears what of an address is the offset in the chunk.
    chunk_mask: u32,
    /// Whose frames these are.
    umem: u16,
}

impl FramePool {
    /// A free frame, if there is one.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Returns a frame, which becomes empty and starts at the usual place. Never
    /// allocates: the pool was made with room for every frame of its umem.
    ///
    /// # Panics
    /// As [`Umem::bytes`].
    #[inline(always)]
    pub fn give(&mut self, mut frame: Frame) {
        assert!(frame.umem == self.umem, "a frame of another umem");
        frame.address = (frame.address & self.chunk_mask) + START;
        frame.length = 0;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lent_chunk_comes_back_once_and_with_its_packet() {
        let (umem, mut pool) = Umem::new(65, FrameSize::Bytes2048).unwrap();
        let mut ledger = Ledger::new(&umem);
        let mut frame = pool.take().unwrap();
        umem.fill(&mut frame, b"packet").unwrap();

        let (address, length) = ledger.lend(frame);
        let frame = ledger.reclaim(address, length).unwrap();
        assert_eq!(umem.bytes(&frame), b"packet");
        assert!(ledger.reclaim(address, length).is_none());
    }

    #[test]
    fn all_that_is_lent_comes_back_at_the_end_and_once() {
        let (umem, mut pool) = Umem::new(130, FrameSize::Bytes2048).unwrap();
        let mut ledger = Ledger::new(&umem);
        for _ in 0..100 {
            ledger.lend(pool.take().unwrap());
        }
        for frame in ledger.reclaim_all() {
            pool.give(frame);
        }
        assert_eq!(pool.len(), 130);
        assert_eq!(ledger.reclaim_all().len(), 0);
        let mut chunks: Vec<_> = pool.free.iter().map(|frame| frame.address >> 11).collect();
        chunks.sort_unstable();
        assert!(chunks.into_iter().eq(0..130), "each chunk once");
    }

    #[test]
    fn addresses_that_were_never_lent_are_refused() {
        let (umem, mut pool) = Umem::new(65, FrameSize::Bytes2048).unwrap();
        let mut ledger = Ledger::new(&umem);
        let (address, _) = ledger.lend(pool.take().unwrap());
        let chunk = address & !2047;

        for (wrong, length) in [
            (chunk + 2048, 60),  // another chunk
            (65 * 2048, 60),     // the first chunk past the end, same word
            (128 * 2048, 60),    // past the last word
            (u64::MAX, 60),      // no chunk number
            (chunk + 1900, 149), // runs out of its chunk
            (chunk + 1985, 1),   // has no room for a head
            (chunk, u32::MAX),   // longer than any chunk
        ] {
            assert!(ledger.reclaim(wrong, length).is_none(), "{wrong} {length}");
        }
        assert!(ledger.reclaim(chunk, 2048).is_some(), "still lent");
    }

    #[test]
    fn a_packet_grows_to_the_front_as_far_as_its_chunk_goes() {
        let (umem, mut pool) = Umem::new(1, FrameSize::Bytes2048).unwrap();
        let mut frame = pool.take().unwrap();
        umem.fill(&mut frame, b"packet").unwrap();

        umem.prepend(&mut frame, 320).unwrap();
        assert_eq!(umem.bytes(&frame)[320..], *b"packet");
        assert!(umem.prepend(&mut frame, 1).is_err());
        assert_eq!(frame.len(), 326);

        umem.cut_front(&mut frame, 322).unwrap();
        assert_eq!(umem.bytes(&frame), b"cket");
        assert!(umem.cut_front(&mut frame, 5).is_err());
        assert_eq!(umem.bytes(&frame), b"cket");
    }

    #[test]
    #[should_panic(expected = "another umem")]
    fn a_frame_of_another_umem_is_not_lent() {
        let (ours, _pool) = Umem::new(1, FrameSize::Bytes2048).unwrap();
        let (_theirs, mut pool) = Umem::new(1, FrameSize::Bytes2048).unwrap();
        Ledger::new(&ours).lend(pool.take().unwrap());
    }

    #[test]
    #[should_panic(expected = "another umem")]
    fn a_frame_of_another_umem_gets_no_length() {
        let (larger, _pool) = Umem::new(1, FrameSize::Bytes4096).unwrap();
        let (_smaller, mut pool) = Umem::new(1, FrameSize::Bytes2048).unwrap();
        let mut frame = pool.take().unwrap();
        let _ = larger.set_length(&mut frame, 3000);
    }

    #[test]
    #[should_panic(expected = "another umem")]
    fn a_frame_of_another_umem_is_no_free_one() {
        let (_larger, mut ours) = Umem::new(1, FrameSize::Bytes4096).unwrap();
        let (_smaller, mut theirs) = Umem::new(2, FrameSize::Bytes2048).unwrap();
        let second = theirs.take().and_then(|_first| theirs.take());
        ours.give(second.unwrap());
    }
}
