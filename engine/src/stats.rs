//! Counters and latencies, written by one reactor and read by anybody.

use ::core::sync::atomic::{AtomicU64, Ordering};
use ::core::time::Duration;
use std::sync::Arc;

use hdrhistogram::Histogram;

/// What a reactor did since its start. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct ReactorStats {
    shared: Arc<ReactorCounters>,
}

#[derive(Debug, Default)]
struct ReactorCounters {
    busy_nanos: AtomicU64,
    idle_nanos: AtomicU64,
    turns: AtomicU64,
    sleeps: AtomicU64,
    messages: AtomicU64,
}

/// A copy of a reactor's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReactorSnapshot {
    /// Time in turns that found work, in nanoseconds.
    pub busy_nanos: u64,
    /// Time in turns that found none, and asleep, in nanoseconds.
    pub idle_nanos: u64,
    /// Turns.
    pub turns: u64,
    /// Times that the reactor slept in its ring.
    pub sleeps: u64,
    /// Messages taken from its mailbox.
    pub messages: u64,
}

impl ReactorStats {
    /// The counters now.
    pub fn snapshot(&self) -> ReactorSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReactorSnapshot {
            busy_nanos: read(&self.shared.busy_nanos),
            idle_nanos: read(&self.shared.idle_nanos),
            turns: read(&self.shared.turns),
            sleeps: read(&self.shared.sleeps),
            messages: read(&self.shared.messages),
        }
    }

    pub(crate) fn add_busy(&self, spent: Duration) {
        add(&self.shared.busy_nanos, nanos(spent));
    }

    pub(crate) fn add_idle(&self, spent: Duration) {
        add(&self.shared.idle_nanos, nanos(spent));
    }

    pub(crate) fn count_turn(&self) {
        add(&self.shared.turns, 1);
    }

    pub(crate) fn count_sleep(&self) {
        add(&self.shared.sleeps, 1);
    }

    pub(crate) fn count_message(&self) {
        add(&self.shared.messages, 1);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn add(counter: &AtomicU64, amount: u64) {
    // One writer: no read-modify-write is needed.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// Latencies of one layer. Fixed memory; values above a minute count as a minute.
#[derive(Clone, Debug)]
pub struct LatencyHistogram {
    histogram: Histogram<u64>,
}

/// The usual percentiles of a [`LatencyHistogram`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencySummary {
    /// Values recorded.
    pub count: u64,
    /// Mean.
    pub mean: Duration,
    /// Half of the values are at most this.
    pub p50: Duration,
    /// 99 % of the values are at most this.
    pub p99: Duration,
    /// 99.9 % of the values are at most this.
    pub p999: Duration,
    /// The smallest value; zero when there is none.
    pub min: Duration,
    /// The largest value.
    pub max: Duration,
}

impl LatencyHistogram {
    const MAX_NANOS: u64 = 60_000_000_000;

    /// An empty histogram of 100 ns to a minute with two significant digits.
    ///
    /// # Panics
    /// Never: the bounds are constants that the library accepts.
    pub fn new() -> Self {
        Self { histogram: Histogram::new_with_bounds(100, Self::MAX_NANOS, 2).expect("constant bounds") }
    }

    /// Records one value.
    pub fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(nanos(latency).min(Self::MAX_NANOS));
    }

    /// Adds another histogram's values.
    ///
    /// # Panics
    /// Never: all histograms have the same bounds.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("equal bounds");
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.histogram.clear();
    }

    /// The value that `quantile` (0 to 1) of the values do not exceed.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.histogram.value_at_quantile(quantile))
    }

    /// The usual percentiles.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a mean of unsigned nanoseconds"
    )]
    pub fn summary(&self) -> LatencySummary {
        LatencySummary {
            count: self.histogram.len(),
            mean: Duration::from_nanos(self.histogram.mean() as u64),
            p50: self.quantile(0.5),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            min: Duration::from_nanos(if self.histogram.is_empty() { 0 } else { self.histogram.min() }),
            max: Duration::from_nanos(self.histogram.max()),
        }
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}
