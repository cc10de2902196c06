//! The packets of a burst, for loops that look at all of their headers.

use std::ptr::NonNull;

use super::{Frame, Umem};
use crate::processor::prefetch_address;

/// Bytes from a packet's start that may be touched however long it is: without options, all headers
/// that forwarding looks at. Behind the packet's end they hold anything.
pub const HEAD: usize = 64;

/// The packets of frames that were found, all of them at once, to be of one umem.
#[derive(Debug)]
pub struct Packets<'a> {
    /// Of the umem, which is borrowed as long; a loop has it in a register.
    base: NonNull<u8>,
    /// Of an address, what is the offset in the chunk.
    offset_mask: u32,
    /// Not to be handed out: a frame of another umem could take the place of one.
    frames: &'a mut [Frame],
}

impl Umem {
    /// The packets in `frames`, by number.
    ///
    /// # Panics
    /// If a frame belongs to another `Umem`, which is a programming error.
    #[inline(always)]
    #[must_use]
    pub fn packets<'a>(&'a self, frames: &'a mut [Frame]) -> Packets<'a> {
        // By whole words, so that the loop is done for several frames at once.
        let own = u64::from(self.id) << 48;
        let foreign = frames
            .iter()
            .fold(0, |foreign, frame| foreign | (frame.word() ^ own));
        assert!(foreign >> 48 == 0, "a frame of another umem");
        Packets {
            base: self.base,
            offset_mask: self.frame_size() - 1,
            frames,
        }
    }
}

impl Frame {
    /// As it is in memory: the umem is the highest part.
    #[inline(always)]
    fn word(&self) -> u64 {
        u64::from(self.umem) << 48 | u64::from(self.length) << 32 | u64::from(self.address)
    }
}

impl Packets<'_> {
    /// The same packets, to be given away for a while.
    #[inline(always)]
    #[must_use]
    pub fn reborrow(&mut self) -> Packets<'_> {
        Packets {
            base: self.base,
            offset_mask: self.offset_mask,
            frames: self.frames,
        }
    }

    /// Address of the first byte of a packet.
    #[inline(always)]
    fn start(&self, frame: &Frame) -> *mut u8 {
        self.base.as_ptr().wrapping_add(frame.address as usize)
    }

    /// How many there are.
    #[inline(always)]
    #[must_use]
    pub fn count(&self) -> usize {
        self.frames.len()
    }

    /// Length of a packet in bytes.
    ///
    /// # Panics
    /// There is no such packet; so in all the following ones.
    #[inline(always)]
    #[must_use]
    pub fn length(&self, number: usize) -> u16 {
        self.frames[number].length
    }

    /// The beginnings of all packets, `N` at a time, each with a word whose third sixteen bits are its length;
    /// those of the last few, which are less, are left out.
    #[inline(always)]
    pub fn several<const N: usize>(&self) -> impl Iterator<Item = ([&[u8; HEAD]; N], [u64; N])> {
        self.frames.as_chunks().0.iter().map(|frames: &[Frame; N]| {
            let heads = std::array::from_fn(|number| self.head_of(&frames[number]));
            (heads, std::array::from_fn(|number| frames[number].word()))
        })
    }

    /// All of a packet.
    #[inline(always)]
    #[must_use]
    pub fn bytes(&self, number: usize) -> &[u8] {
        let frame = &self.frames[number];
        // SAFETY: as in `Umem::bytes`; see `head_of`.
        unsafe { std::slice::from_raw_parts(self.start(frame), frame.len()) }
    }

    /// The beginning of a packet.
    #[inline(always)]
    #[must_use]
    pub fn head(&self, number: usize) -> &[u8; HEAD] {
        self.head_of(&self.frames[number])
    }

    /// Of one of the frames.
    #[inline(always)]
    fn head_of<'a>(&'a self, frame: &'a Frame) -> &'a [u8; HEAD] {
        let start = self.start(frame);
        // SAFETY: the frame is of this umem (`Umem::packets`), so that `HEAD` bytes from its packet's start
        // on are in its chunk (invariant of the umem); it is borrowed, so that nobody writes to them.
        unsafe { &*start.cast() }
    }

    /// The same, to be changed.
    #[inline(always)]
    #[must_use]
    pub fn head_mut(&mut self, number: usize) -> &mut [u8; HEAD] {
        let start = self.start(&self.frames[number]);
        // SAFETY: as in `head`; the frame is borrowed mutably and is the only one of its chunk.
        unsafe { &mut *start.cast() }
    }

    /// The same, and the packet's length in bytes.
    #[inline(always)]
    #[must_use]
    pub fn head_and_length(&mut self, number: usize) -> (&mut [u8; HEAD], u16) {
        let length = self.frames[number].length;
        (self.head_mut(number), length)
    }

    /// Lengthens a packet in front, as [`Umem::prepend`]. False, and nothing changed, if there is no room.
    #[inline(always)]
    #[must_use]
    pub fn prepend(&mut self, number: usize, bytes: u16) -> bool {
        let frame = &mut self.frames[number];
        let has_room = frame.address & self.offset_mask >= u32::from(bytes);
        if has_room {
            // No overflow: as in `Umem::prepend`.
            frame.address -= u32::from(bytes);
            frame.length += bytes;
        }
        has_room
    }

    /// Asks the processor to load the beginnings of all packets.
    #[inline(always)]
    pub fn prefetch(&self) {
        for frame in &*self.frames {
            prefetch_address(self.start(frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::xsk::umem::{FrameSize, HEAD, Umem};

    #[test]
    fn a_head_is_there_for_the_shortest_packet_at_the_end_of_its_chunk() {
        let (umem, mut pool) = Umem::new(2, FrameSize::Bytes2048).unwrap();
        let mut frames = [pool.take().unwrap(), pool.take().unwrap()];
        let most = FrameSize::Bytes2048.max_packet();
        for frame in &mut frames {
            umem.fill(frame, &vec![7; most]).unwrap();
            let front = u16::try_from(most - HEAD).unwrap();
            assert!(umem.cut_front(frame, front + 1).is_err());
            umem.cut_front(frame, front).unwrap();
            assert!(umem.cut_front(frame, 1).is_err());
            umem.set_length(frame, 1).unwrap();
        }
        let mut packets = umem.packets(&mut frames);
        assert!(!packets.prepend(0, u16::MAX));
        packets.head_mut(0).fill(1);
        packets.head_mut(1).fill(2);
        assert_eq!(packets.head(0), &[1; HEAD]);
        assert_eq!(packets.bytes(1), [2]);
        assert_eq!((packets.count(), packets.length(0)), (2, 1));
    }

    #[test]
    #[should_panic(expected = "another umem")]
    fn frames_of_another_umem_are_refused() {
        let (ours, mut pool) = Umem::new(1, FrameSize::Bytes2048).unwrap();
        let (_theirs, mut other) = Umem::new(1, FrameSize::Bytes2048).unwrap();
        let mut frames = [pool.take().unwrap(), other.take().unwrap()];
        let _ = ours.packets(&mut frames);
    }
}
