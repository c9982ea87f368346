//! The rings of an AF_XDP socket: entries between a producer's and a consumer's counter, one of which is the kernel's.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, Ordering};
use std::io;
use std::os::fd::RawFd;

use memmap2::{MmapOptions, MmapRaw};

/// What an entry may be: any bytes are one.
pub(super) trait Entry: Copy {}

impl Entry for u64 {}
impl Entry for libc::xdp_desc {}

/// One ring in the memory that the kernel shares.
#[derive(Debug)]
struct Shared<T> {
    map: MmapRaw,
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    count: u32,
    entry: PhantomData<T>,
}

impl<T: Entry> Shared<T> {
    /// `count` is a power of two, and what the socket was told.
    fn map(fd: RawFd, page: u64, offsets: &libc::xdp_ring_offset, count: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "rings of AF_XDP are powers of two");
        let place = |offset: u64| usize::try_from(offset).map_err(io::Error::other);
        let entries = place(offsets.desc)?;
        let len = entries + count as usize * size_of::<T>();
        let map = MmapOptions::new().offset(page).len(len).populate().map_raw(fd)?;
        let (producer, consumer, flags) =
            (place(offsets.producer)?, place(offsets.consumer)?, place(offsets.flags)?);
        let fits = |at: usize| at + size_of::<u32>() <= len && at.is_multiple_of(align_of::<u32>());
        if ![producer, consumer, flags].into_iter().all(fits) || !entries.is_multiple_of(align_of::<T>()) {
            return Err(io::Error::other("the kernel's rings are laid out in an unknown way"));
        }
        Ok(Self { map, producer, consumer, flags, entries, count, entry: PhantomData })
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: the word lies in the mapping and is aligned (`map`); the mapping outlives the borrow, and both sides access it
        // atomically.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(at).cast()) }
    }

    fn entry(&self, index: u32) -> *mut T {
        let at = self.entries + (index & (self.count - 1)) as usize * size_of::<T>();
        // SAFETY: the index is below the count, and so many entries lie in the mapping.
        unsafe { self.map.as_mut_ptr().add(at).cast() }
    }
}

/// A ring that this process fills.
#[derive(Debug)]
pub(super) struct Producer<T> {
    shared: Shared<T>,
    next: u32,
}

impl<T: Entry> Producer<T> {
    pub(super) fn map(fd: RawFd, page: u64, offsets: &libc::xdp_ring_offset, count: u32) -> io::Result<Self> {
        Ok(Self { shared: Shared::map(fd, page, offsets, count)?, next: 0 })
    }

    /// Entries that can be pushed now.
    pub(super) fn room(&self) -> u32 {
        let consumed = self.shared.word(self.shared.consumer).load(Ordering::Acquire);
        self.shared.count - self.next.wrapping_sub(consumed)
    }

    /// The kernel sees it with the next [`Producer::publish`].
    ///
    /// # Panics
    /// When there is no room.
    pub(super) fn push(&mut self, entry: T) {
        assert!(self.room() > 0, "pushed to a full ring");
        // SAFETY: the entry is this process's: the kernel has consumed it (`room`), and does not look before it is published.
        unsafe { self.shared.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
    }

    pub(super) fn publish(&mut self) {
        self.shared.word(self.shared.producer).store(self.next, Ordering::Release);
    }

    /// True when the kernel looks at the ring only if it is told to.
    pub(super) fn needs_wake_up(&self) -> bool {
        self.shared.word(self.shared.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// A ring that the kernel fills.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    shared: Shared<T>,
    next: u32,
}

impl<T: Entry> Consumer<T> {
    pub(super) fn map(fd: RawFd, page: u64, offsets: &libc::xdp_ring_offset, count: u32) -> io::Result<Self> {
        Ok(Self { shared: Shared::map(fd, page, offsets, count)?, next: 0 })
    }

    /// The entry that comes `ahead` of the next.
    pub(super) fn peek(&self, ahead: u32) -> Option<T> {
        let produced = self.shared.word(self.shared.producer).load(Ordering::Acquire);
        let there = ahead < produced.wrapping_sub(self.next);
        // SAFETY: the entry was produced, and stays as it is until it is taken.
        there.then(|| unsafe { self.shared.entry(self.next.wrapping_add(ahead)).read() })
    }

    /// Gives so many entries back to the kernel.
    pub(super) fn take(&mut self, count: u32) {
        self.next = self.next.wrapping_add(count);
        self.shared.word(self.shared.consumer).store(self.next, Ordering::Release);
    }
}
