//! How fast a resync may copy: a token bucket whose rate rises while the hosts do not notice and falls when
//! they do (additive increase, multiplicative decrease).
//!
//! Owner: the resync. The measure is the hosts' mean latency in a window, against the mean while nothing is
//! copied; the floor guarantees an end (I13).

use core::time::Duration;

use engine::Instant;

/// How often the rate is looked at.
const WINDOW: Duration = Duration::from_millis(100);
/// Lowest rate, bytes per second.
const FLOOR: u64 = 16 << 20;
/// First rate.
const FIRST: u64 = 128 << 20;
/// Rise in each window.
const STEP: u64 = 32 << 20;
/// Highest rate.
const CEILING: u64 = 8 << 30;
/// Latency at which the rate falls, as a share of the undisturbed one: 3/2.
const LIMIT: (u64, u64) = (3, 2);

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: u64,
    tokens: u64,
    filled_at: Instant,
    window_end: Instant,
    /// Of the requests in this window.
    sum: u64,
    count: u64,
    /// The undisturbed mean in nanoseconds, and how much of it has been seen.
    calm: u64,
}

impl Default for Pace {
    fn default() -> Self {
        let start = Instant::EPOCH;
        Self { rate: FIRST, tokens: 0, filled_at: start, window_end: start, sum: 0, count: 0, calm: 0 }
    }
}

/// Whether a resync is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copying {
    No,
    Yes,
}

impl Pace {
    /// A request of a host was answered.
    pub(crate) fn on_request(&mut self, latency: Duration) {
        self.sum = self.sum.saturating_add(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        self.count += 1;
    }

    /// Time passes.
    pub(crate) fn on_time(&mut self, now: Instant, copying: Copying) {
        self.fill(now);
        if now < self.window_end {
            return;
        }
        self.window_end = now + WINDOW;
        let mean = self.sum.checked_div(self.count);
        (self.sum, self.count) = (0, 0);
        match (copying, mean) {
            (Copying::No, None) => {}
            (Copying::No, Some(mean)) => {
                self.calm = if self.calm == 0 { mean } else { (self.calm * 7 + mean) / 8 }
            }
            (Copying::Yes, Some(mean)) if self.calm != 0 && mean > self.calm * LIMIT.0 / LIMIT.1 => {
                self.rate = (self.rate * 7 / 10).max(FLOOR);
            }
            (Copying::Yes, _) => self.rate = (self.rate + STEP).min(CEILING),
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = u64::try_from((now - self.filled_at).as_nanos()).unwrap_or(u64::MAX).min(1_000_000_000);
        self.filled_at = now;
        let more =
            u64::try_from(u128::from(self.rate) * u128::from(passed) / 1_000_000_000).unwrap_or(u64::MAX);
        // A tenth of a second's worth, and always room for one copy.
        self.tokens = (self.tokens + more).min((self.rate / 10).max(1 << 20));
    }

    /// Takes the tokens for a copy, if they are there.
    pub(crate) fn take(&mut self, bytes: u64) -> bool {
        let enough = self.tokens >= bytes;
        if enough {
            self.tokens -= bytes;
        }
        enough
    }

    /// When to ask again after a refusal.
    pub(crate) fn next_try(&self) -> Instant {
        self.filled_at + Duration::from_millis(5)
    }

    /// Bytes per second allowed now.
    #[cfg(test)]
    fn rate(&self) -> u64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(pace: &mut Pace, now: &mut Instant, latency_us: u64, copying: Copying) {
        for _ in 0..10 {
            pace.on_request(Duration::from_micros(latency_us));
        }
        *now += WINDOW;
        pace.on_time(*now, copying);
    }

    #[test]
    fn hosts_that_suffer_slow_the_copy_down_to_the_floor_and_no_further() {
        let (mut pace, mut now) = (Pace::default(), Instant::EPOCH);
        for _ in 0..20 {
            window(&mut pace, &mut now, 100, Copying::No);
        }
        window(&mut pace, &mut now, 120, Copying::Yes);
        assert!(pace.rate() > FIRST, "20 % more is tolerated");
        for _ in 0..100 {
            window(&mut pace, &mut now, 400, Copying::Yes);
        }
        assert_eq!(pace.rate(), FLOOR);
        for _ in 0..10 {
            window(&mut pace, &mut now, 100, Copying::Yes);
        }
        assert_eq!(pace.rate(), FLOOR + 10 * STEP);
    }

    #[test]
    fn tokens_follow_the_rate_and_one_copy_always_fits() {
        let mut pace = Pace::default();
        let mut now = Instant::EPOCH + Duration::from_secs(1);
        pace.on_time(now, Copying::Yes);
        let mut copied = 0_u64;
        for _ in 0..1000 {
            now += Duration::from_millis(1);
            pace.on_time(now, Copying::Yes);
            while pace.take(1 << 20) {
                copied += 1 << 20;
            }
        }
        // 160 MiB/s rising by 320 MiB/s each second: about 300 MiB in the first.
        assert!((150 << 20..500 << 20).contains(&copied), "{copied}");
    }
}
