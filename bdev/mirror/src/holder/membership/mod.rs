//! The peer's leg, as the holder sees it: from "the link is up" to "in sync", and back.
//!
//! ```text
//! Away --> Probing --(a leg of ours)--> Arming --> Fencing --> Loading --+--(member)--> Enrolling --> Joined
//!   ^         '--(refused)--> Barred                                     '--(resync)--> Marking --> Enrolling
//!   |                                                                                     |
//!   '---- from everywhere: link down, error, new session          Rejoining <-- Copying <-- Emptying
//!                                                                     '--> Joined
//! ```
//!
//! Identity and generation are checked at every connect, before and after the fence; nothing is read or
//! written on a leg that is not fenced for us. A leg is copied to only after its own superblock says so, and
//! after the union of both bitmaps and both logs is durable on ours.

mod entry;
mod lease;
mod link;

use std::collections::VecDeque;

use bdev::{Completed, Link};
use engine::Instant;

use super::{Ctx, Holder, Phase};
use crate::bitmap::Bitmap;
use crate::decide::SyncPlan;
use crate::desk::Purpose;
use crate::events::BarCause;
use crate::format::{BlockWrite, Reason};
use crate::intent_log::Replay;
use crate::reader::Reader;
use crate::setup::Setup;
use crate::status::PeerSight;
use crate::store::Store;

/// See the module.
#[derive(Debug)]
pub(crate) enum Membership {
    /// Not reachable.
    Away,
    /// What is there?
    Probing(Box<Reader>),
    /// Nothing that may be touched, or broken.
    Barred {
        /// Why it is left alone.
        why: BarCause,
        /// What a config without it would say.
        reason: Reason,
        /// When to look again.
        retry_at: Instant,
    },
    /// The own superblock learns the generation of the fence.
    Arming(Entry),
    /// The peer's guard is asked to let nobody else in.
    Fencing(Entry),
    /// Once more: what is there, now that nobody else can write it?
    Loading(Entry, Box<Reader>),
    /// The union of what may differ goes to the own leg.
    Marking(SyncPlan, Option<Box<Differences>>),
    /// The peer's superblock learns the config.
    Enrolling(Entry, Option<Box<Differences>>),
    /// The peer's log and bitmap, now part of ours, are emptied.
    Emptying(VecDeque<BlockWrite>),
    /// The resync runs; writes go to both legs where the peer's is current.
    Copying,
    /// Nothing differs: the config with both is on its way.
    Rejoining,
    /// In sync.
    Joined,
}

/// A [`Membership`] without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Away,
    Probing,
    Barred,
    Arming,
    Fencing,
    Loading,
    Marking,
    Enrolling,
    Emptying,
    Copying,
    Rejoining,
    Joined,
}

impl Stage {
    /// The picture above, as a table.
    const fn may_become(self, next: Self) -> bool {
        use Stage as S;
        match (self, next) {
            // From everywhere, when the leg is lost or given up.
            (_, S::Away)
            | (S::Away, S::Probing | S::Barred)
            | (S::Barred, S::Probing)
            | (S::Probing, S::Arming)
            | (S::Arming, S::Fencing)
            | (S::Fencing, S::Loading)
            | (S::Loading, S::Marking | S::Enrolling | S::Joined)
            | (S::Marking, S::Enrolling)
            | (S::Enrolling, S::Emptying | S::Joined)
            | (S::Emptying, S::Copying)
            | (S::Copying, S::Rejoining)
            // A leg that has joined stays so when the own one comes back beside it.
            | (S::Rejoining | S::Joined, S::Joined) => true,
            _ => false,
        }
    }
}

/// How a leg comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The config counts it and it has everything.
    Member,
    /// It has to be brought in sync.
    Resync(SyncPlan),
}

/// What the peer's own log and bitmap say.
#[derive(Debug)]
pub(crate) struct Differences {
    log: Replay,
    bitmap: Bitmap,
}

/// The peer's leg, fenced for us.
#[derive(Debug)]
pub(crate) struct PeerLeg {
    pub(super) store: Store,
}

impl Membership {
    const fn stage(&self) -> Stage {
        match self {
            Self::Away => Stage::Away,
            Self::Probing(_) => Stage::Probing,
            Self::Barred { .. } => Stage::Barred,
            Self::Arming(_) => Stage::Arming,
            Self::Fencing(_) => Stage::Fencing,
            Self::Loading(..) => Stage::Loading,
            Self::Marking(..) => Stage::Marking,
            Self::Enrolling(..) => Stage::Enrolling,
            Self::Emptying(_) => Stage::Emptying,
            Self::Copying => Stage::Copying,
            Self::Rejoining => Stage::Rejoining,
            Self::Joined => Stage::Joined,
        }
    }

    /// As the status has it, with the cause where something is wrong.
    pub(crate) fn in_words(&self) -> (PeerSight, Option<String>) {
        match self {
            Self::Away => (PeerSight::Unreachable, None),
            Self::Probing(_) => (PeerSight::Probing, None),
            Self::Barred { why, .. } => (PeerSight::Refused, Some(why.to_string())),
            Self::Arming(_)
            | Self::Fencing(_)
            | Self::Loading(..)
            | Self::Marking(..)
            | Self::Enrolling(..)
            | Self::Emptying(_) => (PeerSight::Joining, None),
            Self::Copying | Self::Rejoining => (PeerSight::Resync, None),
            Self::Joined => (PeerSight::Joined, None),
        }
    }

    /// Whether its superblock is ours to write.
    pub(super) const fn takes_superblocks(&self) -> bool {
        matches!(
            self,
            Self::Enrolling(..) | Self::Emptying(_) | Self::Copying | Self::Rejoining | Self::Joined
        )
    }
}

impl Holder {
    /// Goes on to another state.
    pub(super) fn enter(&mut self, next: Membership) {
        let (from, to) = (self.membership.stage(), next.stage());
        debug_assert!(from.may_become(to), "the peer's leg: {from:?} to {to:?}");
        self.membership = next;
    }

    pub(super) fn is_joined(&self) -> bool {
        matches!(self.membership, Membership::Joined)
    }

    /// Everything that the bitmap does not mark is the same on the peer's leg: writes go to it too.
    pub(super) fn is_target_current(&self) -> bool {
        matches!(self.membership, Membership::Copying | Membership::Rejoining)
    }

    /// The peer's leg is fenced for us, and takes what we write.
    pub(super) fn is_peer_ours(&self) -> bool {
        self.is_joined() || self.is_target_current()
    }

    pub(super) fn membership_waits_for_marks(&self) -> bool {
        matches!(self.membership, Membership::Marking(..))
    }

    /// Why the peer, which the config counts, has to go; `None` while there is hope.
    pub(super) fn peer_to_drop(&self, ctx: &Ctx<'_>) -> Option<Reason> {
        match &self.membership {
            Membership::Joined | Membership::Rejoining => None,
            Membership::Barred { reason, .. } => Some(*reason),
            _ => {
                let since = self.lost_since?;
                (ctx.now() >= since + ctx.setup.timing.grace).then_some(self.lost_reason)
            }
        }
    }

    pub(super) fn membership_deadline(&self, link: &Link, setup: &Setup, now: Instant) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let grace = self.lost_since.filter(|_| self.is_both()).map(|since| since + setup.timing.grace);
        // Once it is over something else is waited for.
        let grace = grace.filter(|at| *at > now);
        let next = match &self.membership {
            Membership::Away if link.is_up() => Some(self.next_probe),
            Membership::Barred { retry_at, .. } => Some(*retry_at),
            Membership::Copying | Membership::Rejoining | Membership::Joined => Some(self.next_heartbeat),
            _ => None,
        };
        let retry = self.journal.retry_at().filter(|_| self.has_journal());
        Instant::earliest(Instant::earliest(grace, next), retry)
    }

    /// It holds no more: nobody is probed, armed against or fenced.
    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Leaving(_) | Phase::Ended(_))
    }

    /// Goes on where a state waits for something other than an I/O.
    pub(super) fn drive_membership(&mut self, ctx: &mut Ctx<'_>) {
        if self.is_over() {
            return;
        }
        match &mut self.membership {
            Membership::Probing(reader) | Membership::Loading(_, reader) => reader.poke(ctx.desk),
            Membership::Marking(..) if self.change.is_none() && self.bitmap.is_all_durable() => {
                self.enrol(ctx);
            }
            Membership::Emptying(_) => self.empty_next(ctx),
            _ => {}
        }
        self.heartbeat(ctx);
    }

    /// A part of the way is done.
    pub(super) fn on_membership(&mut self, purpose: Purpose, completed: &Completed, ctx: &mut Ctx<'_>) {
        if self.is_over() {
            return;
        }
        match purpose {
            Purpose::Read { job } if job == self.attempt => self.on_reading(job, completed, ctx),
            Purpose::Fence { attempt } if attempt == self.attempt => self.on_fenced(completed.result, ctx),
            Purpose::Emptying { attempt } if attempt == self.attempt => {
                self.on_emptied(completed.result, ctx);
            }
            Purpose::Heartbeat { attempt, sent } if attempt == self.attempt => {
                self.on_heartbeat(sent, completed.result, ctx);
            }
            _ => {}
        }
    }
}

/// Whether something is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outstanding {
    No,
    Yes,
}

#[cfg(test)]
mod tests {
    use super::Stage::{
        self, Arming, Away, Barred, Copying, Emptying, Enrolling, Fencing, Joined, Loading, Marking, Probing,
        Rejoining,
    };

    #[test]
    fn the_states_follow_the_picture() {
        const TABLE: &str = "\
Away      > Away Probing Barred
Probing   > Away Arming
Barred    > Away Probing
Arming    > Away Fencing
Fencing   > Away Loading
Loading   > Away Marking Enrolling Joined
Marking   > Away Enrolling
Enrolling > Away Emptying Joined
Emptying  > Away Copying
Copying   > Away Rejoining
Rejoining > Away Joined
Joined    > Away Joined
";
        let all: [Stage; 12] = [
            Away, Probing, Barred, Arming, Fencing, Loading, Marking, Enrolling, Emptying, Copying,
            Rejoining, Joined,
        ];
        let mut table = String::new();
        for from in all {
            let next: Vec<String> =
                all.iter().filter(|&&to| from.may_become(to)).map(|to| format!("{to:?}")).collect();
            table += &format!("{:9} > {}\n", format!("{from:?}"), next.join(" "));
        }
        assert_eq!(table, TABLE);
    }
}
