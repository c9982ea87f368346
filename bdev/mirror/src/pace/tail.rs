//! The tail of hosts' latencies, without keeping them.

use core::time::Duration;

/// Requests before it says anything.
const LEARNT_AFTER: u32 = 100;
/// A request is late with more than so many times the tail,
const LATE: (u32, u32) = (3, 2);
/// and with more than this above it: less is lost in what the way between host and node varies by.
const UNNOTICED: Duration = Duration::from_micros(100);

/// What about one request in a hundred exceeds: each that does moves the figure up by a tenth, each that does not down by a
/// thousandth, so that it stands still where one in a hundred does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tail {
    nanos: u64,
    seen: u32,
}

impl Tail {
    pub(super) fn learn(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.nanos = match self.seen {
            0 => nanos,
            _ if nanos > self.nanos => nanos.min(self.nanos.saturating_add(self.nanos / 10 + 1)),
            _ => self.nanos - self.nanos / 1000,
        };
        self.seen = self.seen.saturating_add(1);
    }

    /// A request that took longer is late; `None` before enough was seen.
    pub(super) fn limit(&self) -> Option<Duration> {
        let tail = Duration::from_nanos(self.nanos);
        let late = (tail.saturating_mul(LATE.0) / LATE.1).max(tail.saturating_add(UNNOTICED));
        (self.seen >= LEARNT_AFTER).then_some(late)
    }
}

#[cfg(test)]
mod tests {
    use engine::Prng;

    use super::*;

    #[test]
    fn it_finds_what_one_in_a_hundred_exceeds_and_follows_when_that_changes() {
        let (mut tail, mut prng) = (Tail::default(), Prng::from_seed(1));
        assert_eq!(tail.limit(), None);
        for scale in [1, 20, 2] {
            // Even from 0 to 1000: 99 of 100 are below 990.
            for _ in 0..20_000 {
                tail.learn(Duration::from_micros(prng.below(1000) * scale));
            }
            let found = tail.nanos / 1000 / scale;
            assert!((900..1000).contains(&found), "{found}");
        }
    }

    #[test]
    fn a_few_outliers_do_not_move_it_far() {
        let mut tail = Tail::default();
        for n in 0..10_000 {
            tail.learn(Duration::from_micros(if n % 500 == 0 { 100_000 } else { 100 }));
        }
        assert!((90_000..130_000).contains(&tail.nanos), "{}", tail.nanos);
        assert_eq!(tail.limit(), Some(Duration::from_nanos(tail.nanos) + UNNOTICED));
    }
}
