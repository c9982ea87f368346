//! A RAM disk, shared by all its channels.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use engine::{Core, Instant, Progress};
use uuid::Uuid;

use crate::channel::{Bdev, Channel, Completions, Link, OpenError};
use crate::error::IoError;
use crate::geometry::{Backing, BlockRange, BlockStatus, Capabilities, Geometry, Space};
use crate::request::{Io, Op, Refused};

/// Blocks are locked in stripes of this many bytes, so that channels on different cores seldom meet.
const STRIPE: usize = 1 << 20;
/// Blocks that one question looks at.
const STATUS_BLOCKS_MAX: u32 = 8192;

/// Control half.
#[derive(Debug)]
pub struct MallocBdev {
    name: String,
    uuid: Uuid,
    geometry: Geometry,
    stripes: Box<[RwLock<Stripe>]>,
    /// Blocks that were written, and not discarded since.
    mapped: AtomicU64,
}

/// A part of the disk under one lock.
#[derive(Debug)]
struct Stripe {
    bytes: Vec<u8>,
    /// A bit for each block that was written, and not discarded since.
    mapped: Box<[u64]>,
}

impl Stripe {
    fn new(len: usize, block_size: usize) -> Self {
        let words = len.div_ceil(block_size).div_ceil(64);
        Self { bytes: vec![0; len], mapped: vec![0; words].into() }
    }

    fn is_mapped(&self, block: usize) -> bool {
        self.mapped[block / 64] & 1 << (block % 64) != 0
    }

    /// Marks blocks; returns how many were not marked so before.
    fn mark(&mut self, blocks: Range<usize>, as_mapped: Mapped) -> u64 {
        let mut changed = 0;
        for block in blocks {
            if self.is_mapped(block) != (as_mapped == Mapped::Yes) {
                self.mapped[block / 64] ^= 1 << (block % 64);
                changed += 1;
            }
        }
        changed
    }
}

/// Whether a block has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mapped {
    Yes,
    No,
}

impl MallocBdev {
    /// A zeroed device of the given size.
    ///
    /// # Panics
    /// When the size does not fit in the address space, or the block size not into a stripe of 1 MiB.
    pub fn new(name: impl Into<String>, uuid: Uuid, geometry: Geometry) -> Arc<Self> {
        let bytes = usize::try_from(geometry.bytes()).expect("a RAM disk fits in memory");
        let block_size = geometry.block_size as usize;
        assert!(STRIPE.is_multiple_of(block_size), "a block lies in one stripe");
        let stripe = |start: usize| RwLock::new(Stripe::new(STRIPE.min(bytes - start), block_size));
        let stripes = (0..bytes).step_by(STRIPE).map(stripe).collect();
        Arc::new(Self { name: name.into(), uuid, geometry, stripes, mapped: AtomicU64::new(0) })
    }

    /// The content of `range`, for tests and comparisons.
    ///
    /// # Panics
    /// When the range is outside.
    pub fn snapshot(&self, range: BlockRange) -> Vec<u8> {
        let mut bytes = vec![0; range.blocks as usize * self.geometry.block_size as usize];
        self.read(range, &mut bytes);
        bytes
    }

    /// Calls `visit(stripe, offset in the stripe, offset in the range, length)` for each piece of a range.
    fn pieces<'a>(
        &'a self,
        range: BlockRange,
        mut visit: impl FnMut(&'a RwLock<Stripe>, usize, usize, usize),
    ) {
        let block_size = u64::from(self.geometry.block_size);
        let mut at = usize::try_from(range.lba * block_size).expect("checked against the geometry");
        let end = usize::try_from(range.end() * block_size).expect("checked against the geometry");
        let start = at;
        while at < end {
            let len = (STRIPE - at % STRIPE).min(end - at);
            visit(&self.stripes[at / STRIPE], at % STRIPE, at - start, len);
            at += len;
        }
    }

    /// Blocks that lie in one stripe: which, and where in it.
    fn alone(&self, range: BlockRange) -> Option<(&RwLock<Stripe>, Range<usize>)> {
        let block_size = self.geometry.block_size as usize;
        let start = usize::try_from(range.lba).ok()? * block_size;
        let at = start % STRIPE..start % STRIPE + range.blocks as usize * block_size;
        if range.blocks == 0 || at.end > STRIPE {
            return None;
        }
        Some((self.stripes.get(start / STRIPE)?, at))
    }

    fn read(&self, range: BlockRange, into: &mut [u8]) {
        if let Some((stripe, at)) = self.alone(range) {
            let stripe = stripe.read().unwrap_or_else(PoisonError::into_inner);
            return into.copy_from_slice(&stripe.bytes[at]);
        }
        // All stripes of the range are held at once: nobody sees a part of a write.
        let mut guards = Vec::new();
        self.pieces(range, |stripe, from, to, len| {
            guards.push((stripe.read().unwrap_or_else(PoisonError::into_inner), from, to, len));
        });
        for (stripe, from, to, len) in guards {
            into[to..to + len].copy_from_slice(&stripe.bytes[from..from + len]);
        }
    }

    /// The stripes of a range, locked in rising order: offset in the stripe, offset in the range, length.
    fn locked(&self, range: BlockRange) -> Vec<(RwLockWriteGuard<'_, Stripe>, usize, usize, usize)> {
        let mut guards = Vec::new();
        self.pieces(range, |stripe, to, at, len| {
            guards.push((stripe.write().unwrap_or_else(PoisonError::into_inner), to, at, len));
        });
        guards
    }

    fn write(&self, range: BlockRange, from: &[u8]) {
        if let Some((stripe, at)) = self.alone(range) {
            return self.put(&mut stripe.write().unwrap_or_else(PoisonError::into_inner), at.start, from);
        }
        for (mut stripe, to, at, len) in self.locked(range) {
            self.put(&mut stripe, to, &from[at..at + len]);
        }
    }

    /// The blocks of a piece of a stripe.
    fn blocks_of(&self, at: usize, len: usize) -> Range<usize> {
        let size = self.geometry.block_size as usize;
        at / size..(at + len) / size
    }

    fn put(&self, stripe: &mut Stripe, to: usize, from: &[u8]) {
        stripe.bytes[to..to + from.len()].copy_from_slice(from);
        let more = stripe.mark(self.blocks_of(to, from.len()), Mapped::Yes);
        self.mapped.fetch_add(more, Ordering::Relaxed);
    }

    fn compare_and_write(&self, range: BlockRange, wanted: &[u8], from: &[u8]) -> Result<(), IoError> {
        let mut stripes = self.locked(range);
        for (stripe, start, at, len) in &stripes {
            let held = &stripe.bytes[*start..start + len];
            if let Some(differs) = held.iter().zip(&wanted[*at..at + len]).position(|(a, b)| a != b) {
                return Err(IoError::Miscompare { offset: u32::try_from(at + differs).unwrap_or(u32::MAX) });
            }
        }
        for (stripe, to, at, len) in &mut stripes {
            self.put(stripe, *to, &from[*at..*at + *len]);
        }
        Ok(())
    }

    /// A block that was not written has no storage, as a host sees it.
    fn status(&self, range: BlockRange) -> BlockStatus {
        let most = range.blocks.min(STATUS_BLOCKS_MAX);
        let (mut first, mut same) = (None, 0);
        let mut ended = false;
        self.pieces(BlockRange::new(range.lba, most), |stripe, from, _, len| {
            let stripe = stripe.read().unwrap_or_else(PoisonError::into_inner);
            for block in self.blocks_of(from, len) {
                let mapped = stripe.is_mapped(block);
                ended |= *first.get_or_insert(mapped) != mapped;
                same += u32::from(!ended);
            }
        });
        let backing = if first == Some(true) { Backing::Allocated } else { Backing::Hole };
        BlockStatus { blocks: same, backing }
    }

    fn zero(&self, range: BlockRange) {
        self.pieces(range, |stripe, to, _, len| {
            let mut stripe = stripe.write().unwrap_or_else(PoisonError::into_inner);
            stripe.bytes[to..to + len].fill(0);
            let fewer = stripe.mark(self.blocks_of(to, len), Mapped::No);
            self.mapped.fetch_sub(fewer, Ordering::Relaxed);
        });
    }

    fn execute(&self, op: &mut Op) -> Result<(), IoError> {
        op.check(self.geometry)?;
        match op {
            Op::Read { range, into } => self.read(*range, into),
            Op::Write { range, from, .. } => self.write(*range, from),
            Op::Discard { range } | Op::WriteZeroes { range, .. } => self.zero(*range),
            Op::Flush => {}
            Op::CompareAndWrite { range, both, .. } => {
                let (wanted, from) = both.split_at(both.len() / 2);
                return self.compare_and_write(*range, wanted, from);
            }
            Op::BlockStatus { range, found } => *found = Some(self.status(*range)),
            Op::Fence { .. }
            | Op::StoreState { .. }
            | Op::LoadState { .. }
            | Op::HandOver
            | Op::CryptoErase => {
                return Err(IoError::Unsupported);
            }
        }
        Ok(())
    }
}

impl Bdev for MallocBdev {
    fn name(&self) -> &str {
        &self.name
    }

    fn product(&self) -> &'static str {
        "Malloc disk"
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FLUSH
            | Capabilities::FUA
            | Capabilities::DISCARD
            | Capabilities::WRITE_ZEROES
            | Capabilities::DISCARD_ZEROES
            | Capabilities::BLOCK_STATUS
            | Capabilities::ATOMIC_WRITE
            | Capabilities::COMPARE_AND_WRITE
    }

    fn space(&self) -> Option<Space> {
        let allocated = self.mapped.load(Ordering::Relaxed) * u64::from(self.geometry.block_size);
        Some(Space { allocated, available: self.geometry.bytes().saturating_sub(allocated) })
    }

    fn access(&self) -> crate::Access {
        crate::Access::Local
    }

    fn open(self: Arc<Self>, _core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        Ok(Box::new(MallocChannel { bdev: self, done: Completions::new() }))
    }
}

/// Data half.
struct MallocChannel {
    bdev: Arc<MallocBdev>,
    done: Completions,
}

impl Channel for MallocChannel {
    fn submit(&mut self, mut io: Io, now: Instant) -> Result<(), Refused> {
        io.stamps.submitted = now;
        let result = self.bdev.execute(io.op_mut());
        self.done.push_back(io.complete(result, now));
        Ok(())
    }

    fn poll(&mut self, _now: Instant, done: &mut Completions) -> Progress {
        let progress = Progress::from_count(self.done.len());
        done.append(&mut self.done);
        progress
    }

    fn link(&self, now: Instant) -> Link {
        Link::local(self.bdev.geometry, now)
    }
}
