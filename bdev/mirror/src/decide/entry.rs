//! How a holder lets the leg in that it finds at its peer: as a member, after a resync, or not at all.

use bdev::FenceKey;
use thiserror::Error;

use super::peer::{PeerVerdict, Refusal, SyncPlan, is_set_back, on_peer};
use crate::format::{ArbiterKind, Config, Superblock};
use crate::probe::LegFound;

/// What to do with the peer's leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryVerdict {
    /// It is counted and has everything: fence it, tell it our config.
    Member,
    /// Fence it at a new generation, then bring it in sync.
    Resync(SyncPlan),
    /// The peer went on: stop.
    StepDown {
        /// Its config.
        newer: Config,
    },
    /// The peer has fenced its own leg and is on its way to a newer config: stop.
    TakenOver,
    /// Leave it alone.
    Bar(Bar),
}

/// What the second look at the peer's leg says, now that nobody else can write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecondLook {
    /// What was decided on is what is there.
    Same,
    /// The same leg, and it went on between the look and the fence: the decision begins anew.
    WentOn,
    /// Not that leg any more.
    Other,
}

/// Compares what is there behind the fence with what was decided on.
pub fn on_second_look(decided_on: &Superblock, found: &LegFound) -> SecondLook {
    let LegFound::Leg(leg) = found else { return SecondLook::Other };
    let now = &leg.superblock;
    if now.leg != decided_on.leg || !now.layout.same_array(&decided_on.layout) {
        SecondLook::Other
    } else if now.history != decided_on.history {
        SecondLook::WentOn
    } else {
        SecondLook::Same
    }
}

impl Bar {
    /// True when the legs have diverged: both are kept until the operator chooses (I11).
    pub const fn is_split(&self) -> bool {
        match self {
            Self::Split | Self::SetBack => true,
            Self::TakingOver | Self::NotTheMember | Self::Refused(_) => false,
        }
    }

    /// True when both legs have something that the other lacks: the operator chooses.
    pub fn is_divergence(&self) -> bool {
        self.is_split() || matches!(self, Self::Refused(Refusal::Unprovable))
    }
}

/// Why a leg is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Bar {
    /// Its node may have asked the arbiter for the array, or be about to. So do we: one of the two gets it.
    #[error("the peer is about to take over: the arbiter decides")]
    TakingOver,
    /// I11.
    #[error("the two legs have diverged: nothing is overwritten; choose one side by hand")]
    Split,
    /// I11, too: this node's leg was set back and went on, and the peer's has what it had before.
    #[error(
        "this node's leg was set back to an older state before it went on alone: nothing is overwritten; choose one side by hand"
    )]
    SetBack,
    /// The config counts another one.
    #[error("the leg at the peer is not the one that was in sync")]
    NotTheMember,
    /// See [`Refusal`].
    #[error(transparent)]
    Refused(Refusal),
}

/// True when the node of the leg `theirs` has fenced it against the holder with superblock `ours`, whose config counts
/// it.
pub fn is_taking_over(ours: &Superblock, theirs: &Superblock) -> bool {
    let FenceKey { node, generation } = theirs.fence;
    ours.config().in_sync.has(theirs.index)
        && node != ours.index.number()
        && generation > ours.fence.generation
}

/// Decides, for the holder that says `ours` of the array, on what was found at the peer.
pub fn on_found(ours: &Superblock, found: &LegFound) -> EntryVerdict {
    if let LegFound::Leg(leg) = found
        && is_taking_over(ours, &leg.superblock)
    {
        return match ours.arbiter {
            ArbiterKind::Etcd => EntryVerdict::Bar(Bar::TakingOver),
            ArbiterKind::Biased | ArbiterKind::Manual | ArbiterKind::ClusterManager => {
                EntryVerdict::TakenOver
            }
        };
    }
    match on_peer(ours, found) {
        PeerVerdict::Member => EntryVerdict::Member,
        PeerVerdict::Resync(_) if is_set_back(ours, found) => EntryVerdict::Bar(Bar::SetBack),
        PeerVerdict::Resync(_) if ours.config().in_sync.has(ours.index.other()) => {
            EntryVerdict::Bar(Bar::NotTheMember)
        }
        PeerVerdict::Resync(plan) => EntryVerdict::Resync(plan),
        PeerVerdict::StepDown { newer } => EntryVerdict::StepDown { newer },
        PeerVerdict::Split { .. } => EntryVerdict::Bar(Bar::Split),
        PeerVerdict::Refuse(refusal) => EntryVerdict::Bar(Bar::Refused(refusal)),
    }
}
