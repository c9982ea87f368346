//! Rates that a device's users may not exceed: token buckets.
//!
//! An I/O may start while its buckets are not in debt, and takes what it costs; so one that is larger than a bucket starts, too,
//! and the rate holds in the mean.

use core::time::Duration;

use engine::Instant;

use super::OpKind;

/// Limits of a device; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Reads and writes per second.
    pub ios: u64,
    /// Bytes read and written per second.
    pub bytes: u64,
    /// Bytes read per second.
    pub read_bytes: u64,
    /// Bytes written per second.
    pub written_bytes: u64,
}

impl RateLimits {
    /// True when nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What may go unused and be spent at once, as a share of a second: 1/50.
const BURST: u64 = 50;

#[derive(Debug)]
struct Bucket {
    rate: u64,
    tokens: i64,
    filled_at: Instant,
}

impl Bucket {
    fn new(rate: u64, now: Instant) -> Self {
        Self { rate, tokens: 0, filled_at: now }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_since(self.filled_at).as_nanos();
        let more = passed * u128::from(self.rate) / 1_000_000_000;
        // The time that made no whole token stays.
        let spent = (more * 1_000_000_000).div_ceil(u128::from(self.rate));
        self.filled_at += Duration::from_nanos(u64::try_from(spent).unwrap_or(u64::MAX));
        let most = i64::try_from((self.rate / BURST).max(1)).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(i64::try_from(more).unwrap_or(i64::MAX)).min(most);
    }

    /// When it is out of debt.
    fn ready_at(&self, now: Instant) -> Instant {
        let debt = u128::from((1 - self.tokens.min(1)).unsigned_abs());
        let nanos = (debt * 1_000_000_000).div_ceil(u128::from(self.rate));
        (self.filled_at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))).max(now)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Buckets {
    limits: RateLimits,
    ios: Bucket,
    bytes: Bucket,
    read_bytes: Bucket,
    written_bytes: Bucket,
}

impl Buckets {
    pub(super) fn new(limits: RateLimits, now: Instant) -> Self {
        let bucket = |rate| Bucket::new(rate, now);
        Self {
            limits,
            ios: bucket(limits.ios),
            bytes: bucket(limits.bytes),
            read_bytes: bucket(limits.read_bytes),
            written_bytes: bucket(limits.written_bytes),
        }
    }

    pub(super) fn limits(&self) -> RateLimits {
        self.limits
    }

    /// Takes what an I/O costs.
    ///
    /// # Errors
    /// When to ask again.
    pub(super) fn take(&mut self, kind: OpKind, bytes: u64, now: Instant) -> Result<(), Instant> {
        let own = match kind {
            OpKind::Read => &mut self.read_bytes,
            OpKind::Write => &mut self.written_bytes,
            OpKind::Unmap | OpKind::Flush => return Ok(()),
        };
        let costs = [(&mut self.ios, 1), (&mut self.bytes, bytes), (own, bytes)];
        let mut costs: Vec<_> = costs.into_iter().filter(|(bucket, _)| bucket.rate > 0).collect();
        costs.iter_mut().for_each(|(bucket, _)| bucket.fill(now));
        match costs
            .iter()
            .filter(|(bucket, _)| bucket.tokens <= 0)
            .map(|(bucket, _)| bucket.ready_at(now))
            .max()
        {
            Some(later) => Err(later),
            None => {
                for (bucket, cost) in costs {
                    bucket.tokens = bucket.tokens.saturating_sub_unsigned(cost);
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many I/Os start in a second when somebody asks again whenever it is told to.
    fn in_one_second(limits: RateLimits, kind: OpKind, bytes: u64) -> u64 {
        let mut buckets = Buckets::new(limits, Instant::EPOCH);
        let (mut now, mut count) = (Instant::EPOCH, 0);
        while now < Instant::EPOCH + Duration::from_secs(1) {
            match buckets.take(kind, bytes, now) {
                Ok(()) => count += 1,
                Err(later) => {
                    assert!(later > now, "asking again must help");
                    now = later;
                }
            }
        }
        count
    }

    #[test]
    fn the_lowest_limit_holds() {
        let limits = RateLimits { ios: 1000, bytes: 1 << 20, ..RateLimits::default() };
        assert_eq!(in_one_second(limits, OpKind::Read, 512), 999, "the first one after a millisecond");
        assert_eq!(in_one_second(limits, OpKind::Read, 4096), 256);
        let reads = RateLimits { read_bytes: 1 << 20, ..RateLimits::default() };
        assert_eq!(in_one_second(reads, OpKind::Read, 1 << 19), 2);
        let mut buckets = Buckets::new(reads, Instant::EPOCH);
        assert_eq!(buckets.take(OpKind::Write, 1 << 40, Instant::EPOCH), Ok(()), "writes are free");
    }

    #[test]
    fn what_was_not_used_is_not_saved_up_for_long() {
        let mut buckets = Buckets::new(RateLimits { ios: 1000, ..RateLimits::default() }, Instant::EPOCH);
        let now = Instant::EPOCH + Duration::from_secs(60);
        let burst = (0..2000).take_while(|_| buckets.take(OpKind::Write, 0, now).is_ok()).count();
        assert_eq!(burst, 20);
    }
}
