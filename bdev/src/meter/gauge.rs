//! How many I/Os a device has under way, over time.
//!
//! It is counted at each change and not by samples, so that the times are exact whatever period was asked for.

use core::time::Duration;

use engine::Instant;

/// What the gauge says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DepthStats {
    /// The period that was asked for.
    pub period: Duration,
    /// I/Os under way.
    pub depth: u64,
    /// Time with at least one under way.
    pub busy: Duration,
    /// Time of each of them, summed.
    pub weighted: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gauge {
    stats: DepthStats,
    changed_at: Instant,
}

impl Gauge {
    pub(super) fn new(period: Duration, depth: u64, now: Instant) -> Self {
        Self { stats: DepthStats { period, depth, ..DepthStats::default() }, changed_at: now }
    }

    /// From now on there are `depth` under way. Reactors' clocks may be a turn apart.
    pub(super) fn set(&mut self, depth: u64, now: Instant) {
        let passed = now.saturating_since(self.changed_at);
        self.changed_at = self.changed_at.max(now);
        if self.stats.depth > 0 {
            self.stats.busy += passed;
            self.stats.weighted += passed * u32::try_from(self.stats.depth).unwrap_or(u32::MAX);
        }
        self.stats.depth = depth;
    }

    pub(super) fn stats(&self) -> DepthStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_weighed_by_depth() {
        let at = |millis: u64| Instant::EPOCH + Duration::from_millis(millis);
        let mut gauge = Gauge::new(Duration::from_micros(10), 0, at(0));
        for (millis, depth) in [(10, 1), (20, 3), (19, 3), (30, 0), (100, 0)] {
            gauge.set(depth, at(millis));
        }
        let stats = gauge.stats();
        assert_eq!((stats.busy, stats.weighted), (Duration::from_millis(20), Duration::from_millis(40)));
    }
}
