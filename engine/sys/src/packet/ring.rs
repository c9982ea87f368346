//! The memory of one ring: frames of one size in blocks, each with a status word that says whose it is.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use std::rc::Rc;

use memmap2::MmapRaw;

/// Bytes of one ring frame: the longest IPv4 packet, its Ethernet header, the kernel's header and the `virtio_net_hdr`, in
/// whole pages.
pub(super) const FRAME: usize = 17 * 4096;
/// Frames of one block: they just fit in an allocation of 1 MiB.
const FRAMES_PER_BLOCK: usize = 15;
const BLOCK: usize = FRAME * FRAMES_PER_BLOCK;

/// `struct tpacket_req`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct RingRequest {
    block_size: u32,
    blocks: u32,
    frame_size: u32,
    frames: u32,
}

/// How large a ring is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    blocks: usize,
}

impl Geometry {
    /// At least so many frames.
    pub(super) fn new(frames: u32) -> Self {
        Self { blocks: (frames as usize).div_ceil(FRAMES_PER_BLOCK).max(1) }
    }

    pub(super) fn bytes(self) -> usize {
        self.blocks * BLOCK
    }

    pub(super) fn request(self) -> RingRequest {
        let number = |value: usize| u32::try_from(value).expect("a ring is short");
        RingRequest {
            block_size: number(BLOCK),
            blocks: number(self.blocks),
            frame_size: number(FRAME),
            frames: number(self.blocks * FRAMES_PER_BLOCK),
        }
    }

    /// The ring whose first frame lies `offset` bytes into the mapping.
    pub(super) fn ring(self, map: &Rc<MmapRaw>, offset: usize) -> Ring {
        assert!(offset + self.bytes() <= map.len(), "the ring lies in the mapping");
        Ring { map: map.clone(), offset, frames: self.blocks * FRAMES_PER_BLOCK, next: 0 }
    }
}

/// One ring, and which frame is next.
#[derive(Debug)]
pub(super) struct Ring {
    map: Rc<MmapRaw>,
    offset: usize,
    frames: usize,
    next: usize,
}

impl Ring {
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// The next frame's first byte; [`FRAME`] bytes follow.
    pub(super) fn frame(&self) -> NonNull<u8> {
        self.nth(self.next)
    }

    fn nth(&self, index: usize) -> NonNull<u8> {
        assert!(index < self.frames, "a frame of the ring");
        let at = self.offset + index * FRAME;
        let base = NonNull::new(self.map.as_mut_ptr()).expect("a mapping is not at address zero");
        // SAFETY: `index` is below `frames`, and the whole ring lies in the mapping (`Geometry::ring`). Blocks follow each
        // other without a gap, and a block is a whole number of frames.
        unsafe { base.add(at) }
    }

    /// The next frame's status. What the kernel wrote before it set the status is visible after.
    pub(super) fn status(&self) -> u32 {
        self.word(self.next).load(Ordering::Acquire)
    }

    /// The status of the frame before the next one.
    pub(super) fn last_status(&self) -> u32 {
        self.word((self.next + self.frames - 1) % self.frames).load(Ordering::Acquire)
    }

    /// Sets the next frame's status; what was written to the frame before is visible to the kernel.
    pub(super) fn set_status(&self, status: u32) {
        self.word(self.next).store(status, Ordering::Release);
    }

    pub(super) fn advance(&mut self) {
        self.next = (self.next + 1) % self.frames;
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        // SAFETY: `tp_status` is the first word of a frame, which is aligned to a page; the mapping outlives the borrow, and
        // both sides access the word atomically.
        unsafe { AtomicU32::from_ptr(self.nth(index).as_ptr().cast()) }
    }
}
