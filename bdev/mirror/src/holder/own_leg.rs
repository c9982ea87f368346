//! The own leg while the config counts the peer's alone: left alone for a while after it failed, then copied to from the
//! peer's while hosts are served over that, and counted again (R4, R5).
//!
//! ```text
//! Counted --(a config without it)--> Out --(after a pause)--> Copying --(a config with both)--> Counted
//!                                     ^------(an error)----------'
//! ```
//!
//! While it is copied to it carries log and bitmap like a leg that counts. Where its superblock says that these tell what
//! it misses (a node that lost its cache), it may not go out in silence: that takes a config, as for a leg that counts.

use bdev::IoError;
use core::time::Duration;
use engine::Instant;

use super::change::Kind;
use super::membership::{Entry, Membership};
use super::{Ctx, Holder, Phase, Sides};
use crate::desk::Side;
use crate::events::EventKind;
use crate::format::{ArbiterKind, Config, LegMask, Reason};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnLeg {
    /// The config counts it.
    Counted,
    /// Not written to.
    Out {
        /// When it is tried again.
        until: Instant,
    },
    /// Being brought in sync.
    Copying,
}

/// The longest pause is so many times the shortest.
const PAUSES_MAX: u32 = 64;

/// How long to leave a leg alone: longer each time that it fails soon again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pauses {
    factor: u32,
    last: Option<Instant>,
}

impl Pauses {
    /// The next pause, in steps of `shortest`.
    fn next(&mut self, shortest: Duration, now: Instant) -> Duration {
        let again = self.last.is_some_and(|last| now < last + 10 * shortest * self.factor.max(1));
        self.factor = if again { (2 * self.factor).min(PAUSES_MAX) } else { 1 };
        self.last = Some(now);
        shortest * self.factor
    }
}

/// What a holder does about a disk that hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hung {
    /// It gives the I/Os up, and the own leg goes out.
    GoesOut,
    /// It gives them up: hosts hear that this node serves no more.
    Leaves,
    /// It waits: nobody could answer the hosts.
    Waits,
}

impl Holder {
    /// The own leg carries log and bitmap, unless it is out.
    pub(super) fn has_journal(&self) -> bool {
        self.in_sync().has(Side::Own) || self.own_leg == OwnLeg::Copying
    }

    /// The leg that takes writes where it is current, without being counted.
    pub(super) fn copy_target(&self) -> Option<Side> {
        if self.is_target_current() {
            Some(Side::Peer)
        } else if self.in_sync() == Sides::PEER && self.own_leg == OwnLeg::Copying {
            Some(Side::Own)
        } else {
            None
        }
    }

    /// Its superblock says that its log and bitmap tell what it misses.
    fn is_own_tracked(&self) -> bool {
        self.own_leg == OwnLeg::Copying && self.truth.legs[self.who.index()].tracked_since != 0
    }

    /// The config as a failure of a leg is judged by. A leg that is about to be counted counts already, and so does one
    /// that may not go out in silence.
    pub(super) fn binding(&self, side: Side) -> Config {
        let rejoining = self.change_kind() == Some(Kind::Rejoin { back: Side::Own });
        let config = *self.config();
        if rejoining || (side == Side::Own && self.is_own_tracked()) {
            return Config { in_sync: LegMask::both(), ..config };
        }
        config
    }

    /// It failed an I/O, or cannot be brought in sync.
    pub(super) fn own_leg_failed(&mut self, reason: Reason, error: IoError, ctx: &mut Ctx<'_>) {
        if self.binding(Side::Own).in_sync.has(self.who) {
            if self.own_failure.is_none() {
                ctx.note(EventKind::OwnLegFailed(error));
                self.own_failure = Some(reason);
            }
        } else if self.own_leg == OwnLeg::Copying {
            ctx.note(EventKind::OwnLegFailed(error));
            self.mark_exposed();
            self.leave_own_alone(ctx);
        }
    }

    /// What becomes of the I/Os that a disk which hangs has.
    pub(crate) fn on_own_disk_hung(&self) -> Hung {
        // The config without the own leg comes by itself, or is there.
        let by_itself = matches!(self.arbiter, ArbiterKind::Biased | ArbiterKind::Etcd);
        let goes = by_itself || self.in_sync() == Sides::PEER;
        // A member that is to be enrolled has everything; what it waits for is a write of the own superblock.
        let there = self.is_joined() || matches!(self.membership, Membership::Enrolling(Entry::Member, _));
        match self.phase {
            Phase::Opening(_) | Phase::Serving | Phase::Closing(_)
                if goes && there && self.in_sync().has(Side::Peer) =>
            {
                Hung::GoesOut
            }
            Phase::Leaving(_) => Hung::Leaves,
            _ => Hung::Waits,
        }
    }

    /// It is out: nothing waits for its log any more.
    pub(super) fn leave_own_alone(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now();
        let pause = self.own_pauses.next(ctx.setup.timing.retry, now);
        self.own_leg = OwnLeg::Out { until: now + pause };
        (self.own_failure, self.own_lost) = (None, None);
        self.unit.forget_returning();
        self.resync.cut_off();
        self.go_on_without_log(ctx);
    }

    /// True when a config without it is due though it is not counted.
    pub(super) fn own_leg_is_to_go(&self) -> bool {
        self.own_failure.is_some() && self.is_own_tracked()
    }

    /// Tries it again when its time has come, and when its disk has nothing left that could land behind what is sent to it.
    pub(super) fn drive_own_leg(&mut self, ctx: &mut Ctx<'_>) {
        let OwnLeg::Out { until } = self.own_leg else { return };
        if ctx.desk.is_own_unsettled() {
            return;
        }
        let able = self.phase == Phase::Serving && self.is_joined() && self.change.is_none();
        if able && self.in_sync() == Sides::PEER && ctx.now() >= until {
            self.own_leg = OwnLeg::Copying;
            ctx.note(EventKind::ResyncBegun { bytes: self.bitmap.set_bytes() });
        }
    }

    /// When to try it again.
    pub(super) fn own_leg_deadline(&self, now: Instant) -> Option<Instant> {
        match self.own_leg {
            OwnLeg::Out { until } => Some(until).filter(|until| *until > now),
            OwnLeg::Counted | OwnLeg::Copying => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_that_fails_again_and_again_is_left_alone_for_longer() {
        let second = Duration::from_secs(1);
        let mut now = Instant::EPOCH + second;
        let mut pauses = Pauses::default();
        let mut seen = Vec::new();
        for _ in 0..9 {
            let pause = pauses.next(second, now);
            seen.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(pauses.next(second, now + Duration::from_secs(3600)), second, "it held for long");
    }
}
