//! What a device does, counted and limited: operations, bytes, errors and latencies of every channel that is opened through it.
//!
//! Each channel counts for itself, on its reactor; whoever asks adds them up. A latency is what the channel's owner saw:
//! from the making of the I/O to its completion, with the time that it waited for a rate limit.
//!
//! Histograms, queue depths and limits cost something only where they are switched on.

mod channel;
mod gauge;
mod histogram;
mod limit;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core::time::Duration;
use engine::{Core, Instant, LatencyHistogram};
use uuid::Uuid;

use crate::access::Access;
use crate::channel::{Bdev, Channel, OpenError};
use crate::geometry::{Capabilities, Geometry};
use crate::request::{Completed, Op};

use channel::MeteredChannel;
pub use gauge::DepthStats;
use gauge::Gauge;
pub use histogram::{HistogramConfig, RangeHistogram};
use limit::Buckets;
pub use limit::RateLimits;

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
            Op::Fence { .. }
            | Op::StoreState { .. }
            | Op::LoadState { .. }
            | Op::HandOver
            | Op::CryptoErase
            | Op::BlockStatus { .. } => None,
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

    /// Counts an operation; its kind and latency, if it ended well.
    fn record(&mut self, completed: &Completed, block_size: u32) -> Option<(OpKind, Duration)> {
        let (kind, blocks) = OpKind::of(&completed.op)?;
        let stats = &mut self.kinds[kind as usize];
        if completed.result.is_err() {
            stats.errors += 1;
            return None;
        }
        let latency = completed.stamps.completed.saturating_since(completed.stamps.queued);
        stats.operations += 1;
        stats.bytes += blocks * u64::from(block_size);
        stats.busy += latency;
        stats.latency.record(latency);
        Some((kind, latency))
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.kinds.iter_mut().zip(&other.kinds) {
            sum.add(more);
        }
    }
}

/// A channel's figures, shared with whoever asks.
#[derive(Debug, Default)]
struct Counted {
    stats: IoStats,
    histogram: Option<RangeHistogram>,
}

/// What a channel shares.
#[derive(Debug, Default)]
struct Shared {
    counted: Mutex<Counted>,
    /// I/Os under way; written by the channel alone.
    in_flight: AtomicU64,
}

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
    open: Vec<(u32, Arc<Shared>)>,
    closed: IoStats,
    /// Of channels that are closed; `Some` while histograms are taken.
    histogram: Option<RangeHistogram>,
    gauge: Option<Gauge>,
}

impl Book {
    fn depth(&self) -> u64 {
        self.open.iter().map(|(_, channel)| channel.in_flight.load(Ordering::Relaxed)).sum()
    }

    /// The depth has changed, or somebody looks.
    fn gauge(&mut self, now: Instant) {
        let depth = self.depth();
        if let Some(gauge) = &mut self.gauge {
            gauge.set(depth, now);
        }
    }
}

/// What the channels of a device have in common.
#[derive(Debug, Default)]
struct Common {
    book: Mutex<Book>,
    is_gauged: AtomicBool,
    is_limited: AtomicBool,
    buckets: Mutex<Option<Buckets>>,
}

/// A device with a meter.
#[derive(Debug)]
pub struct Metered {
    below: Arc<dyn Bdev>,
    common: Arc<Common>,
}

impl Metered {
    /// Puts a meter on a device.
    pub fn new(below: Arc<dyn Bdev>) -> Arc<Self> {
        Arc::new(Self { below, common: Arc::default() })
    }

    /// What all channels did, those that are closed too.
    pub fn stats(&self) -> IoStats {
        let book = lock(&self.common.book);
        let mut sum = book.closed.clone();
        for (_, channel) in &book.open {
            sum.add(&lock(&channel.counted).stats);
        }
        sum
    }

    /// What each open channel did.
    pub fn channels(&self) -> Vec<ChannelStats> {
        let one = |(core, channel): &(u32, Arc<Shared>)| ChannelStats {
            core: *core,
            stats: lock(&channel.counted).stats.clone(),
        };
        lock(&self.common.book).open.iter().map(one).collect()
    }

    /// Begins again at zero.
    pub fn reset(&self) {
        let mut book = lock(&self.common.book);
        book.closed = IoStats::default();
        for (_, channel) in &book.open {
            lock(&channel.counted).stats = IoStats::default();
        }
    }

    // --- Histograms ---

    /// Takes histograms from now on, from zero; or none.
    ///
    /// # Panics
    /// When the config is not valid: the caller's mistake.
    pub fn set_histogram(&self, config: Option<HistogramConfig>) {
        let mut book = lock(&self.common.book);
        book.histogram = config.map(RangeHistogram::new);
        for (_, channel) in &book.open {
            lock(&channel.counted).histogram.clone_from(&book.histogram);
        }
    }

    /// The histogram of all channels, if one is taken.
    pub fn histogram(&self) -> Option<RangeHistogram> {
        let book = lock(&self.common.book);
        let mut sum = book.histogram.clone()?;
        for (_, channel) in &book.open {
            if let Some(more) = &lock(&channel.counted).histogram {
                sum.add(more);
            }
        }
        Some(sum)
    }

    // --- Queue depth ---

    /// Gauges the queue depth from now on; not with a period of zero.
    pub fn set_gauge(&self, period: Duration, now: Instant) {
        let mut book = lock(&self.common.book);
        let depth = book.depth();
        book.gauge = (!period.is_zero()).then(|| Gauge::new(period, depth, now));
        self.common.is_gauged.store(book.gauge.is_some(), Ordering::Release);
    }

    /// What the gauge says, if there is one.
    pub fn depth(&self, now: Instant) -> Option<DepthStats> {
        let mut book = lock(&self.common.book);
        book.gauge(now);
        book.gauge.as_ref().map(Gauge::stats)
    }

    // --- Limits ---

    /// Limits what users may do from now on.
    pub fn set_limits(&self, limits: RateLimits, now: Instant) {
        let mut buckets = lock(&self.common.buckets);
        *buckets = (!limits.is_none()).then(|| Buckets::new(limits, now));
        self.common.is_limited.store(buckets.is_some(), Ordering::Release);
    }

    /// The limits.
    pub fn limits(&self) -> RateLimits {
        lock(&self.common.buckets).as_ref().map(Buckets::limits).unwrap_or_default()
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

    fn space(&self) -> Option<crate::Space> {
        self.below.space()
    }

    fn access(&self) -> Access {
        self.below.access()
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let below = self.below.clone().open(core)?;
        let shared = Arc::<Shared>::default();
        let mut book = lock(&self.common.book);
        lock(&shared.counted).histogram = book.histogram.as_ref().map(|of| RangeHistogram::new(of.config()));
        book.open.push((core.id(), shared.clone()));
        Ok(Box::new(MeteredChannel::new(below, self.below.clone(), shared, self.common.clone())))
    }
}
