//! What a device does, counted: operations, bytes, errors and latencies of every channel that is opened through it.
//!
//! Each channel counts for itself, on its reactor; whoever asks adds them up. A latency is what the channel's owner saw:
//! from the making of the I/O to its completion.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core::time::Duration;
use engine::{Core, Instant, LatencyHistogram, Progress};
use uuid::Uuid;

use crate::channel::{Bdev, Channel, Completions, Link, OpenError};
use crate::geometry::{Capabilities, Geometry};
use crate::request::{Completed, Io, Op, Refused};

/// Kinds of operations that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// Reads.
    Read,
    /// Writes, of zeroes too.
    Write,
    /// Discards.
    Unmap,
    /// Flushes.
    Flush,
}

impl OpKind {
    /// All.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Unmap, Self::Flush];

    /// Its name on the control socket.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Unmap => "unmap",
            Self::Flush => "flush",
        }
    }

    /// The kind of an operation and its blocks; fences and questions are not counted.
    fn of(op: &Op) -> Option<(Self, u64)> {
        match op {
            Op::Read { range, .. } => Some((Self::Read, u64::from(range.blocks))),
            Op::Write { range, .. } | Op::WriteZeroes { range, .. } | Op::CompareAndWrite { range, .. } => {
                Some((Self::Write, u64::from(range.blocks)))
            }
            Op::Discard { range } => Some((Self::Unmap, u64::from(range.blocks))),
            Op::Flush => Some((Self::Flush, 0)),
            Op::Fence { .. } | Op::BlockStatus { .. } => None,
        }
    }
}

/// Figures of one kind of operation.
#[derive(Clone, Debug, Default)]
pub struct OpStats {
    /// Operations that ended well.
    pub operations: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Time spent in all of them together.
    pub busy: Duration,
    /// Latencies of those that ended well.
    pub latency: LatencyHistogram,
}

impl OpStats {
    fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.busy += other.busy;
        self.latency.merge(&other.latency);
    }
}

/// Figures of a channel, or of a device.
#[derive(Clone, Debug, Default)]
pub struct IoStats {
    kinds: [OpStats; 4],
}

impl IoStats {
    /// Those of one kind.
    pub fn of(&self, kind: OpKind) -> &OpStats {
        &self.kinds[kind as usize]
    }

    fn record(&mut self, completed: &Completed, block_size: u32) {
        let Some((kind, blocks)) = OpKind::of(&completed.op) else { return };
        let stats = &mut self.kinds[kind as usize];
        if completed.result.is_err() {
            stats.errors += 1;
            return;
        }
        let latency = completed.stamps.completed.saturating_since(completed.stamps.queued);
        stats.operations += 1;
        stats.bytes += blocks * u64::from(block_size);
        stats.busy += latency;
        stats.latency.record(latency);
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.kinds.iter_mut().zip(&other.kinds) {
            sum.add(more);
        }
    }
}

/// A channel's figures, shared with whoever asks.
type Shared = Arc<Mutex<IoStats>>;

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A channel's figures by the core that it lives on.
#[derive(Clone, Debug)]
pub struct ChannelStats {
    /// The core.
    pub core: u32,
    /// What it did.
    pub stats: IoStats,
}

#[derive(Debug, Default)]
struct Book {
    open: Vec<(u32, Shared)>,
    closed: IoStats,
}

/// A device with a meter.
#[derive(Debug)]
pub struct Metered {
    below: Arc<dyn Bdev>,
    book: Arc<Mutex<Book>>,
}

impl Metered {
    /// Puts a meter on a device.
    pub fn new(below: Arc<dyn Bdev>) -> Arc<Self> {
        Arc::new(Self { below, book: Arc::default() })
    }

    /// What all channels did, those that are closed too.
    pub fn stats(&self) -> IoStats {
        let book = lock(&self.book);
        let mut sum = book.closed.clone();
        for (_, channel) in &book.open {
            sum.add(&lock(channel));
        }
        sum
    }

    /// What each open channel did.
    pub fn channels(&self) -> Vec<ChannelStats> {
        let one = |(core, stats): &(u32, Shared)| ChannelStats { core: *core, stats: lock(stats).clone() };
        lock(&self.book).open.iter().map(one).collect()
    }

    /// Begins again at zero.
    pub fn reset(&self) {
        let mut book = lock(&self.book);
        book.closed = IoStats::default();
        for (_, channel) in &book.open {
            *lock(channel) = IoStats::default();
        }
    }
}

impl Bdev for Metered {
    fn name(&self) -> &str {
        self.below.name()
    }

    fn product(&self) -> &'static str {
        self.below.product()
    }

    fn uuid(&self) -> Uuid {
        self.below.uuid()
    }

    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        self.below.capabilities()
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let below = self.below.clone().open(core)?;
        let stats = Shared::default();
        lock(&self.book).open.push((core.id(), stats.clone()));
        Ok(Box::new(MeteredChannel { below, bdev: self.below.clone(), stats, book: self.book.clone() }))
    }
}

struct MeteredChannel {
    below: Box<dyn Channel>,
    bdev: Arc<dyn Bdev>,
    stats: Shared,
    book: Arc<Mutex<Book>>,
}

impl Channel for MeteredChannel {
    fn submit(&mut self, io: Io, now: Instant) -> Result<(), Refused> {
        self.below.submit(io, now)
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        let before = done.len();
        let progress = self.below.poll(now, done);
        if done.len() > before {
            let block_size = self.bdev.geometry().block_size;
            // Nobody else takes this lock but a reader of the figures, now and then.
            let mut stats = lock(&self.stats);
            for completed in done.range(before..) {
                stats.record(completed, block_size);
            }
        }
        progress
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.below.next_deadline()
    }

    fn link(&self, now: Instant) -> Link {
        self.below.link(now)
    }
}

impl Drop for MeteredChannel {
    fn drop(&mut self) {
        let mut book = lock(&self.book);
        book.open.retain(|(_, stats)| !Arc::ptr_eq(stats, &self.stats));
        book.closed.add(&lock(&self.stats));
    }
}
