//! The read lease (I19): the peer, the only node that could be promoted, grants it with each answer; until it has run
//! out a promoted node serves nothing.

use core::time::Duration;

use engine::Instant;

use crate::format::{Config, LegMask};
use crate::mutation::{Mutation, is_broken};

/// When a node last let the holder do something on its leg: what the holder may take for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Then.
    At(Instant),
    /// Never since this node began. What it granted before it began it does not know.
    NotSince(Instant),
}

/// Until when the answer to a heartbeat that was sent then lets the holder serve reads.
pub fn lease_until(sent: Instant, lease: Duration) -> Instant {
    sent + lease
}

/// Whether a holder may serve reads: while both legs are in sync only under a lease, because its peer may have been
/// promoted.
pub fn may_read(config: &Config, now: Instant, lease_until: Instant) -> bool {
    config.in_sync != LegMask::both() || now < lease_until || is_broken(Mutation::ReadWithoutLease)
}

/// When a node that fenced its own leg may serve. Clocks may differ by a little.
pub fn serves_from(granted: Granted, lease: Duration) -> Instant {
    let (Granted::At(last) | Granted::NotSince(last)) = granted;
    if is_broken(Mutation::LeaseNotWaitedOut) { last } else { last + lease * 21 / 20 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::LegIndex;

    const LEASE: Duration = Duration::from_secs(2);

    /// The promoted node's clock runs fast by one per cent, the holder's slow.
    #[test]
    fn the_lease_is_over_when_the_promoted_node_serves_though_clocks_drift() {
        let sent = Instant::EPOCH + Duration::from_secs(100);
        let real = |by_clock: Duration, percent: u32| by_clock * 100 / percent;
        let ends = real(lease_until(sent, LEASE) - sent, 99);
        for delay in [Duration::ZERO, Duration::from_millis(700)] {
            let granted = sent + delay;
            for granted in [Granted::At(granted), Granted::NotSince(granted)] {
                let serves = real(serves_from(granted, LEASE) - sent - delay, 101) + delay;
                assert!(serves > ends, "{serves:?} and {ends:?}");
            }
        }
    }

    #[test]
    fn only_a_holder_with_both_legs_in_sync_needs_a_lease() {
        let now = Instant::EPOCH + LEASE;
        for in_sync in [LegMask::ZERO, LegMask::ONE, LegMask::both()] {
            let config = Config::first(1, LegIndex::Zero, in_sync);
            assert_eq!(may_read(&config, now, now), in_sync != LegMask::both());
            assert!(may_read(&config, now, now + LEASE));
        }
    }
}
