//! A node's clock: it began at another time than the others', and runs a little faster or slower.

use core::time::Duration;

use engine::Instant;

const MILLION: i128 = 1_000_000;

/// From the world's time to a node's and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    offset: i128,
    /// Parts per million that it runs too fast.
    drift: i128,
}

impl Clock {
    pub(crate) fn new(offset: Duration, drift_ppm: i64) -> Self {
        Self {
            offset: i128::try_from(offset.as_nanos()).expect("a short time"),
            drift: i128::from(drift_ppm),
        }
    }

    /// What the node's clock shows.
    pub(crate) fn local(&self, world: Instant) -> Instant {
        let world = i128::from(world.as_nanos());
        to_instant(self.offset + world + world * self.drift / MILLION)
    }

    /// The first moment when the node's clock shows `local` or more.
    pub(crate) fn world(&self, local: Instant) -> Instant {
        let passed = (i128::from(local.as_nanos()) - self.offset).max(0);
        let mut world = to_instant(passed * MILLION / (MILLION + self.drift));
        let tick = Duration::from_nanos(1);
        while self.local(world) < local {
            world += tick;
        }
        while world > Instant::EPOCH && self.local(earlier(world, tick)) >= local {
            world = earlier(world, tick);
        }
        world
    }
}

fn earlier(at: Instant, by: Duration) -> Instant {
    Instant::EPOCH + (at.since_epoch() - by)
}

fn to_instant(nanos: i128) -> Instant {
    Instant::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_is_never_too_early() {
        for drift in [-10_000, -37, 0, 11, 10_000] {
            let clock = Clock::new(Duration::from_secs(7), drift);
            for nanos in [0, 1, 999, 1_000_000_007, 86_400_000_000_123] {
                let local = clock.local(Instant::from_nanos(nanos));
                let back = clock.world(local);
                assert!(clock.local(back) >= local && back.as_nanos() <= nanos, "{drift} {nanos}");
            }
        }
    }
}
