//! smoltcp's time: the world's, run faster.
//!
//! Its timers are constants of a wide-area network: a retransmission timeout of at least 1 s and at most 60 s, 1 s between
//! two questions for a neighbour, 60 s for a neighbour's answer, 10 s of TIME-WAIT. On a clock that runs 2000 times as fast
//! they are 500 us, 30 ms, 500 us (`neighbours.rs` makes that more), 30 ms and 5 ms, and a round trip is measured 2000 times as finely.

use core::time::Duration;

use engine::Instant;
use smoltcp::time::{Duration as StackDuration, Instant as StackInstant};

/// smoltcp's shortest retransmission timeout.
const SHORTEST: Duration = Duration::from_secs(1);

/// How much faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    factor: u32,
}

impl Clock {
    /// The clock on which the shortest retransmission timeout takes `shortest` of the world's time.
    pub(super) fn new(shortest: Duration) -> Self {
        let factor = SHORTEST.as_nanos() / shortest.as_nanos().max(1);
        Self { factor: u32::try_from(factor).unwrap_or(u32::MAX).max(1) }
    }

    pub(super) fn instant(self, now: Instant) -> StackInstant {
        StackInstant::from_micros(self.micros(now.since_epoch()))
    }

    pub(super) fn duration(self, duration: Duration) -> StackDuration {
        StackDuration::from_micros(self.micros(duration).unsigned_abs())
    }

    /// The world's time, rounded up: never before it is due.
    pub(super) fn world(self, at: StackInstant) -> Instant {
        let micros = u128::from(at.total_micros().max(0).unsigned_abs());
        let nanos = (micros * 1_000).div_ceil(u128::from(self.factor));
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn micros(self, time: Duration) -> i64 {
        let micros = time.as_nanos() * u128::from(self.factor) / 1_000;
        i64::try_from(micros).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_the_stack_is_the_shortest_timeout_and_the_way_back_is_never_early() {
        let clock = Clock::new(Duration::from_millis(5));
        assert_eq!(clock.duration(Duration::from_millis(5)), StackDuration::from_secs(1));
        for nanos in [0, 1, 4_999, 5_000, 1_000_003, 31_536_000_000_000_000] {
            let now = Instant::from_nanos(nanos);
            let back = clock.world(clock.instant(now));
            assert!(back <= now && now.saturating_since(back) < Duration::from_nanos(1_000), "{nanos}");
        }
        let due = StackInstant::from_micros(1_001);
        assert!(clock.instant(clock.world(due)) >= due);
    }
}
