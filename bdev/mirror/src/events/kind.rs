//! The kinds of events. Each carries what a reader needs to act; its code is in `codes.rs`, its words in `words.rs`.

use bdev::IoError;
use core::time::Duration;
use thiserror::Error;

use crate::command::{self, Demotion};
use crate::decide::{Bar, DataAge, FullReason, HoldReason, PromoteMode, StandbyReason};
use crate::desk::Side;
use crate::format::{Config, ConfigId, LegIndex, Reason};

/// How much an event asks of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As intended.
    Info,
    /// The array goes on with less than it should have.
    Warning,
    /// I/O stands still, or data are in danger: somebody has to act.
    Alarm,
}

/// Why the peer's leg is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BarCause {
    /// See [`Bar`].
    #[error(transparent)]
    Entry(#[from] Bar),
    /// It is another leg than before the fence.
    #[error("the leg changed while it was fenced")]
    Changed,
    /// It reports errors.
    #[error("{0}")]
    Failed(IoError),
    /// It cannot be brought in sync while this node's leg cannot be read.
    #[error("this node's leg has a medium error: the resync cannot finish")]
    SourceFailed,
}

/// Why I/O stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezeCause {
    /// A leg is gone, for this reason, and the policy leaves the decision to the operator or the cluster manager.
    Policy(Reason),
    /// A leg is gone, for this reason, and the arbiter decides nothing.
    Arbiter(Reason, ArbiterTrouble),
    /// No generation left.
    GenerationsExhausted,
}

/// Why the arbiter decides nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArbiterTrouble {
    /// It does not answer.
    Silent,
    /// It has an older config than it should.
    Older,
    /// It does not know the array.
    Vacant,
}

/// Why a switchover was abandoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SwitchoverTrouble {
    /// The peer's leg went away.
    #[error("the peer's leg went away")]
    PeerLost,
    /// It took too long.
    #[error("it took too long")]
    TooSlow,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    // --- The own leg ---
    /// A blank leg becomes the first of a new array.
    FormattingNew,
    /// A blank leg becomes the other one of the peer's array.
    FormattingToJoin,
    /// The own leg cannot be used, in words.
    LegUnusable(String),
    /// The own leg failed an I/O.
    OwnLegFailed(IoError),
    /// The own disk has had an I/O for so long without an answer.
    OwnDiskHangs(Duration),
    /// It has answered everything.
    OwnDiskAnswers,
    /// Both copies of the logical unit's state on the own leg are damaged.
    UnitStateLost,
    /// The own superblock could not be written; it is tried again.
    OwnSuperblockFailed(IoError),
    /// The peer, as the holder, locked everybody else out of our leg.
    Fenced {
        /// Its node.
        by: u8,
        /// In this generation.
        generation: u64,
    },

    // --- Roles ---
    /// This node stands by.
    StandingBy(StandbyReason),
    /// This node holds still.
    Holding(HoldReason),
    /// A new config is durable on this node's leg.
    ConfigChanged(Config),
    /// On its way to serving, this node goes on from another config than its own leg has: a newer one that the arbiter or the peer's leg
    /// told it of, or, by force, the last one that its data belong to. Or a holder ends, and its own leg has another one than it had.
    ConfigAdopted(Config),
    /// This node serves.
    Serving {
        /// In this generation.
        generation: u64,
    },
    /// A newer generation is at work: this node acknowledges nothing more.
    SteppingDown,
    /// The holder gives the array to its peer.
    SwitchingOver,
    /// It could not.
    SwitchoverAbandoned(SwitchoverTrouble),
    /// The holder stops being it.
    Demoting(Demotion),
    /// The node stops in order.
    Stopping,
    /// It has stopped.
    Stopped,
    /// The peer went away while this leg was being brought in sync from it.
    Orphaned,
    /// This standby does not hear its holder any more.
    HolderSilent,
    /// It hears it.
    HolderHeard,
    /// For longer than hosts are told that a transition takes, nobody this node knows of has served: its ports are unavailable.
    NobodyServes,
    /// I/O stands still.
    Frozen(FreezeCause),
    /// It flows again.
    Thawed,

    // --- Promotions ---
    /// On the way to becoming the holder.
    Promoting {
        /// The generation to take.
        generation: u64,
        /// How.
        mode: PromoteMode,
        /// What will be served.
        data: DataAge,
    },
    /// The own leg failed on the way.
    PromotionFailed(IoError),
    /// It may not be.
    PromotionRefused(command::Refusal),

    // --- The arbiter ---
    /// It does not answer.
    ArbiterSilent(String),
    /// It gave the array to a node.
    ArbiterDecided {
        /// The node.
        holder: LegIndex,
        /// In this generation.
        generation: u64,
    },
    /// It says that this node, which stood by, is the holder: a switchover was cut off behind it.
    NamedHolder {
        /// Since this generation.
        generation: u64,
    },
    /// It has an older config than a leg.
    ArbiterOlder {
        /// The generation that it should have at least.
        expected: u64,
    },
    /// It does not know the array.
    ArbiterVacant,

    // --- The peer's leg ---
    /// It takes part: it has every acknowledged write, and gets each from now on.
    PeerJoined,
    /// Not reachable, in words.
    PeerUnreachable(String),
    /// An I/O on it was not answered as it should.
    PeerFailed(IoError),
    /// It is left alone.
    PeerBarred(BarCause),
    /// The peer is on its way to a newer generation.
    PeerTakesOver,
    /// The peer is in a newer generation.
    PeerWentOn {
        /// That one.
        generation: u64,
    },
    /// The operator has chosen this node's data set: the peer's, which has this config, goes.
    SplitResolving {
        /// The config of the leg that is to be overwritten.
        theirs: ConfigId,
    },
    /// It has to be copied in full.
    FullCopy(FullReason),
    /// This node's leg has to be copied in full, from the peer's.
    OwnFullCopy(FullReason),
    /// Copying begins.
    ResyncBegun {
        /// Bytes out of sync.
        bytes: u64,
    },
    /// A leg is in sync again.
    InSync {
        /// Which.
        side: Side,
        /// In this generation.
        generation: u64,
    },
    /// The operator lets copying wait.
    ResyncPaused,
    /// He lets it go on.
    ResyncResumed,
    /// Copying stopped: the source cannot be read.
    ResyncStopped {
        /// First bad byte of the data area.
        at: u64,
        /// Its error.
        error: IoError,
    },
}

impl EventKind {
    /// How much it asks of the operator.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::LegUnusable(_)
            | Self::OwnDiskHangs(_)
            | Self::Holding(_)
            | Self::StandingBy(StandbyReason::Diverged { .. })
            | Self::Frozen(_)
            | Self::ArbiterOlder { .. }
            | Self::ArbiterVacant
            | Self::UnitStateLost
            | Self::NobodyServes
            | Self::ResyncStopped { .. } => Severity::Alarm,
            Self::PeerBarred(BarCause::Entry(bar)) if bar.is_split() => Severity::Alarm,
            Self::Promoting { data: DataAge::Past | DataAge::Mixed, .. } => Severity::Alarm,
            Self::OwnLegFailed(_)
            | Self::OwnSuperblockFailed(_)
            | Self::SteppingDown
            | Self::SwitchoverAbandoned(_)
            | Self::Demoting(Demotion::AtOnce)
            | Self::Orphaned
            | Self::HolderSilent
            | Self::PromotionFailed(_)
            | Self::PromotionRefused(_)
            | Self::ArbiterSilent(_)
            | Self::PeerUnreachable(_)
            | Self::PeerFailed(_)
            | Self::PeerBarred(_)
            | Self::PeerTakesOver
            | Self::PeerWentOn { .. }
            | Self::SplitResolving { .. }
            | Self::FullCopy(_)
            | Self::OwnFullCopy(_) => Severity::Warning,
            Self::ConfigChanged(config) if config.in_sync.bits().count_ones() < 2 => Severity::Warning,
            _ => Severity::Info,
        }
    }
}
