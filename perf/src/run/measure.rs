//! What was seen of operations: latencies by kind, by layer, and what was done in each window.

use core::time::Duration;

use bdev::Stamps;
use engine::Instant;
use hdrhistogram::Histogram;

use crate::workload::Kind;

/// Latencies from one nanosecond to an hour, to three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

impl Latencies {
    const MAX: u64 = 3_600_000_000_000;

    /// None yet.
    ///
    /// # Panics
    /// Never: the library accepts these bounds.
    pub fn new() -> Self {
        Self { histogram: Histogram::new_with_bounds(1, Self::MAX, 3).expect("constant bounds") }
    }

    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(nanos.min(Self::MAX));
    }

    /// Adds all of another's.
    ///
    /// # Panics
    /// Never: all have the same bounds.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("equal bounds");
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// What `quantile` (0 to 1) of them do not exceed, in microseconds.
    pub fn quantile(&self, quantile: f64) -> f64 {
        micros(self.histogram.value_at_quantile(quantile))
    }

    /// The mean in microseconds; zero of none.
    pub fn mean(&self) -> f64 {
        self.histogram.mean() / 1e3
    }

    /// The standard deviation in microseconds.
    pub fn deviation(&self) -> f64 {
        self.histogram.stdev() / 1e3
    }

    /// The smallest in microseconds; zero of none.
    pub fn min(&self) -> f64 {
        if self.histogram.is_empty() { 0.0 } else { micros(self.histogram.min()) }
    }

    /// The largest in microseconds; zero of none.
    pub fn max(&self) -> f64 {
        micros(self.histogram.max())
    }

    /// The histogram, in nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(clippy::cast_precision_loss, reason = "an hour of nanoseconds fits")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// Where an operation was between its intended start and its end, by its own timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// It was to start, and this end had not made it yet: the load generator's own lateness, and what waits in an open loop.
    Schedule,
    /// It was made, and the channel had not taken it: no room in the queue or in the target's command window.
    Queue,
    /// The channel had it: the device, or the wire and the target.
    Device,
    /// It had come back, and this end had not looked at it yet.
    Reply,
}

impl Layer {
    /// All of them, in an operation's order.
    pub const ALL: [Self; 4] = [Self::Schedule, Self::Queue, Self::Device, Self::Reply];

    /// As results show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Queue => "queue",
            Self::Device => "device",
            Self::Reply => "reply",
        }
    }

    fn of(self, intended: Instant, stamps: Stamps) -> Duration {
        match self {
            Self::Schedule => stamps.queued - intended,
            Self::Queue => stamps.submitted - stamps.queued,
            Self::Device => stamps.completed - stamps.submitted,
            Self::Reply => stamps.replied - stamps.completed,
        }
    }
}

/// What was done in one window of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Operations that ended well.
    pub operations: u64,
    /// Bytes that they moved.
    pub bytes: u64,
}

/// What became of one operation.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Its kind.
    pub kind: Kind,
    /// When it was to start.
    pub intended: Instant,
    /// Its timestamps, with the end as `replied`.
    pub stamps: Stamps,
    /// Bytes that it moved.
    pub bytes: u64,
}

/// Everything that was seen while it counted.
#[derive(Clone, Debug)]
pub struct Measurement {
    kinds: [Option<Box<Latencies>>; 4],
    layers: [Latencies; 4],
    windows: Vec<Window>,
    start: Instant,
    window: Duration,
    end: Instant,
}

impl Measurement {
    /// From `start` on for `duration`, in windows.
    pub fn new(start: Instant, duration: Duration, window: Duration) -> Self {
        let layers = core::array::from_fn(|_| Latencies::new());
        let kinds = [const { None }; 4];
        Self { kinds, layers, windows: Vec::new(), start, window, end: start + duration }
    }

    /// One ended. Latencies are of all operations that were to start in the time that counts; rates are of all that ended in it.
    pub fn on_done(&mut self, done: &Done) {
        let ended = done.stamps.replied;
        if ended >= self.start && ended < self.end {
            let index = (ended - self.start).as_nanos() / self.window.as_nanos().max(1);
            let index = usize::try_from(index).expect("windows are few");
            if self.windows.len() <= index {
                self.windows.resize(index + 1, Window::default());
            }
            self.windows[index].operations += 1;
            self.windows[index].bytes += done.bytes;
        }
        if done.intended >= self.start && done.intended < self.end {
            self.kinds[done.kind.index()].get_or_insert_default().record(ended - done.intended);
            for (layer, latencies) in Layer::ALL.into_iter().zip(&mut self.layers) {
                latencies.record(layer.of(done.intended, done.stamps));
            }
        }
    }

    /// One was to start and had not even been made at the end: it would have taken this long at the least.
    pub fn on_unstarted(&mut self, kind: Kind, intended: Instant, now: Instant) {
        if intended >= self.start && intended < self.end {
            self.kinds[kind.index()].get_or_insert_default().record(now - intended);
            self.layers[0].record(now - intended);
        }
    }

    /// Latencies of a kind, if there were any.
    pub fn of(&self, kind: Kind) -> Option<&Latencies> {
        self.kinds[kind.index()].as_deref()
    }

    /// Latencies of all kinds.
    pub fn all(&self) -> Latencies {
        let mut all = Latencies::new();
        self.kinds.iter().flatten().for_each(|latencies| all.merge(latencies));
        all
    }

    /// Time in a layer.
    pub fn layer(&self, layer: Layer) -> &Latencies {
        &self.layers[layer as usize]
    }

    /// Windows so far; the last may not be over.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// How long a window is.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// Operations and bytes of all windows.
    pub fn total(&self) -> Window {
        self.windows.iter().fold(Window::default(), |sum, one| Window {
            operations: sum.operations + one.operations,
            bytes: sum.bytes + one.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + micros * 1000)
    }

    fn done(intended: u64, queued: u64, submitted: u64, completed: u64, replied: u64) -> Done {
        let [queued, submitted, completed, replied] = [queued, submitted, completed, replied].map(at);
        let stamps = Stamps { queued, submitted, completed, replied };
        Done { kind: Kind::Read, intended: at(intended), stamps, bytes: 4096 }
    }

    #[test]
    fn layers_add_up_to_the_latency_from_the_intended_start() {
        let mut seen = Measurement::new(at(0), Duration::from_millis(1), Duration::from_micros(100));
        seen.on_done(&done(10, 15, 35, 335, 340));
        let means = Layer::ALL.map(|layer| seen.layer(layer).mean().round());
        assert_eq!(means, [5.0, 20.0, 300.0, 5.0]);
        assert!((seen.all().mean() - 330.0).abs() < 1.0);
        assert_eq!(seen.windows().iter().map(|window| window.operations).collect::<Vec<_>>(), [0, 0, 0, 1]);
    }

    #[test]
    fn latencies_are_of_what_was_to_start_and_rates_of_what_ended() {
        let mut seen = Measurement::new(at(100), Duration::from_micros(100), Duration::from_micros(50));
        seen.on_done(&done(90, 90, 90, 110, 110));
        seen.on_done(&done(190, 190, 190, 230, 230));
        assert_eq!((seen.total().operations, seen.all().count()), (1, 1));
        assert!((seen.all().mean() - 40.0).abs() < 1.0, "the second alone");
        seen.on_unstarted(Kind::Write, at(150), at(1150));
        seen.on_unstarted(Kind::Write, at(250), at(1150));
        assert!(seen.of(Kind::Write).is_some_and(|writes| writes.count() == 1 && writes.max() >= 1000.0));
        assert!(seen.of(Kind::Trim).is_none());
    }
}
