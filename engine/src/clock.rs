//! The only place that reads a clock. Everything else takes an [`Instant`] as an argument, so that the simulator can run
//! the same code on virtual time.

use ::core::fmt;
use ::core::ops::{Add, AddAssign, Sub};
use ::core::time::Duration;

use engine_sys::clock::since_boot;

/// A point on a monotonic clock, in nanoseconds since that clock's epoch.
///
/// The epoch has no meaning outside one process: instants of two nodes must never be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The clock's epoch.
    pub const EPOCH: Self = Self(0);
    /// Later than any instant that a clock returns.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since the epoch: what the pure protocol crates take as `now`.
    pub const fn since_epoch(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Time from `earlier` to `self`, zero when `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The earlier of two optional deadlines.
    pub fn earliest(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, None) | (None, one) => one,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl From<Duration> for Instant {
    /// The instant `since_epoch` after the epoch.
    fn from(since_epoch: Duration) -> Self {
        Self(nanos(since_epoch))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1_000)
    }
}

/// Where a reactor takes its time from.
pub trait Clock {
    /// The present. Never earlier than an instant returned before.
    fn now(&self) -> Instant;
}

/// The machine's monotonic clock, which goes on while it sleeps: a lease ends then as well. Its epoch is the value's creation,
/// less one second so that no real instant is the epoch.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    created: Duration,
}

impl MonotonicClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { created: since_boot() }
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Instant {
        Instant(1_000_000_000 + nanos(since_boot().saturating_sub(self.created)))
    }
}
