//! The buffer pool: frames of three classes carved out of one prefaulted arena.
//!
//! Owner: the node, which makes one pool at start; handles are cheap clones. A frame is either one [`BufMut`] (unique,
//! writable) or any number of [`Buf`]s (shared, read-only); the count lives in the pool's table, so that neither cloning nor
//! dropping touches the heap. The frame returns to its class when the last handle goes.
//!
//! Invariants:
//! - a frame is on its class's free list exactly when its count is zero;
//! - while a `BufMut` exists for a frame, its count is one and no `Buf` of that frame exists;
//! - the arena outlives every handle, because each handle holds the pool.

use core::ops::{Deref, DerefMut, Range};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use core::{fmt, ptr::NonNull, slice};
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::arena::{Arena, ArenaError, PageBacking};

/// Alignment of every frame in bytes: enough for direct I/O on any device.
pub const FRAME_ALIGN: usize = 4096;

/// Frame sizes in bytes, smallest first.
pub const FRAME_SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

/// The longest buffer that a pool hands out, in bytes.
pub const BUF_LEN_MAX: usize = FRAME_SIZES[2];

/// How many frames of each class (4 KiB, 64 KiB, 1 MiB) a pool holds, and on what pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Frames of each size in [`FRAME_SIZES`].
    pub frames: [usize; 3],
    /// Which pages to try.
    pub pages: Pages,
}

/// Which pages to put an arena on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// 2 MiB huge pages, ordinary ones when there are not enough.
    PreferHuge,
    /// Ordinary pages.
    Ordinary,
}

impl PoolConfig {
    /// A pool of about `bytes` bytes: a quarter in 4 KiB frames, a quarter in 64 KiB frames, half in 1 MiB frames.
    pub fn with_memory(bytes: usize) -> Self {
        let quarter = bytes / 4;
        let frames = [
            (quarter / FRAME_SIZES[0]).max(16),
            (quarter / FRAME_SIZES[1]).max(4),
            (2 * quarter / FRAME_SIZES[2]).max(2),
        ];
        Self { frames, pages: Pages::PreferHuge }
    }

    /// Bytes of all frames together.
    pub fn bytes(&self) -> usize {
        self.frames.iter().zip(FRAME_SIZES).map(|(count, size)| count * size).sum()
    }
}

/// Use of one class at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassStats {
    /// Frame size in bytes.
    pub frame_size: usize,
    /// Frames in the class.
    pub frames: usize,
    /// Frames on the free list.
    pub free: usize,
    /// Allocations that found the class empty.
    pub misses: usize,
}

struct Class {
    first: u32,
    frames: u32,
    base: usize,
    free: ArrayQueue<u32>,
    misses: AtomicUsize,
}

struct Shared {
    arena: Arena,
    /// Handles for each frame.
    counts: Box<[AtomicU32]>,
    classes: [Class; 3],
}

/// A handle to the pool.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// Maps and prefaults the arena.
    ///
    /// # Errors
    /// When not even ordinary pages can be had.
    pub fn new(config: PoolConfig) -> Result<Self, ArenaError> {
        // Largest class first, so that each class's base is aligned to its own frame size.
        let mut base = 0;
        let mut first = 0;
        let mut class = |index: usize| {
            let frames = u32::try_from(config.frames[index]).expect("fewer than 2^32 frames");
            let free = ArrayQueue::new(config.frames[index].max(1));
            for frame in first..first + frames {
                free.push(frame).expect("the list holds every frame of its class");
            }
            let class = Class { first, frames, base, free, misses: AtomicUsize::new(0) };
            first += frames;
            base += config.frames[index] * FRAME_SIZES[index];
            class
        };
        let large = class(2);
        let medium = class(1);
        let small = class(0);
        let arena = match config.pages {
            Pages::PreferHuge => Arena::prefer_huge(config.bytes())?,
            Pages::Ordinary => Arena::ordinary(config.bytes())?,
        };
        let counts = (0..first).map(|_| AtomicU32::new(0)).collect();
        Ok(Self { shared: Arc::new(Shared { arena, counts, classes: [small, medium, large] }) })
    }

    /// A small pool on ordinary pages.
    ///
    /// # Panics
    /// When the machine has no memory left.
    pub fn for_tests() -> Self {
        Self::new(PoolConfig { frames: [512, 64, 16], pages: Pages::Ordinary })
            .expect("22 MiB of ordinary memory")
    }

    /// A frame of exactly `len` bytes, content undefined (but initialised). `None` when every class that could serve is
    /// empty: wait until a buffer returns.
    ///
    /// # Panics
    /// When `len` is zero or above [`BUF_LEN_MAX`].
    pub fn alloc(&self, len: usize) -> Option<BufMut> {
        assert!(len > 0 && len <= BUF_LEN_MAX, "a buffer holds 1 to {BUF_LEN_MAX} bytes, not {len}");
        for (index, class) in self.shared.classes.iter().enumerate() {
            if len > FRAME_SIZES[index] {
                continue;
            }
            if let Some(frame) = class.free.pop() {
                let previous = self.shared.counts[frame as usize].swap(1, Ordering::Acquire);
                assert_eq!(previous, 0, "frame {frame} was free and in use");
                let offset = class.base + (frame - class.first) as usize * FRAME_SIZES[index];
                let memory = self.shared.arena.at(offset);
                return Some(BufMut { raw: Raw { pool: self.clone(), frame, memory, len: len as u32 } });
            }
            class.misses.fetch_add(1, Ordering::Relaxed);
        }
        None
    }

    /// As [`Pool::alloc`], filled with zeroes.
    pub fn alloc_zeroed(&self, len: usize) -> Option<BufMut> {
        let mut buf = self.alloc(len)?;
        buf.fill(0);
        Some(buf)
    }

    /// Bytes of the frames that are free now and could hold `len` bytes.
    pub fn free_bytes(&self, len: usize) -> usize {
        let classes = self.shared.classes.iter().zip(FRAME_SIZES);
        classes.filter(|(_, size)| len <= *size).map(|(class, size)| class.free.len() * size).sum()
    }

    /// Bytes of the frame that holds `len` bytes.
    pub fn frame_bytes(len: usize) -> usize {
        FRAME_SIZES.into_iter().find(|size| len <= *size).unwrap_or(BUF_LEN_MAX)
    }

    /// What the arena is on.
    pub fn backing(&self) -> &PageBacking {
        self.shared.arena.backing()
    }

    /// Bytes of the arena.
    pub fn bytes(&self) -> usize {
        self.shared.arena.len()
    }

    /// Use of each class, smallest frames first.
    pub fn stats(&self) -> [ClassStats; 3] {
        core::array::from_fn(|index| {
            let class = &self.shared.classes[index];
            ClassStats {
                frame_size: FRAME_SIZES[index],
                frames: class.frames as usize,
                free: class.free.len(),
                misses: class.misses.load(Ordering::Relaxed),
            }
        })
    }

    /// The whole arena as an io_uring buffer registration.
    pub(crate) fn arena_iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.shared.arena.at(0).as_ptr().cast(), iov_len: self.shared.arena.len() }
    }

    /// True when both handles are of one pool.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    fn release(&self, frame: u32) {
        if self.shared.counts[frame as usize].fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // Every use of the frame through other handles happens before its reuse.
        fence(Ordering::Acquire);
        let class = self
            .shared
            .classes
            .iter()
            .find(|class| (class.first..class.first + class.frames).contains(&frame));
        let class = class.expect("every frame belongs to a class");
        class.free.push(frame).expect("a free list holds every frame of its class");
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// One counted reference to a part of a frame.
struct Raw {
    pool: Pool,
    frame: u32,
    memory: NonNull<u8>,
    len: u32,
}

// SAFETY: `memory` points into the arena that `pool` keeps alive. Access through it is governed by `BufMut` (unique) and
// `Buf` (shared, read-only), both of which follow the borrow rules across threads; the count is atomic.
unsafe impl Send for Raw {}
// SAFETY: as above: a shared `Raw` gives out only `&[u8]`.
unsafe impl Sync for Raw {}

impl Drop for Raw {
    fn drop(&mut self) {
        self.pool.release(self.frame);
    }
}

impl Raw {
    fn as_slice(&self) -> &[u8] {
        // SAFETY: the frame is initialised (the arena is zero-mapped), `len` bytes at `memory` lie inside it, and nobody
        // writes while `self` is borrowed: a writer would need the one `BufMut`, which is `self`'s owner or does not exist.
        unsafe { slice::from_raw_parts(self.memory.as_ptr(), self.len as usize) }
    }
}

/// The only handle to a frame: readable and writable.
pub struct BufMut {
    raw: Raw,
}

impl BufMut {
    /// Gives up the right to write: from here the frame is shared and unchanging.
    pub fn freeze(self) -> Buf {
        Buf { raw: self.raw }
    }

    /// Shortens to `len` bytes; longer than now does nothing.
    pub fn truncate(&mut self, len: usize) {
        self.raw.len = self.raw.len.min(u32::try_from(len).unwrap_or(u32::MAX));
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.raw.memory.as_ptr()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.raw.pool
    }
}

impl Deref for BufMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.raw.as_slice()
    }
}

impl DerefMut for BufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `Raw::as_slice`, and `self` is the frame's only handle, mutably borrowed.
        unsafe { slice::from_raw_parts_mut(self.raw.memory.as_ptr(), self.raw.len as usize) }
    }
}

impl fmt::Debug for BufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufMut(frame {}, {} bytes)", self.raw.frame, self.raw.len)
    }
}

/// A shared, unchanging view of a frame or a part of it.
pub struct Buf {
    raw: Raw,
}

impl Buf {
    /// A view of a part; the frame lives as long as any view.
    ///
    /// # Panics
    /// When `range` is not inside.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "slice {range:?} of {} bytes",
            self.len()
        );
        let mut part = self.clone();
        // SAFETY: `start` is at most `len`, so the pointer stays inside the frame or one past its end.
        part.raw.memory = unsafe { part.raw.memory.add(range.start) };
        part.raw.len = u32::try_from(range.len()).expect("shorter than a frame");
        part
    }

    /// The right to write again, when this is the frame's last handle.
    ///
    /// # Errors
    /// Gives the view back when others exist.
    pub fn try_unique(self) -> Result<BufMut, Self> {
        // Acquire: every read through dropped views happens before our writes.
        if self.raw.pool.shared.counts[self.raw.frame as usize].load(Ordering::Acquire) == 1 {
            Ok(BufMut { raw: self.raw })
        } else {
            Err(self)
        }
    }

    /// True while the frame has other handles.
    pub fn is_shared(&self) -> bool {
        self.raw.pool.shared.counts[self.raw.frame as usize].load(Ordering::Acquire) > 1
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.raw.memory.as_ptr()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.raw.pool
    }
}

impl Clone for Buf {
    fn clone(&self) -> Self {
        let Raw { pool, frame, memory, len } = &self.raw;
        let count = pool.shared.counts[*frame as usize].fetch_add(1, Ordering::Relaxed);
        assert!(count < u32::MAX / 2, "reference count overflow");
        Self { raw: Raw { pool: pool.clone(), frame: *frame, memory: *memory, len: *len } }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.raw.as_slice()
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf(frame {}, {} bytes)", self.raw.frame, self.raw.len)
    }
}

#[cfg(test)]
#[path = "pool/tests.rs"]
mod tests;
