//! When operations are to start. Pure: takes the time, gives intended starts.
//!
//! In a closed loop an operation is to start when there is room for it. In an open loop operations arrive at a rate whatever the
//! device does: one that finds no room waits, and its latency counts from its arrival. So a stall is seen by everything that
//! would have arrived in it (no coordinated omission).

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use engine::{Instant, Prng};
use thiserror::Error;

use crate::workload::unit;

/// How arrivals of an open loop are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// At random, independently (a Poisson process).
    Poisson,
    /// Evenly.
    Even,
}

/// Not a spacing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no spacing of arrivals: use poisson or even")]
pub struct SpacingError(String);

impl FromStr for Spacing {
    type Err = SpacingError;

    fn from_str(text: &str) -> Result<Self, SpacingError> {
        match text {
            "poisson" => Ok(Self::Poisson),
            "even" => Ok(Self::Even),
            _ => Err(SpacingError(text.to_owned())),
        }
    }
}

impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poisson => "poisson",
            Self::Even => "even",
        })
    }
}

/// What decides when operations start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loop {
    /// The next starts when one ends.
    Closed {
        /// Operations at work at each session.
        depth: u32,
    },
    /// They arrive at a rate.
    Open {
        /// Operations a second, of all sessions together.
        rate: f64,
        /// How they are spaced.
        spacing: Spacing,
        /// Operations at work at each session at the most; what arrives beyond them waits.
        depth: u32,
    },
}

impl Loop {
    /// Operations at work at each session at the most.
    pub fn depth(&self) -> u32 {
        match self {
            Self::Closed { depth } | Self::Open { depth, .. } => *depth,
        }
    }
}

impl fmt::Display for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { depth } => write!(f, "depth {depth}"),
            Self::Open { rate, spacing, depth } => {
                write!(f, "{rate} arrivals/s ({spacing}), depth at most {depth}")
            }
        }
    }
}

/// Arrivals of one session's open loop.
#[derive(Clone, Debug)]
struct Arrivals {
    start: Instant,
    /// Between two, on average, in seconds.
    gap: f64,
    spacing: Spacing,
    prng: Prng,
    /// The next, in seconds from the start: added up in one number, so that no rounding adds up.
    next: f64,
}

impl Arrivals {
    fn next_at(&self) -> Instant {
        self.start + Duration::try_from_secs_f64(self.next).unwrap_or(Duration::MAX)
    }

    fn advance(&mut self) {
        self.next += match self.spacing {
            Spacing::Even => self.gap,
            // One minus: never the logarithm of zero.
            Spacing::Poisson => -(1.0 - unit(&mut self.prng)).ln() * self.gap,
        };
    }
}

/// One session's starts.
#[derive(Clone, Debug)]
pub struct Pacer {
    depth: u32,
    arrivals: Option<Arrivals>,
}

impl Pacer {
    /// Of session `index` of `count`, from `start` on.
    pub fn new(shape: Loop, (index, count): (u32, u32), start: Instant, seed: u64) -> Self {
        let arrivals = match shape {
            Loop::Closed { .. } => None,
            Loop::Open { rate, spacing, .. } => {
                let gap = f64::from(count) / rate;
                let prng = Prng::from_seed(seed.rotate_left(17) ^ u64::from(index));
                let mut arrivals = Arrivals { start, gap, spacing, prng, next: 0.0 };
                match spacing {
                    // Sessions take turns.
                    Spacing::Even => arrivals.next = gap * f64::from(index) / f64::from(count),
                    Spacing::Poisson => arrivals.advance(),
                }
                Some(arrivals)
            }
        };
        Self { depth: shape.depth(), arrivals }
    }

    /// The intended start of the operation that is to start now, if one is.
    pub fn take(&mut self, in_flight: u32, now: Instant) -> Option<Instant> {
        if in_flight >= self.depth {
            return None;
        }
        match &self.arrivals {
            None => Some(now),
            Some(_) => self.arrived(now),
        }
    }

    /// The intended start of the next operation that has arrived, whether there is room for it or not; none in a closed loop.
    pub fn arrived(&mut self, now: Instant) -> Option<Instant> {
        let arrivals = self.arrivals.as_mut()?;
        let at = arrivals.next_at();
        (at <= now).then(|| {
            arrivals.advance();
            at
        })
    }

    /// When the next one arrives; none in a closed loop.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.arrivals.as_ref().map(Arrivals::next_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(5_000_000_000);

    fn open(rate: f64, spacing: Spacing, depth: u32) -> Pacer {
        Pacer::new(Loop::Open { rate, spacing, depth }, (0, 1), START, 9)
    }

    #[test]
    fn a_closed_loop_starts_when_there_is_room() {
        let mut pacer = Pacer::new(Loop::Closed { depth: 2 }, (0, 1), START, 1);
        assert_eq!((pacer.take(1, START), pacer.take(2, START)), (Some(START), None));
        assert_eq!((pacer.arrived(START), pacer.next_arrival()), (None, None));
    }

    #[test]
    fn arrivals_keep_their_rate_and_sessions_share_it() {
        let seconds = Duration::from_secs(100);
        for spacing in [Spacing::Even, Spacing::Poisson] {
            let shape = Loop::Open { rate: 1000.0, spacing, depth: 1 };
            let mut count = 0_u32;
            for index in 0..4 {
                let mut pacer = Pacer::new(shape, (index, 4), START, 5);
                while pacer.arrived(START + seconds).is_some() {
                    count += 1;
                }
            }
            // The deviation of a Poisson process's count is the root of its mean.
            assert!(count.abs_diff(100_000) < 1_300, "{spacing}: {count} arrivals");
        }
    }

    #[test]
    fn gaps_at_random_are_exponential() {
        let mut pacer = open(1000.0, Spacing::Poisson, 1);
        let end = START + Duration::from_secs(1_000_000);
        let mut before = START;
        let (mut long, count) = (0_u32, 100_000_u32);
        for _ in 0..count {
            let at = pacer.arrived(end).expect("it is long past");
            long += u32::from(at - before > Duration::from_millis(1));
            before = at;
        }
        let expected = f64::from(count) * (-1.0_f64).exp();
        assert!((f64::from(long) - expected).abs() < 600.0, "{long} of {count} are longer than the mean");
    }

    /// A device that takes 100 us and once stands still for a second, at 1,000 arrivals a second and depth one: a thousand
    /// operations see the stall, not one.
    #[test]
    fn a_stall_counts_for_everything_that_arrives_in_it() {
        let mut pacer = open(1000.0, Spacing::Even, 1);
        let (service, stall) = (Duration::from_micros(100), Duration::from_secs(1));
        let mut now = START;
        let mut latencies = Vec::new();
        while latencies.len() < 5_000 {
            now = now.max(pacer.next_arrival().expect("an open loop"));
            let intended = pacer.take(0, now).expect("it has arrived");
            now += if latencies.len() == 1_000 { stall } else { service };
            latencies.push(now - intended);
        }
        let slow = latencies.iter().filter(|latency| **latency > service).count();
        // While it catches up, ten leave for each that arrives: 1000 / (1 - 1/10).
        assert!((1_100..1_120).contains(&slow), "{slow} saw the stall");
        let total: Duration = latencies.iter().sum();
        assert!(total > Duration::from_secs(500), "half a second each: {total:?}");
    }
}
