//! Codes for machines: stable words in lower case with hyphens. A code is never reused for something else.

use bdev::{IoError, NotReady};

use super::kind::{ArbiterTrouble, BarCause, EventKind, FreezeCause, SwitchoverTrouble};
use crate::command::{self, Demotion};
use crate::decide::{
    Bar, DataAge, FullReason, HoldReason, PromoteMode, PromoteRefusal, Refusal, StandbyReason,
};
use crate::format::Reason;

/// Something that has a code.
pub trait Codes {
    /// The code.
    fn code(&self) -> &'static str;
}

impl EventKind {
    /// All codes of events: the types of `notify_get_types`.
    pub const CODES: [&'static str; 47] = [
        "formatting",
        "leg-unusable",
        "own-leg-failed",
        "own-disk-hangs",
        "own-disk-answers",
        "own-superblock-failed",
        "unit-state-lost",
        "fenced",
        "standing-by",
        "holding",
        "config-changed",
        "config-adopted",
        "serving",
        "stepping-down",
        "switching-over",
        "switchover-abandoned",
        "demoting",
        "stopping",
        "stopped",
        "orphaned",
        "holder-silent",
        "holder-heard",
        "nobody-serves",
        "frozen",
        "thawed",
        "promoting",
        "promotion-failed",
        "promotion-refused",
        "arbiter-silent",
        "arbiter-decided",
        "arbiter-older",
        "arbiter-vacant",
        "peer-joined",
        "peer-unreachable",
        "peer-failed",
        "peer-barred",
        "peer-takes-over",
        "peer-went-on",
        "split",
        "split-resolving",
        "full-copy",
        "own-full-copy",
        "resync-begun",
        "in-sync",
        "resync-paused",
        "resync-resumed",
        "resync-stopped",
    ];

    /// Why, as a code.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::FormattingNew => "new-array",
            Self::FormattingToJoin => "joining",
            Self::LegUnusable(_) | Self::UnitStateLost | Self::OwnDiskHangs(_) | Self::OwnDiskAnswers => {
                "own-leg"
            }
            Self::OwnLegFailed(error)
            | Self::OwnSuperblockFailed(error)
            | Self::PromotionFailed(error)
            | Self::PeerFailed(error)
            | Self::ResyncStopped { error, .. } => io_code(*error),
            Self::Fenced { .. } | Self::SteppingDown | Self::PeerWentOn { .. } => "newer-generation",
            Self::StandingBy(reason) => reason.code(),
            Self::Holding(reason) => reason.code(),
            Self::ConfigChanged(config) | Self::ConfigAdopted(config) => config.reason.code(),
            Self::Serving { .. } => "config-durable",
            Self::SwitchingOver
            | Self::Stopping
            | Self::Stopped
            | Self::ResyncPaused
            | Self::ResyncResumed => "command",
            Self::SwitchoverAbandoned(why) => why.code(),
            Self::Demoting(Demotion::Orderly) => "orderly",
            Self::Demoting(Demotion::AtOnce) => "at-once",
            Self::HolderSilent | Self::HolderHeard => "heartbeat",
            Self::NobodyServes => "transition-too-long",
            Self::Orphaned | Self::PeerUnreachable(_) => Reason::LinkLost.code(),
            Self::Frozen(cause) => cause.code(),
            Self::Thawed => "decided",
            Self::Promoting { mode, data, .. } => match (mode, data) {
                (PromoteMode::Ordinary, _) => "nothing-missing",
                (PromoteMode::Forced, DataAge::Current | DataAge::Unproven) => "forced",
                (PromoteMode::Forced, DataAge::Past) => "forced-data-past",
                (PromoteMode::Forced, DataAge::Mixed) => "forced-data-mixed",
            },
            Self::PromotionRefused(refusal) => refusal.code(),
            Self::ArbiterSilent(_) => "no-answer",
            Self::ArbiterDecided { .. } => "swap-refused",
            Self::NamedHolder { .. } => "named-holder",
            Self::ArbiterOlder { .. } => "restored-from-backup",
            Self::ArbiterVacant => "array-unknown",
            Self::PeerJoined => "in-sync",
            Self::PeerBarred(cause) => cause.code(),
            Self::PeerTakesOver => "fence-seen",
            Self::SplitResolving { .. } => "command",
            Self::FullCopy(why) | Self::OwnFullCopy(why) => why.code(),
            Self::ResyncBegun { .. } => "bits-set",
            Self::InSync { .. } => "nothing-differs",
        }
    }
}

impl Codes for EventKind {
    fn code(&self) -> &'static str {
        match self {
            Self::FormattingNew | Self::FormattingToJoin => "formatting",
            Self::LegUnusable(_) => "leg-unusable",
            Self::OwnLegFailed(_) => "own-leg-failed",
            Self::OwnDiskHangs(_) => "own-disk-hangs",
            Self::OwnDiskAnswers => "own-disk-answers",
            Self::OwnSuperblockFailed(_) => "own-superblock-failed",
            Self::UnitStateLost => "unit-state-lost",
            Self::Fenced { .. } => "fenced",
            Self::Holding(HoldReason::Split { .. }) | Self::StandingBy(StandbyReason::Diverged { .. }) => {
                "split"
            }
            Self::StandingBy(_) => "standing-by",
            Self::PeerBarred(BarCause::Entry(bar)) if bar.is_split() => "split",
            Self::Holding(_) => "holding",
            Self::ConfigChanged(_) => "config-changed",
            Self::ConfigAdopted(_) => "config-adopted",
            Self::Serving { .. } => "serving",
            Self::SteppingDown => "stepping-down",
            Self::SwitchingOver => "switching-over",
            Self::SwitchoverAbandoned(_) => "switchover-abandoned",
            Self::Demoting(_) => "demoting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Orphaned => "orphaned",
            Self::HolderSilent => "holder-silent",
            Self::HolderHeard => "holder-heard",
            Self::NobodyServes => "nobody-serves",
            Self::Frozen(_) => "frozen",
            Self::Thawed => "thawed",
            Self::Promoting { .. } => "promoting",
            Self::PromotionFailed(_) => "promotion-failed",
            Self::PromotionRefused(_) => "promotion-refused",
            Self::ArbiterSilent(_) => "arbiter-silent",
            Self::ArbiterDecided { .. } | Self::NamedHolder { .. } => "arbiter-decided",
            Self::ArbiterOlder { .. } => "arbiter-older",
            Self::ArbiterVacant => "arbiter-vacant",
            Self::PeerJoined => "peer-joined",
            Self::PeerUnreachable(_) => "peer-unreachable",
            Self::PeerFailed(_) => "peer-failed",
            Self::PeerBarred(_) => "peer-barred",
            Self::PeerTakesOver => "peer-takes-over",
            Self::PeerWentOn { .. } => "peer-went-on",
            Self::SplitResolving { .. } => "split-resolving",
            Self::FullCopy(_) => "full-copy",
            Self::OwnFullCopy(_) => "own-full-copy",
            Self::ResyncBegun { .. } => "resync-begun",
            Self::InSync { .. } => "in-sync",
            Self::ResyncPaused => "resync-paused",
            Self::ResyncResumed => "resync-resumed",
            Self::ResyncStopped { .. } => "resync-stopped",
        }
    }
}

impl Codes for Reason {
    fn code(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Restarted => "restarted",
            Self::StartedDegraded => "started-degraded",
            Self::LinkLost => "link-lost",
            Self::TimedOut => "timed-out",
            Self::IoError => "io-error",
            Self::Removed => "removed",
            Self::Rejoined => "rejoined",
            Self::Promoted => "promoted",
            Self::ForcePromoted => "force-promoted",
            Self::SwitchedOver => "switched-over",
            Self::BadRanges => "bad-ranges",
            Self::TakenOver => "taken-over",
            Self::SplitResolved => "split-resolved",
        }
    }
}

impl Codes for StandbyReason {
    fn code(&self) -> &'static str {
        match self {
            Self::PeerHolds => "peer-holds",
            Self::PeerIsNewer { .. } => "peer-is-newer",
            Self::Diverged { .. } => "diverged",
            Self::Demoted => "demoted",
            Self::AskingArbiter => "asking-arbiter",
            Self::AwaitingPromotion => "awaiting-promotion",
            Self::Joining => "joining",
        }
    }
}

impl Codes for SwitchoverTrouble {
    fn code(&self) -> &'static str {
        match self {
            Self::PeerLost => "peer-lost",
            Self::TooSlow => "too-slow",
        }
    }
}

impl Codes for HoldReason {
    fn code(&self) -> &'static str {
        match self {
            Self::PeerUnseen => "peer-unseen",
            Self::PeerRefused(refusal) => refusal.code(),
            Self::CacheLost => "cache-lost",
            Self::SetBack | Self::SetBackAlone => "leg-reverted",
            Self::PeerPromoting => "peer-promoting",
            Self::OwnLegExcluded => "own-leg-excluded",
            Self::ArbiterUnasked => "arbiter-unasked",
            Self::ArbiterUnreachable(_) => "arbiter-silent",
            Self::ArbiterOlder => "arbiter-older",
            Self::ArbiterVacant => "arbiter-vacant",
            Self::Split { .. } => "split",
        }
    }
}

impl Codes for PromoteRefusal {
    fn code(&self) -> &'static str {
        match self {
            Self::AlreadyHolder => "already-holder",
            Self::HolderAlive => "holder-alive",
            Self::NotInSync => "not-in-sync",
            Self::NoData => "no-data",
            Self::Split => "split",
            Self::GenerationsExhausted => "generations-exhausted",
        }
    }
}

impl Codes for command::Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Promote(refusal) => refusal.code(),
            Self::NotHolder => "not-holder",
            Self::NotHolding => "not-holding",
            Self::PeerInSync => "peer-in-sync",
            Self::PeerNotInSync => "peer-not-in-sync",
            Self::Degraded => "degraded",
            Self::LockedOut => "locked-out",
            Self::NotSplit => "not-split",
            Self::PeerMoved => "peer-moved",
            Self::Busy => "busy",
            Self::Waiting => "waiting",
            Self::ArbiterFirst => "arbiter-first",
            Self::OwnLegOut => "own-leg-out",
            Self::Split => "split",
            Self::NoLeg => "no-leg",
        }
    }
}

impl Codes for Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Blank => "peer-blank",
            Self::Probe(_) => "peer-unusable",
            Self::Clone => "peer-is-clone",
            Self::SamePlace => "same-place",
            Self::Geometry => "other-geometry",
            Self::Blocks(_) => "other-blocks",
            Self::ReadOnly { .. } => "newer-features",
            Self::Unprovable => "unprovable",
            Self::NoData => "no-data",
        }
    }
}

impl Codes for FullReason {
    fn code(&self) -> &'static str {
        match self {
            Self::NewLeg => "new-leg",
            Self::Replaced => "leg-replaced",
            Self::NotTracked => "not-tracked",
            Self::Reverted => "leg-reverted",
            Self::Ordered => "ordered",
        }
    }
}

impl Codes for Bar {
    fn code(&self) -> &'static str {
        match self {
            Self::TakingOver => "taking-over",
            Self::Split => "split",
            Self::SetBack => "leg-reverted",
            Self::NotTheMember => "not-the-member",
            Self::Refused(refusal) => refusal.code(),
        }
    }
}

impl Codes for BarCause {
    fn code(&self) -> &'static str {
        match self {
            Self::Entry(bar) => bar.code(),
            Self::Changed => "leg-changed",
            Self::Failed(error) => io_code(*error),
            Self::SourceFailed => "source-failed",
        }
    }
}

impl Codes for FreezeCause {
    fn code(&self) -> &'static str {
        match self {
            Self::Policy(_) => "operator-decides",
            Self::Arbiter(_, ArbiterTrouble::Silent) => "arbiter-silent",
            Self::Arbiter(_, ArbiterTrouble::Older) => "arbiter-older",
            Self::Arbiter(_, ArbiterTrouble::Vacant) => "arbiter-vacant",
            Self::GenerationsExhausted => "generations-exhausted",
        }
    }
}

/// An I/O error's code.
fn io_code(error: IoError) -> &'static str {
    match error {
        IoError::Medium { .. } => "medium-error",
        IoError::Os(_) => "os-error",
        IoError::OutOfRange => "out-of-range",
        IoError::Unsupported => "unsupported",
        IoError::ReadOnly => "read-only",
        IoError::NoSpace => "no-space",
        IoError::LinkDown => "link-lost",
        IoError::TimedOut => "timed-out",
        IoError::Fenced => "fenced",
        IoError::Protocol => "protocol-error",
        IoError::NotReady(NotReady::Standby) => "standby",
        IoError::NotReady(NotReady::Starting) => "starting",
        IoError::NotReady(NotReady::Frozen) => "frozen",
        IoError::NotReady(NotReady::Moving) => "moving",
        IoError::Busy => "busy",
        IoError::Aborted => "aborted",
        IoError::Miscompare { .. } => "miscompare",
    }
}
